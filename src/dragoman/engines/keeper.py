"""Owns model processes: one set per model, started for the first who asks, ended when nobody holds them, restarted when they die.

With one worker it lives in the worker, with several in the supervisor (keeping.py), so that requests of all workers meet in one batcher.
It sees no request: servables (remote.py) connect to the processes themselves and hear from here which ones are up.
"""

import asyncio
import json
import logging
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Environment, ModelSpec
from dragoman.core.spec_json import spec_to_json
from dragoman.engines.environment import Environments, Held
from dragoman.engines.launch import Process
from dragoman.hosting.messages import Facts

log = logging.getLogger("dragoman.models")

_MOST_DEATHS = 5
_WITHIN_S = 60.0
"""So many ends of one process within this time are a crash loop."""
_PAUSES_S = (0.05, 0.2, 0.5, 1.0, 2.0)
_OBJECTION_S = 3.0
"""How long other workers have to say that they still wait for what a process is to be killed for."""
_LONGEST_PATH = 90
"""Of a folder for unix sockets; their whole paths may have 107 bytes."""


@dataclass(frozen=True, slots=True)
class Up:
    """Process number `serial` in place `index` takes requests on the unix socket `path`."""

    index: int
    serial: int
    path: str


@dataclass(frozen=True, slots=True)
class Down:
    index: int
    serial: int
    reason: str


@dataclass(frozen=True, slots=True)
class Query:
    """Does anybody wait for what runs in this process? Answered with `Lease.object` by who does."""

    index: int
    serial: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The processes are given up. Nothing comes after this."""

    reason: str


Event: TypeAlias = Up | Down | Query | Lost
Listener: TypeAlias = Callable[[Event], None]


class Lease(Protocol):
    """The right to use the processes of one model; they stay as long as somebody has one."""

    @property
    def facts(self) -> Facts: ...
    def complain(self, index: int, serial: int, *, broken: bool = False) -> None:
        """A process is to be killed: it has not reacted to a cancellation within the grace time, and nobody here waits for what it runs.

        `broken`: it lives, but its connection has ended, so user code has closed or written to it; nobody else is asked.
        """
        ...

    def object(self, index: int, serial: int) -> None:
        """The answer to a query: somebody waits."""
        ...

    async def release(self) -> None: ...


class Keeping(Protocol):
    """Where leases are had: here, or at another process (keeping.py)."""

    async def acquire(self, spec: ModelSpec, listener: Listener) -> Lease:
        """Wait until all processes of a model are up. `listener` hears of those that are, before this returns, and then of every change.

        Raises ServingError with the reason when the model cannot be loaded. Cancelling it gives the lease up.
        """
        ...

    async def close(self) -> None: ...


class Keeper:
    """Make it on the loop that will call it. `environments` has the virtualenvs; without it specs that ask for one are refused.

    `folder` is for sockets and must be readable by nobody else; without one a temporary one is made. `restarted` hears the name of a model
    when a process of it was started in the place of one that died.
    """

    def __init__(
        self,
        *,
        environments: Environments | None = None,
        folder: Path | None = None,
        restarted: Callable[[str], None] = lambda model: None,
    ) -> None:
        self._environments = environments
        self._folder = folder
        self._restarted = restarted
        self._own_folder: str | None = None
        self._kept: dict[str, _Kept] = {}
        self._numbers = 0

    async def acquire(self, spec: ModelSpec, listener: Listener) -> "_Lease":
        key = json.dumps([spec.name, spec.version, spec.revision, spec_to_json(spec)], sort_keys=True)
        kept = self._kept.get(key)
        if kept is None:
            self._numbers += 1
            kept = self._kept[key] = _Kept(spec, self._place(f"m{self._numbers}"), self._environments, self._forget, self._restarted)
        lease = _Lease(kept, listener)
        kept.leases.add(lease)
        try:
            await asyncio.shield(kept.opened)
        except BaseException as error:
            await lease.release()
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and not task.cancelling():
                raise ServingError(Kind.UNAVAILABLE, f"model '{spec.name}' was not loaded: the server is shutting down") from None
            raise
        kept.tell_present(listener)
        return lease

    async def close(self) -> None:
        """Stop every process."""
        await asyncio.gather(*(kept.stop() for kept in list(self._kept.values())))
        if self._own_folder is not None:
            shutil.rmtree(self._own_folder, ignore_errors=True)
            self._own_folder = None

    def _forget(self, kept: "_Kept") -> None:
        for key in [key for key, each in self._kept.items() if each is kept]:
            del self._kept[key]

    def _place(self, prefix: str) -> Path:
        """The beginning of the paths of one model's sockets."""
        if self._folder is not None and len(bytes(self._folder)) <= _LONGEST_PATH:
            return self._folder / prefix
        if self._own_folder is None:
            usual = tempfile.gettempdir()
            short = usual if len(usual) < _LONGEST_PATH - 20 else "/tmp"  # noqa: S108 # mkdtemp makes a folder of its own below it, 0700
            self._own_folder = tempfile.mkdtemp(prefix="dragoman-", dir=short)
        return Path(self._own_folder) / prefix


class _Lease:
    def __init__(self, kept: "_Kept", listener: Listener) -> None:
        self._kept = kept
        self.tell = listener

    @property
    def facts(self) -> Facts:
        return self._kept.opened.result()

    def complain(self, index: int, serial: int, *, broken: bool = False) -> None:
        self._kept.complain(self, index, serial, broken=broken)

    def object(self, index: int, serial: int) -> None:
        self._kept.wanted.add((index, serial))

    async def release(self) -> None:
        self._kept.leases.discard(self)
        if not self._kept.leases:
            await self._kept.stop()


class _Kept:
    """The processes of one model."""

    def __init__(
        self,
        spec: ModelSpec,
        place: Path,
        environments: Environments | None,
        forget: Callable[["_Kept"], None],
        restarted: Callable[[str], None],
    ) -> None:
        self._spec = spec
        self._restarted = restarted
        self._place = place
        self._environments = environments
        self._forget = forget
        self.leases: set[_Lease] = set()
        self.wanted: set[tuple[int, int]] = set()
        """What other workers objected to."""
        self._present: dict[int, tuple[int, Process]] = {}
        self._serial = 0
        self._complaints: dict[tuple[int, int], asyncio.TimerHandle] = {}
        self._stopping: asyncio.Task[None] | None = None
        self._held: Held | None = None
        """The virtualenv of the processes, which nobody may remove before they have ended."""
        self._keeping: list[asyncio.Task[None]] = []
        self.opened: asyncio.Task[Facts] = asyncio.get_running_loop().create_task(self._open())
        self.opened.add_done_callback(self._opened)

    def tell_present(self, listener: Listener) -> None:
        for index, (serial, process) in sorted(self._present.items()):
            listener(Up(index, serial, str(process.path)))

    def complain(self, by: _Lease, index: int, serial: int, *, broken: bool) -> None:
        """Kill a process that does not react, unless another worker says in time that it waits for what runs there."""
        present, process = self._present.get(index, (0, None))
        if process is None or present != serial:
            return
        if broken:
            log.warning("the process of model '%s' has lost its connection and is killed", self._spec.name)
            process.kill("it lives, but its connection to the server has ended: does the model close or write to descriptors?")
            return
        if (index, serial) in self._complaints:
            return
        others = self.leases - {by}
        self.wanted.discard((index, serial))
        if not others:
            self._judge(index, serial)
            return
        for other in others:
            other.tell(Query(index, serial))
        self._complaints[index, serial] = asyncio.get_running_loop().call_later(_OBJECTION_S, self._judge, index, serial)

    async def stop(self) -> None:
        """End everything; once, however many ask."""
        if self._stopping is None:
            self._forget(self)
            self._stopping = asyncio.get_running_loop().create_task(self._stop())
        await asyncio.shield(self._stopping)

    def _judge(self, index: int, serial: int) -> None:
        self._complaints.pop((index, serial), None)
        present, process = self._present.get(index, (0, None))
        if process is not None and present == serial and (index, serial) not in self.wanted:
            log.warning("the process of model '%s' does not react to the end of a call and is killed", self._spec.name)
            process.kill(f"it did not react within {self._spec.interrupt_grace_s:g} s when a call was broken off")

    async def _open(self) -> Facts:
        if self._spec.environment is not None:
            self._held = await self._hold(self._spec.environment)
        loop = asyncio.get_running_loop()
        starts = [loop.create_task(self._start(index)) for index in range(self._spec.instances)]
        try:
            facts = await asyncio.gather(*starts)
        except BaseException:  # side by side, and if one cannot be loaded the others are ended, too
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
            raise
        self._keeping = [loop.create_task(self._keep(index)) for index in range(self._spec.instances)]
        return facts[0]

    async def _hold(self, environment: Environment) -> Held:
        if self._environments is None:
            raise ServingError(
                Kind.UNSUPPORTED,
                f"model '{self._spec.name}' wants an environment of its own, which this server does not build",
                what="load",
            )
        lines = logging.getLogger(f"dragoman.models.{self._spec.name}")
        return await self._environments.hold(environment, lambda line: lines.info("%s", line))

    def _opened(self, opened: "asyncio.Task[Facts]") -> None:
        if opened.cancelled() or opened.exception() is not None:
            self._forget(self)

    async def _start(self, index: int) -> Facts:
        self._serial += 1
        serial = self._serial
        python = self._held.python if self._held is not None else None
        process = await Process.start(self._spec, self._place.with_name(f"{self._place.name}-{serial}"), python)
        self._present[index] = (serial, process)
        return process.facts

    async def _keep(self, index: int) -> None:
        """Wait for the end of one process and start another in its place, until it is not worth it any more."""
        ends: deque[float] = deque(maxlen=_MOST_DEATHS)
        while True:
            serial, process = self._present[index]
            reason = await process.ended()
            del self._present[index]
            log.error("model '%s': %s", self._spec.name, reason)
            self._tell(Down(index, serial, reason))
            ends.append(time.monotonic())
            recent = sum(1 for at in ends if at > ends[-1] - _WITHIN_S)
            if recent == _MOST_DEATHS:
                self._give_up(f"its process ended {recent} times within {_WITHIN_S:g} s, at last: {reason}")
                return
            await asyncio.sleep(_PAUSES_S[min(recent, len(_PAUSES_S)) - 1])
            try:
                await self._start(index)
            except ServingError as error:
                self._give_up(f"{reason} and could not be started again: {error.message}")
                return
            except Exception as error:  # no descriptors, no threads: whatever it is, those who wait must hear of it
                log.exception("the process of model '%s' could not be started again", self._spec.name)
                self._give_up(f"{reason} and could not be started again: {type(error).__name__}")
                return
            log.info("model '%s': its process runs again", self._spec.name)
            self._restarted(self._spec.name)
            serial, process = self._present[index]
            self._tell(Up(index, serial, str(process.path)))

    def _give_up(self, reason: str) -> None:
        self._forget(self)
        self._tell(Lost(reason))
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._stop())

    def _tell(self, event: Event) -> None:
        for lease in list(self.leases):
            lease.tell(event)

    async def _stop(self) -> None:
        tasks = [self.opened, *self._keeping]
        for task in tasks:
            task.cancel()
        for handle in self._complaints.values():
            handle.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        present, self._present = self._present, {}
        try:
            await asyncio.gather(*(process.stop() for _, process in present.values()))
        finally:
            if self._held is not None:
                self._held.release()
