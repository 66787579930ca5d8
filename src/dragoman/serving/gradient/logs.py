"""The log of each deployment: what became of it, and what its model prints; one file per deployment in the data directory. Blocking.

The service writes what becomes of it; a handler of the server's log adds the prints of model processes and the errors of its model, in
whichever process of the server they arise. Of a log that grows beyond a size the older half is dropped.
"""

import logging
import os
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dragoman.serving.gradient.records import ID

FOLDER = "deployments"
MODELS = "dragoman.models"
_LARGEST = 4 << 20
"""Bytes of one of the two files that a log has."""
_LONGEST_LINE = 8192
MOST_ROWS = 10_000
_LINE_BREAKS = re.compile(r"[\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029]+")
_MENTIONED = re.compile(rf"'({ID.pattern})'")


@dataclass(frozen=True, slots=True)
class Row:
    """One line. They are counted from 1, from the oldest that is kept."""

    line: int
    message: str
    timestamp: str


class Logs:
    """`data_path` is the server's data directory."""

    def __init__(self, data_path: Path) -> None:
        self._folder = data_path / FOLDER

    def begin(self, deployment: str) -> None:
        """Make its file: only what has one is written to."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._path(deployment).touch()

    def say(self, deployment: str, text: str) -> None:
        """Add lines. A log that is not there, or cannot be written, is nobody's trouble."""
        now = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        lines = [line for line in _LINE_BREAKS.split(text) if line] or [""]
        written = "".join(f"{now} {line[:_LONGEST_LINE]}\n" for line in lines).encode("utf-8", "backslashreplace")
        path = self._path(deployment)
        try:
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError:
            return
        try:
            os.write(file, written)
            if os.fstat(file).st_size > _LARGEST:
                os.replace(path, self._older(deployment))
                path.touch()
        except OSError:
            pass
        finally:
            os.close(file)

    def read(self, deployment: str, line: int = 0, limit: int = MOST_ROWS) -> list[Row]:
        """The lines behind the first `line` ones, at most so many."""
        text = b"".join(_bytes(path) for path in (self._older(deployment), self._path(deployment)))
        lines = text.decode("utf-8", "replace").splitlines()
        found = []
        for number, each in enumerate(lines[line : line + min(limit, MOST_ROWS)], line + 1):
            moment, _, message = each.partition(" ")
            found.append(Row(number, message, moment))
        return found

    def remove(self, deployment: str) -> None:
        for path in (self._path(deployment), self._older(deployment)):
            path.unlink(missing_ok=True)

    def _path(self, deployment: str) -> Path:
        assert ID.fullmatch(deployment)
        return self._folder / f"{deployment}.log"

    def _older(self, deployment: str) -> Path:
        return self._path(deployment).with_suffix(".log.1")


class LogHandler(logging.Handler):
    """Writes into the logs of deployments what the server logs about their models."""

    def __init__(self, logs: Logs) -> None:
        super().__init__(logging.INFO)
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        own = record.name.removeprefix(f"{MODELS}.")
        if ID.fullmatch(own):
            self._logs.say(own, record.getMessage())
        elif record.levelno >= logging.WARNING and (found := _MENTIONED.search(message := record.getMessage())) is not None:
            self._logs.say(found[1], message)


def attach(logs: Logs) -> LogHandler:
    """Collect from now on, in this process; `detach` ends that."""
    handler = LogHandler(logs)
    logging.getLogger(MODELS).addHandler(handler)
    return handler


def detach(handler: LogHandler) -> None:
    logging.getLogger(MODELS).removeHandler(handler)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
