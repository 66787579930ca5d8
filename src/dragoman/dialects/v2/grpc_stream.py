"""ModelStreamInfer: many requests over one call, each answered in one part or several, in the order in which they came. Called by grpc.py.

Requests run at the same time; a later one waits with its answer until the earlier ones have theirs, because clients match answers without ids by
their order. What goes wrong with one is its answer, and the stream goes on.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects.refusals import words
from dragoman.dialects.v2 import grpc_codec
from dragoman.proto.wire import Buffer, nest, put

log = logging.getLogger("dragoman.grpc")

Answer = AsyncGenerator[list[Buffer], None]
"""The parts of a ModelInferResponse, for each part of an answer."""

_AT_ONCE = 64
"""Requests of one stream that run or wait to be read; the client is stopped while there are more."""
_AHEAD = 16
"""Answers of one request that wait for those before it."""

_Queue = asyncio.Queue[bytes | None]


async def run(messages: AsyncIterator[bytes], answer: Callable[[bytes], Answer]) -> AsyncGenerator[bytes, None]:
    """The ModelStreamInferResponses to a stream of requests. Whoever stops reading cancels what still runs."""
    queues: asyncio.Queue[_Queue | None] = asyncio.Queue()
    room = asyncio.Semaphore(_AT_ONCE)
    tasks: set[asyncio.Task[None]] = set()

    async def take() -> None:
        async for message in messages:
            await room.acquire()
            queue: _Queue = asyncio.Queue(_AHEAD)
            queues.put_nowait(queue)
            task = asyncio.create_task(_answer(message, answer, queue))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    taking = asyncio.create_task(take())
    taking.add_done_callback(lambda _: queues.put_nowait(None))
    try:
        while (queue := await queues.get()) is not None:
            while (part := await queue.get()) is not None:
                yield part
            room.release()
        await taking
    finally:
        ending = [taking, *tasks]
        for each in ending:
            each.cancel()
        await asyncio.gather(*ending, return_exceptions=True)


async def _answer(message: bytes, answer: Callable[[bytes], Answer], queue: _Queue) -> None:
    """Put all parts of one answer into its queue, and None behind the last."""
    try:
        async with aclosing(answer(message)) as responses:
            async for response in responses:
                parts: list[Buffer] = []
                nest(parts, 2, response)
                await queue.put(b"".join(parts))
    except ServingError as error:
        if error.kind is Kind.MODEL_FAILED and error.__cause__ is not None:
            log.exception("%s", error.message, exc_info=error.__cause__)
        await queue.put(_error(words(error), message))
    except Exception:
        log.exception("a request of ModelStreamInfer failed")
        await queue.put(_error("internal error", message))
    await queue.put(None)


def _error(text: str, message: bytes) -> bytes:
    """An answer that says what is wrong, and with which request where that can be told."""
    named: list[Buffer] = []
    with contextlib.suppress(ServingError):
        put(named, 3, grpc_codec.read(message).id.encode())
    parts: list[Buffer] = []
    put(parts, 1, text.encode())
    nest(parts, 2, named)
    return b"".join(parts)
