"""Deployments as Gradient had them: objects with an id, a state and an endpoint, behind which a model is served. Used by dialects/gradient."""
