"""Dragoman: one model server, any model, every client's protocol."""

__version__ = "0.1.0"
