"""MLRun's dialect over HTTP, beside the Open Inference Protocol: which of both a request speaks, routes, content types, statuses."""

import json
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from dragoman.core.lifecycle import State
from dragoman.core.model import ModelSpec, Step
from dragoman.core.tensors import BYTES, FP32, Blob, Signature, TensorSpec, Value
from dragoman.dialects import Access
from dragoman.serving.gateway import Entry, VersionStatus
from dragoman.serving.routers.options import VOTING
from dragoman.serving.routers.router import RUNTIME, Router
from tests.unit.v2.client import FLOWER, GOOD, TEXT, Client, Headers, Reply, entry, iris, one_input, shout
from tests.unit.v2.mlrun_models import PLAIN, SCHEMA, echo, whole_entry


def sizes(body: dict[str, Any]) -> Value:
    """What a binary body was: its type and size."""
    (only,) = body["inputs"]
    return [only.media_type, len(only.data)] if isinstance(only, Blob) else only


BYTES_IN = Signature(inputs=(TensorSpec("file", BYTES, (-1,)),), outputs=(TensorSpec("text_output", BYTES, (-1,)),), batch=True)


def _sized(call: Any) -> Any:
    call.inputs.items[0].name = "text_output"
    return call.inputs


@pytest.fixture(scope="module")
def server() -> Iterator[Client]:
    entries = [
        iris(), iris("2"), entry("text", TEXT, shout), entry("file", BYTES_IN, _sized),
        whole_entry("whole", echo), whole_entry("plain", echo, PLAIN), whole_entry("sizes", sizes, PLAIN),
    ]  # fmt: skip
    with Client(entries) as client:
        client.gateway.named = ("whole", "iris")
        yield client


def post(server: Client, path: str, body: Any = b"", headers: Headers = (), method: str = "POST") -> Reply:
    return server.send(method, f"/v2/models/{path}", body, headers)


# --- which dialect ---

TENSOR = {"name": "x", "shape": [2], "datatype": "INT64", "data": [1, 2]}


@pytest.mark.parametrize(
    ("model", "body"),
    [
        ("iris", GOOD),
        ("iris", {**GOOD, "operation": "infer"}),
        ("iris", {**GOOD, "data_url": None, "operation": None}),
        ("whole", {"inputs": [TENSOR]}),
        ("whole", {"inputs": [{**TENSOR, "name": "a"}, {**TENSOR, "name": "b"}], "id": "7"}),
    ],
)
def test_tensors_are_answered_with_tensors(server: Client, model: str, body: Any) -> None:
    """The Open Inference Protocol for every model (M28, M29)."""
    reply = post(server, f"{model}/infer", body)
    assert reply.status == 200, reply.body
    assert all({"name", "shape", "datatype", "data"} <= output.keys() for output in reply.json["outputs"])
    assert reply.json["model_version"]


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        ("iris", [FLOWER]),
        ("iris", FLOWER),
        ("iris", [{"input": FLOWER}]),
        ("iris", [FLOWER] * 1_000),
        ("whole", []),
        ("whole", [1, "two"]),
        ("whole", [{"name": "Ada", "shape": "round"}]),
        ("whole", [{"name": "x", "shape": [1], "datatype": "INT64"}]),
        ("whole", [{"name": "x", "shape": [1], "datatype": "VARCHAR", "data": [1]}]),
        ("whole", [TENSOR, {"name": "y"}]),
        ("whole", [TENSOR, 1]),
        ("whole", [0.5] * 20_000),
        ("plain", [{"a": 1}, {"b": [2]}]),
    ],
)
def test_all_else_is_answered_plainly(server: Client, model: str, inputs: list[Any]) -> None:
    """Rows that merely have a name or a shape, empty lists and mixed ones too (sheet section 13)."""
    limited = inputs[:8] if model == "iris" and len(inputs) > 8 else inputs
    reply = post(server, f"{model}/infer", {"inputs": limited, "id": 5})
    assert reply.status == 200, reply.body
    assert reply.json["id"] == 5
    assert "timestamp" in reply.json
    if model != "iris":
        assert reply.json["outputs"] == inputs


@pytest.mark.parametrize("operation", ["predict", "infer_dict", "predict_dict"])
def test_other_operations_are_always_plain(server: Client, operation: str) -> None:
    """Whatever their inputs look like."""
    assert "model_version" not in post(server, f"whole/{operation}", {"inputs": [TENSOR]}).json
    assert post(server, "whole/infer", {"inputs": [TENSOR], "operation": operation}).json["outputs"] == [TENSOR]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"inputs": [{"name": "input", "shape": [1, 4]}]}, "datatype"),
        ({"inputs": [{"shape": [1, 4], "datatype": "FP32", "data": FLOWER}]}, "'name'"),
        ({"inputs": []}, "'iris'"),
        ({"inputs": {}}, "needs a list 'inputs'"),
        ({}, "needs a list 'inputs'"),
        ({"inputs": [{"input": [1]}]}, "'iris'"),
        ({"inputs": [{"other": FLOWER}]}, "lacks 'input'"),
        ({"inputs": [[1, 2, 3]]}, "'iris'"),
        ({"inputs": "text"}, "needs a list 'inputs'"),
    ],
)
def test_what_nearly_is_a_tensor(server: Client, body: Any, words: str) -> None:
    """For models of tensors it is told in the words of the protocol of tensors; all of it is 400."""
    reply = post(server, "iris/infer", body)
    assert reply.status == 400
    assert words in reply.error


# --- routes ---


def test_routes_of_one_request(server: Client) -> None:
    """Each of these is the same (M1, M22); so is a GET that brings a body."""
    sized = [(b"content-length", b"30")]
    ways = [
        ("POST", "iris/infer", ()), ("POST", "iris/predict", ()), ("POST", "iris", ()), ("PUT", "iris", ()), ("POST", "iris/", ()),
        ("POST", "iris/versions/2/infer", ()), ("POST", "iris:2/infer", ()), ("POST", "iris:2", ()), ("POST", "iris%3A2/predict", ()),
        ("GET", "iris/infer", sized), ("GET", "iris/predict", sized), ("POST", "iris/versions/2/predict/", ()),
    ]  # fmt: skip
    for method, path, headers in ways:
        reply = post(server, path, {"inputs": [FLOWER], "id": path}, headers, method)
        assert reply.status == 200, (path, reply.body)
        assert (reply.json["id"], reply.json["outputs"][0]["label"]) == (path, 1)


def test_a_get_without_a_body(server: Client) -> None:
    """Asks for nothing: infer is a POST as the other protocol says, all else says what is missing."""
    for path, status in (("iris/infer", 405), ("iris/predict", 400), ("whole/explain", 400), ("iris/anything", 404), ("nobody/echo", 404)):
        for method in ("GET", "HEAD"):
            assert post(server, path, method=method).status == status


def test_explain(server: Client) -> None:
    """M2; a model that has none says so."""
    reply = post(server, "whole/explain", {"inputs": [1]})
    assert reply.json["outputs"] == "explained by whole"
    assert "timestamp" not in reply.json
    assert (post(server, "iris/explain", {"inputs": [FLOWER]}).status, post(server, "nobody/explain", {}).status) == (501, 404)


def test_operations_of_its_own(server: Client) -> None:
    """The event goes in, the bare result comes out, without the keys of this server."""
    headers = [(b"x-a", b"1"), (b"authorization", b"Bearer secret"), (b"cookie", b"c"), (b"content-type", b"application/json")]
    event = post(
        server, "whole/echo", {"inputs": [1], "k": None}, [*headers, (b"mlrun-event-id", b"e1"), (b"mlrun-event-path", b"/p")]
    ).json
    assert (event["body"], event["id"], event["path"], event["method"]) == ({"inputs": [1], "k": None}, "e1", "/p", "POST")
    assert event["headers"].keys() == {"x-a", "content-type", "mlrun-event-id", "mlrun-event-path"}
    assert (event["content_type"], event["trigger"]) == ("application/json", "http")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT"])
def test_operations_of_its_own_without_a_body(server: Client, method: str) -> None:
    """By any method, with an empty object as the event's body."""
    for path in ("whole/echo", "whole/versions/1/echo/"):
        event = post(server, path, method=method)
        assert (event.status, event.json["body"], event.json["method"]) == (200, {}, method)


def test_a_status_of_user_code(server: Client) -> None:
    """It is the answer's; headers that would break the answer stay away."""
    reply = post(server, "whole/status", {})
    assert (reply.status, reply.json) == (418, {"error": "a teapot"})
    assert reply.headers == {b"x-pot": b"tea"}


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("nobody/infer", 404, "nobody"),
        ("nobody/predict", 404, "nobody"),
        ("nobody:1/predict", 404, "nobody"),
        ("iris/versions/9/predict", 404, "'9'"),
        ("iris:9/infer", 404, "'9'"),
        ("iris/dance", 404, "there is nothing at /v2/models/iris/dance: model 'iris' has no operation 'dance'; it has"),
        ("iris/versions/2/explain_dict", 404, "explain_dict"),
        ("whole/ready", 405, "GET"),
    ],
)
def test_what_is_not_there(server: Client, path: str, status: int, words: str) -> None:
    """M25: a client error that names it."""
    reply = post(server, path, {"inputs": [FLOWER]})
    assert reply.status == status
    assert words in reply.error


def test_server_and_list(server: Client) -> None:
    """M5 and M6: with a slash at the end, and by POST."""
    for path in ("/v2/health", "/v2/health/"):
        assert server.send("GET", path).json == {"name": "dragoman", "version": "v2", "extensions": ["odd_extension"]}
    listed = {"models": ["whole", "iris", "file", "plain", "sizes", "text"]}
    for method, path in (("GET", "/v2/models"), ("GET", "/v2/models/"), ("POST", "/v2/models/")):
        assert server.send(method, path).json == listed


def test_models_that_are_not_ready_are_listed() -> None:
    """As MLRun lists them whatever their state, by the name that they will have; what was unloaded is not there."""
    with Client([iris()]) as server:
        late = VersionStatus("late", "v2", State.LOADING, named=True)
        server.gateway.publish("late", [late, VersionStatus("late", "v1", State.FAILED, named=True)], {})
        server.gateway.publish("gone", [VersionStatus("gone", "1", State.GONE)], {})
        server.gateway.publish("alone", [VersionStatus("alone", "1", State.LOADING)], {})
        server.gateway.named = ("late", "iris")
        assert server.send("GET", "/v2/models").json == {"models": ["late:v1", "late:v2", "iris", "alone"]}
        assert server.send("GET", "/v2/models/late").json["version"] == "v2"


def test_metadata(server: Client) -> None:
    """M4: what both dialects look for in one object; without a schema the lists are empty."""
    whole = post(server, "whole", method="GET").json
    assert [(e["name"], e["value_type"], e["datatype"], e["shape"]) for e in whole["inputs"]] == [
        ("sepal", "float", "FP64", [-1]), ("petal", "float", "FP64", [-1]),
    ]  # fmt: skip
    assert [(e["name"], e["value_type"]) for e in whole["outputs"]] == [("kind", "int")]
    assert (whole["name"], whole["version"], whole["versions"]) == ("whole", "", ["1"])
    assert [post(server, path, method="GET").json["versions"] for path in ("iris", "iris:1", "iris/versions/1")] == [
        ["1", "2"],
        ["1"],
        ["1"],
    ]
    plain = post(server, "plain", method="GET").json
    assert (plain["inputs"], plain["outputs"]) == ([], [])
    assert post(server, "plain/ready", method="GET").json == {"name": "plain", "ready": True}


def test_access(server: Client) -> None:
    """What runs a model is inference, what tells of it is public."""
    for method, path, access in (
        ("POST", "/v2/models/m/predict", Access.INFER),
        ("POST", "/v2/models/m", Access.INFER),
        ("PUT", "/v2/models/m", Access.INFER),
        ("GET", "/v2/models/m/op", Access.INFER),
        ("POST", "/v2/models/m/versions/1/op", Access.INFER),
        ("GET", "/v2/health", Access.PUBLIC),
        ("POST", "/v2/models", Access.PUBLIC),
    ):
        assert server.dialect.route(server.request(method, path)).access is access


# --- content types ---


@pytest.mark.parametrize("said", [b"application/x-www-form-urlencoded", b"text/plain; charset=utf-8", b"image/png", b"", b"garbage"])
def test_json_is_json_whatever_it_is_called(server: Client, said: bytes) -> None:
    """M17."""
    for path in ("whole/infer", "whole/predict"):
        assert post(server, path, {"inputs": [1]}, [(b"content-type", said)]).json["outputs"] == [1]


@pytest.mark.parametrize("path", ["sizes/infer", "sizes/predict", "sizes"])
def test_a_binary_body(server: Client, path: str) -> None:
    """One input that is the file (M15)."""
    reply = post(server, path, b"\x89PNG\r\n\x1a\n" + bytes(300), [(b"content-type", b"image/png")])
    assert reply.json["outputs"] == ["image/png", 308]


@pytest.mark.parametrize("said", [b"application/octet-stream", b"application/pdf", b"APPLICATION/OCTET-STREAM; a=b"])
def test_bytes_of_no_kind_are_no_file(server: Client, said: bytes) -> None:
    """M16: to a class they are JSON that went wrong; a model whose one input is bytes takes them."""
    for path in ("sizes/infer", "sizes/predict", "sizes", "whole/explain"):
        reply = post(server, path, b"\x00\x01", [(b"content-type", said)])
        assert (reply.status, "application/" in reply.error) == (400, True)
        assert f"'{path.partition('/')[0]}'" in reply.error
        assert post(server, path, {"inputs": [1]}, [(b"content-type", said)]).status == 200
    assert post(server, "file/infer", b"\x00\x01", [(b"content-type", said)]).status == 200


def test_a_binary_body_for_a_model_of_tensors(server: Client) -> None:
    """The content is the one element of its one input; a model of numbers has no use for it."""
    said = [(b"content-type", b"image/jpeg")]
    assert post(server, "file/infer", b"\xff\xd8 picture", said).json["outputs"] != []
    reply = post(server, "iris/infer", b"\xff\xd8 picture", said)
    assert reply.status == 400
    assert "image/jpeg" in reply.error


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"\x89PNG", b"application/json"),
        (b"", b"image/png"),
        (b"", b""),
        (b"{", b""),
        (b'{"inputs": [1]', b"application/json"),
        (b"\xff\xfe", b"text/plain"),
        (b"3", b""),
        (b"[[1]]", b"application/json"),
        (b"null", b""),
        (b'{"inputs": [NaN]}', b""),
        (b'{"inputs": "x"}', b""),
        (b"{}", b""),
        (b"[" * 100_000, b""),
        (b'{"inputs":' * 500 + b"1" + b"}" * 500, b""),
        (b'{"inputs": [' + b"[" * 300 + b"]" * 300 + b"]}", b""),
    ],
)
@pytest.mark.parametrize("path", ["whole/infer", "whole/predict", "whole/explain", "iris/infer", "iris/predict", "iris/infer_dict"])
def test_bodies_that_are_none(server: Client, path: str, body: bytes, said: bytes) -> None:
    """M16: 4xx with a text that names the model; the server lives on."""
    reply = post(server, path, body, [(b"content-type", said)])
    assert 400 <= reply.status < 500 or (path, reply.status) == ("whole/explain", 501)
    assert reply.error
    assert post(server, "whole/infer", {"inputs": [1]}).status == 200


def test_compressed_bodies(server: Client) -> None:
    """As the other dialect has them."""
    body = zlib.compress(json.dumps({"inputs": [1]}).encode())
    assert post(server, "whole/predict", body, [(b"content-encoding", b"deflate")]).json["outputs"] == [1]
    assert post(server, "whole/predict", b"xx", [(b"content-encoding", b"deflate")]).status == 400
    assert post(server, "whole/predict", b"xx", [(b"content-encoding", b"br")]).status == 415


def test_a_data_url_that_may_not_be_fetched(server: Client) -> None:
    """M13: refused, and not by a 5xx, for every kind of model and also with inputs."""
    for model in ("iris", "whole"):
        for url in ("http://127.0.0.1:1/x", "file:///etc/passwd", "nonsense://x", "/etc/passwd", 3, ["x"]):
            reply = post(server, f"{model}/infer", {"data_url": url, "inputs": [1]})
            assert 400 <= reply.status < 500, (url, reply.body)
            assert "data_url" in reply.error


def test_two_dialects_on_one_model(server: Client) -> None:
    """M29: per request, for a model of tensors and for one of whole requests."""
    assert "datatype" in post(server, "whole/infer", one_input([1, 2], "INT64", (2,), "x")).json["outputs"][0]
    assert post(server, "whole/infer", {"inputs": [1, 2]}).json["outputs"] == [1, 2]
    binary = post(server, "iris/infer", GOOD | {"parameters": {"binary_data_output": True}})
    assert b"inference-header-content-length" in binary.headers
    assert FP32.name in binary.body.decode("latin-1")


# --- ensembles ---


def add_ensemble(client: Client, name: str) -> None:
    """A VotingEnsemble of the two models a and b."""
    steps = (Step("a"), Step("b"))
    spec = ModelSpec(name, runtime=RUNTIME, steps=steps, arguments={"kind": VOTING, "args": {"weights": {"a": 3, "b": 1}}})
    entry = Entry(spec, Router(spec, client.gateway, [SCHEMA, SCHEMA]))
    client.gateway.swap({**client.gateway.table(), (name, "1"): entry, (name, ""): entry})
    client.gateway.publish(name, [VersionStatus(name, "1", State.READY)], {})


def test_an_ensemble_is_asked_without_its_name() -> None:
    """M31: infer, predict and explain below /v2/models; its weights are in the list. Not where a model is called so, or there are several."""
    members = [whole_entry("a", lambda body: [1]), whole_entry("b", lambda body: [2])]
    with Client(members) as client:
        assert post(client, "infer", {"inputs": [[1]]}).status == 404
        add_ensemble(client, "vote")
        assert client.send("GET", "/v2/models/").json == {"models": ["a", "b", "vote"], "weights": {"a": 0.75, "b": 0.25}}
        for path in ("infer", "predict", "infer/", "vote/infer", "vote"):
            reply = post(client, path, {"inputs": [[1]], "id": 8})
            assert (reply.status, reply.json["id"], reply.json["model_name"], reply.json["outputs"]) == (200, 8, "vote", [1]), path
        assert post(client, "explain", {"inputs": [[1]]}).status == 200
        assert post(client, "infer", b"{").status == 400
        add_ensemble(client, "second")
        assert "'vote'" in post(client, "infer", {"inputs": [[1]]}).error
    with Client([whole_entry("infer", echo)]) as client:
        assert post(client, "infer", {"inputs": [5]}).json["model_name"] == "infer"
        assert post(client, "infer/predict", {"inputs": [5]}).json["outputs"] == [5]
