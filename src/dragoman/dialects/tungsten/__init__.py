"""Tungsten: asynchronous and synchronous predictions over rows, for every model, at the root and under /models/NAME."""
