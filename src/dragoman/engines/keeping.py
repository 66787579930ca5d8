"""The keeper of model processes as a service on a unix socket, for several workers under one supervisor; and the way to it.

One connection is one lease: it ends with the connection, and so with the worker.
"""

import asyncio
import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dragoman.core.errors import Kind as ErrorKind
from dragoman.core.errors import ServingError
from dragoman.core.model import ModelSpec
from dragoman.core.spec_json import spec_from_json, spec_to_json
from dragoman.engines.keeper import Down, Event, Keeping, Lease, Listener, Lost, Query, Up
from dragoman.hosting.frames import Frame, FrameError, Kind
from dragoman.hosting.host import HELLO
from dragoman.hosting.line import Line
from dragoman.hosting.messages import Facts, error_in, error_out, facts_in, facts_out

_EVENTS: dict[str, type[Any]] = {"up": Up, "down": Down, "query": Query, "lost": Lost}
_NAMES = {kind: name for name, kind in _EVENTS.items()}


class KeeperService:
    """In the supervisor. Whoever can open the socket can have commands run, so it must lie in a folder of this user alone."""

    def __init__(self, keeper: Keeping, path: Path) -> None:
        self._keeper = keeper
        self._path = path
        self._server: asyncio.Server | None = None
        self._sessions: set[_Session] = set()

    async def start(self) -> None:
        self._server = await asyncio.get_running_loop().create_unix_server(self._connected, str(self._path))

    async def close(self) -> None:
        """Take nobody any more, and stop every process."""
        if self._server is not None:
            self._server.close()
        for session in list(self._sessions):
            session.line.close()
        await asyncio.gather(*(session.ended.wait() for session in list(self._sessions)))
        await self._keeper.close()

    def _connected(self) -> Line:
        session = _Session(self._keeper, self._sessions)
        self._sessions.add(session)
        return session.line


class _Session:
    """One lease of one worker."""

    def __init__(self, keeper: Keeping, sessions: "set[_Session]") -> None:
        self._keeper = keeper
        self._sessions = sessions
        self._lease: Lease | None = None
        self._work: asyncio.Task[None] | None = None
        self.ended = asyncio.Event()
        self.line = Line(self._frame, self._lost, HELLO)

    def _frame(self, frame: Frame) -> None:
        header = frame.read(HELLO)
        match frame.kind:
            case Kind.ACQUIRE if self._work is None:
                self._work = asyncio.get_running_loop().create_task(self._acquire(spec_from_json(header["spec"])))
            case Kind.COMPLAINT if self._lease is not None:
                if header["objection"]:
                    self._lease.object(header["index"], header["serial"])
                else:
                    self._lease.complain(header["index"], header["serial"], broken=header["broken"])
            case _:
                raise FrameError(f"a frame of kind {frame.kind} has no meaning here")

    async def _acquire(self, spec: ModelSpec) -> None:
        try:
            self._lease = await self._keeper.acquire(spec, self._tell)
        except ServingError as error:
            self.line.send(Kind.FAILED, error_out(error))
        except Exception as error:  # whatever it is, the worker must hear of it
            self.line.send(Kind.FAILED, error_out(ServingError(ErrorKind.INTERNAL, f"{type(error).__name__}: {error}")))
        else:
            self.line.send(Kind.LOADED, facts_out(self._lease.facts))

    def _tell(self, event: Event) -> None:
        self.line.send(Kind.EVENT, {"event": _NAMES[type(event)], **asdict(event)})

    def _lost(self, _wrong: str) -> None:
        self._work = asyncio.get_running_loop().create_task(self._release(self._work))

    async def _release(self, work: "asyncio.Task[None] | None") -> None:
        if work is not None:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        if self._lease is not None:
            await self._lease.release()
        self._sessions.discard(self)
        self.ended.set()


class RemoteKeeper:
    """In a worker: leases from the keeper at `path`."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def acquire(self, spec: ModelSpec, listener: Listener) -> Lease:
        lease = _RemoteLease(spec, listener)
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: lease.line, self._path)
        except OSError as error:
            text = f"the process of model '{spec.name}' cannot be had: {error.strerror or error}"
            raise ServingError(ErrorKind.UNAVAILABLE, text, what="load") from error
        try:
            lease.line.send(Kind.ACQUIRE, {"spec": spec_to_json(spec)})
            lease.facts = await lease.loaded
        except BaseException:
            await lease.release()
            raise
        return lease

    async def close(self) -> None:
        """Leases end with their connections."""


class _RemoteLease:
    def __init__(self, spec: ModelSpec, listener: Listener) -> None:
        self._spec = spec
        self._listener = listener
        self._closed = asyncio.Event()
        self._released = False
        self.loaded: asyncio.Future[Facts] = asyncio.get_running_loop().create_future()
        self.line = Line(self._frame, self._lost, HELLO)
        self.facts: Facts

    def complain(self, index: int, serial: int, *, broken: bool = False) -> None:
        self.line.send(Kind.COMPLAINT, {"index": index, "serial": serial, "objection": False, "broken": broken})

    def object(self, index: int, serial: int) -> None:
        self.line.send(Kind.COMPLAINT, {"index": index, "serial": serial, "objection": True})

    async def release(self) -> None:
        self._released = True
        self.line.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._closed.wait()

    def _frame(self, frame: Frame) -> None:
        header = frame.read(HELLO)
        match frame.kind:
            case Kind.EVENT:
                self._listener(_EVENTS[header.pop("event")](**header))
            case Kind.LOADED if not self.loaded.done():
                self.loaded.set_result(facts_in(header))
            case Kind.FAILED if not self.loaded.done():
                self.loaded.set_exception(error_in(header))
            case _:
                raise FrameError(f"a frame of kind {frame.kind} has no meaning here")

    def _lost(self, _wrong: str) -> None:
        self._closed.set()
        reason = "the keeper of the model processes is gone"
        if not self.loaded.done():
            self.loaded.set_exception(ServingError(ErrorKind.UNAVAILABLE, f"model '{self._spec.name}' was not loaded: {reason}"))
        elif not self._released:
            self._listener(Lost(reason))
