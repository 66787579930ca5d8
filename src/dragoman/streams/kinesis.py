"""Streams over Kinesis: a connector (see streams/__init__.py) that reads every shard of a stream, one reader each, and keeps its place in the store.

A lane is a shard while this process reads it. Children of a split or merge are read once their parents are answered to the end, so the order of
a partition key outlives them. One process reads a stream for a group: it has a lease in the same document as the places (MLRun requirement M21).
"""

import asyncio
import contextlib
import re
import socket
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from uuid import uuid4

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.plugins import missing
from dragoman.streams import Lane, Message, Outgoing, Reader, Surroundings
from dragoman.streams.addresses import StreamAddress
from dragoman.streams.kinesis_lease import Lease
from dragoman.streams.kinesis_shards import Place, Start, readable

if TYPE_CHECKING:
    from dragoman.streams.kinesis_client import Client, Records

_OPTIONS = ("endpoint", "region", "start", "poll")
_FETCH_S = 1.0
_RENEW_S = 8.0
_POLL_S = 0.25
"""Five reads of a shard a second are allowed, by all who read it together."""
_LONGEST_WAIT_S = 5.0
_MOST_RECORDS = 1000
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}\Z")
_ENDPOINT = re.compile(r"https?://[^\s/@]+/?\Z")


class _Reading:
    """One shard while it is read."""

    def __init__(self, shard: str, place: Place, stream: str) -> None:
        self.lane = Lane(f"{stream}/{shard}", shard)
        self.shard = shard
        self.read = self.answered = place.sequence
        """The last record that was read, and the last one that was answered."""
        self.records: deque[Message] = deque()
        self.room = asyncio.Event()
        self.room.set()
        self.behind_ms = -1
        self.closed = False
        """Kinesis lists it as closed."""
        self.at_end = False
        self.task: asyncio.Task[None] | None = None

    @property
    def done(self) -> bool:
        return self.at_end and self.answered == self.read


class Kinesis:
    """Implements Connector. Options: endpoint, region, start (earliest or latest, for a group that has no place yet), poll (seconds)."""

    kind = "kinesis"
    commit_interval_s = 1.0

    def __init__(self, address: StreamAddress, surroundings: Surroundings) -> None:
        """Raises INVALID_INPUT for an address that cannot work, UNSUPPORTED when aiobotocore is not installed."""
        try:
            import aiobotocore  # noqa: F401 # so that what is missing is said at once
        except ImportError as error:
            raise missing("kinesis", "aiobotocore", error) from error
        address.only(_OPTIONS)
        for name in ("source", "out", "errors"):
            stream = getattr(address, name)
            if (stream or name == "source") and not _NAME.match(stream):
                raise invalid(f"the stream {address.name} must name streams of Kinesis (letters, digits, _ . -), not '{stream[:100]}'")
            if name != "source" and stream == address.source:
                raise invalid(f"'{name}' of the stream {address.name} is its own input: each answer would be a request again")
        self._address = address
        self._endpoint = address.option("endpoint")
        if self._endpoint and not _ENDPOINT.match(self._endpoint):
            raise invalid(f"'endpoint' of the stream {address.name} must be http://HOST:PORT or https://HOST")
        environ = surroundings.environ
        self._region = address.option("region") or environ.get("AWS_REGION", "") or environ.get("AWS_DEFAULT_REGION", "")
        if self._endpoint and not self._region:
            self._region = "us-east-1"  # signatures name one, and servers of one's own do not look at it
        self._latest = address.option("start", "earliest", ("earliest", "latest")) == "latest"
        self._poll_s = address.number("poll", _POLL_S, 0.01, 60)
        key = "/".join((self._endpoint or self._region, address.source, address.group))
        self._lease = Lease(surroundings.store, address.name, key, f"{surroundings.client}@{socket.gethostname()}", self._stop)
        self._resources = AsyncExitStack()
        self._client: Client | None = None
        self._reader: Reader | None = None
        self._readings: dict[str, _Reading] = {}
        self._some = asyncio.Event()
        self._look = True
        self._doubt = False
        self._keeper: asyncio.Task[None] | None = None
        self._trouble: ServingError | None = None

    async def open(self, reader: Reader) -> None:
        self._reader = reader
        if self._client is None:
            from dragoman.streams.kinesis_client import connected

            self._client = await self._resources.enter_async_context(connected(self._address.source, self._region, self._endpoint))
        await self._claim(self._client)
        await self._discover(self._client)

    async def fetch(self, most: int, paused: Collection[Lane]) -> Sequence[Message]:
        client = self._open()
        try:
            await self._keep(client)
        except ServingError as error:
            raise ServingError(Kind.UNAVAILABLE, error.message) from error
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FETCH_S):
                while not (messages := self._take(most, paused)):
                    self._some.clear()
                    await self._some.wait()
                    if self._look or self._trouble:
                        break
                else:
                    return messages
        if self._trouble is not None:
            trouble, self._trouble = self._trouble, None
            raise trouble
        return ()

    def _take(self, most: int, paused: Collection[Lane]) -> list[Message]:
        taken: list[Message] = []
        for reading in list(self._readings.values()):
            if reading.lane in paused:
                continue
            while reading.records and len(taken) < most:
                taken.append(reading.records.popleft())
            if not reading.records:
                reading.room.set()
        if taken and len(self._readings) > 1:  # the next time another shard comes first
            first = next(iter(self._readings))
            self._readings[first] = self._readings.pop(first)
        return taken

    async def publish(self, answers: Sequence[Outgoing]) -> Sequence[ServingError | None]:
        from dragoman.streams.kinesis_client import Entry

        client = self._open()
        outcomes: list[ServingError | None] = [None] * len(answers)
        by_stream: dict[str, list[int]] = {}
        for index, answer in enumerate(answers):
            if _NAME.match(answer.to):
                by_stream.setdefault(answer.to, []).append(index)
            else:
                outcomes[index] = invalid(f"'{answer.to[:100]}' is no name of a stream of Kinesis")
        for stream, indexes in by_stream.items():
            entries = [Entry(_partition_key(answers[index].key), answers[index].value) for index in indexes]
            try:
                found = await client.put(stream, entries)
            except ServingError as error:
                raise ServingError(Kind.UNAVAILABLE, error.message) from error
            for index, outcome in zip(indexes, found, strict=True):
                outcomes[index] = outcome
        return outcomes

    async def commit(self, upto: Mapping[Lane, Message]) -> None:
        places: dict[str, Place] = {}
        for lane, message in upto.items():
            reading = self._readings.get(lane.native)
            if reading is not None and reading.lane is lane:
                ended = reading.at_end and message.position == reading.read
                places[reading.shard] = Place(message.position, ended)
        if not places:
            return
        await self._lease.note(places)
        for shard, place in places.items():
            reading = self._readings.get(shard)
            if reading is not None:
                reading.answered = place.sequence
                if reading.done and not self._lease.standing.place(shard).ended:  # it was found out meanwhile
                    await self._lease.note({shard: Place(reading.read, ended=True)})
                self._finish(reading)

    async def lag(self) -> Mapping[str, int | None]:
        """Kinesis says how long ago, not how many: known is only that nothing waits."""
        return {each.lane.name: len(each.records) if each.behind_ms == 0 else None for each in self._readings.values()}

    async def close(self) -> None:
        await self._stop()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        with contextlib.suppress(ServingError):  # the lease ends by itself
            await self._lease.release()
        await self._resources.aclose()
        self._client = None

    # --- the right to read ---

    def _open(self) -> "Client":
        if self._client is None:
            raise ServingError(Kind.UNAVAILABLE, "the stream is not open")
        return self._client

    async def _claim(self, client: "Client") -> None:
        """Raises UNAVAILABLE while somebody else reads the stream."""
        created, now_there = await client.described()
        await self._lease.claim(created, Start(now_there if self._latest else None))
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._renew())

    async def _keep(self, client: "Client") -> None:
        """What is due before reading goes on: the lease, a stream that was made anew, new shards."""
        if self._doubt:
            self._doubt = False
            if (await client.described())[0] != self._lease.standing.created:
                self._lease.held = False
                await self._stop()
        if not self._lease.held:
            await self._claim(client)
            self._look = True
        if self._look:
            await self._discover(client)

    async def _renew(self) -> None:
        """Hold the lease, also while everybody is busy and nothing is fetched."""
        while self._lease.held:
            await asyncio.sleep(_RENEW_S)
            self._look = True
            try:
                await self._lease.note({})
            except ServingError as error:
                self._trouble = error
                self._some.set()

    # --- shards ---

    async def _discover(self, client: "Client") -> None:
        """Start to read what can be read now."""
        shards = await client.shards()
        self._look = False
        there = {shard.id for shard in shards}
        await self._lease.forget_all_but(there)
        for shard in shards:
            if shard.id in self._readings:
                self._readings[shard.id].closed = shard.closed
        for shard_id in readable(shards, self._lease.standing.places):
            if shard_id not in self._readings:
                reading = _Reading(shard_id, self._lease.standing.place(shard_id), self._address.source)
                reading.closed = next(shard.closed for shard in shards if shard.id == shard_id)
                self._readings[shard_id] = reading
                reading.task = asyncio.create_task(self._read(client, reading))

    async def _read(self, client: "Client", reading: _Reading) -> None:
        """Read one shard to its end; as much as there is room for, and no faster than Kinesis allows."""
        from dragoman.streams.kinesis_client import ExpiredError, ThrottledError

        iterator: str | None = None
        wait_s = self._poll_s
        while not reading.at_end:
            await reading.room.wait()
            try:
                if iterator is None:
                    iterator = await client.iterator(reading.shard, reading.read, self._lease.standing.start)
                found = await client.records(iterator, min(_MOST_RECORDS, self._address.in_flight))
            except ExpiredError:
                iterator = None
                continue
            except ThrottledError:
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            except ServingError as error:
                iterator = None
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                self._trouble = ServingError(Kind.UNAVAILABLE, error.message)
                self._doubt = True
                self._some.set()
            else:
                wait_s = self._poll_s
                iterator = found.iterator
                self._took(reading, found)
            if not reading.at_end:
                await asyncio.sleep(wait_s)
        await self._ended(reading)

    def _took(self, reading: _Reading, found: "Records") -> None:
        stream = self._address.source
        for record in found.records:
            key = str(record["PartitionKey"]).encode()
            reading.records.append(Message(reading.lane, record["SequenceNumber"], record["Data"], stream, key))
            reading.read = record["SequenceNumber"]
        reading.behind_ms = found.behind_ms
        # Not every server of this protocol ends the iterators of a closed shard; one that is closed and empty is at its end as well.
        reading.at_end = found.iterator is None or (reading.closed and not found.records and not found.behind_ms)
        if reading.records:
            reading.room.clear()
            self._some.set()

    async def _ended(self, reading: _Reading) -> None:
        """Note the end of a shard of which nothing is left to be answered; otherwise the last commit does."""
        while reading.done:
            try:
                await self._lease.note({reading.shard: Place(reading.read, ended=True)})
            except ServingError as error:
                if not self._lease.held:
                    return
                self._trouble = error
                await asyncio.sleep(_LONGEST_WAIT_S)
            else:
                self._finish(reading)
                return

    def _finish(self, reading: _Reading) -> None:
        """Forget a shard that is answered to its end, and look for its children."""
        if reading.done and self._lease.standing.place(reading.shard).ended:
            self._readings.pop(reading.shard, None)
            self._look = True
            self._some.set()
            if self._reader is not None:
                self._reader.lost([reading.lane])

    async def _stop(self) -> None:
        readings, self._readings = list(self._readings.values()), {}
        tasks = [each.task for each in readings if each.task is not None and each.task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if readings and self._reader is not None:
            self._reader.lost([each.lane for each in readings])


def _partition_key(key: bytes | None) -> str:
    """Answers without one are spread over all shards."""
    return (key or b"").decode("utf-8", "replace") or uuid4().hex
