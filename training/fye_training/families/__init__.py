"""Random characters of each family."""
