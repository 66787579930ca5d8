"""What every path of MLflow's API does with requests that are not as they should be (requirement R14), and who may call it."""

import contextlib
import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Request
from dragoman.dialects.mlflow.errors import refusal
from dragoman.dialects.mlflow.wire import Fields, fields, segments
from tests.servables import run
from tests.unit.dialects.mlflow.site import FILES, Site

CREATE = "registered-models/create"
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"[]",
        b"7",
        b'"x"',
        b"\xff",
        b"{'a': 1}",
        b'{"name": "x",}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"name": NaN}',
        b'{"name":"\\ud800"}',
    ],
)
def test_a_body_must_be_a_json_object(raw: bytes, tmp_path: Path) -> None:
    """Arrays, scalars, broken and endlessly deep ones are refused alike."""
    refused = Site(tmp_path).ask("POST", CREATE, raw=raw, headers=JSON)
    assert (refused.status, refused.code) == (400, "MALFORMED_REQUEST")
    assert refused.headers[b"content-type"] == b"application/json"


@pytest.mark.parametrize(
    "declared", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "multipart/form-data; boundary=x"]
)
def test_other_content_types_are_refused(declared: str, tmp_path: Path) -> None:
    """With their name."""
    refused = Site(tmp_path).ask("POST", CREATE, raw=b'{"name": "x"}', headers={"content-type": declared})
    assert (refused.status, refused.code) == (400, "MALFORMED_REQUEST")
    assert declared.split(";")[0] in refused.json["message"]


@pytest.mark.parametrize(
    "declared", [{}, JSON, {"content-type": "Application/JSON; charset=utf-8"}, {"content-type": "application/x+json"}]
)
def test_json_is_read_however_it_is_declared(declared: dict[str, str], tmp_path: Path) -> None:
    """Not at all included: curl's users forget it."""
    assert Site(tmp_path).ask("POST", CREATE, raw=b'{"name": "x", "unknown": [1]}', headers=declared).status == 200


def test_compressed_bodies_are_read_within_bounds(tmp_path: Path) -> None:
    """A bomb is refused, as is an unknown encoding."""
    site = Site(tmp_path)
    packed = gzip.compress(json.dumps({"name": "x"}).encode())
    assert site.ask("POST", CREATE, raw=packed, headers={**JSON, "content-encoding": "gzip"}).status == 200
    bomb = gzip.compress(b" " * (200 << 20), 9)
    assert site.ask("POST", CREATE, raw=bomb, headers={**JSON, "content-encoding": "gzip"}).code == "RESOURCE_LIMIT_EXCEEDED"
    assert site.ask("POST", CREATE, raw=packed, headers={**JSON, "content-encoding": "br"}).code == "MALFORMED_REQUEST"
    assert site.ask("POST", CREATE, raw=packed[:9], headers={**JSON, "content-encoding": "gzip"}).code == "MALFORMED_REQUEST"


def test_a_body_over_the_limit_is_413(tmp_path: Path) -> None:
    """As JSON, too (requirement R13)."""
    refused = Site(tmp_path, max_body=100).ask("POST", CREATE, {"name": "x" * 200})
    assert (refused.status, refused.code) == (413, "RESOURCE_LIMIT_EXCEEDED")


@pytest.mark.parametrize("query", [b"name=%ff", b"\xff=1", b"&".join([b"a=1"] * 2000), b"x" * 70_000])
def test_a_query_is_bounded_text(query: bytes, tmp_path: Path) -> None:
    """Otherwise 400."""
    refused = Site(tmp_path).ask("GET", "registered-models/get", query=query)
    assert (refused.status, refused.code) == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize(
    "path",
    [
        "nothing",
        "",
        "registered-models",
        "registered-models/create/x",
        "registered-models/list",
        "traces",
        "/api/2.0/mlflow",
        "/api/3.0/mlflow/server-info",
        "/api/2.0/mlflow-artifacts",
        "/api/2.0/mlflow-artifacts/mpu/create/x",
        "/api/2.0/mlflow-artifacts/presigned/x",
        "/api/2.0/preview/mlflow",
        "logged-models/a/b/c",
    ],
)
def test_what_is_not_there_says_what_is(path: str, tmp_path: Path) -> None:
    """The client tries older paths after this code."""
    for method in ("GET", "POST", "BREW"):
        found = Site(tmp_path).ask(method, path)
        assert (found.status, found.code) == (404, "ENDPOINT_NOT_FOUND")
        assert "Dragoman keeps" in found.json["message"]


def test_a_wrong_method_says_which_are_right(tmp_path: Path) -> None:
    """In the header as well."""
    site = Site(tmp_path)
    found = site.ask("PUT", "registered-models/alias")
    assert (found.status, found.code, found.headers[b"allow"]) == (405, "ENDPOINT_NOT_FOUND", b"GET, POST, DELETE")
    assert site.ask("POST", f"{FILES}/x").headers[b"allow"] == b"GET, PUT, DELETE"
    assert site.ask("PUT", "logged-models/m-1").headers[b"allow"] == b"GET, PATCH, DELETE"


def test_the_paths_of_the_preview_are_the_same(tmp_path: Path) -> None:
    """Clients of MLflow 1 use them."""
    site = Site(tmp_path)
    assert site.ask("POST", "/api/2.0/preview/mlflow/registered-models/create", {"name": "x"}).status == 200
    assert site.ask("GET", "/api/2.0/preview/mlflow/registered-models/get", query={"name": "x"}).status == 200


def test_a_database_that_is_gone_is_the_one_reason_to_try_again(tmp_path: Path) -> None:
    """503 with its code."""
    site = Site(tmp_path)
    site.store.failure = ServingError(Kind.UNAVAILABLE, "the database is gone")
    found = site.get("registered-models/get", name="x")
    assert (found.status, found.code) == (503, "TEMPORARILY_UNAVAILABLE")


def test_every_error_has_code_and_message() -> None:
    """Whatever kind it is and whatever it is about; what is the caller's doing is never answered so that its client asks again."""
    again = {408, 429, 500, 502, 503, 504}
    for kind in Kind:
        for what in ("", "model", "version", "source", "body", "path", "method", "alias", "artifact", "serving", "encoding", "run"):
            said = refusal(ServingError(kind, "so it is", what=what), ["GET"])
            assert isinstance(said.body, bytes)
            body = json.loads(said.body)
            assert set(body) == {"error_code", "message"}
            assert body["message"].startswith("so it is")
            if kind in (Kind.INVALID_INPUT, Kind.NOT_FOUND, Kind.CONFLICT, Kind.TOO_LARGE, Kind.UNAUTHENTICATED, Kind.FORBIDDEN):
                assert said.status not in again, (kind, what)
    for kind in (Kind.UNSUPPORTED, Kind.UNAVAILABLE, Kind.TIMEOUT, Kind.NOT_FOUND):
        assert refusal(ServingError(kind, "no such source here", what="source")).status == 400


# --- who may ---


def test_reading_the_registry_is_open_and_the_rest_takes_a_key(tmp_path: Path) -> None:
    """Where keys are in force: changes, runs, files, and where they lie on this machine."""
    site = Site(tmp_path, host="0.0.0.0", data_dir=str(tmp_path))  # nothing listens: these are the rules of such a server
    for path in (
        "registered-models/get",
        "registered-models/search",
        "model-versions/get",
        "model-versions/search",
        "registered-models/alias",
    ):
        assert site.get(path, name="x", version="1", alias="a").status != 401
    closed = [
        ("GET", "model-versions/get-download-uri"),
        ("GET", "runs/get"),
        ("GET", "experiments/search"),
        ("GET", "logged-models/m-1"),
        ("GET", FILES),
        ("GET", f"{FILES}/x"),
        ("PUT", f"{FILES}/x"),
        ("DELETE", f"{FILES}/x"),
        *(("POST", path) for path in (CREATE, "model-versions/create", "runs/create", "logged-models", "model-versions/transition-stage")),
        ("DELETE", "registered-models/delete"),
        ("PATCH", "model-versions/update"),
    ]
    for method, path in closed:
        refused = site.ask(method, path)
        assert (refused.status, refused.code) == (401, "UNAUTHENTICATED"), path


def test_pages_of_other_origins_change_nothing(tmp_path: Path) -> None:
    """A browser's user may have this server at hand."""
    refused = Site(tmp_path).ask("POST", CREATE, {"name": "x"}, headers={"origin": "http://evil.example"})
    assert (refused.status, refused.code) == (403, "PERMISSION_DENIED")


# --- fields ---

ODD: tuple[Any, ...] = (1, True, [], {})
"""What is no text."""


def read(value: dict[str, Any]) -> Fields:
    return Fields(value)


def wrong(value: dict[str, Any], do: Any) -> str:
    with pytest.raises(ServingError) as caught:
        do(read(value))
    assert caught.value.kind is Kind.INVALID_INPUT
    return caught.value.message


def test_texts() -> None:
    """Absent, null and empty ones are missing where one is needed."""
    assert read({"a": "x"}).text("a") == "x"
    assert read({}).text("a", "d") == "d"
    assert read({"a": None}).maybe("a") is None
    assert read({"a": ""}).maybe("a") == ""
    for value in ({}, {"a": None}, {"a": ""}):
        assert "'a' is missing" in wrong(value, lambda f: f.text("a"))
    for odd in ODD:
        assert "expected text" in wrong({"a": odd}, lambda f: f.text("a"))
    assert "at most 3" in wrong({"a": "abcd"}, lambda f: f.text("a", longest=3))


def test_whole_numbers() -> None:
    """As numbers and as text, up to 64 bits."""
    for value in (5, "5", 5.0):
        assert read({"a": value}).whole("a") == 5
    assert read({"a": "-9223372036854775808"}).whole("a") == -(2**63)
    assert read({}).whole("a", 3) == 3
    for odd in (1.5, "1.5", "x", 2**63, "9" * 30, math.inf, "", *ODD[1:]):
        assert "whole number" in wrong({"a": odd}, lambda f: f.whole("a"))


def test_numbers() -> None:
    """Those that are not finite have words."""
    assert read({"a": 1}).number("a") == 1.0
    assert math.isnan(read({"a": "NaN"}).number("a"))
    assert read({"a": "-Infinity"}).number("a") == -math.inf
    for odd in ("1e", None, *ODD[1:]):
        assert "expected a number" in wrong({"a": odd}, lambda f: f.number("a"))


def test_flags_choices_and_lists() -> None:
    """Each says what it expected, and where in a list."""
    assert read({"a": "True"}).flag("a")
    assert not read({"a": False}).flag("a", True)
    assert "true or false" in wrong({"a": 1}, lambda f: f.flag("a"))
    assert read({}).choice("a", ("x", "y"), "y") == "y"
    assert "one of x, y" in wrong({"a": "z"}, lambda f: f.choice("a", ("x", "y")))
    assert read({"a": [{"key": "k", "value": "1"}, {"key": "k", "value": "2"}]}).pairs("a") == {"k": "2"}
    assert "'a[1].key' is missing" in wrong({"a": [{"key": "k"}, {}]}, lambda f: f.pairs("a"))
    assert "'a[0]' is 7" in wrong({"a": [7]}, lambda f: f.messages("a"))
    assert "expected a list" in wrong({"a": {}}, lambda f: f.texts("a"))
    assert "list of texts" in wrong({"a": [1]}, lambda f: f.texts("a"))
    assert "at most 10000" in wrong({"a": ["x"] * 10_001}, lambda f: f.texts("a"))
    assert "expected an object" in wrong({"a": []}, lambda f: f.message("a"))
    assert read({"version": 3}).version() == "3"
    assert "expected text" in wrong({"version": True}, lambda f: f.version())


def test_a_query_has_the_same_fields() -> None:
    """A parameter that is repeated is a list, or its first value."""

    async def body() -> None:
        async def nothing() -> dict[str, Any]:
            raise AssertionError("a GET has no body")

        scope = {"method": "GET", "path": "/", "headers": [], "query_string": b"a=1&a=2&b=%C3%A9&c="}
        found = await fields(Request(scope, nothing, 100), 100)
        assert found.texts("a") == ["1", "2"]
        assert found.whole("a") == 1
        assert found.text("b") == "é"
        assert found.text("c", "d") == ""

    run(body)


@given(st.binary(max_size=40))
def test_any_path_is_cut_or_refused(path: bytes) -> None:
    """No segment hides a slash."""
    found: list[str] = []
    with contextlib.suppress(ServingError):
        found = segments(path)
    assert not any(set(part) & set("/\\\0") for part in found)
