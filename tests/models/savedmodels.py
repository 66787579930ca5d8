"""SavedModels that tests serve: `path("half_plus_two")` is a version folder, `copy("half_plus_two", base / "1")` one to play with.

Made by TensorFlow in a process of its own (savedmodel_graphs.py), all at once, once per checkout and TensorFlow: asking costs no import. Whoever
comes first makes them and the others wait, in whatever process of the test run.
"""

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from tests.once import made_once

ROOT = Path(__file__).parents[2]

MODELS: Mapping[str, str] = {
    "half_plus_two": "TF Serving's sample, version 123, TensorFlow 1, an asset. serving_default: x FP32 [-1,1] -> y = x/2 + 2. regress_x_to_y and"
    " regress_x_to_y2 (+3): inputs (serialized Examples; feature x, a float) -> outputs. regress_x2_to_y3: inputs FP32 [-1,1] -> outputs"
    " (x2/2 + 3). classify_x_to_y: inputs -> scores [-1,1].",
    "half_plus_three": "TF Serving's sample, TensorFlow 1: serving_default x -> y = x/2 + 3, and tensorflow/serving/regress.",
    "half_plus_two_tf2": "TensorFlow 2: serving_default x FP32 [-1,1] -> y, regress_x_to_y inputs BYTES [-1] -> outputs [-1,1].",
    "tagged": "tag BYTES [-1], signal FP32 [-1,5], sensor FP32 [-1,2,2] -> label BYTES [-1] (tag + '!'), total FP32 [-1] (all numbers).",
    "image": "image_bytes BYTES [-1] (PNG) -> inverted_bytes BYTES [-1] (PNG), mean FP32 [-1] (of the given pixels).",
    "unknown_rank": "x FP32 of any rank -> y = 2x.",
    "picky": "serving_default: x FP32 [-1] -> root, refuses negative numbers. matrix: x FP32 [-1,-1] -> y = x times ones [4,3]."
    " gather: table FP32 [-1], index INT64 [-1] -> values FP32 [-1], refuses indexes outside; its inputs share no dimension.",
    "identities": "x -> y, the same: serving_default FP32 [-1,-1], scalar FP32 []; and for each TensorFlow type one [-1] that has its name, such"
    " as half, bfloat16, complex64, string, qint8. fixed: x FP32 [2,3] -> y FP32 [2], sums.",
    "vocabulary": "words BYTES [-1] -> number INT64 [-1]: zero, one, two by a table in an asset, -1 for other words.",
    "classifier": "TensorFlow 1, of serialized Examples (petal: 2 floats; name: a text, ''; count: an integer, 1). serving_default: classify,"
    " classes [-1,3] and scores [-1,3]. classes_only, regress ([-1], sum of petal), count (regress), name (predict). Broken on purpose:"
    " classify_flat [-1], classify_short [1,3], regress_wide [-1,3], regress_short [1].",
    "iris": "One file, without variables: x FP32 [-1,4] -> label INT64 [-1], probabilities FP32 [-1,3], as build.iris, TensorFlow 1.",
    "keras_dense": "As Keras exports it, with signatures serve and serving_default: features FP32 [-1,3] -> output_0 FP32 [-1,2], their sum, twice.",
    "slow": "rounds INT64 [-1] -> done, the same, after as many products of 256x256 matrices as the largest says.",
    "train_only": "TensorFlow 1, tagged train and gpu instead of serve: x FP32 [-1] -> y = 3x.",
    "missing_op": "half_plus_three with an operation that no TensorFlow has.",
}
"""Name -> what it does."""

FLOWERS = ("setosa", "versicolor", "virginica")
"""The classes of `classifier`."""
_LARGE = ("resnet",)
"""Not made unless somebody asks for it: keras_tensor FP32 [-1,224,224,3] -> output_0 FP32 [-1,1000], 100 MB of random weights, for benchmarks."""


def path(name: str) -> Path:
    """The version folder of a model: read-only by agreement. Its parent is a base path that holds this one version."""
    if name in _LARGE:
        return version_folder(_built((name,)), name)
    return version_folder(_built(tuple(MODELS)), name)


def copy(name: str, target: Path) -> Path:
    """A model copied to a version folder of one's own, which appears at once, complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_name(f".{target.name}.half")
    shutil.copytree(path(name), half)
    return half.rename(target)


def version_folder(root: Path, name: str) -> Path:
    return root / name / ("00000123" if name == "half_plus_two" else "1")


@cache
def _built(names: tuple[str, ...]) -> Path:
    here = Path(__file__)
    digest = hashlib.sha256(here.read_bytes() + here.with_name("savedmodel_graphs.py").read_bytes() + _tensorflow().encode())
    digest.update(" ".join(names).encode())
    folder = ROOT / ".models" / f"savedmodels-{digest.hexdigest()[:12]}"

    def make(folder: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "tests.models.savedmodel_graphs", str(folder), *names],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith("COV_")},
        )
        assert done.returncode == 0, f"the SavedModels cannot be made: {done.stderr[-4000:]}"

    return made_once(folder, make)


def _tensorflow() -> str:
    for package in ("tensorflow-cpu", "tensorflow"):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise AssertionError("no TensorFlow is installed")


def add_warmup(version: Path, requests: Sequence[bytes]) -> Path:
    """The file of warm-up requests beside a SavedModel: a TFRecord of serialized `tensorflow.serving.PredictionLog`. Returns it."""
    file = version / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir()
    lengths = [len(request).to_bytes(8, "little") for request in requests]
    file.write_bytes(b"".join(size + _masked(size) + data + _masked(data) for size, data in zip(lengths, requests, strict=True)))
    return file


def _masked(data: bytes) -> bytes:
    """The CRC-32C of some bytes, as TFRecord disguises it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")
