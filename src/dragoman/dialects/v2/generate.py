"""The generate extension: text in, text out, for any model. Keys of a flat object become tensors by the model's signature, and back.

Called by the router; answers go out as one object (generate) or as server-sent events (generate_stream).
"""

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson

from dragoman.core.convert import UNNAMED
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.files import decode_files
from dragoman.core.model import EMPTY, InferRequest, InferResponse, Timings
from dragoman.core.rows import checked
from dragoman.core.tensors import Form, Rows, Tensor, Tensors, TensorSpec, element_count
from dragoman.dialects.json import NumbersError, array_of
from dragoman.dialects.rows import infer, only_row, plain
from dragoman.dialects.v2.answers import error_body
from dragoman.dialects.v2.assembly import default_signature
from dragoman.dialects.v2.codec import json_data, parse, request_id
from dragoman.dialects.v2.parameters import kind, steer
from dragoman.serving.gateway import Entry, Gateway


def decode(entry: Entry, body: bytes) -> InferRequest:
    """The request: keys that name an input of the model are its tensors, all others, also those inside `parameters`, are parameters.

    Raises INVALID_INPUT. Missing inputs are the gateway's to refuse.
    """
    model = entry.name
    signature = default_signature(entry)
    rows = signature.form is Form.ROWS
    document = parse(body, model)
    request = InferRequest(Tensors([]), id=request_id(document, model), dialect="v2")
    inner = document.get("parameters")
    if inner is not None and type(inner) is not dict:
        raise invalid(f"the parameters of the request to model '{model}' must be an object, not {kind(inner)}")
    pairs = [(key, value) for key, value in document.items() if key not in ("id", "parameters")]
    pairs += (inner or {}).items()
    parameters: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for key, value in pairs:
        spec = signature.input_by_name.get(key)
        if key in values or key in parameters:
            raise invalid(f"'{key}' is given twice in the request to model '{model}'")
        if spec is None:
            parameters[key] = value
        else:
            values[key] = value if rows else _tensor(value, spec, model)
    if rows:
        request.inputs = Rows(decode_files(checked([plain(values)], signature, model), signature, model))
    else:
        request.inputs = Tensors(list(values.values()))
    if parameters:
        steering = steer(parameters, model)
        request.parameters = steering.parameters
        request.deadline = steering.deadline
        request.priority = steering.priority
    return request


def _tensor(value: Any, spec: TensorSpec, model: str) -> Tensor:
    where = f"input '{spec.name}' of model '{model}'"
    if spec.datatype is None or spec.shape is None:
        raise invalid(f"{where} has no fixed datatype and rank, so generate cannot carry it")
    try:
        array = array_of(value, spec.datatype)
    except NumbersError as error:
        raise invalid(f"the value of {where} does not fit: {error}") from None
    shape = _shape(array.size, spec.shape)
    if element_count(shape) != array.size:
        raise invalid(f"{where} takes shape {list(spec.shape)}, which {array.size} element{'s' * (array.size != 1)} cannot fill")
    return Tensor(spec.name, spec.datatype, array.reshape(shape))


def _shape(size: int, declared: tuple[int, ...]) -> tuple[int, ...]:
    """Fixed dimensions as they are, the innermost variable one takes what is left, other variable ones are 1."""
    shape = [1 if length < 0 else length for length in declared]
    fixed = math.prod(shape)
    for axis in range(len(declared) - 1, -1, -1):
        if declared[axis] < 0:
            shape[axis] = size // fixed if fixed else 0
            break
    return tuple(shape)


def encode(entry: Entry, request: InferRequest, response: InferResponse) -> bytes:
    """One response as an object: id, model, parameters, and each output by its name; one element stands alone, more are a flat list.

    Raises INVALID_INPUT for an output that JSON cannot carry.
    """
    reply: dict[str, Any] = {"id": request.id} if request.id else {}
    reply["model_name"] = entry.name
    reply["model_version"] = entry.version
    if response.parameters is not EMPTY and response.parameters:
        reply["parameters"] = dict(response.parameters)
    if isinstance(response.outputs, Rows):
        reply |= {name: value for name, value in _only_row(entry, response.outputs).items() if name not in reply}
    else:
        for tensor in response.outputs.items:
            data = json_data(tensor, entry.name)
            reply[tensor.name] = orjson.Fragment(orjson.dumps(data)[1:-1]) if tensor.array.size == 1 else data
    try:
        return orjson.dumps(reply)
    except TypeError as error:
        raise ServingError(Kind.MODEL_FAILED, f"model '{entry.name}' answered what JSON cannot carry: {error}") from error


def _only_row(entry: Entry, outputs: Rows) -> dict[str, Any]:
    row = only_row(outputs, entry.name)
    declared = default_signature(entry).outputs
    return {declared[0].name: row[UNNAMED]} if row.keys() == {UNNAMED} and len(declared) == 1 else row


async def events(gateway: Gateway, entry: Entry, request: InferRequest) -> AsyncGenerator[bytes, None]:
    """Server-sent events, one per response, and one without outputs where there is none at all.

    An error before the first is raised, so that it becomes a normal error answer; later it is an event of its own, the last one.
    """
    begun = False
    if default_signature(entry).whole:  # answers at once
        yield _event(encode(entry, request, await infer(gateway, entry, request)))
        return
    try:
        async with aclosing(gateway.stream(entry, request)) as responses:
            async for response in responses:
                event = _event(encode(entry, request, response))
                begun = True
                yield event
    except ServingError as error:
        if not begun:
            raise
        yield _event(error_body(error))
        return
    if not begun:
        yield _event(encode(entry, request, InferResponse(Tensors([]), Timings())))


def _event(text: bytes) -> bytes:
    return b"data: %b\n\n" % text
