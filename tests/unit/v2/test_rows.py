"""The edge cases of the Open Inference Protocol (requirement O14), by number: each answers by its rule, and the server goes on."""

import gzip
import json
import struct
import zlib
from typing import Any, NamedTuple

import pytest

from tests.unit.v2.client import FLOWER, GOOD, Client, Headers, one_input, with_binary

INFER = "/v2/models/iris/infer"
FOUR = struct.pack("<4f", *FLOWER)
LENGTH = b"inference-header-content-length"


class Row(NamedTuple):
    """A request that is refused: with which status, and which words the text must hold."""

    row: str
    body: Any
    status: int
    words: tuple[str, ...] = ()
    path: str = INFER
    headers: Headers = ()
    method: str = "POST"


def binary(size: Any = 16, **fields: Any) -> dict[str, Any]:
    """A request whose only input is binary."""
    item = {"name": "input", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": size}, **fields}
    return {"inputs": [item]}


def without(key: str) -> dict[str, Any]:
    item = dict(GOOD["inputs"][0])
    del item[key]
    return {"inputs": [item]}


def refused_binary(row: str, document: Any, *parts: bytes, words: tuple[str, ...] = (), path: str = INFER) -> Row:
    body, headers = with_binary(document, *parts)
    return Row(row, body, 400, words, path, headers)


def length(value: str) -> Headers:
    return [(LENGTH, value.encode())]


TEXT = json.dumps(GOOD).encode()
ONE_TO_MANY = one_input([1.0] * 36, shape=(9, 4))

REFUSED = [
    Row("1-broken", b'{"inputs":[', 400, ("iris", "JSON")),
    Row("1-trailing", TEXT + b"x", 400, ("JSON",)),
    Row("1-not-an-object", b"[1]", 400, ("object", "a list")),
    Row("1-not-utf8", b'{"id":"\xff"}', 400, ("JSON",)),
    Row("2", b"", 400, ("JSON", "empty")),
    Row("3-no-inputs", {}, 400, ("inputs",)),
    Row("3-inputs-null", {"inputs": None}, 400, ("inputs", "null")),
    Row("3-inputs-object", {"inputs": {}}, 400, ("inputs", "object")),
    Row("3-input-number", {"inputs": [*GOOD["inputs"], 1]}, 400, ("object", "number")),
    Row("3-no-name", without("name"), 400, ("name",)),
    Row("3-no-shape", without("shape"), 400, ("input", "shape")),
    Row("3-no-datatype", without("datatype"), 400, ("input", "datatype")),
    Row("3-no-data", without("data"), 400, ("'input'", "data", "binary_data_size")),
    Row("3-empty-inputs", {"inputs": []}, 400, ("'input'",)),
    Row("3-data-bare", one_input(1.0, shape=(1,)), 400, ("'input'", "list")),
    Row("4-few", one_input([1.0, 2.0]), 400, ("'input'", "iris", "2", "4")),
    Row("4-many", one_input([1.0] * 5), 400, ("5", "4")),
    Row("4-ragged", one_input([[1.0, 2.0], [3.0]]), 400, ("'input'",)),
    Row("4-mixed", one_input([[1.0, 2.0], 3.0, 4.0]), 400, ("'input'",)),
    Row("5-rank", one_input(FLOWER, shape=(4,)), 400, ("'input'", "[4]", "[-1, 4]")),
    Row("5-dimension", one_input([1.0] * 5, shape=(1, 5)), 400, ("[1, 5]", "[-1, 4]")),
    Row("6", one_input(FLOWER, shape=(-1, 4)), 400, ("-1", "non-negative")),
    Row("7", one_input(FLOWER, shape=(1, 4.5)), 400, ("4.5",)),
    Row("7-text", one_input(FLOWER, shape=("1", 4)), 400, ("'1'",)),
    Row("7-boolean", one_input(FLOWER, shape=(True, 4)), 400, ("true",)),
    Row("8", one_input(FLOWER, shape=(1 << 62, 4)), 400, ("4 elements",)),
    Row("8-binary", with_binary(binary(shape=[1 << 62, 4]), FOUR)[0], 400, ("shape",), headers=with_binary(binary(shape=[1 << 62, 4]))[1]),
    Row("8-zero", one_input([], shape=(0, 1 << 62, 1 << 62)), 400, ("too large",)),
    Row("8-rank", one_input(FLOWER, shape=(1,) * 40), 400, ("40 dimensions",)),
    Row("9", one_input([1, 2, 3, 4], "INT32"), 400, ("INT32", "FP32")),
    Row("10", one_input(FLOWER, "FLOAT"), 400, ("FLOAT", "FP32")),
    Row("10-lower", one_input(FLOWER, "fp32"), 400, ("fp32",)),
    Row("10-complex", one_input(FLOWER, "COMPLEX64"), 400, ("COMPLEX64",)),
    Row("11", one_input(["5", 1, 2, 3]), 400, ("'input'", '"5"', "FP32")),
    Row("12-text", one_input(["a", 1, 2, 3]), 400, ('"a"',)),
    Row("12-null", one_input([None, 1, 2, 3]), 400, ("null",)),
    Row("12-true", one_input([True, 1, 2, 3]), 400, ("true",)),
    Row("12-object", one_input([{}, 1, 2, 3]), 400, ("{}",)),
    Row("13-fraction", one_input([1.5], "INT64", (1,), "x"), 400, ("1.5", "INT64"), "/v2/models/identity_int64/infer"),
    Row("13-range", one_input([1 << 63], "INT64", (1,), "x"), 400, ("9223372036854775808",), "/v2/models/identity_int64/infer"),
    Row("13-far", one_input([1 << 70], "INT64", (1,), "x"), 400, ("INT64",), "/v2/models/identity_int64/infer"),
    Row("13-int8", one_input([128], "INT8", (1,), "x"), 400, ("128", "INT8"), "/v2/models/identity_int8/infer"),
    Row("13-uint8", one_input([-1], "UINT8", (1,), "x"), 400, ("-1", "UINT8"), "/v2/models/identity_uint8/infer"),
    Row("14", one_input([0, 1], "BOOL", (2,), "x"), 400, ("true or false",), "/v2/models/identity_bool/infer"),
    Row("15-nan", TEXT.replace(b"5.1", b"NaN"), 400, ("JSON",)),
    Row("15-1e400", TEXT.replace(b"5.1", b"1e400"), 400, ("JSON",)),
    Row("16-in", one_input([1.0], "FP16", (1,), "x"), 400, ("FP16", "binary"), "/v2/models/identity_fp16/infer"),
    Row("16-bf16-in", one_input([1.0], "BF16", (1,), "x"), 400, ("BF16", "binary"), "/v2/models/identity_bf16/infer"),
    Row("17-twice", {"inputs": GOOD["inputs"] * 2}, 400, ("'input'", "twice")),
    Row("17-extra", {"inputs": [*GOOD["inputs"], *one_input([1.0], shape=(1,), name="odd")["inputs"]]}, 400, ("'odd'", "'input'")),
    Row("18", one_input(FLOWER, outputs=[{"name": "odd"}]), 400, ("'odd'", "'label'")),
    Row("18-no-name", one_input(FLOWER, outputs=[{}]), 400, ("outputs[0]", "name")),
    Row("18-not-a-list", one_input(FLOWER, outputs={"name": "label"}), 400, ("outputs", "list")),
    refused_binary("20", binary(data=FLOWER), FOUR, words=("both",)),
    refused_binary("21-left", binary(), FOUR + b"12", words=("2 bytes", "left over")),
    refused_binary("21-few", binary(), FOUR[:-1], words=("16", "15")),
    refused_binary("21-size", binary(12), FOUR[:12], words=("12 bytes", "16")),
    refused_binary("21-negative", binary(-16), FOUR, words=("-16",)),
    refused_binary("21-fraction", binary(16.0), FOUR, words=("16.0",)),
    refused_binary("21-text", binary("16"), FOUR, words=("'16'",)),
    refused_binary("21-boolean", binary(True), FOUR, words=("true",)),
    refused_binary("21-none-wanted", GOOD, FOUR, words=("left over",)),
    Row("22-negative", TEXT, 400, ("-1",), headers=length("-1")),
    Row("22-beyond", TEXT, 400, (str(len(TEXT) + 1), str(len(TEXT))), headers=length(str(len(TEXT) + 1))),
    Row("22-inside", TEXT, 400, ("JSON",), headers=length("10")),
    Row("22-huge", TEXT, 400, ("decimal",), headers=length("9" * 5000)),
    Row("23-abc", TEXT, 400, ("abc",), headers=length("abc")),
    Row("23-12abc", TEXT, 400, ("12abc",), headers=length("12abc")),
    Row("23-empty", TEXT, 400, ("decimal",), headers=length("")),
    Row("23-plus", TEXT, 400, ("+12",), headers=length("+12")),
    Row("24", with_binary(binary(), FOUR)[0], 400, ("JSON",)),
    Row("24-nothing-behind", binary(), 400, ("Inference-Header-Content-Length",)),
    Row("25", ONE_TO_MANY, 400, ("9", "8", "iris")),
    Row("26", one_input([], shape=(0, 4)), 400, ("iris", "batch")),
    Row("27", one_input(FLOWER, id=5), 400, ("id", "number")),
    Row("27-list", one_input(FLOWER, id=["a"]), 400, ("id", "list")),
    Row("29-metadata", b"", 404, ("nobody",), "/v2/models/nobody", method="GET"),
    Row("29-infer", GOOD, 404, ("nobody",), "/v2/models/nobody/infer"),
    Row("29-ready", b"", 404, ("nobody",), "/v2/models/nobody/ready", method="GET"),
    Row("30-version", GOOD, 404, ("iris", "9", "2, 1"), "/v2/models/iris/versions/9/infer"),
    Row("30-metadata", b"", 404, ("9",), "/v2/models/iris/versions/9", method="GET"),
    Row("30-ready", b"", 404, ("9",), "/v2/models/iris/versions/9/ready", method="GET"),
    Row("30-text", GOOD, 404, ("abc",), "/v2/models/iris/versions/abc/infer"),
    Row("30-label", GOOD, 404, ("@stable",), "/v2/models/iris/versions/@stable/infer"),
    Row("30-empty", GOOD, 404, (), "/v2/models/iris/versions//infer"),
    Row("31-method", b"", 405, ("GET", "POST"), method="GET"),
    Row("31-method-metadata", GOOD, 405, ("DELETE", "GET"), "/v2/models/iris", method="DELETE"),
    Row("31-path", GOOD, 404, ("/v2/nothing",), "/v2/nothing"),
    Row("31-below", GOOD, 404, (), "/v2/models/iris/infer/more"),
    Row("31-half", b"", 404, (), "/v2/healt", method="GET"),
    Row("33-br", GOOD, 415, ("br", "gzip"), headers=[(b"content-encoding", b"br")]),
    Row("34-corrupt", b"no gzip", 400, ("gzip",), headers=[(b"content-encoding", b"gzip")]),
    Row("34-truncated", gzip.compress(TEXT)[:-9], 400, ("gzip",), headers=[(b"content-encoding", b"gzip")]),
    Row("34-deflate", zlib.compress(TEXT)[:-3], 400, ("deflate",), headers=[(b"content-encoding", b"deflate")]),
    Row("34-empty", b"", 400, ("gzip",), headers=[(b"content-encoding", b"gzip")]),
    *(
        Row(
            f"35-{kind}",
            one_input(FLOWER, outputs=[{"name": "probabilities", "parameters": {"classification": k}}]),
            400,
            ("classification",),
        )
        for kind, k in (("negative", -1), ("text", "2"), ("fraction", 1.5), ("boolean", True))
    ),
    Row("36-request", one_input(FLOWER, parameters={"a": {}}), 400, ("'a'", "object")),
    Row("36-list", one_input(FLOWER, parameters={"a": []}), 400, ("'a'", "list")),
    Row("36-output", one_input(FLOWER, outputs=[{"name": "label", "parameters": {"a": {}}}]), 400, ("'a'", "object")),
    Row("36-input", {"inputs": [{**GOOD["inputs"][0], "parameters": {"a": [1]}}]}, 400, ("'a'", "list")),
    Row("36-not-an-object", one_input(FLOWER, parameters=[]), 400, ("parameters", "list")),
    Row("37", b'{"inputs":[{"name":"input","shape":[1,4],"datatype":"FP32","data":' + b"[" * 5000 + b"]" * 5000 + b"}]}", 400, ("JSON",)),
    Row("37-100000", b"[" * 100_000, 400, ("JSON",)),
    Row(
        "37-900", b'{"inputs":[{"name":"input","shape":[0],"datatype":"FP32","data":' + b"[" * 900 + b"]" * 900 + b"}]}", 400, ("'input'",)
    ),
    Row("37-objects", b'{"a":' * 50_000, 400, ("JSON",)),
    Row("44", one_input([5], "BYTES", (1,), "x"), 400, ("5", "BYTES"), "/v2/models/identity_bytes/infer"),
]


@pytest.mark.parametrize("case", [pytest.param(row, id=f"O-row-{row.row}") for row in REFUSED])
def test_a_wrong_request_is_refused_by_rule(server: Client, case: Row) -> None:
    """The status is the rule's, the text names what was wrong, and the next good request is answered."""
    reply = server.send(case.method, case.path, case.body, case.headers)
    assert reply.status == case.status, reply.body
    for word in case.words:
        assert word in reply.error
    assert server.infer("iris", GOOD).outputs["label"]["data"] == [1]


class Accepted(NamedTuple):
    """A request of which one may think that it is refused."""

    row: str
    body: Any
    headers: Headers = ()
    path: str = INFER
    method: str = "POST"


ACCEPTED = [
    Accepted("4-other-nesting", one_input([[5.1, 3.4], [1.5, 0.2]])),
    Accepted("4-deep", one_input([[[[5.1]]], [[[3.4]]], [[[1.5]]], [[[0.2]]]])),
    Accepted("11-integers-for-floats", one_input([5, 3, 1, 0])),
    Accepted("29-known", b"", path="/v2/models/iris/ready", method="GET"),
    Accepted("30-known", GOOD, path="/v2/models/iris/versions/1/infer"),
    Accepted("32-text", GOOD, [(b"content-type", b"text/plain")]),
    Accepted("32-form", GOOD, [(b"content-type", b"application/x-www-form-urlencoded")]),
    Accepted("32-none", GOOD),
    Accepted("33-gzip", gzip.compress(TEXT), [(b"content-encoding", b"gzip")]),
    Accepted("33-deflate", zlib.compress(TEXT), [(b"content-encoding", b"deflate")]),
    Accepted("33-identity", GOOD, [(b"content-encoding", b"identity")]),
    Accepted("33-case", gzip.compress(TEXT), [(b"content-encoding", b"GZIP")]),
    Accepted("35-zero", one_input(FLOWER, outputs=[{"name": "probabilities", "parameters": {"classification": 0}}])),
    Accepted("36-null", one_input(FLOWER, parameters={"content_type": None, "a": 1, "b": "x", "c": True, "d": 0.5})),
    Accepted("38", b"", path="/v2/", method="GET"),
    Accepted("22-all-json", TEXT, length(str(len(TEXT)))),
    Accepted("22-leading-zero", TEXT, length(f"0{len(TEXT)}")),
]


@pytest.mark.parametrize("case", [pytest.param(row, id=f"O-row-{row.row}") for row in ACCEPTED])
def test_what_is_right_is_answered(server: Client, case: Accepted) -> None:
    """Oddities that clients really send are 200."""
    reply = server.send(case.method, case.path, case.body, case.headers)
    assert reply.status == 200, reply.body
    assert reply.media_type == b"application/json"


def test_row_16_out(server: Client) -> None:
    """An FP16 output is refused in JSON with a hint, and comes as binary data when asked so."""
    body, headers = with_binary(
        {"inputs": [{"name": "x", "shape": [2], "datatype": "FP16", "parameters": {"binary_data_size": 4}}]}, struct.pack("<2e", 1.5, -2)
    )
    reply = server.infer("identity_fp16", body, headers)
    assert reply.status == 400
    assert "'y'" in reply.error
    assert "binary_data" in reply.error
    body, headers = with_binary(
        {
            "inputs": [{"name": "x", "shape": [2], "datatype": "FP16", "parameters": {"binary_data_size": 4}}],
            "parameters": {"binary_data_output": True},
        },
        struct.pack("<2e", 1.5, -2),
    )
    head, data = server.infer("identity_fp16", body, headers).split()
    assert head["outputs"][0]["datatype"] == "FP16"
    assert struct.unpack("<2e", data) == (1.5, -2)


def test_row_19(server: Client) -> None:
    """With binary_data_output, an output that is listed without binary_data is JSON; one that is not listed would be binary."""
    listed = server.infer("iris", one_input(FLOWER, parameters={"binary_data_output": True}, outputs=[{"name": "label"}]))
    assert listed.outputs["label"]["data"] == [1]
    head, data = server.infer("iris", one_input(FLOWER, parameters={"binary_data_output": True})).split()
    assert [o["parameters"] for o in head["outputs"]] == [{"binary_data_size": 8}, {"binary_data_size": 12}]
    assert len(data) == 20


def test_row_28(server: Client) -> None:
    """Without an id, or with an empty one, the reply has none; otherwise the same text."""
    assert "id" not in server.infer("iris", GOOD).json
    assert "id" not in server.infer("iris", {**GOOD, "id": ""}).json
    assert "id" not in server.infer("iris", {**GOOD, "id": None}).json
    assert server.infer("iris", {**GOOD, "id": 'é\u0000"x'}).json["id"] == 'é\u0000"x'


def test_an_unknown_model_is_found_before_its_body_is_looked_at(server: Client) -> None:
    """A broken body for a model that does not exist is 404: there is nothing to compare it with."""
    assert server.infer("nobody", b"{").status == 404
