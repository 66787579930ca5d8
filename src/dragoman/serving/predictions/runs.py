"""A prediction that this process runs: what is known of it from moment to moment, and who is told when that changes. No store, no tasks.

The first ending counts: a result that comes after a cancel changes nothing. All methods are called on the event loop but those of RowWatch.
"""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass

from dragoman.core.predictions import Prediction, Progress
from dragoman.core.tensors import Value
from dragoman.serving.predictions.views import Tail, View


@dataclass(frozen=True, slots=True)
class Ending:
    """How it came out. `packed` are the outputs as they are stored."""

    progress: Progress
    finished: float
    outputs: list[Value] | None = None
    packed: bytes | None = None
    error: str = ""
    error_kind: str = ""


class Run:
    """`record` is how it was accepted or claimed, without its inputs, which are in `rows` until they have run."""

    def __init__(
        self, record: Prediction, rows: list[Value], size: int, *, clock: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        self.record = record
        self.rows = rows
        self.size = size
        """Bytes of its inputs, about."""
        self.dialect = ""
        self.stored = False
        self.started: float | None = None
        self.started_saved = False
        self.ending: Ending | None = None
        self.logs = Tail(record.logs)
        self.logs_saved = True
        self.lost = False
        """Somebody else decides about it now: the store knows more than this process."""
        self.task: asyncio.Task[None] | None = None
        self.writing = asyncio.Lock()
        """Writes of one prediction come one after the other."""
        self.version = 0
        """Grows with every change that a caller could see."""
        self.on_start: Callable[[Run], None] = lambda run: None
        """Told when its first row starts."""
        self._shown = False
        self._changed = asyncio.Event()
        self._clock = clock
        self._monotonic = monotonic
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._running: dict[int, float] = {}
        self._burst: _Burst | None = None

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def settled(self) -> bool:
        """Whether callers see its ending, or must ask the store."""
        return self._shown or self.lost

    def watch(self, index: int) -> "RowWatch":
        """Follows one of its rows."""
        return RowWatch(self, index)

    def row_started(self, index: int) -> "_Burst":
        """A batch with this row runs now. Rows of one batch are told together: returns what they have in common."""
        self._running[index] = self._monotonic()
        if self.started is None and self.ending is None:
            self.started = self._clock()
            self.tell()
            self.on_start(self)
        if self._burst is None or self._burst.speaker is not None:
            self._burst = _Burst()
            self._loop.call_soon(self._end_burst, self._burst)
        return self._burst

    def row_done(self, index: int) -> None:
        self._running.pop(index, None)

    def printed(self, text: str) -> None:
        self.logs.append(text)
        self.logs_saved = False
        self.tell()

    def overdue(self, timeout_s: float) -> bool:
        """Whether a row of it has been running for longer than that."""
        return self.ending is None and any(self._monotonic() - since > timeout_s for since in self._running.values())

    def end(self, ending: Ending) -> bool:
        """Decide how it came out; False when that was decided before. Callers see it once it is `show`n: when it is stored."""
        if self.ending is not None or self.lost:
            return False
        self.ending = ending
        self.rows = []
        return True

    def show(self) -> None:
        """Let callers see the ending."""
        if not self._shown:
            self._shown = True
            self.tell()

    def lose(self) -> None:
        """From now on callers are told what the store says."""
        self.lost = True
        self.rows = []
        self.tell()

    def stop(self) -> None:
        """Break off its work."""
        if self.task is not None:
            self.task.cancel()

    def view(self) -> View:
        ending = self.ending if self._shown else None
        record = self.record
        return View(
            id=record.id,
            model=record.model,
            version=record.version,
            operation=record.operation,
            progress=ending.progress if ending else Progress.CLAIMED if self.started is None else Progress.RUNNING,
            outputs=ending.outputs if ending else None,
            error=ending.error if ending else "",
            error_kind=ending.error_kind if ending else "",
            logs=self.logs.text,
            created=record.created,
            started=self.started,
            finished=ending.finished if ending else None,
        )

    def tell(self) -> None:
        """Wake whoever waits for a change."""
        self.version += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def changed(self, since: int, timeout_s: float) -> None:
        """Wait until `version` is above `since`, or the time is over."""
        if self.version > since or timeout_s <= 0:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return

    def on_loop(self, call: Callable[..., object], *args: object) -> None:
        """Call it now when this is the loop's thread, else soon, in the order in which it is asked for."""
        if threading.get_ident() == self._thread:
            call(*args)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *args)

    def _end_burst(self, burst: "_Burst") -> None:
        if self._burst is burst:
            self._burst = None


class _Burst:
    """Rows that were started in one pass of the loop, as the members of a batch are. What the batch prints is told to each of them: only
    the first that speaks is listened to."""

    __slots__ = ("speaker",)

    def __init__(self) -> None:
        self.speaker: int | None = None


class RowWatch:
    """The `Watch` of one row: may be called from any thread."""

    __slots__ = ("_burst", "_index", "_run")

    def __init__(self, run: Run, index: int) -> None:
        self._run = run
        self._index = index
        self._burst: _Burst | None = None

    def started(self) -> None:
        self._run.on_loop(self._started)

    def log(self, text: str) -> None:
        self._run.on_loop(self._log, text)

    def _started(self) -> None:
        self._burst = self._run.row_started(self._index)

    def _log(self, text: str) -> None:
        burst = self._burst
        if burst is not None:
            if burst.speaker is None:
                burst.speaker = self._index
            elif burst.speaker != self._index:
                return
        self._run.printed(text)
