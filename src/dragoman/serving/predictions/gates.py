"""How many rows of asynchronous predictions are handed to one model at a time, first come, first served. Used by the service only.

Accepted predictions wait here rather than in the model's queue: a queue that is full refuses, and an accepted prediction may not fail so.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from dragoman.core.model import ModelSpec

MOST_ROWS = 1024
"""Enough for full batches of every model, few enough to cost nothing."""


class Gate:
    """Room for `capacity` rows; a call of more than that passes alone."""

    __slots__ = ("_capacity", "_used", "_waiting")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def enter(self, rows: int) -> AsyncGenerator[None, None]:
        """Wait for room and hold it. Whoever is cancelled while waiting gives up its place."""
        weight = min(rows, self._capacity)
        if self._waiting or self._used + weight > self._capacity:
            place = (weight, asyncio.get_running_loop().create_future())
            self._waiting.append(place)
            try:
                await place[1]
            except asyncio.CancelledError:
                if not place[1].cancelled():  # it had just been let in
                    self._used -= weight
                elif place in self._waiting:
                    self._waiting.remove(place)
                self._let_in()
                raise
        else:
            self._used += weight
        try:
            yield
        finally:
            self._used -= weight
            self._let_in()

    def _let_in(self) -> None:
        while self._waiting and (self._waiting[0][1].done() or self._used + self._waiting[0][0] <= self._capacity):
            weight, place = self._waiting.popleft()
            if not place.done():
                self._used += weight
                place.set_result(None)


def capacity(spec: ModelSpec) -> int:
    """Half of the model's queue, so that direct requests find room beside predictions."""
    return max(1, min(MOST_ROWS, spec.batch.max_queue // 2)) if spec.batch.max_queue else MOST_ROWS
