"""Tiny models that tests serve, built by code so that nothing binary is kept in the repository."""
