"""File locks between processes: what keeps builders and users of a virtualenv apart, two that fetch the same model, two that write one file.

A lock is flock(2) on an open file: it ends with the process that has it, however that ends, and two openings in one process count as two.
Lock files are empty and are never removed, since a lock on a removed file keeps nobody out.
"""

import asyncio
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Self

_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.5


class FileLock:
    """A lock that is held; `close` gives it up, once or several times."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def attempt(cls, path: Path, *, shared: bool = False) -> "FileLock | None":
        """The lock if nobody is in the way."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor)

    @classmethod
    def take(cls, path: Path, *, shared: bool = False) -> "FileLock":
        """The lock, as soon as it can be had; blocks until then."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor)

    @classmethod
    async def wait(cls, path: Path, *, shared: bool = False, waiting: Callable[[], None] = lambda: None) -> "FileLock":
        """The lock, as soon as it can be had; `waiting` is called once if that is not at once. It asks again and again: a thread that
        waits in flock could not be cancelled."""
        pause = _FIRST_PAUSE_S
        lock = cls.attempt(path, shared=shared)
        if lock is None:
            waiting()
        while lock is None:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            lock = cls.attempt(path, shared=shared)
        return lock

    @property
    def held(self) -> bool:
        return self._descriptor >= 0

    def close(self) -> None:
        if self.held:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
