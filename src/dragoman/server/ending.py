"""The end of a server process: in time, and with its own exit code. Used by the command line and by the workers of a supervisor."""

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

log = logging.getLogger("dragoman")

GRACE_S = 3.0
"""Beyond the drain time-out, for closing what is left."""


def end_within(seconds: float, code: int = 0) -> None:
    """End this process with `code` if it is still there after so many seconds.

    A model that computes cannot be interrupted, and the interpreter waits for its thread; the requests it computes for are broken off
    by then.
    """

    def end() -> None:
        log.warning("a model still computes; the process ends without it")
        os._exit(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def on_sigterm(loop: asyncio.AbstractEventLoop, act: Callable[[], None]) -> None:
    """Call `act` on the loop for each SIGTERM; once the loop is closed the signal changes nothing.

    A handler of the loop's own would be gone with the loop, and a second SIGTERM in the time that the interpreter takes to end would kill
    a process that has done everything right.
    """

    def heard(_number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(act)

    signal.signal(signal.SIGTERM, heard)


def ignore_sigterm() -> None:
    """To be called last: the interpreter takes handlers away when it ends, but leaves alone what is ignored."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
