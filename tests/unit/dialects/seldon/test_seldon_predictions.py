"""Seldon's protocol: every representation in and the same one out, models of tensors and of rows, and errors in its words."""

import gzip
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dragoman.core import tensors as t
from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State
from dragoman.core.tensors import Signature, Tensor, TensorSpec
from dragoman.dialects.seldon.errors import refusal
from dragoman.dialects.seldon.rest import Seldon
from tests.fakes_scoring import Caller, document, failing, rows_models, toys
from tests.fakes_tfs import Reply, Toy, answering, array, echo
from tests.models.snippets import same_process

PATH = "/api/v1.0/predictions"
MATRIX = [[1.0, 2.0], [3.0, 4.5]]


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    with same_process():
        yield Caller({**toys(), **rows_models(tmp_path_factory.mktemp("rows"))}, Seldon)


def post(caller: Caller, body: Any, model: str = "matrix", headers: dict[str, str] | None = None) -> Reply:
    return caller.send("POST", PATH, body, headers, (model, "1"))


def answered(caller: Caller, body: Any, model: str = "matrix") -> Any:
    """The answer without its meta, which is always empty and last."""
    answer = document(post(caller, body, model))
    assert list(answer)[-1] == "meta"
    assert answer.pop("meta") == {}
    assert len(answer) == 1
    return answer


def refused(reply: Reply, reason: str = "MICROSERVICE_BAD_DATA", status: int = 400) -> str:
    assert reply.status == status, reply.body
    assert reply.media_type == b"application/json"
    assert list(reply.json) == ["status"]
    told = reply.json["status"]
    assert list(told) == ["code", "info", "reason", "status"]
    assert (told["code"], told["status"], told["reason"]) == (-1, 1, reason)
    return str(told["info"])


def tensor(*shape: int, values: list[Any]) -> dict[str, Any]:
    return {"data": {"tensor": {"shape": list(shape), "values": values}}}


# --- data ---


def test_an_ndarray_is_answered_with_one(caller: Caller) -> None:
    """With the names of the output's columns; those of the request do not matter to a model of one matrix."""
    expected = {"data": {"names": ["y:0", "y:1"], "ndarray": MATRIX}}
    assert answered(caller, {"data": {"names": ["p", "q"], "ndarray": MATRIX}}) == expected
    assert answered(caller, {"data": {"names": [], "ndarray": MATRIX}}) == expected
    assert answered(caller, {"meta": {"puid": "x"}, "data": {"ndarray": MATRIX}}) == expected


def test_a_tensor_is_answered_with_one(caller: Caller) -> None:
    """Flat values and their shape, of which one size may be -1."""
    expected = {"data": {"names": ["y:0", "y:1"], "tensor": {"shape": [2, 2], "values": [1.0, 2.0, 3.0, 4.5]}}}
    for shape in ((2, 2), (-1, 2), (2, -1)):
        assert answered(caller, tensor(*shape, values=[1, 2, 3, 4.5])) == expected
    assert answered(caller, {"data": {"tensor": {"values": [1, 2]}}}, "whole") == {
        "data": {"names": ["y"], "tensor": {"shape": [2], "values": [1, 2]}}
    }
    cube = answered(caller, tensor(2, -1, 1, values=[1, 2, 3, 4]), "open")
    assert cube == {"data": {"names": [], "tensor": {"shape": [2, 2, 1], "values": [1, 2, 3, 4]}}}


def test_long_tensors(caller: Caller) -> None:
    """Through the packed reader."""
    values = [i / 4 for i in range(10_000)]
    assert answered(caller, tensor(-1, 2, values=values))["data"]["tensor"] == {"shape": [5000, 2], "values": values}
    rows = [[i, i / 4] for i in range(5_000)]
    assert answered(caller, {"data": {"ndarray": rows}})["data"]["ndarray"] == rows


def test_names_pick_columns(caller: Caller) -> None:
    """Where the model has such; in any order, and by place without names."""
    expected = {"data": {"names": ["total", "name"], "ndarray": [[3.0, "x"]]}}
    assert answered(caller, {"data": {"names": ["name", "b", "z", "a"], "ndarray": [["x", 2, 0, 1]]}}, "columns") == expected
    assert answered(caller, {"data": {"ndarray": [[1, 1, "x", 1]]}}, "columns") == expected


def test_names_of_classes(caller: Caller) -> None:
    """A model that has names for its columns gives them."""
    assert answered(caller, {"data": {"ndarray": [[1, 2]]}}, "classes") == {
        "data": {"names": ["red", "green", "blue"], "ndarray": [[0.0, 1.0, 0.0]]}
    }


def test_plain_lists(caller: Caller) -> None:
    """One cell per row."""
    assert answered(caller, {"data": {"ndarray": ["a", "é"]}}, "words") == {"data": {"names": ["y"], "ndarray": ["a", "é"]}}
    assert answered(caller, {"data": {"names": ["t"], "ndarray": ["a"]}}, "words") == {"data": {"names": ["y"], "ndarray": ["a"]}}
    assert answered(caller, {"data": {"names": ["x"], "ndarray": [2]}}, "one") == {"data": {"names": ["output"], "ndarray": [[4.0]]}}


def test_several_outputs_are_one_table(caller: Caller) -> None:
    """Beside each other; as a tensor of floats if they are all numbers."""
    image = [0] * 784
    names = ["classes", *(f"probabilities:{i}" for i in range(10))]
    row = [7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]
    assert answered(caller, {"data": {"ndarray": [image]}}, "digits") == {"data": {"names": names, "ndarray": [row]}}
    assert answered(caller, tensor(1, 784, values=image), "digits") == {
        "data": {"names": names, "tensor": {"shape": [1, 11], "values": row}}
    }
    mixed = answered(caller, {"data": {"names": ["a", "b", "name"], "ndarray": [[1, 2, "x"]]}}, "columns")
    assert mixed == {"data": {"names": ["total", "name"], "ndarray": [[3.0, "x"]]}}


def test_outputs_that_make_no_table() -> None:
    """Are JSON by their names."""
    outputs = [Tensor("s", t.FP32, array(1.5)), Tensor("v", t.INT64, array([1, 2], "i8")), Tensor("c", t.FP32, array([[[1.0]], [[2.0]]]))]
    caller = Caller({"m": answering(*outputs)}, Seldon)
    expected = {"jsonData": {"s": 1.5, "v": [1, 2], "c": [[[1.0]], [[2.0]]]}}
    assert answered(caller, {"data": {"ndarray": [[1]]}}, "m") == expected
    assert answered(caller, {"jsonData": [[1]]}, "m") == expected


def test_outputs_of_odd_types() -> None:
    """Booleans are numbers in a tensor, bytes that are no text base64, a single value a list of one; not finite is null."""
    raw = np.array([b"\xff"], object)
    half = np.array([0x3F80], "<u2")
    cases: list[tuple[Tensor, Any, Any]] = [
        (Tensor("o", t.BOOL, np.array([True, False])), {"shape": [2], "values": [1.0, 0.0]}, [True, False]),
        (Tensor("o", t.BYTES, raw), None, ["/w=="]),
        (Tensor("o", t.FP64, np.array(math.inf)), {"shape": [], "values": [None]}, [None]),
        (Tensor("o", t.BF16, half), {"shape": [1], "values": [1.0]}, [1.0]),
    ]
    for output, values, nested in cases:
        caller = Caller({"m": answering(output)}, Seldon)
        assert answered(caller, {"data": {"ndarray": [[1]]}}, "m") == {"data": {"names": ["o"], "ndarray": nested}}
        expected = {"names": ["o"], "ndarray": nested} if values is None else {"names": ["o"], "tensor": values}
        assert answered(caller, tensor(1, 1, values=[1]), "m") == {"data": expected}


def test_outputs_that_json_cannot_carry() -> None:
    """The model's failure."""
    odd = Caller({"m": answering(Tensor("o", t.COMPLEX64, np.array([1j], "c8")))}, Seldon)
    assert "JSON cannot carry" in refused(post(odd, {"data": {"ndarray": [[1]]}}, "m"), "MICROSERVICE_INTERNAL_ERROR", 500)


# --- rows ---


def test_rows_of_data(caller: Caller) -> None:
    """Columns by name or by place; the answer's names are those of the row's fields."""
    expected = {"data": {"names": ["text", "score"], "ndarray": [["aa", 1.0], ["b", 2.5]]}}
    assert answered(caller, {"data": {"names": ["weight", "text", "count"], "ndarray": [[1, "a", 2], [2.5, "b", 1]]}}, "frame") == expected
    assert answered(caller, {"data": {"ndarray": [["a", 1, 2], ["b", 2.5, 1]]}}, "frame") == expected
    assert answered(caller, tensor(2, 1, values=[1, 2]), "one") == {
        "data": {"names": ["output"], "tensor": {"shape": [2, 1], "values": [2.0, 4.0]}}
    }
    mixed = [{"y": 0.0}, {"x": 1.0, "list": [1.0, "a"]}]
    assert answered(caller, {"data": {"ndarray": [[0], [1]]}}, "any") == {"data": {"names": [], "ndarray": mixed}}


def test_json_data(caller: Caller) -> None:
    """One object is one row, a list of objects several, other values those of the only input; the answer has the same form."""
    row, out = {"text": "a", "weight": 1}, {"text": "a", "score": 1.0}
    assert answered(caller, {"jsonData": row}, "frame") == {"jsonData": out}
    assert answered(caller, {"jsonData": [row, row]}, "frame") == {"jsonData": [out, out]}
    assert answered(caller, {"jsonData": 2}, "one") == {"jsonData": {"output": 4.0}}
    assert answered(caller, {"jsonData": [2, 3]}, "one") == {"jsonData": [{"output": 4.0}, {"output": 6.0}]}
    assert answered(caller, {"jsonData": MATRIX}) == {"jsonData": MATRIX}
    assert answered(caller, {"jsonData": [{"x": row} for row in MATRIX]}) == {"jsonData": MATRIX}
    assert answered(caller, {"jsonData": 5}, "whole") == {"jsonData": 5}


def test_text_data(caller: Caller) -> None:
    """For models of text, of tensors and of rows; what answers no text comes as JSON or an array."""
    assert answered(caller, {"strData": "é"}, "words") == {"strData": "é"}
    assert answered(caller, {"strData": "é"}, "shout") == {"strData": "É"}
    assert answered(caller, {"strData": "aGk="}, "copy") == {"binData": "aGk="}
    assert answered(caller, {"strData": "aGk="}, "size") == {"jsonData": {"output": 2}}
    assert "String" in refused(post(caller, {"strData": "x"}, "matrix"))
    assert "'weight'" in refused(post(caller, {"strData": "x"}, "frame"))


def test_binary_data(caller: Caller) -> None:
    """Base64 both ways, for tensors and for files."""
    assert answered(caller, {"binData": "/wA="}, "words") == {"binData": "/wA="}
    assert answered(caller, {"binData": "aGk="}, "words") == {"binData": "aGk="}
    assert answered(caller, {"binData": "/wA="}, "copy") == {"binData": "/wA="}
    assert answered(caller, {"binData": "/wA="}, "size") == {"jsonData": {"output": 2}}
    assert answered(caller, {"binData": "aGk="}, "shout") == {"strData": "HI"}


# --- paths ---


def test_both_names_of_the_path() -> None:
    """v0.1 is the older one; at the root the default model answers, below a prefix the pinned one."""
    caller = Caller({"a": echo(t.FP32, (-1, 2)), "b/1": echo(t.INT64, (-1, 2))}, Seldon)
    body = {"data": {"ndarray": [[1, 2]]}}
    for path in (PATH, "/api/v0.1/predictions"):
        assert document(caller.send("POST", path, body))["data"]["ndarray"] == [[1.0, 2.0]]
        assert document(caller.send("POST", path, body, pinned=("b", "1")))["data"]["ndarray"] == [[1, 2]]
        assert document(caller.send("POST", path, body, pinned=("b", "")))["data"]["ndarray"] == [[1, 2]]
        assert "no version '2'" in refused(caller.send("POST", path, body, pinned=("b", "2")), "NOT_FOUND", 404)
        refused(caller.send("GET", path), status=405)
    refused(caller.send("POST", "/api/v1.0/feedback", body), "NOT_FOUND", 404)
    caller.client.tell("new", "1", State.LOADING)
    refused(caller.send("POST", PATH, body, pinned=("new", "1")), "NOT_READY", 503)
    assert caller.client.dialect.refuse(caller.client.request("GET", PATH), ServingError(Kind.UNSUPPORTED, "", what="method")).headers == [
        (b"allow", b"POST")
    ]


def test_requests_are_metered_as_seldons() -> None:
    """Under the name of the protocol."""
    toy = echo(t.FP32, (-1, 2))
    answered(Caller({"m": toy}, Seldon), {"data": {"ndarray": [[1, 2]]}}, "m")
    assert [seen.dialect for seen in toy.seen] == ["seldon"]


# --- errors ---


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "must be a JSON object"),
        ({}, "exactly one of 'data', 'strData', 'binData' and 'jsonData'; it has none"),
        ({"data": {"ndarray": [[1]]}, "strData": "x"}, "it has data and strData"),
        ({"data": []}, "'data' must be an object"),
        ({"data": {}}, "either 'ndarray' or 'tensor'"),
        ({"data": {"ndarray": [], "tensor": {}}}, "either 'ndarray' or 'tensor'"),
        ({"data": {"tftensor": {}}}, "either 'ndarray' or 'tensor'"),
        ({"data": {"ndarray": 1}}, "'ndarray' must be a list"),
        ({"data": {"ndarray": [[1], [2, 3]]}}, "different lengths"),
        ({"data": {"ndarray": [[1, 2], 3]}}, "row 1 is no list"),
        ({"data": {"names": "a", "ndarray": [[1]]}}, "names of 'data'"),
        ({"data": {"names": [1], "ndarray": [[1]]}}, "names of 'data'"),
        ({"data": {"names": ["a"], "ndarray": [[1, 2]]}}, "2 cells in a row for 1 column names"),
        ({"data": {"names": ["a", "a"], "ndarray": [[1, 2]]}}, "twice"),
        ({"data": {"tensor": []}}, "'shape' and 'values'"),
        ({"data": {"tensor": {"shape": [1]}}}, "'shape' and 'values'"),
        (tensor(2, 3, values=[1]), "1 values do not make a tensor of the shape [2, 3]"),
        (tensor(-1, -1, values=[1]), "do not make a tensor"),
        (tensor(-1, 0, values=[]), "do not make a tensor"),
        (tensor(-1, 3, values=[1, 2, 3, 4]), "do not make a tensor"),
        (tensor(-2, values=[1]), "list of sizes"),
        (tensor(1 << 62, 1 << 62, values=[1]), "do not make a tensor"),
        (tensor(*[1] * 40, values=[1]), "list of sizes"),
        ({"data": {"tensor": {"shape": [True], "values": [1]}}}, "list of sizes"),
        ({"data": {"tensor": {"shape": [], "values": [1]}}}, "list of sizes"),
        ({"data": {"tensor": {"shape": 1, "values": [1]}}}, "list of sizes"),
        ({"strData": 1}, "must be a text"),
        ({"binData": 1}, "base64 in a text"),
        ({"binData": "?"}, "not base64"),
        ({"jsonData": [{"x": 1}, 2]}, "item 1 is none"),
        ({"jsonData": None}, "has shape [1], expected [-1, 2]"),
        ({"jsonData": {}}, "has shape"),
        ({"data": {"ndarray": []}}, "holds no input"),
        (tensor(0, 2, values=[]), "holds no input"),
        ({"data": {"ndarray": [[1, 2, 3]]}}, "has shape [1, 3], expected [-1, 2]"),
        ({"data": {"ndarray": [["secret", 2]]}}, "a value of the type String"),
    ],
)
def test_what_is_refused(caller: Caller, body: Any, words: str) -> None:
    """400 in words, without what was sent."""
    told = refused(post(caller, body))
    assert words in told
    assert "secret" not in told


def test_other_types_and_encodings(caller: Caller) -> None:
    """JSON under any name but those of something else; gzip is inflated."""
    body = {"data": {"ndarray": [[1, 2]]}}
    for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded", ""):
        assert post(caller, body, headers={"content-type": kind}).status == 200
    for kind in ("multipart/form-data; boundary=x", "text/csv", "image/png", "application/octet-stream"):
        assert "application/json" in refused(post(caller, body, headers={"content-type": kind}), status=415)
    packed = gzip.compress(json.dumps(body).encode())
    assert post(caller, packed, headers={"content-encoding": "gzip"}).status == 200
    refused(post(caller, packed, headers={"content-encoding": "br"}), status=415)
    refused(post(caller, packed[:-9], headers={"content-encoding": "gzip"}))


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_an_answer(kind: Kind) -> None:
    """In the one form that errors have here."""
    answer = refusal(ServingError(kind, "a \ud800 message" + "x" * 5000))
    assert isinstance(answer.body, bytes)
    told = json.loads(answer.body)["status"]
    assert told["info"].startswith("a ? message")
    assert len(told["info"]) == 2000
    ours = {Kind.MODEL_FAILED, Kind.INTERNAL, Kind.NOT_READY, Kind.OVERLOADED, Kind.TIMEOUT, Kind.UNAVAILABLE, Kind.UNSUPPORTED}
    assert (answer.status >= 500) == (kind in ours)


def test_a_model_that_fails() -> None:
    """500 with its message, unless it is the caller's doing."""
    body = {"data": {"ndarray": [[1]]}}
    broken = Caller({"m": failing(ServingError(Kind.MODEL_FAILED, "it broke"))}, Seldon)
    assert refused(post(broken, body, "m"), "MICROSERVICE_INTERNAL_ERROR", 500) == "it broke"
    picky = Caller({"m": failing(ServingError(Kind.INVALID_INPUT, "not so"))}, Seldon)
    assert refused(post(picky, body, "m")) == "not so"


def test_an_empty_output() -> None:
    """No rows are an empty array."""
    signature = Signature(inputs=(TensorSpec("x", t.FP32, None),), outputs=(TensorSpec("o", t.FP32, (-1, 2)),), batch=True)
    caller = Caller({"m": Toy({"": signature}, lambda _, __: [Tensor("o", t.FP32, np.zeros((0, 2), "f4"))])}, Seldon)
    assert answered(caller, {"data": {"ndarray": [[1]]}}, "m") == {"data": {"names": ["o:0", "o:1"], "ndarray": []}}
