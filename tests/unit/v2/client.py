"""Drives the Open Inference Protocol dialect as the server does, with a scope and a receive function but no socket, over small models."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, MutableMapping, Sequence
from typing import Any, Self, TypeVar
from urllib.parse import unquote_to_bytes

import numpy as np

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State, version_order
from dragoman.core.model import BatchPolicy, Call, InferRequest, InferResponse, ModelSpec, Timings
from dragoman.core.tensors import BYTES, DATATYPES, FP32, INT64, Datatype, Rows, Signature, Tensor, Tensors, TensorSpec
from dragoman.dialects import Request
from dragoman.dialects.rpc import RpcCall
from dragoman.dialects.v2.grpc import InferenceService
from dragoman.dialects.v2.rest import V2
from dragoman.hosting.servable import Cost, LocalServable
from dragoman.serving.gateway import Entry, Gateway, VersionStatus
from dragoman.serving.meters import Meters
from tests.fakes import FakeModel
from tests.services import services

Run = Callable[[Call], Tensors | Rows]
Headers = Sequence[tuple[bytes, bytes]]

T = TypeVar("T")

WIRE_DATATYPES = [d for d in DATATYPES.values() if d.kind != "complex"]


@dataclasses.dataclass
class Reply:
    """A whole answer, streams joined."""

    status: int
    body: bytes
    media_type: bytes
    headers: dict[bytes, bytes]

    @property
    def json(self) -> Any:
        return json.loads(self.body, parse_constant=_no_constant)

    @property
    def error(self) -> str:
        """The text of an error; fails unless it is one in exactly this protocol's form."""
        assert self.media_type == b"application/json"
        document = self.json
        assert list(document) == ["error"], document
        assert document["error"], "an error without a text"
        return str(document["error"])

    @property
    def outputs(self) -> dict[str, Any]:
        """The outputs of a JSON reply by name."""
        assert self.status == 200, self.body
        return {output["name"]: output for output in self.json["outputs"]}

    def split(self) -> tuple[Any, bytes]:
        """The JSON part and the binary part of a reply."""
        length = int(self.headers[b"inference-header-content-length"])
        return json.loads(self.body[:length]), self.body[length:]


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


class Client:
    """One server with the given models and its event loop, on which `send` waits. A context manager."""

    def __init__(self, entries: Iterable[Entry], *, max_body: int = 64 << 20, max_inflated: int = 1 << 20, timeout_s: float = 60.0) -> None:
        self._runner = asyncio.Runner()
        meters = Meters()
        self.gateway = Gateway(meters, timeout_s)
        table = {}
        by_name: dict[str, list[Entry]] = {}
        for entry in entries:
            by_name.setdefault(entry.name, []).append(entry)
        for name, versions in by_name.items():
            versions.sort(key=lambda e: version_order(e.version))
            table.update({(name, e.version): e for e in versions})
            table[name, ""] = versions[-1]
            table[name, "@stable"] = versions[0]
            self.gateway.publish(
                name, [VersionStatus(name, e.version, State.READY, "", "fake") for e in versions], {"stable": versions[0].version}
            )
        self.gateway.swap(table)
        given = services(self.gateway, meters, extensions=("odd_extension",), max_inflated=max_inflated)
        self.dialect = V2(given)
        self.service = InferenceService(given)
        self._max_body = max_body

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for entry in self.gateway.entries():
            self.run(entry.servable.close())
        self._runner.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on this server's loop."""
        return self._runner.run(work)

    def send(self, method: str, path: str, body: bytes | Any = b"", headers: Headers = ()) -> Reply:
        """Send one request and wait for the whole answer. A body that is not bytes is sent as JSON."""
        return self.run(self.ask(method, path, body, headers))

    def call(self, method: str, message: bytes, call: RpcCall | None = None) -> bytes:
        """One call over gRPC, without its transport: raises the ServingError that would become a status."""
        unary = self.service.methods[method].unary
        assert unary is not None

        async def ask() -> bytes:
            return await unary(message, call or RpcCall())

        return self.run(ask())

    def infer(self, model: str, body: bytes | Any, headers: Headers = ()) -> Reply:
        return self.send("POST", f"/v2/models/{model}/infer", body, headers)

    async def ask(self, method: str, path: str, body: bytes | Any = b"", headers: Headers = ()) -> Reply:
        """What server/app.py does with a request: route, call, first item of a stream, refuse."""
        request = self.request(method, path, body, headers)
        try:
            route = self.dialect.route(request)
            answer = await route.handler(request, *route.args)
            whole = answer.body if isinstance(answer.body, bytes) else await _joined(answer.body)
        except ServingError as error:
            answer = self.dialect.refuse(request, error)
            assert isinstance(answer.body, bytes)
            whole = answer.body
        return Reply(answer.status, whole, answer.media_type, dict(answer.headers))

    def request(self, method: str, path: str, body: bytes | Any = b"", headers: Headers = (), chunk: int = 1 << 30) -> Request:
        """The request as the server would make it, its body in chunks of that size."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        raw_path = path.encode()
        decoded = unquote_to_bytes(raw_path).decode("utf-8", "replace")
        scope: MutableMapping[str, Any] = {"type": "http", "method": method, "path": decoded, "raw_path": raw_path, "query_string": b""}
        scope["headers"] = list(headers)
        messages = [
            {"type": "http.request", "body": raw[at : at + chunk], "more_body": at + chunk < len(raw)}
            for at in range(0, len(raw) or 1, chunk)
        ]

        async def receive() -> MutableMapping[str, Any]:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        return Request(scope, receive, self._max_body)


async def _joined(parts: AsyncGenerator[bytes]) -> bytes:
    return b"".join([part async for part in parts])


# --- models ---

DEFAULT = BatchPolicy()


def entry(name: str, signature: Signature, run: Run, version: str = "1", policy: BatchPolicy = DEFAULT, **fields: Any) -> Entry:
    """A served version of a model that is one function."""
    spec = ModelSpec(name, version, batch=policy, **fields)
    return Entry(spec, LocalServable(spec, [FakeModel(signature=signature, run=run)], Cost()))


def tensor(name: str, datatype: Datatype, values: Any, shape: Sequence[int] | None = None) -> Tensor:
    array = np.empty(len(values), object) if datatype is BYTES else np.array(values, datatype.numpy)
    if datatype is BYTES:
        array[:] = values
    return Tensor(name, datatype, array if shape is None else array.reshape(shape))


def _iris(call: Call) -> Tensors:
    """Probabilities that tell which rows were asked: softmax-like, from the row's sum."""
    assert isinstance(call.inputs, Tensors)
    with np.errstate(all="ignore"):
        total = call.inputs.items[0].array.sum(axis=1)
        scores = np.stack([total, total * 2, total / 2], axis=1).astype("f4")
    return Tensors([Tensor("label", INT64, scores.argmax(axis=1)), Tensor("probabilities", FP32, scores)])


IRIS = Signature(
    inputs=(TensorSpec("input", FP32, (-1, 4)),),
    outputs=(TensorSpec("label", INT64, (-1,)), TensorSpec("probabilities", FP32, (-1, 3), labels=("setosa", "versicolor"))),
    batch=True,
)


def iris(version: str = "1", name: str = "iris") -> Entry:
    return entry(name, IRIS, _iris, version, BatchPolicy(max_size=8, refuse_larger=True), platform="onnxruntime_onnx")


def _echo(call: Call) -> Tensors:
    assert isinstance(call.inputs, Tensors)
    return Tensors([Tensor("y", t.datatype, t.array) for t in call.inputs.items[:1]])


def identity(datatype: Datatype, shape: tuple[int, ...] | None = None, name: str = "") -> Entry:
    """Answers its only input `x` as `y`; of any shape unless one is given."""
    signature = Signature(inputs=(TensorSpec("x", datatype, shape),), outputs=(TensorSpec("y", datatype, shape),))
    return entry(name or f"identity_{datatype.name.lower()}", signature, _echo)


def constant(name: str, *outputs: Tensor, declared: bool = True, **fields: Any) -> Entry:
    """Answers always the same tensors; with `declared` false its outputs are not in its signature."""
    specs = tuple(TensorSpec(t.name, t.datatype, t.array.shape) for t in outputs) if declared else ()
    signature = Signature(inputs=(TensorSpec("x", FP32, (1,)),), outputs=specs, **fields)
    return entry(name, signature, lambda _: Tensors([Tensor(t.name, t.datatype, t.array.copy()) for t in outputs]))


def _sum(call: Call) -> Tensors:
    assert isinstance(call.inputs, Tensors)
    a, b = call.inputs.get("a"), call.inputs.get("b")
    assert a is not None
    return Tensors([Tensor("c", FP32, a.array if b is None else a.array + b.array)])


def adder() -> Entry:
    """Two inputs, the second optional, no batch."""
    signature = Signature(
        inputs=(TensorSpec("a", FP32, (2,)), TensorSpec("b", FP32, (2,), optional=True)), outputs=(TensorSpec("c", FP32, (2,)),)
    )
    return entry("adder", signature, _sum)


def shout(call: Call) -> Tensors:
    """Upper-case text; with the parameter `twice` everything twice; `times` values of the input `times` more often."""
    assert isinstance(call.inputs, Tensors)
    text = call.inputs.get("text_input")
    assert text is not None
    times = call.inputs.get("times")
    factor = (2 if call.parameters.get("twice") else 1) * (int(times.array.ravel().clip(0, 9)[0]) if times is not None else 1)
    made = np.empty_like(text.array)
    for index, item in np.ndenumerate(text.array):
        made[index] = item.upper() * factor
    return Tensors([Tensor("text_output", BYTES, made)])


TEXT = Signature(
    inputs=(TensorSpec("text_input", BYTES, (-1, 1)), TensorSpec("times", INT64, (-1, 1), optional=True)),
    outputs=(TensorSpec("text_output", BYTES, (-1, 1)),),
    batch=True,
    reads=frozenset({"twice"}),
)


class _Streaming(LocalServable):
    """One response per word of the text; the word "bad" fails instead, and after "..." it does not know whether more will come."""

    async def stream(self, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
        assert isinstance(request.inputs, Tensors)
        words = request.inputs.items[0].array.ravel()[0].split()
        for index, word in enumerate(words):
            if word == b"bad":
                raise ServingError(Kind.MODEL_FAILED, "model 'words' failed: a bad word")
            more = index + 1 < len(words) or word == b"..."
            yield InferResponse(Tensors([tensor("text_output", BYTES, [word], (1, 1))]), Timings(), more=more)


def words() -> Entry:
    spec = ModelSpec("words")
    return Entry(spec, _Streaming(spec, [FakeModel(signature=TEXT, run=shout)], Cost()))


def _fail(call: Call) -> Tensors:
    raise ArithmeticError("it does not add up")


class _Talking(LocalServable):
    """Answers parameters beside its outputs."""

    parameters: dict[str, Any]

    async def infer(self, request: InferRequest) -> InferResponse:
        response = await super().infer(request)
        return InferResponse(response.outputs, response.timings, self.parameters)


def talking(name: str, parameters: dict[str, Any]) -> Entry:
    """Answers 1 and these response parameters."""
    signature = Signature(inputs=(TensorSpec("x", FP32, (1,)),), outputs=(TensorSpec("y", INT64, (1,)),))
    spec = ModelSpec(name)
    servable = _Talking(spec, [FakeModel(signature=signature, run=lambda _: Tensors([tensor("y", INT64, [1])]))], Cost())
    servable.parameters = parameters
    return Entry(spec, servable)


def everything() -> Client:
    """A server with all of these models."""
    broken = entry("broken", IRIS, _fail)
    return Client([iris(), iris("2"), adder(), entry("text", TEXT, shout), words(), broken, *(identity(d) for d in WIRE_DATATYPES)])


def one_input(data: Any, datatype: str = "FP32", shape: Any = (1, 4), name: str = "input", **fields: Any) -> dict[str, Any]:
    """A request with one JSON input."""
    return {
        "inputs": [{"name": name, "shape": list(shape) if isinstance(shape, tuple) else shape, "datatype": datatype, "data": data}],
        **fields,
    }


def with_binary(document: Any, *parts: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """A body with binary parts behind its JSON, and the header that says so."""
    head = json.dumps(document).encode()
    return b"".join([head, *parts]), [(b"inference-header-content-length", str(len(head)).encode())]


FLOWER = [5.1, 3.5, 1.4, 0.2]
GOOD = one_input(FLOWER)
