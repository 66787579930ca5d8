"""One worker's connection to one model process: what is sent over it, what is outstanding, what comes back. Called by RemoteServable."""

import asyncio
import time
from collections.abc import Callable

from dragoman.core.errors import Kind as ErrorKind
from dragoman.core.errors import ServingError
from dragoman.core.model import InferRequest, InferResponse
from dragoman.hosting.frames import Frame, FrameError, Kind, new_tag
from dragoman.hosting.host import HELLO
from dragoman.hosting.line import Line
from dragoman.hosting.messages import error_in, request_out, response_in


class Pending:
    """A request that waits for its answer, wherever it is now."""

    __slots__ = ("answered", "connection", "future", "key", "length", "number", "repeated", "request", "sent", "started", "timer")

    def __init__(self, number: int, request: InferRequest, key: str | None, length: int, future: "asyncio.Future[InferResponse]") -> None:
        self.number = number
        self.request = request
        self.key = key
        self.length = length
        self.future = future
        self.connection: Connection | None = None
        self.sent = False
        """Whether it was sent before, and so has been accepted once."""
        self.started = 0.0
        """Since when it runs, on the monotonic clock; 0 while it does not."""
        self.repeated = False
        self.answered = False
        """Whether the process has said all that it will say about it."""
        self.timer: asyncio.TimerHandle | None = None

    def settle(self, outcome: InferResponse | ServingError) -> None:
        if self.future.done():
            return
        if isinstance(outcome, ServingError):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class Connection:
    """`broken` is called once when it has ended, `began` for every request that starts to run for the first time."""

    def __init__(self, index: int, serial: int, model: str, broken: "Callable[[Connection], None]", began: Callable[[], None]) -> None:
        self.index = index
        self.serial = serial
        self._model = model
        self._began = began
        self.outstanding: dict[int, Pending] = {}
        self.cancelled: dict[int, float] = {}
        """Number -> when it was cancelled, of those that the process has not said goodbye to."""
        self.rows_waiting = 0
        self.running = 0
        """How many of ours run."""
        self._batch: list[Pending] = []
        """What runs now; and so whom a printed line concerns."""
        self._number = 0
        self.line = Line(self._frame, lambda _: broken(self), HELLO)

    def greet(self) -> None:
        tag = new_tag()
        self.line.send(Kind.HELLO, {"tag": tag})
        self.line.tag = tag

    def send(self, pending: Pending) -> None:
        """Send a request; one that cannot be sent is settled at once."""
        header = request_out(pending.number, pending.request, pending.key, pending.length, again=pending.sent)
        try:
            self.line.send(Kind.INFER, header)
        except FrameError as error:
            pending.settle(ServingError(ErrorKind.INVALID_INPUT, f"the request for model '{self._model}' cannot be sent: {error}"))
            return
        pending.sent = True
        pending.connection = self
        self.outstanding[pending.number] = pending
        self.rows_waiting += pending.length

    def cancel(self, pending: Pending) -> None:
        """Nobody waits for this one any more."""
        if self.outstanding.pop(pending.number, None) is None:
            return
        self._gone(pending)
        if not self.line.closed:
            self.line.send(Kind.CANCEL, {"id": pending.number})
            self.cancelled[pending.number] = time.monotonic()

    def take(self) -> list[Pending]:
        """Remove and return everything that is outstanding, oldest first."""
        taken = sorted(self.outstanding.values(), key=lambda p: p.number)
        self.outstanding.clear()
        for pending in taken:
            pending.connection = None
        return taken

    def waits_for_a_run(self) -> bool:
        """Whether somebody waits for something that runs now."""
        return self.running > 0 and any(p.started and not p.future.done() for p in self.outstanding.values())

    def hangs(self, now: float, grace_s: float) -> bool:
        """Whether the process has not reacted to a cancellation in time, and nothing runs that somebody here waits for."""
        return bool(self.cancelled) and now - min(self.cancelled.values()) > grace_s and not self.waits_for_a_run()

    def _gone(self, pending: Pending) -> None:
        if not pending.started:
            self.rows_waiting -= pending.length
        else:
            self.running -= 1

    def _frame(self, frame: Frame) -> None:
        header = frame.read(self.line.tag if frame.kind != Kind.HELLO else HELLO)
        match frame.kind:
            case Kind.RESULT if header.get("more"):
                self._part(header["id"], response_in(header))
            case Kind.RESULT:
                self._answer(header["id"], response_in(header))
            case Kind.STARTED:
                self._start(header["batch"], header["ids"])
            case Kind.ERROR:
                self._answer(header["id"], error_in(header))
            case Kind.LOG:
                if header["batch"] == self._number:
                    for pending in self._batch:
                        if pending.request.watch is not None and not pending.future.done():
                            pending.request.watch.log(header["text"])
            case Kind.HELLO:
                pass
            case _:
                raise FrameError(f"a frame of kind {frame.kind} has no meaning here")

    def _answer(self, number: int, outcome: InferResponse | ServingError) -> None:
        pending = self.outstanding.pop(number, None)
        if pending is None:
            self.cancelled.pop(number, None)
            return
        pending.answered = True
        self._gone(pending)
        pending.settle(outcome)

    def _part(self, number: int, part: InferResponse) -> None:
        pending = self.outstanding.get(number)
        if pending is None or pending.request.part is None or pending.future.done():
            return
        try:
            pending.request.part(part.outputs)
        except ServingError as error:
            pending.settle(error)

    def _start(self, batch: int, numbers: list[int]) -> None:
        now = time.monotonic()
        self._number = batch
        self._batch = [self.outstanding[n] for n in numbers if n in self.outstanding]
        for pending in self._batch:
            if not pending.started:
                self.rows_waiting -= pending.length
                self.running += 1
                self._began()
            pending.started = now
            if pending.request.watch is not None and not pending.future.done():
                pending.request.watch.started()
