"""In which shape a model answers: as MLflow's flavors do for models that it logged, else as the request was shaped."""

import json
from typing import Any

import numpy as np
import pytest

from dragoman.core import tensors as t
from dragoman.core.model import ModelSpec
from dragoman.core.tensors import Signature, Tensor, Tensors, TensorSpec
from dragoman.dialects.mlflow.scoring_answers import Shape, predictions, shape_of


def spec(**facts: Any) -> ModelSpec:
    return ModelSpec(name="m", version="1", runtime="mlflow", artifact="", arguments={"mlflow": facts} if facts else {})


def taking(native: str) -> Signature:
    return Signature(inputs=(TensorSpec("a", t.FP64, (-1,), native=native),))


@pytest.mark.parametrize(
    ("facts", "native", "of_table", "of_lists"),
    [
        ({}, "", Shape.RECORDS, Shape.LISTS),
        ({"runtime": "sklearn"}, "", Shape.RECORDS, Shape.LISTS),
        ({"flavor": "python_function"}, "double", Shape.RECORDS, Shape.RECORDS),
        ({"flavor": "python_function"}, "tensor", Shape.LISTS, Shape.LISTS),
        ({"runtime": "onnx"}, "", Shape.NAMED, Shape.NAMED),
        ({"runtime": "onnx"}, "tensor", Shape.NAMED, Shape.NAMED),
        ({"runtime": "onnx"}, "double", Shape.RECORDS, Shape.RECORDS),
    ],
)
def test_shapes(facts: dict[str, Any], native: str, of_table: Shape, of_lists: Shape) -> None:
    """Columns answer a table, tensors and ONNX arrays by name; a model that was not logged answers as it was asked."""
    made = spec(**facts)
    assert shape_of(made, taking(native), table=True) is of_table
    assert shape_of(made, taking(native), table=False) is of_lists


def test_one_output_and_several() -> None:
    """A single output is bare but for models that always name theirs."""
    one = Tensors([Tensor("y", t.FP32, np.array([1.5, np.nan], np.float32))])
    two = Tensors([Tensor("y", t.FP32, np.array([1.5], np.float32)), Tensor("z", t.INT64, np.array([2]))])
    bodies = {shape: [json.loads(predictions(each, "m", shape))["predictions"] for each in (one, two)] for shape in Shape}
    assert bodies == {
        Shape.RECORDS: [[1.5, None], [{"y": 1.5, "z": 2}]],
        Shape.LISTS: [[1.5, None], {"y": [1.5], "z": [2]}],
        Shape.NAMED: [{"y": [1.5, None]}, {"y": [1.5], "z": [2]}],
    }
