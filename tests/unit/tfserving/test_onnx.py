"""Real ONNX models, which insist on their ranks, behind TensorFlow Serving's protocol."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from dragoman.core.model import ModelSpec
from dragoman.hosting.servable import LocalServable
from dragoman.serving.gateway import Entry
from tests.fakes_tfs import Client, Reply
from tests.models import build


def half_plus_two(path: Path) -> Path:
    """x FP32 [N,1] -> y = x / 2 + 2 FP32 [N,1]."""
    nodes = [helper.make_node("Mul", ["x", "half"], ["halved"]), helper.make_node("Add", ["halved", "two"], ["y"])]
    constants = [build.constant("half", np.array([0.5], "f4")), build.constant("two", np.array([2.0], "f4"))]
    return build.save(path, nodes, [build.value("x", "FP32", ("N", 1))], [build.value("y", "FP32", ("N", 1))], constants)


def ask(path: Path, *requests: tuple[str, str, Any]) -> list[Reply]:
    """Load a model as `m` and send (method, rest of the path, body), one after the other."""

    async def run() -> list[Reply]:
        spec = ModelSpec("m", runtime="onnx", artifact=str(path))
        servable = LocalServable.load(spec)
        entry = Entry(spec, servable)
        client = Client({})
        client.gateway.swap({("m", ""): entry, ("m", "1"): entry})
        replies = [await client.ask(client.request(method, f"/v1/models/m{rest}", body)) for method, rest, body in requests]
        await servable.close()
        return replies

    return asyncio.run(run())


def predict(path: Path, body: Any) -> Reply:
    return ask(path, ("POST", ":predict", body))[0]


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"instances": [1.0, 2.0, 5.0]}, {"predictions": [2.5, 3.0, 4.5]}),
        ({"instances": [[1.0], [2.0], [5.0]]}, {"predictions": [[2.5], [3.0], [4.5]]}),
        ({"instances": [{"x": 1}, {"x": 2}]}, {"predictions": [2.5, 3.0]}),
        ({"inputs": {"x": [1.0, 2.0, 5.0]}}, {"outputs": [2.5, 3.0, 4.5]}),
        ({"inputs": [[80]]}, {"outputs": [[42.0]]}),
    ],
)
def test_half_plus_two(tmp_path: Path, body: Any, answer: Any) -> None:
    """The protocol's own example, with and without the dimension that onnxruntime insists on."""
    reply = predict(half_plus_two(tmp_path / "m.onnx"), body)
    assert (reply.status, reply.json) == (200, answer)


@pytest.mark.parametrize("body", [{"inputs": 3.0}, {"instances": [[[1.0]]]}, {"instances": [[1.0, 2.0]]}, {"inputs": [[1.0, 2.0]]}])
def test_wrong_shapes_are_400(tmp_path: Path, body: Any) -> None:
    """What the model refuses is the client's fault, with the model's reason."""
    reply = predict(half_plus_two(tmp_path / "m.onnx"), body)
    assert reply.status == 400
    assert "x" in reply.error


def test_several_outputs(tmp_path: Path) -> None:
    """A classifier of two outputs, in both forms."""
    rows = build.IRIS_CENTRES.tolist()
    path = build.iris(tmp_path / "m.onnx")
    by_row, by_column = ask(path, ("POST", ":predict", {"instances": rows}), ("POST", "/versions/1:predict", {"inputs": rows}))
    assert [row["label"] for row in by_row.json["predictions"]] == [[0], [1], [2]]
    assert by_column.json["outputs"]["label"] == [[0], [1], [2]]
    assert [row["probabilities"] for row in by_row.json["predictions"]] == by_column.json["outputs"]["probabilities"]


@pytest.mark.parametrize(
    ("datatype", "dtype", "values"),
    [
        ("BOOL", "DT_BOOL", [True]),
        ("INT8", "DT_INT8", [-5]),
        ("UINT64", "DT_UINT64", [2**63]),
        ("FP64", "DT_DOUBLE", [0.1]),
        ("BYTES", "DT_STRING", ["é"]),
    ],
)
def test_datatypes(tmp_path: Path, datatype: str, dtype: str, values: list[Any]) -> None:
    """Metadata names the model's own types, and values go through unchanged."""
    path = build.identity(tmp_path / "m.onnx", datatype)
    metadata, reply = ask(path, ("GET", "/metadata", b""), ("POST", ":predict", {"instances": [values, values]}))
    (told,) = metadata.json["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"].values()
    assert told["dtype"] == dtype
    assert told["tensor_shape"]["dim"][0]["size"] == "-1"
    assert reply.json == {"predictions": [values, values]}
