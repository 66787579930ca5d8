"""The models of the benchmarks, written into one folder in the form that each server wants. Made by code: nothing is downloaded."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import helper

from benchmarks.processes import BenchmarkError
from benchmarks.traffic import Array, Predict
from tests.models import build

PEER_APPS = Path(__file__).parent / "peers" / "apps"
_TRITON_IRIS = """\
name: "iris"
backend: "python"
max_batch_size: 32
input [{ name: "X" data_type: TYPE_FP32 dims: [4] }]
output [{ name: "label" data_type: TYPE_INT64 dims: [1] }, { name: "probabilities" data_type: TYPE_FP32 dims: [3] }]
dynamic_batching { preferred_batch_size: [8, 16] max_queue_delay_microseconds: 500 }
instance_group [{ count: 2 kind: KIND_CPU }]
"""
_TRITON_IMAGE = """\
name: "image_mean"
backend: "python"
max_batch_size: 0
input [{ name: "image" data_type: TYPE_FP32 dims: [1, 3, 224, 224] }]
output [{ name: "mean" data_type: TYPE_FP32 dims: [1] }]
instance_group [{ count: 2 kind: KIND_CPU }]
"""
_STEADY_WIDTH = 256
_STEADY_TRIES = 20
_STEADY_TOLERANCE = 0.15


class Models:
    """`folder` holds iris.onnx and image_mean.onnx, triton/ (a repository), mlserver/ (the same for MLServer)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.iris = build.iris(folder / "iris.onnx")
        self.image_mean = build.image_mean(folder / "image_mean.onnx")
        for path, config in ((self.iris, _TRITON_IRIS), (self.image_mean, _TRITON_IMAGE)):
            triton = folder / "triton" / path.stem
            (triton / "1").mkdir(parents=True)
            (triton / "config.pbtxt").write_text(config)
            shutil.copy(path, triton / "1" / "model.onnx")
            shutil.copy(PEER_APPS / "triton_model.py", triton / "1" / "model.py")
            mlserver = folder / "mlserver" / path.stem
            mlserver.mkdir(parents=True)
            shutil.copy(path, mlserver / "model.onnx")
            settings = {"name": path.stem, "implementation": "mlserver_app.Onnx", "parameters": {"uri": "./model.onnx", "version": "1"}}
            (mlserver / "model-settings.json").write_text(json.dumps(settings))

    @property
    def predict_iris(self) -> Predict:
        return predictor(self.iris)

    @property
    def predict_image(self) -> Predict:
        return predictor(self.image_mean)


def session(path: Path) -> Any:
    """The model in onnxruntime with one thread that does not spin, as a worker of Dragoman opens it when cores and workers are equal."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def predictor(path: Path) -> Predict:
    """The model itself, without any server."""
    opened = session(path)
    name = opened.get_inputs()[0].name

    def predict(array: Array) -> list[Array]:
        return list(opened.run(None, {name: array}))

    return predict


def run_times_s(predict: Predict, rows: int, seconds: float = 0.5) -> list[float]:
    """What each run with so many rows takes, one after the other for some seconds."""
    array = np.ones((rows, 4), np.float32)
    times: list[float] = []
    until = time.perf_counter() + seconds
    while not times or time.perf_counter() < until:
        begin = time.perf_counter()
        predict(array)
        times.append(time.perf_counter() - begin)
    return times


def steady(path: Path, run_s: float) -> Path:
    """x FP32 [N,4] -> y FP32 [N,4], the same: each run multiplies matrices for about `run_s`, however many rows there are. Joins batches.

    The number of products is settled here by measuring, so the model differs from machine to machine; its run time hardly does. Raises
    when it will not settle, which means that the machine is too busy to measure anything.
    """
    products = 16
    for _ in range(_STEADY_TRIES):
        took_s = min(run_times_s(predictor(_steady(path, products)), 1))  # a busy moment must not make the model shorter
        if abs(took_s / run_s - 1) < _STEADY_TOLERANCE:
            return path
        products = max(1, round(products * run_s / took_s))
    raise BenchmarkError(
        f"a run of {products} products takes {took_s * 1e3:.1f} ms at last, wanted {run_s * 1e3:.1f}: the machine is too busy"
    )


def _steady(path: Path, products: int) -> Path:
    """A chain of products that starts from the input, so that it cannot be computed ahead, and adds nothing in the end."""
    weight = np.full((_STEADY_WIDTH, _STEADY_WIDTH), 1 / _STEADY_WIDTH, np.float32)
    chain = [helper.make_node("MatMul", [f"state_{i}", "weight"], [f"state_{i + 1}"]) for i in range(products)]
    return build.save(
        path,
        [
            helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
            helper.make_node("Mul", ["largest", "zero"], ["seed"]),
            helper.make_node("Add", ["weight", "seed"], ["state_0"]),
            *chain,
            helper.make_node("ReduceMax", [f"state_{products}"], ["last"], keepdims=0),
            helper.make_node("Mul", ["last", "zero"], ["nothing"]),
            helper.make_node("Add", ["x", "nothing"], ["y"]),
        ],
        [build.value("x", "FP32", ["N", 4])],
        [build.value("y", "FP32", ["N", 4])],
        [build.constant("weight", weight), build.constant("zero", np.array(0, np.float32))],
    )
