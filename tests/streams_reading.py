"""Reading with one connector of streams, as its contract tests do: its reader noted, its messages waited for."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeVar

from dragoman.core.errors import Kind, ServingError
from dragoman.streams import Connector, Lane, Message
from tests import brokers

Made = TypeVar("Made", bound=Connector)
_AGAIN_S = 0.02


class Lost:
    """A Reader that notes which lanes are lost, for connectors that never release any in good order."""

    def __init__(self) -> None:
        self.lanes: list[Lane] = []

    async def release(self, lanes: Collection[Lane]) -> None:
        raise AssertionError("nothing is released in good order")

    def lost(self, lanes: Collection[Lane]) -> None:
        self.lanes += lanes


def run(made: Made, test: Callable[[Made, Lost], Awaitable[None]]) -> None:
    """Run a test with an open connector."""

    async def opened() -> None:
        reader = Lost()
        try:
            await made.open(reader)
            await test(made, reader)
        finally:
            await made.close()

    asyncio.run(asyncio.wait_for(opened(), brokers.DEADLINE_S))


async def some(made: Connector, count: int) -> list[Message]:
    """So many messages, over as many connections as it takes."""
    found: list[Message] = []
    while len(found) < count:
        try:
            found += await made.fetch(count - len(found), ())
        except ServingError as error:
            if error.kind is not Kind.UNAVAILABLE:
                raise
            await asyncio.sleep(_AGAIN_S)
    return found


def values(messages: Sequence[Message]) -> list[int]:
    return [int(message.value) for message in messages]
