"""What one message comes to: the request that it is, waited for and repeated where that helps, and the documents that are written.

Called by the bridge for each message. A message is one request of MLRun's dialect (MLRun requirements M18-M20); whatever is wrong with it
becomes an object with `error`, on the topic for errors or else where the answer would have gone.
"""

import asyncio
import base64
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeAlias

import orjson

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.gateway import Gateway
from dragoman.streams import Message, Outgoing
from dragoman.streams.addresses import StreamAddress
from dragoman.streams.bridge import Response

log = logging.getLogger("dragoman.streams")

_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_STARTING = frozenset({Kind.NOT_FOUND, Kind.UNAVAILABLE})
_MOST_QUOTED = 64 << 10
"""Of a message that could not be answered so much is quoted: the whole one, unless it is as large as what brokers refuse."""


class Answered(Protocol):
    """What the dialect's message function returns."""

    id: Any
    model: str
    status: int

    def written(self) -> tuple[bytes, str]: ...


Answer: TypeAlias = Callable[..., Awaitable[Answered]]
"""dialects/v2/mlrun_message.answer, found by name."""
Load: TypeAlias = Callable[[str], Awaitable[Any]]


class Answering:
    """`model_wait_s` bounds how long a message waits for a model that is loading, or for room in its queue."""

    def __init__(
        self,
        answer: Answer,
        gateway: Gateway,
        address: StreamAddress,
        *,
        model_wait_s: float,
        load: Load | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._answer = answer
        self._gateway = gateway
        self._address = address
        self._model_wait_s = model_wait_s
        self._load = load
        self._monotonic = monotonic
        self._alone = asyncio.Lock()

    async def respond(self, message: Message) -> Response:
        """Never raises but when it is cancelled."""
        try:
            answered = await self._answered(message)
            value, _ = answered.written()
        except ServingError as error:
            return self._failed(message, error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return self._failed(message, ServingError(Kind.CANCELLED, "the request was cancelled"))
        except Exception:
            log.exception("a message of %s failed inside of the server", message.source)
            return self._failed(message, ServingError(Kind.INTERNAL, "internal error"))
        if answered.status >= 400:
            return self._failed(message, ServingError(Kind.MODEL_FAILED, _words(value), status=answered.status), answered.id, value)
        to = message.reply_to or self._address.out
        return Response([Outgoing(to, value, message, message.key, message.headers)] if to else [])

    def refuse(self, letter: Outgoing, error: ServingError) -> Outgoing | None:
        """What is written where the broker takes an answer never: a small error in its place."""
        document = {"error": f"the answer cannot be written: {error.message}", "id": _id_of(letter.about.value)}
        return Outgoing(letter.to, orjson.dumps(document), letter.about, letter.key, ())

    async def _answered(self, message: Message) -> Answered:
        since = self._monotonic()
        pause = _PAUSE_S
        repeated = False
        while True:
            try:
                return await self._request(message)
            except ServingError as error:
                waits = error.kind in (Kind.NOT_READY, Kind.OVERLOADED) or (self._gateway.starting and error.kind in _STARTING)
                if waits and self._monotonic() - since < self._model_wait_s:
                    pass
                elif error.kind is Kind.UNAVAILABLE and error.what == "model" and not repeated:
                    # The model's process died under it. Alone on the second time, so that a message that kills takes no other along twice.
                    repeated = True
                    async with self._alone:
                        return await self._again(message, since)
                else:
                    raise
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE_S, 2 * pause)
