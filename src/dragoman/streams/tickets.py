"""What the bridge notes of messages on their way: tickets, how far each lane is, counts. No logic; used by bridge.py and by what answers."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from dragoman.streams import Message, Outgoing


@dataclass(slots=True)
class Response:
    """What a message came to: what is to be written, nothing for a stream without output, and whether it is an error."""

    outgoing: Sequence[Outgoing]
    failed: bool = False


@dataclass(slots=True, eq=False)
class Ticket:
    """One message on its way."""

    message: Message
    headway: "Headway"
    begun: bool = False
    dropped: bool = False
    unwritten: int = -1
    """Answers that are still to be written; -1 before it is answered, 0 when all of them are."""


@dataclass(slots=True, eq=False)
class Headway:
    """How far one lane is. `pending` begins with the oldest message that is not written."""

    pending: deque[Ticket] = field(default_factory=deque)
    tasks: "set[asyncio.Task[None]]" = field(default_factory=set)
    upto: Message | None = None
    committed: Message | None = None
    idle: asyncio.Event = field(default_factory=asyncio.Event)


Letter: TypeAlias = tuple[Ticket, Outgoing]
"""An answer, and the message whose it is."""


@dataclass(slots=True)
class Counts:
    """Since the start of this worker."""

    taken: int = 0
    answered: int = 0
    failed: int = 0
    """Of those answered: with an error."""
    unwritten: int = 0
    """Answers that the broker refused for good, and that had no error in their place either."""
    abandoned: int = 0
    """Taken and given up unanswered (a rebalance, a lost connection, a stop): whoever reads next gets them again."""
