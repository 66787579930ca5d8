"""A place for tracking records in memory, and a writer around it: for tests of whatever is recorded."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.counters import Tally
from dragoman.serving.live_settings import LiveSettings
from dragoman.serving.records import Record
from dragoman.serving.records.forms import Source
from dragoman.serving.records.places import Place
from dragoman.serving.records.recorder import Recorder
from dragoman.serving.records.settings import RecordSettings, Wanted
from dragoman.serving.records.writer import Writer

PLACE = "http://records.example/in"
AWAY = ServingError(Kind.UNAVAILABLE, "nobody is at home")


class FakeSink:
    """Takes records, or does what it is told: `errors` are raised first, one per attempt; `refuse` says which are refused."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.errors: list[Exception] = []
        self.flush_errors: list[Exception] = []
        self.refuse: Callable[[Record], bool] = lambda record: False
        self.gate: asyncio.Event | None = None
        self.attempts = 0
        self.flushes = 0
        self.closed = 0

    async def send(self, records: Sequence[Record]) -> Sequence[Record]:
        self.attempts += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        self.records += [record for record in records if not self.refuse(record)]
        return [record for record in records if self.refuse(record)]

    async def flush(self) -> None:
        self.flushes += 1
        if self.flush_errors:
            raise self.flush_errors.pop(0)

    async def close(self) -> None:
        self.closed += 1


class Site:
    """A recorder, its writer, and the sinks that were opened. Made on the loop; `close` ends it."""

    def __init__(self, *, on: bool = True, sample: int = 1, batch: int = 1, live: LiveSettings | None = None, **options: Any) -> None:
        self.settings = RecordSettings(live, PLACE if on else "", sample, batch)
        self.sink = FakeSink()
        self.opened: list[Place] = []
        self.tallies: Counter[tuple[str, Tally]] = Counter()
        options = {"pauses_s": (0.0, 0.0), **options}
        self.writer = Writer(self.settings, self.open, self.tally, Source("3", "here", "dragoman"), **options)
        self.recorder = Recorder(self.settings, self.writer.put)

    def open(self, place: Place, wanted: Wanted) -> FakeSink:
        self.opened.append(place)
        return self.sink

    def tally(self, model: str, what: Tally) -> None:
        self.tallies[model, what] += 1

    async def close(self, timeout_s: float = 20.0) -> None:
        await self.writer.close(timeout_s)

    @property
    def records(self) -> list[Record]:
        return self.sink.records

    def dropped(self, model: str = "m") -> int:
        return self.tallies[model, Tally.UNRECORDED]

    def sent(self, model: str = "m") -> int:
        return self.tallies[model, Tally.RECORDED]
