"""The server's own face: the start page, and the API under /dragoman/v1/ that our command line and pages use."""
