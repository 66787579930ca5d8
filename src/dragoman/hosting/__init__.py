"""A loaded model and what stands in front of it; also runs inside a model's own virtualenv."""
