"""Stepping a coroutine once without a task, and handing it to a task only if it does not end in that step.

A task costs more than a short request. `exchange.py` uses this for applications that agreed to it; Python 3.12 has eager tasks for the
same purpose, which keep `current_task` right but are tasks all the same.
"""

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any


def step(coro: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None] | None:
    """Run `coro` to its end and return None, or to its first suspension and return a coroutine for a task that goes on from there.

    What `coro` raises is raised. The task may be cancelled before it has begun: that arrives in `coro` like any other cancellation.
    """
    try:
        waiting = coro.send(None)
    except StopIteration:
        return None
    rest = _rest(coro, waiting)
    rest.send(None)
    return rest


async def _rest(coro: Coroutine[Any, Any, None], waiting: Any) -> None:
    await _drive(coro, waiting)


@types.coroutine
def _drive(coro: Coroutine[Any, Any, None], waiting: Any) -> Generator[Any, None, None]:
    try:
        yield None  # `step` runs us up to here, or a cancellation before the task's first step would never enter this block
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
