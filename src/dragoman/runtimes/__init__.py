"""One module per model format: load(spec) -> Model. Frameworks are imported inside load."""
