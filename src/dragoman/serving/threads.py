"""Blocking work in a thread, to its end: for work that uses something which whoever is cancelled would close. Called by what writes files."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")


async def to_the_end(work: Callable[[], R], undo: Callable[[R], object] = lambda _: None) -> R:
    """Run `work` in a thread. A cancellation waits for it, however long it takes; `undo` gets the result that nobody takes then."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        if running.exception() is None:
            undo(running.result())
        raise
