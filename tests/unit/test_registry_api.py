"""Our own API to the registry: what is registered through it, and what it refuses."""

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dragoman.console.routes import Console
from dragoman.server.app import App
from dragoman.server.guard import Guard
from dragoman.server.settings import Settings
from dragoman.serving.catalog import Catalog
from dragoman.serving.gateway import Gateway
from dragoman.serving.late_store import LateStore
from dragoman.serving.meters import Meters
from dragoman.serving.roots import Root, Roots
from dragoman.store.sql import open_store, store_url
from tests.fakes_submarine import Client, FakeDeployments
from tests.models import build
from tests.services import services

IRIS = "/dragoman/v1/registry/iris"
Ask = Callable[..., Awaitable[tuple[int, Any]]]


def with_api(place: Path, test: Callable[[Ask], Awaitable[None]]) -> None:
    """The console over a catalog whose root holds one model, `iris`."""

    async def run() -> None:
        data, folder = place / "data", place / "models"
        build.iris(folder / "iris" / "model.onnx")
        store = LateStore(partial(open_store, store_url(data)), data.exists)
        deployments = FakeDeployments(store)
        catalog = Catalog(store, Roots([Root(folder)], data), data, served=deployments.serving)
        meters = Meters()
        known: dict[str, Any] = {"store": store, "catalog": catalog, "deployments": deployments}
        console = App([Console(services(Gateway(meters), meters, **known))], Guard(Settings(host="0.0.0.0", no_auth=True)), 1 << 20)
        client = Client(console, deployments, catalog, folder)

        async def ask(method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
            reply = await client.ask(method, path, body, **headers)
            return reply.status, json.loads(reply.text)

        try:
            await test(ask)
        finally:
            await store.close()

    asyncio.run(run())


def test_a_version_is_registered_with_its_aliases(tmp_path: Path) -> None:
    """The model is made on the way; a body may be compressed."""

    async def test(ask: Ask) -> None:
        body = {"source": "iris", "description": "the first", "aliases": ["champion"]}
        status, version = await ask("POST", IRIS, body)
        assert (status, version["version"], version["aliases"], version["description"]) == (200, "1", ["champion"], "the first")
        status, version = await ask("POST", IRIS, gzip.compress(b'{"source": "iris"}'), content_encoding="gzip")
        assert (status, version["version"]) == (200, "2")
        _, model = await ask("GET", IRIS)
        assert [each["aliases"] for each in model["versions"]] == [[], ["champion"]]

    with_api(tmp_path, test)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "expected a JSON object"),
        (b"", "'source' is missing"),
        ({"source": 3}, "'source' is missing"),
        ({"source": "iris", "description": 3}, "'description'"),
        ({"source": "iris", "aliases": "champion"}, "'aliases'"),
        ({"source": "iris", "aliases": ["champion", "latest"]}, "the alias 'latest'"),
        ({"source": "../elsewhere"}, "--model-root"),
    ],
)
def test_what_is_refused_registers_nothing(tmp_path: Path, body: Any, words: str) -> None:
    """A bad alias is found before there is a version that would have to do without it."""

    async def test(ask: Ask) -> None:
        status, answer = await ask("POST", IRIS, body)
        assert (status, words in answer["error"]) == (400, True)
        _, listed = await ask("GET", "/dragoman/v1/registry")
        assert [model["versions"] for model in listed["models"]] in ([], [[]])

    with_api(tmp_path, test)
