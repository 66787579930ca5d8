"""ModelInfer's messages to requests, and responses to messages, on the wire format itself. Called by grpc.py.

Tensors are not copied into message objects and out of them: a raw input is copied once, from the request into memory that the model owns,
a raw output once, into the answer. Everything else of the protocol is what the REST codec does (assembly.py, parameters.py, plan.py).
"""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from dragoman.core.errors import invalid
from dragoman.core.model import EMPTY, InferRequest, InferResponse
from dragoman.core.tensors import Array, Datatype, Shape, Tensor
from dragoman.dialects.v2.assembly import (
    MAX_RANK,
    NAMES,
    answered,
    answered_part,
    default_signature,
    picked,
    request_of,
    steered,
    unknown_datatype,
)
from dragoman.dialects.v2.binary import array_from, raw_bytes
from dragoman.dialects.v2.grpc_contents import array_of
from dragoman.dialects.v2.parameters import tensor_parameters, text
from dragoman.dialects.v2.plan import ALL_BINARY, Plan, read_outputs
from dragoman.proto import wire
from dragoman.proto.wire import FIXED64, LENGTH, VARINT, Buffer, fields, nest, put, put_varint, tag
from dragoman.serving.gateway import Entry

# ModelInferRequest; the response has the same first three and `parameters`, and `outputs` where this has `inputs`.
_MODEL, _VERSION, _ID, _PARAMETERS, _INPUTS, _OUTPUTS, _RAW = (tag(number, LENGTH) for number in range(1, 8))
# InferInputTensor; InferRequestedOutputTensor has the name and, in the place of the datatype, parameters; so has an entry of a map its value
_NAME, _DATATYPE, _SHAPE, _DIMENSION = tag(1, LENGTH), tag(2, LENGTH), tag(3, LENGTH), tag(3, VARINT)
_INPUT_PARAMETERS, _CONTENTS = tag(4, LENGTH), tag(5, LENGTH)
_KEY, _VALUE = tag(1, LENGTH), tag(2, LENGTH)
_CACHED_BYTES = 256
"""Of declarations that are kept: longer ones are rare, and a stranger's memory is not ours."""

EMPTY_FINAL: Final = "triton_enable_empty_final_response"
"""A stream's parameter: whether the end is told by an answer of its own where the last part could not tell it."""
FINAL: Final = "triton_final_response"


@dataclass(slots=True)
class Message:
    """A ModelInferRequest taken apart: text, and what needs the model to be read as views."""

    model: str = ""
    version: str = ""
    id: str = ""
    parameters: list[memoryview] = field(default_factory=list)
    inputs: list[memoryview] = field(default_factory=list)
    outputs: list[memoryview] = field(default_factory=list)
    raw: list[memoryview] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Declared:
    """An input but for its elements. Shared between requests that declare the same."""

    name: str
    datatype: Datatype
    shape: Shape
    count: int
    contents: tuple[memoryview, ...] = ()


# --- decode ---


def read(message: bytes) -> Message:
    """Take a ModelInferRequest apart. Raises INVALID_INPUT for what is none."""
    asked = Message()
    for key, value in fields(message):
        if key == _RAW:
            asked.raw.append(value)
        elif key == _INPUTS:
            asked.inputs.append(value)
        elif key == _OUTPUTS:
            asked.outputs.append(value)
        elif key == _MODEL:
            asked.model = wire.text(value, "the model's name")
        elif key == _VERSION:
            asked.version = wire.text(value, "the model's version")
        elif key == _ID:
            asked.id = wire.text(value, "the request's id")
        elif key == _PARAMETERS:
            asked.parameters.append(value)
    return asked


def decode(entry: Entry, asked: Message) -> tuple[InferRequest, Plan]:
    """The request of a message, and which outputs it wants. Raises INVALID_INPUT naming model, tensor, and what came."""
    model = entry.name
    signature = default_signature(entry)
    declared = [_declared(view, model) for view in asked.inputs]
    raw = asked.raw
    if not raw:
        tensors = [Tensor(each.name, each.datatype, _typed(each, model)) for each in declared]
    else:
        for each in declared:
            if each.contents:
                raise invalid(f"input '{each.name}' of model '{model}' has contents beside raw_input_contents; one of them must go")
        if len(raw) != len(declared):
            raise invalid(f"the request to model '{model}' has {len(raw)} raw_input_contents for {len(declared)} inputs")
        tensors = [Tensor(each.name, each.datatype, _raw(part, each, model)) for part, each in zip(raw, declared, strict=True)]
    request = request_of(entry, signature, tensors)
    request.id = asked.id
    if asked.parameters:
        steered(request, _parameters(asked.parameters, f"the request to model '{model}'"), model)
    if not asked.outputs:
        return request, ALL_BINARY
    plan = _wanted(asked.outputs, model)
    request.outputs = tuple(plan.named)
    return request, plan


def stream_flag(asked: Message) -> bool:
    """Take the parameter EMPTY_FINAL out of a message. Raises INVALID_INPUT."""
    kept, flag = [], False
    for view in asked.parameters:
        given = _parameters([view], "the request").get(EMPTY_FINAL)
        if given is None:
            kept.append(view)
        elif type(given) is bool:
            flag = given
        else:
            raise invalid(f"parameter '{EMPTY_FINAL}' must be true or false, not {text(given)}")
    asked.parameters = kept
    return flag


def _declared(view: memoryview, model: str) -> _Declared:
    """An input's declaration; clients declare the same again and again, and short ones are kept."""
    return _cached(bytes(view), model) if len(view) <= _CACHED_BYTES else _parsed(view, model)


def _parsed(view: Buffer, model: str) -> _Declared:
    name = datatype_name = ""
    dimensions: list[wire.Piece] = []
    parameters: list[memoryview] = []
    contents: list[memoryview] = []
    for key, value in fields(view):
        if key == _NAME:
            name = wire.text(value, f"an input's name in the request to model '{model}'")
        elif key == _DATATYPE:
            datatype_name = wire.text(value, f"the datatype of an input of model '{model}'")
        elif key in (_SHAPE, _DIMENSION):
            dimensions.append(value)
        elif key == _INPUT_PARAMETERS:
            parameters.append(value)
        elif key == _CONTENTS:
            contents.append(value)
    if not name:
        raise invalid(f"an input of the request to model '{model}' has no name")
    datatype = NAMES.get(datatype_name)
    if datatype is None:
        raise unknown_datatype(name, datatype_name, model)
    shape = wire.integers(dimensions)
    if len(shape) > MAX_RANK:
        raise invalid(f"input '{name}' of model '{model}' has {len(shape)} dimensions, at most {MAX_RANK} are possible")
    count = 1
    for length in shape:
        if length < 0:
            raise invalid(f"input '{name}' of model '{model}' has dimension {length} in its shape, expected non-negative integers")
        count *= length
    if parameters:
        where = f"input '{name}' of model '{model}'"
        tensor_parameters(_parameters(parameters, where), where)
    return _Declared(name, datatype, tuple(shape), count, tuple(contents))


_cached = lru_cache(1024)(_parsed)


def _raw(part: memoryview, declared: _Declared, model: str) -> Array:
    try:
        return array_from(part, declared.datatype, declared.shape, declared.count)
    except ValueError as error:
        raise invalid(f"input '{declared.name}' of model '{model}': {error}") from None


def _typed(declared: _Declared, model: str) -> Array:
    where = f"input '{declared.name}' of model '{model}'"
    return array_of(declared.contents, declared.datatype, declared.shape, declared.count, where)


def _wanted(requested: Sequence[memoryview], model: str) -> Plan:
    """The outputs that a request names, and how."""
    listed = tuple(bytes(view) for view in requested)
    return _cached_plan(listed, model) if sum(map(len, listed)) <= _CACHED_BYTES else _plan(listed, model)


def _plan(requested: tuple[bytes, ...], model: str) -> Plan:
    listed = []
    for item in requested:
        name = ""
        parameters: list[memoryview] = []
        for key, value in fields(item):
            if key == _NAME:
                name = wire.text(value, f"an output's name in the request to model '{model}'")
            elif key == _VALUE:
                parameters.append(value)
        where = f"output '{name}' of the request to model '{model}'"
        given = _parameters(parameters, where)
        classes = given.get("classification")
        if classes is not None and (type(classes) is not int or classes < 1):
            raise invalid(f"parameter 'classification' of {where} must be a positive integer, not {text(classes)}")
        listed.append({"name": name, "parameters": given})
    return Plan(read_outputs(listed, model))


_cached_plan = lru_cache(1024)(_plan)


def _parameters(entries: Sequence[memoryview], where: str) -> dict[str, Any]:
    """A map of InferParameter. Raises INVALID_INPUT for what is none."""
    found: dict[str, Any] = {}
    for entry in entries:
        key = ""
        chosen: Any = None
        for of_entry, value in fields(entry):
            if of_entry == _KEY:
                key = wire.text(value, f"a parameter's name of {where}")
            elif of_entry == _VALUE:
                for of_value, choice in fields(value):
                    reading = _CHOICES.get(of_value)
                    if reading is not None:
                        chosen = reading(choice, f"parameter '{key}' of {where}")
        found[key] = chosen
    return found


_CHOICES: Mapping[int, Callable[[Any, str], Any]] = {
    tag(1, VARINT): lambda value, _: value != 0,
    tag(2, VARINT): lambda value, _: wire.signed(value),
    tag(3, LENGTH): wire.text,
    tag(4, FIXED64): lambda value, _: struct.unpack("<d", value)[0],
    tag(5, VARINT): lambda value, _: value,
}


# --- encode ---


def encode(entry: Entry, request: InferRequest, response: InferResponse, plan: Plan, last: bool | None = None) -> list[Buffer]:
    """The parts of a ModelInferResponse with raw contents, to be joined once. `last`, for streams only, is what it says of itself.

    Outputs are in the model's order. Raises INVALID_INPUT where an output is not there or cannot be classified.
    """
    parts = _head(entry, request)
    if response.parameters is not EMPTY:
        for name, value in response.parameters.items():
            nest(parts, 4, _parameter(name, value))
    if last is not None:
        nest(parts, 4, _parameter(FINAL, last))
    outputs = answered(entry, response) if last is None else answered_part(entry, response)
    contents: list[Buffer] = []
    for tensor, _ in picked(entry, outputs, plan):
        parts.append(_output(tensor.name, tensor.datatype.name, tensor.array.shape))
        data = raw_bytes(tensor)
        contents.append(wire.head(6, len(data)))
        contents.append(data)
    return parts + contents


def final(entry: Entry, request: InferRequest) -> list[Buffer]:
    """The parts of an answer that only says that a stream's request has been answered."""
    parts = _head(entry, request)
    nest(parts, 4, _parameter(FINAL, True))
    return parts


def _head(entry: Entry, request: InferRequest) -> list[Buffer]:
    parts: list[Buffer] = [_named(entry.name, entry.version)]
    if request.id:
        put(parts, 3, request.id.encode("utf-8", "replace"))
    return parts


@lru_cache(256)
def _named(model: str, version: str) -> bytes:
    parts: list[Buffer] = []
    put(parts, 1, model.encode("utf-8", "replace"))
    put(parts, 2, version.encode("utf-8", "replace"))
    return b"".join(parts)


@lru_cache(1024)
def _output(name: str, datatype: str, shape: Shape) -> bytes:
    """A whole InferOutputTensor field: its elements lie elsewhere."""
    inner: list[Buffer] = []
    put(inner, 1, name.encode("utf-8", "replace"))
    put(inner, 2, datatype.encode())
    if shape:
        put(inner, 3, b"".join(map(wire.varint, shape)))
    parts: list[Buffer] = []
    nest(parts, 5, inner)
    return b"".join(parts)


def _parameter(name: str, value: Any) -> list[Buffer]:
    """An entry of a map of InferParameter. What is no scalar goes as its JSON text."""
    chosen: list[Buffer] = []
    match value:
        case bool():
            put_varint(chosen, 1, value)
        case int() if -(1 << 63) <= value < 1 << 63:
            put_varint(chosen, 2, value)
        case int() if 0 <= value < 1 << 64:
            put_varint(chosen, 5, value)
        case float():
            chosen.append(wire.varint(tag(4, FIXED64)) + struct.pack("<d", value))
        case _:
            put(chosen, 3, (value if isinstance(value, str) else json.dumps(value, default=str)).encode("utf-8", "replace"))
    entry: list[Buffer] = []
    put(entry, 1, name.encode("utf-8", "replace"))
    nest(entry, 2, chosen)
    return entry
