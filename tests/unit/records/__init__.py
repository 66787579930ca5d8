"""Tracking records: what is recorded, how it is queued, where it goes."""
