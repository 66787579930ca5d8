"""Running a coroutine without a task, for as long as it only waits for futures.

A task costs more than a short request: making one, its first pass of the loop, waking it. `exchange.py` uses this for applications that
agreed to it; Python 3.12 has eager tasks for the same purpose, which keep `current_task` right but are tasks all the same.
"""

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any


class Stepped:
    """A coroutine that is stepped here and, when it waits for a future, by that future's callback.

    `ended(exception or None)` is called once, when it is over. A coroutine that yields anything else, as `asyncio.sleep(0)` does, wants a
    task: it gets one, and goes on in it.
    """

    __slots__ = ("_coro", "_ended", "_loop", "_task", "_waiting")

    def __init__(
        self, coro: Coroutine[Any, Any, None], ended: Callable[[BaseException | None], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._coro = coro
        self._ended = ended
        self._loop = loop
        self._waiting: asyncio.Future[Any] | None = None
        self._task: asyncio.Task[None] | None = None

    def go_on(self, _: object = None) -> bool:
        """Step once; returns whether that was the end."""
        self._waiting = None
        try:
            waiting = self._coro.send(None)
        except StopIteration:
            self._ended(None)
            return True
        except (KeyboardInterrupt, SystemExit) as exc:
            self._ended(exc)
            raise
        except BaseException as exc:
            self._ended(exc)
            return True
        if getattr(waiting, "_asyncio_future_blocking", None):
            waiting._asyncio_future_blocking = False  # noqa: SLF001 # how a future is told that somebody waits, as tasks do it
            waiting.add_done_callback(self.go_on)
            self._waiting = waiting
        else:
            rest = _rest(self._coro, waiting)
            rest.send(None)
            self._task = self._loop.create_task(rest)
            self._task.add_done_callback(self._task_ended)
        return False

    def cancel(self) -> None:
        """Cancel what it waits for; the CancelledError arrives in the coroutine."""
        if self._task is not None:
            self._task.cancel()
        elif self._waiting is not None:
            self._waiting.cancel()

    @property
    def task(self) -> "asyncio.Task[None] | None":
        """The task that it needed."""
        return self._task

    def _task_ended(self, task: "asyncio.Task[None]") -> None:
        self._ended(asyncio.CancelledError() if task.cancelled() else task.exception())


async def _rest(coro: Coroutine[Any, Any, None], waiting: Any) -> None:
    await _drive(coro, waiting)


@types.coroutine
def _drive(coro: Coroutine[Any, Any, None], waiting: Any) -> Generator[Any, None, None]:
    try:
        yield None  # `Stepped` runs us up to here, or a cancellation before the task's first step would never enter this block
    except asyncio.CancelledError as exc:
        # as a task does it: cancel what is waited for, and raise inside only when that is over already
        if not asyncio.isfuture(waiting) or not waiting.cancel():
            try:
                waiting = coro.throw(exc)
            except StopIteration:
                return
    while True:
        try:
            yield waiting
        except BaseException as exc:
            try:
                waiting = coro.throw(exc)
            except StopIteration:
                return
        else:
            break
    yield from coro
