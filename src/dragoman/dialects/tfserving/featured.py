"""Classify and regress of models that know neither: features as inputs, and the outputs that can be meant. Called by classified.py.

A TensorFlow graph says in itself which features it wants; every other model says it by its inputs, each of which takes the feature of its
name. Features that no input asks for are ignored, as TensorFlow's parser does.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from dragoman.core.convert import input_tensors, inwards
from dragoman.core.errors import ServingError, invalid
from dragoman.core.tensors import BF16, BYTES, FP16, FP32, FP64, Form, Rows, Signature, Tensor, Tensors, TensorSpec, Value
from dragoman.dialects.tfserving import messages
from dragoman.dialects.tfserving.examples import Feature, features

_TAKES = {
    "float": ("float", "int64"),
    "bits": ("float", "int64"),
    "int": ("int64",),
    "uint": ("int64",),
    "bool": ("int64",),
    "bytes": ("bytes",),
}
"""Kind of a datatype -> the features it is made of. A whole number is as good as one with a point: only a graph could tell them apart."""
_SCORED = frozenset({FP16, BF16, FP32, FP64})
_CALLED = {"float": "float", "bits": "float", "int": "int64", "uint": "int64", "bool": "int64", "bytes": "string"}


def inputs(examples: Sequence[bytes], signature: Signature, model: str) -> list[Tensors | Rows]:
    """The requests that carry these Examples: one, or one per Example where the model does not batch. Raises INVALID_INPUT."""
    rows = [_row(features(example), signature, index) for index, example in enumerate(examples)]
    if not signature.inputs:
        signature = replace(signature, inputs=tuple(TensorSpec(name, None, None) for name in rows[0]))
    if signature.form is Form.ROWS:
        made = Rows([])
        for row in rows:  # one by one, for a row may have what another has not
            part = inwards(input_tensors([row], replace(signature, batch=True), model), signature, model)
            assert isinstance(part, Rows)
            made.items += part.items
        return [made]
    return [input_tensors(rows, signature, model)] if signature.batch else [input_tensors([row], signature, model) for row in rows]


def _row(given: Mapping[str, Feature], signature: Signature, index: int) -> dict[str, Value]:
    if not signature.inputs:
        return {name: values[0] if len(values) == 1 else values for name, values in given.items()}
    row: dict[str, Value] = {}
    for spec in signature.inputs:
        values = given.get(spec.name)
        if values is not None:
            row[spec.name] = _value(values, spec, signature.batch or signature.form is Form.ROWS, index)
        elif not spec.optional:
            names = ", ".join(messages.cut(name) for name in given) or "none"
            raise invalid(
                f"Feature: {spec.name} (data type: {_called(spec)}) is required but could not be found. Example {index} has {names}; "
                "each input of this model takes the feature of its name"
            )
    return row


def _value(values: Feature, spec: TensorSpec, batch: bool, index: int) -> Value:
    """The value of one row, nested as the input is declared."""
    kind = "bytes" if type(values[0]) is bytes else "int64" if type(values[0]) is int else "float"
    takes = ("float", "int64") if spec.datatype is None else _TAKES.get(spec.datatype.kind, ())
    if kind not in takes:
        raise _misfit(
            spec, index, f"Data types don't match. Data type: {'string' if kind == 'bytes' else kind} but expected type: {_called(spec)}"
        )
    made: Value = values
    if spec.datatype is not None and spec.datatype.kind == "bool":
        if not {0, 1}.issuperset(values):
            raise _misfit(spec, index, "A true or false value is written as 1 or 0")
        made = [value == 1 for value in values]
    if spec.shape is None:
        return made[0] if len(made) == 1 else made
    shape = spec.shape[1:] if batch else spec.shape
    fixed = math.prod(size for size in shape if size >= 0)
    free = sum(size < 0 for size in shape)
    if not (len(made) == fixed if not free else free == 1 and fixed and len(made) % fixed == 0):
        dimensions = ",".join("?" if size < 0 else str(size) for size in shape)
        raise _misfit(spec, index, f"Number of values != expected. Values size: {len(made)} but output shape: [{dimensions}]")
    return np.array(made, object).reshape(shape).tolist() if shape else made[0]


def _misfit(spec: TensorSpec, index: int, text: str) -> ServingError:
    return invalid(f"Key: {spec.name}, Index: {index}. {text}")


def _called(spec: TensorSpec) -> str:
    return "float" if spec.datatype is None else _CALLED.get(spec.datatype.kind, messages.TYPE_NAMES[spec.datatype])


# --- outputs ---


def classes(outputs: Tensors, signature: Signature, model: str) -> tuple[Tensor | None, Tensor | None, tuple[str, ...]]:
    """Labels, scores, and the names of the columns of the scores where the model knows them; at least one of the first two.

    Raises INVALID_INPUT where there is nothing of the kind, or more than one output could be meant.
    """
    # Their names alone say little: a model that is no SavedModel may call one index per example "classes".
    labels = next((each for each in outputs.items if each.name == "classes" and each.datatype is BYTES and each.array.ndim == 2), None)
    scores = next((each for each in outputs.items if each.name == "scores" and each.datatype in _SCORED and each.array.ndim == 2), None)
    if labels is None and scores is None:
        known = {name: spec.labels for name, spec in signature.output_by_name.items() if spec.labels}
        named = [each for each in outputs.items if each.name in known and each.datatype in _SCORED]
        if len(named) == 1:
            return None, named[0], known[named[0].name]
        scored = [each for each in outputs.items if each.datatype in _SCORED]
        told = [each for each in outputs.items if each.datatype is BYTES]
        told = told or [each for each in outputs.items if each.datatype.kind in ("int", "uint")]
        label = _column(told[0]) if len(told) == 1 else None
        if len(scored) == 1:
            score = _column(scored[0])
            labels = label if label is not None and label.array.shape == score.array.shape else None
            # one number per example is no list of classes, unless a label comes with it
            scores = score if labels is not None or scored[0].array.ndim == 2 else None
        elif not scored:
            labels = label
    if labels is None and scores is None:
        names = ", ".join(f"'{each.name}' {messages.shape_text(each.array.shape)}" for each in outputs.items)
        raise invalid(f"Model {model} has no outputs that are classes or scores of [batch_size num_classes]: its outputs are {names}")
    return labels, scores, ()


def _column(tensor: Tensor) -> Tensor:
    """One element per example as the only class of each."""
    return Tensor(tensor.name, tensor.datatype, tensor.array[:, np.newaxis]) if tensor.array.ndim == 1 else tensor


def numbers(outputs: Tensors, model: str) -> Tensor:
    """The one output of one number per example. Raises INVALID_INPUT where there is none, or more than one that could be meant."""
    one_each = [each for each in outputs.items if each.array.ndim == 1 or each.array.shape[1:] == (1,)]
    decimals = [each for each in one_each if each.datatype in _SCORED]
    named = [each for each in decimals if each.name == "outputs"]
    whole = [each for each in one_each if each.datatype.kind in ("int", "uint") and len(outputs.items) == 1]  # else it is a class
    for candidates in (named, decimals, whole):
        if len(candidates) == 1:
            return candidates[0]
    names = ", ".join(f"'{each.name}' {messages.shape_text(each.array.shape)}" for each in outputs.items)
    raise invalid(f"Model {model} has no one output of one number per example, [batch_size] or [batch_size, 1]: its outputs are {names}")
