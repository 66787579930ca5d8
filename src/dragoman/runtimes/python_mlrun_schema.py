"""What an MLRun model's `model_spec` says of its features, as a Signature of whole requests. Called by python_mlrun.py.

The schemas describe one data point as an object by feature, so that other protocols treat the model as one of rows. Without a schema a data
point is the one field `inputs`, of any shape.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from dragoman.core.tensors import (
    BF16,
    BOOL,
    BYTES,
    FP16,
    FP32,
    FP64,
    INT8,
    INT16,
    INT32,
    INT64,
    UINT8,
    UINT16,
    UINT32,
    UINT64,
    Datatype,
    Form,
    JsonSchema,
    Signature,
    TensorSpec,
)

UNNAMED = "inputs"
_DATATYPES: Mapping[str, Datatype] = {
    "bool": BOOL, "int8": INT8, "int16": INT16, "int32": INT32, "int": INT64, "int64": INT64,
    "uint8": UINT8, "uint16": UINT16, "uint32": UINT32, "uint64": UINT64,
    "float16": FP16, "bfloat16": BF16, "float32": FP32, "float": FP64, "float64": FP64,
    "bytes": BYTES, "str": BYTES, "string": BYTES, "datetime": BYTES,
}  # fmt: skip
"""MLRun's words for types of features."""


def signature_of(model_spec: Any) -> Signature:
    """The signature of a model with this spec, which may be None."""
    inputs = _tensors(getattr(model_spec, "inputs", None) or ())
    outputs = _tensors(getattr(model_spec, "outputs", None) or ())
    described = inputs or (TensorSpec(UNNAMED, None, None),)
    # No types: MLRun checks none (requirement M8), and a model may take more than its training data had.
    schema: JsonSchema = {
        "type": "object",
        "properties": {spec.name: {} for spec in described},
        "required": [spec.name for spec in described],
    }
    return Signature(Form.ROWS, described, outputs, input_schema=schema, whole=True)


def _tensors(features: Iterable[Any]) -> tuple[TensorSpec, ...]:
    """One tensor per feature, with one element per data point."""
    made = {}
    for feature in features:
        name = getattr(feature, "name", "")
        kind = str(getattr(feature, "value_type", "") or "")
        kind = str(getattr(kind, "value", kind))
        if name:
            made[name] = TensorSpec(name, _DATATYPES.get(kind), (-1,), native=kind)
    return tuple(made.values())
