"""ONNX models of a few kilobytes, one function each: `iris(path)` writes the file and returns its path. Used by tests of every layer.

Parent folders are made. All files have IR version 9 and opset 18, which every supported onnxruntime reads; no data set and no training is
involved, so every build is the same.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IR_VERSION = 9
OPSET = 18

Dims = Sequence[int | str | None]

ELEMENTS: Mapping[str, int] = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}
"""Datatype names of the Open Inference Protocol and their ONNX element types."""

IRIS_CLASSES = ("setosa", "versicolor", "virginica")
IRIS_CENTRES = np.array([[5.0, 3.4, 1.5, 0.2], [5.9, 2.8, 4.3, 1.3], [6.6, 3.0, 5.6, 2.0]], np.float32)


def value(name: str, datatype: str, dims: Dims | None) -> Any:
    """Describe a graph input or output; a text dimension is symbolic, None unknown; dims None is unknown rank."""
    return helper.make_tensor_value_info(name, ELEMENTS[datatype], None if dims is None else list(dims))


def constant(name: str, array: "np.ndarray[Any, Any]") -> Any:
    return numpy_helper.from_array(array, name)


def save(
    path: Path | str,
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    constants: Sequence[Any] = (),
    *,
    ir_version: int = IR_VERSION,
    opset: int = OPSET,
    check: bool = True,
    **more: Any,
) -> Path:
    """Write a graph as an ONNX file."""
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version, **more)
    if check:
        onnx.checker.check_model(model)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(model.SerializeToString())
    return target


def iris(path: Path | str) -> Path:
    """The nearest of three flower centres: X FP32 [N,4] -> label INT64 [N,1], probabilities FP32 [N,3]. Joins batches.

    IRIS_CENTRES[i] has label i.
    """
    # |x - c|^2 = |x|^2 - 2xc + |c|^2, and softmax does not see |x|^2: a linear classifier.
    weights = np.ascontiguousarray(2 * IRIS_CENTRES.T)
    bias = -(IRIS_CENTRES**2).sum(axis=1)
    return save(
        path,
        [
            helper.make_node("Gemm", ["X", "weights", "bias"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=-1),
            helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=1),
        ],
        [value("X", "FP32", ["N", 4])],
        [value("label", "INT64", ["N", 1]), value("probabilities", "FP32", ["N", 3])],
        [constant("weights", weights), constant("bias", bias)],
    )


def identity(path: Path | str, datatype: str = "FP32", dims: Dims | None = ("N", None)) -> Path:
    """x -> y, the same, of any datatype and shape; by default two dimensions that vary, which joins batches."""
    # the checker wants a shape; onnxruntime does not
    inputs, outputs = [value("x", datatype, dims)], [value("y", datatype, dims)]
    return save(path, [helper.make_node("Identity", ["x"], ["y"])], inputs, outputs, check=dims is not None)


def add_sub(path: Path | str, datatype: str = "INT32", dims: Dims = ("N", 16)) -> Path:
    """INPUT0, INPUT1 -> OUTPUT0 (sum), OUTPUT1 (difference): Triton's "simple" model. Joins batches unless `dims` is all numbers."""
    return save(
        path,
        [
            helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
            helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
        ],
        [value("INPUT0", datatype, dims), value("INPUT1", datatype, dims)],
        [value("OUTPUT0", datatype, dims), value("OUTPUT1", datatype, dims)],
    )


def fixed_batch(path: Path | str) -> Path:
    """x FP32 [2,3] -> sums FP32 [2,1]: a model exported for exactly two rows, which never joins."""
    return save(
        path,
        [helper.make_node("ReduceSum", ["x", "axis"], ["sums"], keepdims=1)],
        [value("x", "FP32", [2, 3])],
        [value("sums", "FP32", [2, 1])],
        [constant("axis", np.array([1]))],
    )


def image_mean(path: Path | str, dims: Dims = (1, 3, 224, 224)) -> Path:
    """image FP32 [1,3,224,224] -> mean FP32 [1]: big input, little work."""
    return save(
        path,
        [helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0)],
        [value("image", "FP32", dims)],
        [value("mean", "FP32", [dims[0]])],
        [constant("axes", np.array([1, 2, 3]))],
    )


def shout(path: Path | str) -> Path:
    """text_input BYTES [N] -> text_output BYTES [N] in capitals: a model of text, and for `generate`. Joins batches."""
    return save(
        path,
        [
            # the locale "C" is the only one that every machine has
            helper.make_node(
                "StringNormalizer", ["text_input"], ["text_output"], case_change_action="UPPER", is_case_sensitive=1, locale="C"
            )
        ],
        [value("text_input", "BYTES", ["N"])],
        [value("text_output", "BYTES", ["N"])],
    )


def lookup(path: Path | str) -> Path:
    """index INT64 [N] -> square INT64 [N], for -10..9 only: other numbers make the model refuse the whole batch."""
    return save(
        path,
        [helper.make_node("Gather", ["table", "index"], ["square"], axis=0)],
        [value("index", "INT64", ["N"])],
        [value("square", "INT64", ["N"])],
        [constant("table", np.arange(10) ** 2)],
    )


def slow(path: Path | str, width: int = 256) -> Path:
    """rounds INT64 [N] -> done INT64 [N]: multiplies two matrices as often as the largest element says, so the caller decides how long.

    One round is some 2 million operations with the default width.
    """
    weight = np.full((width, width), 1.0 / width, np.float32)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["keep_in"], ["keep_out"]),
            helper.make_node("MatMul", ["state_in", "weight"], ["state_out"]),
        ],
        "round",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("keep_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_in", TensorProto.FLOAT, [width, width]),
        ],
        [
            helper.make_tensor_value_info("keep_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_out", TensorProto.FLOAT, [width, width]),
        ],
    )
    return save(
        path,
        [
            helper.make_node("ReduceMax", ["rounds"], ["most"], keepdims=0),
            helper.make_node("Loop", ["most", "", "weight"], ["state"], body=body),
            helper.make_node("ReduceSum", ["state"], ["sum"], keepdims=0),
            helper.make_node("Cast", ["sum"], ["whole"], to=TensorProto.INT64),
            # adds nothing, but keeps the loop alive: its result is part of the answer
            helper.make_node("Mul", ["whole", "zero"], ["nothing"]),
            helper.make_node("Add", ["rounds", "nothing"], ["done"]),
        ],
        [value("rounds", "INT64", ["N"])],
        [value("done", "INT64", ["N"])],
        [constant("weight", weight), constant("zero", np.array(0))],
    )


def scalar(path: Path | str) -> Path:
    """x FP32 [] -> double FP32 []: tensors without dimensions."""
    return save(path, [helper.make_node("Add", ["x", "x"], ["double"])], [value("x", "FP32", [])], [value("double", "FP32", [])])


def optional_input(path: Path | str) -> Path:
    """x FP32 [N,2], factor FP32 [1] (optional, 10) -> y FP32 [N,2] = x * factor. Never joins: factor has no batch axis."""
    return save(
        path,
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [value("x", "FP32", ["N", 2]), value("factor", "FP32", [1])],
        [value("y", "FP32", ["N", 2])],
        [constant("factor", np.array([10.0], np.float32))],
    )


def large(path: Path | str, megabytes: int = 100) -> Path:
    """x FP32 [N,64] -> y FP32 [N,width]: as many megabytes of random weights as asked, for measuring memory."""
    width = megabytes * (1 << 20) // (64 * 4)
    weights = np.random.default_rng(0).standard_normal((64, width), np.float32)
    return save(
        path,
        [helper.make_node("MatMul", ["x", "weights"], ["y"])],
        [value("x", "FP32", ["N", 64])],
        [value("y", "FP32", ["N", width])],
        [constant("weights", weights)],
    )


def half_plus_two(folder: Path | str) -> Path:
    """A model of three signatures in a folder, as `dragoman convert` writes it; returns its description file.

    serving_default: x FP32 [N,1] -> y = x/2 + 2; twice, whose input and output are both called "x" there, FP32 [N]; table: index -> square,
    as `lookup`.
    """
    root = Path(folder)
    save(
        root / "graphs" / "half.onnx",
        [helper.make_node("Mul", ["x", "half"], ["halved"]), helper.make_node("Add", ["halved", "two"], ["y"])],
        [value("x", "FP32", ["N", 1])],
        [value("y", "FP32", ["N", 1])],
        [constant("half", np.array(0.5, np.float32)), constant("two", np.array(2, np.float32))],
    )
    save(
        root / "graphs" / "twice.onnx",
        [helper.make_node("Add", ["in", "in"], ["out"]), helper.make_node("Neg", ["out"], ["minus"])],
        [value("in", "FP32", ["N"])],
        [value("out", "FP32", ["N"]), value("minus", "FP32", ["N"])],
    )
    lookup(root / "graphs" / "table.onnx")
    described = {
        "onnx_signatures": 1,
        "default": "serving_default",
        "signatures": {
            "table": {"file": "graphs/table.onnx"},
            "serving_default": {
                "file": "graphs/half.onnx",
                "method": "tensorflow/serving/predict",
                "inputs": {"x": {"native": "serving_default_x:0"}},
                "outputs": {"y": {"native": "StatefulPartitionedCall:0"}},
            },
            "twice": {
                "file": "graphs/twice.onnx",
                "inputs": {"x": {"tensor": "in"}},
                "outputs": {"less": {"tensor": "minus"}, "x": {"tensor": "out"}, "again": {"tensor": "out"}},
            },
        },
    }
    path = root / "signatures.json"
    path.write_text(json.dumps(described))
    return path


BUILDERS: Mapping[str, Callable[[Path | str], Path]] = {
    "iris": iris,
    "identity": identity,
    "add_sub": add_sub,
    "fixed_batch": fixed_batch,
    "image_mean": image_mean,
    "shout": shout,
    "lookup": lookup,
    "slow": slow,
    "scalar": scalar,
    "optional_input": optional_input,
}
"""Every small model by name."""
