"""Asking a job's gate for leave to pass one request to its program. Called by the endpoint of FloydHub's dialect on every request.

The gate is a unix socket that speaks the protocol of hosting/jobs. Closing the permit, or the death of this process, gives it back.
"""

import array
import asyncio
import json
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from dragoman.engines.jobs.gate_line import connect

_CROWDED_S = 0.02
_CROWDED = 1500
"""How often a gate that has no room for another connection is asked again."""
_LINE = 1 << 16
_RIGHTS = socket.CMSG_SPACE(array.array("i").itemsize)


class Refused(NamedTuple):
    """No permit. `gone`: nobody answers there, or it is ending. `failed`: the program refuses connections that it took before."""

    reason: str
    ran_s: float = 0.0
    gone: bool = False
    failed: bool = False


class Busy(NamedTuple):
    """Others are before this request, and who asked did not want to wait."""

    ahead: int


class Permit:
    """Leave to ask the program once, over `app`: a socket that is connected to it and does not block. Close it when the answer is over."""

    __slots__ = ("_line", "app", "keeps_prefix")

    def __init__(self, line: socket.socket, app: socket.socket, *, keeps_prefix: bool) -> None:
        self._line = line
        self.app = app
        self.keeps_prefix = keeps_prefix

    def last(self) -> None:
        """Go on with the program in another protocol, and let the next request pass: the one that was asked for has been answered."""
        with suppress(OSError):  # the gate is gone, and hangs up on the program by that
            self._line.send(b'{"ask": "last"}\n')

    def close(self) -> None:
        """Hang up on the program, and let the next request pass."""
        self.app.close()
        self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


async def ask(folder: Path, *, patient: bool = True) -> Permit | Refused | Busy:
    """Leave from the gate of the job with this folder.

    Waits for its turn for as long as it takes, unless not `patient`; never for a program that starts.

    Cancelling it leaves the queue.
    """
    given: list[socket.socket] = []
    line = permit = None
    try:
        line = await _connected(folder)
        line.send(b'{"ask": "permit"}\n')
        permit = await _answer(line, given, patient)
        return permit
    except OSError:
        return Refused("nobody answers for the job", gone=True)
    except (ValueError, TypeError, KeyError):
        return Refused("its gate answered what is no answer", failed=True)
    finally:
        if line is not None and not isinstance(permit, Permit):
            line.close()
        for unused in given:
            if not isinstance(permit, Permit) or unused is not permit.app:
                unused.close()


async def _connected(folder: Path) -> socket.socket:
    """Raises OSError when nobody listens there."""
    for _ in range(_CROWDED):
        try:
            return connect(folder)
        except BlockingIOError:  # so many wait that the kernel's queue is full
            await asyncio.sleep(_CROWDED_S)
    raise TimeoutError("a gate had no room for another connection")


async def _answer(line: socket.socket, given: list[socket.socket], patient: bool) -> Permit | Refused | Busy:
    """The answer to one question for a permit; sockets that came with it are left in `given`. Raises ValueError and the like for no answer."""
    read = b""
    while True:
        piece = await _received(line, given)
        if not piece or len(read) > _LINE:
            return Refused("its gate was closed", gone=True)
        *lines, read = (read + piece).split(b"\n")
        for each in lines:
            said: dict[str, Any] = json.loads(each)
            match said["answer"]:
                case "go" if given:
                    return Permit(line, given[0], keeps_prefix=said["prefix"] == "keep")
                case "wait" if not patient:
                    return Busy(int(said["ahead"]))
                case "wait":
                    continue
                case "no":
                    return Refused(str(said["reason"]), float(said.get("ran_s") or 0.0), gone=said.get("state") == "ending")
                case "failed":
                    return Refused(str(said["reason"]), failed=True)
                case other:
                    raise ValueError(other)


async def _received(line: socket.socket, given: list[socket.socket]) -> bytes:
    """What came, b"" at the end. Sockets that came beside it are added to `given`."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            piece, beside, _, _ = line.recvmsg(_LINE, _RIGHTS, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            readable: asyncio.Future[None] = loop.create_future()
            loop.add_reader(line, _wake, readable)
            try:
                await readable
            finally:
                loop.remove_reader(line)
            continue
        for level, kind, data in beside:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                for descriptor in array.array("i", data):
                    app = socket.socket(fileno=descriptor)
                    app.setblocking(False)
                    given.append(app)
        return piece


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
