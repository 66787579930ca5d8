"""MLRun's way to ask: `inputs` as plain lists, `outputs` as plain values. What it means for each form of model, and back.

`requested` turns such inputs into the request of any model and `plain_outputs` any model's answer into such outputs: MLRun's dialect,
streams, routers and explainers call them. The other way round, models that take a whole request as one event (Signature.whole) are called by
protocols of tensors and rows: `points_of`, `whole_request`, `answered_rows` and `answered_tensors`. Pure.

An event is a dict: `body` (what the protocol parsed, or a Blob), `id` (what the client gave, any JSON, else a fresh text), `path`, `method`,
`headers`, `content_type` and `trigger` ("http", "kafka", ...); the request's operation is the operation.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import numpy as np

from dragoman.core.convert import input_tensors, output_rows, output_tensors
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import EMPTY, InferRequest
from dragoman.core.rows import checked, row_schema
from dragoman.core.tensors import BYTES, Form, Reply, Rows, Signature, Tensor, Tensors, TensorSpec, Value, datatype_of
from dragoman.core.values import jsonable

INFER = frozenset({"infer", "predict", "infer_dict", "predict_dict"})
"""Operations that run predict. Those with _dict name the features of each data point."""
BY_NAME = frozenset({"infer_dict", "predict_dict"})


def event(
    body: Value,
    *,
    id: Value = None,  # noqa: A002 # the name in the event
    path: str = "",
    method: str = "POST",
    headers: Mapping[str, str] = EMPTY,
    content_type: str = "",
    trigger: str = "http",
) -> dict[str, Value]:
    """The one row of a request to a model of whole requests."""
    given = id if id is not None else uuid4().hex
    made = {"body": body, "id": given, "path": path, "method": method, "trigger": trigger}
    return {**made, "headers": dict(headers), "content_type": content_type}


def stamp(since_s: float) -> str:
    """A moment (seconds since the epoch) as MLRun writes it: `2026-01-31 12:00:00.000000+00:00`."""
    return datetime.fromtimestamp(since_s, UTC).isoformat(" ", "microseconds")


# --- plain lists for any model ---


def features(signature: Signature) -> list[str]:
    """The names of a data point's features in their order; empty when the model does not name them."""
    if signature.whole and not described(signature):
        return []
    if signature.form is Form.ROWS:
        return list(row_schema(signature).get("properties", ()))
    return [spec.name for spec in signature.inputs]


def described(signature: Signature) -> bool:
    """Whether a model of whole requests has a schema: else its one input stands for a data point of any form."""
    return [(spec.datatype, spec.shape) for spec in signature.inputs] != [(None, None)]


def listed(inputs: Value, names: Sequence[str], model: str) -> list[Value]:
    """The data points of infer_dict as lists in the order of the schema (M10-M12): one object is one flat list, extra keys are dropped.

    Raises INVALID_INPUT without a schema, for a key that is missing, and for any other form.
    """
    if not names:
        raise invalid(
            f"model '{model}' names no features, so it cannot take them by name: its model_path needs a model_spec.yaml with inputs"
        )
    if isinstance(inputs, dict):
        return _listed(inputs, names, model, "the data point")
    if not isinstance(inputs, list):
        raise invalid(f"the inputs of infer_dict for model '{model}' must be a list of objects, not {_json_type(inputs)}")
    return [_listed(point, names, model, f"data point {index}") for index, point in enumerate(inputs)]


def by_name(inputs: Value, names: Sequence[str], model: str) -> list[Value]:
    """The same as objects of just these features, for models that take no lists. Raises as `listed` does."""
    lists = listed(inputs, names, model)
    return [dict(zip(names, point, strict=True)) for point in ([lists] if isinstance(inputs, dict) else lists)]


def _listed(point: Value, names: Sequence[str], model: str, where: str) -> list[Value]:
    if not isinstance(point, dict):
        raise invalid(f"{where} for model '{model}' must be an object with the features {_quoted(names)}, not {_json_type(point)}")
    missing = [name for name in names if name not in point]
    if missing:
        raise invalid(f"{where} for model '{model}' lacks {_quoted(missing)}; its features are {_quoted(names)}")
    return [point[name] for name in names]


def requested(inputs: Value, signature: Signature, model: str) -> Tensors | Rows:
    """Plain inputs in the form that a model of tensors or rows wants. Raises INVALID_INPUT.

    A list of data points, each a list in the order of the features, an object by their names or, for a single feature, its bare value. A
    flat list is one data point where a data point has several features or is itself a list (M8).
    """
    if not isinstance(inputs, list):
        raise invalid(f"the inputs for model '{model}' must be a list, not {_json_type(inputs)}")
    names = features(signature)
    points = [inputs] if _is_point(inputs, signature, names) else inputs
    if not points:
        raise invalid(f"the request for model '{model}' has no data point")
    rows = [_row(point, signature, names, index, model) for index, point in enumerate(points)]
    if signature.form is Form.ROWS:
        return Rows(checked(rows, signature, model))
    single = {spec.name for spec in signature.inputs if spec.shape is not None and spec.shape[signature.batch :] == (1,)}
    return input_tensors([_boxed(row, single) for row in rows] if single else rows, signature, model)


def _boxed(row: Value, single: Collection[str]) -> Value:
    """A column of shape [n, 1], as tables have them, takes a bare value as its one."""
    if not isinstance(row, dict):
        return row
    return {name: [value] if name in single and not isinstance(value, list) else value for name, value in row.items()}


def _is_point(inputs: list[Value], signature: Signature, names: Sequence[str]) -> bool:
    if not inputs or any(isinstance(value, dict) for value in inputs):
        return False
    flat = not any(isinstance(value, list) for value in inputs)
    if len(names) > 1:
        return flat
    if signature.form is Form.ROWS:
        field = row_schema(signature).get("properties", {}).get(names[0], {}) if names else {}
        return flat and field.get("type") == "array"
    spec = signature.inputs[0] if signature.inputs else None
    if not signature.batch:
        return True
    return flat and spec is not None and spec.shape is not None and len(spec.shape) > 1


def _row(point: Value, signature: Signature, names: Sequence[str], index: int, model: str) -> Value:
    if isinstance(point, dict):
        if len(names) == 1 and names[0] not in point and signature.form is Form.TENSORS:
            raise invalid(f"data point {index} for model '{model}' lacks '{names[0]}'")
        return point
    if len(names) < 2:
        alone = type(point) is list and len(point) == 1 and _is_scalar(signature, names)
        return {names[0]: point[0] if alone else point} if names else point
    if not isinstance(point, list):
        raise invalid(f"data point {index} for model '{model}' must be a list of its {len(names)} features, not {_json_type(point)}")
    if len(point) != len(names):
        raise invalid(
            f"data point {index} for model '{model}' has {len(point)} values, expected the {len(names)} features {_quoted(names)}"
        )
    return dict(zip(names, point, strict=True))


def _is_scalar(signature: Signature, names: Sequence[str]) -> bool:
    """Whether a data point of the one feature is a single value, so that [value] is the point as a list of its features."""
    if signature.form is Form.ROWS:
        return names[:1] != [] and row_schema(signature)["properties"][names[0]].get("type") in _SCALARS
    shape = signature.inputs[0].shape
    return signature.batch and shape is not None and len(shape) == 1


_SCALARS = frozenset({"number", "integer", "string", "boolean"})


def plain_outputs(outputs: Tensors | Rows, signature: Signature, model: str) -> Value:
    """An answer as MLRun's `outputs`: one value per data point, an object by name where there are several outputs; JSON types only.

    Of a Reply its `outputs`, or the whole of it where it has none. Raises MODEL_FAILED for an answer that cannot be cut into data points.
    """
    if isinstance(outputs, Rows) and len(outputs.items) == 1 and isinstance(outputs.items[0], Reply):
        return jsonable(reply_outputs(outputs.items[0], model))
    if isinstance(outputs, Tensors) and len(outputs.items) == 1 and outputs.items[0].datatype is not BYTES:
        return jsonable(outputs.items[0].array)
    rows = output_rows(outputs, signature, model)
    return [jsonable(next(iter(row.values())) if isinstance(row, dict) and len(row) == 1 else row) for row in rows]


# --- models of whole requests behind other protocols ---


def points_of(inputs: Tensors | Rows, signature: Signature) -> list[Value]:
    """The data points of a request of another protocol.

    One tensor as it is nested; several cut along their first axis, in the order of the features if those are their names, else as they
    came. A row by the names of the features becomes a list, a row of one field its value; a single feature that is a list is the point.
    """
    names = features(signature)
    if isinstance(inputs, Rows):
        return [_point(row, names) for row in inputs.items]
    columns = {tensor.name: _column(tensor.array.tolist()) for tensor in inputs.items}
    if len(columns) == 1:
        (only,) = columns.values()
        return only if isinstance(only, list) else [only]
    ordered = [columns[name] for name in names] if set(names) == set(columns) else list(columns.values())
    if not all(isinstance(each, list) and len(each) == len(ordered[0]) for each in ordered):
        return ordered
    return [[_only(cell) for cell in cells] for cells in zip(*ordered, strict=True)]


def named_point(point: Value, signature: Signature) -> Value:
    """A data point of a model of whole requests as a row by its schema: a list of its several features as the object by name, and where there
    is no schema an object as the only field. Anything else as it is."""
    if not signature.whole:
        return point
    names = features(signature)
    if type(point) is dict and not names and signature.inputs and signature.inputs[0].name not in point:
        return {signature.inputs[0].name: point}
    if type(point) is not list:
        return point
    return dict(zip(names, point, strict=True)) if len(names) > 1 and len(point) == len(names) else point


def _point(row: Value, names: Sequence[str]) -> Value:
    if not isinstance(row, dict):
        return row
    if names and set(row) == set(names):
        point = [row[name] for name in names]
        return point[0] if len(point) == 1 and isinstance(point[0], list) else point
    return next(iter(row.values())) if len(row) == 1 else row


def _column(value: Any) -> Value:
    if isinstance(value, list):
        return [_column(item) for item in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    return value


def _only(cell: Value) -> Value:
    """A cell of a column of shape [n, 1] is the one value in it."""
    return cell[0] if isinstance(cell, list) and len(cell) == 1 else cell


def whole_request(points: list[Value], request: InferRequest, trigger: str = "http") -> InferRequest:
    """The request to a model of whole requests that stands for `request`, whose inputs are these data points. Changes it."""
    body: dict[str, Value] = {"inputs": points}
    if request.id:
        body["id"] = request.id
    if request.parameters:
        body["parameters"] = dict(request.parameters)
    if request.outputs:
        body["outputs"] = list(request.outputs)
    request.inputs = Rows([event(body, id=request.id or None, trigger=trigger)])
    request.outputs = ()
    return request


def reply_of(outputs: Tensors | Rows, model: str) -> Reply:
    """The one answer of a model of whole requests. Raises MODEL_FAILED for anything else."""
    reply = outputs.items[0] if len(outputs.items) == 1 else None
    if not isinstance(reply, Reply):
        raise ServingError(Kind.MODEL_FAILED, f"model '{model}' answered no reply")
    return reply


def reply_outputs(reply: Reply, model: str) -> Value:
    """What a reply has as outputs. Raises INVALID_INPUT for a status of 4xx that user code chose, MODEL_FAILED for 5xx, with that status."""
    if reply.status >= 400:
        kind = Kind.INVALID_INPUT if reply.status < 500 else Kind.MODEL_FAILED
        raise ServingError(kind, f"model '{model}' answered {reply.status}: {_words(reply.body)}", status=reply.status)
    body = reply.body
    return body["outputs"] if isinstance(body, dict) and "outputs" in body else body


def answered_rows(outputs: Tensors | Rows, expected: int, model: str) -> list[Value]:
    """A reply as one row per row of the request. Raises MODEL_FAILED for outputs that are no list of so many, or of so many columns."""
    value = reply_outputs(reply_of(outputs, model), model)
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, dict) and value and all(_long(each) == expected for each in value.values()):
        return [{name: each[index] for name, each in value.items()} for index in range(expected)]
    if _long(value) == expected and not isinstance(value, dict):
        return list(value)
    if expected == 1:
        return [value]
    raise ServingError(
        Kind.MODEL_FAILED, f"model '{model}' answered {_json_type(value)}, expected a list of {expected} outputs, one per input"
    )


def answered_tensors(outputs: Tensors | Rows, signature: Signature, model: str) -> Tensors:
    """A reply as tensors: one of its list of outputs, under the name that the schema has first, or one per key of an object of lists.

    Datatypes and shapes are those of the values; values that no tensor can hold together (objects, numbers among texts, lists of different
    lengths) are BYTES, each a text as it is or JSON. Raises MODEL_FAILED for what JSON cannot carry.
    """
    value = reply_outputs(reply_of(outputs, model), model)
    if isinstance(value, dict):
        columns = {name: each if _long(each) >= 0 else [each] for name, each in value.items()}
    else:
        name = signature.outputs[0].name if signature.outputs else "output"
        columns = {name: value if _long(value) >= 0 else [value]}
    tensors = []
    for name, each in columns.items():
        if isinstance(each, np.ndarray) and (datatype := datatype_of(each.dtype)) not in (None, BYTES):
            assert datatype is not None
            tensors.append(Tensor(name, datatype, each))
            continue
        cells = Rows([{name: cell} for cell in each])
        try:
            tensors += output_tensors(cells, _alone(TensorSpec(name, None, None)), model).items
        except ServingError:
            tensors += output_tensors(cells, _alone(TensorSpec(name, BYTES, (-1,))), model).items
    return Tensors(tensors)


def _alone(output: TensorSpec) -> Signature:
    return Signature(Form.ROWS, outputs=(output,), batch=True)


def _long(value: Value) -> int:
    """How many elements a list or an array has; -1 for anything else."""
    return -1 if isinstance(value, str | bytes | dict) or not hasattr(value, "__len__") else len(value)


def _words(body: Value) -> str:
    return body if isinstance(body, str) else str(jsonable(body))[:500]


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


_JSON_TYPES = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}


def _json_type(value: Value) -> str:
    return _JSON_TYPES.get(type(value), type(value).__name__)
