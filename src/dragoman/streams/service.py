"""The streams of one worker: makes a connector and a bridge for each address, starts and drains them, and says how they are.

Called by server/worker.py; the console and the metrics page show `report`, which is of all workers. Kafka shares a topic out among the members
of a group, so every worker reads it; what has one reader by its nature (an MQTT session, the shards of Kinesis) is read by the first worker.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from dragoman.core.errors import Kind, ServingError
from dragoman.core.plugins import find
from dragoman.serving.gateway import Gateway
from dragoman.streams import Connector, Surroundings
from dragoman.streams.addresses import StreamAddress, parse_stream
from dragoman.streams.answering import Answering, Load
from dragoman.streams.bridge import Bridge
from dragoman.streams.troubles import Trouble

log = logging.getLogger("dragoman.streams")

_EVERY_WORKER = frozenset({"kafka"})
_LOOK_S = 1.0
_LAG_ROUNDS = 3
_WINDOW = 10
"""Rates are of so many looks."""
_LIVE_S = 10.0
"""What a worker said longer ago is not shown: it is gone."""
_AGAIN_S = 5.0
_LAG_S = 8.0
"""Shorter than what others are shown is valid for."""


class Stream:
    """One address in one worker. Raises what its connector raises for an address that cannot work."""

    def __init__(
        self, address: StreamAddress, gateway: Gateway, surroundings: Surroundings, *, model_wait_s: float, load: Load | None
    ) -> None:
        self.address = address
        self._answering = Answering(find("messages", "mlrun"), gateway, address, model_wait_s=model_wait_s, load=load)
        self._surroundings = surroundings
        self._connector, self._bridge = self._made()
        self._failed = ""
        self._lag: Mapping[str, int | None] = {}
        self._answered: deque[tuple[float, int]] = deque(maxlen=_WINDOW + 1)
        self._rounds = 0
        self._looking = Trouble(address.name, "asking")

    def _made(self) -> tuple[Connector, Bridge]:
        connector: Connector = find("connectors", self.address.kind)(self.address, self._surroundings)
        return connector, Bridge(connector, self.address, self._answering.respond, self._answering.refuse)

    async def run(self) -> None:
        """Until cancelled, or until it is clear that the stream can never be opened."""
        while True:
            try:
                await self._bridge.run()
            except ServingError as error:
                self._failed = error.message
                log.log(logging.ERROR, "stream %s has failed: %s", self.address.name, error.message)
                return
            except Exception:
                log.exception("stream %s broke; it starts again", self.address.name)
            else:
                return
            counts = self._bridge.counts
            await self._bridge.drain(0.0)
            await asyncio.sleep(_AGAIN_S)
            self._connector, self._bridge = self._made()
            self._bridge.counts = counts

    async def drain(self, timeout_s: float) -> None:
        await self._bridge.drain(timeout_s)

    async def look(self) -> None:
        """Once a second: note how far it is, and now and then ask how much waits at the broker.

        That shows a broker that hangs, too: clients wait for one for minutes and say nothing.
        """
        self._answered.append((time.monotonic(), self._bridge.counts.answered))
        if self._bridge.opened and self._rounds % _LAG_ROUNDS == 0:
            try:
                async with asyncio.timeout(_LAG_S):
                    self._lag = await self._connector.lag()
            except (ServingError, TimeoutError) as error:
                self._lag = dict.fromkeys(self._lag)
                self._looking.begun(error if isinstance(error, ServingError) else ServingError(Kind.TIMEOUT, "the broker does not answer"))
            else:
                self._looking.over()
        self._rounds += 1

    def row(self) -> dict[str, Any]:
        """How it is in this worker."""
        trouble = self._bridge.trouble() or self._looking.shown or self._answering.trouble()
        state = "failed" if self._failed else "waiting" if trouble else "running" if self._bridge.opened else "connecting"
        return {
            "stream": self.address.name,
            "kind": self.address.kind,
            "source": self.address.source,
            "out": self.address.out,
            "state": state,
            "reason": self._failed or trouble,
            "in_flight": self._bridge.in_flight,
            "rate": self._rate(),
            "lag": dict(self._lag),
            **asdict(self._bridge.counts),
        }

    def _rate(self) -> float:
        if len(self._answered) < 2:
            return 0.0
        (since, first), (until, last) = self._answered[0], self._answered[-1]
        return round(max(0, last - first) / max(until - since, 1e-9), 1)


class Streams:
    """`index` is this worker's place among those of the server, `shared` the folder that they share, None for a single one.

    Raises INVALID_INPUT for an address that cannot work, UNSUPPORTED for one whose package is not installed.
    """

    def __init__(
        self,
        urls: Iterable[str],
        gateway: Gateway,
        store: Any,
        *,
        index: int = 0,
        shared: Path | None = None,
        model_wait_s: float = 300.0,
        load: Load | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        surroundings = Surroundings(f"dragoman-{index}" if index else "dragoman", store, environ)
        addresses = [parse_stream(url) for url in urls]
        self._streams = [
            Stream(address, gateway, surroundings, model_wait_s=model_wait_s, load=load)
            for address in addresses
            if index == 0 or address.kind in _EVERY_WORKER
        ]
        self._file = shared / f"streams-{index}.json" if shared is not None else None
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to read. Messages for models that are still loading wait for them."""
        loop = asyncio.get_running_loop()
        if self._streams:
            self._tasks = [loop.create_task(each.run()) for each in self._streams]
            self._tasks.append(loop.create_task(self._look()))

    async def drain(self, timeout_s: float) -> None:
        """Take nothing more, answer, write and commit what was taken for as long as there is time, leave the groups."""
        await asyncio.gather(*(each.drain(timeout_s) for each in self._streams))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def report(self) -> list[dict[str, Any]]:
        """One row per stream, of all workers: counts and lag of what each reads are added up, its state is the worst."""
        rows = [each.row() for each in self._streams]
        if self._file is not None:
            for path in sorted(self._file.parent.glob("streams-*.json")):
                if path != self._file:
                    rows += _read(path)
        return _added_up(rows)

    async def _look(self) -> None:
        while True:
            try:
                await asyncio.gather(*(each.look() for each in self._streams))
                self._write()
            except Exception:  # what is shown of a stream must not end what it does
                log.exception("looking at the streams failed")
            await asyncio.sleep(_LOOK_S)

    def _write(self) -> None:
        """Show the other workers; a file of a few lines, replaced whole."""
        if self._file is None:
            return
        content = orjson.dumps({"at": time.time(), "streams": [each.row() for each in self._streams]})
        passing = self._file.with_suffix(".new")
        with contextlib.suppress(OSError):  # a full disk: the others show what they see themselves
            passing.write_bytes(content)
            passing.replace(self._file)


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        content = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):  # it has just ended
        return []
    return list(content["streams"]) if time.time() - content["at"] < _LIVE_S else []


_WORST = ("failed", "waiting", "connecting", "running")
_SUMS = ("in_flight", "taken", "answered", "failed", "unwritten", "abandoned", "rate")


def _added_up(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    streams: dict[str, dict[str, Any]] = {}
    for row in rows:
        whole = streams.get(row["stream"])
        if whole is None:
            streams[row["stream"]] = {**row, "lag": dict(row["lag"]), "workers": 1}
            continue
        whole["workers"] += 1
        for name in _SUMS:
            whole[name] += row[name]
        whole["lag"] |= row["lag"]
        if _WORST.index(row["state"]) < _WORST.index(whole["state"]):
            whole["state"], whole["reason"] = row["state"], row["reason"]
    return [streams[name] for name in sorted(streams)]
