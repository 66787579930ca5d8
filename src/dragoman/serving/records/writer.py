"""The queue between requests and the place where their records go, and the task that empties it. Never waits for a place when asked to queue.

The queue is bounded in records and in bytes: what does not fit is dropped and counted, as is what a place does not take after several tries.
A drop is said in the log once, and once more when records arrive again.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.counters import Tally
from dragoman.serving.records import Record, Sink
from dragoman.serving.records.forms import Batches, Seen, Source, record_of
from dragoman.serving.records.places import Place
from dragoman.serving.records.settings import RecordSettings, Wanted

log = logging.getLogger("dragoman")

MOST_WAITING = 10_000
MOST_BYTES = 64 << 20
"""Of requests and answers that wait."""
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Between attempts: one more attempt than there are pauses. Afterwards the records are dropped."""
_AT_ONCE = 32
_AT_ONCE_BYTES = 256 << 10
"""Made into records in one go: the thread that does it keeps the event loop from running in turns of some milliseconds."""
_SEEN_BYTES = 500
_TRY_AGAIN = frozenset({Kind.UNAVAILABLE, Kind.TIMEOUT, Kind.OVERLOADED})
_ENDED = "the server ended"
LINGER_S = 30.0
"""A batch that does not become full is sent after so long."""

Opener = Callable[[Place, Wanted], Sink]


class Writer:
    """`tally` counts by model. Use on one event loop: `start`, then `put` from it, then `close`."""

    def __init__(
        self,
        settings: RecordSettings,
        opener: Opener,
        tally: Callable[[str, Tally], None],
        source: Source,
        *,
        pauses_s: Sequence[float] = PAUSES_S,
        linger_s: float = LINGER_S,
        most: int = MOST_WAITING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._opener = opener
        self._tally = tally
        self._source = source
        self._pauses_s = pauses_s
        self._linger_s = linger_s
        self._most = most
        self._clock = clock
        self._waiting: deque[Seen] = deque()
        self._bytes = 0
        self._batches = Batches()
        self._bell = asyncio.Event()
        self._closing = False
        self._flushed_s = clock()
        self._task: asyncio.Task[None] | None = None
        self._sink: Sink | None = None
        self._wanted = self._latest = Wanted()
        self._losing = 0
        """Records dropped since the last that arrived."""
        settings.on_change(self._noted)

    def put(self, seen: Seen) -> bool:
        """Queue one; False when there is no room, and it is counted as dropped."""
        size = seen.size + _SEEN_BYTES
        if len(self._waiting) >= self._most or self._bytes + size > MOST_BYTES or self._closing:
            self._lose([seen.model], f"{len(self._waiting)} records were waiting")
            return False
        self._bytes += size
        self._waiting.append(seen)
        self._bell.set()
        return True

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self, timeout_s: float) -> None:
        """Send what waits, for at most so long; what is left then is dropped and counted."""
        self._closing = True
        self._bell.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=timeout_s)
            self._task.cancel()
            await asyncio.wait([self._task])
        self._lose([seen.model for seen in self._waiting] + models_of(self._batches.take()), _ENDED)
        self._waiting.clear()
        if self._losing:
            log.warning("%d tracking records were dropped", self._losing)

    def _noted(self) -> None:
        """Settings have changed. Where records went last is where those go that were seen before tracking was turned off."""
        wanted = self._settings.wanted()
        if wanted.place is not None:
            self._latest = wanted
        self._bell.set()

    # --- the task ---

    async def _run(self) -> None:
        try:
            while self._waiting or not self._closing:
                await self._round()
            await self._switch(Wanted())
        finally:
            await self._close_sink()

    async def _round(self) -> None:
        """Wait until there is something to do, and do it once."""
        if not self._waiting:
            await self._idle()
        taken, wanted = self._take(), self._settings.wanted()
        if taken and wanted.place is None:
            wanted = self._latest  # it was turned off after they were seen
        if wanted != self._wanted:
            await self._switch(wanted)
        if taken:
            records = await self._made(taken)
            single = self._wanted.place is not None and self._wanted.place.kind == "parquet"
            await self._send(self._batches.add(records, [seen.size for seen in taken], 1 if single else self._wanted.batch, self._clock()))
        now_s = self._clock()
        await self._send(self._batches.take(now_s - self._linger_s))
        if now_s - self._flushed_s >= self._linger_s:
            self._flushed_s = now_s
            await self._flush()

    async def _idle(self) -> None:
        """Until a record comes, settings change, the end comes, or something may have waited for too long."""
        self._bell.clear()
        if not self._closing and self._settings.wanted() == self._wanted:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._linger_s):
                    await self._bell.wait()

    def _take(self) -> list[Seen]:
        taken: list[Seen] = []
        size = 0
        while self._waiting and len(taken) < _AT_ONCE and size < _AT_ONCE_BYTES:
            seen = self._waiting.popleft()
            size += seen.size + _SEEN_BYTES
            taken.append(seen)
        self._bytes -= size
        return taken

    async def _made(self, taken: Sequence[Seen]) -> list[dict[str, Any]]:
        try:
            return await asyncio.to_thread(lambda: [record_of(seen, self._source) for seen in taken])
        except asyncio.CancelledError:
            self._lose([seen.model for seen in taken], _ENDED)
            raise

    async def _switch(self, wanted: Wanted) -> None:
        """Send what was gathered for the old place, and turn to the new one."""
        await self._send(self._batches.take())
        await self._flush()
        if wanted.place != self._wanted.place or wanted.batch != self._wanted.batch:
            await self._close_sink()
        self._wanted = wanted

    async def _close_sink(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            await sink.close()

    async def _flush(self) -> None:
        if self._sink is not None:
            await self._attempt((), self._sink.flush)

    async def _send(self, records: Sequence[Record]) -> None:
        """Deliver, or drop and count."""
        if not records:
            return

        async def send() -> None:
            place = self._wanted.place
            if place is None:
                raise ServingError(Kind.UNSUPPORTED, "tracking was turned off")
            if self._sink is None:
                self._sink = self._opener(place, self._wanted)
            refused = {id(record) for record in await self._sink.send(records)}
            self._lose(models_of(record for record in records if id(record) in refused), f"{place.shown} refuses them")
            self._arrived(models_of(record for record in records if id(record) not in refused))

        await self._attempt(models_of(records), send)

    async def _attempt(self, models: Sequence[str], work: Callable[[], Awaitable[None]]) -> None:
        """Try, with pauses. Raises nothing: what cannot be sent is dropped and counted."""
        try:
            for pause_s in (*self._pauses_s, None):
                try:
                    await work()
                    return
                except ServingError as error:
                    if pause_s is None or error.kind not in _TRY_AGAIN:
                        self._lose(models, error.message)
                        if not models:
                            log.warning("tracking records that were gathered could not be written: %s", error.message)
                        return
                await asyncio.sleep(pause_s)
        except asyncio.CancelledError:
            self._lose(models, _ENDED)
            raise
        except Exception:  # a failure that no sink foresaw must not end the recording of all that follows
            log.exception("tracking records could not be sent")
            self._lose(models, "an error of the server")

    # --- counting ---

    def _arrived(self, models: Sequence[str]) -> None:
        for model in models:
            self._tally(model, Tally.RECORDED)
        if models and self._losing:
            log.warning("tracking records arrive again; %d were dropped", self._losing)
            self._losing = 0

    def _lose(self, models: Sequence[str], why: str) -> None:
        for model in models:
            self._tally(model, Tally.UNRECORDED)
        if models and not self._losing:
            log.warning("tracking records are dropped: %s", why)
        self._losing += len(models)


def models_of(records: Iterable[Record]) -> list[str]:
    """The model of each, as often as a batch has values."""
    return [str(record["model"]) for record in records for _ in record.get("values", (0,))]
