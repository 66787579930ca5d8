"""Stand-ins that count only where the original is not installed: in a model's process this folder is last on sys.path."""
