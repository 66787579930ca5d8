"""The main thread of a model process: it loads and runs, and a running call can be interrupted from another thread, by a signal.

Only the main thread of a Python process runs signal handlers, so only there can a call that sleeps or computes be broken off.
"""

import signal
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import FrameType
from typing import Final, TypeVar

T = TypeVar("T")

_SIGNAL: Final = signal.SIGUSR1


class Interrupted(BaseException):  # no error: nobody waits any more. Not an Exception, so that `except Exception` does not stop it
    """Raised in user code when everybody has left who waited for its result, or when it has run too long."""


class Runner:
    """Make it in the main thread, and let `work` be the last thing that the main thread does. Everything else may be called anywhere."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._main = threading.get_ident()
        self._lock = threading.Lock()
        self._armed = 0
        """The number of the call that may be interrupted now; 0: none."""
        self._wanted = 0
        signal.signal(_SIGNAL, self._heard)

    def work(self) -> None:
        """Do jobs one after the other until `stop`. What a job raises ends the process."""
        while (job := self._jobs.get()) is not None:
            job()

    def submit(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)

    def stop(self) -> None:
        """End `work` after the jobs that wait."""
        self._jobs.put(None)

    def call(self, number: int, function: Callable[[], T]) -> T:
        """Run user code as call `number`, in the main thread. Raises Interrupted when it was interrupted, and whatever it raises."""
        self._armed = number
        try:
            return function()
        finally:
            self._armed = 0

    def interrupt(self, number: int) -> None:
        """Raise Interrupted in call `number` if it still runs; does nothing otherwise, or the second time."""
        with self._lock:
            if self._armed != number or self._wanted == number:
                return
            self._wanted = number
        # The call may end right now: then the handler finds another number, or none, and does nothing.
        signal.pthread_kill(self._main, _SIGNAL)

    def _heard(self, _number: int, _frame: FrameType | None) -> None:
        if self._armed and self._armed == self._wanted:
            self._armed = 0
            raise Interrupted
