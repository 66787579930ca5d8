"""MLflow's protocols: the registry's REST API, and the scoring server's `/invocations`."""
