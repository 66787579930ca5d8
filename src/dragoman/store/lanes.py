"""A lane: one thread with a database connection of its own, which runs calls in groups of one transaction each.

A store has two, one that writes and one that reads, so reads never wait for writes. Calls that arrive while a group is being written form
the next one, so that thousands of single writes a second become some hundred commits. A call is answered after its commit.
"""

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from sqlalchemy import Connection

from dragoman.core.errors import Kind, ServingError
from dragoman.store.database import ClashError, OutageError

log = logging.getLogger("dragoman.store")

A = TypeVar("A")
R = TypeVar("R")

Transactions = Callable[[], AbstractContextManager[Connection]]
"""Opens one transaction, commits at the end, rolls back on an exception. Whatever the database raises, it raises as ServingError."""

MOST_TOGETHER = 256
"""Calls of one transaction; other processes wait for the file as long as it takes."""
MOST_WAITING = 20_000
_CLOSE_S = 30.0
_TRIES = 5
"""For a call that other processes come in between."""


class _Call:
    __slots__ = ("after", "answer", "argument", "future", "loop", "work")

    def __init__(self, work: Any, argument: Any, after: Callable[[Any], None] | None) -> None:
        self.work = work
        self.argument = argument
        self.after = after
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.answer: Any = None


class Lane:
    """Runs `work(connection, [argument, ...])`, which answers with one result per argument. Any event loop may call it."""

    def __init__(self, name: str, transactions: Transactions, *, disconnect: Callable[[], None]) -> None:
        self._transactions = transactions
        self._disconnect = disconnect
        self._waiting: deque[_Call] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    async def run(
        self, work: Callable[[Connection, Sequence[A]], Sequence[R]], argument: A, *, after: Callable[[R | None], None] | None = None
    ) -> R:
        """The result for this argument, once its transaction is committed. Calls with the same `work` are handed to it together.

        If `work` raises for several arguments, it is called again for each by itself, so it may raise for one of them without harm to
        strangers; it is called again, too, where another process came in between. `after` is called in the lane's thread with the
        result, None if it failed: also when nobody awaits it any more.
        """
        call = _Call(work, argument, after)
        with self._changed:
            refused = self._refusal()
            if refused is None:
                self._waiting.append(call)
                self._changed.notify()
        if refused is not None:
            if after is not None:
                after(None)
            raise refused
        result: R = await call.future
        return result

    def _refusal(self) -> ServingError | None:
        if self._closing:
            return ServingError(Kind.UNAVAILABLE, "the server's database is closed: the server is stopping")
        if len(self._waiting) >= MOST_WAITING:
            message = f"{MOST_WAITING} calls wait for the server's database: try again later"
            return ServingError(Kind.OVERLOADED, message, retry_after_s=1.0)
        return None

    async def close(self) -> None:
        """Finish what waits, then close the connection. Later calls are refused."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join, _CLOSE_S)

    # --- in the lane's thread ---

    def _serve(self) -> None:
        try:
            while group := self._next():
                self._apply(group)
                _deliver(group)
        finally:
            self._disconnect()

    def _next(self) -> list[_Call]:
        """What waits, up to the bound; empty when the lane is closed and nothing is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_TOGETHER))]

    def _apply(self, group: Sequence[_Call]) -> None:
        """Run the group; where that fails each call by itself, so that only the bad one fails. After a clash it is run again."""
        kinds: dict[Any, list[_Call]] = {}
        for call in group:
            kinds.setdefault(call.work, []).append(call)
        failure: Exception
        for left in reversed(range(_TRIES)):
            try:
                with self._transactions() as connection:
                    for work, calls in kinds.items():
                        for call, result in zip(calls, work(connection, [call.argument for call in calls]), strict=True):
                            call.answer = result
                return
            except Exception as error:  # the border between a call and the thread that serves all of them
                failure = error
                if not isinstance(error, ClashError) or not left:
                    break
        for call in group:
            call.answer = failure
            if len(group) > 1 and not isinstance(failure, OutageError):
                self._apply([call])


def _deliver(group: Sequence[_Call]) -> None:
    """Wake each loop once for all its calls: a wake-up is a system call."""
    loops: dict[asyncio.AbstractEventLoop, list[_Call]] = {}
    for call in group:
        if call.after is not None:
            try:
                call.after(None if isinstance(call.answer, Exception) else call.answer)
            except Exception:  # it must not take the lane with it
                log.exception("what follows a call of the database failed")
        loops.setdefault(call.loop, []).append(call)
    for loop, calls in loops.items():
        with contextlib.suppress(RuntimeError):  # a loop that is closed has nobody who waits
            loop.call_soon_threadsafe(_resolve, calls)


def _resolve(calls: Sequence[_Call]) -> None:
    for call in calls:
        if call.future.done():
            continue
        if isinstance(call.answer, Exception):
            call.future.set_exception(call.answer)
        else:
            call.future.set_result(call.answer)
