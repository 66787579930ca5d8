"""What both directions of Kafka share: how brokers are reached, and a writer that loses nothing. Used by kafka.py and by records of requests.

Raises only ServingErrors; those of the client are put into words here.
"""

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.plugins import missing
from dragoman.streams.addresses import StreamAddress
from dragoman.streams.hosts import TLS_OPTIONS, host_port, tls_context

if TYPE_CHECKING:
    import aiokafka

WRITER_OPTIONS = ("tls", *TLS_OPTIONS, "sasl", "password_env", "idempotent", "compression")

PORT = 9092
"""Of a broker, where an address has none."""

_TOPIC = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}\Z")
_AF = re.compile(r", <AddressFamily[^>]*>")
_SASL = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_COMPRESSIONS = ("none", "gzip", "snappy", "lz4", "zstd")
_BATCH_BYTES = 256 << 10
"""Several small answers go in one request; the client's own default of 16 kB means one round trip for each 50 of them."""
_MOST_BYTES = 1 << 20
_STOP_S = 4.0
"""A client that says goodbye waits longer for a broker that hangs."""


class Record(Protocol):
    """What is written; streams.Outgoing is one."""

    to: str
    value: bytes
    key: bytes | None
    headers: Sequence[tuple[str, bytes]]


class KafkaWriter:
    """A producer that is made when something is to be written, and made anew after it failed. All methods are called on one loop.

    Raises INVALID_INPUT for options that are wrong, UNSUPPORTED without the package. `timeout_s` is how long a write is tried before it raises.
    """

    def __init__(self, address: StreamAddress, environ: Mapping[str, str], client: str, *, timeout_s: float = 40.0) -> None:
        compression = address.option("compression", "none", _COMPRESSIONS)
        self._name = address.name
        self._options = {
            **connection(address, environ, client),
            "acks": "all",
            "enable_idempotence": address.flag("idempotent"),
            "compression_type": None if compression == "none" else compression,
            "max_batch_size": _BATCH_BYTES,
            "max_request_size": _MOST_BYTES,
            "request_timeout_ms": round(timeout_s * 1000),
        }
        self._producer: aiokafka.AIOKafkaProducer | None = None

    async def publish(self, records: Sequence[Record]) -> list[ServingError | None]:
        """Write these, those of one key in order, and return when every in-sync replica has them: None for each, or why it never will be.

        Raises UNAVAILABLE for what may pass; some of them may have been written by then.
        """
        from aiokafka.errors import KafkaError, MessageSizeTooLargeError

        outcomes: list[ServingError | None] = []
        futures = []
        try:
            producer = await self._open()
            for record in records:
                try:
                    future = await producer.send(record.to, record.value, record.key, headers=list(record.headers))
                except MessageSizeTooLargeError:
                    outcomes.append(_too_large(record))
                else:
                    futures.append((len(outcomes), record, future))
                    outcomes.append(None)
            for index, record, future in futures:
                try:
                    await future
                except MessageSizeTooLargeError:
                    outcomes[index] = _too_large(record)
        except (KafkaError, OSError) as error:
            for _, _, future in futures:
                future.add_done_callback(heard)
            await self.close()  # one that has failed may have lost the numbers that keep its writes in order
            raise unavailable(self._name, error) from error
        return outcomes

    async def close(self) -> None:
        """Never raises."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await stopped(producer)

    async def _open(self) -> "aiokafka.AIOKafkaProducer":
        if self._producer is None:
            from aiokafka import AIOKafkaProducer

            producer = AIOKafkaProducer(**self._options)
            try:
                await producer.start()
            except BaseException:
                await stopped(producer)
                raise
            self._producer = producer
        return self._producer


def connection(address: StreamAddress, environ: Mapping[str, str], client: str) -> dict[str, Any]:
    """What a client of aiokafka is told about its brokers. Reads certificates. Raises INVALID_INPUT, UNSUPPORTED without the package."""
    try:
        import aiokafka  # noqa: F401 # so that what is missing is said at once
    except ImportError as error:
        raise missing("kafka", "aiokafka", error) from error
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it logs every attempt; the bridge says once what does not work
    options: dict[str, Any] = {"bootstrap_servers": [_written(*host_port(host, PORT)) for host in address.hosts], "client_id": client}
    encrypted = address.flag("tls", any(name in address.options for name in TLS_OPTIONS))
    if encrypted:
        options["ssl_context"] = tls_context(address)
    mechanism = address.option("sasl", "PLAIN" if address.user else "", ("", *_SASL))
    if mechanism:
        password = address.secret(environ)
        if not address.user or not password:
            raise invalid(
                f"the stream {address.name} needs a user and a password for SASL: kafka://USER:PASSWORD@..., or the password in the variable"
                " DRAGOMAN_KAFKA_PASSWORD"
            )
        options |= {"sasl_mechanism": mechanism, "sasl_plain_username": address.user, "sasl_plain_password": password}
    options["security_protocol"] = ("SASL_" if mechanism else "") + ("SSL" if encrypted else "PLAINTEXT")
    return options


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def checked_topics(text: str, name: str, address: StreamAddress) -> tuple[str, ...]:
    """The topics that a text separates by commas. Raises INVALID_INPUT for what cannot be the name of one."""
    topics = tuple(text.split(","))
    for topic in topics:
        if not _TOPIC.match(topic):
            raise invalid(
                f"{name} of the stream {address.name}: '{topic[:100]}' is no topic; letters, digits, '.', '_' and '-' are possible"
            )
    return topics


def unavailable(name: str, error: Exception) -> ServingError:
    """What the client says, as something that may pass."""
    words = "they say nothing" if isinstance(error, TimeoutError) else _AF.sub("", str(error)) or type(error).__name__
    if "InconsistentGroupProtocol" in words:
        words = "the group is that of other programs, whose members share partitions out in another way: take another group"
    return ServingError(Kind.UNAVAILABLE, f"the brokers of {name} do not answer as they should: {words[:500]}")


async def stopped(client: Any) -> None:
    """End a consumer or producer, whatever state it is in."""
    try:
        async with asyncio.timeout(_STOP_S):
            await client.stop()
    except Exception as error:  # its connection may be gone, or it never had one
        logging.getLogger("dragoman.streams").debug("a client of Kafka ended with %r", error)


def heard(future: Any) -> None:
    """For one that nobody waits for any more: its failure is no news."""
    if not future.cancelled():
        future.exception()


def _too_large(record: Record) -> ServingError:
    return ServingError(Kind.TOO_LARGE, f"{len(record.value)} bytes are more than the topic '{record.to}' takes")
