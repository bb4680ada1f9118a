"""Drawn portraits, and the training of the mini model on them."""
