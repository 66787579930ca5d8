"""What `dragoman convert` writes: names of graphs and ports, shapes, shared weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from dragoman.conversion import folders, graphs
from dragoman.core.model import Call
from dragoman.core.tensors import FP32, INT64, Signature, Tensors, TensorSpec
from tests.models.build import constant, value
from tests.models.calls import load, tensor


def matrix(weights: "np.ndarray[Any, Any]", x: str = "x", y: str = "y") -> Any:
    """y = x times weights."""
    node = helper.make_node("MatMul", [x, "weights"], [y])
    graph = helper.make_graph(
        [node], "graph", [value(x, "FP32", [None, 64])], [value(y, "FP32", [None, None])], [constant("weights", weights)]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def signature(batch: bool = True, output: str = "y") -> Signature:
    return Signature(
        inputs=(TensorSpec("x", FP32, (-1, 64), native="x:0"),),
        outputs=(TensorSpec(output, FP32, (-1, 8), native="y:0"),),
        batch=batch,
        method="tensorflow/serving/predict",
    )


def converted(weights: "np.ndarray[Any, Any]", declared: Signature) -> folders.Converted:
    inputs, outputs = graphs.port_names(declared)
    model = matrix(weights, *inputs.values(), *outputs.values())
    graphs.declare(model.graph, declared, inputs, outputs)
    onnx.checker.check_model(model)
    return folders.Converted(declared, model, inputs, outputs)


def test_written_folders_are_served(tmp_path: Path) -> None:
    """With the names, methods and shapes of the signatures, also where an output is called like an input; weights are there once."""
    random = np.random.default_rng(0).standard_normal((64, 8), np.float32)
    made = {
        "serving_default": converted(random, signature()),
        "alone": converted(random, signature(batch=False)),
        "a/b": converted(random * 2, signature(output="x")),
    }
    folders.write(tmp_path, made, "serving_default", {"made_with": {"tool": "1"}})
    assert sorted(p.name for p in (tmp_path / "graphs").iterdir()) == ["a_b.onnx", "alone.onnx", "serving_default.onnx", "weights.bin"]
    assert (tmp_path / "graphs" / "weights.bin").stat().st_size == 2 * random.nbytes
    assert json.loads((tmp_path / "signatures.json").read_text())["made_with"] == {"tool": "1"}
    model = load("onnx", tmp_path)
    assert model.signatures["serving_default"] == signature()
    assert model.signatures["alone"] == signature(batch=False)
    assert model.signatures["a/b"] == signature(output="x")
    x = np.ones((2, 64), np.float32)
    for key, output, factor in (("", "y", 1), ("alone", "y", 1), ("a/b", "x", 2)):
        answer = model.predict(Call(Tensors([tensor("x", x)]), signature=key))
        assert isinstance(answer, Tensors)
        assert [t.name for t in answer.items] == [output]
        np.testing.assert_allclose(answer.items[0].array, x @ random * factor, rtol=1e-4)


def test_a_lone_small_graph_is_one_file(tmp_path: Path) -> None:
    """Nothing is shared where there is nobody to share with."""
    folders.write(tmp_path, {"serving_default": converted(np.ones((64, 8), np.float32), signature())}, "serving_default", {})
    assert [p.name for p in (tmp_path / "graphs").iterdir()] == ["serving_default.onnx"]
    assert load("onnx", tmp_path).signatures[""] == signature()


def test_no_weights_no_file(tmp_path: Path) -> None:
    """Constants of a few bytes stay in the graphs."""
    small = Signature(inputs=(TensorSpec("x", FP32, (-1, 2)),), outputs=(TensorSpec("y", FP32, (-1, 2)),), batch=True)
    made = {key: converted(np.eye(2, dtype=np.float32), small) for key in "ab"}
    folders.write(tmp_path, made, "a", {})
    assert not (tmp_path / "graphs" / "weights.bin").exists()


@pytest.mark.parametrize(
    ("keys", "files"),
    [
        (["serving_default"], ["serving_default.onnx"]),
        (
            ["tensorflow/serving/regress", "tensorflow_serving_regress"],
            ["tensorflow_serving_regress.onnx", "tensorflow_serving_regress_2.onnx"],
        ),
        (["A", "a"], ["A.onnx", "a_2.onnx"]),
        (["..", "é"], ["_.onnx", "__2.onnx"]),
        (["x" * 300], ["x" * 64 + ".onnx"]),
    ],
)
def test_file_names(keys: list[str], files: list[str]) -> None:
    """A signature's name may hold anything; its file's does not, and no two are one on any system."""
    assert list(folders.file_names(dict.fromkeys(keys)).values()) == files


def test_port_names() -> None:
    """An output that is called like an input, or like another's new name, gets a name of its own in the graph."""
    declared = Signature(
        inputs=(TensorSpec("x", FP32, (1,)), TensorSpec("y", FP32, (1,))),
        outputs=tuple(TensorSpec(name, FP32, (1,)) for name in ("x", "x_out", "z")),
    )
    assert graphs.port_names(declared) == ({"x": "x", "y": "y"}, {"x": "x_out_out", "x_out": "x_out", "z": "z"})


def test_declared_shapes() -> None:
    """Known sizes are kept, unknown ranks have none, and only a batch is called the same everywhere; ports come in the signature's order."""
    declared = Signature(
        inputs=(TensorSpec("b", FP32, None), TensorSpec("a", INT64, (-1, 3, -1))), outputs=(TensorSpec("c", FP32, (-1,)),), batch=False
    )
    graph = helper.make_graph([], "graph", [value("a", "INT64", [1]), value("b", "FP32", [])], [value("c", "FP32", None)])
    graphs.declare(graph, declared, *graphs.port_names(declared))
    assert [v.name for v in graph.input] == ["b", "a"]
    assert not graph.input[0].type.tensor_type.HasField("shape")
    dims = [d.dim_param or d.dim_value for d in graph.input[1].type.tensor_type.shape.dim]
    assert dims == ["rows of a", 3, "a_dim_2"]
    assert [d.dim_param for d in graph.output[0].type.tensor_type.shape.dim] == ["rows of c"]
