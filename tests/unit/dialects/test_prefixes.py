"""Paths below a version's own prefix, and what they mean without it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.dialects.prefixes import Pinned, astray, pinned, possible, rewritten
from tests.asgi import Speaker, app, call


@pytest.mark.parametrize(
    ("path", "name", "version", "rest"),
    [
        (b"/serve/iris-3/invocations", "iris", "3", b"invocations"),
        (b"/serve/iris-3", "iris", "3", b""),
        (b"/serve/iris-3/", "iris", "3", b""),
        (b"/serve/my-own-iris-12/api/v1.0/predictions", "my-own-iris", "12", b"api/v1.0/predictions"),
        (b"/serve/iris--3/ping", "iris-", "3", b"ping"),
        (b"/serve/iris-2f0c/ping", "iris", "2f0c", b"ping"),
        (b"/serve/caf%C3%A9%20noir-1/version", "café noir", "1", b"version"),
        (b"/serve/a%2Fb-1/x%2Fy", "a/b", "1", b"x%2Fy"),
        (b"/serve/%FF-1/ping", "\ufffd", "1", b"ping"),
        (b"/iris/3/api/v1.0/predictions", "iris", "3", b"api/v1.0/predictions"),
        (b"/iris/3/api/v0.1/predictions", "iris", "3", b"api/v0.1/predictions"),
        (b"/iris/3/v2/models/iris/infer", "iris", "3", b"v2/models/iris/infer"),
        (b"/v1/3/api/v1.0/predictions", "v1", "3", b"api/v1.0/predictions"),
        (b"/seldon/team/iris/3/api/v0.1/predictions", "iris", "3", b"api/v0.1/predictions"),
        (b"/seldon/team/iris/api/v1.0/predictions", "iris", "", b"api/v1.0/predictions"),
        (b"/seldon/team/1/1/api/v0.1/predictions", "1", "1", b"api/v0.1/predictions"),
        (b"/seldon/team/iris/v2/models/iris/infer", "iris", "", b"v2/models/iris/infer"),
    ],
)
def test_the_prefix_names_model_and_version(path: bytes, name: str, version: str, rest: bytes) -> None:
    """The last dash is the one before the version; names are decoded, what follows stays as it came."""
    assert pinned(path) == Pinned(name, version, rest)
    assert possible(path.decode())


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"*",
        b"/",
        b"/serve",
        b"/serve/",
        b"/serve/iris",
        b"/serve/iris/ping",
        b"/serve/-3/ping",
        b"/serve/iris-/ping",
        b"/serve//ping",
        b"/server/iris-3/ping",
        b"/seldon/team",
        b"/seldon/team/iris",
        b"/seldon//iris/",
        b"/iris/3/predict",
        b"/iris/x/api/v1.0/predictions",
        b"//3/api/v1.0/predictions",
        b"/iris/3/api",
        b"/api/v1/serve",
        b"/v2/models/iris/infer",
        b"/v2/models/iris/versions/3/infer",
        b"/v1/models/iris/versions/3:predict",
        b"/models/iris:3/predict",
        b"/predictions/0123456789abcdef0123456789abcdef",
    ],
)
def test_other_paths_have_no_prefix(path: bytes) -> None:
    """They are left as they are."""
    assert pinned(path) is None
    assert rewritten(path) is path


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        (b"/serve/iris-3/v2", b"/v2"),
        (b"/serve/iris-3/v2/health/live", b"/v2/health/live"),
        (b"/serve/iris-3/v2/health/ready", b"/v2/models/iris/versions/3/ready"),
        (b"/serve/iris-3/v2/models/iris", b"/v2/models/iris/versions/3"),
        (b"/serve/iris-3/v2/models/iris/infer", b"/v2/models/iris/versions/3/infer"),
        (b"/serve/iris-3/v2/models/iris/versions/3/infer", b"/v2/models/iris/versions/3/infer"),
        (b"/serve/a%20b-3/v2/models/a%20b/stats", b"/v2/models/a%20b/versions/3/stats"),
        (b"/iris/3/v2/models/iris/infer", b"/v2/models/iris/versions/3/infer"),
        (b"/seldon/team/iris/v2/models/iris/infer", b"/v2/models/iris/infer"),
        (b"/seldon/team/iris/v2/models/iris/versions/2/infer", b"/v2/models/iris/versions/2/infer"),
        (b"/seldon/team/iris/v1/models/iris/labels/best:predict", b"/v1/models/iris/labels/best:predict"),
        (b"/serve/iris-3/v1/models/iris", b"/v1/models/iris/versions/3"),
        (b"/serve/iris-3/v1/models/iris:predict", b"/v1/models/iris/versions/3:predict"),
        (b"/serve/iris-3/v1/models/iris/versions/3/metadata", b"/v1/models/iris/versions/3/metadata"),
        (b"/serve/iris-3/predict", b"/models/iris:3/predict"),
        (b"/serve/iris-3/predictions", b"/models/iris:3/predictions"),
        (b"/serve/iris-3/predictions/00/cancel", b"/models/iris:3/predictions/00/cancel"),
        (b"/serve/iris-3/demo/metadata", b"/models/iris:3/demo/metadata"),
        (b"/serve/iris-3/files", b"/files"),
        (b"/serve/iris-3", b"/models/iris:3"),
        (b"/serve/a%3Ab-3/predict", b"/models/a%3Ab:3/predict"),
        (b"/serve/iris-3/invocations", b"/invocations"),
        (b"/serve/iris-3/ping", b"/ping"),
        (b"/serve/iris-3/health", b"/health"),
        (b"/serve/iris-3/version", b"/version"),
        (b"/serve/iris-3/api/v1.0/predictions", b"/api/v1.0/predictions"),
        (b"/serve/iris-3/api/v0.1/predictions", b"/api/v0.1/predictions"),
        (b"/seldon/team/iris/3/api/v1.0/predictions", b"/api/v1.0/predictions"),
        (b"/serve/iris-3/api/v1/serve", b"/serve/iris-3/api/v1/serve"),
        (b"/serve/iris-3/invocations/x", b"/serve/iris-3/invocations/x"),
        (b"/serve/iris-3/nonsense", b"/serve/iris-3/nonsense"),
        (b"/iris/3/api/v1.0/predictions", b"/api/v1.0/predictions"),
    ],
)
def test_protocols_see_their_own_paths(path: bytes, meant: bytes) -> None:
    """With model and version where they belong; scoring and Seldon's paths have no place for them."""
    assert rewritten(path) == meant


@pytest.mark.parametrize(
    "rest",
    [
        b"v2/models/other/infer",
        b"v2/models/iris/versions/4/infer",
        b"v2/models",
        b"v2/repository/models/iris/unload",
        b"v2/health",
        b"v1/models/other:predict",
        b"v1/models/iris/versions/4:predict",
        b"v1/models/iris/labels/x:predict",
        b"v1/models",
    ],
)
def test_nothing_else_is_reached_through_a_prefix(rest: bytes) -> None:
    """Another model, another version, a label and the whole server are not: such a path is one that nobody has."""
    meant = rewritten(b"/serve/iris-3/" + rest)
    assert meant == b"/" + rest[:2] + b"/serve/iris-3/" + rest
    assert astray(b"/serve/iris-3/" + rest, meant)


@given(st.binary(max_size=60).map(lambda b: b"/" + b.replace(b"?", b"")))
def test_any_bytes_are_a_path(path: bytes) -> None:
    """Nothing raises, and what is rewritten has no prefix again but those that keep their own."""
    for prefix in (b"", b"/serve/a-1", b"/seldon/n/a", b"/a/1"):
        meant = rewritten(prefix + path)
        assert meant.startswith(b"/")
        assert rewritten(meant) == meant


def test_the_application_rewrites_before_it_chooses() -> None:
    """The dialect sees its own path, whatever the client's was; who owns an error is decided alike."""
    application = app(Speaker("v2", "/v2"), Speaker("models", "/models"), Speaker("scoring", "/invocations"))
    assert call(application, path="/serve/iris-3/v2/models/iris/infer").body == b"v2 /v2/models/iris/versions/3/infer"
    assert call(application, path="/serve/iris-3/predict").body == b"models /models/iris:3/predict"
    assert call(application, path="/serve/iris-3/invocations").body == b"scoring /invocations"
    for path in ("/serve/iris-3/v2/models/iris/versions/4", "/serve/iris-3/v2/models/other/infer", "/iris/3/v2/models/other"):
        text = f"v2: NOT_FOUND there is nothing at {path}: below this prefix is model 'iris' version 3, and nothing else"
        assert call(application, path=path).body.decode() == text
    assert application.dialect_of("/serve/iris-3/v2/models/iris/infer").name == "v2"
    assert application.dialect_of("/serve/iris-3/invocations").name == "scoring"
