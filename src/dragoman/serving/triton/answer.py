"""The JSON form of a model configuration, as Triton answers it: of a configuration that was read, and of a model that is being served.

Called by serving/repository (config_json, once when a model is found) and by the V2 dialect (describe, for each request).
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from dragoman.core.model import BatchPolicy, ModelSpec
from dragoman.core.tensors import Signature, TensorSpec
from dragoman.serving.triton.tensors import type_name

if TYPE_CHECKING:
    from google.protobuf.message import Message

_Field: TypeAlias = Any
"""A field's descriptor; protobuf has two classes for it, one of them private."""

_FLOAT = 2
"""FieldDescriptor.TYPE_FLOAT."""
_BACKENDS = {"onnx": "onnxruntime", "torch": "pytorch", "savedmodel": "tensorflow"}
"""Triton's name for the backend by our runtime, where it has one; otherwise the runtime's own name."""
_COMPLETED = ("platform", "backend", "max_batch_size", "input", "output", "instance_group", "default_model_filename")
"""What Triton fills in where the file says nothing."""


def config_json(message: "Message") -> dict[str, Any]:
    """The JSON form: names as in the file, enums by name, 64-bit integers as numbers.

    As Triton does, every plain field, list and map is there, with its default where it is not set; a message or a member of a oneof is there
    only when it is set. Fields are in the order of the schema.
    """
    values: dict[str, Any] = {}
    field: _Field
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if _is_map(field):
            inner = field.message_type.fields_by_name["value"]
            values[field.name] = {str(key): _plain(value[key], inner) for key in sorted(value)}
        elif not field.has_presence and not isinstance(value, str | bytes | int | float):
            values[field.name] = [_plain(item, field) for item in value]
        elif not field.has_presence or message.HasField(field.name):
            values[field.name] = _plain(value, field)
    return values


def _is_map(field: _Field) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _plain(value: Any, field: _Field) -> Any:
    if field.message_type is not None:
        return config_json(value)
    if field.enum_type is not None:
        return _enum_name(field.enum_type, value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        # The shortest text of a float32, not the seventeen digits of its double.
        return float(str(np.float32(value))) if field.type == _FLOAT else value
    return value


def _enum_name(kind: Any, number: int) -> str | int:
    known = kind.values_by_number.get(number)
    return known.name if known is not None else number


def describe(spec: ModelSpec, signature: Signature, platform: str, kind: str = "KIND_CPU") -> dict[str, Any]:
    """The configuration of a served model: what its file says, completed by what really runs; for a model without a file, all of it.

    `platform` is what the model itself reports, `kind` where it runs (KIND_CPU, KIND_GPU). `dims` leave the batch dimension out when the
    signature batches; an unknown rank is one variable dimension. Needs no protobuf, blocks on nothing.
    """
    running = _running(spec, signature, platform, kind)
    written = spec.config
    if not written:
        return running
    answer = {"version_policy": running["version_policy"], **written}
    if "ensemble_scheduling" in written:
        return answer
    for field in _COMPLETED:
        answer[field] = written.get(field) or running[field]
    for field in ("input", "output"):
        answer[field] = [_complete_tensor(tensor, running[field]) for tensor in answer[field]]
    answer["instance_group"] = [_complete_group(group, index, spec.name, kind) for index, group in enumerate(answer["instance_group"])]
    if "dynamic_batching" in written:
        preferred = written["dynamic_batching"].get("preferred_batch_size") or [answer["max_batch_size"]]
        answer["dynamic_batching"] = {**written["dynamic_batching"], "preferred_batch_size": preferred}
    elif "dynamic_batching" in running and "sequence_batching" not in written:
        answer["dynamic_batching"] = running["dynamic_batching"]
    return answer


def _complete_tensor(written: Mapping[str, Any], running: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    known = next((tensor for tensor in running if tensor["name"] == written["name"]), None)
    if known is None:
        return {**written}
    named = written["data_type"] != type_name(None)
    return {**written, "data_type": written["data_type"] if named else known["data_type"], "dims": written["dims"] or known["dims"]}


def _complete_group(written: Mapping[str, Any], index: int, name: str, kind: str) -> dict[str, Any]:
    resolved = written["kind"] if written["kind"] != "KIND_AUTO" else kind
    return {**written, "name": written["name"] or f"{name}_{index}", "count": written["count"] or 1, "kind": resolved}


def _running(spec: ModelSpec, signature: Signature, platform: str, kind: str) -> dict[str, Any]:
    group = {"name": spec.name, "kind": kind, "count": spec.instances, "gpus": [], "secondary_devices": [], "profile": []}
    batching = {"dynamic_batching": _batching(spec.batch)} if signature.batch and spec.batch.max_size > 1 else {}
    return {
        "name": spec.name,
        "platform": platform,
        "backend": _BACKENDS.get(spec.runtime, spec.runtime),
        "runtime": "",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": spec.batch.max_size if signature.batch else 0,
        "input": [
            {
                **_tensor(tensor, signature.batch),
                "format": "FORMAT_NONE",
                "allow_ragged_batch": False,
                "optional": tensor.optional,
            }
            for tensor in signature.inputs
        ],
        "output": [{**_tensor(tensor, signature.batch), "label_filename": ""} for tensor in signature.outputs],
        "batch_input": [],
        "batch_output": [],
        **batching,
        "instance_group": [{**group, "passive": False, "host_policy": ""}],
        "default_model_filename": PurePath(spec.artifact).name,
        "cc_model_filenames": {},
        "metric_tags": {},
        "parameters": {},
        "model_warmup": [],
    }


def _tensor(tensor: TensorSpec, batch: bool) -> dict[str, Any]:
    dims = [-1] if tensor.shape is None else list(tensor.shape[1:] if batch else tensor.shape)
    return {
        "name": tensor.name,
        "data_type": type_name(tensor.datatype),
        "dims": dims,
        "is_shape_tensor": False,
        "is_non_linear_format_io": False,
    }


def _batching(policy: BatchPolicy) -> dict[str, Any]:
    return {
        "preferred_batch_size": list(policy.preferred or (policy.max_size,)),
        "max_queue_delay_microseconds": round(policy.max_delay_s * 1e6),
        "preserve_ordering": False,
        "priority_levels": policy.levels,
        "default_priority_level": policy.default_level,
        "default_queue_policy": {
            "timeout_action": "DELAY" if policy.timeout_delays else "REJECT",
            "default_timeout_microseconds": 0 if math.isinf(policy.queue_timeout_s) else round(policy.queue_timeout_s * 1e6),
            "allow_timeout_override": policy.timeout_override,
            "max_queue_size": policy.max_queue,
        },
        "priority_queue_policy": {},
    }
