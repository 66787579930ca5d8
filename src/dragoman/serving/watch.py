"""Keeps the registry of one worker in step with the store: reads wishes that others made, writes this worker's reports, keeps it counted.

The worker starts it before it loads anything and ends it when it leaves. With the store down serving goes on; this tries again and catches up.
"""

import asyncio
import contextlib
import logging

from dragoman.core.errors import ServingError
from dragoman.serving.late_store import LateStore
from dragoman.serving.registry import Registry
from dragoman.store import Bell, Store

log = logging.getLogger("dragoman.models")

_LOOK_S = 5.0
"""How often the store is read although no bell has rung."""
_APPEAR_S = 0.1
"""How often it is looked whether another worker has made the store."""
_PAUSE_S = 0.5
"""Before the store is tried again."""


class Watch:
    """Make it on the event loop; `start` before anything is loaded, `close` once the worker has ended everything else."""

    def __init__(self, registry: Registry, store: LateStore) -> None:
        self._registry = registry
        self._store = store
        self._seen = 0
        self._bell: Bell | None = None
        self._listening: asyncio.Task[None] | None = None
        self._down = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Be counted, then read what is wished for: in this order, so that no barrier misses this worker. A store that fails is tried later."""
        await self._registry.members.show()
        await self._look()
        self._task = asyncio.get_running_loop().create_task(self._go_on())

    async def close(self) -> None:
        tasks = [task for task in (self._task, self._listening) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        store = self._store.opened
        if self._bell is not None:
            await self._bell.close()
        with contextlib.suppress(ServingError):  # the others see it by themselves, a little later
            await self._registry.members.leave(store)

    async def _go_on(self) -> None:
        while True:
            count = self._registry.changes.count
            seen = await self._look()
            if not seen:
                await asyncio.sleep(_PAUSE_S if self._down else _LOOK_S if self._registry.members.alone else _APPEAR_S)
            else:
                await self._registry.changes.after(count, _LOOK_S)

    async def _listen(self, bell: Bell) -> None:
        while True:
            try:
                await bell.rung(_LOOK_S)
            except Exception:  # until it works again the store is read from time to time
                log.warning("the store does not tell when something changes", exc_info=True)
                await asyncio.sleep(_LOOK_S)
            self._registry.changes.tell()

    async def _look(self) -> bool:
        """One round; False when there is no store yet, or it fails. Raises nothing."""
        try:
            store = self._store.opened or await self._store.existing()
            if store is not None:
                await self._exchange(store)
        except ServingError as error:
            if not self._down:
                log.warning("what should be served cannot be read from the store: %s; what is served goes on", error.message)
            self._down = True
            return False
        except Exception:
            log.exception("reading what should be served failed; it is tried again")
            self._down = True
            return False
        if self._down:
            log.info("what should be served can be read again")
        self._down = False
        return store is not None

    async def _exchange(self, store: Store) -> None:
        members = self._registry.members
        if not await members.join(store):
            self._registry.report_all()
        if self._bell is None and not members.alone:
            self._bell = await store.bell()
            self._listening = asyncio.get_running_loop().create_task(self._listen(self._bell))
        wishes = await store.wishes(since=self._seen)
        if wishes:
            self._registry.absorb(wishes)
            self._seen = wishes[-1].generation
            for run in await members.dead_runs({w.run for w in wishes} - {"", self._registry.run}):
                await store.forget_run(run)
        reports = self._registry.unreported()
        if reports:
            try:
                await store.report(reports)
            except ServingError:
                self._registry.keep(reports)
                raise
