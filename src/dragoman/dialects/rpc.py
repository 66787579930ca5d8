"""The gRPC seam: what a protocol's gRPC service offers and what it is given. Called by server/grpc.py; knows no gRPC library.

A service owns its methods, its messages and its table of statuses. It gets the bytes of one message and gives back the bytes of one, so that
tensors need not be copied into message objects and out of them again; `proto/wire.py` takes messages apart.
"""

import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, TypeAlias

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Access


class Code(IntEnum):
    """gRPC's canonical statuses, by their numbers."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


USUAL_CODE: Mapping[Kind, Code] = {
    Kind.INVALID_INPUT: Code.INVALID_ARGUMENT,
    Kind.NOT_FOUND: Code.NOT_FOUND,
    Kind.NOT_READY: Code.UNAVAILABLE,
    Kind.CONFLICT: Code.ABORTED,
    Kind.OVERLOADED: Code.UNAVAILABLE,
    Kind.TIMEOUT: Code.DEADLINE_EXCEEDED,
    Kind.CANCELLED: Code.CANCELLED,
    Kind.MODEL_FAILED: Code.INTERNAL,
    Kind.UNSUPPORTED: Code.UNIMPLEMENTED,
    Kind.UNAVAILABLE: Code.UNAVAILABLE,
    Kind.TOO_LARGE: Code.RESOURCE_EXHAUSTED,
    Kind.UNAUTHENTICATED: Code.UNAUTHENTICATED,
    Kind.FORBIDDEN: Code.PERMISSION_DENIED,
    Kind.INTERNAL: Code.INTERNAL,
}
"""What most protocols answer; one that differs has a table of its own, as total as this one."""


@dataclass(slots=True)
class RpcCall:
    """Who calls, and until when. `deadline` is on the monotonic clock (seconds), inf for none; `caller` the name of the API key, "" for none.

    That the caller has gone, or cancelled, comes as the cancellation of the handler.
    """

    deadline: float = math.inf
    caller: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Metadata of the call, names in lower case."""


Unary: TypeAlias = Callable[[bytes, RpcCall], Awaitable[bytes]]
"""One message in, one out. Raises ServingError."""
Stream: TypeAlias = Callable[[AsyncIterator[bytes], RpcCall], AsyncGenerator[bytes, None]]
"""Messages in, messages out. What goes wrong with one message is an answer of the protocol's own; a ServingError ends the call."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a service: exactly one of `unary` and `stream`."""

    access: Access
    unary: Unary | None = None
    stream: Stream | None = None


class RpcService(Protocol):
    """One gRPC service. `name` is its full name, such as "inference.GRPCInferenceService"; it is described in proto/, for reflection."""

    name: str
    methods: Mapping[str, Method]

    def refuse(self, error: ServingError) -> tuple[Code, str]:
        """The status and the text for an error. Total: every Kind has one."""
        ...
