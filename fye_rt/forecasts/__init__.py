"""Forecasters: which steps are evaluated, and how the others are forecast."""
