"""Benchmarks: speed and memory relative to PyTorch; see README.md in this folder."""
