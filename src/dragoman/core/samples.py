"""Describe a signature to people: a small example input, and a JSON Schema. For banners, pages and documentation; never on the hot path."""

from collections.abc import Mapping
from typing import Any

from dragoman.core.tensors import BYTES, FP16, UINT16, Form, Signature, TensorSpec, element_count

_LARGEST = 128
"""An example with more elements than this helps nobody to read a request."""
_JSON_TYPE = {"bool": "boolean", "int": "integer", "uint": "integer", "float": "number", "bytes": "string"}
_ZERO: dict[str, Any] = {"bool": False, "int": 0, "uint": 0, "float": 0.0, "bytes": "text"}

_FILES = {
    "image": "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
    "audio": "data:audio/wav;base64,UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQIAAAAAAA==",
}
"""The smallest files of a kind: a pixel, a moment of silence. Of videos there is none that is small."""
_ANY_FILE = "data:application/octet-stream;base64,aGVsbG8="


def row_example(signature: Signature) -> dict[str, Any] | None:
    """One row that the model accepts, with what is required; None where none can be made up."""
    if signature.form is Form.ROWS:
        if any(element_count(concrete(spec) or ()) > _LARGEST for spec in signature.inputs if not spec.optional):
            return None
        described = _row_schema(signature)
        files = signature.input_files
        return {name: _value(described["properties"][name], files, name) for name in described.get("required", ())}
    values = example(signature)
    if values is None:
        return None
    return {name: value[0] if signature.batch else value for name, value in values.items()}


def point_example(signature: Signature) -> list[Any]:
    """One data point of a model of whole requests, of the kinds that its schema tells; without a schema two numbers."""
    if all(spec.datatype is None for spec in signature.inputs):
        return list(range(1, max(2, len(signature.inputs)) + 1))
    return [_POINT.get(spec.datatype.kind if spec.datatype is not None else "float", 1) for spec in signature.inputs]


_POINT = {"float": 0.5, "bytes": "text", "bool": True}


def example(signature: Signature) -> dict[str, Any] | None:
    """Input name -> nested list that the model accepts (one row when it batches); None when it would be large or cannot be written in JSON."""
    inputs: dict[str, Any] = {}
    row = row_example(signature) if signature.form is Form.ROWS else {}
    if row is None:
        return None
    fields = _row_schema(signature)["properties"] if row else {}
    for spec in signature.inputs:
        if spec.optional:
            continue
        field = fields.get(spec.name, {})
        match field.get("type"):
            case "integer" | "number" | "boolean" | "string" if field.get("format") != "uri":
                inputs[spec.name] = [row[spec.name]]
                continue
            case "string" | "object" | "array" if spec.datatype is BYTES:  # files, or JSON in a text
                return None
        shape = concrete(spec)
        if shape is None or element_count(shape) > _LARGEST or (spec.datatype is not None and spec.datatype.kind not in _ZERO):
            return None
        inputs[spec.name] = _fill(shape, _ZERO[spec.datatype.kind] if spec.datatype is not None else 0.0)
    return inputs or None


def concrete(spec: TensorSpec) -> tuple[int, ...] | None:
    """The declared shape with 1 in the place of every variable dimension; None for unknown rank."""
    return None if spec.shape is None else tuple(1 if d < 0 else d for d in spec.shape)


def v2_inputs(signature: Signature) -> list[dict[str, Any]] | None:
    """The example as the `inputs` of an Open Inference Protocol request; None where a datatype goes as binary data only."""
    values = example(signature)
    if values is None or any(spec.datatype is FP16 for spec in signature.inputs):
        return None
    specs = signature.input_by_name
    return [
        {
            "name": name,
            "shape": list(concrete(specs[name]) or ()),
            "datatype": datatype.name if (datatype := specs[name].datatype) is not None else "FP64",
            "data": value if isinstance(value, list) else [value],
        }
        for name, value in values.items()
    ]


def instances(signature: Signature) -> list[Any] | None:
    """The example as TensorFlow Serving's `instances`; None for a model that does not batch, or takes what its JSON cannot carry."""
    values = example(signature)
    if values is None or not signature.batch or any(spec.datatype in (FP16, UINT16) for spec in signature.inputs):
        return None
    if len(values) == 1 and (signature.form is Form.ROWS or len(signature.inputs) == 1):  # beside optional inputs it must be named
        return list(next(iter(values.values())))
    return [{name: value[0] for name, value in values.items()}]


def schema(specs: tuple[TensorSpec, ...], *, batch: bool) -> dict[str, Any]:
    """JSON Schema of one row (of the whole request where the model does not batch): an object with one property per tensor."""
    properties = {s.name: _property(s, skip=1 if batch else 0) for s in specs}
    required = [s.name for s in specs if not s.optional]
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _property(spec: TensorSpec, skip: int) -> dict[str, Any]:
    if spec.shape is None:  # a number, or lists of them, nested as deep as the sender likes
        return {}
    kind = "number" if spec.datatype is None else _JSON_TYPE.get(spec.datatype.kind, "string")
    described: dict[str, Any] = {"type": kind}
    for size in reversed(spec.shape[skip:]):
        described = {"type": "array", "items": described}
        if size >= 0:
            described |= {"minItems": size, "maxItems": size}
    return described


def _row_schema(signature: Signature) -> Mapping[str, Any]:
    return signature.input_schema or schema(signature.inputs, batch=False)


def _value(field: Mapping[str, Any], files: Mapping[str, str], place: str) -> Any:
    """A value that a field of a row accepts."""
    if "default" in field:
        return field["default"]
    if field.get("choices"):
        return field["choices"][0]
    match field.get("type"):
        case "string" if field.get("format") == "uri":
            return _FILES.get(files.get(place, ""), _ANY_FILE)
        case "string":
            return "text".ljust(field.get("minLength", 0), "x")[: field.get("maxLength", 1 << 20)]
        case "integer" | "number":
            return max(field.get("minimum", 0), min(0, field.get("maximum", 0)))
        case "boolean":
            return False
        case "object":
            return {name: _value(each, files, f"{place}.{name}") for name, each in field.get("properties", {}).items()}
        case "array":
            items = field.get("items")
            return [_value(items, files, f"{place}.$item")] * field.get("minItems", 1) if items else []
    return "text"


def _fill(shape: tuple[int, ...], value: Any) -> Any:
    return value if not shape else [_fill(shape[1:], value) for _ in range(shape[0])]
