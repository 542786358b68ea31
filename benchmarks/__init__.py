"""Speed and memory of the main jobs, as ratios against the reference's way: ``python -m benchmarks``."""
