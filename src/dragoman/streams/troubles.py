"""Waiting out what may pass: a broker that is away. Says it once in the log when it begins, and once when it is over. Used by bridge.py."""

import asyncio
import logging

from dragoman.core.errors import ServingError

log = logging.getLogger("dragoman.streams")

_FIRST_S = 0.1
_LONGEST_S = 5.0


class Trouble:
    """One thing that a stream does again and again, `doing`: "reading"."""

    def __init__(self, stream: str, doing: str) -> None:
        self._stream = stream
        self._doing = doing
        self._wait_s = 0.0
        self.reason = ""
        """Why it does not work at the moment; "" while it does."""

    @property
    def shown(self) -> str:
        """What is said to people; "" for nothing."""
        return f"{self._doing}: {self.reason}" if self.reason else ""

    async def wait(self, error: Exception) -> None:
        """It did not work: wait before it is tried again, longer each time."""
        self.begun(error)
        self._wait_s = min(_LONGEST_S, max(_FIRST_S, 2 * self._wait_s))
        await asyncio.sleep(self._wait_s)

    def begun(self, error: Exception) -> None:
        """It did not work."""
        reason = error.message if isinstance(error, ServingError) else f"internal error ({type(error).__name__})"
        if not isinstance(error, ServingError):
            log.error("stream %s: %s failed", self._stream, self._doing, exc_info=error)
        elif reason != self.reason:
            log.warning("stream %s: %s waits: %s", self._stream, self._doing, reason)
        self.reason = reason

    def over(self) -> None:
        """It worked."""
        if self.reason:
            log.info("stream %s: %s works again", self._stream, self._doing)
            self.reason = ""
            self._wait_s = 0.0
