"""Drawn portraits, and training of the mini model on them."""
