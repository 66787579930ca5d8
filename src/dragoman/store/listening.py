"""A bell over PostgreSQL: a connection that listens (LISTEN), and is made again when it is lost. Made by postgres.py.

Whoever waits never sees a failure: while the database is away nothing can have changed that anybody could read.
"""

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import psycopg

from dragoman.store.bells import readable

_PAUSE_S = 1.0
"""Between attempts to connect."""
_LONGEST_S = 15.0
"""That anybody waits for an attempt at once."""


class ListeningBell:
    """Implements `dragoman.store.Bell`. `connect` blocks and gives a connection in which each statement is a transaction."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]], channel: str) -> None:
        self._connect = connect
        self._channel = channel
        self._connection: psycopg.Connection[Any] | None = None
        self._connecting: asyncio.Task[psycopg.Connection[Any]] | None = None

    @classmethod
    async def connected(cls, connect: Callable[[], psycopg.Connection[Any]], channel: str) -> "ListeningBell":
        """One that listens, unless the database is away just now."""
        bell = cls(connect, channel)
        await bell._reconnected(math.inf)
        return bell

    async def rung(self, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        while not (await self._reconnected(until) if self._connection is None else self._heard()):  # unconnected, who knows what was missed
            left_s = until - time.monotonic()
            if left_s <= 0:
                return
            if self._connection is None:
                await asyncio.sleep(min(_PAUSE_S, left_s))
            else:
                await readable(self._connection.fileno(), left_s)

    async def close(self) -> None:
        if self._connecting is not None:
            await asyncio.wait({self._connecting})
            if not self._connecting.cancelled() and self._connecting.exception() is None:
                self._connection = self._connecting.result()
            self._connecting = None
        self._disconnect()

    def _heard(self) -> bool:
        """Whether it was rung. A connection that is lost is given up."""
        assert self._connection is not None
        rung = False
        try:
            self._connection.pgconn.consume_input()
            while self._connection.pgconn.notifies() is not None:
                rung = True
        except psycopg.Error:
            self._disconnect()
        return rung

    async def _reconnected(self, until: float) -> bool:
        """Whether it listens (again). An attempt goes on in its thread when the time is over, and is waited for the next time."""
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(asyncio.to_thread(self._listening))
        left_s = max(0.0, until - time.monotonic())
        await asyncio.wait({self._connecting}, timeout=min(left_s, _LONGEST_S))
        if not self._connecting.done():
            return False
        attempt, self._connecting = self._connecting, None
        try:
            self._connection = attempt.result()
        except (psycopg.Error, OSError):
            return False
        return True

    def _listening(self) -> psycopg.Connection[Any]:
        connection = self._connect()
        try:
            connection.execute(f"LISTEN {self._channel}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
