"""What callers are shown of a prediction: View and Event, and how errors and logs become texts. Made by the service, written out by dialects."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from dragoman.core.errors import Kind, ServingError
from dragoman.core.predictions import Prediction, Progress
from dragoman.core.tensors import Value

MOST_LOG = 256 * 1024
"""Characters of log that are kept of one prediction: the last ones."""
_MOST_ERROR = 64 * 1024
_MARK = 64
CANCELED = "Canceled"
TIMED_OUT = "Timeout"
_SPECIAL = {Kind.CANCELLED: CANCELED, Kind.TIMEOUT: TIMED_OUT}


@dataclass(frozen=True, slots=True)
class View:
    """One prediction at one moment. `outputs` are there once it has succeeded; times are seconds since the epoch."""

    id: str
    model: str
    version: str
    operation: str
    progress: Progress
    outputs: list[Value] | None
    error: str
    """For whoever asked; the model's traceback may be part of it. "" unless it failed or was cancelled."""
    error_kind: str
    """A `Kind`'s value, "" without an error."""
    logs: str
    created: float
    started: float | None
    finished: float | None


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to a prediction: its progress changed (`view`), it printed something (`text`), or nothing did for a while ("idle")."""

    kind: Literal["status", "log", "idle"]
    view: View
    text: str = ""


Unpack: TypeAlias = Callable[[bytes], list[Value]]


def view_of(record: Prediction, unpack: Unpack) -> View:
    """A stored prediction as callers see it."""
    outputs = unpack(record.outputs) if record.progress is Progress.SUCCEEDED and record.outputs is not None else None
    return View(
        id=record.id,
        model=record.model,
        version=record.version,
        operation=record.operation,
        progress=record.progress,
        outputs=outputs,
        error=record.error,
        error_kind=record.error_kind,
        logs=record.logs,
        created=record.created,
        started=record.started,
        finished=record.finished,
    )


def error_text(error: ServingError) -> str:
    """What the owner of a prediction reads: the traceback of the model's code where there is one, else "Kind: message"."""
    if error.kind in _SPECIAL:
        return _SPECIAL[error.kind]
    text = plain(error.trace or f"{''.join(word.title() for word in error.kind.name.split('_'))}: {error.message}")
    return text if len(text) <= _MOST_ERROR else f"{text[:1000]}\n...\n{text[1000 - _MOST_ERROR :]}"


def plain(text: str) -> str:
    """Text that every database and encoder takes: no half surrogate pairs, no NUL."""
    if text.isascii():
        return text.replace("\0", "\ufffd")
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


class Tail:
    """The last MOST_LOG characters of what was appended."""

    __slots__ = ("_pieces", "_size")

    def __init__(self, text: str = "") -> None:
        self._pieces = [text] if text else []
        self._size = len(text)

    def append(self, text: str) -> None:
        self._pieces.append(plain(text))
        self._size += len(text)
        if self._size > 2 * MOST_LOG:  # now and then, so that a piece costs its own length and not that of the whole
            self._join()

    @property
    def text(self) -> str:
        if len(self._pieces) > 1 or self._size > MOST_LOG:
            self._join()
        return self._pieces[0] if self._pieces else ""

    def _join(self) -> None:
        text = "".join(self._pieces)[-MOST_LOG:]
        self._pieces = [text]
        self._size = len(text)


def fresh(old: str, new: str) -> str:
    """What a log has gained since it read `old`; its beginning may have been dropped meanwhile."""
    if new.startswith(old):
        return new[len(old) :]
    mark = old[-_MARK:]
    at = new.rfind(mark)
    while at != -1:
        end = at + len(mark)
        if old.endswith(new[:end]):
            return new[end:]
        at = new.rfind(mark, 0, end - 1)
    return f"\n[...]\n{new}"
