"""Streams inside of one process: a broker, and the plainest connector that keeps the whole contract. For programs that feed themselves, and tests.

A topic has partitions, and a group one place in each. Who joins or leaves a group makes all others give their partitions up first, as Kafka
does. `away` is a broker that does not answer.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from dragoman.core.errors import Kind, ServingError
from dragoman.streams import Lane, Message, Outgoing, Reader
from dragoman.streams.addresses import StreamAddress

_FETCH_S = 1.0


@dataclass(slots=True)
class Stored:
    value: bytes
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass(slots=True)
class _Group:
    members: "list[MemoryConnector]" = field(default_factory=list)
    places: dict[tuple[str, int], int] = field(default_factory=dict)
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)


class MemoryBroker:
    """Belongs to one loop. Topics come into being when they are named; `most_bytes` is the largest message that it takes."""

    def __init__(self, partitions: int = 1, most_bytes: int = 1 << 20) -> None:
        self.away = False
        self.most_bytes = most_bytes
        self._partitions = partitions
        self._topics: dict[str, list[list[Stored]]] = {}
        self._groups: dict[str, _Group] = {}
        self._news = asyncio.Event()

    def put(self, topic: str, value: bytes, key: bytes | None = None, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        """Append to the partition of the key; without one to the shortest."""
        partitions = self.topic(topic)
        partition = min(partitions, key=len) if key is None else partitions[sum(key) % len(partitions)]
        partition.append(Stored(value, key, headers))
        self._news.set()
        self._news = asyncio.Event()

    def topic(self, name: str) -> list[list[Stored]]:
        """Its partitions."""
        return self._topics.setdefault(name, [[] for _ in range(self._partitions)])

    def group(self, name: str) -> _Group:
        return self._groups.setdefault(name, _Group())

    def place(self, group: str, topic: str, partition: int = 0) -> int:
        """The position that a group reads next."""
        return self.group(group).places.get((topic, partition), 0)

    async def changed(self, timeout_s: float) -> None:
        """Until something is put, or for that long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            pass

    def check(self) -> None:
        if self.away:
            raise ServingError(Kind.UNAVAILABLE, "the broker is away")


class MemoryConnector:
    """Implements Connector for one topic."""

    kind = "memory"
    commit_interval_s = 0.0

    def __init__(self, broker: MemoryBroker, address: StreamAddress) -> None:
        self._broker = broker
        self._topic = address.source
        self._group = broker.group(address.group)
        self.reader: Reader | None = None
        self.places: dict[Lane, int] = {}

    async def open(self, reader: Reader) -> None:
        self._broker.check()
        self.reader = reader
        async with self._group.changing:
            self._group.members.append(self)
            await self._shared_out()

    async def fetch(self, most: int, paused: Collection[Lane]) -> Sequence[Message]:
        self._broker.check()
        messages = self._fetched(most, paused)
        if not messages:
            await self._broker.changed(_FETCH_S)
            self._broker.check()
            messages = self._fetched(most, paused)
        return messages

    async def publish(self, answers: Sequence[Outgoing]) -> Sequence[ServingError | None]:
        await asyncio.sleep(0)
        self._broker.check()
        outcomes: list[ServingError | None] = []
        for answer in answers:
            if len(answer.value) > self._broker.most_bytes:
                outcomes.append(ServingError(Kind.TOO_LARGE, f"{len(answer.value)} bytes are more than '{answer.to}' takes"))
            else:
                self._broker.put(answer.to, answer.value, answer.key, answer.headers)
                outcomes.append(None)
        return outcomes

    async def commit(self, upto: Mapping[Lane, Message]) -> None:
        await asyncio.sleep(0)
        self._broker.check()
        for lane, message in upto.items():
            if lane in self.places:
                self._group.places[lane.native] = message.position + 1

    async def lag(self) -> Mapping[str, int | None]:
        partitions = self._broker.topic(self._topic)
        return {lane.name: len(partitions[lane.native[1]]) - position for lane, position in self.places.items()}

    async def close(self) -> None:
        if self in self._group.members:
            async with self._group.changing:
                self._group.members.remove(self)
                self.gone()
                await self._shared_out()

    def kill(self) -> None:
        """As if the process were gone: nothing is finished or committed, and the partitions stay its own until the next one joins."""
        self._group.members.remove(self)
        self.gone()

    def _fetched(self, most: int, paused: Collection[Lane]) -> list[Message]:
        messages: list[Message] = []
        for lane, position in self.places.items():
            if lane not in paused:
                stored = self._broker.topic(self._topic)[lane.native[1]][position : position + most - len(messages)]
                messages += [Message(lane, position + i, s.value, self._topic, s.key, s.headers) for i, s in enumerate(stored)]
                self.places[lane] = position + len(stored)
        return messages

    async def _shared_out(self) -> None:
        members = self._group.members
        for member in members:
            if member.reader is not None and member.places:
                await member.reader.release(list(member.places))
                member.gone()
        for index in range(len(self._broker.topic(self._topic))):
            if members:
                native = (self._topic, index)
                lane = Lane(f"{self._topic}/{index}", native)
                members[index % len(members)].places[lane] = self._group.places.get(native, 0)

    def gone(self) -> None:
        """Forget the partitions: they are another's."""
        lanes, self.places = list(self.places), {}
        if self.reader is not None:
            self.reader.lost(lanes)
