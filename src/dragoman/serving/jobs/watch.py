"""Keeps the board of one worker in step with the store: what other workers, or other servers on the same store, wrote. Made by server/jobs.py."""

import asyncio
import logging

from dragoman.core.errors import ServingError
from dragoman.serving.jobs.kept import Kept
from dragoman.store import Bell

log = logging.getLogger("dragoman.jobs")

_LOOK_S = 5.0
"""How often the store is read although no bell has rung."""
_APPEAR_S = 0.5
"""How often it is looked whether somebody has made the store."""

_SHARED_S = 0.05


class Watch:
    """`alone`: no other process writes, so that one look at the start is enough."""

    def __init__(self, kept: Kept, *, alone: bool) -> None:
        self._kept = kept
        self._alone = alone
        self._bell: Bell | None = None
        self._down = False
        self._task: asyncio.Task[None] | None = None
        self._soon: asyncio.Task[bool] | None = None
        self._one = asyncio.Lock()
        if not alone:
            kept.board.looker = self._catch_up

    async def start(self) -> None:
        """Show what the store has. A store that is down is tried again."""
        if not await self._look() or not self._alone:
            self._task = asyncio.get_running_loop().create_task(self._go_on())

    async def close(self) -> None:
        for task in (self._task, self._soon):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._bell is not None:
            await self._bell.close()

    async def _go_on(self) -> None:
        while True:
            if self._bell is None or self._down:
                await asyncio.sleep(_APPEAR_S)
            else:
                try:
                    await self._bell.rung(_LOOK_S)
                except Exception:  # until it works again the store is read from time to time
                    log.warning("the store does not tell when a job changes", exc_info=True)
                    await asyncio.sleep(_LOOK_S)
            if await self._look() and self._alone:
                return

    async def _catch_up(self) -> None:
        """Whoever asks before the next look begins shares that: strangers cannot have the store read all the time."""
        if self._soon is None:
            self._soon = asyncio.get_running_loop().create_task(self._look_soon())
        await asyncio.shield(self._soon)

    async def _look_soon(self) -> bool:
        await asyncio.sleep(_SHARED_S)
        self._soon = None
        return await self._look()

    async def _look(self) -> bool:
        """Whether the store could be asked; one that nobody has made yet has nothing to say."""
        async with self._one:  # an older answer must not replace a newer one
            return await self._look_once()

    async def _look_once(self) -> bool:
        try:
            store = await self._kept.store.existing()
            if store is not None:
                if self._bell is None and not self._alone:
                    self._bell = await store.bell()
                self._kept.board.replace(await self._kept.jobs())
        except ServingError as error:
            if not self._down:
                log.warning("jobs cannot be read from the store: %s; it is tried again", error.message)
            self._down = True
            return False
        if self._down:
            log.info("jobs can be read from the store again")
        self._down = False
        return True
