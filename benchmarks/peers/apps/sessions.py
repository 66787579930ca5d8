"""What the Python peers serve: the two models of the comparison in onnxruntime, one thread each, as Dragoman's workers run them."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime


def open_session(path: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Iris:
    def __init__(self) -> None:
        self._session = open_session(os.path.join(os.environ["MODELS"], "iris.onnx"))

    def __call__(self, rows: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
        labels, probabilities = self._session.run(["label", "probabilities"], {"X": np.array(rows, np.float32)})
        return [{"label": label, "probabilities": row} for (label,), row in zip(labels.tolist(), probabilities.tolist(), strict=True)]


class ImageMean:
    def __init__(self) -> None:
        self._session = open_session(os.path.join(os.environ["MODELS"], "image_mean.onnx"))

    def __call__(self, body: bytes) -> dict[str, float]:
        image = np.frombuffer(body, np.float32).reshape(1, 3, 224, 224)
        return {"mean": float(self._session.run(["mean"], {"image": image})[0][0])}
