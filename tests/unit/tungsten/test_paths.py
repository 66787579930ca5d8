"""Which model a path means, which methods it has, and what is said about those that do not exist."""

from typing import Any

import pytest

from dragoman.core.errors import ServingError
from dragoman.core.lifecycle import State
from dragoman.dialects import Access
from dragoman.dialects.tungsten.rest import Tungsten
from dragoman.serving.gateway import VersionStatus
from tests.fakes_predictions import NUMBERS, TEXT, Client

ROW = {"prompt": "hello"}
FIRST = f"{1:032x}"
BELOW = (
    "/predictions",
    f"/predictions/{FIRST}",
    f"/predictions/{FIRST}/cancel",
    f"/predictions/{FIRST}/events",
    "/predict",
    "/demo",
    f"/demo/{FIRST}",
    f"/demo/{FIRST}/cancel",
    f"/demo/{FIRST}/events",
    "/demo/metadata",
    "/demo/predictions",
    f"/demo/predictions/{FIRST}",
    f"/demo/predictions/{FIRST}/cancel",
)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


def several() -> Client:
    """`a` in three versions, of which 3 is the default and 2 is called stable; and names that need escapes."""
    client = Client(a=TEXT)
    client.serve("a", TEXT, "2", label="stable")
    client.serve("a", TEXT, "3", label="2nd:best")
    for name in ("with space", "50%", "ünï", "predict"):
        client.serve(name, TEXT)
    return client


# --- which model ---


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("", ("a", "3")),
        ("/models/a", ("a", "3")),
        ("/models/a:1", ("a", "1")),
        ("/models/a:2", ("a", "2")),
        ("/models/a:stable", ("a", "2")),
        ("/models/a:2nd%3Abest", ("a", "3")),
        ("/models/a:2nd:best", ("a", "3")),
        ("/models/with%20space", ("with space", "1")),
        ("/models/50%25:1", ("50%", "1")),
        ("/models/%C3%BCn%C3%AF", ("ünï", "1")),
        ("/models/predict", ("predict", "1")),
        ("/%6dodels/%61", ("a", "3")),
    ],
)
def test_name_and_tag(path: str, model: tuple[str, str]) -> None:
    """A tag is a version or else a label; without one the default version answers, without a name the default model."""
    client = several()
    for kind in ("predictions", "demo"):
        (prediction_id,) = client.post(f"{path}/{kind}", [ROW]).values()
        view = client.predictions.views[prediction_id]
        assert (view.model, view.version) == model


def test_a_version_goes_before_a_label_of_that_name() -> None:
    """A label cannot hide what is there."""
    client = Client(a=TEXT)
    client.serve("a", TEXT, "2", label="1")
    client.post("/models/a:1/predictions", [ROW])
    assert client.predictions.views[FIRST].version == "1"


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/models/b/predict", "model 'b' is not known to this server"),
        ("/models/a:9/predict", "model 'a' has no version or label '9'; it has 3, 2, 1, stable, 2nd:best"),
        ("/models/a%3A1/predict", "model 'a:1' is not known to this server"),
        ("/models/a%2Fb/predict", "model 'a/b' is not known to this server"),
    ],
)
def test_models_that_are_not_there(path: str, detail: str) -> None:
    """404, and what there is."""
    assert several().refused(404, "POST", path, [ROW]) == {"detail": detail}


def test_a_model_that_loads() -> None:
    """503, told when to come again; a version that is there answers meanwhile."""
    client = Client(a=TEXT)
    client.gateway.publish("slow", [VersionStatus("slow", "1", State.LOADING, "")], {})
    assert client.refused(503, "POST", "/models/slow/predict", [ROW]) == {"detail": "model 'slow' is loading", "error_kind": "not_ready"}
    client.gateway.named = ("slow", "a")
    assert client.refused(503, "POST", "/predict", [ROW])["error_kind"] == "not_ready"
    client.post("/models/a/predictions", [ROW])


def test_no_model_at_all() -> None:
    """404 in words."""
    client = Client()
    client.gateway.swap({})
    client.gateway.publish("m", [], {})
    client.gateway.named = ()
    assert client.refused(404, "POST", "/predict", [ROW]) == {"detail": "this server serves no model yet"}


@pytest.mark.parametrize("ending", ["", "/cancel", "/events"])
def test_ids_below_a_model_are_that_models(ending: str) -> None:
    """The root knows all of them; a model knows its own, also when it serves no more."""
    client = Client(a=TEXT, b=NUMBERS)
    client.post("/models/a/predictions", [ROW])
    client.gateway.swap({})
    for kind in ("predictions", "demo"):
        assert client.send("GET", f"/models/a/{kind}/{FIRST}{ending}").status == 200
        assert client.send("GET", f"/models/a:7/{kind}/{FIRST}{ending}").status == 200
        assert client.send("GET", f"/{kind}/{FIRST}{ending}").status == 200
        assert client.refused(404, "GET", f"/models/b/{kind}/{FIRST}{ending}") == {"detail": FIRST}


def test_a_description() -> None:
    """The schemas of one model, as GET / has those of the default one."""
    client = several()
    client.serve("n", NUMBERS)
    found = client.get("/models/a:stable")
    assert list(found) == ["input_schema", "output_schema", "demo_output_schema"]
    assert found["input_schema"] == TEXT[""].input_schema
    assert list(found["demo_output_schema"]["properties"]) == ["page"]
    numbers = client.get("/models/n")
    item = {"type": "number"}
    assert numbers["input_schema"]["properties"]["x"] == {"type": "array", "items": item, "minItems": 2, "maxItems": 2}
    assert numbers["output_schema"] == numbers["demo_output_schema"] == {"type": "object", "properties": {"y": item}, "required": ["y"]}


# --- paths and methods ---


@pytest.mark.parametrize("prefix", ["", "/models/m", "/models/m:1"])
@pytest.mark.parametrize("path", BELOW)
def test_methods(path: str, prefix: str) -> None:
    """Those of the original, GET beside POST for cancel; 405 with the others, and an Allow header."""
    client = Client()
    client.post("/predictions", [ROW])
    allowed = {"GET", "POST"} if path.endswith("/cancel") else {"GET"} if path.endswith(("events", FIRST, "metadata")) else {"POST"}
    for method in METHODS:
        request = client.request(method, prefix + path)
        if method in allowed:
            assert client.dialect.route(request).access is (Access.PUBLIC if path.endswith("metadata") else Access.INFER)
            continue
        reply = client.send(method, prefix + path)
        assert (reply.status, reply.body) == (405, b'{"detail":"Method Not Allowed"}')
        assert set(reply.headers[b"allow"].decode().split(", ")) == allowed


@pytest.mark.parametrize("path", [*BELOW, "/models/m", "/files", "/files/a", "/demo/files", "/demo/files/a"])
def test_one_slash_at_the_end(path: str) -> None:
    """It changes nothing; two are another path."""
    client = Client()
    for method in METHODS:
        found: list[Any] = []
        for written in (path, f"{path}/"):
            try:
                route = client.dialect.route(client.request(method, written))
                found.append((route.handler, route.access, route.args))
            except ServingError as error:
                found.append(error.kind)
        assert found[0] == found[1]
    assert client.refused(404, "GET", f"{path}//") == {"detail": "Not Found"}


@pytest.mark.parametrize(
    "path",
    [
        "/predictions/a/b",
        "/predictions/a/cancel/b",
        "/predict/a",
        "/demo/a/b",
        "/demo/predictions/a/b",
        "/demo/predictions/a/events",
        "/demo/files/a/b",
        "/files/a/b",
        "/models",
        "/models/",
        "/models/:1",
        "/models/:1/predict",
        "/models//predict",
        "/models/m:/predict",
        "/models/m/files",
        "/models/m/files/a",
        "/models/m/metadata",
        "/models/m/models/m",
        "/Predictions",
        "/models/m/Predict",
    ],
)
def test_paths_that_are_not_there(path: str) -> None:
    """404, whatever the method."""
    client = Client()
    for method in METHODS:
        assert client.refused(404, method, path) == {"detail": "Not Found"}


def test_what_it_answers_for() -> None:
    """The first segments of its paths, whole."""
    assert Tungsten.prefixes == ("/predictions", "/predict", "/demo", "/models", "/files")
