"""Accepting connections from one listening socket, shared out fairly when several workers listen on it. Called by http.py.

asyncio's own servers accept until nothing waits. With a socket that several processes share, the first to wake then takes every client that
connects in the same moment: of 16 connections one of two workers had 12 to 16 (measured), and a core stood idle. Here each worker
publishes how many connections it has, and lets one that has fewer go first, for some milliseconds at most.
"""

import asyncio
import errno
import logging
import mmap
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

log = logging.getLogger("dragoman.http")

Take: TypeAlias = Callable[[socket.socket], None]

_PAUSE_S = 0.001
_MOST_PAUSES = 10
"""How often in a row a worker lets others go first: one of them may be dead, or busy with a long run."""
_MOST_AT_ONCE = 64
_OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RECOVERY_S = 1.0


class Peers:
    """How many connections each of `count` workers has, in a file that they share; this one is number `index`."""

    def __init__(self, file: Path, index: int, count: int) -> None:
        with file.open("a+b") as opened:
            opened.truncate(count * 8)
            self._counts = memoryview(mmap.mmap(opened.fileno(), count * 8)).cast("q")
        self._index = index
        self.publish(0)

    def publish(self, connections: int) -> None:
        """Say how many this worker has."""
        self._counts[self._index] = connections

    def ahead(self, connections: int) -> bool:
        """Whether another worker has fewer than this."""
        return min(self._counts) < connections


class Acceptor:
    """Calls `take` with each accepted socket until `stop`. `connections` says how many this worker has; with `peers` it waits its turn."""

    def __init__(self, listener: socket.socket, take: Take, connections: Callable[[], int], peers: Peers | None = None) -> None:
        self._listener = listener
        self._take = take
        self._connections = connections
        self._peers = peers
        self._at_once = _MOST_AT_ONCE if peers is None else 1
        self._loop = asyncio.get_running_loop()
        self._pauses = 0
        self._resuming: asyncio.TimerHandle | None = None
        self._loop.add_reader(listener.fileno(), self._ready)

    def stop(self) -> list[socket.socket]:
        """Stop listening; returns the connections that the kernel had already made, which closing alone would reset."""
        if self._resuming is not None:
            self._resuming.cancel()
        else:
            self._loop.remove_reader(self._listener.fileno())
        waiting = []
        try:
            while True:
                waiting.append(self._listener.accept()[0])
        except OSError:  # none is left
            pass
        self._listener.close()
        return waiting

    def _ready(self) -> None:
        if self._peers is not None:
            connections = self._connections()
            self._peers.publish(connections)
            if self._pauses < _MOST_PAUSES and self._peers.ahead(connections):
                self._pauses += 1
                self._rest(_PAUSE_S)
                return
            self._pauses = 0
        for _ in range(self._at_once):
            try:
                accepted, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_FILES:
                    raise
                log.error("no connection can be accepted for now: %s", error.strerror)  # noqa: TRY400 # the traceback says no more
                self._rest(_RECOVERY_S)
                return
            self._take(accepted)

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._resuming = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._resuming = None
        self._loop.add_reader(self._listener.fileno(), self._ready)
