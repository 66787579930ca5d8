"""Tracking records into a topic of Kafka: a sink of serving/records, which finds it by name. Streams' own writer does the work.

kafka://BROKER[,BROKER]/TOPIC with the options of streams that are about connections. Records have no key, as MLRun's: their order among
requests that ran at the same time means nothing.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.serving.fetch import resolve
from dragoman.serving.fetch_policy import FetchPolicy, plain_host
from dragoman.serving.records import Record
from dragoman.serving.records.forms import slim
from dragoman.serving.records.places import Place
from dragoman.serving.records.settings import Wanted
from dragoman.streams.addresses import StreamAddress, parse_stream
from dragoman.streams.hosts import host_port
from dragoman.streams.kafka_client import PORT, WRITER_OPTIONS, KafkaWriter, checked_topics

MOST_BYTES = 900_000
"""Brokers take a megabyte if they are not told otherwise, envelope included."""
_TIMEOUT_S = 10.0


@dataclass(slots=True)
class _Written:
    to: str
    value: bytes
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


class KafkaRecords:
    """Raises INVALID_INPUT for an address that cannot work, UNSUPPORTED without aiokafka. Nothing is connected to before the first record."""

    def __init__(self, place: Place, wanted: Wanted, policy: FetchPolicy, worker: int, environ: Mapping[str, str]) -> None:
        address = parse_stream(place.url)
        address.only(WRITER_OPTIONS)
        topics = checked_topics(address.source, "the topic", address)
        if len(topics) != 1 or address.out or address.errors or address.model or address.operation:
            raise invalid(f"tracking records go to one topic: expected kafka://BROKER/TOPIC, not {address.name}")
        self._topic = topics[0]
        self._address = address
        self._policy = policy
        self._guarded = not wanted.trusted
        self._writer = KafkaWriter(address, environ, f"dragoman-records-{worker}", timeout_s=_TIMEOUT_S)

    async def send(self, records: Sequence[Record]) -> Sequence[Record]:
        if self._guarded:
            await _check_hosts(self._address, self._policy)
            self._guarded = False
        outcomes = await self._writer.publish([_Written(self._topic, _encoded(record)) for record in records])
        return [record for record, outcome in zip(records, outcomes, strict=True) if outcome is not None]

    async def flush(self) -> None:
        """Nothing is held."""

    async def close(self) -> None:
        await self._writer.close()


def _encoded(record: Record) -> bytes:
    """Of one that no broker would take, everything but requests and answers."""
    text = orjson.dumps(record)
    return text if len(text) <= MOST_BYTES else orjson.dumps(slim(record, len(text)))


async def _check_hosts(address: StreamAddress, policy: FetchPolicy) -> None:
    """Raise FORBIDDEN for brokers that a client named and that are not of the public internet. Those that they name in turn are trusted."""
    for broker in address.hosts:
        named, port = host_port(broker, PORT)
        host = plain_host(named)
        try:
            found = await resolve(host, port)
        except OSError as error:
            raise ServingError(Kind.UNAVAILABLE, f"the host of {address.name} cannot be looked up") from error
        for each in map(ipaddress.ip_address, found):
            if word := policy.refusal(host, each):
                text = f"the broker {host} has a {word} address; it is written to only if the server runs with --allow-fetch {host}"
                raise ServingError(Kind.FORBIDDEN, text)
