"""MLflow's protocols: its registry, artifacts and runs (registry.py), so that its client registers models here, and its scoring server."""
