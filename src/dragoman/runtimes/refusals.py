"""What a model says to a call that it cannot be asked. The gateway has compared most calls with the signature; models are also called without it.

Called by the `predict` of the runtimes. All are INVALID_INPUT.
"""

from dragoman.core.errors import ServingError, invalid


def takes_tensors(model: str) -> ServingError:
    return invalid(f"model '{model}' takes tensors, not rows")


def no_signature(model: str, name: str) -> ServingError:
    return invalid(f"model '{model}' has no signature '{name}'", "signature")


def no_input(model: str, name: str) -> ServingError:
    return invalid(f"model '{model}' has no input '{name}'")


def needs_input(model: str, name: str) -> ServingError:
    return invalid(f"model '{model}' needs the input '{name}'")


def no_output(model: str, name: str) -> ServingError:
    return invalid(f"model '{model}' has no output '{name}'", "output")
