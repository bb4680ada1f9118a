"""Latency, quality and kernel benchmarks, and the baseline they compare with."""
