"""What user code prints in a model process: to the real descriptors, which the owner reads, and to whoever follows the running batch."""

import contextlib
import io
import os
import sys
from collections import deque
from collections.abc import Callable
from typing import IO, Any

_PENDING = 256 << 10
"""Characters that may wait to be sent; what a model prints beyond that is in the log of the server only."""


class Tee(io.TextIOBase):
    """A text stream that writes through to a descriptor and tells `heard` what was written. Any thread may write."""

    def __init__(self, below: IO[Any], heard: Callable[[str], None]) -> None:
        self._below = below
        self._descriptor = below.fileno()
        self._heard = heard

    @property
    def buffer(self) -> Any:
        """For those who write bytes; nobody but the log hears these."""
        return self._below.buffer  # type: ignore[attr-defined] # the streams of a process have one

    @property
    def encoding(self) -> str:  # type: ignore[override] # typeshed has an attribute; this one is fixed
        return "utf-8"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, text: str) -> int:
        data = memoryview(text.encode("utf-8", "backslashreplace"))
        with contextlib.suppress(OSError):  # the owner is gone, and this process will be in a moment
            while data:
                data = data[os.write(self._descriptor, data) :]
        self._heard(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._below.flush()


class Pieces:
    """Printed text on its way from any thread to the loop: bounded, and posted once however many pieces come.

    Without a lock: an interrupted call must not leave one behind.
    """

    def __init__(self, post: Callable[[], None]) -> None:
        self._post = post
        self._posted = False
        self._pieces: deque[tuple[int, str]] = deque()
        self._length = 0
        self._left_out = 0

    def add(self, batch: int, text: str) -> None:
        if self._length + len(text) > _PENDING:
            self._left_out += len(text)
            return
        self._length += len(text)
        self._pieces.append((batch, text))
        if not self._posted:
            self._posted = True
            self._post()

    def take(self) -> list[tuple[int, str]]:
        """(batch, text) of everything that has come, in order, neighbours joined."""
        self._posted = False  # first: what comes from now on is posted again
        self._length = 0
        left_out, self._left_out = self._left_out, 0
        joined: list[tuple[int, str]] = []
        while self._pieces:
            batch, text = self._pieces.popleft()
            if joined and joined[-1][0] == batch:
                joined[-1] = (batch, joined[-1][1] + text)
            else:
                joined.append((batch, text))
        if left_out and joined:
            joined.append((joined[-1][0], f"\n... {left_out} characters left out ...\n"))
        return joined


def follow(heard: Callable[[str], None]) -> None:
    """Put tees in the place of this process's standard output and standard error."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        stream.flush()
        setattr(sys, name, Tee(stream, heard))
