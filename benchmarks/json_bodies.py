"""Whole bodies of JSON through the codecs of TensorFlow Serving and the Open Inference Protocol, beside orjson with NumPy, in one run.

    python -m benchmarks json

Decoding is from the bytes of a body to checked tensors, encoding from tensors to the bytes of an answer: what a request pays beside its model.
The library does no checking at all: text and decimals would be coerced silently. Each line is the best of several rounds in which the two take
turns; believe the ratios.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson

from benchmarks.json_decode import best
from benchmarks.models import Models
from benchmarks.options import Options
from benchmarks.results import Section, Table, Target
from dragoman.core.tensors import BYTES, FP32, INT32, INT64, Array, Signature, Tensor, TensorSpec, datatype_of
from dragoman.dialects.tfserving import decode, encode
from dragoman.dialects.v2 import codec

_NUMPY = orjson.OPT_SERIALIZE_NUMPY
GOAL = 300.0
"""MB/s on bodies of numbers."""


class Line:
    """What one body took: ours, and the library."""

    def __init__(self, name: str, size: int, functions: list[Callable[[], object]], numeric: bool = True) -> None:
        self.name, self.size, self.numeric = name, size, numeric
        self.seconds = best(functions)

    @property
    def speed(self) -> float:
        """MB/s."""
        return self.size / self.seconds[0] / 1e6

    @property
    def cells(self) -> list[str]:
        """A line of the table."""
        ours, library = self.seconds
        speeds = (self.speed, self.size / library / 1e6)
        return [self.name, f"{self.size / 1e3:,.0f}", f"{ours * 1e6:,.0f}", *(f"{speed:,.0f}" for speed in speeds), f"{library / ours:.2f}"]


def spec(name: str, array: Array) -> TensorSpec:
    return TensorSpec(name, datatype_of(array.dtype), tuple(-1 for _ in array.shape))


def decoded(name: str, body: bytes, specs: Sequence[TensorSpec], library: Callable[[Any], object], numeric: bool = True) -> Line:
    """A body of TensorFlow Serving's predict."""
    signature = Signature(inputs=tuple(specs))

    def ours() -> object:
        tree = decode.document(body)
        decode.signature_name(tree, body)
        return decode.asked(tree, body, signature)

    return Line(f"TF Serving: {name}", len(body), [ours, lambda: library(orjson.loads(body.replace(b"NaN", b"0.0")))], numeric)


def of_rows(tree: Any, dtype: str) -> object:
    return np.array(tree["instances"], dtype)


def of_columns(tree: Any, dtype: str) -> object:
    return [np.array(value, dtype) for value in tree["inputs"].values()]


def of_objects(tree: Any) -> object:
    rows = tree["instances"]
    return [np.array([row[key] for row in rows]) for key in rows[0]]


def v2_decoded(name: str, array: Array, *, nested: bool = False) -> Line:
    data = array if nested else array.ravel()
    document = {"id": "1", "inputs": [{"name": "x", "shape": list(array.shape), "datatype": str(datatype_of(array.dtype)), "data": data}]}
    body = orjson.dumps(document, option=_NUMPY)

    def ours() -> object:
        return [codec._decode_input(item, "m", None) for item in codec.parse(body, "m")["inputs"]]  # noqa: SLF001 # without a gateway

    def library() -> object:
        item = orjson.loads(body)["inputs"][0]
        return np.array(item["data"], array.dtype).reshape(item["shape"])

    return Line(f"V2: {name}", len(body), [ours, library])


def decoding() -> list[Line]:
    random = np.random.default_rng(0)
    image = random.standard_normal((1, 224, 224, 3)).astype("f4")
    digits = np.where(random.random((64, 784)) < 0.8, 0, random.random((64, 784))).astype("f4")
    pixels = random.integers(0, 256, (1, 224, 224, 3), np.uint8)
    grey = random.integers(0, 256, (64, 784), np.uint8)
    ids = random.integers(0, 30_000, (128, 512))
    large = random.integers(-(2**62), 2**62, (200, 100))

    def rows(array: Any) -> bytes:
        return orjson.dumps({"instances": array}, option=_NUMPY)

    def spaced(array: Array) -> bytes:
        return json.dumps({"instances": array.tolist()}).encode()

    objects = [{"image": row.tolist(), "number": index} for index, row in enumerate(digits)]
    small = [{"signal": row[:5].tolist(), "sensor": row[5:9].reshape(2, 2).tolist()} for row in random.standard_normal((2000, 9))]
    mixed = [{"tag": "foo", **row} for row in small]
    texts = ["some words of a text that is not very long"] * 4000
    lines = [
        decoded("150k floats, compact", rows(image), [spec("x", image)], lambda t: of_rows(t, "f4")),
        decoded("150k floats, json.dumps", spaced(image), [spec("x", image)], lambda t: of_rows(t, "f4")),
    ]
    text = rows(image)
    first = text[: text.index(b",")]
    lines.append(
        decoded("150k floats, one NaN", text.replace(first, b'{"instances":[[[[NaN', 1), [spec("x", image)], lambda t: of_rows(t, "f4"))
    )
    lines += [
        decoded("64 rows of 784 floats", rows(digits), [spec("x", digits)], lambda t: of_rows(t, "f4")),
        decoded("64 rows of 784 floats, json.dumps", spaced(digits), [spec("x", digits)], lambda t: of_rows(t, "f4")),
        decoded("150k uint8", rows(pixels), [spec("x", pixels)], lambda t: of_rows(t, "u1")),
        decoded("150k uint8, json.dumps", spaced(pixels), [spec("x", pixels)], lambda t: of_rows(t, "u1")),
        decoded("64 rows of 784 uint8", rows(grey), [spec("x", grey)], lambda t: of_rows(t, "u1")),
        decoded("150k uint8 as floats", rows(pixels), [spec("x", image)], lambda t: of_rows(t, "f4")),
        decoded(
            "2 columns of 128 x 512 int64",
            orjson.dumps({"inputs": {"ids": ids, "mask": np.ones_like(ids)}}, option=_NUMPY),
            [spec("ids", ids), spec("mask", ids)],
            lambda t: of_columns(t, "i8"),
        ),
        decoded("20k large int64", rows(large), [spec("x", large)], lambda t: of_rows(t, "i8")),
        decoded("128 x 512 int32", rows(ids), [TensorSpec("x", INT32, (-1, -1))], lambda t: of_rows(t, "i4")),
        decoded(
            "64 objects: 784 floats and a number",
            orjson.dumps({"instances": objects}),
            [TensorSpec("image", FP32, (-1, 784)), TensorSpec("number", INT64, (-1,))],
            of_objects,
        ),
        decoded(
            "2000 objects: 5 and 2x2 floats",
            orjson.dumps({"instances": small}),
            [TensorSpec("signal", FP32, (-1, 5)), TensorSpec("sensor", FP32, (-1, 2, 2))],
            of_objects,
        ),
        decoded(
            "2000 objects: a text, 5 and 2x2 floats",
            orjson.dumps({"instances": mixed}),
            [TensorSpec("tag", BYTES, (-1,)), TensorSpec("signal", FP32, (-1, 5)), TensorSpec("sensor", FP32, (-1, 2, 2))],
            of_objects,
            numeric=False,
        ),
        decoded(
            "4000 texts", orjson.dumps({"instances": texts}), [TensorSpec("x", BYTES, (-1,))], lambda t: of_rows(t, "O"), numeric=False
        ),
        v2_decoded("150k floats", image),
        v2_decoded("150k floats, nested", image, nested=True),
        v2_decoded("64 x 784 floats", digits),
        v2_decoded("150k uint8", pixels),
        v2_decoded("128 x 512 int64", ids),
    ]
    return lines


def encoded(name: str, arrays: dict[str, Array], *, rows: bool) -> Line:
    def tensors() -> list[Tensor]:
        return [Tensor(key, datatype_of(array.dtype) or FP32, array) for key, array in arrays.items()]

    def library() -> object:
        if len(arrays) == 1:
            return orjson.dumps({"predictions": next(iter(arrays.values()))}, option=_NUMPY)
        if not rows:
            return orjson.dumps({"outputs": arrays}, option=_NUMPY)
        lists = {key: array.tolist() for key, array in arrays.items()}
        return orjson.dumps({"predictions": [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]})

    ours = encode.predictions if rows else encode.columns
    return Line(f"TF Serving: {name}", len(ours(tensors())), [lambda: ours(tensors()), library])


def v2_encoded(name: str, array: Array) -> Line:
    tensor = Tensor("y", datatype_of(array.dtype) or FP32, array)

    def library() -> object:
        return orjson.dumps({"outputs": [{"name": "y", "data": array.ravel()}]}, option=_NUMPY)

    def ours() -> object:
        return orjson.dumps({"outputs": [{"name": "y", "data": codec.json_data(tensor, "m")}]})

    return Line(f"V2: {name}", len(ours()), [ours, library])  # type: ignore[arg-type]  # bytes


def encoding() -> list[Line]:
    random = np.random.default_rng(0)
    image = random.standard_normal((1, 224, 224, 3)).astype("f4")
    digits = np.where(random.random((64, 784)) < 0.8, 0, random.random((64, 784))).astype("f4")
    scores = random.random((64, 1000), np.float32)
    pixels = random.integers(0, 256, (1, 224, 224, 3), np.uint8)
    labels = random.integers(0, 1000, 64)
    ids = random.integers(0, 30_000, (128, 512))
    wide = random.standard_normal((2000, 9)).astype("f4")
    odd = scores.copy()
    odd[0, 0] = np.nan
    return [
        encoded("150k floats", {"y": image}, rows=True),
        encoded("64 rows of 784 floats", {"y": digits}, rows=True),
        encoded("64 rows of 1000 scores", {"y": scores}, rows=True),
        encoded("64 rows of 1000 scores, one NaN", {"y": odd}, rows=True),
        encoded("64 rows of 1000 doubles", {"y": random.random((64, 1000))}, rows=True),
        encoded("150k uint8", {"y": pixels}, rows=True),
        encoded("128 x 512 int64, columns", {"y": ids}, rows=False),
        encoded("64 objects: 1000 scores and a label", {"scores": scores, "label": labels}, rows=True),
        encoded(
            "2000 objects: 5 and 2x2 floats", {"signal": wide[:, :5].copy(), "sensor": wide[:, 5:].reshape(-1, 2, 2).copy()}, rows=True
        ),
        encoded("2 columns: 64 x 1000 scores, labels", {"scores": scores, "label": labels}, rows=False),
        v2_encoded("150k floats", image),
        v2_encoded("150k uint8", pixels),
        v2_encoded("128 x 512 int64", ids),
    ]


def run(_models: Models, _options: Options) -> Section:
    section = Section("json", "json: whole bodies through the codecs, in one process")
    for title, lines in (("Decoding", decoding()), ("Encoding", encoding())):
        section.parts += [
            f"### {title}",
            Table(
                ("body", "kB", "us", "MB/s", "orjson and NumPy MB/s", "ratio"),
                [line.cells for line in lines],
            ),
        ]
        numeric = [line for line in lines if line.numeric]
        short = [line for line in numeric if line.speed < GOAL]
        slowest = min(numeric, key=lambda line: line.speed)
        measured = f"{len(numeric) - len(short)} of {len(numeric)} bodies; the slowest {slowest.speed:.0f} MB/s ({slowest.name})"
        section.targets.append(Target(f"{title.lower()} numbers at {GOAL:.0f} MB/s or more", measured, not short))
    return section
