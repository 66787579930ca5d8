"""Gradient's API of deployments: ours, and the paths that the original's client and command line call."""
