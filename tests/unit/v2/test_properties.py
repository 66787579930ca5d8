"""Properties: what is sent through an identity model comes back, for every datatype and form; and no bytes at all make it a 5xx."""

import json
import math
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dragoman.core.tensors import BYTES, Datatype, pack_bytes
from tests.unit.v2.client import FLOWER, GOOD, WIRE_DATATYPES, Client, with_binary

QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=150)
FUZZ = settings(QUIET, max_examples=1000)

JSON_DATATYPES = [d for d in WIRE_DATATYPES if d.name not in ("FP16", "BF16")]


def elements(datatype: Datatype, as_json: bool) -> st.SearchStrategy[Any]:
    """Elements as Python has them: what JSON can carry, or anything that the bits can hold."""
    if datatype is BYTES:
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(str.encode) if as_json else st.binary(max_size=20)
    if datatype.kind == "bool":
        return st.booleans()
    if datatype.kind == "float":
        width: Any = 8 * datatype.size
        return st.floats(width=width, allow_nan=not as_json, allow_infinity=not as_json)
    limits = np.iinfo(datatype.numpy)
    return st.integers(int(limits.min), int(limits.max))


@st.composite
def arrays(draw: st.DrawFn, as_json: bool) -> tuple[Datatype, np.ndarray[Any, Any]]:
    """An array of any datatype that this form can carry, of rank 0 to 4, empty ones too."""
    datatype = draw(st.sampled_from(JSON_DATATYPES if as_json else WIRE_DATATYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    count = math.prod(shape)
    values = draw(st.lists(elements(datatype, as_json), min_size=count, max_size=count))
    array: np.ndarray[Any, Any] = np.empty(count, datatype.numpy)
    array[:] = values
    return datatype, array.reshape(shape)


def as_text(datatype: Datatype, array: np.ndarray[Any, Any], nested: bool) -> Any:
    """The data of a JSON input."""
    flat = [item.decode() if datatype is BYTES else item for item in array.ravel().tolist()]
    if not nested or not array.ndim:
        return flat
    if datatype is BYTES:
        made = np.empty(len(flat), object)
        made[:] = flat
        return made.reshape(array.shape).tolist()
    return array.tolist()


def from_text(datatype: Datatype, data: list[Any]) -> np.ndarray[Any, Any]:
    """The array that a JSON output holds."""
    array: np.ndarray[Any, Any] = np.empty(len(data), datatype.numpy)
    array[:] = [item.encode() if datatype is BYTES else item for item in data]
    return array


def as_bytes(datatype: Datatype, array: np.ndarray[Any, Any]) -> bytes:
    return pack_bytes(array) if datatype is BYTES else array.tobytes()


@QUIET
@given(case=arrays(as_json=True), nested=st.booleans())
def test_json_to_json(server: Client, case: tuple[Datatype, np.ndarray[Any, Any]], nested: bool) -> None:
    """Exactly the same elements, flat, under the same shape."""
    datatype, array = case
    item = {"name": "x", "shape": list(array.shape), "datatype": datatype.name, "data": as_text(datatype, array, nested)}
    output = server.infer(f"identity_{datatype.name.lower()}", {"inputs": [item]}).outputs["y"]
    assert output["shape"] == list(array.shape)
    assert output["datatype"] == datatype.name
    assert as_bytes(datatype, from_text(datatype, output["data"])) == as_bytes(datatype, array)


@QUIET
@given(case=arrays(as_json=False), padding=st.integers(0, 8))
def test_binary_to_binary(server: Client, case: tuple[Datatype, np.ndarray[Any, Any]], padding: int) -> None:
    """Bit for bit, NaN payloads too, wherever the bytes lie in the body."""
    datatype, array = case
    data = as_bytes(datatype, array)
    item = {"name": "x", "shape": list(array.shape), "datatype": datatype.name, "parameters": {"binary_data_size": len(data)}}
    body, headers = with_binary({"inputs": [item], "parameters": {"binary_data_output": True}, "id": "x" * padding}, data)
    reply = server.infer(f"identity_{datatype.name.lower()}", body, headers)
    assert reply.status == 200, reply.body
    head, back = reply.split()
    assert back == data
    assert head["outputs"][0]["shape"] == list(array.shape)


@QUIET
@given(case=arrays(as_json=True), binary_in=st.booleans(), binary_out=st.booleans())
def test_mixed_forms_agree(server: Client, case: tuple[Datatype, np.ndarray[Any, Any]], binary_in: bool, binary_out: bool) -> None:
    """However a tensor comes in and goes out, the model sees the same."""
    datatype, array = case
    data = as_bytes(datatype, array)
    item: dict[str, Any] = {"name": "x", "shape": list(array.shape), "datatype": datatype.name}
    if binary_in:
        item["parameters"] = {"binary_data_size": len(data)}
    else:
        item["data"] = as_text(datatype, array, nested=False)
    document = {"inputs": [item], "outputs": [{"name": "y", "parameters": {"binary_data": binary_out}}]}
    body, headers = with_binary(document, data if binary_in else b"")
    reply = server.infer(f"identity_{datatype.name.lower()}", body, headers)
    assert reply.status == 200, reply.body
    if binary_out:
        assert reply.split()[1] == data
    else:
        assert as_bytes(datatype, from_text(datatype, reply.outputs["y"]["data"])) == data


# --- nothing makes it a 5xx ---

SCALARS = st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=12
)
NAMES = st.sampled_from(["input", "x", "a", "", "label"]) | VALUES
SHAPES = st.lists(st.integers(-2, 5) | st.sampled_from([1 << 31, 1 << 62, 1 << 63]) | VALUES, max_size=5) | VALUES
KEYS = "binary_data_size binary_data binary_data_output classification timeout priority sequence_id triton_x shared_memory_region odd"
PARAMETERS = st.dictionaries(st.sampled_from(KEYS.split()), st.sampled_from([0, 1, 4, 16, 1 << 63, True, False]) | VALUES, max_size=3)
INPUT = st.fixed_dictionaries(
    {},
    optional={
        "name": NAMES,
        "shape": SHAPES,
        "datatype": st.sampled_from([d.name for d in WIRE_DATATYPES]) | VALUES,
        "data": st.lists(st.floats(width=32) | st.integers(-3, 300) | st.text(max_size=3) | st.booleans(), max_size=6) | VALUES,
        "parameters": PARAMETERS | VALUES,
    },
)
REQUEST = st.fixed_dictionaries(
    {},
    optional={
        "id": VALUES,
        "inputs": st.lists(INPUT | st.just(GOOD["inputs"][0]) | VALUES, max_size=3) | VALUES,
        "outputs": st.lists(st.fixed_dictionaries({}, optional={"name": NAMES, "parameters": PARAMETERS}) | VALUES, max_size=3) | VALUES,
        "parameters": PARAMETERS | VALUES,
    },
)
MODELS = st.sampled_from(["iris", "adder", "text", *(f"identity_{d.name.lower()}" for d in WIRE_DATATYPES)])
LENGTHS = st.sampled_from([None, b"0", b"-1", b"5", b"99999", b"x"]) | st.integers(0, 200).map(lambda n: str(n).encode())


def survives(server: Client, path: str, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """An answer, never a 5xx, always valid: JSON of this protocol or its binary form."""
    reply = server.send("POST", path, body, headers)
    assert reply.status in (200, 400, 404, 413, 415), reply
    if reply.status != 200:
        assert reply.error
    elif b"inference-header-content-length" in reply.headers:
        assert reply.split()[0]["outputs"]
    else:
        assert "model_name" in reply.json


@FUZZ
@given(model=MODELS, request=REQUEST, tail=st.binary(max_size=40), with_length=st.booleans(), route=st.sampled_from(["infer", "generate"]))
def test_structured_nonsense(server: Client, model: str, request: dict[str, Any], tail: bytes, with_length: bool, route: str) -> None:
    """Requests that look right in parts."""
    head = json.dumps(request).encode()
    headers = [(b"inference-header-content-length", str(len(head)).encode())] if with_length else []
    survives(server, f"/v2/models/{model}/{route}", head + (tail if with_length else b""), headers)


@FUZZ
@given(
    model=MODELS,
    body=st.binary(max_size=200),
    length=LENGTHS,
    encoding=st.sampled_from([None, b"gzip", b"deflate", b"identity", b"br", b"\xff"]),
    route=st.sampled_from(["infer", "generate"]),
)
def test_random_bytes(server: Client, model: str, body: bytes, length: bytes | None, encoding: bytes | None, route: str) -> None:
    """Requests that are noise."""
    headers = [(b"inference-header-content-length", length)] if length is not None else []
    if encoding is not None:
        headers.append((b"content-encoding", encoding))
    survives(server, f"/v2/models/{model}/{route}", body, headers)


@FUZZ
@given(data=st.data())
def test_damaged_requests(server: Client, data: st.DataObject) -> None:
    """A good request with a few bytes changed, cut out or doubled."""
    item = {"name": "input", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}
    good, headers = data.draw(
        st.sampled_from([(json.dumps(GOOD).encode(), []), with_binary({"inputs": [item], "id": "7"}, np.array(FLOWER, "f4").tobytes())])
    )
    body = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                body[at] = data.draw(st.integers(0, 255))
            case 1:
                del body[at]
            case _:
                body[at:at] = body[at : at + data.draw(st.integers(1, 20))]
    survives(server, "/v2/models/iris/infer", bytes(body), headers)
