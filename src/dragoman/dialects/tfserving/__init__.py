"""TensorFlow Serving's REST protocol, and Gradient's deployments, which speak it under another prefix."""
