"""The bridge over streams in memory: order, bounds, commits, what is lost and what comes again, and brokers that are away."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.streams import Message, Outgoing
from dragoman.streams.addresses import StreamAddress, parse_stream
from dragoman.streams.bridge import Bridge
from dragoman.streams.memory import MemoryBroker, MemoryConnector
from dragoman.streams.tickets import Response
from tests.servables import run
from tests.servables import settle as turn

ADDRESS = "kafka://memory:1/in?out=out&group=g"


async def settle(condition: Callable[[], bool]) -> None:
    """Wait for a condition. By the clock: a bridge waits before it tries again."""
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("the condition never came true")


class Model:
    """Answers in capitals. Messages whose text is in `slow` wait until they are let go; `bad` fails."""

    def __init__(self, out: str = "out") -> None:
        self.out = out
        self.begun: list[bytes] = []
        self.ended: list[bytes] = []
        self.cancelled: list[bytes] = []
        self.slow: dict[bytes, asyncio.Event] = {}
        self.running = 0
        self.most = 0

    def hold(self, *values: bytes) -> None:
        self.slow |= {value: asyncio.Event() for value in values}

    def let_go(self, *values: bytes) -> None:
        for value in values or tuple(self.slow):
            self.slow[value].set()

    async def __call__(self, message: Message) -> Response:
        value = message.value
        self.begun.append(value)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if value in self.slow:
                await self.slow[value].wait()
            else:
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled.append(value)
            raise
        finally:
            self.running -= 1
        self.ended.append(value)
        letters = [Outgoing(self.out, value.upper(), message, message.key, message.headers)] if self.out else []
        return Response(letters, failed=value == b"bad")


def small(letter: Outgoing, error: ServingError) -> Outgoing | None:
    return Outgoing(letter.to, b"refused", letter.about)


def written(broker: MemoryBroker, topic: str = "out") -> list[bytes]:
    return [stored.value for partition in broker.topic(topic) for stored in partition]


def made(
    broker: MemoryBroker,
    model: Callable[[Message], Awaitable[Response]],
    options: str = "",
    *,
    release_s: float = 5.0,
    refuse: Callable[[Outgoing, ServingError], Outgoing | None] = small,
) -> tuple[Bridge, MemoryConnector]:
    address: StreamAddress = parse_stream(ADDRESS + options)
    connector = MemoryConnector(broker, address)
    return Bridge(connector, address, model, refuse, release_s=release_s), connector


@asynccontextmanager
async def running(bridge: Bridge) -> AsyncIterator["asyncio.Task[None]"]:
    """Whatever the test does not drain itself is killed at the end."""
    task = asyncio.get_running_loop().create_task(bridge.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def place(broker: MemoryBroker, expected: int, partition: int = 0) -> None:
    await settle(lambda: broker.place("g", "in", partition) == expected)


def test_messages_become_answers() -> None:
    """Key and headers are kept, everything is committed, and the counts say so."""

    async def test() -> None:
        broker, model = MemoryBroker(), Model()
        broker.put("in", b"one", b"key", [("trace", b"1")])
        broker.put("in", b"bad")
        bridge, _ = made(broker, model)
        async with running(bridge):
            await place(broker, 2)
            (first, second) = broker.topic("out")[0]
            assert (first.value, first.key, first.headers) == (b"ONE", b"key", [("trace", b"1")])
            assert (second.value, second.key) == (b"BAD", None)
            counts = bridge.counts
            assert (counts.taken, counts.answered, counts.failed, counts.abandoned, bridge.in_flight) == (2, 2, 1, 0, 0)
            assert bridge.trouble() == ""

    run(test)


def test_a_key_is_answered_in_order_and_others_go_on() -> None:
    """One message of a key at a time, in the order in which they came; other keys and messages without one do not wait for it."""

    async def test() -> None:
        broker, model = MemoryBroker(), Model()
        model.hold(b"a1")
        for value, key in ((b"a1", b"a"), (b"a2", b"a"), (b"b1", b"b"), (b"x", None), (b"a3", b"a"), (b"y", None)):
            broker.put("in", value, key)
        bridge, _ = made(broker, model)
        async with running(bridge):
            await settle(lambda: sorted(written(broker)) == [b"B1", b"X", b"Y"])
            assert b"a2" not in model.begun
            assert broker.place("g", "in") == 0
            model.let_go()
            await place(broker, 6)
            assert [value for value in written(broker) if value.startswith(b"A")] == [b"A1", b"A2", b"A3"]

    run(test)


@pytest.mark.parametrize(("order", "others"), [("lane", []), ("none", [b"a2", b"x"])])
def test_other_orders(order: str, others: list[bytes]) -> None:
    """All of a lane one after the other, or nothing."""

    async def test() -> None:
        broker, model = MemoryBroker(), Model()
        model.hold(b"a1")
        for value, key in ((b"a1", b"a"), (b"a2", b"a"), (b"x", None)):
            broker.put("in", value, key)
        bridge, _ = made(broker, model, f"&order={order}")
        async with running(bridge):
            await settle(lambda: bridge.counts.taken == 3 and model.ended == others)
            model.let_go()
            await place(broker, 3)

    run(test)


def test_only_what_nothing_is_missing_before_is_committed() -> None:
    """A message that takes long holds back the commit of its own partition, and of no other."""

    async def test() -> None:
        broker, model = MemoryBroker(partitions=2), Model()
        model.hold(b"two")
        for value in (b"one", b"two", b"three"):
            broker.put("in", value, b"\0")
        broker.put("in", b"other", b"\1")
        bridge, _ = made(broker, model, "&order=none")
        async with running(bridge):
            await place(broker, 1)
            await place(broker, 1, partition=1)
            await settle(lambda: bridge.in_flight == 1)
            assert broker.place("g", "in") == 1
            model.let_go()
            await place(broker, 3)

    run(test)


def test_no_more_are_taken_than_there_is_room_for() -> None:
    """In flight are at most so many; the rest stays at the broker until some are answered."""

    async def test() -> None:
        broker, model = MemoryBroker(partitions=3), Model()
        values = [b"%d" % i for i in range(40)]
        model.hold(*values)
        for value in values:
            broker.put("in", value)
        bridge, connector = made(broker, model, "&in_flight=4")
        async with running(bridge):
            await settle(lambda: model.running == 4)
            assert bridge.counts.taken == 4
            assert sum(lag or 0 for lag in (await connector.lag()).values()) == 36
            model.let_go()
            await settle(lambda: len(written(broker)) == 40)
            assert model.most == 4
            assert sorted(written(broker)) == sorted(values)

    run(test)


def test_a_lane_that_waits_for_one_message_is_read_on_to_a_bound() -> None:
    """So that what is remembered of it stays small; the other lanes go on."""

    async def test() -> None:
        broker, model = MemoryBroker(partitions=2), Model()
        model.hold(b"stuck")
        broker.put("in", b"stuck", b"\0")
        for _ in range(3000):
            broker.put("in", b"more", b"\0")
        bridge, _ = made(broker, model, "&in_flight=50&order=none")
        async with running(bridge):
            await settle(lambda: bridge.counts.answered >= 1000 and bridge.in_flight == 1)
            assert bridge.counts.answered < 1100
            broker.put("in", b"other", b"\1")
            await place(broker, 1, partition=1)
            model.let_go()
            await place(broker, 3001)

    run(test)


def test_a_broker_that_goes_away_and_comes_back() -> None:
    """Nothing is lost: not what was being answered, and not what was being written; it is said what does not work."""

    async def test() -> None:
        broker, model = MemoryBroker(), Model()
        model.hold(b"one", b"two")
        broker.put("in", b"one")
        broker.put("in", b"two")
        bridge, _ = made(broker, model)
        broker.away = True
        async with running(bridge):
            await settle(lambda: bridge.trouble() == "connecting: the broker is away")
            broker.away = False
            await settle(lambda: model.running == 2)
            broker.away = True
            model.let_go(b"one")
            await settle(lambda: "writing" in bridge.trouble() or "reading" in bridge.trouble())
            await settle(lambda: len(model.ended) == 1)
            assert written(broker) == []
            model.let_go(b"two")
            broker.away = False
            await place(broker, 2)
            assert sorted(set(written(broker))) == [b"ONE", b"TWO"]
            await settle(lambda: bridge.trouble() == "")

    run(test)


class Silent(MemoryConnector):
    """Its broker takes what is written when it is told to, and says nothing until then."""

    def __init__(self, broker: MemoryBroker, address: StreamAddress) -> None:
        super().__init__(broker, address)
        self.speaks = asyncio.Event()
        self.asked = 0

    async def publish(self, answers: Sequence[Outgoing]) -> Sequence[ServingError | None]:
        self.asked += 1
        await self.speaks.wait()
        return await super().publish(answers)


def test_a_broker_that_confirms_nothing_is_told_of() -> None:
    """Long before its client gives up; and no more when it has confirmed."""

    async def test() -> None:
        broker, now_s = MemoryBroker(), [100.0]
        broker.put("in", b"one")
        address = parse_stream(ADDRESS)
        connector = Silent(broker, address)
        bridge = Bridge(connector, address, Model(), small, monotonic=lambda: now_s[0])
        async with running(bridge):
            await settle(lambda: connector.asked == 1)
            assert bridge.trouble() == ""
            now_s[0] += 7
            assert bridge.trouble() == "writing: the broker has confirmed nothing for 7 s"
            connector.speaks.set()
            await place(broker, 1)
            assert bridge.trouble() == ""
            await bridge.drain(1.0)

    run(test)


def test_a_stream_that_can_never_be_opened() -> None:
    """Its reason is raised, and it is not tried again."""

    class Refused(MemoryConnector):
        async def open(self, reader: object) -> None:
            raise ServingError(Kind.INVALID_INPUT, "no such stream")

    async def test() -> None:
        address = parse_stream(ADDRESS)
        bridge = Bridge(Refused(MemoryBroker(), address), address, Model(), small)
        with pytest.raises(ServingError, match="no such stream"):
            await bridge.run()
        assert not bridge.opened

    run(test)


def test_an_answer_that_the_broker_never_takes() -> None:
    """A small error is written in its place, and the stream goes on."""

    async def test() -> None:
        broker, model = MemoryBroker(most_bytes=10), Model()
        broker.put("in", b"x" * 11)
        broker.put("in", b"next")
        bridge, _ = made(broker, model)
        async with running(bridge):
            await place(broker, 2)
            assert sorted(written(broker)) == [b"NEXT", b"refused"]
            assert bridge.counts.unwritten == 0

    run(test)


@pytest.mark.parametrize("instead", [None, b"y" * 20])
def test_an_answer_for_which_nothing_can_be_written(instead: bytes | None) -> None:
    """It is left out and counted: it must not stop what comes after."""

    def refuse(letter: Outgoing, error: ServingError) -> Outgoing | None:
        assert error.kind is Kind.TOO_LARGE
        return Outgoing(letter.to, instead, letter.about) if instead else None

    async def test() -> None:
        broker = MemoryBroker(most_bytes=10)
        broker.put("in", b"x" * 11)
        broker.put("in", b"next")
        bridge, _ = made(broker, Model(), refuse=refuse)
        async with running(bridge):
            await place(broker, 2)
            assert written(broker) == [b"NEXT"]
            assert (bridge.counts.unwritten, bridge.counts.answered) == (1, 2)

    run(test)


def test_a_stream_without_output() -> None:
    """Models run for their effects; messages are committed when they have."""

    async def test() -> None:
        broker, model = MemoryBroker(), Model(out="")
        broker.put("in", b"one")
        bridge, _ = made(broker, model)
        async with running(bridge):
            await place(broker, 1)
            assert model.ended == [b"one"]

    run(test)


def test_two_answers_to_one_message() -> None:
    """It is committed when both are written."""

    async def twice(message: Message) -> Response:
        return Response([Outgoing("out", b"1", message), Outgoing("errors", b"2", message)], failed=True)

    async def test() -> None:
        broker = MemoryBroker()
        broker.put("in", b"one")
        bridge, _ = made(broker, twice)
        async with running(bridge):
            await place(broker, 1)
            assert (written(broker), written(broker, "errors")) == ([b"1"], [b"2"])
            assert (bridge.counts.answered, bridge.counts.failed) == (1, 1)

    run(test)


# --- giving lanes up ---


def test_draining_finishes_what_was_begun() -> None:
    """Answers are written and committed; what waited behind them was not begun and comes again."""

    async def test() -> None:
        broker, model = MemoryBroker(), Model()
        model.hold(b"a1")
        for value in (b"a1", b"a2"):
            broker.put("in", value, b"a")
        bridge, _ = made(broker, model)
        async with running(bridge):
            await settle(lambda: model.running == 1)
            draining = asyncio.get_running_loop().create_task(bridge.drain(5.0))
            await settle(lambda: bridge.counts.abandoned == 1)
            assert not draining.done()
            broker.put("in", b"late")
            model.let_go()
            await draining
            assert (written(broker), broker.place("g", "in")) == ([b"A1"], 1)
            assert model.begun == [b"a1"]

    run(test)


def test_draining_has_an_end() -> None:
    """What takes longer is broken off, is not committed, and comes again; what was answered before it is committed."""

    async def test() -> None:
        broker, model = MemoryBroker(), Model()
        model.hold(b"stuck")
        for value in (b"one", b"stuck", b"three"):
            broker.put("in", value)
        bridge, _ = made(broker, model)
        async with running(bridge):
            await settle(lambda: bridge.counts.answered == 2)
            await bridge.drain(0.01)
            await settle(lambda: model.cancelled == [b"stuck"])
            assert broker.place("g", "in") == 1
        again = Model()
        next_bridge, _ = made(broker, again)
        async with running(next_bridge):
            await place(broker, 3)
            assert again.ended == [b"stuck", b"three"]

    run(test)


def test_draining_a_stream_that_never_opened() -> None:
    """It ends at once."""

    async def test() -> None:
        broker = MemoryBroker()
        broker.away = True
        bridge, _ = made(broker, Model())
        async with running(bridge):
            await settle(lambda: bridge.trouble() != "")
            await bridge.drain(5.0)

    run(test)


def test_a_rebalance_waits_for_what_runs() -> None:
    """A second member gets its share when the first has written and committed what it had begun: nothing is answered twice."""

    async def test() -> None:
        broker, model, other = MemoryBroker(partitions=2), Model(), Model()
        model.hold(b"one", b"two")
        broker.put("in", b"one", b"\0")
        broker.put("in", b"two", b"\1")
        bridge, _ = made(broker, model)
        second, _ = made(broker, other)
        async with running(bridge):
            await settle(lambda: model.running == 2)
            async with running(second):
                await settle(lambda: bool(bridge._connector.places))  # type: ignore[attr-defined] # a MemoryConnector
                assert not second.opened
                model.let_go()
                await settle(lambda: second.opened)
                assert sorted(written(broker)) == [b"ONE", b"TWO"]
                for index in range(10):
                    broker.put("in", b"%d" % index, bytes([index]))
                await place(broker, 6)
                await place(broker, 6, partition=1)
                assert len(written(broker)) == 12
                assert model.ended[2:]
                assert other.ended

    run(test)


def test_a_rebalance_does_not_wait_for_ever() -> None:
    """After its time the lane goes to the next member, which answers what the first had not; the first's work is broken off."""

    async def test() -> None:
        broker, model, other = MemoryBroker(), Model(), Model()
        model.hold(b"one")
        broker.put("in", b"one")
        first, connector = made(broker, model, release_s=0.01)
        async with running(first):
            await settle(lambda: model.running == 1)
            await first.release(list(connector.places))
            connector.gone()
            assert first.in_flight == 0
            connector.kill()
            second, _ = made(broker, other)
            async with running(second):
                await place(broker, 1)
                await settle(lambda: model.cancelled == [b"one"])
                assert written(broker) == [b"ONE"]

    run(test)


def test_a_lane_that_is_lost_is_forgotten() -> None:
    """Its work is broken off, its room is free again, and nothing of it is committed or written any more."""

    async def test() -> None:
        broker, model = MemoryBroker(), Model()
        model.hold(b"one")
        for value in (b"one", b"two"):
            broker.put("in", value, b"k")
        bridge, connector = made(broker, model)
        async with running(bridge):
            await settle(lambda: model.running == 1)
            connector.gone()
            assert (bridge.in_flight, bridge.counts.abandoned) == (0, 2)
            await settle(lambda: model.cancelled == [b"one"])
            assert (written(broker), broker.place("g", "in")) == ([], 0)

    run(test)


@pytest.mark.parametrize("seed", range(3))
def test_kills_lose_nothing(seed: int) -> None:
    """Ten times the reader goes without a word at some moment: every message is answered, some of them twice."""

    async def test() -> None:
        broker = MemoryBroker(partitions=3)
        values = [b"%d" % index for index in range(600)]
        for index, value in enumerate(values):
            broker.put("in", value, bytes([index % 7]) if index % 2 else None)
        for kill in range(10):
            bridge, connector = made(broker, Model(), "&in_flight=16")
            async with running(bridge):
                enough = 20 + 7 * ((kill + seed) % 5)
                await turn(lambda: bridge.counts.answered >= enough)  # noqa: B023 # called at once
                connector.kill()
        bridge, _ = made(broker, Model())
        async with running(bridge):
            await settle(lambda: sum(broker.place("g", "in", each) for each in range(3)) == 600)
        assert set(written(broker)) == set(values)

    run(test)
