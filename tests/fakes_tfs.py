"""Toy models and a client without sockets, for tests of the TensorFlow Serving dialect."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, MutableMapping
from typing import Any

import numpy as np

from dragoman.core import tensors as t
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.lifecycle import State
from dragoman.core.model import InferRequest, InferResponse, ModelSpec, Timings
from dragoman.core.tensors import Array, Datatype, Shape, Signature, Tensor, Tensors, TensorSpec
from dragoman.dialects import Dialect, Request, Services
from dragoman.dialects.tfserving.rest import TFServing
from dragoman.proto import messages
from dragoman.serving.gateway import Entry, Gateway, VersionStatus
from dragoman.serving.meters import Meters
from tests.services import services

PREDICT, CLASSIFY, REGRESS = (f"tensorflow/serving/{method}" for method in ("predict", "classify", "regress"))
Run = Callable[[Tensors, str], list[Tensor]]


def array(values: Any, code: str = "f4") -> Array:
    """An ndarray; with code "O" it holds the elements as they are."""
    return np.array(values, dtype=code)


class Toy:
    """A servable that runs a function at once; `seen` are the requests it got."""

    platform = "toy"
    operations = frozenset({"predict"})

    def __init__(self, signatures: Mapping[str, Signature], run: Run) -> None:
        self.signatures = signatures
        self.seen: list[InferRequest] = []
        self._run = run

    async def infer(self, request: InferRequest) -> InferResponse:
        self.seen.append(request)
        assert isinstance(request.inputs, Tensors)
        return InferResponse(Tensors(self._run(request.inputs, request.signature)), Timings())

    async def stream(self, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
        yield await self.infer(request)

    async def lost(self) -> str:
        return "never"

    async def drain(self, deadline: float) -> None: ...

    async def close(self) -> None: ...

    def trouble(self) -> str:
        return ""

    def pending(self) -> int:
        return 0


def signature(inputs: list[TensorSpec], outputs: list[TensorSpec], method: str = "") -> Signature:
    return Signature(inputs=tuple(inputs), outputs=tuple(outputs), batch=True, method=method)


def echo(datatype: Datatype | None, shape: Shape | None = None, output: str = "y") -> Toy:
    """Answers its one input `x` as its one output."""

    def run(inputs: Tensors, _: str) -> list[Tensor]:
        (x,) = inputs.items
        return [Tensor(output, x.datatype, x.array)]

    return Toy({"": signature([TensorSpec("x", datatype, shape)], [TensorSpec(output, datatype, shape)])}, run)


def answering(*outputs: Tensor) -> Toy:
    """Answers the same tensors whatever it is asked."""
    specs = [TensorSpec(o.name, o.datatype, None) for o in outputs]
    return Toy({"": signature([TensorSpec("x", t.FP32, None)], specs)}, lambda _, __: list(outputs))


def half_plus(number: float) -> Toy:
    """y = x / 2 + number, over any count of rows of one float; insists on its ranks, as most runtimes do."""

    def run(inputs: Tensors, name: str) -> list[Tensor]:
        (x,) = inputs.items
        if x.array.ndim != 2 or x.array.shape[1] != 1:
            raise invalid(f"input 'x' has shape {list(x.array.shape)}, expected [-1, 1]")
        return [Tensor("y", t.FP32, x.array / np.float32(2) + np.float32(number + (name == "plus_one")))]

    x = TensorSpec("x", t.FP32, (-1, 1), native="x:0")
    y = TensorSpec("y", t.FP32, (-1, 1), native="y:0")
    one = signature([x], [y])
    return Toy({"": one, "plus_one": one}, run)


def beacon() -> Toy:
    """The three inputs of the protocol's own example: a text, five integers, a matrix. Three outputs, one of them bytes."""

    def run(inputs: Tensors, _: str) -> list[Tensor]:
        by_name = {each.name: each.array for each in inputs.items}
        tag, signal, sensor = by_name["tag"], by_name["signal"], by_name["sensor"]
        if not sensor.size:
            raise invalid("the sensor has nothing to say")
        total = signal.sum(axis=-1) if signal.ndim else signal
        with np.errstate(all="ignore"):
            mean = sensor.mean(axis=(-2, -1)) if sensor.ndim > 1 else sensor
        raw = np.empty(tag.shape, object)
        raw[...] = tag
        return [Tensor("total", t.INT64, total), Tensor("mean", t.FP32, mean.astype("f4")), Tensor("tag_bytes", t.BYTES, raw)]

    inputs = [TensorSpec("tag", t.BYTES, (-1,)), TensorSpec("signal", t.INT64, (-1, 5)), TensorSpec("sensor", t.FP32, (-1, 2, 2))]
    outputs = [TensorSpec("total", t.INT64, (-1,)), TensorSpec("mean", t.FP32, (-1,)), TensorSpec("tag_bytes", t.BYTES, (-1,))]
    return Toy({"": signature(inputs, outputs)}, run)


def digits() -> Toy:
    """Stands for the mnist sample: 784 floats to a class and ten probabilities."""

    def run(inputs: Tensors, _: str) -> list[Tensor]:
        (image,) = inputs.items
        if image.array.ndim != 2 or image.array.shape[1] != 784:
            raise invalid(f"input 'image' has shape {list(image.array.shape)}, expected [-1, 784]")
        rows = len(image.array)
        probabilities = np.zeros((rows, 10), "f4")
        probabilities[:, 7] = 1
        return [Tensor("classes", t.INT64, probabilities.argmax(axis=1)), Tensor("probabilities", t.FP32, probabilities)]

    outputs = [TensorSpec("classes", t.INT64, (-1,)), TensorSpec("probabilities", t.FP32, (-1, 10))]
    return Toy({"": signature([TensorSpec("image", t.FP32, (-1, 784))], outputs)}, run)


def parsing() -> Toy:
    """Stands for the SavedModel half_plus_two: signatures of every method, a graph that parses Examples of `x` and, where it is there, `x2`."""

    def feature(example: bytes, name: str, default: float | None) -> float:
        parsed: Any = messages.parse("tensorflow.Example", example)
        kind = parsed.features.feature[name].WhichOneof("kind") if name in parsed.features.feature else None
        if kind is None and default is None:
            raise invalid(f"Name: <unknown>, Feature: {name} (data type: float) is required but could not be found.")
        if kind not in (None, "float_list"):
            raise invalid(f"Name: <unknown>, Key: {name}, Index: 0.  Data types don't match. Data type: {kind} but expected type: float")
        return default or 0.0 if kind is None else float(parsed.features.feature[name].float_list.value[0])

    def run(inputs: Tensors, name: str) -> list[Tensor]:
        (given,) = inputs.items
        if name == "":
            return [Tensor("y", t.FP32, given.array / np.float32(2) + np.float32(2))]
        source, plus = {"regress_x2_to_y3": ("x2", 3), "regress_x_to_y2": ("x", 3)}.get(name, ("x", 2))
        x = array([[feature(each, source, 0.0 if source == "x2" else None)] for each in given.array.tolist()])
        return [Tensor("scores" if "classify" in name else "outputs", t.FP32, x / np.float32(2) + np.float32(plus))]

    x, y = TensorSpec("x", t.FP32, (-1, 1), native="x:0"), TensorSpec("y", t.FP32, (-1, 1), native="y:0")
    examples = TensorSpec("inputs", t.BYTES, (-1,), native="tf_example:0")
    made = {"": signature([x], [y], PREDICT)}
    for name in ("regress_x_to_y", "regress_x_to_y2", "regress_x2_to_y3"):
        made[name] = signature([examples], [TensorSpec("outputs", t.FP32, (-1, 1), native="y:0")], REGRESS)
    made["classify_x_to_y"] = signature([examples], [TensorSpec("scores", t.FP32, (-1, 1), native="y:0")], CLASSIFY)
    return Toy(made, run)


def examined(*outputs: Tensor, method: str = "", inputs: str = "inputs") -> Toy:
    """Answers the same tensors to whatever Examples it is fed."""
    specs = [TensorSpec(each.name, each.datatype, None) for each in outputs]
    return Toy({"": signature([TensorSpec(inputs, t.BYTES, (-1,))], specs, method)}, lambda _, __: list(outputs))


def flowers() -> Toy:
    """No SavedModel: four numbers and a colour by name to three scores whose labels the model knows, and the best class."""

    def run(inputs: Tensors, _: str) -> list[Tensor]:
        by_name = {each.name: each.array for each in inputs.items}
        size, colour = by_name["size"], by_name["colour"]
        scores = np.zeros((len(size), 3), "f8")
        scores[:, 0] = size[:, 0] / 8
        scores[:, 1] = [each == b"blue" for each in colour]
        scores[:, 2] = 1 - scores[:, 0]
        return [Tensor("class", t.INT64, scores.argmax(axis=1)), Tensor("probability", t.FP64, scores)]

    labels = ("setosa", "versicolor", "virginica")
    return Toy(
        {
            "": Signature(
                inputs=(TensorSpec("size", t.FP64, (-1, 4)), TensorSpec("colour", t.BYTES, (-1,))),
                outputs=(TensorSpec("class", t.INT64, (-1,)), TensorSpec("probability", t.FP64, (-1, 3), labels=labels)),
                batch=True,
            )
        },
        run,
    )


class Reply:
    """What came back: the status, the body as it was sent, and that body read by Python's own JSON module."""

    def __init__(self, status: int, body: bytes, media_type: bytes) -> None:
        self.status = status
        self.body = body
        self.media_type = media_type

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The text of an error. Fails unless the body is what every error of this protocol is."""
        assert self.status >= 400, self.body
        document = self.json
        assert list(document) == ["error"], document
        text: str = document["error"]
        assert type(text) is str
        return text


class Client:
    """Holds a dialect over toy models, and calls it as the server does. Every model is version 1 unless its name is "NAME/VERSION"."""

    def __init__(
        self,
        models: Mapping[str, Toy],
        *,
        labels: Mapping[str, Mapping[str, str]] | None = None,
        max_body: int = 1 << 26,
        dialect: Callable[[Services], Dialect] = TFServing,
        check_methods: bool = False,
    ) -> None:
        meters = Meters()
        self.gateway = Gateway(meters)
        self.labels = labels or {}
        self.max_body = max_body
        table: dict[tuple[str, str], Entry] = {}
        self.statuses: dict[str, list[VersionStatus]] = {}
        for key, toy in models.items():
            name, _, version = key.partition("/")
            version = version or "1"
            entry = Entry(ModelSpec(name, version), toy)
            table[name, version] = table[name, ""] = entry  # the last one listed is the default
            for label, labelled in self.labels.get(name, {}).items():
                if labelled == version:
                    table[name, f"@{label}"] = entry
            self.statuses.setdefault(name, []).append(VersionStatus(name, version, State.READY, ""))
        self.gateway.swap(table)
        for name, statuses in self.statuses.items():
            self.gateway.publish(name, statuses, self.labels.get(name, {}))
        self.dialect = dialect(services(self.gateway, meters, check_methods=check_methods))

    def tell(self, name: str, version: str, state: State, reason: str = "", kind: Kind | None = None, *, waiting: bool = False) -> None:
        """Publish one more version of a model, which does not answer."""
        statuses = [s for s in self.statuses.setdefault(name, []) if s.version != version]
        self.statuses[name] = [*statuses, VersionStatus(name, version, state, reason, kind=kind, waiting=waiting)]
        self.gateway.publish(name, self.statuses[name], self.labels.get(name, {}))

    def request(
        self, method: str, path: str | bytes, body: Any = b"", headers: Mapping[str, str] | None = None, *, query: bytes = b""
    ) -> Request:
        """`body` is bytes, text, or anything that JSON can carry; None for a client that goes away before it sends one."""
        raw = path.encode() if isinstance(path, str) else path
        content = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        scope: MutableMapping[str, Any] = {
            "type": "http",
            "method": method,
            "path": raw.decode("latin-1"),
            "raw_path": raw,
            "query_string": query,
            "headers": [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()],
        }
        messages = [{"type": "http.request", "body": content, "more_body": False}] if body is not None else []

        async def receive() -> MutableMapping[str, Any]:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        return Request(scope, receive, self.max_body)

    async def ask(self, request: Request) -> Reply:
        try:
            route = self.dialect.route(request)
            answer = await route.handler(request, *route.args)
        except ServingError as error:
            answer = self.dialect.refuse(request, error)
        assert isinstance(answer.body, bytes)
        return Reply(answer.status, answer.body, answer.media_type)

    def send(
        self, method: str, path: str | bytes, body: Any = b"", headers: Mapping[str, str] | None = None, *, query: bytes = b""
    ) -> Reply:
        return asyncio.run(self.ask(self.request(method, path, body, headers, query=query)))

    def predict(self, name: str, body: Any) -> Reply:
        return self.send("POST", f"/v1/models/{name}:predict", body)
