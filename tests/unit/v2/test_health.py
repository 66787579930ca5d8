"""Health, metadata and lists (requirements O1 to O3, O17), and which paths exist at all."""

from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State
from dragoman.core.tensors import BYTES, FP32, Form, Rows, Signature, Tensors, TensorSpec
from dragoman.dialects import Access
from dragoman.dialects.v2.answers import STATUS
from dragoman.serving.gateway import VersionStatus
from tests.unit.v2.client import FLOWER, GOOD, Client, entry, identity, iris, one_input


def status(name: str, state: State, reason: str = "", version: str = "1") -> VersionStatus:
    return VersionStatus(name, version, state, reason)


# --- health ---


def test_live(server: Client) -> None:
    """200 and JSON that KServe's client looks into."""
    reply = server.send("GET", "/v2/health/live")
    assert (reply.status, reply.json, reply.media_type) == (200, {"live": True}, b"application/json")


def test_ready(server: Client) -> None:
    """200 while everything that should be served is."""
    reply = server.send("GET", "/v2/health/ready")
    assert (reply.status, reply.json) == (200, {"ready": True})


@pytest.mark.parametrize("state", [State.LOADING, State.FAILED])
def test_not_ready_until_settled(state: State) -> None:
    """503 while a model is loading or has failed, and the text says which; live all the time."""
    with Client([iris()]) as server:
        server.gateway.publish("late", [status("late", state)], {})
        reply = server.send("GET", "/v2/health/ready")
        assert reply.status == 503
        assert reply.json["ready"] is False
        assert "late" in reply.json["error"]
        assert server.send("GET", "/v2/health/live").status == 200
        server.gateway.publish("late", [status("late", State.GONE)], {})
        assert server.send("GET", "/v2/health/ready").status == 200


def test_not_ready_while_the_server_shuts_down() -> None:
    """Requirement O32: balancers must see it."""
    with Client([iris()]) as server:
        server.gateway.draining = True
        reply = server.send("GET", "/v2/health/ready")
        assert reply.status == 503
        assert "shutting down" in reply.json["error"]


def test_head_is_get_without_a_body_to_look_at(server: Client) -> None:
    """Probes may use HEAD; the server leaves the body out."""
    assert server.send("HEAD", "/v2/health/ready").status == 200
    assert server.send("HEAD", "/v2/models/iris/ready").status == 200


def test_model_ready(server: Client) -> None:
    """With and without a version."""
    assert server.send("GET", "/v2/models/iris/ready").json == {"name": "iris", "ready": True}
    assert server.send("GET", "/v2/models/iris/versions/1/ready").json == {"name": "iris", "ready": True}


@pytest.mark.parametrize(
    ("state", "reason", "word"),
    [(State.LOADING, "", "loading"), (State.FAILED, "no such file", "no such file"), (State.GONE, "unloaded", "unloaded")],
)
def test_model_not_ready(state: State, reason: str, word: str) -> None:
    """408 with the reason for a model that is known but does not answer; its inference is 503.

    While it loads there is metadata all the same (sheet sections 6 and 8), of what is known by then.
    """
    with Client([iris()]) as server:
        server.gateway.publish("late", [status("late", state, reason)], {})
        for path in ("/v2/models/late/ready", "/v2/models/late/versions/1/ready"):
            reply = server.send("GET", path)
            assert reply.status == 408
            assert word in reply.error
        for path in ("late", "late:1", "late/versions/1"):
            reply = server.send("GET", f"/v2/models/{path}")
            assert reply.status == (200 if state is State.LOADING else 503)
            if state is State.LOADING:
                known = {"name": "late", "versions": ["1"], "platform": "", "inputs": [], "outputs": []}
                assert reply.json == {**known, "version": ""}
        assert server.send("GET", "/v2/models/late:2").status == server.send("GET", "/v2/models/late/versions/2").status == 404
        reply = server.infer("late", GOOD)
        assert reply.status == 503
        assert word in reply.error


# --- metadata ---


def test_server_metadata(server: Client) -> None:
    """Name, version, and the extensions that are there, each once; none that is not."""
    reply = server.send("GET", "/v2").json
    assert (reply["name"], reply["version"]) == ("dragoman", "9.9")
    ours = {"binary_tensor_data", "classification", "model_repository", "statistics", "model_configuration"}
    assert ours <= set(reply["extensions"])
    assert not {"system_shared_memory", "cuda_shared_memory", "sequence"} & set(reply["extensions"])
    assert len(set(reply["extensions"])) == len(reply["extensions"])
    assert server.send("GET", "/v2/").json == reply


def test_model_metadata_to_the_byte(server: Client) -> None:
    """String versions, -1 for variable dimensions, the batch dimension included; MLRun's words for the same behind them (M4)."""
    assert server.send("GET", "/v2/models/iris").body == (
        b'{"name":"iris","versions":["1","2"],"platform":"onnxruntime_onnx",'
        b'"inputs":[{"name":"input","datatype":"FP32","shape":[-1,4],"value_type":"float32"}],'
        b'"outputs":[{"name":"label","datatype":"INT64","shape":[-1],"value_type":"int"},'
        b'{"name":"probabilities","datatype":"FP32","shape":[-1,3],"value_type":"float32"}],"version":""}'
    )
    assert server.send("GET", "/v2/models/iris/versions/1").json["versions"] == ["1"]


def test_versions_are_in_the_order_of_numbers() -> None:
    """10 comes after 9; versions that do not answer are not listed."""
    with Client([iris("9"), iris("10"), iris("1")]) as server:
        assert server.send("GET", "/v2/models/iris").json["versions"] == ["1", "9", "10"]
        states = [status("iris", State.READY, version="10"), status("iris", State.FAILED, "x", "9"), status("iris", State.GONE, "", "1")]
        server.gateway.publish("iris", states, {})
        assert server.send("GET", "/v2/models/iris").json["versions"] == ["10"]


def test_metadata_of_what_is_not_known() -> None:
    """Of a tensor of unknown rank the shape is [-1], of one that takes any datatype it is empty."""
    signature = Signature(inputs=(TensorSpec("x", None, None),), outputs=(TensorSpec("y", BYTES, ()),))
    with Client([entry("odd", signature, lambda _: Tensors([]))]) as server:
        reply = server.send("GET", "/v2/models/odd").json
    assert reply["inputs"] == [{"name": "x", "datatype": "FP64", "shape": [-1], "value_type": ""}]
    assert reply["outputs"] == [{"name": "y", "datatype": "BYTES", "shape": [], "value_type": "str"}]


def test_list_of_models() -> None:
    """Each name once, also of one that is being loaded."""
    with Client([iris("1"), iris("2"), identity(FP32)]) as server:
        server.gateway.publish("late", [status("late", State.LOADING)], {})
        assert server.send("GET", "/v2/models").json == {"models": ["identity_fp32", "iris", "late"]}


# --- versions ---


def test_versions_answer_for_themselves() -> None:
    """Requirement O17: the highest without a version in the path, else exactly the one that is named."""
    with Client([iris("2"), iris("10")]) as server:
        assert server.infer("iris", GOOD).json["model_version"] == "10"
        assert server.send("POST", "/v2/models/iris/versions/2/infer", GOOD).json["model_version"] == "2"


# --- paths ---


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v2/models/a%20b/infer", "a b"),
        ("/v2/models/%C3%A9/infer", "é"),
        ("/v2/models/100%25/infer", "100%"),
        ("/v2/models/iris%3F/infer", "iris?"),
        ("/v2/models/infer/infer", "infer"),
        ("/v2/models/versions/infer", "versions"),
        ("/%76%32/models/iri%73/infer", "iris"),
        ("/v2/models/a%2Fb/versions/1/infer", "a/b"),
    ],
)
def test_names_in_paths(path: str, name: str) -> None:
    """Model names may be percent-encoded; the path is cut first and decoded then."""
    with Client([iris(name=name)]) as server:
        reply = server.send("POST", path, GOOD)
        assert reply.status == 200, reply.body
        assert reply.json["model_name"] == name


@pytest.mark.parametrize("path", ["/v2/models/%FF/infer", "/v2/models/%/infer", "/v2/models/%zz/infer", "/v2/models/a%00b/infer"])
def test_odd_escapes_are_unknown_models(server: Client, path: str) -> None:
    """Not an error of ours, whatever they decode to."""
    reply = server.send("POST", path, GOOD)
    assert reply.status == 404
    assert reply.error


NOT_THERE = [
    "/v2/models//infer", "/v2//models", "/v2/healthy", "/v2/models/iris/versions", "/v2/models/iris/infer//",
    "/v2/models/iris/versions/1/versions/1/infer", "/v2/infer", "/v2/models/iris/infer/more", "/v2/Models/iris",
]  # fmt: skip


@pytest.mark.parametrize("path", NOT_THERE)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_paths_that_are_not_there(server: Client, path: str, method: str) -> None:
    """404 with an error text, whatever the method."""
    reply = server.send(method, path, b"")
    assert reply.status == 404
    assert path in reply.error


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v2/models/iris/infer", b"POST"),
        ("PUT", "/v2/models/iris/versions/1/infer", b"POST"),
        ("POST", "/v2", b"GET"),
        ("DELETE", "/v2/models/iris", b"GET, POST, PUT"),
        ("POST", "/v2/health/live", b"GET"),
        ("HEAD", "/v2/models/iris/generate", b"POST"),
        ("PATCH", "/v2/models", b"GET, POST"),
    ],
)
def test_wrong_methods(server: Client, method: str, path: str, allow: bytes) -> None:
    """405 that names the right method in the text and in Allow."""
    reply = server.send(method, path)
    assert reply.status == 405
    assert allow.decode().replace(", ", " or ") in reply.error
    assert reply.headers[b"allow"] == allow


def test_access_of_routes(server: Client) -> None:
    """Reading is public, inference is inference: the server's guard goes by this."""
    routes = {
        ("GET", "/v2"): Access.PUBLIC,
        ("GET", "/v2/health/ready"): Access.PUBLIC,
        ("GET", "/v2/models/iris"): Access.PUBLIC,
        ("POST", "/v2/models/iris/infer"): Access.INFER,
        ("POST", "/v2/models/iris/versions/1/infer"): Access.INFER,
        ("POST", "/v2/models/iris/generate_stream"): Access.INFER,
    }
    for (method, path), access in routes.items():
        assert server.dialect.route(server.request(method, path)).access is access


# --- errors ---


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)
def test_every_kind_has_an_answer(server: Client, kind: Kind) -> None:
    """The exact content type, an error text, and a status that fits: nothing that the caller did is a 5xx."""
    answer = server.dialect.refuse(server.request("GET", "/v2"), ServingError(kind, "why \ud800"))
    assert answer.media_type == b"application/json"
    assert answer.body == b'{"error":"why ?"}'
    assert answer.status == STATUS[kind]
    theirs = {Kind.INVALID_INPUT, Kind.NOT_FOUND, Kind.CONFLICT, Kind.TOO_LARGE, Kind.UNAUTHENTICATED, Kind.FORBIDDEN, Kind.CANCELLED}
    assert (answer.status < 500) is (kind in theirs)


def test_long_texts_are_cut(server: Client) -> None:
    """A client that is quoted does not get its megabyte back."""
    name = "x" * 1_000_000
    reply = server.infer("iris", one_input(FLOWER, name=name))
    assert reply.status == 400
    assert len(reply.body) < 3_000
    reply = server.infer("iris", one_input(FLOWER, datatype=name))
    assert len(reply.body) < 500


def test_too_large_bodies() -> None:
    """413 at the limit, before anything is parsed."""
    with Client([iris()], max_body=100) as server:
        reply = server.infer("iris", {**GOOD, "id": "x" * 100})
        assert reply.status == 413
        assert "100" in reply.error


def test_a_client_that_leaves_while_it_sends(server: Client) -> None:
    """The handler ends with CANCELLED; the model is not called."""

    async def handled() -> Any:
        request = server.request("POST", "/v2/models/iris/infer", b"x")
        await request._receive()  # the only message; the next one is the disconnect
        route = server.dialect.route(request)
        return await route.handler(request, *route.args)

    with pytest.raises(ServingError) as caught:
        server.run(handled())
    assert caught.value.kind is Kind.CANCELLED


def test_a_model_without_a_default_signature_is_unsupported() -> None:
    """501 in words, not a crash; its metadata can be read all the same."""
    bare = entry("bare", Signature(form=Form.ROWS), lambda _: Rows([]))
    bare.signatures = {}
    with Client([bare]) as server:
        assert server.infer("bare", GOOD).status == 501
        assert server.send("GET", "/v2/models/bare/config").status == 501
        assert "bare" in server.send("POST", "/v2/models/bare/generate", {"x": 1}).error
        assert server.send("GET", "/v2/models/bare").json["inputs"] == []
