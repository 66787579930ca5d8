"""One connection to an MQTT broker: what arrives is kept until somebody takes it and acknowledged when somebody says so. Used by mqtt.py.

aiomqtt connects, keeps alive and subscribes. Receiving and publishing go by the callbacks of paho beneath it, because aiomqtt acknowledges what
it has not handed over yet, drops what its queue has no room for, and does not tell why a broker refused a message.
"""

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiomqtt
from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY, MQTTMessage
from paho.mqtt.client import Client as Paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from dragoman.core.errors import Kind, ServingError
from dragoman.streams.hosts import host_port

_ANSWER_S = 10.0
"""For the broker's answers to a connect, a subscription or a publish; only silence lasts so long."""
_MOST_UNCONFIRMED = 200
_LEFT_ALONE = 1
"""Retain handling: retained messages come with a new subscription, not with each time that it is made sure of."""
_REFUSED = {135: Kind.FORBIDDEN, 144: Kind.INVALID_INPUT, 149: Kind.TOO_LARGE, 153: Kind.INVALID_INPUT}
"""Reasons for which a message is never taken: not authorised, topic name, packet too large, payload format."""
_FOR_GOOD = {
    132: (Kind.UNSUPPORTED, "does not speak this version of MQTT: say version=3.1.1 or version=5"),
    133: (Kind.INVALID_INPUT, "does not accept this client id: say client_id=NAME"),
    134: (Kind.UNAUTHENTICATED, "does not accept this user and password"),
    135: (Kind.FORBIDDEN, "does not let this client in: it knows other users, passwords or client ids"),
    138: (Kind.FORBIDDEN, "has banned this client"),
    140: (Kind.UNAUTHENTICATED, "wants another way to authenticate"),
}
"""Reasons of a refused connection that no waiting mends."""


@dataclass(frozen=True, slots=True)
class Access:
    """How to get at a broker, and what to ask of it."""

    filter: str
    """What is subscribed to; "" for a connection that only writes: of that the broker keeps nothing."""
    client_id: str
    v5: bool
    window: int
    """Messages that may be here without an acknowledgement."""
    expiry_s: int
    """How long the broker keeps the session without a connection (MQTT 5; in 3.1.1 it says that itself)."""
    keep_alive_s: int = 15
    """A broker that says nothing for so long, and then again, is lost."""
    user: str = ""
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message as it came."""

    topic: str
    payload: bytes
    qos: int
    mid: int
    headers: Sequence[tuple[str, bytes]] = ()
    response_topic: str = ""
    correlation: bytes = b""


@dataclass(frozen=True, slots=True)
class Publication:
    """A message to be written."""

    topic: str
    payload: bytes
    headers: Sequence[tuple[str, bytes]] = ()
    correlation: bytes = b""


class TlsSocket(ssl.SSLSocket):
    """Closes itself when the other side cannot be trusted: paho forgets it then."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


class Session:
    """One connection, from `connect` until it is lost or closed. Everything happens on the event loop that made it."""

    def __init__(self, where: str, access: Access) -> None:
        self.where = where
        self._access = access
        self._loop = asyncio.get_running_loop()
        self._arrivals: deque[Arrival] = deque()
        self._some = asyncio.Event()
        self._over = asyncio.Event()
        self._why = ""
        self._largest = 0
        self._brakes = False
        """Whether reading may pause: what waited for the session comes before the answer to the subscription."""
        self._paused = False
        self._most_unconfirmed = _MOST_UNCONFIRMED
        self._unconfirmed: dict[int, int] = {}
        self._unsent: deque[tuple[int, Publication]] = deque()
        self._outcomes: list[ServingError | None] = []
        self._confirmed: asyncio.Future[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        host, port = host_port(where, 1883 if access.tls is None else 8883)
        self._client = aiomqtt.Client(
            host,
            port,
            username=access.user or None,
            password=access.password or None,
            identifier=access.client_id,
            protocol=aiomqtt.ProtocolVersion.V5 if access.v5 else aiomqtt.ProtocolVersion.V311,
            clean_session=None if access.v5 else not access.filter,
            clean_start=not access.filter if access.v5 else MQTT_CLEAN_START_FIRST_ONLY,
            properties=self._wishes() if access.v5 else None,
            timeout=_ANSWER_S,
            keepalive=access.keep_alive_s,
            max_inflight_messages=2 * _MOST_UNCONFIRMED,  # paho's own bound, above ours
            tls_context=access.tls,
        )
        self._paho: Paho = self._client._client  # noqa: SLF001 # the only way to acknowledge by hand
        self._take_over()

    def _wishes(self) -> Properties:
        wishes = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho has no types there
        wishes.SessionExpiryInterval = self._access.expiry_s if self._access.filter else 0
        wishes.ReceiveMaximum = self._access.window
        return wishes

    def _take_over(self) -> None:
        self._paho.manual_ack_set(True)
        self._paho.on_message = self._arrived
        self._paho.on_publish = self._published
        greeted, opened = self._paho.on_connect, self._paho.on_socket_open
        assert greeted is not None
        assert opened is not None

        def connected(client: Paho, userdata: Any, flags: Any, reason: ReasonCode, properties: Properties | None) -> None:
            self._largest = getattr(properties, "MaximumPacketSize", 0)
            self._most_unconfirmed = min(_MOST_UNCONFIRMED, getattr(properties, "ReceiveMaximum", _MOST_UNCONFIRMED))
            greeted(client, userdata, flags, reason, properties)  # type: ignore[call-arg, arg-type] # it is of the newer of two kinds

        def reachable(client: Paho, userdata: Any, sock: Any) -> None:
            opened(client, userdata, sock)  # in a thread; it has the loop read, and this takes its place
            self._loop.call_soon_threadsafe(self._loop.add_reader, sock.fileno(), self._read)

        self._paho.on_connect = connected
        self._paho.on_socket_open = reachable

    async def connect(self) -> None:
        """Connect and make sure of the subscription: the broker may have forgotten it. Not to be cancelled.

        Raises UNAVAILABLE for what may pass, other kinds for what does not, and nothing is left open then.
        """
        try:
            await self._client.__aenter__()
        except (aiomqtt.MqttError, ValueError) as error:
            self._tear()
            raise self._not_connected(error) from error
        if self.lost:
            self._tear()
            raise self._unavailable("was closed as soon as it was made")
        self._watch = self._loop.create_task(self._until_lost())
        if self._access.filter:
            try:
                await self._subscribe()
            except BaseException:
                await self.close()
                raise
        self._brakes = True

    async def _subscribe(self) -> None:
        topic = self._access.filter
        try:
            if self._access.v5:
                options = SubscribeOptions(qos=1, retainHandling=_LEFT_ALONE)
                granted = await self._client.subscribe(topic, options=options)
            else:
                granted = await self._client.subscribe(topic, qos=1)
        except aiomqtt.MqttError as error:
            raise self._unavailable(f"did not take the subscription to '{topic}' ({error})") from error
        reason = granted[0]
        code = reason if isinstance(reason, int) else reason.value
        if code >= 128:
            kind = Kind.UNAVAILABLE if code == 151 else Kind.FORBIDDEN
            raise ServingError(kind, f"the broker {self.where} refused the subscription to '{topic}' ({_words(reason)})")

    @property
    def lost(self) -> bool:
        # aiomqtt forgets a connection that was closed right behind the broker's greeting, as brokers do that are about to end; paho does not.
        return self._over.is_set() or not self._paho.is_connected()

    async def take(self, most: int, wait_s: float) -> list[Arrival]:
        """What has arrived, at least one if that happens in this time. Nothing when the connection is lost."""
        waits = self._some if most else self._over
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await waits.wait()
        if self.lost:
            return []
        taken = [self._arrivals.popleft() for _ in range(min(most, len(self._arrivals)))]
        if not self._arrivals:
            self._some.clear()
        if self._paused and len(self._arrivals) <= self._access.window // 2:
            self._resume()
        return taken

    def left(self) -> list[Arrival]:
        """What the broker will not send again: messages of QoS 0 that nobody has taken."""
        return [arrival for arrival in self._arrivals if not arrival.qos]

    def acknowledge(self, mid: int) -> None:
        """The broker may forget this message of QoS 1. To be called in the order of arrival."""
        self._paho.ack(mid, 1)

    async def publish(self, publications: Sequence[Publication]) -> list[ServingError | None]:
        """Write with QoS 1; returns when the broker has all of them, or why it never takes one. Raises UNAVAILABLE otherwise."""
        if self.lost:
            raise self.unavailable()
        self._outcomes = [None] * len(publications)
        self._unconfirmed = {}
        self._confirmed = self._loop.create_future()
        self._unsent = deque(enumerate(publications))
        try:
            self._send_more()
            await self._confirmed  # a broker that says nothing any more is found out by the keep-alive
            return self._outcomes
        finally:
            self._confirmed = None
            self._unsent.clear()

    def _send_more(self) -> None:
        """As many as the broker takes without having confirmed them."""
        while self._unsent and len(self._unconfirmed) < self._most_unconfirmed:
            index, publication = self._unsent.popleft()
            self._outcomes[index] = self._send(index, publication)
        if not self._unconfirmed and self._confirmed is not None and not self._confirmed.done():
            self._confirmed.set_result(None)

    def _send(self, index: int, publication: Publication) -> ServingError | None:
        if self._largest and len(publication.payload) + len(publication.topic) + 1000 > self._largest:
            message = f"a message of {len(publication.payload)} bytes is too large for the broker {self.where}: it takes {self._largest}"
            return ServingError(Kind.TOO_LARGE, message)
        try:
            info = self._paho.publish(publication.topic, publication.payload, 1, properties=self._properties(publication))
        except ValueError as error:
            return ServingError(Kind.INVALID_INPUT, f"no message can be written to the topic '{publication.topic[:200]}' ({error})")
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise self._unavailable(f"was not written to (error {int(info.rc)})")
        self._unconfirmed[info.mid] = index
        return None

    def _properties(self, publication: Publication) -> Properties | None:
        if not self._access.v5:
            return None
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call] # paho has no types there
        if publication.headers:
            properties.UserProperty = [(name, value.decode("utf-8", "replace")) for name, value in publication.headers]
        if publication.correlation:
            properties.CorrelationData = publication.correlation
        return properties

    async def close(self) -> None:
        """Say good-bye; the broker keeps the session. Also after the connection was lost."""
        if not self.lost:
            with contextlib.suppress(aiomqtt.MqttError):
                await self._client.__aexit__(None, None, None)
        self._tear()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])

    # --- called by paho, on the loop ---

    def _read(self) -> None:
        try:
            while not self._paused:
                self._paho.loop_read()
                sock = self._paho.socket()
                if not isinstance(sock, ssl.SSLSocket) or not sock.pending():
                    return  # what TLS has taken from the socket already does not wake the loop
        except Exception:  # a broken packet or pipe: whatever it is, this connection is of no use any more
            self._tear()

    def _arrived(self, _client: Paho, _userdata: Any, message: MQTTMessage) -> None:
        given = message.properties
        headers = [(name, value.encode()) for name, value in getattr(given, "UserProperty", ())]
        self._arrivals.append(
            Arrival(
                message.topic, bytes(message.payload), message.qos, message.mid, headers,
                getattr(given, "ResponseTopic", ""), getattr(given, "CorrelationData", b""),
            )
        )  # fmt: skip
        self._some.set()
        if self._brakes and not self._paused and len(self._arrivals) >= 2 * self._access.window:
            self._pause()

    def _published(self, _client: Paho, _userdata: Any, mid: int, reason: ReasonCode, _properties: Properties) -> None:
        index = self._unconfirmed.pop(mid, None)
        if index is None or self._confirmed is None or self._confirmed.done():
            return
        if reason.value >= 128:
            kind = _REFUSED.get(reason.value)
            if kind is None:
                self._confirmed.set_exception(self._unavailable(f"did not take a message ({_words(reason)})"))
                return
            self._outcomes[index] = ServingError(kind, f"the broker {self.where} refuses a message ({_words(reason)})")
        self._send_more()

    # --- reading, paused and resumed: messages of QoS 0 have no window, so the connection itself must be the brake.
    # Which is why another one writes: a confirmation behind what nobody reads would never be seen. ---

    def _pause(self) -> None:
        sock = self._paho.socket()
        if sock is not None:
            self._loop.remove_reader(sock.fileno())
            self._paused = True

    def _resume(self) -> None:
        self._paused = False
        sock = self._paho.socket()
        if sock is not None:
            self._loop.add_reader(sock.fileno(), self._read)
            self._loop.call_soon(self._read)

    # --- its end ---

    async def _until_lost(self) -> None:
        try:
            await anext(self._client.messages)  # where nothing arrives: it only ends with the connection
        except aiomqtt.MqttError as error:
            self._why = str(error.__cause__ or error)
        finally:
            self._over.set()
            self._some.set()
            if self._confirmed is not None and not self._confirmed.done():
                self._confirmed.set_exception(self._unavailable(f"was lost while answers were written ({self._why})"))

    def _tear(self) -> None:
        """Break the connection, whatever its state."""
        sock = self._paho.socket()
        if isinstance(sock, socket.socket):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(Exception):  # it reads the end, and closes
                self._paho.loop_read()

    def _not_connected(self, error: Exception) -> ServingError:
        code = getattr(getattr(error, "rc", None), "value", None)
        if code in _FOR_GOOD:
            kind, words = _FOR_GOOD[code]
            return ServingError(kind, f"the broker {self.where} {words}")
        return self._unavailable(f"cannot be reached ({error})")

    def unavailable(self) -> ServingError:
        """Of one that is lost: why."""
        return self._unavailable(f"is gone ({self._why})")

    def _unavailable(self, words: str) -> ServingError:
        return ServingError(Kind.UNAVAILABLE, f"the connection to the broker {self.where} {words}")


def _words(reason: Any) -> str:
    return str(reason) if isinstance(reason, ReasonCode) else f"reason {reason}"
