"""The version of fye-rt."""

__version__ = "0.1.0"
