"""The model process: loads one model and answers workers over a unix socket. Started by engines/launch.py; imports little of ours.

Main thread: load, warm-up, and batches one at a time (runner.py). Second thread: an event loop with the line to the owner, the connections
of workers, and the batcher (hosted.py). When the owner is gone the process ends at once, whatever it does.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from dragoman.core.errors import Kind as ErrorKind
from dragoman.core.errors import ServingError
from dragoman.core.model import InferResponse, Model, ModelSpec, Timings
from dragoman.core.spec_json import spec_from_json
from dragoman.core.tracebacks import trace_of
from dragoman.hosting.batch import Member, Payload, as_serving_error
from dragoman.hosting.frames import Frame, FrameError, Kind
from dragoman.hosting.hosted import HostedModel
from dragoman.hosting.line import Line
from dragoman.hosting.messages import Facts, error_out, facts_out, request_in, response_out
from dragoman.hosting.output import follow
from dragoman.hosting.runner import Runner
from dragoman.hosting.servable import load_models, with_batch_size
from dragoman.hosting.streaming import AHEAD

HELLO: Final = "hello"
"""The tag until the one who connects has named another."""
_SWITCH_S = 0.0005
"""The loop has the interpreter within half a millisecond of asking, however long user code computes in Python."""
_DEATH = 1
"""PR_SET_PDEATHSIG"""
_RUNNING_S = 3.0
"""What still runs when the process is to end gets so long, before it ends without it."""


class Session:
    """One worker's connection: its requests, and what becomes of them."""

    def __init__(self, model: HostedModel) -> None:
        self._model = model
        self._members: dict[int, Member] = {}
        self._ids: dict[Member, int] = {}
        self._listening = 0
        """Number of the batch of which somebody here wants to hear what it prints; one runs at a time."""
        self.line = Line(self._frame, self._lost, HELLO, copies=True)

    # --- what the model tells ---

    def started(self, number: int, members: Sequence[Member]) -> None:
        if any(m.request.watch is not None for m in members):
            self._listening = number
        self.line.send(Kind.STARTED, {"batch": number, "ids": [self._ids[m] for m in members if m in self._ids]})
        self.line.flush()

    def printed(self, number: int, text: str) -> None:
        if number == self._listening:
            self.line.send(Kind.LOG, {"batch": number, "text": text})

    # --- what the worker sends ---

    def _frame(self, frame: Frame) -> None:
        header = frame.read(self.line.tag)
        match frame.kind:
            case Kind.INFER:
                self._infer(header)
            case Kind.CANCEL:
                member = self._members.get(header["id"])
                if member is not None:
                    member.future.cancel()
            case Kind.HELLO:
                self.line.send(Kind.HELLO, {"python": sys.version.split()[0]})
                self.line.tag = header["tag"]
            case _:
                raise FrameError(f"a frame of kind {frame.kind} has no meaning here")

    def _infer(self, header: dict[str, Any]) -> None:
        number, key, length = header["id"], header["key"], header["length"]
        if type(number) is not int or type(length) is not int or number in self._members:
            raise FrameError("a request has no number of its own")
        request = request_in(header)
        if header.get("log"):
            request.watch = _SILENT
        if header.get("stream"):
            request.part = _Sender(self.line, number).part
        try:
            member = self._model.enqueue(request, key, length, self, admitted=bool(header.get("again")))
        except ServingError as error:
            self.line.send(Kind.ERROR, {"id": number, **error_out(error)})
            return
        self._members[number] = member
        self._ids[member] = number
        member.future.add_done_callback(lambda _: self._answered(number, member))

    def _answered(self, number: int, member: Member) -> None:
        del self._members[number], self._ids[member]
        self._model.leave(member)
        future = member.future
        error = ServingError(ErrorKind.CANCELLED, "the request was cancelled") if future.cancelled() else future.exception()
        if error is None:
            try:
                self.line.send(Kind.RESULT, response_out(number, future.result()))
                return
            except FrameError as wrong:
                error = ServingError(ErrorKind.MODEL_FAILED, f"the model's answer cannot be sent: {wrong}")
        assert isinstance(error, ServingError)
        try:
            self.line.send(Kind.ERROR, {"id": number, **error_out(error)})
        except FrameError as wrong:
            self.line.send(Kind.ERROR, {"id": number, **error_out(ServingError(error.kind, f"the model's error cannot be sent: {wrong}"))})

    def _lost(self, _wrong: str) -> None:
        """Nobody is there to be answered: everything is cancelled."""
        for member in list(self._members.values()):
            member.future.cancel()


class _Sender:
    """Sends the parts of one answer; the model waits while the loop has not come to send the last few."""

    def __init__(self, line: Line, number: int) -> None:
        self._line = line
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._room = threading.Semaphore(AHEAD)
        self._wrong = ""

    def part(self, outputs: Payload) -> None:
        """In the main thread. Raises MODEL_FAILED after a part that could not be sent."""
        self._room.acquire()
        if self._wrong:
            raise ServingError(ErrorKind.MODEL_FAILED, f"a part of the model's answer cannot be sent: {self._wrong}")
        self._loop.call_soon_threadsafe(self._send, outputs)

    def _send(self, outputs: Payload) -> None:
        self._room.release()
        if not self._line.closed:
            try:
                self._line.send(Kind.RESULT, {"more": True, **response_out(self._number, InferResponse(outputs, Timings()))})
            except FrameError as error:
                self._wrong = str(error)


class _Silent:
    """Stands for a watch that is in the worker."""

    def started(self) -> None:
        """The worker hears it from the session."""

    def log(self, text: str) -> None:
        """As above."""


_SILENT = _Silent()


class Host:
    """The second thread. `control` is the line to the owner."""

    def __init__(self, runner: Runner, control: socket.socket) -> None:
        self._runner = runner
        self._socket = control
        self._model: HostedModel | None = None
        self._server: asyncio.Server | None = None

    def serve(self) -> None:
        """Does not return. User code may break anything in this process, and then it must end: a new one works, half a one only hangs."""
        try:
            asyncio.run(self._serve())
        finally:
            os._exit(1)

    def printed(self, text: str) -> None:
        model = self._model
        if model is not None:
            model.printed(text)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_end_after_failure)
        self._line = Line(self._frame, lambda _: os._exit(1), HELLO)
        await self._loop.create_connection(lambda: self._line, sock=self._socket)
        await self._loop.create_future()  # until the process ends

    def _frame(self, frame: Frame) -> None:
        header = frame.read(self._line.tag)
        match frame.kind:
            case Kind.LOAD:
                spec = spec_from_json(header["spec"])
                self._runner.submit(lambda: self._load(spec, header["path"]))
            case Kind.CLOSE:
                self._close()
            case _:
                raise FrameError(f"a frame of kind {frame.kind} has no meaning here")

    def _load(self, spec: ModelSpec, path: str) -> None:
        """In the main thread."""
        try:
            model = load_models(replace(spec, instances=1), lambda _elements, _took: None)[0]
        except BaseException as error:
            failure = as_serving_error(error, spec.name)
            cause = failure.__cause__
            sys.stderr.write(failure.trace if cause is None else trace_of(cause))
            self._loop.call_soon_threadsafe(self._line.send, Kind.FAILED, error_out(failure))
        else:
            asyncio.run_coroutine_threadsafe(self._listen(spec, model, path), self._loop)

    async def _listen(self, spec: ModelSpec, model: Model, path: str) -> None:
        hosted = self._model = HostedModel(with_batch_size(spec, model), model, self._runner, self._end)
        self._server = await self._loop.create_unix_server(lambda: Session(hosted).line, path)
        self._line.send(Kind.LOADED, facts_out(Facts(model.signatures, model.operations, model.platform, getattr(model, "batch_size", 0))))

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        model = self._model
        if model is not None:
            self._runner.submit(model.close)
        self._runner.stop()
        self._loop.call_later(_RUNNING_S, os._exit, 0)

    def _end(self, reason: str) -> None:
        """Nothing but the end of this process stops what its main thread does."""
        self._line.send(Kind.ENDING, {"reason": reason})
        self._line.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def main(descriptor: int, owner: int) -> None:
    """Serve the owner at the other end of `descriptor`, whose process id is `owner`, until it says that it is enough. Does not return."""
    _die_with(owner)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is for the owner
    sys.setswitchinterval(_SWITCH_S)
    runner = Runner()
    host = Host(runner, socket.socket(fileno=descriptor))
    follow(host.printed)
    threading.Thread(target=host.serve, name="dragoman", daemon=True).start()
    runner.work()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads of user code would keep the process otherwise


def _end_after_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Something of ours failed on the loop, so a request may be forgotten: nothing but the end of the process tells its sender."""
    loop.default_exception_handler(context)
    if context.get("exception") is not None:
        os._exit(1)


def _die_with(owner: int) -> None:
    """Ask the kernel to kill this process when its owner is gone: user code may hold the interpreter and never notice a closed line."""
    with contextlib.suppress(ImportError, OSError, AttributeError):  # only Linux has it
        import ctypes

        ctypes.CDLL(None).prctl(_DEATH, signal.SIGKILL)
    if os.getppid() != owner:
        os._exit(1)
