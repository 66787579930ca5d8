"""One suite over every connector, between the bridge and a real broker (or the one in memory).

Each test sends through a client that is not ours, and reads what comes out with it.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol, Self

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.plugins import find
from dragoman.streams import Connector, Lane, Message, Outgoing, Surroundings
from dragoman.streams.addresses import StreamAddress, parse_stream
from dragoman.streams.bridge import Bridge
from dragoman.streams.memory import MemoryBroker, MemoryConnector
from dragoman.streams.tickets import Response
from tests import brokers
from tests.fakes_store import FakeStore
from tests.servables import late

_LONG_S = 60.0


class Place(Protocol):
    """An input and an output of one broker."""

    keyed: bool
    """Whether messages have keys there, and answers keep them."""
    bounded: bool
    """Whether it refuses messages of some megabytes."""

    def address(self, options: str = "") -> StreamAddress: ...
    def connector(self, address: StreamAddress) -> Connector: ...
    def send(self, values: Sequence[bytes], key: str = "") -> None: ...
    def received(self, enough: int) -> list[tuple[bytes, str]]:
        """Values and keys of the output, all that are there."""
        ...


class Memory:
    keyed = bounded = True

    def __init__(self) -> None:
        self.broker = MemoryBroker()

    def address(self, options: str = "") -> StreamAddress:
        return parse_stream(f"kafka://memory/in?out=out&group=g{options}")

    def connector(self, address: StreamAddress) -> Connector:
        return MemoryConnector(self.broker, address)

    def send(self, values: Sequence[bytes], key: str = "") -> None:
        for value in values:
            self.broker.put("in", value, key.encode() or None)

    def received(self, enough: int) -> list[tuple[bytes, str]]:
        return [(stored.value, (stored.key or b"").decode()) for stored in self.broker.topic("out")[0]]


class Kafka:
    keyed = bounded = True

    def __init__(self) -> None:
        self.broker = brokers.kafka()
        self.source, self.out, self.group = self.broker.topic(), self.broker.topic(), brokers.fresh("group")

    def address(self, options: str = "") -> StreamAddress:
        return parse_stream(f"kafka://{self.broker.address}/{self.source}?out={self.out}&group={self.group}&session_timeout=3{options}")

    def connector(self, address: StreamAddress) -> Connector:
        made: Connector = find("connectors", "kafka")(address, Surroundings("contract"))
        return made

    def send(self, values: Sequence[bytes], key: str = "") -> None:
        self.broker.send(self.source, *values, key=key)

    def received(self, enough: int) -> list[tuple[bytes, str]]:
        return [(record.value, record.key) for record in self.broker.received(self.out, enough)]


class Mqtt:
    """Its reader is there before anything is sent: what is published for nobody is nowhere kept."""

    keyed = bounded = False

    def __init__(self) -> None:
        self.broker = brokers.mosquitto()
        self.source, self.out, self.group = (brokers.fresh(each) for each in ("in", "out", "group"))
        self.listener = brokers.Listener(self.broker, self.out)
        asyncio.run(self._joined())

    async def _joined(self) -> None:
        connector = self.connector(self.address())
        await connector.open(Nobody())
        await connector.close()

    def address(self, options: str = "") -> StreamAddress:
        return parse_stream(f"mqtt://{self.broker.address}/{self.source}?out={self.out}&group={self.group}&order=lane{options}")

    def connector(self, address: StreamAddress) -> Connector:
        made: Connector = find("connectors", "mqtt")(address, Surroundings(self.group))
        return made

    def send(self, values: Sequence[bytes], key: str = "") -> None:
        self.broker.send(self.source, *values)

    def received(self, enough: int) -> list[tuple[bytes, str]]:
        return [(record.value, "") for record in self.listener.take(enough)]

    def __enter__(self) -> Self:
        self.listener.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.__exit__()


class Kinesis:
    keyed = bounded = True

    def __init__(self) -> None:
        self.broker = brokers.kinesis()
        self.source, self.out, self.group = self.broker.stream(), self.broker.stream(), brokers.fresh("group")
        self.store = FakeStore()

    def address(self, options: str = "") -> StreamAddress:
        return parse_stream(
            f"kinesis://{self.source}?out={self.out}&group={self.group}&endpoint={self.broker.url}&region={brokers.REGION}&poll=0.05{options}"
        )

    def connector(self, address: StreamAddress) -> Connector:
        made: Connector = find("connectors", "kinesis")(address, Surroundings("contract", late(self.store)))
        return made

    def send(self, values: Sequence[bytes], key: str = "") -> None:
        self.broker.send(self.source, *values, key=key or brokers.fresh())

    def received(self, enough: int) -> list[tuple[bytes, str]]:
        return [(record.value, record.key) for record in self.broker.received(self.out, enough)]


class Nobody:
    """Reads nothing."""

    async def release(self, lanes: object) -> None: ...
    def lost(self, lanes: object) -> None: ...


@dataclass
class Echo:
    """Answers with the message in capitals once it is let go."""

    place: Place
    go: asyncio.Event = field(default_factory=asyncio.Event)
    begun: list[bytes] = field(default_factory=list)

    async def __call__(self, message: Message) -> Response:
        self.begun.append(message.value)
        await self.go.wait()
        return Response([Outgoing(self.place.address().out, message.value.upper(), message, message.key, message.headers)])


PLACES: dict[str, Callable[[], Place]] = {"memory": Memory, "kafka": Kafka, "mqtt": Mqtt, "kinesis": Kinesis}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name, value in brokers.KEYS.items():
        monkeypatch.setenv(name, value)
    made = PLACES[request.param]()
    with made if isinstance(made, Mqtt) else nullcontext():
        yield made


def refused(letter: Outgoing, error: ServingError) -> Outgoing:
    assert error.kind is Kind.TOO_LARGE
    return Outgoing(letter.to, b"refused", letter.about, letter.key)


@asynccontextmanager
async def bridged(place: Place, echo: Echo, options: str = "", *, drain_s: float = 10.0) -> AsyncIterator[Bridge]:
    address = place.address(options)
    bridge = Bridge(place.connector(address), address, echo, refused)
    task = asyncio.get_running_loop().create_task(bridge.run())
    try:
        yield bridge
    finally:
        await bridge.drain(drain_s)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LONG_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.01)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(100):
            await test()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    asyncio.run(bounded())


def test_what_is_answered_is_not_seen_again_and_what_is_not_is(place: Place) -> None:
    """At least once: a reader that goes with messages unanswered leaves them, in their order, to the next one of its group."""

    async def test() -> None:
        first, second, third = Echo(place), Echo(place), Echo(place)
        first.go.set()
        values = [b"a-%d" % number for number in range(20)]
        await asyncio.to_thread(place.send, values, "k")
        async with bridged(place, first) as bridge:
            await until(lambda: bridge.counts.answered == 20)
        assert first.begun == values
        late = [b"b-%d" % number for number in range(5)]
        await asyncio.to_thread(place.send, late, "k")
        async with bridged(place, second, drain_s=0.01):
            await until(lambda: bool(second.begun))
        assert second.begun[0] == late[0]
        third.go.set()
        async with bridged(place, third) as bridge:
            await until(lambda: bridge.counts.answered == 5)
            assert third.begun == late
        found = await asyncio.to_thread(place.received, 25)
        assert [value for value, _ in found] == [value.upper() for value in values + late]
        assert {key for _, key in found} == {"k" if place.keyed else ""}

    run(test)


def test_no_more_is_taken_than_is_asked_for(place: Place) -> None:
    """And when there is room again everything else comes, once."""

    async def test() -> None:
        echo = Echo(place)
        values = [b"%d" % number for number in range(300)]
        await asyncio.to_thread(place.send, values)
        async with bridged(place, echo, "&in_flight=8") as bridge:
            await until(lambda: bridge.in_flight == 8)
            assert bridge.counts.taken == 8
            echo.go.set()
            await until(lambda: bridge.counts.answered == 300)
        assert sorted(echo.begun) == sorted(values)
        assert sorted(value for value, _ in await asyncio.to_thread(place.received, 300)) == sorted(values)

    run(test)


def test_an_answer_that_is_too_large(place: Place) -> None:
    """It has an outcome of its own; those beside it are written."""

    async def test() -> None:
        address = place.address()

        async def respond(message: Message) -> Response:
            value = b"x" * (2 << 20) if message.value == b"large" else message.value
            return Response([Outgoing(address.out, value, message)])

        await asyncio.to_thread(place.send, [b"one", b"large", b"three"])
        bridge = Bridge(place.connector(address), address, respond, refused)
        task = asyncio.get_running_loop().create_task(bridge.run())
        await until(lambda: bridge.counts.answered == 3)
        await bridge.drain(10.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        found = {value[:10] for value, _ in await asyncio.to_thread(place.received, 3)}
        assert found == {b"one", b"refused" if place.bounded else b"x" * 10, b"three"}

    run(test)


def test_what_is_gone_is_not_committed(place: Place) -> None:
    """A lane from before is ignored, and closing twice or without having opened raises nothing."""

    async def test() -> None:
        address = place.address()
        connector = place.connector(address)
        await connector.close()
        connector = place.connector(address)
        await connector.open(Nobody())
        lane = Lane("old")
        await connector.commit({lane: Message(lane, 10, b"", "in")})
        assert json.dumps(dict(await connector.lag())) is not None
        await connector.close()
        await connector.close()

    run(test)
