"""JSON Schemas of what inference takes and gives, for one signature, in both protocols. Called by openapi.py; never on the hot path.

They say all that JSON Schema can: it has no words for "as many elements as the shape says" or "all rows are equally long".
"""

from typing import Any

import numpy as np

from dragoman.core.bodies import BY_NAME, INFER
from dragoman.core.tensors import BF16, BOOL, BYTES, DATATYPES, FP16, UINT16, Datatype, Signature, TensorSpec

Schema = dict[str, Any]

LABELS: Schema = {"type": "array", "items": {"type": "array", "prefixItems": [{"type": "string"}, {}], "minItems": 2, "maxItems": 2}}
"""What :classify says of one example: label and score of each class. A score may be a bare NaN, which is no JSON."""

_BINARY_ONLY = frozenset({FP16, BF16})
_NOT_IN_TFS = frozenset({FP16, BF16, UINT16})
_NAMES = [name for name, each in DATATYPES.items() if each.kind != "complex"]
_PARAMETERS: Schema = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}}


def v2_request(signature: Signature) -> Schema:
    """The JSON form of an Open Inference Protocol request. Order and nesting of elements do not matter, so `data` is any list."""
    inputs: Schema = {"type": "array"}
    if signature.inputs:
        tensors = [_v2_tensor(spec) for spec in signature.inputs]
        needed = sum(not spec.optional for spec in signature.inputs)
        inputs |= {"minItems": needed, "maxItems": len(tensors), "items": tensors[0] if len(tensors) == 1 else {"oneOf": tensors}}
    else:
        inputs |= {"items": _v2_tensor(None)}
    output: Schema = {"name": {"type": "string"}, "parameters": _PARAMETERS}
    if signature.outputs:
        output["name"]["enum"] = [spec.name for spec in signature.outputs]
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": ["string", "null"]},
            "parameters": _PARAMETERS,
            "inputs": inputs,
            "outputs": {"type": "array", "items": {"type": "object", "required": ["name"], "properties": output}},
        },
    }


def v2_answer() -> Schema:
    """The JSON form of its answer; in the binary form, which a request has to ask for, this is its first part."""
    tensor: Schema = {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "datatype": {"enum": _NAMES},
            "data": {"type": "array"},
            "parameters": {"type": "object"},
        },
    }
    return {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "outputs": {"type": "array", "items": tensor},
        },
    }


def mlrun_request(operation: str = "infer") -> Schema:
    """MLRun's plain form: what a data point looks like is the model's business. The operations that name features take one object, too."""
    named = operation in BY_NAME
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {},
            "inputs": {
                "type": ["array", "object"] if named else "array",
                "description": "data points: lists of values, or objects by feature",
            },
            "parameters": {"type": ["object", "null"]},
            "outputs": {},
        },
    }


def mlrun_answer(operation: str = "infer") -> Schema:
    """Its answer. An operation of the model's own answers whatever it likes."""
    if operation not in INFER and operation != "explain":
        return {}
    text: Schema = {"type": "string"}
    return {
        "type": "object",
        "required": ["id", "model_name", "outputs"],
        "properties": {"id": {}, "model_name": text, "outputs": {}, "timestamp": text, "model_version": text},
    }


def tfs_request(signature: Signature) -> Schema | None:
    """TensorFlow Serving's row and column forms; None where a datatype is in the way, which its JSON cannot carry."""
    if any(spec.datatype in _NOT_IN_TFS for spec in signature.inputs):
        return None
    forms: Schema = {"inputs": _columns(signature)}
    rows = _rows(signature)
    if rows is not None:
        forms["instances"] = rows
    return {
        "type": "object",
        "properties": {"signature_name": {"enum": ["", "serving_default"]}, **forms},
        "oneOf": [{"required": [form]} for form in forms],
    }


def tfs_answer() -> Schema:
    """Rows under `predictions`, columns under `outputs`. NaN and infinities stand there as bare words, which are no JSON."""
    return {"type": "object", "oneOf": [{"required": ["predictions"]}, {"required": ["outputs"]}]}


def tfs_examples() -> Schema:
    """TensorFlow Serving's body of :classify and :regress. What a feature has to be is the model's business, so any is allowed here."""
    kinds: tuple[Schema, ...] = ({"type": "number"}, {"type": "boolean"}, _element(BYTES))
    feature: Schema = {"anyOf": [form for kind in kinds for form in (kind, {"type": "array", "items": kind})]}
    features: Schema = {"type": "object", "additionalProperties": feature}
    return {
        "type": "object",
        "required": ["examples"],
        "properties": {
            "signature_name": {"type": "string"},
            "context": {**features, "description": "features that every example gets"},
            "examples": {"type": "array", "minItems": 1, "items": features},
        },
    }


def tfs_results(result: Schema) -> Schema:
    """Its answer, with one result per example."""
    return {"type": "object", "required": ["results"], "properties": {"results": {"type": "array", "minItems": 1, "items": result}}}


def _v2_tensor(spec: TensorSpec | None) -> Schema:
    name: Schema = {"type": "string"} if spec is None else {"const": spec.name}
    datatype: Schema = {"enum": _NAMES} if spec is None or spec.datatype is None else {"const": spec.datatype.name}
    shape: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}}
    if spec is not None and spec.shape is not None:
        sizes = [{"const": size} if size >= 0 else {"type": "integer", "minimum": 0} for size in spec.shape]
        shape = {"type": "array", "prefixItems": sizes, "minItems": len(sizes), "maxItems": len(sizes)} if sizes else {"const": []}
    tensor: Schema = {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": name,
            "shape": shape,
            "datatype": datatype,
            "data": {"type": "array", "description": "the elements, flat or nested"},
            "parameters": {**_PARAMETERS, "description": "binary_data_size: bytes of binary data in the place of data"},
        },
    }
    if spec is not None and spec.datatype in _BINARY_ONLY:
        del tensor["properties"]["data"]
        tensor["required"].append("parameters")
    return tensor


def _rows(signature: Signature) -> Schema | None:
    """`instances`; None for inputs that cannot be cut into rows."""
    inputs = signature.inputs
    if any(spec.shape == () for spec in inputs):
        return None
    if len(inputs) == 1 and inputs[0].shape is not None:
        whole = _value(inputs[0])
        return {**whole, "minItems": max(1, whole.get("minItems", 1))}
    if not inputs or any(spec.shape is None for spec in inputs):
        return {"type": "array", "minItems": 1}
    row: Schema = {
        "type": "object",
        "properties": {spec.name: _value(spec, skip=1) for spec in inputs},
        "required": [spec.name for spec in inputs if not spec.optional],
        "additionalProperties": False,
    }
    return {"type": "array", "minItems": 1, "items": row}


def _columns(signature: Signature) -> Schema:
    """`inputs`: an object of columns, or the bare value of the only one."""
    inputs = signature.inputs
    if not inputs:
        return {}
    columns: Schema = {
        "type": "object",
        "properties": {spec.name: _value(spec) for spec in inputs},
        "required": [spec.name for spec in inputs if not spec.optional],
    }
    return {"anyOf": [columns, _value(inputs[0])]} if len(inputs) == 1 else columns


def _value(spec: TensorSpec, *, skip: int = 0) -> Schema:
    """A tensor of the declared shape as nested lists, without its first `skip` dimensions."""
    if spec.shape is None:
        return {}
    element = described = _element(spec.datatype)
    for size in reversed(spec.shape[skip:]):
        limits = {"minItems": size, "maxItems": size} if size >= 0 else {}
        if size < 0 and described is not element:
            limits = {"minItems": 1}  # an empty list does not say how deep it is
        described = {"type": "array", "items": described, **limits}
    return described


def _element(datatype: Datatype | None) -> Schema:
    if datatype is BYTES:
        binary = {"type": "object", "properties": {"b64": {"type": "string", "contentEncoding": "base64"}}, "required": ["b64"]}
        return {"anyOf": [{"type": "string"}, {**binary, "additionalProperties": False}]}
    if datatype is not None and datatype.kind in ("int", "uint"):
        limits = np.iinfo(datatype.numpy)
        return {"type": "integer", "minimum": int(limits.min), "maximum": int(limits.max)}
    return {"type": "boolean" if datatype is BOOL else "number"}
