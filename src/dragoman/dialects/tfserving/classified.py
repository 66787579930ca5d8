"""Classify and regress, for both doors of this protocol: serialized Examples in, scored labels or numbers out. Called by rest.py and grpc.py.

A signature that a SavedModel brought is run by TensorFlow Serving's rules, under its texts. For any other model the features become its
inputs (featured.py), and the answer is looked for among its outputs: `classes` and `scores` or `outputs`, else the only ones that can be meant.
"""

import math
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from dragoman.core.convert import output_tensors
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import InferRequest
from dragoman.core.tensors import BF16, BYTES, FP32, Array, Form, Rows, Signature, Tensor, Tensors, widened
from dragoman.dialects import rows
from dragoman.dialects.tfserving import featured, messages
from dragoman.dialects.tfserving.answers import DEFAULT_SIGNATURE
from dragoman.serving.gateway import Entry, Gateway

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
PREDICT = "tensorflow/serving/predict"

_INPUTS, _CLASSES, _SCORES, _OUTPUTS = "inputs", "classes", "scores", "outputs"

Classes: TypeAlias = list[tuple[str, float]]
"""Label and score of each class of one Example; floats hold float32 values, for that is what the protocol has."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On whose behalf, until when (monotonic, seconds) and for which row of the metrics Examples are run.

    With `check_method` a signature that names another method is refused.
    """

    caller: str = ""
    deadline: float = math.inf
    dialect: str = "tfserving"
    check_method: bool = False


async def classify(gateway: Gateway, entry: Entry, key: str, examples: Sequence[bytes], terms: Terms) -> list[Classes]:
    """The classes of each Example by signature `key`, in order. Labels are "" and scores 0.0 where the model has none.

    `examples` holds at least one. The caller has just found the entry: nothing was awaited since. Raises INVALID_INPUT in TensorFlow
    Serving's words, and what Gateway.infer raises.
    """
    signature = entry.signatures[key]
    strict = _parses(signature)
    if strict:
        _check_classify(signature, terms.check_method)
    outputs = await _run(gateway, entry, key, examples, terms, strict)
    if strict:
        labels, scores = outputs.get(_CLASSES), outputs.get(_SCORES)
        if labels is None and scores is None:
            raise _silent(entry.name, f"{_CLASSES}' or '{_SCORES}")
        _check_type(labels, "classes", "DT_STRING", bytes_wanted=True)
        _check_type(scores, "scores", "DT_FLOAT")
        names: tuple[str, ...] = ()
    else:
        labels, scores, names = featured.classes(outputs, signature, entry.name)
    return _classes(labels, scores, names, len(examples))


async def regress(gateway: Gateway, entry: Entry, key: str, examples: Sequence[bytes], terms: Terms) -> list[float]:
    """One number per Example by signature `key`, in order. Contract as of `classify`."""
    signature = entry.signatures[key]
    strict = _parses(signature)
    if strict:
        _check_regress(signature, terms.check_method)
    outputs = await _run(gateway, entry, key, examples, terms, strict)
    if strict:
        found = outputs.get(_OUTPUTS)
        if found is None:
            raise _silent(entry.name, _OUTPUTS)
        _check_type(found, "output", "DT_FLOAT")
    else:
        found = featured.numbers(outputs, entry.name)
    shape = found.array.shape
    if len(shape) not in (1, 2) or shape[1:] not in ((), (1,)):
        raise invalid(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {_shape(found)} (output '{found.name}')"
        )
    _check_length(found, len(examples))
    values: list[float] = _floats(found).reshape(len(examples)).tolist()
    return values


async def multi(
    gateway: Gateway,
    entry: Entry,
    tasks: Sequence[tuple[str, str]],
    examples: Sequence[bytes],
    terms: Terms,
) -> list[list[Classes] | list[float]]:
    """The answers of several signatures to the same Examples, in order; a task is (key, method name). Contract as of `classify`.

    Raises INVALID_INPUT for a signature that is asked twice, UNSUPPORTED for a method that is neither CLASSIFY nor REGRESS; the first failure
    of a task is that of all.
    """
    for index, (key, method) in enumerate(tasks):
        if key in [each for each, _ in tasks[:index]]:
            raise invalid(f"Duplicate evaluation of signature: {messages.cut(key or DEFAULT_SIGNATURE)}", "signature")
        if method not in (CLASSIFY, REGRESS):
            raise ServingError(Kind.UNSUPPORTED, f"Unsupported signature method_name: {messages.cut(method)}", what="operation")
    answers: list[list[Classes] | list[float]] = []
    with entry.held():  # so that it is there for the last task, too
        for key, method in tasks:
            ask = classify if method == CLASSIFY else regress
            answers.append(await ask(gateway, entry, key, examples, terms))
    return answers


def check_predict(signature: Signature) -> None:
    """The method name check of predict, where it is switched on. A signature that names no method is this server's own."""
    if signature.method not in ("", PREDICT):
        raise invalid(f"Expected prediction signature method_name to be {PREDICT}. Was: {messages.cut(signature.method)}", "signature")


# --- running ---


def _parses(signature: Signature) -> bool:
    """Whether serialized Examples are what a signature is fed: it comes from a SavedModel, or looks like one of those."""
    specs = signature.inputs
    return bool(signature.method) or (len(specs) == 1 and specs[0].name == _INPUTS and specs[0].datatype is BYTES)


async def _run(gateway: Gateway, entry: Entry, key: str, examples: Sequence[bytes], terms: Terms, strict: bool) -> Tensors:
    signature = entry.signatures[key]

    def ask(inputs: Tensors | Rows) -> Awaitable[Tensors]:
        request = InferRequest(
            inputs, signature=key, deadline=terms.deadline, caller=terms.caller, strict=not strict, dialect=terms.dialect
        )
        return _answer(gateway, entry, request, signature)

    if strict:
        serialized: Array = np.empty(len(examples), object)
        serialized[:] = examples
        return await ask(Tensors([Tensor(_INPUTS, BYTES, serialized)]))
    requests = featured.inputs(examples, signature, entry.name)
    if signature.batch or signature.form is Form.ROWS:
        return await ask(requests[0])
    with entry.held():
        return _stacked([await ask(each) for each in requests])


async def _answer(gateway: Gateway, entry: Entry, request: InferRequest, signature: Signature) -> Tensors:
    return output_tensors((await rows.infer(gateway, entry, request)).outputs, signature, entry.name)


def _stacked(answers: Sequence[Tensors]) -> Tensors:
    """The answers of a model that does not batch, along a first axis that they have not."""
    names = [tensor.name for tensor in answers[0].items]
    columns = [[each for answer in answers if (each := answer.get(name)) is not None] for name in names]
    if any(len({each.array.shape for each in column}) != 1 or len(column) != len(answers) for column in columns):
        raise ServingError(Kind.MODEL_FAILED, "the model answered different shapes for the examples of one request", what="model")
    return Tensors([Tensor(column[0].name, column[0].datatype, np.stack([each.array for each in column])) for column in columns])


def _silent(model: str, output: str) -> ServingError:
    return ServingError(
        Kind.MODEL_FAILED, f"model '{model}' did not answer the output '{output}' that its signature declares", what="model"
    )


# --- what a signature must be ---


def _check_classify(signature: Signature, check_method: bool) -> None:
    _check_inputs(signature, "classification", CLASSIFY, check_method)
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}", "signature")
    if signature.output_by_name.keys().isdisjoint((_CLASSES, _SCORES)):
        raise invalid(
            f'Expected classification signature outputs to contain at least one of: "{_CLASSES}", "{_SCORES}". '
            f"Signature was: {_text(signature)}",
            "signature",
        )


def _check_regress(signature: Signature, check_method: bool) -> None:
    _check_inputs(signature, "regression", REGRESS, check_method)
    if len(signature.outputs) != 1:
        raise invalid("Expected one output Tensor.", "signature")
    if _OUTPUTS not in signature.output_by_name:
        raise invalid(f"No regression outputs found in SignatureDef: {_text(signature)}", "signature")


def _check_inputs(signature: Signature, what: str, method: str, check_method: bool) -> None:
    if check_method and signature.method and signature.method != method:
        raise invalid(f"Expected {what} signature method_name to be {method}. Was: {messages.cut(signature.method)}", "signature")
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.", "signature")
    if _INPUTS not in signature.input_by_name:
        raise invalid(f"No {what} inputs found in SignatureDef: {_text(signature)}", "signature")


def _text(signature: Signature) -> str:
    """A signature in a message."""
    names = [", ".join(spec.name for spec in specs) for specs in (signature.inputs, signature.outputs)]
    return messages.cut(f"inputs: {names[0]}; outputs: {names[1]}; method_name: {signature.method}")


# --- what they say ---


def _classes(labels: Tensor | None, scores: Tensor | None, names: tuple[str, ...], count: int) -> list[Classes]:
    shown = [each for each in (labels, scores) if each is not None]
    for tensor in shown:
        if tensor.array.ndim != 2:
            raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(tensor)} (output '{tensor.name}')")
        _check_length(tensor, count)
    if len({tensor.array.shape for tensor in shown}) != 1:
        told = " and ".join(f"{_shape(tensor)} of '{tensor.name}'" for tensor in shown)
        raise invalid(f"Number of classes in the scores and the labels does not match: {told}")
    width = shown[0].array.shape[1]
    numbers = [[0.0] * width] * count if scores is None else _floats(scores).tolist()
    if labels is not None:
        texts = [[_label(each) for each in row] for row in labels.array.tolist()]
    else:
        texts = [list(names) if len(names) == width else [""] * width] * count
    return [list(zip(row, of_row, strict=True)) for row, of_row in zip(texts, numbers, strict=True)]


def _label(value: bytes | float) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _floats(tensor: Tensor) -> Array:
    """The elements as float32, the only numbers that these answers have."""
    array = widened(tensor.array) if tensor.datatype is BF16 else tensor.array
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _check_type(tensor: Tensor | None, name: str, expected: str, *, bytes_wanted: bool = False) -> None:
    if tensor is not None and tensor.datatype is not (BYTES if bytes_wanted else FP32):
        raise invalid(f"Expected {name} Tensor of {expected}. Got: DT_{messages.TYPE_NAMES[tensor.datatype].upper()}", "signature")


def _check_length(tensor: Tensor, count: int) -> None:
    if tensor.array.shape[0] != count:
        raise invalid(f"Input batch size did not match output batch size: {count} vs. {tensor.array.shape[0]} (output '{tensor.name}')")


def _shape(tensor: Tensor) -> str:
    return messages.shape_text(tensor.array.shape)
