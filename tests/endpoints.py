"""Endpoints without jobs: the real HTTP server, dialect, board and gates, and programs that are threads of the test."""

import asyncio
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import uvloop

from dragoman.core.errors import Kind, ServingError
from dragoman.core.jobs import Job, Mode, Phase
from dragoman.dialects.floydhub.endpoint import Endpoint
from dragoman.engines.jobs.gate_line import GATE, listen
from dragoman.hosting.jobs.gate import Gate
from dragoman.hosting.jobs.loop import READ, Loop
from dragoman.server.app import App
from dragoman.server.guard import Guard
from dragoman.server.http import HttpLimits, HttpServer, bind
from dragoman.server.settings import Settings
from dragoman.server.trace import Identified
from dragoman.serving.gateway import Gateway
from dragoman.serving.jobs.board import Board
from dragoman.serving.jobs.kept import Kept
from dragoman.serving.jobs.records import project_id
from dragoman.serving.jobs.service import Allowed, Jobs
from dragoman.serving.late_store import LateStore
from dragoman.serving.meters import Meters
from dragoman.serving.place import make_place, read_place
from dragoman.store import Store
from tests.asgi import Speaker
from tests.services import services

WAIT_S = 20.0


async def _no_store() -> Store:
    raise ServingError(Kind.UNAVAILABLE, "this test has no store")


def until(true: Callable[[], object], what: str) -> None:
    """Wait until something is so, or fail."""
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


@dataclass
class Received:
    """One connection to a program, with what its request had. `rest` is of the body, as far as it came with the head."""

    conn: socket.socket
    line: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    rest: bytes = b""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def header(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)

    def body(self) -> Iterator[bytes]:
        """The body, framed as the head says."""
        data = self.rest
        if self.header("transfer-encoding") == "chunked":
            while True:
                while b"\r\n" not in data:
                    data += self._more()
                size, data = int(data.partition(b"\r\n")[0], 16), data.partition(b"\r\n")[2]
                while len(data) < size + 2:
                    data += self._more()
                if not size:
                    return
                yield data[:size]
                data = data[size + 2 :]
        left = int(self.header("content-length") or 0)
        while left:
            data = data or self._more()
            yield data[:left]
            left, data = left - len(data[:left]), b""

    def _more(self) -> bytes:
        data = self.conn.recv(1 << 18)
        assert data, "the request broke off"
        return data


Answering = Callable[[Received], None]


class Program:
    """Listens as a job's program does; `answering` is called for each connection, in a thread, and may do what it likes with the socket."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.now = 0
        """Connections open at this moment."""
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.listener.getsockname()
        return str(host), int(port)

    def close(self) -> None:
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _run(self) -> None:
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            with self._lock:
                self.now += 1
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn: socket.socket) -> None:
        with conn:
            conn.settimeout(WAIT_S)
            with suppress(OSError, AssertionError):  # a test that lets things break off
                self.answering(_received(conn))
        with self._lock:
            self.now -= 1


def _received(conn: socket.socket) -> Received:
    data = b""
    while b"\r\n\r\n" not in data:
        more = conn.recv(1 << 16)
        if not more:
            raise ConnectionResetError
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    line, *lines = head.decode("latin-1").split("\r\n")
    return Received(conn, line, [(name.lower(), value) for name, _, value in (each.partition(": ") for each in lines)], rest)


def says(head: str, body: bytes = b"") -> Answering:
    """A program that answers everything with these bytes; lines of the head are separated by \\n."""
    raw = head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body

    def answering(request: Received) -> None:
        for _ in request.body():
            pass
        request.conn.sendall(raw)

    return answering


class GateOf:
    """The real gate of one job, in a thread."""

    def __init__(self, path: Path, concurrency: int = 1) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        listener = listen(path.parent)
        self._loop = Loop()
        self.refusals = 0
        self.gate = Gate(self._loop, listener, concurrency, lambda: {"ran_s": 1.5}, lambda *_: None, self._refused)
        self._path = path
        self._posted: list[Callable[[], None]] = []
        self._reader, self._writer = socket.socketpair()
        self._loop.watch(self._reader, READ, self._run_posted)
        self._thread = threading.Thread(target=self._loop.run, daemon=True)
        self._thread.start()

    def _refused(self) -> None:
        self.refusals += 1

    def _run_posted(self) -> None:
        self._reader.recv(4096)
        while self._posted:
            self._posted.pop(0)()

    def do(self, action: Callable[[], Any]) -> Any:
        """In the gate's own thread."""
        done: Future[Any] = Future()
        self._posted.append(lambda: done.set_result(action()))
        self._writer.send(b".")
        return done.result(WAIT_S)

    def open(self, address: tuple[str, int], *, keeps_prefix: bool = False) -> None:
        self.do(lambda: self.gate.open(address, keeps_prefix))

    @property
    def seen(self) -> dict[str, Any]:
        found: dict[str, Any] = self.do(self.gate.seen)
        return found

    def close(self) -> None:
        """As when the job's last process has ended."""
        if not self._thread.is_alive():
            return
        self.do(lambda: self.gate.ended({"how": "exit"}))
        self.do(self._loop.stop)
        self._thread.join(WAIT_S)
        self._reader.close()
        self._writer.close()
        self._path.unlink()


class Site:
    """A server on a free port whose jobs the test plays."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.port = 0
        self._numbers = count(1)
        self._loop = uvloop.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._settings = settings
        self._closing: list[Callable[[], None]] = []
        self.board: Board
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(WAIT_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        make_place(self.folder)
        meters = Meters()
        self.board = Board(self.folder)
        given = services(Gateway(meters), meters)
        given.jobs = Jobs(Kept(LateStore(_no_store), self.board), Allowed())
        settings = Settings(**self._settings)
        app = App([Endpoint(given), Speaker("console", "/dragoman/v1")], Guard(settings), settings.max_body)
        limits = HttpLimits(buffer_bytes=min(8 << 20, settings.max_body), max_body_bytes=settings.max_body)
        self.server = HttpServer(Identified(app), limits=limits)
        listener = bind("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        await self.server.start([listener])
        self._ready.set()
        await self._stop.wait()
        await self.server.drain(WAIT_S)

    def do(self, action: Callable[[], Any]) -> Any:
        """On the server's loop."""

        async def done() -> Any:
            return action()

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(WAIT_S)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wakes(self, waker: Callable[[str], Awaitable[Job]] | None) -> None:
        """Have this called for a job that sleeps when somebody asks for it."""

        def take() -> None:
            self.board.waker = waker

        self.do(take)

    def put(self, job: Job) -> Job:
        """Show this record of a job."""
        self.do(lambda: self.board.put(job))
        return job

    def job(self, *, owner: str = "ann", project: str = "p", phase: Phase = Phase.RUNNING, mode: Mode = Mode.SERVE, **fields: Any) -> Job:
        number = next(self._numbers)
        now = time.time()
        job = Job(
            id=f"job-{number}",
            number=number,
            owner=owner,
            project=project,
            project_id=project_id(owner, project),
            code="code",
            endpoint=f"endpoint-of-job-{number:04}",
            mode=mode,
            phase=phase,
            created=now,
            place=read_place(self.folder),
        )
        if phase is Phase.RUNNING:
            job = replace(job, started=now, since=now)
        return self.put(replace(job, **fields))

    def gate(self, job: Job, concurrency: int = 1) -> GateOf:
        gate = GateOf(self.board.folder(job) / GATE, concurrency)
        self._closing.append(gate.close)
        return gate

    def program(self, answering: Answering) -> Program:
        program = Program(answering)
        self._closing.append(program.close)
        return program

    def serving(self, answering: Answering, *, keeps_prefix: bool = False, concurrency: int = 1, project: str = "p") -> "Served":
        """A job that runs this program."""
        job, program = self.job(project=project), self.program(answering)
        gate = self.gate(job, concurrency)
        gate.open(program.address, keeps_prefix=keeps_prefix)
        return Served(self, job, gate, program)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), WAIT_S)

    def end(self) -> None:
        """Drain the server, and wait for it."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(WAIT_S)

    def close(self) -> None:
        self.end()
        for close in reversed(self._closing):
            close()


@dataclass
class Served:
    """A job, its gate and its program."""

    site: Site
    job: Job
    gate: GateOf
    program: Program

    @property
    def path(self) -> str:
        return f"/expose/{self.job.endpoint}"

    @property
    def url(self) -> str:
        return self.site.url + self.path

    def free(self) -> None:
        """Wait until no request has a permit."""
        until(lambda: self.gate.seen["busy"] == 0, "the permit did not come back")


@contextmanager
def site(*, below: str = "", **settings: Any) -> Iterator[Site]:
    """A site in a folder of its own, or one `below` it."""
    folder = Path(tempfile.mkdtemp(prefix="e-"))
    (folder / below).mkdir(exist_ok=True)
    made = Site(folder / below, **settings)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)
