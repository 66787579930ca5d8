"""The one error type of the server and its kinds. Raised everywhere, answered by each dialect in its own words.

ServingError
 |- the caller's doing     INVALID_INPUT  NOT_FOUND  CONFLICT  UNSUPPORTED  TOO_LARGE  UNAUTHENTICATED  FORBIDDEN  CANCELLED
 |- try again later        NOT_READY  OVERLOADED  TIMEOUT  UNAVAILABLE
 `- ours or the model's    MODEL_FAILED  INTERNAL

There are no status codes here: each dialect owns a total table from kind to its own answer.
"""

from dataclasses import dataclass, field
from enum import Enum, unique


@unique
class Kind(Enum):
    """What went wrong, in terms that every dialect can translate."""

    INVALID_INPUT = "invalid_input"
    NOT_FOUND = "not_found"
    NOT_READY = "not_ready"
    """The model is known and loading; asking again later can succeed."""
    CONFLICT = "conflict"
    OVERLOADED = "overloaded"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    MODEL_FAILED = "model_failed"
    """The model's own code raised, or answered what its signature does not allow."""
    UNSUPPORTED = "unsupported"
    UNAVAILABLE = "unavailable"
    """The model is known but cannot serve: it failed to load, was unloaded, or the server is draining."""
    TOO_LARGE = "too_large"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Problem:
    """One of several faults of one input: where (`path` of keys and indexes), which (`code`), and limits in `context`."""

    path: tuple[str | int, ...]
    code: str
    message: str
    context: dict[str, object] = field(default_factory=dict)


class ServingError(Exception):
    """Every failure that a caller is told about.

    `message` names the model and field and what was expected; it is safe to send to strangers. `what` refines the kind where a dialect
    answers differently by subject: model, version, label, signature, output, operation, prediction, job, body, or "" for none of these.
    `trace` is the model's traceback: for the log and the owner of a prediction, never for other callers.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        what: str = "",
        problems: tuple[Problem, ...] = (),
        retry_after_s: float | None = None,
        status: int | None = None,
        trace: str = "",
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.what = what
        self.problems = problems
        self.retry_after_s = retry_after_s
        self.status = status
        self.trace = trace

    def __repr__(self) -> str:
        return f"ServingError({self.kind.name}, {self.message!r})"


def invalid(message: str, what: str = "") -> ServingError:
    """A ServingError of kind INVALID_INPUT: the most frequent one."""
    return ServingError(Kind.INVALID_INPUT, message, what=what)
