"""gRPC's standard health service, as load balancers and Kubernetes ask it: ready when /v2/health/ready is. One of the services of grpc.py."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Access
from dragoman.dialects.refusals import words
from dragoman.dialects.rpc import USUAL_CODE, Code, Method, RpcCall
from dragoman.proto.wire import LENGTH, Buffer, fields, nest, put, put_varint, tag, text

_SERVING, _NOT_SERVING, _UNKNOWN = 1, 2, 3
_LOOK_AGAIN_S = 0.5


class HealthService:
    """`names` are the services that the port has; each is as ready as the server, which is the service ""."""

    name = "grpc.health.v1.Health"

    def __init__(self, ready: Callable[[], bool], draining: Callable[[], bool], names: frozenset[str]) -> None:
        self._ready = ready
        self._draining = draining
        self._names = names | {"", self.name}
        self.methods: Mapping[str, Method] = {
            "Check": Method(Access.PUBLIC, unary=self._check),
            "Watch": Method(Access.PUBLIC, stream=self._watch),
            "List": Method(Access.PUBLIC, unary=self._list),
        }

    def refuse(self, error: ServingError) -> tuple[Code, str]:
        return USUAL_CODE[error.kind], words(error)

    async def _check(self, message: bytes, call: RpcCall) -> bytes:
        service = _service(message)
        if service not in self._names:
            raise ServingError(Kind.NOT_FOUND, f"there is no service '{service[:200]}'", what="service")
        return b"".join(_status(self._now()))

    async def _list(self, message: bytes, call: RpcCall) -> bytes:
        parts: list[Buffer] = []
        for name in sorted(self._names):
            entry: list[Buffer] = []
            put(entry, 1, name.encode())
            nest(entry, 2, _status(self._now()))
            nest(parts, 1, entry)
        return b"".join(parts)

    async def _watch(self, messages: AsyncIterator[bytes], call: RpcCall) -> AsyncGenerator[bytes, None]:
        """The state now and whenever it has changed, until the client leaves or the server shuts down."""
        message = await anext(aiter(messages), None)
        if message is None:
            return
        known = _service(message) in self._names
        told = 0
        while True:
            ending = self._draining()
            now = self._now() if known else _UNKNOWN
            if now != told:
                told = now
                yield b"".join(_status(now))
            if ending:
                return
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _now(self) -> int:
        return _SERVING if self._ready() else _NOT_SERVING


def _service(message: bytes) -> str:
    name = ""
    for key, value in fields(message):
        if key == tag(1, LENGTH):
            name = text(value, "the service's name")
    return name


def _status(status: int) -> list[Buffer]:
    parts: list[Buffer] = []
    put_varint(parts, 1, status)
    return parts
