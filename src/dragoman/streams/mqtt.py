"""Streams over MQTT 5 and 3.1.1: a connector (see streams/__init__.py) with one persistent session that it reads and a connection that it writes.

A message is acknowledged when its answer has been written, in the order of arrival as MQTT wants it. What was not acknowledged comes again after
the connection or the server is back: the broker keeps the session (MLRun requirement M21). The lane of a message is the connection that it
came by, because its acknowledgement belongs to that. There is no last will: nobody is told when a server goes.
"""

import asyncio
import hashlib
import re
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.plugins import missing
from dragoman.streams import Lane, Message, Outgoing, Reader, Surroundings
from dragoman.streams.addresses import StreamAddress
from dragoman.streams.hosts import TLS_OPTIONS, tls_context

if TYPE_CHECKING:
    from dragoman.streams.mqtt_session import Access, Arrival, Session

_FETCH_S = 1.0
_MOST_WINDOW = 65_535
_AHEAD = 4
"""MQTT is acknowledged in order: so many times what may be in flight may wait behind a message that takes long."""
_FOR_EVER = 0xFFFFFFFF
_OPTIONS = ("version", "client_id", "session_expiry", "keep_alive", "ordered", "replies", *TLS_OPTIONS, "password_env")
_SHARED = re.compile(r"\$share/[^/+#]+/(.+)\Z", re.DOTALL)
_MOST_BYTES = 65_535
"""Of a topic, in UTF-8."""


class Mqtt:
    """Implements Connector. Options: version (5 or 3.1.1), client_id, session_expiry and keep_alive (seconds), ordered (by topic), replies (to
    response topics), ca, cert, key, password_env."""

    kind = "mqtt"
    commit_interval_s = 0.0

    def __init__(self, address: StreamAddress, surroundings: Surroundings) -> None:
        """Raises INVALID_INPUT for an address that cannot work, UNSUPPORTED when aiomqtt is not installed."""
        try:
            import aiomqtt  # noqa: F401 # so that what is missing is said at once
        except ImportError as error:
            raise missing("mqtt", "aiomqtt", error) from error
        address.only(_OPTIONS)
        self._address = address
        self._filter = _checked_filter(address)
        for name, topic in (("out", address.out), ("errors", address.errors)):
            if topic and not _is_topic(topic):
                raise invalid(f"'{name}' of the stream {address.name} must be a topic without wildcards, not '{topic[:100]}'")
            if topic and matches(topic, self._filter):
                raise invalid(f"'{name}' of the stream {address.name} is among its own input: each answer would be a request again")
        self._encrypted = address.scheme == "mqtts"
        if self._encrypted:
            tls_context(address)  # what is wrong with its files is said at once; they are read again for each connection
        elif given := [name for name in TLS_OPTIONS if name in address.options]:
            raise invalid(f"the stream {address.name} has the option '{given[0]}', which is about TLS: write mqtts://")
        self._v5 = address.option("version", "5", ("5", "3.1.1")) == "5"
        self._replies = address.flag("replies", True)
        self._ordered = address.flag("ordered", "+" in self._filter or "#" in self._filter)
        self._client_id = address.option("client_id") or _client_id(address, surroundings.client)
        self._expiry_s = int(address.number("session_expiry", _FOR_EVER, 0, _FOR_EVER))
        self._keep_alive_s = int(address.number("keep_alive", 15, 1, 3600))
        self._password = address.secret(surroundings.environ)
        self._reading = _Connection(address.hosts, partial(self._access, self._filter))
        self._writing = _Connection(address.hosts, partial(self._access, ""))
        self._count = 0
        self._reader: Reader | None = None
        self._session: Session | None = None
        """The one that the lane belongs to."""
        self._lane = Lane(self._filter)
        self._unacknowledged: deque[tuple[int, int]] = deque()
        self._left: deque[Arrival] = deque()

    async def open(self, reader: Reader) -> None:
        self._reader = reader
        await self._reading.made()
        await self._writing.made()

    async def fetch(self, most: int, paused: Collection[Lane]) -> Sequence[Message]:
        if self._session is not None and self._session.lost:
            ended, self._session = self._session, None
            self._forget(ended)
            raise ended.unavailable()  # said before it is mended, as somebody may have to know why
        session = await _patiently(self._reading)
        if session is not self._session:
            self._session, self._lane = session, Lane(self._filter)
        if self._lane in paused:
            most = 0
        if most and self._left:
            return [self._message(self._left.popleft()) for _ in range(min(most, len(self._left)))]
        return [self._message(arrival) for arrival in await session.take(most, _FETCH_S)]

    def _message(self, arrival: "Arrival") -> Message:
        self._count += 1
        if arrival.qos:
            self._unacknowledged.append((self._count, arrival.mid))
        reply_to = arrival.response_topic if self._replies else ""
        if reply_to and (not _is_topic(reply_to) or matches(reply_to, self._filter)):
            reply_to = ""  # such an answer could not be written, or would be a request again
        key = arrival.topic.encode() if self._ordered else None  # what comes by one topic, from one device, has an order
        return Message(self._lane, self._count, arrival.payload, arrival.topic, key, arrival.headers, reply_to, arrival.correlation)

    async def publish(self, answers: Sequence[Outgoing]) -> Sequence[ServingError | None]:
        from dragoman.streams.mqtt_session import Publication

        session = await _patiently(self._writing)
        publications = []
        for answer in answers:
            correlation = answer.about.native if answer.to == answer.about.reply_to and isinstance(answer.about.native, bytes) else b""
            publications.append(Publication(answer.to, answer.value, answer.headers, correlation))
        return await session.publish(publications)

    async def commit(self, upto: Mapping[Lane, Message]) -> None:
        last = upto.get(self._lane)
        if last is None or self._session is None or self._session.lost:
            return
        while self._unacknowledged and self._unacknowledged[0][0] <= last.position:
            self._session.acknowledge(self._unacknowledged.popleft()[1])

    async def lag(self) -> Mapping[str, int | None]:
        return {self._lane.name: None}

    async def close(self) -> None:
        await self._writing.close()
        await self._reading.close()

    def _forget(self, session: "Session") -> None:
        """The connection is lost, and with it what it has brought and nobody has taken, but for what the broker does not bring again."""
        self._left.extend(session.left())
        self._unacknowledged.clear()
        if self._reader is not None:
            self._reader.lost([self._lane])

    def _access(self, wanted: str) -> "Access":
        """Reads files of certificates, so it is called in a thread."""
        from dragoman.streams.mqtt_session import Access, TlsSocket

        window = min(_AHEAD * self._address.in_flight, _MOST_WINDOW)
        client_id = self._client_id if wanted else f"{self._client_id}-out"
        tls = tls_context(self._address) if self._encrypted else None
        if tls is not None:
            tls.sslsocket_class = TlsSocket
        return Access(wanted, client_id, self._v5, window, self._expiry_s, self._keep_alive_s, self._address.user, self._password, tls)


class _Connection:
    """One connection, made anew by whoever needs it after it was lost."""

    def __init__(self, hosts: Sequence[str], access: "Callable[[], Access]") -> None:
        self._hosts = hosts
        self._access = access
        self._session: Session | None = None
        self._connecting: asyncio.Task[None] | None = None

    async def made(self) -> "Session":
        """Raises UNAVAILABLE for what may pass, other kinds for what does not."""
        if self._session is None or self._session.lost:
            if self._connecting is None:
                # A task of its own, so that one who is cancelled leaves no half-made connection: the next one waits for it.
                self._connecting = asyncio.create_task(self._connect())
            connecting = self._connecting
            try:
                await asyncio.shield(connecting)
            finally:
                if connecting.done():
                    self._connecting = None
        assert self._session is not None
        return self._session

    async def _connect(self) -> None:
        from dragoman.streams.mqtt_session import Session

        access = await asyncio.to_thread(self._access)
        failure = ServingError(Kind.UNAVAILABLE, "there is no broker")
        for where in self._hosts:
            session = Session(where, access)
            try:
                await session.connect()
            except ServingError as error:
                failure = error
                continue
            self._session = session
            return
        raise failure

    async def close(self) -> None:
        if self._connecting is not None:
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _patiently(connection: _Connection) -> "Session":
    """Raises only UNAVAILABLE: what was good once is tried again."""
    try:
        return await connection.made()
    except ServingError as error:
        raise ServingError(Kind.UNAVAILABLE, error.message) from error


def matches(topic: str, wanted: str) -> bool:
    """Whether a subscription to this filter brings this topic (MQTT 5, section 4.7)."""
    shared = _SHARED.match(wanted)
    levels, have = (shared[1] if shared else wanted).split("/"), topic.split("/")
    if topic.startswith("$") and levels[0] in ("+", "#"):
        return False
    for index, level in enumerate(levels):
        if level == "#":
            return True
        if index >= len(have) or level not in ("+", have[index]):
            return False
    return len(have) == len(levels)


def _is_topic(topic: str) -> bool:
    return bool(topic) and not set(topic) & set("+#\0") and len(topic.encode("utf-8", "replace")) <= _MOST_BYTES


def _checked_filter(address: StreamAddress) -> str:
    wanted = address.source
    shared = _SHARED.match(wanted)
    levels = (shared[1] if shared else wanted).split("/")
    wrong = any(set(level) & set("+#\0") and level not in ("+", "#") for level in levels) or "#" in levels[:-1]
    if wrong or (wanted.startswith("$share") and not shared) or len(wanted.encode("utf-8", "replace")) > _MOST_BYTES:
        raise invalid(
            f"the stream {address.name} must have a topic filter: + stands for one level, # (written %23) for all that follow, and"
            " $share/GROUP/FILTER shares messages with other clients"
        )
    return wanted


def _client_id(address: StreamAddress, client: str) -> str:
    """The same after a restart, and another for each worker, group and topic: two clients of one id throw each other out."""
    digest = hashlib.sha256(f"{address.group}\0{address.source}".encode()).hexdigest()[:8]
    return f"{client}-{re.sub('[^A-Za-z0-9]', '', address.group)[:20]}-{digest}"
