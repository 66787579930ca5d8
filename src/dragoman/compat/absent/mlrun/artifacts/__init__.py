"""Model folders as MLRun logs them: a model file, `model_spec.yaml` with its schema, and extra files."""

from .model import ModelArtifact, get_model

__all__ = ["ModelArtifact", "get_model"]
