"""Answers in parts: a model that streams hands each to `request.part` as it comes; its answer is only that it has ended. Called by servables.

So a stream is a request like any other to queues, batchers, deadlines and cancellation, near or far.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import closing

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Call, InferRequest, InferResponse, Model, Timings
from dragoman.core.tensors import Tensors
from dragoman.hosting.batch import Payload

AHEAD = 16
"""Parts that a model may be ahead of its reader, where the two share a process."""
MOST_WAITING = 10_000
"""Parts of one stream that may wait for a reader who is slower than the model in its process."""


def run(model: Model, call: Call, request: InferRequest) -> Payload:
    """The model's answer to a call; to a request that wants parts one without outputs, after all parts have been handed over."""
    part = request.part
    if part is None or not getattr(model, "streams", False):
        return model.predict(call)
    with closing(model.stream(call)) as parts:  # type: ignore[attr-defined] # streams says that it is there
        for each in parts:
            part(each)
    return Tensors([])


class Parts:
    """What one reader has not read yet. Make it on the reader's loop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Payload | None] = asyncio.Queue()
        self._room = threading.Semaphore(AHEAD)
        self._left = False

    def put(self, part: Payload) -> None:
        """From the model's thread: waits while the reader is behind. Raises CANCELLED when there is none any more."""
        self._room.acquire()
        if self._left:
            raise ServingError(Kind.CANCELLED, "the reader of the stream has left")
        self._loop.call_soon_threadsafe(self._queue.put_nowait, part)

    def arrived(self, part: Payload) -> None:
        """On the loop: a part from another process, which does not wait. Raises OVERLOADED when far too many have not been read."""
        if self._queue.qsize() >= MOST_WAITING:
            text = f"the client of model '{self._name}' reads too slowly: {MOST_WAITING} parts wait for it"
            raise ServingError(Kind.OVERLOADED, text, what="model")
        self._queue.put_nowait(part)

    async def read(
        self, infer: Callable[[InferRequest], Awaitable[InferResponse]], request: InferRequest
    ) -> AsyncGenerator[InferResponse, None]:
        """All parts, and the answer, which has no outputs where there were parts. Whoever stops reading has cancelled the request."""
        answer = asyncio.ensure_future(infer(request))
        answer.add_done_callback(lambda _: self._queue.put_nowait(None))
        try:
            while (part := await self._queue.get()) is not None:
                self._room.release()
                yield InferResponse(part, Timings(), more=True)
            yield await answer
        finally:
            self._left = True
            self._room.release()
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)
