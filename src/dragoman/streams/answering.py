"""What one message comes to: the request that it is, waited for and repeated where that helps, and the documents that are written.

Called by the bridge for each message. A message is one request of MLRun's dialect (MLRun requirements M18-M20); whatever is wrong with it
becomes an object with `error`, on the topic for errors or else where the answer would have gone.
"""

import asyncio
import base64
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeAlias

import orjson

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import EMPTY
from dragoman.serving.gateway import Gateway
from dragoman.streams import Message, Outgoing
from dragoman.streams.addresses import StreamAddress
from dragoman.streams.tickets import Response

log = logging.getLogger("dragoman.streams")

_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_PASSES = frozenset({Kind.NOT_READY, Kind.OVERLOADED})
_PASSES_AT_START = _PASSES | {Kind.NOT_FOUND, Kind.UNAVAILABLE}
_QUOTED = 256 << 10
"""So much of a message that could not be answered is quoted: all of it, but of those as large as what brokers refuse."""
_SILENCE_S = 1.0
_URL = re.compile(r"/?v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/(?P<operation>[^/]+))?/?\Z")
"""A topic of MQTT may be the path of MLRun's URLs; it says then what a URL would."""


class Answered(Protocol):
    """What the dialect makes of a message: `error` is set where there is no answer."""

    document: Any
    id: Any
    status: int
    error: ServingError | None

    def written(self) -> tuple[bytes, str]: ...


Outcome: TypeAlias = Callable[..., Awaitable[Answered]]
"""The dialect's function for messages, `find("messages", "mlrun")`. Refusals are outcomes, too; it raises for nothing in a message."""
Load: TypeAlias = Callable[[str], Awaitable[Any]]


class Answering:
    """`model_wait_s` bounds how long a message waits for a model that is loading, or for room in its queue; `load` reads what data_url names."""

    def __init__(
        self,
        outcome: Outcome,
        gateway: Gateway,
        address: StreamAddress,
        *,
        model_wait_s: float,
        load: Load | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outcome = outcome
        self._gateway = gateway
        self._address = address
        self._model_wait_s = model_wait_s
        self._load = load
        self._monotonic = monotonic
        self._alone = asyncio.Lock()
        self._silent_until = 0.0
        self._waiting: list[ServingError] = []

    def trouble(self) -> str:
        """What messages wait for at the moment, "" for nothing; a queue that is full is no trouble."""
        return f"answering: {self._waiting[0].message}" if self._waiting else ""

    async def respond(self, message: Message) -> Response:
        """Never raises but when it is cancelled."""
        try:
            answered = await self._answered(message)
            if answered.error is None and answered.status < 400:
                to = message.reply_to or self._address.out
                return Response([Outgoing(to, answered.written()[0], message, message.key, message.headers)] if to else [])
            return self._failed(message, answered.id, answered.status, _told(answered))
        except ServingError as error:  # of an answer that JSON cannot carry
            return self._failed(message, None, 500, error.message)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return self._failed(message, None, 499, "the request was cancelled inside of the server")
        except Exception:
            log.exception("a message from %s failed inside of the server", message.lane.name)
            return self._failed(message, None, 500, "internal error")

    def refuse(self, letter: Outgoing, error: ServingError) -> Outgoing | None:
        """What is written where the broker never takes an answer: a small error in its place. None if that is refused already."""
        told = {"error": f"the answer to this message cannot be written: {error.message}"[:2000], "status": 500}
        return Outgoing(letter.to, _json({**_found_in(letter.value), **told, **_origin(letter.about)}), letter.about, letter.key)

    async def _answered(self, message: Message) -> Answered:
        until = self._monotonic() + self._model_wait_s
        answered = await self._patiently(message, until)
        if answered.error is None or answered.error.kind is not Kind.UNAVAILABLE or answered.error.what != "model":
            return answered
        # The model's process died under it, perhaps because of another message that ran with it: once more, without company of that kind.
        async with self._alone:
            return await self._patiently(message, until)

    async def _patiently(self, message: Message, until: float) -> Answered:
        pause = _PAUSE_S
        while True:
            answered = await self._asked(message)
            error = answered.error
            if error is None or not self._passes(error):
                return answered
            loads = self._gateway.starting and error.kind is Kind.NOT_READY  # that has time-outs of its own
            if self._monotonic() >= until and not loads:
                return answered
            shown = [] if error.kind is Kind.OVERLOADED else self._waiting
            shown.append(error)
            try:
                await asyncio.sleep(pause)
            finally:
                shown.remove(error)
            pause = min(_LONGEST_PAUSE_S, 2 * pause)

    def _passes(self, error: ServingError) -> bool:
        """Whether it may be otherwise soon. A model that the address names may be served again; one that messages name is not waited for,
        as messages to others would wait behind it."""
        if error.kind in (_PASSES_AT_START if self._gateway.starting else _PASSES):
            return True
        name, _, version = self._address.model.partition(":")
        if not name or error.kind is not Kind.UNAVAILABLE:
            return False
        if error.what == "unloaded":
            return True
        try:
            self._gateway.find(name, version)
        except ServingError as absent:
            return absent.kind is Kind.UNAVAILABLE
        return False  # it is served, so this message is what it does not stand

    async def _asked(self, message: Message) -> Answered:
        address = self._address
        model, operation = address.model, address.operation
        if model:
            self._gateway.let_in(model.partition(":")[0])  # whoever started the server named it
        elif found := _URL.match(message.source):
            model, operation = _named(found)
        return await self._outcome(
            self._gateway,
            message.value,
            model=model,
            operation=operation,
            path=message.source,
            headers=_texts(message) if message.headers else EMPTY,
            trigger=address.kind,
            load=self._load,
        )

    def _failed(self, message: Message, given: Any, status: int, told: Any) -> Response:
        """The error goes to whoever asked for an answer of his own, and to the topic for errors; without one, to the output."""
        outgoing = []
        document = {"id": given, "error": told, "status": status}
        address = self._address
        to = message.reply_to or (address.out if not address.errors else "")
        if to:
            outgoing.append(Outgoing(to, _json(document), message, message.key, message.headers))
        if address.errors:
            letter = {**document, **_origin(message), **_quoted(message.value)}
            outgoing.append(Outgoing(address.errors, _json(letter), message, message.key, message.headers))
        if not outgoing and self._monotonic() >= self._silent_until:
            self._silent_until = self._monotonic() + _SILENCE_S
            log.warning(
                "a message of %s at %s failed, and the stream has no output to say so: %s", message.lane.name, message.position, told
            )
        return Response(outgoing, failed=True)


def _named(found: re.Match[str]) -> tuple[str, str]:
    version = found["version"]
    return found["model"] + (f":{version}" if version else ""), found["operation"] or ""


def _json(document: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(document)
    except TypeError:  # a number or a text that only Python has
        return json.dumps(document, default=str).encode()


def _told(answered: Answered) -> Any:
    """What an answer with an error status says: the text of a refusal, or whatever user code answered."""
    document = answered.document
    if isinstance(document, dict) and answered.error is not None:
        return document["error"]
    value, _ = answered.written()
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value.decode("utf-8", "replace")


def _origin(message: Message) -> dict[str, Any]:
    return {"source": message.source, "lane": message.lane.name, "position": str(message.position)}


def _quoted(value: bytes) -> dict[str, Any]:
    try:
        quoted = {"message": value[:_QUOTED].decode()}
    except UnicodeDecodeError:
        quoted = {"message_base64": base64.b64encode(value[:_QUOTED]).decode()}
    return quoted if len(value) <= _QUOTED else {**quoted, "message_bytes": len(value)}


def _found_in(value: bytes) -> dict[str, Any]:
    """The id of an answer, as far as it has one."""
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError:
        return {}
    given = document.get("id") if isinstance(document, dict) else None
    return {"id": given if not isinstance(given, str) else given[:1000]} if isinstance(given, str | int | float) else {}


def _texts(message: Message) -> Mapping[str, str]:
    return {name: value.decode("utf-8", "replace") for name, value in message.headers}
