"""Submarine's dialect over a real catalog and a store of its own, with deployments that only remember what was asked of them."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State
from dragoman.dialects.submarine.rest import Submarine
from dragoman.server.app import App
from dragoman.server.guard import Guard
from dragoman.server.settings import Settings
from dragoman.serving.catalog import Catalog
from dragoman.serving.deployments import Deployment
from dragoman.serving.gateway import Gateway
from dragoman.serving.late_store import LateStore
from dragoman.serving.meters import Meters
from dragoman.serving.roots import Root, Roots
from dragoman.store.sql import open_store, store_url
from tests.asgi import Speaker
from tests.models import build
from tests.services import services

KEYS = ["status", "code", "success", "message", "result", "attributes"]
HOST = "models.example:32080"


class FakeDeployments:
    """Serves at once whatever is registered, but versions of the model "broken", which fail to load."""

    def __init__(self, store: LateStore) -> None:
        self._store = store
        self._served: dict[tuple[str, str], Deployment] = {}
        self.loads = 0

    async def serve(self, model: str, version: str, *, stage: str = "Production") -> None:
        await self._staged(model, version)
        if model == "broken":
            raise ServingError(Kind.UNAVAILABLE, "model 'broken' version 1 failed to load: it is spoilt", what="load")
        if (model, version) not in self._served:
            self.loads += 1
            self._served[model, version] = Deployment(model, version, State.READY, stage=stage)
        await self._staged(model, version, stage)

    async def stop(self, model: str, version: str, *, stage: str = "None") -> None:
        await self._staged(model, version)
        self._served.pop((model, version), None)
        await self._staged(model, version, stage)

    async def follow(self, model: str) -> None:
        return None

    def deployed(self) -> list[Deployment]:
        return [self._served[key] for key in sorted(self._served)]

    def serving(self, model: str, version: str = "") -> bool:
        return (model, version) in self._served

    def fail(self, model: str, version: str, reason: str) -> None:
        """Show a version that was served as one that is not any more."""
        self._served[model, version] = replace(self._served[model, version], state=State.FAILED, reason=reason)

    async def _staged(self, model: str, version: str, stage: str | None = None) -> None:
        store = await self._store.get()
        if await store.version(model, version) is None:
            raise ServingError(Kind.NOT_FOUND, f"model '{model}' has no version {version}", what="version")
        if stage is not None:
            await store.change_version(model, version, updated=2_000_000_000.0, stage=stage)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[bytes, bytes]
    text: bytes

    @property
    def envelope(self) -> dict[str, Any]:
        """The body, which is checked to be an envelope: every answer of this dialect is one."""
        assert self.headers[b"content-type"] == b"application/json; charset=utf-8", self.text
        found = json.loads(self.text)
        assert list(found) == KEYS
        assert found["code"] == self.status
        assert found["success"] is (self.status == 200)
        assert (found["status"] == "OK") is (self.status == 200)
        assert found["attributes"] == {}
        assert self.status == 200 or (found["result"] is None and found["message"])
        return dict(found)

    @property
    def result(self) -> Any:
        assert self.status == 200, self.text
        return self.envelope["result"]

    @property
    def message(self) -> Any:
        return self.envelope["message"]


@dataclass
class Client:
    """Requests to the application, without a socket. `folder` is an allowed model root."""

    app: Any
    deployments: FakeDeployments
    catalog: Catalog
    folder: Path
    headers: dict[str, str] = field(default_factory=lambda: {"host": HOST})

    async def ask(self, method: str, target: str, body: Any = None, **headers: str) -> Reply:
        """`body` is JSON, or bytes as they are."""
        path, _, query = target.partition("?")
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent: list[Mapping[str, Any]] = []
        pieces: Iterator[bytes] = iter([data])

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": next(pieces), "more_body": False}

        async def send(message: Mapping[str, Any]) -> None:
            sent.append(message)

        given = {**self.headers, **({} if body is None else {"content-type": "application/json"})}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "server": ("10.1.2.3", 8080),
            "scheme": "http",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
        }
        await self.app(scope, receive, send)
        return Reply(sent[0]["status"], dict(sent[0]["headers"]), b"".join(m["body"] for m in sent[1:]))

    async def serve(self, name: Any = "iris", version: Any = 1, method: str = "POST") -> Reply:
        return await self.ask(method, "/api/v1/serve", {"modelName": name, "modelVersion": version})

    async def register(self, name: str = "iris", versions: int = 1) -> None:
        """A model with versions, all of one file."""
        build.iris(self.folder / name / "model.onnx")
        assert (await self.ask("POST", "/api/v1/registered-model", {"name": name})).status == 200
        for _ in range(versions):
            reply = await self.ask("POST", f"/api/v1/model-version?baseDir={name}", {"name": name, "userId": "", "experimentId": ""})
            assert reply.status == 200, reply.text


@asynccontextmanager
async def submarine(place: Path, **fields: Any) -> AsyncIterator[Client]:
    """The dialect with an empty registry."""
    data, folder = place / "data", place / "models"
    folder.mkdir()
    store = LateStore(partial(open_store, store_url(data)), lambda: data.exists())
    deployments = FakeDeployments(store)
    catalog = Catalog(store, Roots([Root(folder)], data), data, after=deployments.follow, served=deployments.serving)
    meters = Meters()
    gateway = Gateway(meters)
    made: Any = {"store": store, "catalog": catalog, "deployments": deployments, **fields}
    try:
        dialect = Submarine(services(gateway, meters, **made))
        guard = Guard(Settings(host="0.0.0.0", no_auth=True))
        yield Client(App([dialect, Speaker("console", "/dragoman/v1")], guard, 2 << 20), deployments, catalog, folder)
    finally:
        await store.close()
