"""What only Kafka has: members that come while others work, partitions, and a broker that hangs."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.streams import Lane, Message, Outgoing, Surroundings
from dragoman.streams.addresses import StreamAddress, parse_stream
from dragoman.streams.bridge import Bridge
from dragoman.streams.kafka import KafkaConnector
from dragoman.streams.kafka_client import KafkaWriter
from dragoman.streams.tickets import Response
from tests import brokers
from tests.contract.test_connectors import run, until


class Noted(Bridge):
    """Notes when it is asked to give lanes up."""

    def __init__(self, address: StreamAddress, respond: Callable[[Message], Awaitable[Response]]) -> None:
        super().__init__(KafkaConnector(address, Surroundings("test")), address, respond, lambda letter, error: None)
        self.asked = asyncio.Event()

    async def release(self, lanes: Collection[Lane]) -> None:
        self.asked.set()
        await super().release(lanes)


async def ended(bridge: Bridge, task: "asyncio.Task[None]") -> None:
    await bridge.drain(5.0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_a_member_that_comes_waits_for_what_runs() -> None:
    """A model that takes long loses nothing and repeats nothing: what was begun is written and committed before partitions change hands."""

    async def test() -> None:
        kafka = brokers.kafka()
        source, out = kafka.topic(2), kafka.topic()
        address = parse_stream(f"kafka://{kafka.address}/{source}?out={out}&group={brokers.fresh()}&session_timeout=3")
        go = asyncio.Event()

        async def respond(message: Message) -> Response:
            await go.wait()
            return Response([Outgoing(out, message.value, message)])

        first, second = Noted(address, respond), Noted(address, respond)
        tasks = [asyncio.get_running_loop().create_task(first.run())]
        for partition in (0, 1):
            await asyncio.to_thread(kafka.send, source, *[b"%d-%d" % (partition, each) for each in range(5)], partition=partition)
        await until(lambda: first.in_flight == 10)
        tasks.append(asyncio.get_running_loop().create_task(second.run()))
        await first.asked.wait()
        assert not second.counts.taken
        go.set()
        await until(lambda: first.counts.answered == 10)
        for partition in (0, 1):
            await asyncio.to_thread(kafka.send, source, *[b"%d-%d" % (partition, each) for each in range(5, 10)], partition=partition)
        await until(lambda: first.counts.answered == 15 and second.counts.answered == 5)
        for bridge, task in zip((first, second), tasks, strict=True):
            await ended(bridge, task)
        found = Counter(record.value for record in await asyncio.to_thread(kafka.received, out, 20))
        assert found == {b"%d-%d" % (partition, each): 1 for partition in (0, 1) for each in range(10)}
        assert first.counts.abandoned == second.counts.abandoned == 0

    run(test)


def test_a_topic_that_comes_later() -> None:
    """A stream may be there before its topic is."""

    async def test() -> None:
        kafka = brokers.kafka()
        source, out = brokers.fresh("later"), kafka.topic()
        address = parse_stream(f"kafka://{kafka.address}/{source}?out={out}&group={brokers.fresh()}&session_timeout=3")

        async def respond(message: Message) -> Response:
            return Response([Outgoing(out, message.value, message, message.key, message.headers)])

        bridge = Noted(address, respond)
        task = asyncio.get_running_loop().create_task(bridge.run())
        await until(lambda: bridge.opened)
        await asyncio.to_thread(kafka.send, source, b"first", key="k", headers={"a": "b"})
        await until(lambda: bridge.counts.answered == 1)
        await ended(bridge, task)
        (record,) = await asyncio.to_thread(kafka.received, out, 1)
        assert (record.value, record.key, record.headers) == (b"first", "k", {"a": "b"})

    run(test)


def test_a_writer_says_what_can_never_be_written() -> None:
    """Of one record, while the others are; without a broker it raises what may pass, and can be used again and closed."""

    async def test() -> None:
        kafka = brokers.kafka()
        topic = kafka.topic()
        lane = Lane("in/0")

        def letter(value: bytes) -> Outgoing:
            return Outgoing(topic, value, Message(lane, 0, b"", "in"))

        writer = KafkaWriter(parse_stream(f"kafka://{kafka.address}/x?compression=gzip"), {}, "test")
        outcomes = await writer.publish([letter(b"one"), letter(b"x" * (2 << 20)), letter(b"three")])
        assert [each.kind if each else None for each in outcomes] == [None, Kind.TOO_LARGE, None]
        await writer.close()
        await writer.close()
        assert await writer.publish([letter(b"again")]) == [None]
        await writer.close()
        assert [record.value for record in await asyncio.to_thread(kafka.received, topic, 3)] == [b"one", b"three", b"again"]
        nowhere = KafkaWriter(parse_stream("kafka://user:hidden@127.0.0.1:1/x"), {}, "test")
        for _ in range(2):
            with pytest.raises(ServingError) as caught:
                await nowhere.publish([letter(b"lost")])
            assert caught.value.kind is Kind.UNAVAILABLE
            assert "hidden" not in caught.value.message
        await nowhere.close()

    run(test)
