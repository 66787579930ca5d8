"""Run the server inside a program or a test: `dragoman.serve(...)` with sockets, `dragoman.TestClient(...)` without any."""

import asyncio
import logging
import tempfile
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import unquote

import orjson

from dragoman.core.errors import Kind, ServingError
from dragoman.server.configuration import read
from dragoman.server.holder import Holder, TakenError
from dragoman.server.jobs import check_isolation
from dragoman.server.listeners import bound, ports, reserved
from dragoman.server.loading import Loaded
from dragoman.server.loop import new_event_loop
from dragoman.server.settings import Settings
from dragoman.server.worker import Worker

T = TypeVar("T")
log = logging.getLogger("dragoman")


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dragoman", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(timeout_s)

    def close(self) -> None:
        self.run(self._loop.shutdown_default_executor())  # in its own thread: the caller's may be running a loop itself
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Server:
    """A running server. Use it as a context manager, or call `stop`."""

    def __init__(self, settings: Settings) -> None:
        with ExitStack() as undo:
            loop = _Loop()
            undo.callback(loop.close)
            loop.run(check_isolation(settings))
            settings, holder = _held(settings, undo)
            sockets = bound(settings, undo)
            settings = reserved(settings, undo)
            self.grpc_ports: list[int] = list(settings.grpc_port)
            self.ports: list[int] = ports(sockets, settings)
            self.url = f"{'https' if settings.tls_cert else 'http'}://{_reachable(settings.host)}:{self.ports[0]}" if self.ports else ""
            holder.say([self.url] if self.url else [])
            worker = loop.run(_make(settings))
            undo.callback(lambda: loop.run(worker.close()))
            self.loaded: Loaded = loop.run(worker.serve(sockets))
            if self.loaded.fatal(settings):
                raise ServingError(Kind.UNAVAILABLE, "; ".join(f"{name}: {reason}" for name, reason in self.loaded.failed))
            self._undo = undo.pop_all()

    def stop(self) -> None:
        """Drain and end; returns when everything is closed. Once is enough, twice does no harm."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def serve(*targets: str, **settings: Any) -> Server:
    """Start a server in this process, in a thread of its own, and return when its models are loaded and it answers.

    One server at a time uses a data directory with a SQLite store. Where none is named and the usual one is taken, this one has its own, for
    as long as it runs; where one is named, that raises UNAVAILABLE.

    `settings` are those of the command line with underscores (`port`, `batch_size`, ...); `port` 0 takes a free one, which is the default
    here. No configuration file and no environment variable is read. Raises ServingError INVALID_INPUT for a setting that is wrong,
    UNSUPPORTED for isolation of jobs that this machine does not allow, UNAVAILABLE when no target could be loaded, OSError when a port is taken.
    """
    return Server(_settings(targets, settings))


def _held(settings: Settings, undo: ExitStack) -> tuple[Settings, Holder]:
    """Take the lock of the store until `undo` gives it up; with other settings where a temporary data directory takes the usual one's place."""
    try:
        return settings, undo.enter_context(Holder(settings.store_url, [], wait_s=0.0))
    except TakenError as error:
        if settings.data_dir or settings.store:
            raise
        folder = undo.enter_context(tempfile.TemporaryDirectory(prefix="dragoman-", ignore_cleanup_errors=True))
        log.warning("%s. What this one stores is in %s, until it ends", error.message, folder)
        settings = replace(settings, data_dir=folder)
        return settings, undo.enter_context(Holder(settings.store_url, []))


def _settings(targets: tuple[str, ...], settings: Mapping[str, Any]) -> Settings:
    flags = {"port": 0, **settings, **({"targets": targets} if targets else {})}
    return read(flags, environ={})


def _reachable(host: str) -> str:
    """An address that leads to a server that listens on `host`, as it is written in a URL."""
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 # compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


async def _make(settings: Settings) -> Worker:
    return Worker(settings)


@dataclass(frozen=True, slots=True)
class TestResponse:
    """What a TestClient gets. Header names are lower-case."""

    __test__ = False  # not a test case, whatever pytest thinks of the name
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)


class TestClient:
    """The whole server without a socket: requests go straight to the application. A context manager.

    It serves its targets only: what is deployed in its data directory is somebody else's, who may be serving it now.
    """

    __test__ = False

    def __init__(self, *targets: str, **settings: Any) -> None:
        chosen = _settings(targets, settings)
        with ExitStack() as undo:
            self._loop = _Loop()
            undo.callback(self._loop.close)
            self._worker = self._loop.run(_make(chosen))
            undo.callback(lambda: self._loop.run(self._worker.close()))
            self.loaded: Loaded = self._loop.run(self._worker.load(deployed=False))
            self._undo = undo.pop_all()

    def request(
        self, method: str, path: str, *, json: object = None, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> TestResponse:
        """One request, answered completely."""
        if json is not None:
            body = orjson.dumps(json)
        return self._loop.run(self._request(method, path, body, dict(headers or {})))

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> TestResponse:
        return self.request("POST", path, **options)

    async def _request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> TestResponse:
        raw, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(raw),
            "raw_path": raw.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in {"host": "127.0.0.1", **headers}.items()],
            "client": ("127.0.0.1", 0),
            "server": ("127.0.0.1", 0),
            "extensions": {},
        }
        sent: list[dict[str, Any]] = []
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> dict[str, Any]:
            return next(messages, {"type": "http.disconnect"})

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self._worker.asgi(scope, receive, send)
        answered = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in sent[0]["headers"]}
        return TestResponse(sent[0]["status"], answered, b"".join(bytes(m.get("body", b"")) for m in sent[1:]))

    def close(self) -> None:
        """Close the models. Once is enough, twice does no harm."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
