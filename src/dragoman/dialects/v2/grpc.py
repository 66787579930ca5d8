"""The Open Inference Protocol over gRPC: GRPCInferenceService, with the calls that Triton adds. Called by server/grpc.py.

An inference reads straight down, as in rest.py: read, find, decode, gateway, encode. What surrounds it is in grpc_admin.py.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import InferRequest, InferResponse
from dragoman.core.tensors import Rows
from dragoman.dialects import Access, Services, check_table
from dragoman.dialects.refusals import words
from dragoman.dialects.rpc import USUAL_CODE, Code, Method, RpcCall
from dragoman.dialects.v2 import grpc_codec, grpc_stream
from dragoman.dialects.v2.assembly import find, infer
from dragoman.dialects.v2.grpc_admin import Admin
from dragoman.dialects.v2.plan import Plan
from dragoman.proto.wire import Buffer
from dragoman.serving.gateway import Entry

_CODES: Mapping[Kind, Code] = USUAL_CODE
check_table(_CODES)


class InferenceService:
    """The service, under the name that the clients of Triton, KServe and MLServer call."""

    name = "inference.GRPCInferenceService"

    def __init__(self, services: Services) -> None:
        self._gateway = services.gateway
        self.methods: Mapping[str, Method] = {
            "ModelInfer": Method(Access.INFER, unary=self._infer),
            "ModelStreamInfer": Method(Access.INFER, stream=self._stream),
            **Admin(services).methods(),
        }

    def refuse(self, error: ServingError) -> tuple[Code, str]:
        return _CODES[error.kind], words(error)

    async def _infer(self, message: bytes, call: RpcCall) -> bytes:
        asked = grpc_codec.read(message)
        # From here to the gateway nothing is awaited, so the entry cannot be drained in between.
        entry, request, plan = self._decoded(asked, call)
        response = await infer(self._gateway, entry, request)
        return b"".join(grpc_codec.encode(entry, request, response, plan))

    def _stream(self, messages: AsyncIterator[bytes], call: RpcCall) -> AsyncGenerator[bytes, None]:
        return grpc_stream.run(messages, lambda message: self._parts(message, call))

    async def _parts(self, message: bytes, call: RpcCall) -> AsyncGenerator[list[Buffer], None]:
        """One ModelInferResponse per part of the answer to one message of a stream.

        Who wants the end told apart gets each part as it comes. All others find the end at the last part, for which each part has to wait
        until the next is there.
        """
        asked = grpc_codec.read(message)
        end_apart = grpc_codec.stream_flag(asked)
        entry, request, plan = self._decoded(asked, call)
        if isinstance(request.inputs, Rows) and (len(request.inputs.items) != 1 or entry.signatures[request.signature].whole):
            response = await infer(self._gateway, entry, request)
            yield grpc_codec.encode(entry, request, response, plan, last=True)
            return
        ended = False
        held: InferResponse | None = None
        try:
            async with aclosing(self._gateway.stream(entry, request)) as responses:
                async for response in responses:
                    if held is not None:
                        yield grpc_codec.encode(entry, request, held, plan, last=False)
                        held = None
                    if response.more and not end_apart:
                        held = response
                    else:
                        ended = not response.more
                        yield grpc_codec.encode(entry, request, response, plan, last=ended)
        except ServingError:
            if held is not None:
                yield grpc_codec.encode(entry, request, held, plan, last=False)
            raise
        if held is not None:
            yield grpc_codec.encode(entry, request, held, plan, last=True)
        elif not ended:  # by an answer without outputs, also where there was no part at all: nobody waits for one that never comes
            yield grpc_codec.final(entry, request)

    def _decoded(self, asked: grpc_codec.Message, call: RpcCall) -> tuple[Entry, InferRequest, Plan]:
        entry = find(self._gateway, asked.model, asked.version)
        request, plan = grpc_codec.decode(entry, asked)
        request.deadline = min(request.deadline, call.deadline)
        request.caller = call.caller
        return entry, request, plan
