"""MLflow's scoring protocol around the bodies: which model is meant, readiness, the version, errors of every kind, and the application's doors."""

import gzip
import json
from collections.abc import Mapping
from typing import Any

import pytest

from dragoman.core import tensors as t
from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State
from dragoman.core.model import ModelSpec
from dragoman.dialects.mlflow.scoring import MLflowScoring
from dragoman.dialects.mlflow.scoring_errors import refusal
from dragoman.server.app import App
from dragoman.serving.gateway import Entry
from tests.fakes_scoring import Caller, document, failing
from tests.fakes_tfs import Reply, Toy, echo

BODY = {"instances": [[1.0, 2.0]]}


class Restarting(Toy):
    """Between two processes."""

    def trouble(self) -> str:
        return "its process starts again"


def caller() -> Caller:
    return Caller({"a": echo(t.FP32, (-1, 2)), "b/1": echo(t.INT64, (-1, 2)), "b/3": echo(t.FP64, (-1, 2))}, MLflowScoring)


def code(reply: Reply) -> str:
    assert reply.media_type == b"application/json"
    assert list(reply.json) == ["error_code", "message"]
    assert reply.json["message"]
    return str(reply.json["error_code"])


def test_the_default_model() -> None:
    """Without a prefix the first model of the command line is asked."""
    asked = caller()
    assert document(asked.send("POST", "/invocations", BODY)) == {"predictions": [[1.0, 2.0]]}
    asked.client.gateway.named = ("b",)
    assert document(asked.send("POST", "/invocations", {"instances": [[1, 2]]})) == {"predictions": [[1.0, 2.0]]}


def test_a_pinned_version() -> None:
    """Below a prefix that model and version answer, and no other."""
    asked = caller()
    assert document(asked.send("POST", "/invocations", {"instances": [[1, 2]]}, pinned=("b", "1"))) == {"predictions": [[1, 2]]}
    assert document(asked.send("POST", "/invocations", {"instances": [[1, 2]]}, pinned=("b", "3"))) == {"predictions": [[1.0, 2.0]]}
    assert document(asked.send("POST", "/invocations", {"instances": [[1, 2]]}, pinned=("b", ""))) == {"predictions": [[1.0, 2.0]]}
    for pinned in (("b", "2"), ("c", "1")):
        for method, path in (("POST", "/invocations"), ("GET", "/ping"), ("GET", "/health"), ("GET", "/version")):
            reply = asked.send(method, path, BODY, pinned=pinned)
            assert (reply.status, code(reply)) == (404, "RESOURCE_DOES_NOT_EXIST")


@pytest.mark.parametrize("path", ["/ping", "/health"])
def test_ready(path: str) -> None:
    """A newline that is typed JSON, also where only the head is asked for."""
    for method in ("GET", "HEAD"):
        reply = caller().send(method, path)
        assert (reply.status, reply.body, reply.media_type) == (200, b"\n", b"application/json")


@pytest.mark.parametrize("path", ["/ping", "/health"])
def test_not_ready(path: str) -> None:
    """503 while a model loads, has failed or the server drains; 404 for none."""
    asked = caller()
    asked.client.tell("new", "1", State.LOADING)
    asked.client.tell("bad", "1", State.FAILED, "no such file")
    loading = asked.send("GET", path, pinned=("new", "1"))
    assert (loading.status, code(loading)) == (503, "TEMPORARILY_UNAVAILABLE")
    failed = asked.send("GET", path, pinned=("bad", "1"))
    assert (failed.status, code(failed)) == (503, "TEMPORARILY_UNAVAILABLE")
    assert "no such file" in failed.json["message"]
    empty = Caller({}, MLflowScoring).send("GET", path)
    assert (empty.status, code(empty)) == (404, "RESOURCE_DOES_NOT_EXIST")
    asked.client.gateway.draining = True
    assert asked.send("GET", path).status == 503


def test_a_model_whose_process_starts_again_is_not_ready() -> None:
    """It is found, but cannot answer just now."""
    toy = Restarting(echo(t.FP32).signatures, lambda inputs, _: inputs.items)
    reply = Caller({"m": toy}, MLflowScoring).send("GET", "/ping")
    assert (reply.status, code(reply)) == (503, "TEMPORARILY_UNAVAILABLE")


def test_the_version_of_mlflow() -> None:
    """That of the model where it was logged with one, else the server's own; the server's too where there is no model."""
    asked = caller()
    spec = ModelSpec("a", "1", arguments={"mlflow": {"mlflow_version": "2.9.2"}})
    entry = Entry(spec, asked.client.gateway.find("a").servable)
    asked.client.gateway.swap({**asked.client.gateway.table(), ("a", ""): entry, ("a", "1"): entry})
    for where, text in ((None, b"2.9.2"), (("a", "1"), b"2.9.2"), (("b", "1"), b"dragoman 9.9")):
        reply = asked.send("GET", "/version", pinned=where)
        assert (reply.status, reply.body, reply.media_type) == (200, text, b"text/plain; charset=utf-8")
    assert Caller({}, MLflowScoring).send("GET", "/version").body == b"dragoman 9.9"


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("GET", "/invocations", 405, "BAD_REQUEST"),
        ("PUT", "/invocations", 405, "BAD_REQUEST"),
        ("POST", "/ping", 405, "BAD_REQUEST"),
        ("DELETE", "/version", 405, "BAD_REQUEST"),
        ("POST", "/invocations/x", 404, "ENDPOINT_NOT_FOUND"),
        ("GET", "/ping/", 404, "ENDPOINT_NOT_FOUND"),
    ],
)
def test_other_paths_and_methods(method: str, path: str, status: int, name: str) -> None:
    """In this protocol's words."""
    reply = caller().send(method, path)
    assert (reply.status, code(reply)) == (status, name)


def test_allowed_methods_are_told() -> None:
    """As every 405 must."""
    asked = caller()
    error = ServingError(Kind.UNSUPPORTED, "no", what="method")
    for path, allowed in (("/invocations", b"POST"), ("/ping", b"GET, HEAD")):
        assert asked.client.dialect.refuse(asked.client.request("PUT", path), error).headers == [(b"allow", allowed)]


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_an_answer(kind: Kind) -> None:
    """A JSON object with a code and the message; only what is not the caller's doing is a 5xx."""
    answer = refusal(ServingError(kind, "a \ud800 message"))
    assert answer.media_type == b"application/json"
    assert isinstance(answer.body, bytes)
    assert json.loads(answer.body)["message"] == "a ? message"
    ours = {Kind.MODEL_FAILED, Kind.INTERNAL, Kind.NOT_READY, Kind.OVERLOADED, Kind.TIMEOUT, Kind.UNAVAILABLE, Kind.UNSUPPORTED}
    assert (answer.status >= 500) == (kind in ours)


def test_long_messages_are_cut() -> None:
    """Whatever they quote."""
    answer = refusal(ServingError(Kind.INTERNAL, "x" * 10_000))
    assert len(answer.body) < 2_100  # type: ignore[arg-type]  # it is bytes


def test_a_model_that_fails() -> None:
    """500 with its message; no traceback."""
    asked = Caller({"m": failing(ServingError(Kind.MODEL_FAILED, "it broke", trace="Traceback ..."))}, MLflowScoring)
    reply = asked.send("POST", "/invocations", BODY)
    assert (reply.status, reply.json) == (500, {"error_code": "INTERNAL_ERROR", "message": "it broke"})
    refused = Caller({"m": failing(ServingError(Kind.INVALID_INPUT, "not so"))}, MLflowScoring).send("POST", "/invocations", BODY)
    assert (refused.status, code(refused)) == (400, "INVALID_PARAMETER_VALUE")


def test_compressed_bodies() -> None:
    """gzip is inflated; corrupt data and other encodings are told."""
    asked = caller()
    packed = gzip.compress(json.dumps(BODY).encode())
    assert document(asked.send("POST", "/invocations", packed, {"content-encoding": "gzip"})) == {"predictions": [[1.0, 2.0]]}
    corrupt = asked.send("POST", "/invocations", packed[:-9], {"content-encoding": "gzip"})
    assert (corrupt.status, code(corrupt)) == (400, "BAD_REQUEST")
    unknown = asked.send("POST", "/invocations", packed, {"content-encoding": "br"})
    assert (unknown.status, code(unknown)) == (415, "BAD_REQUEST")


def test_a_body_over_the_limit_and_a_client_that_leaves() -> None:
    """Neither is a failure of the server."""
    asked = caller()
    asked.client.max_body = 10
    large = asked.send("POST", "/invocations", BODY)
    assert (large.status, code(large)) == (413, "REQUEST_LIMIT_EXCEEDED")
    gone = asked.send("POST", "/invocations", None)
    assert (gone.status, code(gone)) == (499, "CANCELLED")


@pytest.mark.parametrize("path", ["/invocations", "/serve/iris-1/invocations"])
def test_invocations_may_run_without_a_task_and_end_with_their_client(path: str) -> None:
    """What is below a registry's paths only looks like them."""
    scope: Mapping[str, Any] = {"type": "http", "method": "POST", "path": path, "query_string": b""}
    assert App.eager(dict(scope))
    assert App.cancels(dict(scope))
