"""Measures the server beside others in one run: `python -m benchmarks`, or `make bench`. What each figure means is in README.md."""
