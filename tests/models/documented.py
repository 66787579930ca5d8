"""The models that TensorFlow Serving's and Gradient's own documents use in their examples, as ONNX. Used by end-to-end tests and by tests of docs."""

from pathlib import Path

import numpy as np
from onnx import helper

from tests.models.build import constant, save, value


def half_plus(path: Path | str, number: float) -> Path:
    """x FP32 [N,1] -> y FP32 [N,1] = x / 2 + number: TensorFlow Serving's half_plus_two and half_plus_three."""
    nodes = [helper.make_node("Mul", ["x", "half"], ["halved"]), helper.make_node("Add", ["halved", "number"], ["y"])]
    constants = [constant("half", np.array([0.5], "f4")), constant("number", np.array([number], "f4"))]
    return save(path, nodes, [value("x", "FP32", ("N", 1))], [value("y", "FP32", ("N", 1))], constants)


def half_plus_two(path: Path | str) -> Path:
    return half_plus(path, 2)


def beacon(path: Path | str) -> Path:
    """The example of several inputs: tag BYTES [N], signal INT64 [N,5], sensor FP32 [N,2,2].

    Answers total INT64 [N] (of the signal), mean FP32 [N] (of the sensor) and tag_bytes BYTES [N], which is the tag.
    """
    nodes = [
        helper.make_node("ReduceSum", ["signal", "last"], ["total"], keepdims=0),
        helper.make_node("ReduceMean", ["sensor", "both"], ["mean"], keepdims=0),
        helper.make_node("Identity", ["tag"], ["tag_bytes"]),
    ]
    inputs = [value("tag", "BYTES", ["N"]), value("signal", "INT64", ["N", 5]), value("sensor", "FP32", ["N", 2, 2])]
    outputs = [value("total", "INT64", ["N"]), value("mean", "FP32", ["N"]), value("tag_bytes", "BYTES", ["N"])]
    return save(path, nodes, inputs, outputs, [constant("last", np.array([1])), constant("both", np.array([1, 2]))])


def mnist(path: Path | str) -> Path:
    """image FP32 [N,784] -> classes INT64 [N], probabilities FP32 [N,10]: as the mnist sample, but it only finds where the ink is.

    Class d has the highest probability when pixels 78 d to 78 d + 77 are the brightest.
    """
    weights = np.zeros((784, 10), np.float32)
    for digit in range(10):
        weights[78 * digit : 78 * digit + 78, digit] = 1 / 78
    nodes = [
        helper.make_node("MatMul", ["image", "weights"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=-1),
        helper.make_node("ArgMax", ["scores"], ["classes"], axis=1, keepdims=0),
    ]
    outputs = [value("classes", "INT64", ["N"]), value("probabilities", "FP32", ["N", 10])]
    return save(path, nodes, [value("image", "FP32", ["N", 784])], outputs, [constant("weights", weights)])


def picture(path: Path | str) -> Path:
    """image BYTES [N] -> image_bytes BYTES [N], the same: for base64 in both directions."""
    node = helper.make_node("Identity", ["image"], ["image_bytes"])
    return save(path, [node], [value("image", "BYTES", ["N"])], [value("image_bytes", "BYTES", ["N"])])
