"""A server's MLflow registry without a server: the dialect in the application, over a catalog and a store in memory."""

import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode

from dragoman.dialects.mlflow.registry import MLflowRegistry
from dragoman.server.app import App
from dragoman.server.guard import Guard
from dragoman.server.settings import Settings
from dragoman.serving.artifact_folder import ArtifactFolder
from dragoman.serving.catalog import Catalog
from dragoman.serving.gateway import Gateway
from dragoman.serving.late_store import LateStore
from dragoman.serving.meters import Meters
from dragoman.serving.roots import Roots
from dragoman.serving.tracking import Tracking
from dragoman.store import Store
from tests.asgi import Speaker
from tests.fakes_store import FakeStore
from tests.servables import run
from tests.services import services

API = "/api/2.0/mlflow"
FILES = "/api/2.0/mlflow-artifacts/artifacts"


@dataclass(frozen=True)
class Said:
    """An answer. `json` is what its body says, where it is JSON."""

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of an error, which has a text, too."""
        assert self.status >= 400, self
        assert isinstance(self.json["message"], str)
        assert self.json["message"]
        return str(self.json["error_code"])


class Site:
    """`root` is a model root with the models iris and wine. `deployed` are served."""

    def __init__(self, place: Path, *, max_body: int = 1 << 20, **settings: Any) -> None:
        self.root, self.data = place / "models", place / "data"
        for name in ("iris", "wine"):
            self.put(name)
        self.store = FakeStore()
        self.deployed: set[tuple[str, str]] = set()

        async def opened() -> Store:
            return self.store

        late = LateStore(opened, lambda: True)
        roots = Roots.of([str(self.root)], [], self.data)
        self.tracking = Tracking(late)
        self.artifacts = ArtifactFolder(roots.artifacts)
        self.catalog = Catalog(
            late, roots, self.data, served=lambda model, version: (model, version) in self.deployed, logged=self.tracking.location
        )
        meters = Meters()
        parts = services(
            Gateway(meters),
            meters,
            store=late,
            catalog=self.catalog,
            artifacts=self.artifacts,
            tracking=self.tracking,
        )
        self.app = App([MLflowRegistry(parts), Speaker("console", "/dragoman/v1")], Guard(Settings(**settings)), max_body)

    def put(self, name: str, content: str = "x") -> Path:
        """A folder below the root that is a model."""
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_text(content)
        return folder

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        raw: bytes | list[bytes] | None = None,
        query: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Said:
        """One request, whose path is below the API, or absolute. `body` is sent as JSON; `raw` is, in its pieces, the body as it is."""
        whole = path if path.startswith("/") else f"{API}/{path}"
        pieces = [json.dumps(body).encode()] if body is not None else raw if isinstance(raw, list) else [raw or b""]
        sent = {"host": "127.0.0.1:3000", **({"content-type": "application/json"} if body is not None else {}), **(headers or {})}
        scope = {
            "type": "http",
            "method": method,
            "path": unquote(whole),
            "raw_path": quote(whole, safe="/%:@&=+$,;~!*'()").encode(),
            "query_string": query if isinstance(query, bytes) else urlencode(query or {}, doseq=True).encode(),
            "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
        }
        messages: list[Any] = []
        waiting = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        waiting[-1]["more_body"] = False

        async def receive() -> dict[str, Any]:
            return waiting.pop(0) if waiting else {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            messages.append(message)

        async def whole_request() -> None:
            await self.app(scope, receive, send)

        run(whole_request)
        return Said(messages[0]["status"], dict(messages[0]["headers"]), b"".join(m["body"] for m in messages[1:]))

    def get(self, path: str, **query: Any) -> Said:
        return self.ask("GET", path, query=query)

    def post(self, path: str, **body: Any) -> Said:
        return self.ask("POST", path, body)

    def model(self, name: str, versions: int = 0, source: str = "iris", **fields: Any) -> None:
        """A registered model with that many versions."""
        assert self.post("registered-models/create", name=name, **fields).status == 200
        for _ in range(versions):
            assert self.post("model-versions/create", name=name, source=source).status == 200

    def versions(self, filter_: str, **query: Any) -> list[tuple[str, str]]:
        """What a search finds."""
        found = self.get("model-versions/search", filter=filter_, **query)
        assert found.status == 200, found
        return [(each["name"], each["version"]) for each in found.json["model_versions"]]


async def pieces(content: AsyncGenerator[bytes, None]) -> bytes:
    """All of a stream."""
    return b"".join([piece async for piece in content])
