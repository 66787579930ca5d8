"""One model process from its start to its end: starts it, loads the model in it, logs what it prints, says how it ended.

Restarting is the keeper's business. The process needs nothing of ours installed: it is told where this package lies, and sees no other
package of the server unless it runs in the server's own environment.
"""

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dragoman.core.errors import Kind as ErrorKind
from dragoman.core.errors import ServingError
from dragoman.core.model import ModelSpec
from dragoman.core.spec_json import spec_to_json
from dragoman.engines import bootstrap
from dragoman.hosting.frames import Frame, FrameError, Kind
from dragoman.hosting.host import HELLO
from dragoman.hosting.line import Line
from dragoman.hosting.messages import Facts, error_in, facts_in

_LINE = 4096
"""Longer lines of a model are logged in pieces of so many bytes."""
_STOP_S = 5.0
_LAST_WORDS_S = 0.5
"""How long after the end of a process the rest of its output may take."""
_MAIN = """\
from dragoman.hosting.host import main
main(*map(int, arguments))
"""


class Process:
    """Make it with `start`. `path` is the unix socket on which it answers workers, `facts` what its model says of itself."""

    def __init__(self, spec: ModelSpec, path: Path) -> None:
        self.path = path
        self._spec = spec
        self._loop = asyncio.get_running_loop()
        self._log = logging.getLogger(f"dragoman.models.{spec.name}")
        self._words: deque[str] = deque(maxlen=20)
        """The last lines that it wrote to its standard error."""
        self._loaded: asyncio.Future[Facts] = self._loop.create_future()
        self._exit: asyncio.Future[int] = self._loop.create_future()
        self._quiet = asyncio.Event()
        self._pipes = 2
        self._reason = ""
        self._popen: subprocess.Popen[bytes]
        self._socket: socket.socket
        self._line = Line(self._frame, self._line_lost, HELLO)
        self._transports: list[asyncio.BaseTransport] = []
        self._dying: asyncio.Task[None] | None = None
        self.facts: Facts

    @staticmethod
    async def start(spec: ModelSpec, path: Path, python: Path | None) -> "Process":
        """Start a process, with the interpreter of an environment or the server's own, and load the model in it.

        Raises ServingError with the reason when that fails or takes longer than the spec allows; nothing is left then.
        """
        process = Process(spec, path)
        process._spawn(python)
        try:
            await process._connect()
            async with asyncio.timeout(None if spec.load_timeout_s == math.inf else spec.load_timeout_s):
                process.facts = await asyncio.shield(process._loaded)
        except BaseException as error:
            await process._bury()
            if isinstance(error, TimeoutError):
                raise ServingError(
                    ErrorKind.UNAVAILABLE, f"model '{spec.name}' was not loaded within {spec.load_timeout_s:g} s", what="load"
                ) from None
            raise
        finally:
            process._loaded.cancel()
        return process

    async def ended(self) -> str:
        """Wait until the process has ended; returns how, in words."""
        code = await self._ended()
        return f"model process ended ({self._reason or ending(code)})"

    def kill(self, reason: str = "") -> None:
        """End it at once, and everything that it started."""
        self._reason = self._reason or reason
        if not self._exit.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """Let it close its model and end; kill it when that takes too long."""
        self._line.send(Kind.CLOSE, {})
        try:
            async with asyncio.timeout(_STOP_S):
                await asyncio.shield(self._exit)
        except TimeoutError:
            self._log.warning("the model process did not end when it was told to, and is killed")
        finally:
            self.kill()
        await self._ended()

    async def _bury(self) -> None:
        """Kill it and wait for the end, even if this is cancelled meanwhile: it takes moments, and nothing must be left."""
        self.kill()
        burial = self._loop.create_task(self._ended())
        try:
            await asyncio.shield(burial)
        except asyncio.CancelledError:
            await burial
            raise

    def _spawn(self, python: Path | None) -> None:
        ours, theirs = socket.socketpair()
        env = dict(os.environ)
        if python is None:  # the server's own environment, as the server sees it
            env["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
        else:
            for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
                env.pop(name, None)
        command = bootstrap.command(str(python or sys.executable), _MAIN, str(theirs.fileno()), str(os.getpid()))
        with theirs:
            try:
                self._popen = subprocess.Popen(  # noqa: S603 # in the thread of the loop: the process dies with the thread that started it
                    command, pass_fds=[theirs.fileno()], env=env, start_new_session=True,
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                )  # fmt: skip
            except OSError as error:
                ours.close()
                self._exit.cancel()
                self._loaded.cancel()
                raise ServingError(
                    ErrorKind.UNAVAILABLE, f"the process of model '{self._spec.name}' cannot be started: {error.strerror}", what="load"
                ) from error
        self._socket = ours
        threading.Thread(target=self._wait, name=f"wait-{self._popen.pid}", daemon=True).start()

    async def _connect(self) -> None:
        outputs = (_Lines(self._log, None, self._silent), _Lines(self._log, self._words, self._silent))
        for lines, stream in zip(outputs, (self._popen.stdout, self._popen.stderr), strict=True):
            transport, _ = await self._loop.connect_read_pipe(lambda lines=lines: lines, stream)  # type: ignore[misc] # mypy cannot infer a lambda with a default
            self._transports.append(transport)
        transport, _ = await self._loop.create_connection(lambda: self._line, sock=self._socket)
        self._transports.append(transport)
        self._line.send(Kind.LOAD, {"spec": spec_to_json(replace(self._spec, instances=1)), "path": str(self.path)})

    def _frame(self, frame: Frame) -> None:
        header = frame.read(self._line.tag)
        match frame.kind:
            case Kind.LOADED if not self._loaded.done():
                self._loaded.set_result(facts_in(header))
            case Kind.FAILED if not self._loaded.done():
                self._loaded.set_exception(error_in(header))
            case Kind.ENDING:
                self._reason = self._reason or str(header["reason"])
            case _:
                raise FrameError(f"a frame of kind {frame.kind} has no meaning here")

    def _line_lost(self, _wrong: str) -> None:
        """It has ended, or will in a moment; or else user code has closed the descriptor, and nothing can be said to it any more."""
        self._loop.call_later(_LAST_WORDS_S, self.kill, "its line to the server has ended: does the model close descriptors?")

    def _wait(self) -> None:
        """In a thread of its own: the end of the process, and of what it has started, before its number is given to another."""
        pid = self._popen.pid
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        code = self._popen.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
            self._loop.call_soon_threadsafe(self._exited, code)

    def _exited(self, code: int) -> None:
        if not self._exit.done():
            self._exit.set_result(code)
        if not self._loaded.done():
            self._dying = self._loop.create_task(self._died_loading(code))

    async def _died_loading(self, code: int) -> None:
        await self._ended()
        words = next((w for w in reversed(self._words) if w.strip()), "")
        if not self._loaded.done():
            text = f"the process of model '{self._spec.name}' ended ({self._reason or ending(code)}) before the model was loaded"
            self._loaded.set_exception(ServingError(ErrorKind.UNAVAILABLE, text + (f": {words[:500]}" if words else ""), what="load"))

    async def _ended(self) -> int:
        """Wait for the end, for the rest of the output, and close everything."""
        code = await asyncio.shield(self._exit)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._quiet.wait()
        self._line.close()
        for transport in self._transports:
            transport.close()
        for each in (self._popen.stdout, self._popen.stderr, self._socket)[len(self._transports) :]:
            assert each is not None
            each.close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        return code

    def _silent(self) -> None:
        self._pipes -= 1
        if not self._pipes:
            self._quiet.set()


class _Lines(asyncio.Protocol):
    """Logs what comes through a pipe, line by line as it comes. Of a line that was overwritten (a progress bar) only the last state."""

    def __init__(self, log: logging.Logger, words: "deque[str] | None", closed: Callable[[], None]) -> None:
        self._log = log
        self._words = words
        self._closed = closed
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._say(line)
        if len(rest) > _LINE:
            self._say(rest)
            rest = b""
        self._rest = rest

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._rest:
            self._say(self._rest)
        self._closed()

    def _say(self, line: bytes) -> None:
        shown = line.rstrip(b"\r").rpartition(b"\r")[2]
        for begin in range(0, len(shown), _LINE):
            text = shown[begin : begin + _LINE].decode("utf-8", "backslashreplace")
            self._log.info("%s", text)
            if self._words is not None:
                self._words.append(text)


def ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
