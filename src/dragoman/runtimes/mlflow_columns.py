"""A model of another runtime behind the columns of MLflow's signature: named tensors in, the matrix or tensors that the model takes out.

bind(model, spec) -> Model. Called by mlflow.py. The order of columns is the signature's, unless the model knows the names that it was
trained on: then it is theirs, so that a signature in another order cannot give wrong answers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from dragoman.core.errors import ServingError, invalid
from dragoman.core.model import Call, Model, ModelSpec
from dragoman.core.tensors import BYTES, FP64, Array, Datatype, Rows, Signature, Tensor, Tensors, TensorSpec, datatype_of
from dragoman.runtimes import arrays
from dragoman.runtimes.refusals import no_output, takes_tensors

Given = Mapping[str, Tensor]
Gather = Callable[[Given], list[Tensor]]
"""Columns by name to the model's own inputs."""

MATRIX = "matrix"
"""The signature under which the model takes its one matrix as it is, beside the columns."""


def bind(model: Model, spec: ModelSpec, *, columns: bool) -> Model:
    """The model with the declared inputs and outputs. Raises INVALID_INPUT where the columns are not what the model takes."""
    declared, own = spec.signature, model.signatures[""]
    if declared is None:
        return model
    outputs = _Answers(own.outputs, declared.outputs, spec.name)
    if not columns:
        inputs, gather = _as_is(declared.inputs, own.inputs)
        signature = replace(own, inputs=inputs, outputs=outputs.specs, reads=declared.reads)
        return _Bound(model, spec.name, {"": signature}, {"": gather}, outputs)
    gather, matrix = _gather(model, declared.inputs, own, spec.name)
    signatures = {"": Signature(inputs=declared.inputs, outputs=outputs.specs, batch=own.batch, reads=declared.reads)}
    gathers: dict[str, Gather | None] = {"": gather}
    if matrix:
        signatures[MATRIX] = replace(own, outputs=outputs.specs, reads=declared.reads)
        gathers[MATRIX] = None
    return _Bound(model, spec.name, signatures, gathers, outputs)


def fits(model: Model, columns: tuple[TensorSpec, ...]) -> bool:
    """Whether these columns make the model's inputs."""
    try:
        _gather(model, columns, model.signatures[""], "")
    except ServingError:
        return False
    return True


class _Bound:
    operations = frozenset({"predict"})

    def __init__(
        self, model: Model, name: str, signatures: Mapping[str, Signature], gathers: Mapping[str, Gather | None], outputs: "_Answers"
    ) -> None:
        self._model = model
        self._name = name
        self._gathers = gathers
        self._outputs = outputs
        self.signatures = signatures
        self.platform = model.platform
        self.concurrent = model.concurrent

    def predict(self, call: Call) -> Tensors | Rows:
        inputs, gather = call.inputs, self._gathers[call.signature]
        if gather is not None:
            if isinstance(inputs, Rows):
                raise takes_tensors(self._name)
            given = {tensor.name: tensor for tensor in inputs.items}
            inputs = Tensors(gather(given))
        answers = self._model.predict(Call(inputs, "predict", "", self._outputs.wanted(call.outputs), call.parameters))
        return self._outputs.named(answers, call.outputs) if isinstance(answers, Tensors) else answers

    def close(self) -> None:
        self._model.close()


def length_of(given: Given, specs: Sequence[TensorSpec], model: str) -> int:
    """How many rows the columns have. Raises INVALID_INPUT, naming the column that is unknown, missing, or of another length or shape."""
    first = ""
    length = 0
    known = 0
    for spec in specs:
        tensor = given.get(spec.name)
        if tensor is None:
            if not spec.optional:
                raise invalid(f"column '{spec.name}' of model '{model}' is missing")
            continue
        known += 1
        size = tensor.array.size
        if not tensor.array.ndim or size != len(tensor.array):
            raise invalid(f"column '{spec.name}' of model '{model}' has shape {list(tensor.array.shape)}, expected one value per row")
        if first and size != length:
            raise invalid(f"the columns of model '{model}' disagree: '{spec.name}' has {size} rows, '{first}' has {length}")
        first, length = first or spec.name, size
    if known < len(given):
        unknown = next(name for name in given if all(spec.name != name for spec in specs))
        raise invalid(f"model '{model}' has no column '{unknown}'")
    if not first:
        raise invalid(f"model '{model}' needs at least one of its columns")
    return length


# --- inputs ---


def _as_is(declared: Sequence[TensorSpec], own: Sequence[TensorSpec]) -> tuple[tuple[TensorSpec, ...], Gather | None]:
    """A signature of tensors: the model's own inputs, a single one under the name that the signature gives it."""
    if len(declared) != 1 or len(own) != 1 or declared[0].name == own[0].name:
        return tuple(own), None
    name, inner = declared[0].name, own[0].name

    def renamed(given: Given) -> list[Tensor]:
        return [Tensor(inner if t.name == name else t.name, t.datatype, t.array) for t in given.values()]

    return (replace(own[0], name=name),), renamed


def _gather(model: Model, columns: tuple[TensorSpec, ...], own: Signature, name: str) -> tuple[Gather, bool]:
    """How the columns become the model's inputs, and whether these are one matrix."""
    names = {spec.name for spec in columns}
    if all(spec.name in names for spec in own.inputs):
        return _one_each(columns, own.inputs, name), False
    if len(own.inputs) == 1:
        target = own.inputs[0]
        shape = target.shape or ()
        if target.datatype is BYTES and len(columns) == 1 and columns[0].native == "string":
            return _alone(columns, target, name), False
        if len(shape) == 2 and shape[1] in (-1, len(columns)) and target.datatype is not BYTES:
            text = next((spec.name for spec in columns if spec.datatype is BYTES), None)
            if text is None:
                return _stacked(_ordered(columns, getattr(model, "feature_names", ())), columns, target, name), True
            raise _unfit(name, f"column '{text}' is text, and the model takes one matrix of numbers")
    shown = ", ".join(f"'{spec.name}'" for spec in columns[:10])
    wanted = ", ".join(f"'{spec.name}' {'' if spec.shape is None else list(spec.shape)}" for spec in own.inputs[:10])
    raise _unfit(name, f"its columns {shown} do not make the inputs {wanted}")


def _unfit(model: str, why: str) -> ServingError:
    return invalid(f"the MLflow signature of model '{model}' does not fit its file: {why}", what="model")


def _ordered(columns: Sequence[TensorSpec], trained: Sequence[str]) -> list[TensorSpec]:
    by_name = {spec.name: spec for spec in columns}
    return [by_name[name] for name in trained] if by_name.keys() == set(trained) else list(columns)


def _stacked(order: Sequence[TensorSpec], columns: Sequence[TensorSpec], target: TensorSpec, model: str) -> Gather:
    def gather(given: Given) -> list[Tensor]:
        length = length_of(given, columns, model)
        parts = [_numbers(given.get(spec.name), spec, length, model) for spec in order]
        return [_cast(target, np.stack(parts, axis=1))]

    return gather


def _one_each(columns: Sequence[TensorSpec], targets: Sequence[TensorSpec], model: str) -> Gather:
    """For models with an input per column: pipelines that choose columns by name, ONNX graphs of the same form."""
    specs = {spec.name: spec for spec in columns}

    def gather(given: Given) -> list[Tensor]:
        length = length_of(given, columns, model)
        made = []
        for target in targets:
            tensor = given.get(target.name)
            if tensor is not None and tensor.datatype is BYTES:
                made.append(Tensor(target.name, BYTES, _shaped(tensor.array, target)))
            else:
                array = _numbers(tensor, specs[target.name], length, model)
                made.append(_cast(target, _shaped(array, target)))
        return made

    return gather


def _alone(columns: Sequence[TensorSpec], target: TensorSpec, model: str) -> Gather:
    name = columns[0].name

    def gather(given: Given) -> list[Tensor]:
        length_of(given, columns, model)
        return [Tensor(target.name, BYTES, _shaped(given[name].array, target))]

    return gather


def _numbers(tensor: Tensor | None, spec: TensorSpec, length: int, model: str) -> Array:
    if tensor is None:
        return np.full(length, np.nan)
    if tensor.datatype is not spec.datatype:
        raise invalid(f"column '{spec.name}' of model '{model}' is {tensor.datatype}, expected {spec.datatype}")
    return arrays.numbers(tensor, model).reshape(length)


def _shaped(array: Array, target: TensorSpec) -> Array:
    return array.reshape(len(array), *[1] * (len(target.shape) - 1)) if target.shape is not None else array


def _cast(target: TensorSpec, array: Array) -> Tensor:
    datatype: Datatype = target.datatype or datatype_of(array.dtype) or FP64
    return Tensor(target.name, datatype, np.ascontiguousarray(array, datatype.numpy))


# --- outputs ---


class _Answers:
    """The model's outputs under the names that the signature gives them; one matrix may be several named columns."""

    def __init__(self, own: Sequence[TensorSpec], declared: Sequence[TensorSpec], model: str) -> None:
        self._model = model
        self._source: dict[str, tuple[str, int]] = {}
        """Name -> the model's own name, and the column of it, -1 for all of it."""
        by_name = {spec.name: spec for spec in own}
        names = [spec.name for spec in declared]
        specs = [by_name.get(name) for name in names]
        if names and None not in specs:
            self.specs = tuple(spec for spec in specs if spec is not None)
        elif len(own) == 1 and len(names) == 1:
            self.specs = (replace(own[0], name=names[0]),)
            self._source[names[0]] = own[0].name, -1
        elif len(own) == 1 and len(names) > 1 and own[0].shape is not None and own[0].shape[1:] == (len(names),):
            self.specs = tuple(TensorSpec(name, own[0].datatype, (-1,)) for name in names)
            self._source.update((name, (own[0].name, index)) for index, name in enumerate(names))
        else:
            self.specs = tuple(own)
        for spec in self.specs:
            self._source.setdefault(spec.name, (spec.name, -1))

    def wanted(self, names: Sequence[str]) -> tuple[str, ...]:
        """The model's own names of these outputs, of all without any."""
        for name in names:
            if name not in self._source:
                raise no_output(self._model, name)
        return tuple(dict.fromkeys(self._source[name][0] for name in names or self._source))

    def named(self, answers: Tensors, names: Sequence[str]) -> Tensors:
        by_name = {tensor.name: tensor for tensor in answers.items}
        made = []
        for name in names or self._source:
            source, index = self._source[name]
            tensor = by_name[source]
            array = tensor.array if index < 0 else np.ascontiguousarray(tensor.array[:, index])
            made.append(Tensor(name, tensor.datatype, array))
        return Tensors(made)
