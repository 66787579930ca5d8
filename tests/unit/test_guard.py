"""The guard as the application uses it: settings in, admitted or refused requests and CORS headers out."""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import SHARED, Access, Answer, Request, Route
from dragoman.server.guard import Guard, first_key, key_file
from dragoman.server.keys import KeyRing
from dragoman.server.settings import Settings

LOCAL = (b"host", b"localhost:3000")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A server for everyone, with its data in a directory of the test."""
    return Settings(host="0.0.0.0", data_dir=str(tmp_path))


def request(method: str = "POST", headers: Sequence[tuple[bytes, bytes]] = ()) -> Request:
    """A request as the HTTP server makes it."""

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request"}

    return Request({"method": method, "path": "/v2/models/m/infer", "headers": [LOCAL, *headers]}, receive, 1000)


def bearer(token: str) -> list[tuple[bytes, bytes]]:
    """The headers of a call with a key."""
    return [(b"authorization", f"Bearer {token}".encode())]


def route(access: Access, *methods: str) -> Callable[[Request], Callable[[], Route]]:
    """A dialect's way of matching: this access for these methods, and no route for others."""

    async def handler() -> Answer:
        return Answer()

    typed: Callable[..., Awaitable[Answer]] = handler

    def matching(wanted: Request) -> Callable[[], Route]:
        def match() -> Route:
            if wanted.method not in methods:
                raise ServingError(Kind.UNSUPPORTED, "no", what="method")
            return Route(typed, access)

        return match

    return matching


def test_keys_count_where_any_port_is_open_to_others(tmp_path: Path) -> None:
    """HTTP on this machine and gRPC for everyone: one set of rules, the stricter one."""
    inner = Settings(data_dir=str(tmp_path), grpc_port=(1,))
    assert not Guard(inner).active
    assert Guard(replace(inner, grpc_host="0.0.0.0")).active
    assert not Guard(replace(inner, grpc_host="0.0.0.0", grpc_port=())).active
    assert Guard(replace(inner, host="0.0.0.0", grpc_host="127.0.0.1")).active


def refused(guard: Guard, access: Access, *headers: tuple[bytes, bytes]) -> Kind:
    """The kind of error of a call that must not be admitted."""
    with pytest.raises(ServingError) as caught:
        guard.admit(request(headers=headers), access)
    return caught.value.kind


def test_the_first_key_opens_the_server(settings: Settings) -> None:
    """The key made at the first start admits calls that change the server, and calls without it are refused."""
    token = first_key(settings)
    assert token is not None
    guard = Guard(settings)
    key = guard.admit(request(headers=bearer(token)), Access.ADMIN)
    assert key is not None
    assert key.name == "admin"
    assert guard.admit(request(), Access.INFER) is None
    assert guard.admit(request(headers=bearer("wrong")), Access.PUBLIC) is None
    assert refused(guard, Access.ADMIN) is Kind.UNAUTHENTICATED
    assert refused(guard, Access.INFER, *bearer("wrong")) is Kind.UNAUTHENTICATED


def test_the_caller_is_known_by_the_name_of_its_key(settings: Settings) -> None:
    """Dialects see it, never the key; a call without a key has none."""
    token = first_key(settings)
    assert token is not None
    called, anonymous = request(headers=bearer(token)), request()
    for made in (called, anonymous):
        Guard(settings).admit(made, Access.INFER)
    assert (called.caller, anonymous.caller) == ("admin", "")


def test_a_key_is_made_only_where_keys_count(settings: Settings) -> None:
    """No key is made on loopback, with --no-auth, with a file of one's own, or a second time; --require-key makes one on loopback too."""
    local = replace(settings, host="127.0.0.1")
    assert first_key(local) is None
    assert first_key(replace(settings, no_auth=True)) is None
    assert first_key(replace(settings, api_key_file="mine.toml")) is None
    assert not key_file(settings).exists()
    assert first_key(replace(local, require_key=True)) is not None
    assert first_key(settings) is None


def test_keys_added_while_the_server_runs_count(settings: Settings) -> None:
    """A guard made before there was any key file sees the keys that are made later."""
    guard = Guard(settings)
    token = KeyRing(key_file(settings)).create("ci", [Access.INFER])
    key = guard.admit(request(headers=bearer(token)), Access.INFER)
    assert key is not None
    assert key.name == "ci"


def test_a_named_key_file_must_exist(settings: Settings, tmp_path: Path) -> None:
    """--api-key-file with a slip in the path stops the start; the default file may be absent."""
    with pytest.raises(ServingError, match="nowhere"):
        Guard(replace(settings, api_key_file=str(tmp_path / "nowhere.toml")))
    Guard(settings)


def test_a_named_key_file_is_used(settings: Settings, tmp_path: Path) -> None:
    """--api-key-file takes the place of the file in the data directory."""
    mine = tmp_path / "mine.toml"
    token = KeyRing(mine).create("ci", [Access.ADMIN])
    guard = Guard(replace(settings, api_key_file=str(mine)))
    assert guard.admit(request(headers=bearer(token)), Access.ADMIN) is not None


@pytest.mark.parametrize(
    ("changes", "active"),
    [
        ({"host": "127.0.0.1"}, False),
        ({"host": "127.0.0.1", "require_key": True}, True),
        ({"host": "127.0.0.1", "cors": True}, True),
        ({}, True),
        ({"no_auth": True}, False),
    ],
)
def test_inference_is_looked_at_only_where_it_matters(settings: Settings, changes: dict[str, Any], *, active: bool) -> None:
    """Where neither keys nor CORS can change an answer of inference, the application need not ask."""
    assert Guard(replace(settings, **changes)).active is active


def test_foreign_pages_are_refused_on_loopback(settings: Settings) -> None:
    """The defence against web pages works through the guard, which finds an admin key to lift it even where keys are not in force."""
    local = replace(settings, host="localhost")
    guard = Guard(local)
    origin = (b"origin", b"https://evil.example")
    assert guard.admit(request(), Access.ADMIN) is None
    assert refused(guard, Access.ADMIN, origin) is Kind.FORBIDDEN
    token = KeyRing(key_file(local)).create("ops", [Access.ADMIN])
    assert guard.admit(request(headers=[origin, *bearer(token)]), Access.ADMIN) is not None


def test_cors_headers_are_put_on_answers_of_inference(settings: Settings) -> None:
    """With --cors answers of inference carry the headers, those of other routes, and of requests that were never admitted, do not."""
    guard = Guard(replace(settings, cors=True))
    for access, decorated in ((Access.INFER, True), (Access.PUBLIC, False)):
        asked, answer = request(), Answer(headers=[(b"x", b"y")])
        guard.admit(asked, access)
        guard.decorate(asked, answer)
        assert answer.headers[0] == (b"x", b"y")
        assert ((b"access-control-allow-origin", b"*") in answer.headers) is decorated
    unmatched = Answer()
    guard.decorate(request(), unmatched)
    assert unmatched.headers == []


def test_a_dialect_may_share_what_anyone_can_read(settings: Settings) -> None:
    """TensorFlow Serving's status and metadata, and errors about paths, carry the headers too; what changes the server never does."""
    guard = Guard(replace(settings, cors=True))
    for access, decorated in ((Access.PUBLIC, True), (Access.ADMIN, False)):
        asked = request("OPTIONS", [(b"origin", b"https://page.example"), (b"access-control-request-method", b"GET")])
        asked.scope[SHARED] = True
        assert (guard.preflight(asked, route(access, "GET")(asked)) is not None) is decorated
        answer = Answer()
        asked.scope["dragoman.access"] = access
        guard.decorate(asked, answer)
        assert ((b"access-control-allow-origin", b"*") in answer.headers) is decorated


def test_refused_inference_can_be_read_by_pages(settings: Settings) -> None:
    """A page that calls without a needed key can read the error that says so."""
    guard = Guard(replace(settings, cors=True, require_key=True))
    asked, answer = request(), Answer(status=401)
    with pytest.raises(ServingError):
        guard.admit(asked, Access.INFER)
    guard.decorate(asked, answer)
    assert (b"access-control-allow-origin", b"*") in answer.headers


def test_without_cors_nothing_is_added(settings: Settings) -> None:
    """CORS is off unless it is asked for."""
    guard = Guard(settings)
    asked, answer = request(), Answer()
    guard.admit(asked, Access.INFER)
    guard.decorate(asked, answer)
    assert answer.headers == []


def test_preflights_are_answered(settings: Settings) -> None:
    """A preflight for the method that a page wants gets 200 without a body; its own method is OPTIONS again afterwards."""
    asked = request("OPTIONS", [(b"origin", b"https://page.example"), (b"access-control-request-method", b"POST")])
    answer = Guard(replace(settings, cors=True)).preflight(asked, route(Access.INFER, "POST")(asked))
    assert answer is not None
    assert (answer.status, answer.body, answer.media_type) == (200, b"", b"")
    assert (b"access-control-allow-methods", b"POST, GET") in answer.headers
    assert asked.method == "OPTIONS"


def test_a_preflight_without_cors_allows_nothing(settings: Settings) -> None:
    """With CORS off a preflight is answered without the headers that would allow the call."""
    asked = request("OPTIONS", [(b"origin", b"https://page.example")])
    answer = Guard(settings).preflight(asked, route(Access.INFER, "POST")(asked))
    assert answer is not None
    assert answer.headers == []


@pytest.mark.parametrize(
    ("access", "headers"),
    [
        (Access.ADMIN, [(b"origin", b"https://page.example")]),
        (Access.PUBLIC, [(b"origin", b"https://page.example")]),
        (Access.INFER, []),
        (Access.INFER, [(b"origin", b"null")]),
        (Access.INFER, [(b"origin", b"https://page.example"), (b"access-control-request-method", b"DELETE")]),
        (Access.INFER, [(b"origin", b"https://page.example"), (b"access-control-request-method", b"\xff")]),
    ],
)
def test_other_options_are_left_to_the_dialect(settings: Settings, access: Access, headers: list[tuple[bytes, bytes]]) -> None:
    """OPTIONS on other routes, without a page behind it, or for a method that does not exist is the dialect's to answer."""
    asked = request("OPTIONS", headers)
    assert Guard(replace(settings, cors=True)).preflight(asked, route(access, "POST")(asked)) is None
    assert asked.method == "OPTIONS"
