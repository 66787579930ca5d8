"""Inference bodies to requests and responses to bodies: the JSON form, and where it refers to binary data. Called by the router.

`decode` runs between finding the model and calling it, so nothing here awaits. The common case (few inputs, JSON only) is the straight
path, and what is rare is in functions of its own: the iris request takes 3.6 us to decode and 2.0 us to encode where its bare
orjson.loads takes 0.5.
"""

from typing import Any

import orjson

from dragoman.core.binary_bodies import file_inputs
from dragoman.core.convert import inwards
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import EMPTY, InferRequest, InferResponse
from dragoman.core.tensors import (
    BF16,
    BOOL,
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
    Array,
    Datatype,
    Tensor,
    Tensors,
)
from dragoman.dialects import Answer
from dragoman.dialects.json import NotJsonError, NumbersError, array_of, fragment
from dragoman.dialects.v2.assembly import MAX_RANK, NAMES, answered, default_signature, picked, request_of, steered, unknown_datatype
from dragoman.dialects.v2.binary import LENGTH_HEADER, Tail, array_from, header_length, raw_bytes, raw_input
from dragoman.dialects.v2.parameters import kind, parsed, tensor_parameters, text
from dragoman.dialects.v2.plan import ALL_BINARY, AS_JSON, PLAIN, Plan, read_outputs
from dragoman.serving.gateway import Entry

AS_NUMBERS = frozenset({BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP32, FP64})
"""What orjson writes straight from an array: integers exactly, the shortest text of a float's own width, null for NaN and infinity."""
_NUMPY = orjson.OPT_SERIALIZE_NUMPY


def parse(document: bytes | memoryview, model: str) -> dict[str, Any]:
    """The JSON object that a request to a model is. Raises INVALID_INPUT."""
    return parsed(document, f"the request to model '{model}'")


def request_id(document: dict[str, Any], model: str) -> str:
    """The id that comes back with the answer; "" for none. Raises INVALID_INPUT."""
    given = document.get("id")
    if given is None:
        return ""
    if type(given) is not str:
        raise invalid(f"the id of the request to model '{model}' must be a string, not {kind(given)}")
    return given


# --- decode ---


def decode(entry: Entry, body: bytes, json_size: bytes | None) -> tuple[InferRequest, Plan]:
    """The request that a body holds and how its answer is to be written. Raises INVALID_INPUT naming model, tensor, and what came.

    `json_size` is the value of Inference-Header-Content-Length: what follows that many bytes is binary data; 0 is a raw binary request.
    """
    model = entry.name
    tail: Tail | None = None
    document: bytes | memoryview = body
    if json_size is not None:
        length = header_length(json_size, len(body))
        if not length:
            return _decode_raw(entry, body), ALL_BINARY
        view = memoryview(body)
        document = view[:length]
        tail = Tail(view[length:])
    return requested(entry, parse(document, model), tail)


def requested(entry: Entry, parsed: dict[str, Any], tail: Tail | None = None) -> tuple[InferRequest, Plan]:
    """The request that a parsed body holds, and `tail` the binary data of its inputs. As `decode`."""
    model = entry.name
    signature = default_signature(entry)
    inputs = parsed.get("inputs")
    if type(inputs) is not list:
        raise invalid(f"the request to model '{model}' needs a list 'inputs'" + (f", not {kind(inputs)}" if "inputs" in parsed else ""))
    tensors = [_decode_input(item, model, tail) for item in inputs]
    if tail is not None:
        tail.end(model)
    request = request_of(entry, signature, tensors)
    return request, PLAIN if len(parsed) == 1 else _decode_wishes(request, parsed, model)


def _decode_wishes(request: InferRequest, parsed: dict[str, Any], model: str) -> Plan:
    """Everything but the inputs: id, parameters, outputs."""
    request.id = request_id(parsed, model)
    others = AS_JSON
    parameters = parsed.get("parameters")
    if parameters is not None:
        others = steered(request, parameters, model)
    outputs = parsed.get("outputs")
    if outputs is not None:
        named = read_outputs(outputs, model)
        if named:
            request.outputs = tuple(named)
            return Plan(named)
    return PLAIN if others is AS_JSON else ALL_BINARY


def _decode_input(item: Any, model: str, tail: Tail | None) -> Tensor:
    if type(item) is not dict:
        raise invalid(f"every input of the request to model '{model}' must be an object, not {kind(item)}")
    name = item.get("name")
    shape = item.get("shape")
    datatype_name = item.get("datatype")
    if type(name) is not str or type(shape) is not list or type(datatype_name) is not str or len(shape) > MAX_RANK:
        raise _bad_fields(item, model)
    datatype = NAMES.get(datatype_name)
    if datatype is None:
        raise unknown_datatype(name, datatype_name, model)
    count = 1
    for length in shape:
        if type(length) is not int or length < 0:
            raise invalid(f"input '{name}' of model '{model}' has dimension {text(length)} in its shape, expected non-negative integers")
        count *= length
    data = item.get("data")
    parameters = item.get("parameters")
    if parameters is not None or data is None:
        array = _decode_rare(name, datatype, shape, count, data, parameters, model, tail)
        if array is not None:
            return Tensor(name, datatype, array)
    try:
        array = array_of(data, datatype)
    except NumbersError as error:
        raise invalid(f"the data of input '{name}' of model '{model}' do not fit: {error}") from None
    if array.size != count or not array.ndim:
        raise _bad_count(array, shape, count, name, model)
    try:
        return Tensor(name, datatype, array.reshape(shape))
    except ValueError:  # a 0 among dimensions that no array can have
        raise invalid(f"input '{name}' of model '{model}' has shape {shape}, which is too large") from None


def _decode_rare(
    name: str, datatype: Datatype, shape: list[int], count: int, data: Any, parameters: Any, model: str, tail: Tail | None
) -> Array | None:
    """Everything but plain JSON data: the array of binary data, or None when the data are JSON after all. Raises INVALID_INPUT."""
    where = f"input '{name}' of model '{model}'"
    size = None if parameters is None else tensor_parameters(parameters, where).get("binary_data_size")
    if size is None:
        if data is None:
            raise invalid(f"{where} has neither 'data' nor the parameter 'binary_data_size'")
        return None
    if data is not None:
        raise invalid(f"{where} has both 'data' and the parameter 'binary_data_size'; one of them must go")
    part = (tail or Tail(memoryview(b""))).take(size, where)
    try:
        return array_from(part, datatype, tuple(shape), count)
    except ValueError as error:
        raise invalid(f"{where}: {error}") from None


def _decode_raw(entry: Entry, body: bytes) -> InferRequest:
    signature = default_signature(entry)
    if signature.whole:
        return InferRequest(file_inputs(body, None, signature, entry.name), dialect="v2")
    return InferRequest(inwards(Tensors([raw_input(body, signature, entry.name)]), signature, entry.name), dialect="v2")


def _bad_count(array: Array, shape: list[int], count: int, name: str, model: str) -> ServingError:
    if not array.ndim:
        return invalid(f"the data of input '{name}' of model '{model}' must be a list, not a single element")
    return invalid(f"input '{name}' of model '{model}' has {array.size} elements, but its shape {shape} takes {count}")


def _bad_fields(item: dict[str, Any], model: str) -> ServingError:
    name = item.get("name")
    if type(name) is not str:
        return invalid(f"an input of the request to model '{model}' needs a 'name' that is a string, not {kind(name)}")
    if type(item.get("datatype")) is not str:
        return invalid(f"input '{name}' of model '{model}' needs a 'datatype' that is a string, not {kind(item.get('datatype'))}")
    shape = item.get("shape")
    if type(shape) is list:
        return invalid(f"input '{name}' of model '{model}' has {len(shape)} dimensions, at most {MAX_RANK} are possible")
    return invalid(f"input '{name}' of model '{model}' needs a 'shape' that is a list of integers, not {kind(item.get('shape'))}")


# --- encode ---


def encode(entry: Entry, request: InferRequest, response: InferResponse, plan: Plan) -> Answer:
    """The reply. Outputs are in the model's order. Raises INVALID_INPUT when an output cannot be written as it is wanted."""
    outputs = answered(entry, response)
    reply: dict[str, Any] = {"model_name": entry.name, "model_version": entry.version}
    if request.id:
        reply["id"] = request.id
    if response.parameters is not EMPTY and response.parameters:  # in this order: EMPTY's own length is a call into Python
        reply["parameters"] = dict(response.parameters)
    if plan is PLAIN:
        reply["outputs"] = [
            {
                "name": tensor.name,
                "shape": tensor.array.shape,
                "datatype": tensor.datatype.name,
                "data": tensor.array.ravel() if tensor.datatype in AS_NUMBERS else json_data(tensor, entry.name),
            }
            for tensor in outputs.items
        ]
        return Answer(200, _dump(reply, outputs, entry.name))
    binary: list[bytes | memoryview] = []
    reply["outputs"] = written = []
    for tensor, wanted in picked(entry, outputs, plan):
        output = {"name": tensor.name, "shape": tensor.array.shape, "datatype": tensor.datatype.name}
        if wanted.binary:
            data = raw_bytes(tensor)
            output["parameters"] = {"binary_data_size": len(data)}
            binary.append(data)
        else:
            output["data"] = json_data(tensor, entry.name)
        written.append(output)
    head = _dump(reply, outputs, entry.name)
    if not binary:
        return Answer(200, head)
    return Answer(200, b"".join([head, *binary]), b"application/octet-stream", [(LENGTH_HEADER, str(len(head)).encode())])


def json_data(tensor: Tensor, model: str) -> orjson.Fragment:
    """A tensor's elements as a flat list that orjson writes. Raises INVALID_INPUT for what JSON cannot carry here."""
    try:
        if tensor.datatype is not FP16 and tensor.datatype is not BF16:
            return fragment(tensor.array, tensor.datatype, nested=False, nonfinite="null")
        reason = f"{tensor.datatype} is not written in JSON"
    except NotJsonError as error:
        reason = str(error)
    raise invalid(f"output '{tensor.name}' of model '{model}' cannot be answered in JSON: {reason}; infer gives it with binary_data true")


def _dump(reply: dict[str, Any], outputs: Tensors, model: str) -> bytes:
    try:
        return orjson.dumps(reply, option=_NUMPY)
    except TypeError as error:
        raise ServingError(Kind.MODEL_FAILED, f"model '{model}' answered what JSON cannot carry: {error}") from error
