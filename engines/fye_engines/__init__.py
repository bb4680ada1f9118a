"""Engines for NVIDIA GPUs: graphs of a bundle made fit for TensorRT, built and kept as plans."""
