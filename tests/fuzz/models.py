"""The models that are served while fuzzing: every datatype, shapes of all kinds, several versions, an ensemble, a scikit-learn model."""

import warnings
from pathlib import Path

import numpy as np

from tests.fuzz import tungsten
from tests.models import build

IRIS_CONFIG = """
name: "iris"
platform: "onnxruntime_onnx"
max_batch_size: 16
input [ { name: "X" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [
  { name: "label" data_type: TYPE_INT64 dims: [ 1 ] },
  { name: "probabilities" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "labels.txt" }
]
dynamic_batching { }
version_policy { all { } }
"""
ENSEMBLE_CONFIG = """
name: "twice"
platform: "ensemble"
max_batch_size: 0
input [ { name: "A" data_type: TYPE_INT32 dims: [ -1, 16 ] }, { name: "B" data_type: TYPE_INT32 dims: [ -1, 16 ] } ]
output [ { name: "R" data_type: TYPE_INT32 dims: [ -1, 16 ] } ]
ensemble_scheduling { step [
  { model_name: "sums" model_version: -1
    input_map { key: "INPUT0" value: "A" } input_map { key: "INPUT1" value: "B" }
    output_map { key: "OUTPUT0" value: "sum" } output_map { key: "OUTPUT1" value: "difference" } },
  { model_name: "sums" model_version: -1
    input_map { key: "INPUT0" value: "sum" } input_map { key: "INPUT1" value: "difference" }
    output_map { key: "OUTPUT0" value: "R" } }
] }
"""
DATATYPES = tuple(build.ELEMENTS)
FLOWERS = (np.arange(48, dtype="f8").reshape(12, 4), np.arange(12) % 3)
"""What the scikit-learn model was fitted on: rows and their labels."""


def make(folder: Path) -> Path:
    """A model repository with all of them; returns what `dragoman serve` is to be given."""
    for version in ("1", "3"):
        build.iris(folder / "iris" / version / "model.onnx")
    (folder / "iris" / "config.pbtxt").write_text(IRIS_CONFIG)
    (folder / "iris" / "labels.txt").write_text("setosa\nversicolor\nvirginica\n")
    (folder / "twice" / "1").mkdir(parents=True)
    (folder / "twice" / "config.pbtxt").write_text(ENSEMBLE_CONFIG)
    for datatype in DATATYPES:
        build.identity(folder / f"id_{datatype}" / "1" / "model.onnx", datatype)
    build.identity(folder / "any" / "1" / "model.onnx", "FP32", None)
    build.add_sub(folder / "sums" / "1" / "model.onnx")
    build.identity(folder / "spare" / "1" / "model.onnx", "INT64")
    for name in ("shout", "lookup", "scalar", "optional_input", "fixed_batch"):
        build.BUILDERS[name](folder / name / "1" / "model.onnx")
    _flowers(folder / "flowers" / "1" / "model.skops")
    tungsten.write(folder)
    return folder


def _flowers(path: Path) -> None:
    """A decision tree that has learned FLOWERS by heart."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what scikit-learn and skops say about each other's versions is no matter here
        import skops.io
        from sklearn.tree import DecisionTreeClassifier

        path.parent.mkdir(parents=True)
        skops.io.dump(DecisionTreeClassifier(random_state=0).fit(*FLOWERS), path)
