"""The requests of the benchmarks, one builder per protocol, each with a check of its answer against what the model itself computes."""

import base64
import http.client
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from benchmarks.processes import BenchmarkError

JSON = {"Content-Type": "application/json"}
BINARY = {"Content-Type": "application/octet-stream"}
IMAGE_SHAPE = (1, 3, 224, 224)
IRIS_ROWS = ((5.0, 3.4, 1.5, 0.2), (5.9, 2.8, 4.3, 1.3), (6.6, 3.0, 5.6, 2.0), (6.1, 2.9, 4.9, 1.7))
IRIS_PATH = "/v2/models/iris/infer"
IMAGE_PATH = "/v2/models/image_mean/infer"

Array = np.ndarray[Any, Any]
Predict = Callable[[Array], Sequence[Array]]
"""The model itself: one input to its outputs in order."""
Answer = Callable[[Mapping[str, str], bytes], Any]
"""Headers (names in lower case) and body to the numbers in them."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One request and what its answer must hold."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    read: Answer
    expected: Sequence[float] = field(default=())

    def check(self, headers: Mapping[str, str], body: bytes) -> None:
        """Raise unless these are the expected numbers; floats may differ in the last digits."""
        try:
            got = [float(number) for number in self.read(headers, body)]
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise BenchmarkError(f"{self.path} answered {body[:200]!r}, which is no answer: {error!r}") from error
        if len(got) != len(self.expected) or any(abs(a - b) > 1e-4 for a, b in zip(got, self.expected, strict=True)):
            raise BenchmarkError(f"{self.path} answered {got}, expected {list(self.expected)}")


def fire(port: int, shots: Sequence[Shot], timeout_s: float = 60.0) -> None:
    """Send each shot once and check the answers. Raises OSError while nobody listens, BenchmarkError for a wrong answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        for shot in shots:
            connection.request("POST", shot.path, shot.body, dict(shot.headers))
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise BenchmarkError(f"{shot.path} answered {answer.status}: {body[:200].decode('utf-8', 'replace')}")
            shot.check({name.lower(): value for name, value in answer.getheaders()}, body)
    finally:
        connection.close()


def iris_v2(predict: Predict) -> list[Shot]:
    """Open Inference Protocol, JSON."""
    shots = []
    for row in IRIS_ROWS:
        tensor = {"name": "X", "shape": [1, 4], "datatype": "FP32", "data": list(row)}
        shots.append(Shot(IRIS_PATH, JSON, orjson.dumps({"inputs": [tensor]}), _v2_outputs, _iris_answer(predict, row)))
    return shots


def iris_rows(predict: Predict) -> list[Shot]:
    """What the peers take that have no protocol of their own: one row, answered by an object."""
    return [Shot("/iris", JSON, orjson.dumps({"row": list(row)}), _object, _iris_answer(predict, row)) for row in IRIS_ROWS]


def echoed(shots: Sequence[Shot]) -> list[Shot]:
    """The same bodies for a server that only sends them back."""

    def sizes(_headers: Mapping[str, str], body: bytes) -> list[int]:
        return [len(body)]

    return [Shot(shot.path, shot.headers, shot.body, sizes, [len(shot.body)]) for shot in shots]


def image() -> Array:
    return np.random.default_rng(17).random(IMAGE_SHAPE, np.float32)


def image_v2_binary(predict: Predict) -> list[Shot]:
    """Open Inference Protocol with the binary extension, for the input only: the answer is one number."""
    raw = image().tobytes()
    tensor = {"name": "image", "shape": IMAGE_SHAPE, "datatype": "FP32", "parameters": {"binary_data_size": len(raw)}}
    head = orjson.dumps({"inputs": [tensor]})
    headers = {**BINARY, "Inference-Header-Content-Length": str(len(head))}
    return [Shot(IMAGE_PATH, headers, head + raw, _v2_outputs, _mean(predict))]


def image_v2_json(predict: Predict) -> list[Shot]:
    """Open Inference Protocol, JSON, 150,528 numbers in one list."""
    tensor = {"name": "image", "shape": IMAGE_SHAPE, "datatype": "FP32", "data": image().ravel()}
    body = orjson.dumps({"inputs": [tensor]}, option=orjson.OPT_SERIALIZE_NUMPY)
    return [Shot(IMAGE_PATH, JSON, body, _v2_outputs, _mean(predict))]


def image_tfserving(predict: Predict) -> list[Shot]:
    """TensorFlow Serving, row form: 150,528 numbers in nested lists."""
    body = orjson.dumps({"instances": image()}, option=orjson.OPT_SERIALIZE_NUMPY)
    return [Shot("/v1/models/image_mean:predict", JSON, body, lambda _headers, answer: orjson.loads(answer)["predictions"], _mean(predict))]


def image_raw(predict: Predict) -> list[Shot]:
    """The bytes of the image and nothing else."""
    return [Shot("/image", BINARY, image().tobytes(), _object, _mean(predict))]


def image_base64(predict: Predict) -> list[Shot]:
    """The bytes of the image in JSON."""
    body = orjson.dumps({"image": base64.b64encode(image().tobytes()).decode()})
    return [Shot("/image", JSON, body, _object, _mean(predict))]


def _iris_answer(predict: Predict, row: Sequence[float]) -> list[float]:
    label, probabilities = predict(np.array([row], np.float32))
    return [float(label[0, 0]), *map(float, probabilities[0])]


def _mean(predict: Predict) -> list[float]:
    return [float(predict(image())[0][0])]


def _v2_outputs(headers: Mapping[str, str], body: bytes) -> list[float]:
    """Every number of every output in the JSON part of an answer."""
    size = int(headers.get("inference-header-content-length", len(body)))
    return [number for output in orjson.loads(body[:size])["outputs"] for number in _flat(output["data"])]


def _object(_headers: Mapping[str, str], body: bytes) -> list[float]:
    """The values of the answer's one object, lists opened."""
    return _flat(list(orjson.loads(body).values()))


def _flat(value: Any) -> list[float]:
    return [number for item in value for number in _flat(item)] if isinstance(value, list) else [value]
