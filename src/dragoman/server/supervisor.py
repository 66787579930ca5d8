"""Several workers on the same ports: starts them, restarts what dies, ends them on a signal. It loads no model and answers no request.

It keeps the model processes, so that all workers share one set of them.

The listening sockets are made here once and inherited, so a worker that dies takes no waiting connection with it. Each worker has a line to
this process: it reports over it, and leaves when it closes, so that no worker outlives its supervisor.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

from dragoman.engines.environment import FOLDER, Environments
from dragoman.engines.keeper import Keeper
from dragoman.engines.keeping import KeeperService
from dragoman.server.settings import Settings
from dragoman.serving.gradient.logs import Logs, attach, detach
from dragoman.serving.meters import Meters, Tally
from dragoman.serving.owners import Owner

log = logging.getLogger("dragoman")

_BACKOFF_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_HEALTHY_S = 60.0
"""A worker that lived this long starts over with the shortest pause."""
_SERIAL = 0
"""Of the supervisor itself, among its workers'."""
GRACE_S = 5.0
"""Beyond the drain time-out, before a worker is killed."""

Report = dict[str, Any]


class Supervisor:
    """`on_report` gets each message of a worker: its index and {"event": "progress" | "loaded", ...}.

    Workers keep the descriptors `inherited` open for as long as they live: the lock of the store.
    """

    def __init__(
        self,
        settings: Settings,
        sockets: Sequence[socket.socket],
        run_dir: str,
        on_report: Callable[[int, Report], None],
        inherited: Sequence[int] = (),
    ) -> None:
        self._settings = settings
        self._sockets = sockets
        self._run_dir = run_dir
        self._keeper = str(Path(run_dir) / "keeper")
        self._run = uuid4().hex
        self._on_report = on_report
        self._inherited = inherited
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._code = 0
        self._serials = _SERIAL

    def stop(self, code: int = 0) -> None:
        """End all workers; `run` returns this exit code once they have drained.

        The sockets are closed here first: while anybody holds them the kernel makes connections, which nobody would accept any more.
        """
        self._code = self._code or code
        self._stopping.set()
        for each in self._sockets:
            each.close()
        for process in self._processes.values():
            _send(process, signal.SIGTERM)

    def kill(self) -> None:
        """End all workers at once; requests in flight are lost."""
        for process in self._processes.values():
            _send(process, signal.SIGKILL)

    async def run(self) -> int:
        """Keep the workers alive until `stop`; returns the exit code."""
        environments = Environments(self._settings.data_path / FOLDER)
        meters = Meters(Path(self._run_dir), _SERIAL)
        meters.close()  # it counts with the workers, and is none
        keeper = Keeper(environments=environments, folder=Path(self._run_dir), restarted=lambda model: meters.tally(model, Tally.RESTARTS))
        keeping = KeeperService(keeper, Path(self._keeper))
        await keeping.start()
        owner = self._owner()
        printed = attach(Logs(self._settings.data_path))  # models' processes print here
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(self._settings.workers):
                    group.create_task(self._keep(index))
                group.create_task(self._kill_the_late())
        finally:
            await keeping.close()
            detach(printed)
            if owner is not None:
                owner.close()
        return self._code

    def _owner(self) -> Owner | None:
        """Names this run after somebody who lives as long as it, so that later servers see that it is over and forget its wishes."""
        try:
            owner = Owner(self._settings.data_path / "owners")
        except OSError:
            return None
        self._run = owner.name
        return owner

    async def _kill_the_late(self) -> None:
        await self._stopping.wait()
        try:
            async with asyncio.timeout(self._settings.drain_timeout + GRACE_S):
                await asyncio.gather(*(process.wait() for process in self._processes.values()))
        except TimeoutError:
            log.warning("%d workers did not end in time and are killed", len(self._processes))
            self.kill()

    async def _keep(self, index: int) -> None:
        failures = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            code = await self._live(index)
            if self._stopping.is_set():
                return
            lived_s = time.monotonic() - started
            failures = 0 if lived_s > _HEALTHY_S else failures + 1
            pause_s = _BACKOFF_S[min(failures, len(_BACKOFF_S)) - 1] if failures else _BACKOFF_S[0]
            log.error("worker %d ended with %s after %.1f s; a new one starts in %g s", index, _ending(code), lived_s, pause_s)
            try:
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    async def _live(self, index: int) -> int:
        """Start one worker and wait for its end; returns its exit code."""
        ours, theirs = socket.socketpair()
        descriptors = [s.fileno() for s in self._sockets]
        self._serials += 1
        order = {
            "settings": asdict(self._settings),
            "sockets": descriptors,
            "index": index,
            "serial": self._serials,
            "run_dir": self._run_dir,
            "keeper": self._keeper,
            "run": self._run,
        }
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "dragoman.server.child", str(theirs.fileno()),
                pass_fds=[*descriptors, *self._inherited, theirs.fileno()], stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C in the terminal goes to the supervisor, which then drains the workers
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )  # fmt: skip
        self._processes[index] = process
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            if self._stopping.is_set():
                _send(process, signal.SIGTERM)
            writer.write(json.dumps(order).encode() + b"\n")
            while line := await reader.readline():
                if not self._stopping.is_set():  # an announcement now would be one of ports that are closed
                    self._on_report(index, json.loads(line))
        except ConnectionError:
            pass
        finally:
            code = await process.wait()
            self._processes.pop(index, None)
            writer.close()
        return code


def _send(process: asyncio.subprocess.Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
