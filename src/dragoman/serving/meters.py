"""Counters per model, version and dialect, common to all workers: what statistics and metrics are made of. Written by the gateway only.

A Meter keeps its sums as Python numbers, which are cheap to add to, and copies what changed into shared memory at once: so any worker can
answer for all of them, and nothing is lost when one is killed. See serving/counters.py for the memory and serving/totals.py for the sums.
"""

import logging
import mmap
import struct
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from dragoman.core.errors import Kind
from dragoman.core.model import Timings
from dragoman.serving import counters as c
from dragoman.serving.counters import BOUNDS_NS, Tally, Vitals
from dragoman.serving.totals import Gauge, Reading, Total, add_up

log = logging.getLogger("dragoman")

LIVE_NS = 10_000_000_000
"""A worker that has not refreshed for so long is taken for dead: its counts stay, its gauges go."""
MOST_METERS = 8192
"""Per worker. Whatever comes beyond shares one meter."""
OTHER = ":other"
"""The model name of that meter; no real one may have a colon."""

NO_VITALS = Vitals(0, 0)
_pack_waited = struct.Struct("=8q").pack_into
_pack = struct.Struct("=5q").pack_into
_FIRST_NS = BOUNDS_NS[0]
_EXACT_SIZES = c.EXACT_SIZES
_KIND_INDEX: Mapping[Kind, int] = {kind: index for index, kind in enumerate(c.KINDS)}
_TALLY_INDEX: Mapping[Tally, int] = {tally: index for index, tally in enumerate(Tally)}


class _Record:
    """The sums over the requests of one batch size, and where they go in memory."""

    __slots__ = ("at", "count", "infer", "input", "output", "rows", "took", "waited")

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = self.took = self.rows = self.infer = self.waited = self.input = self.output = 0


class Meter:
    """The counters of one (model, version, dialect). Belongs to one thread."""

    __slots__ = ("_compute", "_compute_at", "_failed_ns", "_failures", "_followers", "_memory", "_queue", "_queue_at", "_records", "_request",
                 "_request_at", "_slot", "_words")  # fmt: skip

    def __init__(self, memory: mmap.mmap, words: "memoryview[int]", slot: int) -> None:
        self._memory = memory
        self._words = words
        self._slot = slot
        self._followers = _Record((slot + c.RECORDS + c.FOLLOWERS * c.RECORD_WORDS) * 8)
        self._records: list[_Record | None] = [None] * c.SIZES
        self._request = [0] * c.BINS
        self._queue = [0] * c.BINS
        self._compute = [0] * c.BINS
        self._request_at = slot + c.REQUEST
        self._queue_at = slot + c.QUEUE
        self._compute_at = slot + c.COMPUTE
        self._failures = [0] * len(c.KINDS)
        self._failed_ns = 0

    def succeeded(self, begin_ns: int, end_ns: int, timings: Timings) -> None:
        """Count one answered request. The times are monotonic. On the hot path: one write for the sums, one per histogram."""
        words = self._words
        infer = timings.infer_ns
        if timings.leader:
            size = timings.batch_size
            record = self._records[size if size <= _EXACT_SIZES else c.place(size)]
            if record is None:
                record = self._open(size)
            bins = self._compute
            i = bisect_left(BOUNDS_NS, infer)
            bins[i] = n = bins[i] + 1
            words[self._compute_at + i] = n
        else:
            record = self._followers
        took = end_ns - begin_ns
        record.count = count = record.count + 1
        record.took = took_sum = record.took + took
        record.rows = rows = record.rows + timings.rows
        record.infer = infer_sum = record.infer + infer
        waited = timings.queue_ns
        if waited or timings.input_ns or timings.output_ns:
            record.waited = waited_sum = record.waited + waited
            record.input = input_sum = record.input + timings.input_ns
            record.output = output_sum = record.output + timings.output_ns
            _pack_waited(self._memory, record.at, count, took_sum, rows, infer_sum, end_ns, waited_sum, input_sum, output_sum)
            if waited > _FIRST_NS:
                bins = self._queue
                i = bisect_left(BOUNDS_NS, waited)
                bins[i] = n = bins[i] + 1
                words[self._queue_at + i] = n
        else:  # run on the loop itself: nothing was joined or split
            _pack(self._memory, record.at, count, took_sum, rows, infer_sum, end_ns)
        bins = self._request
        i = bisect_left(BOUNDS_NS, took)
        bins[i] = n = bins[i] + 1
        words[self._request_at + i] = n

    def succeeded_in_parts(self, begin_ns: int, end_ns: int, parts: Sequence[Timings]) -> Timings:
        """Count one answered request whose parts ran apart, and the runs that they led. `parts` are in the order in which they ended.

        Returns its stages: the wait until its first part ran, and its time in the runs that it led, or else in the longest that it was in.
        """
        if len(parts) == 1:
            self.succeeded(begin_ns, end_ns, parts[0])
            return parts[0]
        led = [part for part in parts if part.leader]
        for part in led:
            size = part.batch_size
            record = self._records[c.place(size)] or self._open(size)
            record.count += 1
            record.rows += part.rows
            record.infer += part.infer_ns
            record.input += part.input_ns
            record.output += part.output_ns
            self._write(record, end_ns)
            self._add(self._compute, self._compute_at, part.infer_ns)
        ran = led or [max(parts, key=lambda part: part.infer_ns)]
        rows = sum(part.rows for part in parts)
        stages = Timings(
            queue_ns=parts[0].queue_ns,
            input_ns=sum(part.input_ns for part in ran),
            infer_ns=sum(part.infer_ns for part in ran),
            output_ns=sum(part.output_ns for part in ran),
            rows=rows,
        )
        rest = self._followers
        rest.took += end_ns - begin_ns
        rest.rows += rows - sum(part.rows for part in led)
        rest.waited += stages.queue_ns
        if not led:
            rest.infer += stages.infer_ns
            rest.input += stages.input_ns
            rest.output += stages.output_ns
        self._write(rest, end_ns)
        if stages.queue_ns > _FIRST_NS:
            self._add(self._queue, self._queue_at, stages.queue_ns)
        self._add(self._request, self._request_at, end_ns - begin_ns)
        return stages

    def failed(self, kind: Kind, took_ns: int) -> None:
        """Count one request that was not answered."""
        i = _KIND_INDEX[kind]
        self._failures[i] = n = self._failures[i] + 1
        self._failed_ns += took_ns
        words = self._words
        words[self._slot + c.FAILURES + i] = n
        words[self._slot + c.FAIL_NS] = self._failed_ns

    def tally(self, what: Tally) -> None:
        """Count one more of a model as a whole."""
        self._words[self._slot + c.TALLIES + _TALLY_INDEX[what]] += 1

    def show(self, gauge: Gauge | None) -> None:
        """Write what is pending and ready; None when nothing is known any more."""
        self._words[self._slot + c.PENDING] = 0 if gauge is None else gauge.pending
        self._words[self._slot + c.READY] = 0 if gauge is None else 1 + gauge.ready

    def _write(self, record: _Record, end_ns: int) -> None:
        r = record
        _pack_waited(self._memory, r.at, r.count, r.took, r.rows, r.infer, end_ns, r.waited, r.input, r.output)

    def _add(self, bins: list[int], at: int, ns: int) -> None:
        """One more in the bin of a histogram."""
        i = bisect_left(BOUNDS_NS, ns)
        bins[i] = n = bins[i] + 1
        self._words[at + i] = n

    def _open(self, size: int) -> _Record:
        index = c.place(size)
        record = self._records[index] = _Record((self._slot + c.RECORDS + index * c.RECORD_WORDS) * 8)
        return record


class Meters:
    """The meters of this worker, and the sums over all workers of this server.

    `directory` is the server's own and the same for all its workers; None keeps the counters to this process. `worker` is a number that no
    other worker of this server has or had. Without the room for a new file, counts stay in this process, and a warning says so.
    """

    def __init__(self, directory: Path | None = None, worker: int = 0, *, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._directory = directory
        self._worker = worker
        self._clock = clock
        self._meters: dict[c.Key, Meter] = {}
        self._shown: dict[tuple[str, str], Meter] = {}
        self._segments: list[c.Segment] = []
        self._private: list[c.Segment] = []
        self._grow()

    def open(self, model: str, version: str, dialect: str) -> Meter:
        """The meter of one (model, version, dialect); the same one each time, also after a reload."""
        key = (model, version, dialect)
        meter = self._meters.get(key)
        if meter is None:
            if len(self._meters) >= MOST_METERS and model != OTHER:
                return self.open(OTHER, "", dialect)
            if self._segments[-1].full:
                self._grow()
            segment = self._segments[-1]
            meter = self._meters[key] = Meter(segment.memory, segment.words, segment.add(key))
        return meter

    def touch(self, model: str, version: str) -> None:
        """Make rows of zeros for a version that was loaded, so that its first request is seen as an increase."""
        self.open(model, version, "")

    def tally(self, model: str, what: Tally) -> None:
        """Count something of a model as a whole that is no request."""
        self.open(model, "", "").tally(what)

    def refresh(self, gauges: Iterable[Gauge], vitals: Vitals = NO_VITALS) -> None:
        """Show what this worker has at this moment. To be called every second: a worker that does not is taken for dead."""
        before, self._shown = self._shown, {}
        for gauge in gauges:
            meter = self.open(gauge.model, gauge.version, "")
            meter.show(gauge)
            self._shown[gauge.model, gauge.version] = meter
        for key, meter in before.items():
            if key not in self._shown:
                meter.show(None)
        self._beat(self._clock(), vitals)

    def totals(self, name: str = "", version: str = "") -> list[Total]:
        """The sums over all workers and dialects, one per model version, of all models or one, all versions or one."""
        return list(self.read(name, version).by_version)

    def read(self, name: str = "", version: str = "") -> Reading:
        """Everything that all workers have counted. Reads files; may be called from any thread."""
        return add_up(self._images(), self._clock() - LIVE_NS, name, version)

    def close(self) -> None:
        """This worker ends: its gauges go, its counts stay."""
        self._beat(0, NO_VITALS)

    def _beat(self, now_ns: int, vitals: Vitals) -> None:
        for segment in self._segments:
            segment.beat(now_ns, vitals)

    def _grow(self) -> None:
        directory = self._directory
        try:
            segment = c.Segment(directory, self._worker, len(self._segments))
        except OSError as error:
            log.warning("counters cannot be shared with other workers: %s", error.strerror)
            directory = None
            segment = c.Segment(None, self._worker, len(self._segments))
        if directory is None:
            self._private.append(segment)
        self._segments.append(segment)

    def _images(self) -> Iterator[c.Image]:
        if self._directory is not None:
            yield from c.images(self._directory)
        for segment in list(self._private):
            image = segment.image()
            if image is not None:
                yield image


__all__ = ["BOUNDS_NS", "MOST_METERS", "OTHER", "Gauge", "Meter", "Meters", "Reading", "Tally", "Total", "Vitals"]
