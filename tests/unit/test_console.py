"""The face and our own API: JSON for programs, a page for browsers, the OpenAPI document, and nothing from outside unescaped."""

import html
import json
import re
import shlex
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31

from dragoman.console.routes import Console
from dragoman.core.lifecycle import State
from dragoman.core.model import BatchPolicy, ModelSpec
from dragoman.core.tensors import FP32, INT64, Signature, TensorSpec
from dragoman.dialects import ServerInfo
from dragoman.serving.gateway import Entry, Gateway, VersionStatus
from dragoman.serving.meters import Meters
from tests.asgi import Reply, app, call
from tests.fakes_predictions import PICTURES, TEXT
from tests.servables import FakeServable
from tests.services import services

IRIS = Signature(
    inputs=(TensorSpec("X", FP32, (-1, 4)),), outputs=(TensorSpec("label", INT64, (-1,), labels=("setosa", "other")),), batch=True
)
OWN = set(re.findall(r"\w+", "html head meta title style body h1 h2 small main table tr th td p pre a br"))
"""The elements of the page."""
HOSTILE = "<script>alert('&')</script>\"`$(x)"


class Site:
    """A console over models that were put there by hand."""

    def __init__(self, *targets: str) -> None:
        self.gateway = Gateway(Meters())
        found = services(
            self.gateway, Meters(), targets, info=ServerInfo("dragoman", "1.2.3"), extensions=("binary_tensor_data", "statistics")
        )
        self.registry = found.registry
        self.app = app(Console(found))

    def serve(self, name: str, version: str = "1", signature: Signature = IRIS, **fields: Any) -> None:
        """One ready version, which the registry wants too."""
        spec = ModelSpec(name, version, runtime="onnx", **fields)
        entry = Entry(spec, FakeServable(spec, signatures={"": signature, "other": signature}))
        self.gateway.swap({**self.gateway.table(), (name, version): entry, (name, ""): entry})
        self.publish(name, version, State.READY)
        self.registry.fix(name, {version: spec})

    def serve_signatures(self, name: str, signatures: Mapping[str, Signature]) -> None:
        """The same with signatures of its own."""
        self.serve(name)
        entry = Entry(ModelSpec(name, "1"), FakeServable(ModelSpec(name, "1"), signatures=signatures))
        self.gateway.swap({**self.gateway.table(), (name, "1"): entry, (name, ""): entry})

    def publish(self, name: str, version: str, state: State, reason: str = "") -> None:
        self.gateway.publish(name, [VersionStatus(name, version, state, reason, "fake", 12.5)], {"stable": version})

    def get(self, path: str, method: str = "GET", **headers: str) -> Reply:
        return call(self.app, method, path, headers)

    def json(self, path: str) -> Any:
        reply = self.get(path)
        assert reply.status == 200
        assert reply.headers[b"content-type"] == b"application/json"
        return json.loads(reply.body)

    def page(self, **headers: str) -> str:
        reply = self.get("/", accept="text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", **headers)
        assert (reply.status, reply.headers[b"content-type"]) == (200, b"text/html; charset=utf-8")
        return reply.body.decode()


class Elements(HTMLParser):
    """The names of all elements, the text, and whatever attributes there are."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.text = ""
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


# --- the face ---


@pytest.mark.parametrize("accept", ["", "*/*", "application/json"])
def test_programs_get_json(accept: str, tmp_path: Path) -> None:
    """Server information and the description of the default model in one object."""
    site = Site()
    site.serve("iris")
    reply = site.get("/", **({"accept": accept} if accept else {}))
    found = json.loads(reply.body)
    assert (found["name"], found["version"], found["extensions"]) == ("dragoman", "v2", ["binary_tensor_data", "statistics"])
    assert found["input_schema"]["properties"]["X"]["items"] == {"type": "number"}
    assert found["output_schema"] == found["demo_output_schema"] != {}


def test_the_default_model_is_the_first_of_the_command_line() -> None:
    """Of those that can serve; without targets the first by name; without models the description is empty."""
    site = Site()
    assert site.json("/")["input_schema"] == {}
    site.gateway.named = ("gone", "second", "first")
    site.serve("first")
    assert list(site.json("/")["input_schema"]["properties"]) == ["X"]
    site.serve("second", signature=Signature(inputs=(TensorSpec("Y", FP32, (-1,)),), batch=True))
    assert list(site.json("/")["input_schema"]["properties"]) == ["Y"]
    other = Site()
    other.serve("b")
    other.serve("a", signature=Signature(inputs=(TensorSpec("Y", FP32, (-1,)),), batch=True))
    assert list(other.json("/")["input_schema"]["properties"]) == ["Y"]


def test_the_face_is_ready_when_its_model_is() -> None:
    """503 while the default model loads, whatever else is there, or when it failed and nothing else is; a browser gets its page."""
    site = Site()
    site.gateway.named = ("slow", "quick")
    site.publish("slow", "1", State.LOADING)
    site.serve("quick")
    reply = site.get("/")
    assert (reply.status, json.loads(reply.body)["detail"], reply.headers[b"retry-after"]) == (503, "model 'slow' is loading", b"1")
    assert "loading" in site.page()
    site.serve("slow")
    assert site.get("/").status == 200
    failed = Site()
    failed.gateway.named = ("bad",)
    failed.publish("bad", "1", State.FAILED, "setup raised")
    reply = failed.get("/")
    assert (reply.status, json.loads(reply.body)["detail"]) == (503, "model 'bad' version 1 failed to load: setup raised")


def test_the_face_waits_for_a_server_that_starts() -> None:
    """Until the targets are read nobody knows whether there are models; one that is named and not begun is loading."""
    site = Site()
    site.gateway.starting = True
    assert site.get("/").status == 503
    site.gateway.named = ("later",)
    assert json.loads(site.get("/").body)["error"] == "model 'later' is loading"
    site.serve("later")
    assert site.get("/").status == 200


def test_models_of_rows_describe_themselves() -> None:
    """With their own schemas, and that of the demo where it shows something else."""
    site = Site()
    site.serve_signatures("m", TEXT)
    found = site.json("/")
    assert found["input_schema"] == TEXT[""].input_schema
    assert found["output_schema"] == TEXT[""].output_schema
    assert list(found["demo_output_schema"]["properties"]) == ["page"]


def test_browsers_get_a_page() -> None:
    """With every model, and requests to copy that name the address that the browser used."""
    site = Site()
    site.serve("iris")
    site.publish("broken", "2", State.FAILED, "the file is empty")
    text = Elements(site.page(host="models.example:8000")).text
    assert "curl http://models.example:8000/v2/models/iris/infer -d" in text
    assert "curl http://models.example:8000/v1/models/iris:predict -d" in text
    assert "the file is empty" in text
    assert "1.2.3" in text


def test_the_requests_of_the_page_are_valid() -> None:
    """What a shell makes of them is JSON."""
    site = Site()
    site.serve("iris")
    commands = re.findall(r"curl \S+ -d '[^']+'", Elements(site.page()).text)
    bodies = [json.loads(shlex.split(command)[3]) for command in commands]
    assert bodies == [
        {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [[0.0] * 4]}]},
        {"instances": [[0.0] * 4]},
    ]


def test_a_page_without_models() -> None:
    """It says so."""
    assert "No model is served yet" in Site().page()


def test_the_page_cannot_run_scripts() -> None:
    """Its headers forbid them, framing and sniffing, and no cache keeps it."""
    headers = Site().get("/", accept="text/html").headers
    policy = dict(part.strip().split(" ", 1) for part in headers[b"content-security-policy"].decode().split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert "script-src" not in policy
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"cache-control"] == b"no-store"


def test_whatever_comes_from_outside_is_escaped() -> None:
    """Names of models, tensors and labels, versions and reasons; a Host that could be more than an address is not shown at all."""
    site = Site()
    hostile = TensorSpec(HOSTILE, FP32, (-1, 2), labels=(HOSTILE,))
    signature = Signature(inputs=(hostile,), outputs=(hostile,), batch=True)
    site.serve(HOSTILE.replace("/", "|"), signature=signature)
    site.publish("other", HOSTILE, State.FAILED, HOSTILE)
    page = site.page(host=f"{HOSTILE}.example")
    assert "http://127.0.0.1/v2" in page
    assert ".example" not in page
    found = Elements(page)
    assert set(found.names) <= OWN
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert HOSTILE in found.text
    assert "<script" not in page
    assert html.escape(HOSTILE) in page


# --- our own API ---


def test_status() -> None:
    """The server, whether it is ready, and every version."""
    site = Site()
    site.serve("iris", warnings=("x has no effect",), batch=BatchPolicy(max_size=8))
    assert site.json("/dragoman/v1/status") == {
        "name": "dragoman",
        "version": "1.2.3",
        "ready": True,
        "draining": False,
        "models": [
            {
                "name": "iris",
                "version": "1",
                "state": "ready",
                "reason": "",
                "platform": "fake",
                "since": 12.5,
                "runtime": "onnx",
                "max_batch_size": 8,
                "warnings": ["x has no effect"],
            }
        ],
    }
    site.gateway.draining = True
    assert (site.json("/dragoman/v1/status")["ready"], site.json("/dragoman/v1/status")["draining"]) == (False, True)


def test_models() -> None:
    """All of them, one row per version; what is not wanted any more has no settings."""
    site = Site()
    site.serve("b")
    site.publish("a", "3", State.GONE, "unloaded")
    rows = site.json("/dragoman/v1/models")["models"]
    assert [(r["name"], r["version"], r["state"], r["reason"]) for r in rows] == [("a", "3", "gone", "unloaded"), ("b", "1", "ready", "")]
    assert "runtime" not in rows[0]


def test_one_model() -> None:
    """Versions, labels, and every signature with an example."""
    site = Site()
    site.serve("iris")
    found = site.json("/dragoman/v1/models/iris")
    assert (found["name"], found["labels"], [v["version"] for v in found["versions"]]) == ("iris", {"stable": "1"}, ["1"])
    assert found["signatures"][""] == found["signatures"]["other"]
    assert found["signatures"][""] == {
        "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 4], "optional": False, "labels": []}],
        "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1], "optional": False, "labels": ["setosa", "other"]}],
        "batch": True,
        "example": {"X": [[0.0] * 4]},
    }


def test_a_model_that_does_not_answer_has_no_signatures() -> None:
    """Its state and reason are there all the same; a name that nobody knows is 404."""
    site = Site()
    site.publish("broken", "2", State.FAILED, "no")
    assert set(site.json("/dragoman/v1/models/broken")) == {"name", "versions", "labels"}
    reply = site.get("/dragoman/v1/models/none")
    assert (reply.status, json.loads(reply.body)) == (404, {"error": "model 'none' is not known to this server", "kind": "not_found"})


@pytest.mark.parametrize("name", ["a b", "é", "50%", "a%20b", "%2F", "<script>"])
def test_names_are_decoded_once(name: str) -> None:
    """The HTTP server decodes a path; a name that has percent signs of its own is found."""
    site = Site()
    site.serve(name)
    assert site.json(f"/dragoman/v1/models/{name}")["name"] == name


@pytest.mark.parametrize("path", ["/dragoman/v1", "/dragoman/v1/nothing", "/dragoman/v1/models/a/b", "/elsewhere", "/dragoman/v2/status"])
def test_unknown_paths(path: str) -> None:
    """404, with the path; outside of our own API in the words of Tungsten, too."""
    reply = Site().get(path)
    assert json.loads(reply.body).get("detail") == (None if path.startswith("/dragoman/") else "Not Found")
    assert (reply.status, json.loads(reply.body)["error"]) == (404, f"there is nothing at {path}")


@pytest.mark.parametrize("path", ["/", "/dragoman/v1/status", "/dragoman/v1/models/"])
@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS"])
def test_other_methods(method: str, path: str) -> None:
    """405, with those that are allowed; HEAD is one of them, and so is a slash at the end."""
    reply = Site().get(path, method)
    assert (reply.status, reply.headers[b"allow"]) == (405, b"GET, HEAD, POST" if path == "/" else b"GET, HEAD")
    assert json.loads(reply.body).get("detail") == (None if path.startswith("/dragoman/") else "Method Not Allowed")
    assert Site().get(path, "HEAD").status == 200


# --- OpenAPI ---


def document(site: Site) -> Mapping[str, Any]:
    found: Mapping[str, Any] = site.json("/dragoman/v1/openapi.json")
    return found


def test_the_document_is_valid_openapi() -> None:
    """Against the schema of OpenAPI 3.1, with hostile names and every kind of tensor too."""
    site = Site()
    site.serve("iris")
    site.serve("{curly}" + HOSTILE.replace("/", "|"), signature=Signature())
    unknown = Signature(inputs=(TensorSpec("u", None, None), TensorSpec("s", FP32, ())))
    site.serve("unknown", "7", signature=unknown)
    jsonschema_rs.validator_for(OPENAPI_31).validate(document(site))


def test_the_document_describes_what_is_served() -> None:
    """The routes of each version with the model's own names; TensorFlow Serving's only for versions that it could name."""
    site = Site()
    site.serve("a b")
    site.serve("text", "v2")
    paths = document(site)["paths"]
    assert {p for p in paths if p.startswith("/v")} == {
        "/v2/health",
        "/v2/models/",
        "/v2/models/a%20b/versions/1/infer",
        *(f"/v1/models/a%20b/versions/1:{verb}" for verb in ("predict", "classify", "regress")),
        "/v2/models/text/versions/v2/infer",
    }
    assert {"/models/a%20b:1/predict", "/models/text:v2", "/predictions", "/predict", "/predictions/{id}"} <= paths.keys()
    body = paths["/v2/models/a%20b/versions/1/infer"]["post"]["requestBody"]["content"]["application/json"]
    assert body["example"]["inputs"][0]["name"] == "X"
    tensor = body["schema"]["anyOf"][0]["properties"]["inputs"]["items"]
    assert tensor["properties"]["name"]["const"] == "X"
    examples = paths["/v1/models/a%20b/versions/1:classify"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    taken = jsonschema_rs.validator_for(examples)
    taken.validate({"signature_name": "s", "context": {"n": 1}, "examples": [{"x": [1.5, 2]}, {"y": {"b64": "AA=="}}]})
    assert not any(map(taken.is_valid, ({}, {"examples": []}, {"examples": [{"x": None}]}, {"examples": [[1]]}, {"context": {"x": 1}})))


@pytest.mark.parametrize(
    ("path", "schema"), [("/dragoman/v1/status", "Status"), ("/dragoman/v1/models", "Models"), ("/dragoman/v1/models/iris", "Model")]
)
def test_answers_are_as_the_document_says(path: str, schema: str) -> None:
    """Our own API keeps its own word, errors included."""
    site = Site()
    site.serve("iris")
    site.publish("gone", "1", State.GONE, "unloaded")
    schemas = document(site)["components"]["schemas"]
    jsonschema_rs.validator_for({**schemas[schema], "components": {"schemas": schemas}}).validate(site.json(path))
    error = json.loads(site.get("/dragoman/v1/nothing").body)
    jsonschema_rs.validator_for(schemas["Error"]).validate(error)


def test_the_document_has_the_schemas_of_rows() -> None:
    """A list of the model's own rows goes in and comes out, with an example; choices are an enum; what is not finite is null."""
    site = Site()
    site.serve_signatures("m", TEXT)
    site.serve_signatures("pictures", PICTURES)
    site.gateway.named = ("m",)
    found = document(site)
    jsonschema_rs.validator_for(OPENAPI_31).validate(found)
    predict = found["paths"]["/predict"]["post"]
    content = predict["requestBody"]["content"]["application/json"]
    assert content["example"] == [{"prompt": "text"}]
    assert content["schema"]["items"]["properties"]["style"]["enum"] == ["plain", "bold"]
    jsonschema_rs.validator_for(content["schema"]).validate(content["example"])
    answer = predict["responses"]["200"]["content"]["application/json"]["schema"]
    validator = jsonschema_rs.validator_for(answer)
    validator.validate({"outputs": [{"text": "a", "score": None}], "status": "success", "error_message": None})
    assert not validator.is_valid({"outputs": [{"score": 1}], "status": "success", "error_message": None})
    picture = found["paths"]["/models/pictures:1/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert picture["example"][0]["image"].startswith("data:image/png;base64,")


def test_the_document_has_one_place_more() -> None:
    """Where the frameworks of others put theirs."""
    site = Site()
    site.serve("iris")
    assert site.json("/openapi.json") == site.json("/dragoman/v1/openapi.json")


# --- the page about the API ---


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_page_shows_every_operation(path: str) -> None:
    """Method, path and a request to copy; its headers are those of the start page."""
    site = Site()
    site.serve("iris")
    reply = site.get(path, host="models.example:8000")
    assert (reply.status, reply.headers[b"content-type"]) == (200, b"text/html; charset=utf-8")
    assert b"default-src 'none'" in reply.headers[b"content-security-policy"]
    text = Elements(reply.body.decode()).text
    for route, operations in document(site)["paths"].items():
        assert route in text
        assert all(method.upper() in text for method in operations if method != "parameters")
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("curl")]
    commands += [shlex.split(each) for each in re.findall(r"curl [^\n]*?http://models.example:8000/predict -H [^\n]+?\]'", text)]
    sent = next(c for c in commands if "http://models.example:8000/predict" in c)
    assert json.loads(sent[sent.index("-d") + 1]) == [{"X": [0.0] * 4}]


def test_the_page_about_the_api_escapes_everything() -> None:
    """Names of models and tensors go into paths, summaries, schemas and commands."""
    site = Site()
    hostile = TensorSpec(HOSTILE, FP32, (-1, 2))
    site.serve(HOSTILE.replace("/", "|"), signature=Signature(inputs=(hostile,), outputs=(hostile,), batch=True))
    page = site.get("/docs", host=f"{HOSTILE}.example").body.decode()
    assert "<script" not in page
    assert ".example" not in page
    assert set(Elements(page).names) <= OWN | {"details", "summary", "code", "span", "ul", "li", "h3"}
