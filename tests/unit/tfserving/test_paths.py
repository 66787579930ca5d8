"""URL grammar: which paths and methods mean what, and what everything else is answered."""

import pytest

from dragoman.core.lifecycle import State
from dragoman.dialects import Access
from tests.fakes_tfs import Client, Toy, half_plus

BODY = {"instances": [1.0, 2.0, 5.0]}
WITH_TWO = [2.5, 3.0, 4.5]
WITH_THREE = [3.5, 4.0, 5.5]


def client() -> Client:
    models: dict[str, Toy] = {"half/1": half_plus(2), "half/2": half_plus(3), "a b/7": half_plus(2), "modèle/1": half_plus(2)}
    return Client(models, labels={"half": {"stable": "1", "canary": "2", "été": "1"}})


@pytest.mark.parametrize("prefix", ["/v1/models/", "/model-serving/"], ids=["tfserving", "G1-gradient"])
@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        pytest.param("half:predict", WITH_THREE, id="latest"),
        pytest.param("half/versions/1:predict", WITH_TWO, id="G19-version"),
        pytest.param("half/versions/0002:predict", WITH_THREE, id="G19-leading-zeros"),
        pytest.param("half/labels/stable:predict", WITH_TWO, id="label"),
        pytest.param("half/labels/canary:predict", WITH_THREE, id="other-label"),
        pytest.param("half/labels/%C3%A9t%C3%A9:predict", WITH_TWO, id="encoded-label"),
        pytest.param("half/Versions/1:PREDICT", WITH_TWO, id="keywords-are-blind-to-case"),
        pytest.param("a%20b:predict", WITH_TWO, id="encoded-name"),
        pytest.param("mod%c3%a8le:predict", WITH_TWO, id="encoded-name-utf8"),
        pytest.param("h%61lf/versions/1:predict", WITH_TWO, id="encoding-of-plain-letters"),
    ],
)
def test_predict_paths(prefix: str, rest: str, expected: list[float]) -> None:
    """Name, version and label select who answers, the same under both prefixes."""
    reply = client().send("POST", prefix + rest, BODY)
    assert (reply.status, reply.json) == (200, {"predictions": expected})
    assert reply.media_type == b"application/json"


@pytest.mark.parametrize("rest", ["half", "half/metadata", "half/versions/1", "half/versions/1/metadata", "half/labels/stable/metadata"])
def test_g1_gradient_answers_as_tfserving(rest: str) -> None:
    """Status and metadata have the same bytes under both prefixes."""
    ours = client()
    plain, gradient = ours.send("GET", f"/v1/models/{rest}"), ours.send("GET", f"/model-serving/{rest}")
    assert plain.status == gradient.status == 200
    assert plain.body == gradient.body


def test_whole_path_is_blind_to_case() -> None:
    """Upper-case keywords match; names keep their case."""
    assert client().send("GET", "/V1/MODELS/half/VERSIONS/1/METADATA").status == 200
    assert client().send("GET", "/v1/models/HALF/metadata").status == 404


def test_query_is_ignored() -> None:
    """A query string changes nothing (TensorFlow Serving would fail to match the path)."""
    assert client().send("POST", "/v1/models/half:predict", BODY, query=b"a=1").status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1"),
        ("GET", "/v1/"),
        ("GET", "/v1/models/"),
        ("GET", "/v1/model/half"),
        ("POST", "/v1/models"),
        ("POST", "/v1/models:predict"),
        ("POST", "/v1/models/:predict"),
        ("POST", "/v1/models/half"),
        ("GET", "/v1/models/half:predict"),
        ("PUT", "/v1/models/half:predict"),
        ("DELETE", "/v1/models/half"),
        ("HEAD", "/v1/models/half"),
        ("OPTIONS", "/v1/models/half:predict"),
        ("POST", "/v1/models/half/metadata"),
        ("GET", "/v1/models/half/"),
        ("GET", "/v1/models/half/metadata/"),
        ("GET", "/v1/models/half/version/1"),
        ("GET", "/v1/models/half/versions/"),
        ("GET", "/v1/models/half/versions/one"),
        ("GET", "/v1/models/half/versions/-1"),
        ("GET", "/v1/models/half/versions/\u0661"),
        ("GET", "/v1/models/half/versions/1/labels/stable"),
        ("POST", "/v1/models/half/labels/stable/versions/1:predict"),
        ("POST", "/v1/models/half:explain"),
        ("POST", "/v1/models/half:predict:predict"),
        ("POST", "/v1/models/a/b:predict"),
        ("POST", "/v1/models/half:predict\n"),
        ("GET", "/model-serving/"),
        ("POST", "/model-serving/half/predict"),
    ],
)
def test_malformed(method: str, path: str) -> None:
    """Everything that does not match, or has the wrong method, is 400 with both in the text; there is no 405."""
    reply = client().send(method, path, BODY)
    assert (reply.status, reply.error) == (400, f"Malformed request: {method} {path}")


@pytest.mark.parametrize("path", ["/v1/models", "/V1/Models", "/model-serving"])
def test_models_cannot_be_listed(path: str) -> None:
    """The protocol has no list of models, and says what is missing."""
    reply = client().send("GET", path)
    assert (reply.status, reply.error) == (400, "Missing model name in request.")


def test_malformed_path_is_cut() -> None:
    """A hostile path does not come back at full length, and bytes that are no text do no harm."""
    reply = client().send("GET", b"/v1/\xff" + b"x" * 10_000)
    assert reply.status == 400
    assert reply.error.startswith("Malformed request: GET /v1/\ufffdx")
    assert len(reply.error) < 300


@pytest.mark.parametrize("tail", ["", "/metadata", ":predict"])
@pytest.mark.parametrize("version", ["9223372036854775808", "99999999999999999999", "9" * 100_000], ids=["2**63", "20-digits", "long"])
def test_version_beyond_64_bits(version: str, tail: str) -> None:
    """A version that is no int64 is 400, however long it is."""
    reply = client().send("POST" if ":" in tail else "GET", f"/v1/models/half/versions/{version}{tail}", BODY)
    assert (reply.status, reply.error) == (400, f"Failed to convert version: {version[:256]} to numeric.")


def test_largest_version_is_a_version() -> None:
    """The largest int64 is looked up like any other."""
    reply = client().send("POST", "/v1/models/half/versions/9223372036854775807:predict", BODY)
    assert (reply.status, reply.error) == (404, "Servable not found for request: Specific(half, 9223372036854775807)")


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("POST", "nope:predict", 404, "Servable not found for request: Latest(nope)"),
        ("GET", "nope/metadata", 404, "Servable not found for request: Latest(nope)"),
        ("POST", "%F0%9F%90%8A:predict", 404, "Servable not found for request: Latest(🐊)"),
        ("POST", "%FF:predict", 404, "Servable not found for request: Latest(\ufffd)"),
        ("POST", "nope/versions/3:predict", 404, "Servable not found for request: Specific(nope, 3)"),
        ("POST", "half/versions/3:predict", 404, "Servable not found for request: Specific(half, 3)"),
        ("GET", "half/versions/03/metadata", 404, "Servable not found for request: Specific(half, 3)"),
        ("POST", "half/labels/none:predict", 400, "Unrecognized servable version label: none"),
        ("GET", "half/labels/none/metadata", 400, "Unrecognized servable version label: none"),
        ("GET", "half/labels/none", 400, "Unrecognized servable version label: none"),
        ("GET", "nope", 404, "Could not find any versions of model nope"),
        ("GET", "nope/labels/stable", 404, "Could not find any versions of model nope"),
        ("GET", "nope/versions/3", 404, "Could not find version 3 of model nope"),
        ("GET", "half/versions/3", 404, "Could not find version 3 of model half"),
    ],
)
def test_unknown_model_version_label(method: str, path: str, status: int, error: str) -> None:
    """What is not served is named, in the words of inference or of status."""
    reply = client().send(method, f"/v1/models/{path}", BODY)
    assert (reply.status, reply.error) == (status, error)


def test_unloaded_version_is_not_found() -> None:
    """A version that was unloaded is no servable any more; it stays in the status."""
    ours = client()
    ours.tell("half", "0", State.GONE, "unloaded")
    reply = ours.send("POST", "/v1/models/half/versions/0:predict", BODY)
    assert (reply.status, reply.error) == (404, "Servable not found for request: Specific(half, 0)")
    assert ours.send("GET", "/v1/models/half/versions/0").json["model_version_status"][0]["state"] == "END"


@pytest.mark.parametrize(
    ("state", "status", "part"),
    [(State.LOADING, 503, "loading"), (State.FAILED, 503, "out of disk"), (State.GONE, 404, "Latest(late)")],
)
def test_model_that_does_not_answer(state: State, status: int, part: str) -> None:
    """A model that is loading or failed to load is 503 and says why; an unloaded one is not found."""
    ours = client()
    ours.tell("late", "1", state, "out of disk" if state is State.FAILED else "")
    for reply in (ours.send("POST", "/v1/models/late:predict", BODY), ours.send("GET", "/v1/models/late/metadata")):
        assert reply.status == status
        assert part in reply.error


def test_methods_without_model() -> None:
    """The examples are read first, then the model is looked for."""
    assert client().send("POST", "/v1/models/nope:regress", {}).status == 400
    assert client().send("POST", "/v1/models/nope:regress", {"examples": [{"x": 1.0}]}).status == 404


@pytest.mark.parametrize(
    ("method", "path", "access"),
    [
        ("POST", "/v1/models/half:predict", Access.INFER),
        ("POST", "/v1/models/half/versions/1:predict", Access.INFER),
        ("POST", "/model-serving/half:classify", Access.INFER),
        ("GET", "/v1/models/half", Access.PUBLIC),
        ("GET", "/v1/models/half/metadata", Access.PUBLIC),
    ],
)
def test_access(method: str, path: str, access: Access) -> None:
    """Inference needs the right to infer; status and metadata are public."""
    ours = client()
    assert ours.dialect.route(ours.request(method, path)).access is access


def test_prefixes() -> None:
    """The server finds this dialect by these paths."""
    assert client().dialect.prefixes == ("/v1", "/model-serving")
    assert client().dialect.name == "tfserving"
