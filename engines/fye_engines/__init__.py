"""Engines for NVIDIA GPUs: prepares a bundle's graphs for TensorRT, then builds and caches plans."""
