"""Streams over Kafka: a connector (see streams/__init__.py) that is one member of a consumer group, with a producer for the answers.

Every worker is a member, so a topic's partitions are shared out among workers and servers. The offset of a partition is committed behind the
oldest message whose answer all in-sync replicas have. At a rebalance the group waits until what this member runs is written and committed
(MLRun requirements M19-M21). A lane is a partition between two rebalances.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dragoman.core.errors import ServingError, invalid
from dragoman.streams import Lane, Message, Outgoing, Reader, Surroundings
from dragoman.streams.addresses import StreamAddress
from dragoman.streams.kafka_client import WRITER_OPTIONS, KafkaWriter, checked_topics, connection, heard, stopped, unavailable

if TYPE_CHECKING:
    import aiokafka

OPTIONS = (*WRITER_OPTIONS, "start", "wait", "session_timeout", "rebalance_timeout")

_FETCH_S = 1.0
_WAIT_S = 0.05
"""The broker holds a request for so long when there is nothing. A partition that was just emptied waits for the request that is under way for
the others, so longer would be a delay; shorter costs requests that bring nothing."""
_COMMIT_S = 10.0
_NEVER_MS = 2**31 - 1
_TOPICS_S = 10.0
"""Topics and partitions that appear are found within this time."""
_LAG_S = 3.0


class KafkaConnector:
    """Implements Connector. Options: those of KafkaWriter, start (earliest or latest, for a group that has no place yet); wait,
    session_timeout and rebalance_timeout in seconds."""

    kind = "kafka"
    commit_interval_s = 0.2

    def __init__(self, address: StreamAddress, surroundings: Surroundings) -> None:
        """Raises INVALID_INPUT for an address that cannot work, UNSUPPORTED without aiokafka."""
        address.only(OPTIONS)
        self._name = address.name
        self._topics = checked_topics(address.source, "the input", address)
        for name in ("out", "errors"):
            topic = getattr(address, name)
            if topic and checked_topics(topic, name, address)[0] in self._topics:
                raise invalid(f"'{name}' of the stream {address.name} is among its own input: each answer would be a request again")
        session_s = address.number("session_timeout", 10, 1, 3600)
        rebalance_s = address.number("rebalance_timeout", 60, 1, 3600)
        self._options: dict[str, Any] = {
            **connection(address, surroundings.environ, surroundings.client),
            "group_id": address.group,
            "enable_auto_commit": False,
            "auto_offset_reset": address.option("start", "earliest", ("earliest", "latest")),
            "max_poll_interval_ms": _NEVER_MS,  # while every message takes long nothing is fetched; heartbeats say that we live
            "session_timeout_ms": round(session_s * 1000),
            "heartbeat_interval_ms": round(min(3.0, session_s / 3) * 1000),
            "rebalance_timeout_ms": round(max(rebalance_s, session_s) * 1000),
            "metadata_max_age_ms": round(_TOPICS_S * 1000),
            "fetch_max_wait_ms": round(address.number("wait", _WAIT_S, 0.001, 60) * 1000),
        }
        self._writer = KafkaWriter(address, surroundings.environ, surroundings.client)
        self._consumer: aiokafka.AIOKafkaConsumer | None = None
        self._reader: Reader | None = None
        self._lanes: dict[aiokafka.TopicPartition, Lane] = {}

    async def open(self, reader: Reader) -> None:
        self._reader = reader
        await self._connected()

    async def fetch(self, most: int, paused: Collection[Lane]) -> Sequence[Message]:
        consumer = await self._connected()
        wanted: list[aiokafka.TopicPartition] = []
        if paused:
            resting = set(paused)
            wanted = [each for each in consumer.assignment() if self._lanes.get(each) not in resting]
            if not wanted:
                await asyncio.sleep(_FETCH_S)
                return []
        try:
            found = await consumer.getmany(*wanted, timeout_ms=round(_FETCH_S * 1000), max_records=most)
        except Exception as error:
            await self._given_up()
            raise unavailable(self._name, error) from error
        messages: list[Message] = []
        for partition, records in found.items():
            lane = self._lanes.get(partition)
            if lane is None:
                lane = self._lanes[partition] = Lane(f"{partition.topic}/{partition.partition}", partition)
            topic = partition.topic
            messages += [Message(lane, r.offset, r.value or b"", topic, r.key, r.headers) for r in records]
        return messages

    async def publish(self, answers: Sequence[Outgoing]) -> Sequence[ServingError | None]:
        return await self._writer.publish(answers)

    async def commit(self, upto: Mapping[Lane, Message]) -> None:
        offsets = {lane.native: message.position + 1 for lane, message in upto.items() if self._lanes.get(lane.native) is lane}
        if not offsets or self._consumer is None:
            return
        # The client tries for ever, even when it was replaced by a new one meanwhile; and what is cancelled there complains to the log.
        committing = asyncio.get_running_loop().create_task(self._consumer.commit(offsets))
        committing.add_done_callback(heard)
        try:
            await asyncio.wait_for(asyncio.shield(committing), _COMMIT_S)
        except Exception as error:
            raise unavailable(self._name, error) from error

    async def lag(self) -> Mapping[str, int | None]:
        consumer = self._consumer
        if consumer is None:
            return {}
        partitions = consumer.assignment()
        try:
            async with asyncio.timeout(_LAG_S):
                ends = await consumer.end_offsets(list(partitions))
        except Exception as error:
            raise unavailable(self._name, error) from error
        try:
            async with asyncio.timeout(_LAG_S / 2):
                return {f"{p.topic}/{p.partition}": max(0, ends[p] - await consumer.position(p)) for p in partitions}
        except Exception:  # in the middle of a rebalance: not known
            return {f"{p.topic}/{p.partition}": None for p in partitions}

    async def close(self) -> None:
        await asyncio.gather(self._given_up(), self._writer.close())

    # --- below the surface ---

    async def _connected(self) -> "aiokafka.AIOKafkaConsumer":
        if self._consumer is None:
            from aiokafka import AIOKafkaConsumer

            consumer = AIOKafkaConsumer(**self._options)
            try:
                await consumer.start()
                consumer.subscribe(self._topics, listener=self._listener())
            except BaseException as error:
                await stopped(consumer)
                if isinstance(error, Exception):
                    raise unavailable(self._name, error) from error
                raise
            self._consumer = consumer
        return self._consumer

    async def _given_up(self) -> None:
        """Leave the group; a new consumer is made when the next messages are wanted."""
        consumer, self._consumer = self._consumer, None
        lanes, self._lanes = list(self._lanes.values()), {}
        if self._reader is not None:
            self._reader.lost(lanes)
        if consumer is not None:
            await stopped(consumer)

    def _listener(self) -> Any:
        from aiokafka import ConsumerRebalanceListener

        connector = self

        class Listener(ConsumerRebalanceListener):  # type: ignore[misc] # the package has no types
            async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
                await connector._revoked(revoked)

            async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
                """Lanes are made when their first message comes."""

        return Listener()

    async def _revoked(self, partitions: Collection[Any]) -> None:
        lanes = {p: self._lanes[p] for p in partitions if p in self._lanes}
        if lanes and self._reader is not None:
            await self._reader.release(lanes.values())
        for partition in lanes:
            self._lanes.pop(partition, None)
