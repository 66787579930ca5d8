"""FloydHub's API without a server: the dialect behind the guard, over real code and data sets in a folder and a store in memory; no job starts."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dragoman.dialects.floydhub.rest import FloydHub
from dragoman.server.app import App
from dragoman.server.guard import Guard
from dragoman.server.settings import Settings
from dragoman.serving.gateway import Gateway
from dragoman.serving.jobs.accounts import Accounts
from dragoman.serving.jobs.board import Board
from dragoman.serving.jobs.code import Code
from dragoman.serving.jobs.data_sets import DataSets
from dragoman.serving.jobs.kept import Kept
from dragoman.serving.jobs.service import Allowed, Jobs
from dragoman.serving.late_store import LateStore
from dragoman.serving.meters import Meters
from dragoman.store import Store
from tests.asgi import Speaker
from tests.fakes_store import FakeStore
from tests.services import services

ALICE = {"authorization": "apikey alice"}


@dataclass
class Answered:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """Of a refusal."""
        assert self.headers["content-type"].startswith("application/json")
        message = self.json["message"]
        assert isinstance(message, str)
        return message


@dataclass
class Hub:
    """Made inside of an event loop. `settings`: of the server; `runs_jobs`: whether it wants any."""

    folder: Path
    settings: Settings = field(default_factory=Settings)
    runs_jobs: bool = True
    roots: Sequence[str] = ()

    def __post_init__(self) -> None:
        store = FakeStore()

        async def opened() -> Store:
            return store

        late = LateStore(opened, lambda: True)
        board = Board(self.folder / "jobs")
        self.accounts = Accounts(self.folder)
        self.jobs = Jobs(Kept(late, board), Allowed(), clock=lambda: 1_520_596_800.0)
        self.code = Code(late, self.folder / "jobs" / "files", board.make_place)
        self.data = DataSets(late, self.folder / "jobs", board.make_place, roots=self.roots)
        parts: dict[str, Any] = {"jobs": self.jobs, "code": self.code, "data_sets": self.data} if self.runs_jobs else {}
        meters = Meters()
        dialect = FloydHub(services(Gateway(meters), meters, accounts=self.accounts, **parts))
        self.app = App([dialect, Speaker("console", "/dragoman/v1")], Guard(self.settings, None, self.accounts), max_body=8 << 20)

    async def close(self) -> None:
        await self.data.close()
        await self.jobs.close()

    async def __call__(
        self,
        method: str,
        path: str,
        said: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        pieces: int = 64 << 10,
    ) -> Answered:
        """One request below /api/v1, of alice unless `headers` say otherwise; `said` is sent as JSON."""
        content = json.dumps(said).encode() if said is not None else body or b""
        full = path if path.startswith("/") else f"/api/v1/{path}"
        raw, _, query = full.partition("?")
        given = {"host": "127.0.0.1:3000", "content-length": str(len(content)), **(ALICE if headers is None else headers)}
        scope = {
            "type": "http",
            "method": method,
            "path": raw,
            "raw_path": raw.encode(),
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given.items()],
        }
        waiting = [content[at : at + pieces] for at in range(0, len(content), pieces)] or [b""]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            piece = waiting.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(waiting)}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        found = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
        return Answered(sent[0]["status"], found, b"".join(message["body"] for message in sent[1:]))

    async def upload(
        self, files: Mapping[str, bytes], *, headers: Mapping[str, str] | None = None, project: str = "x", **said: Any
    ) -> Answered:
        """Code, as the client sends it."""
        home = (await self("GET", f"projects/alice/{project}")).json
        form = code_form(files, {"name": f"alice/{project}", "family_id": home.get("id"), "module_type": "code", **said})
        return await self("POST", "modules/", body=form, headers={**(ALICE if headers is None else headers), "content-type": FORM})

    async def run(
        self, *, project: str = "x", mode: str | None = "serve", files: Mapping[str, bytes] | None = None, **said: Any
    ) -> Answered:
        """Code and the job of it: `said` is what run_module is told."""
        module = (await self.upload(files or {"app.py": b"pass"}, project=project, mode=mode)).json["id"]
        default = {"env": "default", "mode": "command", "instance_type": "c1", "description": "", "command": ""}
        return await self("POST", "experiments/run_module/", {"module_id": module, "cli_default": default, **said})


BOUNDARY = "3f5a0e8b"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def code_form(files: Mapping[str, bytes], said: Any) -> bytes:
    """As requests_toolbelt writes it."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="code"; filename="./{name}"\r\nContent-Type: text/plain\r\n\r\n'.encode()
        + content
        for name, content in files.items()
    ]
    parts.append(f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="json"\r\n\r\n{json.dumps(said)}'.encode())
    return b"\r\n".join(parts) + f"\r\n--{BOUNDARY}--\r\n".encode()


def basic(name: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + b64encode(f"{name}:{password}".encode()).decode()}


def hub(folder: Path, test: Callable[[Hub], Awaitable[None]], **fields: Any) -> None:
    """Run a test with a hub of its own."""

    async def body() -> None:
        made = Hub(folder, **fields)
        try:
            await test(made)
        finally:
            await made.close()

    asyncio.run(body())
