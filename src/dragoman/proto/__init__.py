"""Protobuf definitions written by us, wire-compatible with their originals."""
