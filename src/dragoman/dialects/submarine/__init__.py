"""Apache Submarine's serve API and model registry (/api/v1/serve, /api/v1/registered-model, /api/v1/model-version), as of release 0.8.0."""
