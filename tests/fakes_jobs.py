"""Jobs without processes: starts that a test ends itself, and the parts of the control plane around them."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from dragoman.core.errors import Kind, ServingError
from dragoman.core.jobs import End, Job, Limits, Mode, Mount, Phase, Seen, Start
from dragoman.serving.jobs.board import Board
from dragoman.serving.jobs.kept import Kept
from dragoman.serving.jobs.run import Parts
from dragoman.serving.jobs.runner import Runner
from dragoman.serving.jobs.service import Allowed, Jobs, Submission
from dragoman.serving.late_store import LateStore
from dragoman.store import Store
from tests.fakes_store import FakeStore

PATIENCE_S = 20.0


class FakeStarted:
    """Implements run.Started. A test ends it with `exit`."""

    def __init__(self, start: Start | None = None) -> None:
        self.start = start
        self.isolation = "none: a test"
        self.now = Seen(ready=True)
        self.killed = False
        self.stubborn = False
        """Whether it does not react to being stopped, only to being killed."""
        self._end: asyncio.Future[End] = asyncio.get_running_loop().create_future()

    async def seen(self) -> Seen:
        return self.now

    async def ended(self) -> End:
        return await asyncio.shield(self._end)

    def exit(self, how: str = "exit", code: int = 0, reason: str = "", ran_s: float = 2.0, calls: int = 3) -> None:
        if not self._end.done():
            self._end.set_result(End(how, code, reason, ran_s, calls, at=1000.0))

    async def stop(self, grace_s: float, how: str = "stopped", reason: str = "") -> End:
        if not self.stubborn:
            self.exit(how, -15, reason)
        return await self.ended()

    async def release(self) -> None:
        self._end.cancel()

    def kill(self) -> None:
        self.killed = True
        self.exit("lost", -9, "killed")


@dataclass(slots=True)
class FakePrepared:
    """Implements run.Prepared."""

    python: Path = Path("/python")
    readable: tuple[Path, ...] = ()
    notebook: str = "notebook"
    released: bool = False

    def release(self) -> None:
        self.released = True


@dataclass
class World:
    """The control plane over a store in memory. `code`: what uploads hold, path -> text."""

    folder: Path
    store: Store = field(default_factory=FakeStore)
    most: int = 0
    allowed: Allowed = field(default_factory=Allowed)
    code: dict[str, dict[str, str]] = field(default_factory=lambda: {"code": {"app.py": "pass"}})
    data: dict[str, Path] = field(default_factory=dict)
    starts: dict[str, FakeStarted] = field(default_factory=dict)
    adopted: dict[str, FakeStarted] = field(default_factory=dict)
    """Folder name -> what is found running there."""
    adopting: dict[str, asyncio.Future[None]] = field(default_factory=dict)
    """Waited for before it is found."""
    ends: dict[str, End] = field(default_factory=dict)
    """The same, of what has ended without a server."""
    prepared: list[FakePrepared] = field(default_factory=list)
    preparing: Callable[[], asyncio.Future[None]] | None = None
    """Waited for before an environment is ready."""
    rests: bool = True
    """Whether a job that is asked to rest has nothing to do."""
    asked_to_rest: int = 0
    now: float = 100.0

    def __post_init__(self) -> None:
        async def opened() -> Store:
            return self.store

        self.board = Board(self.folder)
        self.kept = Kept(LateStore(opened, lambda: True), self.board)
        self.jobs = Jobs(self.kept, self.allowed, clock=lambda: self.now)

    def parts(self) -> Parts:
        return Parts(
            self._place,
            self._data,
            self._prepare,
            self._launch,
            self._adopt,
            lambda folder: self.ends.get(folder.name),
            self._forget,
            self._rest,
            self._isolation,
            clock=lambda: self.now,
        )

    def runner(self) -> Runner:
        return Runner(self.kept, self.parts(), self.most)

    async def submit(self, mode: Mode = Mode.SERVE, project: str = "x", **fields: object) -> Job:
        home = await self.jobs.look_up_project("me", project, create=True)
        wanted = Submission(home.id, "code", mode, command="true" if mode is Mode.COMMAND else "")
        return await self.jobs.submit(replace(wanted, **fields))  # type: ignore[arg-type] # fields of a Submission

    async def until(self, job: Job, *phases: Phase) -> Job:
        """The job once it is in one of these phases."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                count = self.board.changes.count
                found = self.board.get(job.id)
                if found is not None and found.phase in phases:
                    return found
                await self.board.changes.after(count, 1.0)

    async def running(self, job: Job) -> FakeStarted:
        """Its start, once it has been started."""
        async with asyncio.timeout(PATIENCE_S):
            while job.id not in self.starts:
                await self.board.changes.after(self.board.changes.count, 0.01)
        await self.until(job, Phase.RUNNING)
        return self.starts[job.id]

    async def ended(self, job: Job, *phases: Phase) -> tuple[Job, list[str]]:
        """The job once it is in one of these phases, and the lines of its log without their times."""
        found = await self.until(job, *phases)
        async with asyncio.timeout(PATIENCE_S):
            while "[" not in (lines := self.lines(await self.jobs.log(found)))[-1]:
                await asyncio.sleep(0.01)
        return found, lines

    @staticmethod
    def lines(log: str) -> list[str]:
        return [line.partition(" UTC  ")[2] or line for line in log.splitlines()]

    async def _place(self, code: str, home: Path) -> None:
        if code not in self.code:
            raise ServingError(Kind.NOT_FOUND, f"there is no code '{code}'", what="module")
        await asyncio.to_thread(_write, home, self.code[code])

    async def _data(self, mount: Mount) -> Path:
        if mount.data not in self.data:
            raise ServingError(Kind.NOT_FOUND, f"there is no data set {mount.title}", what="dataset")
        return self.data[mount.data]

    async def _prepare(self, job: Job, home: Path, log: Callable[[str], None]) -> FakePrepared:
        log(f"environment {job.environment}")
        if self.preparing is not None:
            await self.preparing()
        self.prepared.append(FakePrepared())
        return self.prepared[-1]

    async def _launch(self, start: Start) -> FakeStarted:
        self.starts[start.job] = FakeStarted(start)
        return self.starts[start.job]

    async def _adopt(self, folder: Path) -> FakeStarted | None:
        if folder.name in self.adopting:
            await self.adopting[folder.name]
        return self.adopted.get(folder.name)

    def _forget(self, folder: Path) -> None:
        self.ends.pop(folder.name, None)

    async def _rest(self, folder: Path, grace_s: float) -> bool:
        self.asked_to_rest += 1
        if self.rests:
            self.starts[folder.name].exit("idle")
        return self.rests

    async def _isolation(self, network: bool) -> str:
        return f"none: a test, network {network}"


def _write(home: Path, files: dict[str, str]) -> None:
    if not home.exists():
        home.mkdir(parents=True)
        for name, text in files.items():
            (home / name).write_text(text)


def limits(**fields: float) -> Allowed:
    """What the settings say, with these limits."""
    return Allowed(replace(Limits(), **fields))  # type: ignore[arg-type] # fields of Limits
