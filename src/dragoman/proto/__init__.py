"""Protobuf: definitions written by us, wire-compatible with their originals, their classes, and their wire format."""
