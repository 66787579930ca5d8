"""Parts of an answer from a model that streams, made in a thread and awaited on the loop. Called by servables.

The thread makes parts only a little ahead of who reads them, and stops between two parts when nobody does any more.
"""

import asyncio
import math
import threading
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from queue import SimpleQueue
from typing import Any

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Call, InferRequest, InferResponse, Timings
from dragoman.hosting.batch import Payload, as_serving_error

_AHEAD = 16
"""Parts that may wait for their reader."""
_END: Any = object()


async def streamed(
    threads: ThreadPoolExecutor, free: "SimpleQueue[Any]", request: InferRequest, name: str
) -> AsyncGenerator[InferResponse, None]:
    """The parts of one request. `free` holds models that nobody uses now; one is taken for as long as the stream lasts.

    Raises what the model raised, at the place where it did, and TIMEOUT when a part does not come before the request's deadline.
    """
    loop = asyncio.get_running_loop()
    parts: asyncio.Queue[Any] = asyncio.Queue()
    room = threading.Semaphore(_AHEAD)
    left = threading.Event()

    def make() -> None:
        last: Any = _END
        model = free.get()
        try:
            if not left.is_set():
                call = Call(request.inputs, request.operation, request.signature, request.outputs, request.parameters)
                with closing(model.stream(call)) as made:
                    for part in made:
                        room.acquire()
                        if left.is_set():
                            break
                        loop.call_soon_threadsafe(parts.put_nowait, part)
        except Exception as error:
            last = as_serving_error(error, name)
        finally:
            free.put(model)
        loop.call_soon_threadsafe(parts.put_nowait, last)

    threads.submit(make)
    begin = time.monotonic_ns()
    try:
        while True:
            part = await _next(parts, request.deadline, name)
            if part is _END:
                return
            if isinstance(part, ServingError):
                raise part
            room.release()
            now = time.monotonic_ns()
            yield _response(part, now - begin)
            begin = time.monotonic_ns()
    finally:
        left.set()
        room.release()


async def _next(parts: "asyncio.Queue[Any]", deadline: float, name: str) -> Any:
    if deadline == math.inf:
        return await parts.get()
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            return await parts.get()
    except TimeoutError:
        raise ServingError(Kind.TIMEOUT, f"model '{name}' did not finish its stream before the request's deadline") from None


def _response(part: Payload, took_ns: int) -> InferResponse:
    return InferResponse(part, Timings(0, 0, took_ns, 0, 1, True, 1))
