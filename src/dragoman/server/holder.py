"""The lock of a SQLite store: one server at a time serves from it, and whoever comes second is told who that is.

Taken by `dragoman serve` and `dragoman.serve` before they bind a port. The kernel holds it for the process, and for the workers that inherit
it: it is free when the last of them has ended, however that was. Commands that look into the store or change it need no lock.
"""

import contextlib
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.paths import private_folder
from dragoman.store.addresses import sqlite_path

log = logging.getLogger("dragoman")

_LEFTOVERS_S = 45.0
"""How long the workers of a server that was killed may take to end."""
_RETRY_S = 0.05


class TakenError(ServingError):
    """Another server holds the store."""


class Holder:
    """The lock on the store at a URL. A context manager: left, the lock is this process's no more.

    Raises TakenError (UNAVAILABLE) naming the holder. A store that is a server of its own needs none, and where the folder cannot be written
    there is none: then nothing can be stored there either.
    """

    def __init__(self, url: str, addresses: Sequence[str], *, wait_s: float = _LEFTOVERS_S) -> None:
        """`wait_s`: for the workers of a server that is dead itself."""
        self._wait_s = wait_s
        self._file: int | None = None
        database = sqlite_path(url)
        if database is None:
            return
        path = database.with_name(f"{database.name}.lock")
        try:
            private_folder(path.parent)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            log.warning("%s cannot be locked (%s): see to it that no second server uses it", path.parent, error.strerror)
            return
        try:
            self._lock(self._file, path)
        except BaseException:
            self.close()
            raise
        self._began = time.time()
        self.say(addresses)

    @property
    def inherited(self) -> tuple[int, ...]:
        """The descriptors that workers must inherit."""
        return () if self._file is None else (self._file,)

    def say(self, addresses: Sequence[str]) -> None:
        """Write down where this server answers, for whoever finds the lock taken."""
        if self._file is None:
            return
        about = {"pid": os.getpid(), "host": socket.gethostname(), "addresses": list(addresses), "since": _written(self._began)}
        content = json.dumps(about).encode()
        with contextlib.suppress(OSError):  # a disk that is full: the lock holds all the same
            os.ftruncate(self._file, os.pwrite(self._file, content, 0))

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lock(self, file: int, path: Path) -> None:
        until = time.monotonic() + self._wait_s
        waited = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                about = _read(file)
            except OSError as error:  # a file system without locks
                log.warning("%s cannot be locked (%s): see to it that no second server uses it", path.parent, error.strerror)
                return
            if not _died(about) or time.monotonic() > until:
                raise TakenError(Kind.UNAVAILABLE, _taken(path, about), what="store")
            if not waited:
                waited = True
                log.warning("the server that used %s is gone, and its last workers are still ending: waiting for them", path.parent)
            time.sleep(_RETRY_S)


def _taken(path: Path, about: dict[str, Any]) -> str:
    words = ["another server"]
    if about:
        words.append(f"(process {about['pid']}, {', '.join(about['addresses']) or 'not listening yet'}, since {about['since']})")
    return (
        f"{' '.join(words)} serves from the store in {path.parent}: end it, or start this one with another --data-dir,"
        " or let both share a store in PostgreSQL (--store postgresql://...)"
    )


def _read(file: int) -> dict[str, Any]:
    """Who holds it; empty while that is not written yet, or cannot be read."""
    try:
        about = json.loads(os.pread(file, 65536, 0))
    except (OSError, ValueError):
        return {}
    match about:
        case {"pid": int(), "host": str(), "addresses": list(), "since": str()}:
            return {**about, "addresses": [str(each) for each in about["addresses"]]}
    return {}


def _died(about: dict[str, Any]) -> bool:
    """Whether the process that took the lock is gone, as far as this machine knows: then only its workers hold it."""
    if about.get("host") != socket.gethostname():
        return False
    try:
        os.kill(about["pid"], 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _written(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))
