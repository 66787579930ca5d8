"""What TensorFlow's exceptions mean, in kinds and words that help. Called by the SavedModel runtime when a model does not load or a graph fails."""

import re
from pathlib import Path

from dragoman.core.errors import Kind, ServingError

LONGEST = 1024
"""TensorFlow Serving cuts what a graph says here."""
_KINDS = {
    "InvalidArgumentError": Kind.INVALID_INPUT,
    "OutOfRangeError": Kind.INVALID_INPUT,
    "FailedPreconditionError": Kind.INVALID_INPUT,
    "NotFoundError": Kind.INVALID_INPUT,
    "AlreadyExistsError": Kind.CONFLICT,
    "ResourceExhaustedError": Kind.OVERLOADED,
    "UnimplementedError": Kind.UNSUPPORTED,
    "UnavailableError": Kind.UNAVAILABLE,
    "DeadlineExceededError": Kind.TIMEOUT,
    "CancelledError": Kind.CANCELLED,
    "AbortedError": Kind.CANCELLED,
    "UnicodeDecodeError": Kind.INVALID_INPUT,
}
"""By the name of TensorFlow's exception, as its canonical codes are the caller's or the model's doing."""
_OPERATION = re.compile(r"Op type not registered '([^']{1,200})'")
_FILE = re.compile(r"(?:/[^\s/:;'\"]+)+/")


def at_run(error: Exception, model: str) -> ServingError:
    """A graph's failure with TensorFlow's text, which clients of TensorFlow Serving know; one line."""
    kind = _KINDS.get(type(error).__name__, Kind.MODEL_FAILED)
    what = "refused the input" if kind is Kind.INVALID_INPUT else "failed"
    return ServingError(kind, cut(f"model '{model}' {what}: {plain(error)}"))


def at_load(error: Exception, model: str, folder: Path, version: str) -> ServingError:
    """Why a SavedModel does not load. Names no folder of this machine."""
    if isinstance(error, ServingError):
        return error
    text = plain(error)
    if (match := _OPERATION.search(text)) is not None:
        return ServingError(
            Kind.UNSUPPORTED,
            f"model '{model}' uses the operation {match[1]}, which TensorFlow {version} does not have: it belongs to another version, or to a"
            " library of operations that is not installed here",
            what="model",
        )
    reason = _FILE.sub("", text.replace(str(folder), ".")) or type(error).__name__
    return ServingError(Kind.INVALID_INPUT, cut(f"TensorFlow {version} cannot load model '{model}': {reason}"), what="model")


def plain(error: Exception) -> str:
    """TensorFlow's message in one line."""
    if isinstance(error, UnicodeDecodeError):  # its bindings could not make a text of the message, which quotes the input
        return " ".join(error.object.decode("utf-8", "replace").split())
    return " ".join(str(getattr(error, "message", "") or error).split())


def cut(text: str) -> str:
    """At most so many characters as TensorFlow Serving sends."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 12]}...TRUNCATED"
