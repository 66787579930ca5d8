"""Generators of requests, mutations of them, and the driver that sends both to a running server and judges every answer.

Used by tests/e2e/test_fuzz.py for seconds and by benchmarks/fuzz.py for as long as wanted. Everything follows from one seed.
"""
