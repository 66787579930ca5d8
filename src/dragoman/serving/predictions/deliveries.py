"""Which webhooks are to be called, and which have been: those of predictions that end here, and those that an earlier server did not manage.

The store remembers what was delivered or given up, so a restart forgets none; a delivery just before a crash may be made twice.
"""

import asyncio
import logging
from collections.abc import Callable

import orjson

from dragoman.core.errors import ServingError
from dragoman.core.predictions import Prediction, Progress
from dragoman.hosting.frames import FrameError, unpack_rows
from dragoman.serving.predictions.limits import Parts
from dragoman.serving.predictions.views import View, view_of
from dragoman.serving.predictions.work import Work
from dragoman.serving.webhooks import GIVEN_UP_S
from dragoman.store import Change

log = logging.getLogger("dragoman")

_LOOK_S = 30.0
_MOST = 256
_ENDED = frozenset(progress for progress in Progress if progress.terminal)


class Deliveries:
    """`body` writes what a webhook carries."""

    def __init__(self, parts: Parts, work: Work) -> None:
        self.body: Callable[[View], bytes] = plain_body
        self._parts = parts
        self._work = work
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._look_at = 0.0

    def ended(self, view: View, url: str) -> None:
        """Call this URL soon. With too many under way the store is asked later."""
        if view.id not in self._under_way and len(self._under_way) < _MOST:
            task = asyncio.get_running_loop().create_task(self._deliver(view, url))
            self._under_way[view.id] = task
            task.add_done_callback(lambda _: self._under_way.pop(view.id, None))

    async def beat(self) -> None:
        """Now and then, call what nobody else calls. Raises nothing."""
        if self._parts.monotonic() < self._look_at:
            return
        self._look_at = self._parts.monotonic() + _LOOK_S
        try:
            store = await self._parts.store.existing()
            for record in [] if store is None else await store.undelivered(_MOST):
                if record.id not in self._under_way and await self._is_ours(record):
                    self.ended(view_of(record, unpack_rows), record.webhook)
        except (ServingError, FrameError) as error:
            log.warning("webhooks that are still to be called cannot be read: %s", error)

    async def close(self) -> None:
        """Break off what is under way; the next start tries again."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _is_ours(self, record: Prediction) -> bool:
        """Whether this worker should call it: whoever ran it does, as long as it lives and has had the time."""
        owner = await self._work.owner()
        if record.owner in ("", owner.name) or (record.finished or 0.0) + GIVEN_UP_S < self._parts.clock():
            return True
        return bool(owner.dead([record.owner]))

    async def _deliver(self, view: View, url: str) -> None:
        try:
            body = await asyncio.to_thread(self.body, view)
            await self._parts.webhooks.deliver(url, view.id, body)
            store = await self._parts.store.get()
            await store.change_prediction(Change(view.id, expect=_ENDED, delivered=True))
        except ServingError as error:
            log.warning("it cannot be stored that the webhook of prediction %s was called: %s", view.id, error.message)
        except Exception:
            log.exception("the webhook of prediction %s failed inside the server", view.id)


def plain_body(view: View) -> bytes:
    """What a webhook carries when no dialect says it better: how it came out, without the outputs."""
    return orjson.dumps({"id": view.id, "model": view.model, "status": view.progress.value, "error": view.error or None})
