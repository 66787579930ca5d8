"""Toy models behind MLflow's and Seldon's protocols, and a client without sockets that says below which prefix it calls."""

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dragoman.core import tensors as t
from dragoman.core.model import Call, InferRequest, InferResponse, Model, Timings
from dragoman.core.tensors import Array, Signature, Tensor, Tensors, TensorSpec
from dragoman.dialects import PINNED, Dialect, Services
from dragoman.hosting.batch import as_serving_error
from tests.fakes_tfs import Client, Reply, Toy, array, digits, echo, signature
from tests.models.snippets import model_of

FRAME = """
from typing import TypedDict

class Out(TypedDict):
    text: str
    score: float

def predict(text: str, weight: float, count: int = 1) -> Out:
    return {"text": text * count, "score": weight}
"""
"""A model of rows with two outputs."""


class Served(Toy):
    """A loaded model, called at once."""

    platform = "python"

    def __init__(self, model: Model) -> None:
        super().__init__(model.signatures, lambda _, __: [])
        self._model = model

    async def infer(self, request: InferRequest) -> InferResponse:
        self.seen.append(request)
        try:
            return InferResponse(self._model.predict(Call(request.inputs, request.operation, request.signature)), Timings())
        except Exception as error:
            raise as_serving_error(error, "m") from error


def columns(reads: frozenset[str] = frozenset()) -> Toy:
    """Named columns of every kind, as an MLflow signature declares them: total = a + b, and the name again; c may be missing."""

    def run(inputs: Tensors, _: str) -> list[Tensor]:
        by_name = {each.name: each.array for each in inputs.items}
        total = by_name["a"] + by_name["b"] + by_name.get("c", 0)
        return [Tensor("total", t.FP64, total), Tensor("name", t.BYTES, by_name["name"])]

    inputs = (
        TensorSpec("a", t.FP64, (-1,)),
        TensorSpec("b", t.INT64, (-1,)),
        TensorSpec("name", t.BYTES, (-1,)),
        TensorSpec("c", t.FP64, (-1,), optional=True),
    )
    outputs = (TensorSpec("total", t.FP64, (-1,)), TensorSpec("name", t.BYTES, (-1,)))
    return Toy({"": Signature(inputs=inputs, outputs=outputs, batch=True, reads=reads)}, run)


def classes() -> Toy:
    """Two numbers to the probabilities of three classes that have names."""

    def run(inputs: Tensors, _: str) -> list[Tensor]:
        made: Array = np.zeros((len(inputs.items[0].array), 3), "f4")
        made[:, 1] = 1
        return [Tensor("probability", t.FP32, made)]

    output = TensorSpec("probability", t.FP32, (-1, 3), labels=("red", "green", "blue"))
    return Toy({"": signature([TensorSpec("x", t.FP32, (-1, 2))], [output])}, run)


def failing(error: Exception) -> Toy:
    """Fails at every request."""

    def run(inputs: Tensors, _: str) -> list[Tensor]:
        raise error

    return Toy({"": signature([TensorSpec("x", t.FP32, None)], [])}, run)


def toys() -> dict[str, Toy]:
    """By the name of the model; `matrix` is the default one."""
    return {
        "matrix": echo(t.FP32, (-1, 2)),
        "columns": columns(),
        "words": echo(t.BYTES, (-1,)),
        "whole": echo(t.INT64, (-1,)),
        "open": echo(None),
        "digits": digits(),
        "classes": classes(),
    }


def rows_models(folder: Path) -> dict[str, Toy]:
    """Models of rows."""
    sources = {
        "frame": FRAME,
        "one": "def predict(x: float) -> float:\n    return x * 2",
        "shout": "def predict(text: str) -> str:\n    return text.upper()",
        "size": "from dragoman import Blob\ndef predict(file: Blob) -> int:\n    return len(file.data)",
        "copy": "def predict(data: bytes) -> bytes:\n    return data",
        "odd": "def predict(x: int):\n    return ['\\ud800', 10**30, [x, None], {'a': float('nan')}][x]",
        "any": "def predict(x: float):\n    return {'x': x, 'list': [x, 'a']} if x else {'y': x}",
    }
    return {name: Served(model_of(folder / name, source)) for name, source in sources.items()}


class Caller:
    """Calls a dialect for one model after another."""

    def __init__(self, models: Mapping[str, Toy], dialect: Callable[[Services], Dialect]) -> None:
        self.client = Client(models, dialect=dialect)
        self.client.gateway.named = tuple(name.partition("/")[0] for name in models)

    def send(
        self, method: str, path: str, body: Any = b"", headers: Mapping[str, str] | None = None, pinned: tuple[str, str] | None = None
    ) -> Reply:
        request = self.client.request(method, path, body, headers)
        if pinned is not None:
            request.scope[PINNED] = pinned
        return asyncio.run(self.client.ask(request))


def document(reply: Reply) -> Any:
    """The JSON of a good answer, read strictly."""

    def refuse(token: str) -> float:
        raise AssertionError(f"{token} is not JSON")

    assert reply.status == 200, reply.body
    assert reply.media_type == b"application/json"
    return json.loads(reply.body, parse_constant=refuse)


__all__ = ["Caller", "array", "columns", "document", "failing", "rows_models", "toys"]
