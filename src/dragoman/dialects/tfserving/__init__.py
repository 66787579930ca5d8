"""TensorFlow Serving's REST dialect."""
