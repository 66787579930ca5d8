"""Numeric JSON: our reader and writer beside orjson with numpy, and beside the standard library, in one run.

    python -m benchmarks.json_decode

Each line is the best of several rounds in which the three take turns, so that a noisy machine is noisy for all; believe the ratios.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import orjson

from dragoman.core.tensors import FP32, FP64, INT64, Array, Datatype
from dragoman.dialects.json import array_json, array_of, loads

ROUNDS = 9
ROUND_S = 0.02


def best(functions: list[Callable[[], object]]) -> list[float]:
    """Processor seconds per call of each function: neighbours on a busy machine take time, but are not counted."""
    start = time.thread_time()
    for function in functions:
        function()
    calls = max(1, int(ROUND_S * len(functions) / (time.thread_time() - start)))
    least = [float("inf")] * len(functions)
    for _ in range(ROUNDS):
        for index, function in enumerate(functions):
            start = time.thread_time()
            for _ in range(calls):
                function()
            least[index] = min(least[index], (time.thread_time() - start) / calls)
    return least


@dataclass(frozen=True, slots=True)
class Line:
    """What one text took: ours, orjson with NumPy, the standard library with NumPy."""

    name: str
    size: int
    seconds: tuple[float, float, float]

    @property
    def speeds(self) -> tuple[float, ...]:
        """MB/s."""
        return tuple(self.size / each / 1e6 for each in self.seconds)

    def __str__(self) -> str:
        ours, fast, plain = self.seconds
        own_speed, fast_speed, plain_speed = self.speeds
        return (
            f"{self.name:42} {self.size / 1e3:9.1f} kB {ours * 1e6:9.1f} us {own_speed:6.0f} MB/s"
            f"   orjson+numpy {fast_speed:5.0f} ({fast / ours:4.2f}x)   json+numpy {plain_speed:5.0f} ({plain / ours:5.2f}x)"
        )


def line(name: str, size: int, functions: list[Callable[[], object]]) -> Line:
    ours, fast, plain = best(functions)
    return Line(name, size, (ours, fast, plain))


def v2(text: bytes) -> bytes:
    return b'{"id":"1","inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":' + text + b"}]}"


def rows(text: bytes) -> bytes:
    return b'{"instances":' + text + b"}"


def decode(name: str, body: bytes, datatype: Datatype, *, nonfinite: bool = False) -> Line:
    """Body to array. The others do no checking at all: text and decimals would be coerced silently."""

    def find(tree: dict[str, object]) -> object:
        return tree["inputs"][0]["data"] if "inputs" in tree else tree["instances"]  # type: ignore[index]

    def by_library() -> Array:
        return np.array(find(json.loads(body)), datatype.numpy)

    functions: list[Callable[[], object]] = [
        lambda: array_of(find(loads(body, nonfinite=nonfinite)), datatype),
        by_library if nonfinite else lambda: np.array(find(orjson.loads(body)), datatype.numpy),  # orjson has no NaN
        by_library,
    ]
    return line(name, len(body), functions)


def encode(name: str, array: Array, datatype: Datatype, *, nested: bool) -> Line:
    size = len(array_json(array, datatype, nested=nested, nonfinite="null"))
    shaped = array if nested else array.ravel()
    functions: list[Callable[[], object]] = [
        lambda: array_json(array, datatype, nested=nested, nonfinite="null"),
        lambda: orjson.dumps(shaped, option=orjson.OPT_SERIALIZE_NUMPY),
        lambda: json.dumps(shaped.tolist()).encode(),
    ]
    return line(name, size, functions)


def images() -> list[Line]:
    """An image of 150,528 numbers, in the ways in which clients write it."""
    array = np.random.default_rng(0).random((1, 3, 224, 224), np.float32)
    compact = orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)
    return [
        decode("Open Inference Protocol, one list", v2(orjson.dumps(array.ravel(), option=orjson.OPT_SERIALIZE_NUMPY)), FP32),
        decode("Open Inference Protocol, nested", v2(compact), FP32),
        decode("TensorFlow Serving, nested", rows(compact), FP32),
        decode("TensorFlow Serving, nested, doubles with blanks", rows(json.dumps(array.tolist()).encode()), FP32),
    ]


def main() -> None:
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, 224, 224, 3)).astype("f4")
    planes = image.transpose(0, 3, 1, 2)
    compact = orjson.dumps(image, option=orjson.OPT_SERIALIZE_NUMPY)
    print("decode")
    print(decode("V2, 4 floats", v2(b"[[5.1,3.5,1.4,0.2]]"), FP32))
    print(decode("TF Serving, 4 floats", rows(b"[[5.1,3.5,1.4,0.2]]"), FP32))
    print(decode("V2, 8 rows of 30", v2(json.dumps(rng.standard_normal((8, 30)).round(4).tolist()).encode()), FP32))
    print(decode("TF Serving, 256 rows of 30", rows(json.dumps(rng.standard_normal((256, 30)).tolist()).encode()), FP32))
    print(decode("V2, image, flat", v2(orjson.dumps(image.ravel(), option=orjson.OPT_SERIALIZE_NUMPY)), FP32))
    print(decode("V2, image, nested 1x3x224x224", v2(orjson.dumps(planes.tolist())), FP32))
    print(decode("TF Serving, image 1x224x224x3, compact", rows(compact), FP32))
    print(decode("TF Serving, image 1x224x224x3, json.dumps", rows(json.dumps(image.tolist()).encode()), FP32))
    first = compact[: compact.index(b",")]
    print(decode("TF Serving, image 1x224x224x3, one NaN", rows(compact.replace(first, b"[[[[NaN", 1)), FP32, nonfinite=True))
    print(decode("V2, 100,000 integers", v2(orjson.dumps(rng.integers(-(2**62), 2**62, 100_000).tolist())), INT64))
    print("encode")
    print(encode("V2, 4 floats", image.ravel()[:4].reshape(1, 4), FP32, nested=False))
    print(encode("V2, image, flat", image, FP32, nested=False))
    print(encode("TF Serving, image 1x224x224x3", image, FP32, nested=True))
    print(encode("V2, 1000 classes, double", rng.standard_normal((1, 1000)), FP64, nested=False))


if __name__ == "__main__":
    main()
