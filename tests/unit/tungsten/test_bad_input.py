"""Bad input in the original's words: 422 with a list of places, for bodies, types of content, rows and fields; and every kind of error."""

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, Problem, ServingError
from dragoman.core.tensors import Blob
from dragoman.dialects.tungsten.errors import STATUS
from tests.fakes_predictions import NUMBERS, PICTURES, TEXT, Client

ROW = {"prompt": "hello"}
ROOT = ["body", "__root__"]
PATHS = ("/predictions", "/predict", "/demo", "/models/m/predictions", "/models/m:1/predict")


def problems(body: Any, headers: dict[str, str] | None = None, path: str = "/predictions", client: Client | None = None) -> Any:
    return (client or Client()).refused(422, "POST", path, body, headers)["detail"]


# --- bodies ---


@pytest.mark.parametrize("path", PATHS)
def test_not_a_list(path: str) -> None:
    """Objects, numbers and texts are none."""
    for body in ({}, ROW, 1, "text", True):
        assert problems(body, path=path) == [{"loc": ROOT, "msg": "value is not a valid list", "type": "type_error.list"}]


@pytest.mark.parametrize("path", PATHS)
def test_an_empty_list(path: str) -> None:
    """The original took it and lost it."""
    (problem,) = problems([], path=path)
    assert (problem["loc"], problem["type"], problem["ctx"]) == (ROOT, "value_error.list.min_items", {"limit_value": 1})


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", [b"", b"null", b" null "])
def test_no_body(path: str, body: bytes) -> None:
    """The body itself is missing."""
    assert problems(body, path=path) == [{"loc": ["body"], "msg": "field required", "type": "value_error.missing"}]


@pytest.mark.parametrize(
    ("body", "place"), [(b"nonsense", 0), (b"{", 1), (b'[{"prompt":"a"},', 16), (b"\xff", 0), (b"[NaN]", 1), (b'["\xed\xa0\x80"]', 0)]
)
def test_not_json(body: bytes, place: int) -> None:
    """With the place at which it ceases to be."""
    (problem,) = problems(body)
    assert (problem["loc"][0], problem["type"], problem["msg"]) == ("body", "json_invalid", "JSON decode error")
    assert abs(problem["loc"][1] - place) <= 1


@pytest.mark.parametrize(
    "declared",
    ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "json", "text/json", "multipart/form-data; boundary=x"],
)
def test_bodies_of_other_types_are_not_looked_at(declared: str) -> None:
    """As in the original they are no list; what was expected stands beside it."""
    (problem,) = problems([ROW], {"Content-Type": declared})
    assert (problem["loc"], problem["type"]) == (ROOT, "type_error.list")
    assert problem["ctx"] == {"expected": "application/json", "content_type": declared}


@pytest.mark.parametrize(
    "declared", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json", " application/json ;x=y", ""]
)
def test_bodies_that_are_json(declared: str) -> None:
    """By their type; also those without any."""
    Client().post("/predictions", [ROW], {"Content-Type": declared})


def test_compressed_bodies() -> None:
    """They are inflated within the server's limit; unknown encodings are 415."""
    packed = gzip.compress(json.dumps([ROW]).encode())
    client = Client()
    client.post("/predictions", packed, {"Content-Encoding": "gzip"})
    bomb = gzip.compress(b"[" + b" " * (101 << 20) + b"]")
    assert client.refused(413, "POST", "/predictions", bomb, {"Content-Encoding": "gzip"})["error_kind"] == "too_large"
    assert client.refused(415, "POST", "/predictions", packed, {"Content-Encoding": "br"})["error_kind"] == "unsupported"
    (problem,) = problems(b"not gzip", {"Content-Encoding": "gzip"}, client=client)
    assert problem["loc"] == ["body"]


# --- rows ---


@pytest.mark.parametrize(
    ("row", "place", "code", "context"),
    [
        ({}, ["prompt"], "value_error.missing", None),
        ({"prompt": None}, ["prompt"], "type_error.none.not_allowed", None),
        ({"prompt": []}, ["prompt"], "type_error.str", None),
        ({"prompt": "a"}, ["prompt"], "value_error.any_str.min_length", {"limit_value": 2}),
        ({"prompt": "a" * 21}, ["prompt"], "value_error.any_str.max_length", {"limit_value": 20}),
        ({**ROW, "seed": -1}, ["seed"], "value_error.number.not_ge", {"limit_value": 0}),
        ({**ROW, "seed": 100}, ["seed"], "value_error.number.not_le", {"limit_value": 99}),
        ({**ROW, "seed": "x"}, ["seed"], "type_error.integer", None),
        ("text", [], "type_error.dict", None),
        (None, [], "type_error.none.not_allowed", None),
    ],
)
def test_rows(row: Any, place: list[str], code: str, context: Any) -> None:
    """The place is the list, the index and the field; limits are told."""
    (problem,) = problems([ROW, row])
    assert (problem["loc"], problem["type"], problem.get("ctx")) == ([*ROOT, 1, *place], code, context)
    assert isinstance(problem["msg"], str)


def test_choices_count() -> None:
    """The original only told them."""
    (problem,) = problems([{**ROW, "style": "baroque"}])
    assert problem["loc"] == [*ROOT, 0, "style"]


def test_all_problems_are_told_at_once() -> None:
    """Of every row and field."""
    found = problems([{}, ROW, {"prompt": "a", "seed": 1000}])
    assert [p["loc"][2:] for p in found] == [[0, "prompt"], [2, "prompt"], [2, "seed"]]


@pytest.mark.parametrize("value", ["ftp://x/y", "no scheme or base64!", 5])
def test_files(value: Any) -> None:
    """The place of a bad file ends inside the file."""
    (problem,) = problems([{"image": value}], client=Client(p=PICTURES))
    assert problem["loc"][:4] == [*ROOT, 0, "image"]


def test_local_files_are_refused() -> None:
    """No client reads this machine's files."""
    for url in ("file:///etc/passwd", "file://host/x", "FILE:///etc/passwd"):
        (problem,) = problems([{"image": url}], client=Client(p=PICTURES))
        assert problem["loc"][:4] == [*ROOT, 0, "image"]


def test_rows_of_tensors() -> None:
    """One problem names the field whose shape or type does not fit."""
    for value in ("x", {"a": 1}, [1], [1, 2, 3], [[1], [2]], None):
        (problem,) = problems([{"x": value}], client=Client(n=NUMBERS))[:1]
        assert problem["loc"][:4] == [*ROOT, 0, "x"]


@pytest.mark.parametrize("path", ["/predictions", "/predict", "/demo", "/demo/predictions"])
@pytest.mark.parametrize("depth", [33, 500, 1_000, 1_024, 100_000])
@pytest.mark.parametrize("form", ["%s", "[%s]", '[{"prompt":%s}]', '[{"prompt":"hello","other":%s}]', '{"prompt":%s}'])
def test_deep_json(path: str, depth: int, form: str) -> None:
    """However deep and wherever: never a failure of the server."""
    for left, right in (("[", "]"), ('{"a":', "}")):
        body = (form % (left * depth + "1" + right * depth)).encode()
        for model in (TEXT, PICTURES, NUMBERS):
            assert Client(m=model).send("POST", path, body).status in (200, 422)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["prompt", "seed", "style", "image", "x", "o"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values, st.sampled_from([TEXT, PICTURES, NUMBERS]), st.sampled_from(["/predictions", "/demo/predictions"]))
def test_no_json_fails_the_server(body: Any, model: Any, path: str) -> None:
    """Whatever it says, it is taken or refused, and a refusal has its list."""
    reply = Client(m=model).send("POST", path, json.dumps(body).encode())
    assert reply.status in (200, 404, 422)
    if reply.status == 422:
        for problem in json.loads(reply.body)["detail"]:
            assert problem["loc"][0] == "body"
            assert {"loc", "msg", "type"} <= problem.keys() <= {"loc", "msg", "type", "ctx"}


# --- every kind of error ---


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_an_answer(kind: Kind) -> None:
    """JSON with `detail`, and a word for machines where the original has no body of its own."""
    client = Client()
    client.predictions.error = ServingError(kind, "words", retry_after_s=2.0)
    found = client.refused(STATUS[kind], "POST", "/predictions", [ROW])
    if kind is Kind.INVALID_INPUT:
        assert found == {"detail": [{"loc": ["body"], "msg": "words", "type": "value_error"}]}
    elif kind is Kind.NOT_FOUND:
        assert found == {"detail": "words"}
    else:
        assert found == {"detail": "words", "error_kind": kind.value}
    assert STATUS[kind] != 500 or kind in (Kind.MODEL_FAILED, Kind.INTERNAL)


def test_traces_stay_inside() -> None:
    """What strangers may not see is not in an error."""
    client = Client()
    client.predictions.error = ServingError(Kind.MODEL_FAILED, "the model failed", trace="Traceback: secret")
    assert "secret" not in json.dumps(client.refused(500, "POST", "/predictions", [ROW]))


def test_problems_of_the_service() -> None:
    """Those with places in rows get the list before them."""
    client = Client()
    client.predictions.error = ServingError(
        Kind.INVALID_INPUT, "x", problems=(Problem((0, "image", "__root__"), "value_error", "bad", {}),)
    )
    assert client.refused(422, "POST", "/predictions", [ROW])["detail"] == [
        {"loc": [*ROOT, 0, "image", "__root__"], "msg": "bad", "type": "value_error"}
    ]


@pytest.mark.parametrize("path", ["/predictions", "/predict"])
def test_a_body_that_is_a_picture(path: str) -> None:
    """Is the one input of a model that takes a picture; for others it is no list."""
    client = Client(p=PICTURES)
    client.predictions.work = lambda rows: [{"image": "data:,x"} for _ in rows]
    reply = client.send("POST", path, b"\x89PNG", {"Content-Type": "image/png"})
    assert reply.status in (200, 202), reply.body
    declared = {"Content-Type": "image/png"}
    (problem,) = problems(b"\x89PNG", declared, path=path)
    assert (problem["loc"], problem["type"]) == (ROOT, "type_error.list")
    assert client.refused(404, "POST", "/models/none/predict", b"\x89PNG", declared)


def test_a_picture_that_is_packed() -> None:
    """Is unpacked within the server's limit."""
    client = Client(p=PICTURES)
    client.send("POST", "/predictions", gzip.compress(b"\x89PNG"), {"Content-Type": "image/png", "Content-Encoding": "gzip"})
    ((row,),) = client.predictions.given.values()
    assert row == {"image": Blob(b"\x89PNG", "image/png"), "strength": 0.5}
