"""Which paths and methods there are; that every answer below the prefixes is an envelope, and who may ask."""

from pathlib import Path

import pytest

from dragoman.core.errors import ServingError
from dragoman.dialects import Access, Request
from dragoman.dialects.submarine.rest import Submarine
from dragoman.serving.gateway import Gateway
from dragoman.serving.meters import Meters
from tests.fakes_submarine import Client
from tests.services import services
from tests.unit.dialects.submarine.test_serve import over

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "PROPFIND")
ROUTES = {
    "/api/v1/serve": {"POST", "DELETE", "GET"},
    "/api/v1/serve/": {"POST", "DELETE", "GET"},
    "/api/v1/serve/ping": {"GET"},
    "/api/v1/serve/iris": {"GET"},
    "/api/v1/serve/iris/1": {"GET"},
    "/api/v1/registered-model": {"POST", "GET"},
    "/api/v1/registered-model/ping": {"GET"},
    "/api/v1/registered-model/tag": {"POST", "DELETE"},
    "/api/v1/registered-model/iris": {"GET", "PATCH", "DELETE"},
    "/api/v1/registered-model/a%2Fb": {"GET", "PATCH", "DELETE"},
    "/api/v1/model-version": {"POST", "PATCH"},
    "/api/v1/model-version/ping": {"GET"},
    "/api/v1/model-version/tag": {"POST", "DELETE"},
    "/api/v1/model-version/iris": {"GET"},
    "/api/v1/model-version/iris/1": {"GET", "DELETE"},
    "/api/v1/experiment/serve": {"POST", "DELETE"},
}
NOWHERE = (
    "/api/v1/serve//",
    "/api/v1/serve//1",
    "/api/v1/serve/iris/1/2",
    "/api/v1/registered-model/iris/1",
    "/api/v1/registered-model/%20/x",
    "/api/v1/model-version/iris/1/x",
    "/api/v1/serve/../../../etc/passwd",
    "/api/v1/experiment/serve/iris",
)


@pytest.mark.parametrize("path", ROUTES)
def test_methods_of_a_path(path: str) -> None:
    """Looking is for whoever may use models, changing for administrators, a ping for everybody."""
    gateway = Gateway(meters := Meters())
    dialect = Submarine(services(gateway, meters))

    async def receive() -> dict[str, object]:
        raise AssertionError("nothing is read to find a route")

    for method in METHODS:
        request = Request({"method": method, "path": path, "raw_path": path.encode(), "headers": []}, receive, 0)
        if method in ROUTES[path] or (method == "HEAD" and "GET" in ROUTES[path]):
            access = Access.PUBLIC if path.endswith("/ping") else Access.INFER if method in ("GET", "HEAD") else Access.ADMIN
            assert dialect.route(request).access is access
        else:
            with pytest.raises(ServingError) as caught:
                dialect.route(request)
            assert caught.value.what == "method"


def test_wrong_methods_and_paths_are_envelopes(tmp_path: Path) -> None:
    """405 with Allow, 404, whatever the method (R1)."""

    async def test(client: Client) -> None:
        for path, methods in ROUTES.items():
            for method in set(METHODS) - methods - {"HEAD"}:
                reply = await client.ask(method, path, b"x", content_type="text/html")
                assert (reply.status, reply.envelope["status"]) == (405, "METHOD_NOT_ALLOWED")
                assert set(reply.headers[b"allow"].decode().split(", ")) == methods
        for path in NOWHERE:
            for method in METHODS:
                reply = await client.ask(method, path, b"{}")
                assert (reply.status, reply.envelope["status"]) == (404, "NOT_FOUND"), path

    over(tmp_path, test)


def test_pings(tmp_path: Path) -> None:
    """Pong, to the byte."""

    async def test(client: Client) -> None:
        for root in ("serve", "registered-model", "model-version"):
            reply = await client.ask("GET", f"/api/v1/{root}/ping")
            assert reply.text == b'{"status":"OK","code":200,"success":true,"message":null,"result":"Pong","attributes":{}}'

    over(tmp_path, test)


def test_paths_that_only_look_like_ours_are_not(tmp_path: Path) -> None:
    """Whole segments."""

    async def test(client: Client) -> None:
        for path in ("/api/v1/server", "/api/v1", "/api/v1/serve2/ping", "/api/v2/serve"):
            assert (await client.ask("GET", path)).text.startswith(b"console ")

    over(tmp_path, test)
