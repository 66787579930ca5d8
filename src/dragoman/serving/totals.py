"""What the counters say once they are summed: typed, for statistics and metrics. Made from copies of all segments by serving/meters.py."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from dragoman.core.errors import Kind
from dragoman.serving import counters as c


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of one batch size. Above 64, sizes share a row per power of two, named by the largest that it holds."""

    size: int
    count: int
    input_ns: int
    infer_ns: int
    output_ns: int


@dataclass(frozen=True, slots=True)
class Total:
    """Everything counted of one model version, in one dialect or (dialect "") in all.

    Times and counts are of requests that were answered, but for `failures` and `failed_ns`. `inferences` are rows, `executions` runs of the
    model. The bins of `request`, `queue` and `compute` go with BOUNDS_NS, the last one is everything above; `compute` counts runs, the
    other two requests. `last_ms` is since 1970, 0 for never.
    """

    model: str
    version: str
    dialect: str
    success: int
    success_ns: int
    failures: Mapping[Kind, int]
    failed_ns: int
    inferences: int
    executions: int
    queue_ns: int
    input_ns: int
    infer_ns: int
    output_ns: int
    last_ms: int
    runs: tuple[Runs, ...]
    request: tuple[int, ...]
    queue: tuple[int, ...]
    compute: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Gauge:
    """One model version at this moment. Of one worker, or of all: then `pending` is the sum, and ready is what is ready in each."""

    model: str
    version: str
    pending: int
    ready: bool


@dataclass(frozen=True, slots=True)
class WorkerVitals:
    """One live worker process."""

    worker: int
    started_s: float
    vitals: c.Vitals


@dataclass(frozen=True, slots=True)
class Reading:
    """All that is counted, at one moment: per dialect, per version, and what lives."""

    by_dialect: tuple[Total, ...]
    by_version: tuple[Total, ...]
    gauges: tuple[Gauge, ...]
    workers: tuple[WorkerVitals, ...]
    tallies: Mapping[str, Mapping[c.Tally, int]]
    """By model."""


class _Sum:
    """The words of several slots added up, but for the moments of the last request, of which the latest counts."""

    __slots__ = ("last_ns", "words")

    def __init__(self) -> None:
        self.words = np.zeros(c.SLOT_WORDS, np.int64)
        self.last_ns = 0

    def add(self, words: c.Words, epoch_ns: int) -> None:
        self.words += words
        last = int(words[c.RECORDS + c.LAST :: c.RECORD_WORDS].max())
        if last:
            self.last_ns = max(self.last_ns, last + epoch_ns)

    def total(self, key: c.Key) -> Total:
        words = self.words
        records = words[c.RECORDS : c.RECORDS + (c.SIZES + 1) * c.RECORD_WORDS].reshape(c.SIZES + 1, c.RECORD_WORDS)
        everyone = records.sum(axis=0).tolist()
        runs = tuple(
            Runs(c.size_at(index), count, row[c.INPUT], row[c.INFER], row[c.OUTPUT])
            for index, row in enumerate(records[: c.SIZES].tolist())
            if (count := row[c.COUNT])
        )
        request = words[c.REQUEST : c.REQUEST + c.BINS].tolist()
        success = sum(request)  # not of the records: one request may have led several runs
        queue = words[c.QUEUE : c.QUEUE + c.BINS].tolist()
        # Waits up to the first bound are not counted one by one: they are whoever is in no other bin. A request that is being written right
        # now may be in one place and not yet in the other.
        queue[0] = max(0, success - sum(queue))
        return Total(
            model=key[0],
            version=key[1],
            dialect=key[2],
            success=success,
            success_ns=everyone[c.TOOK],
            failures={kind: n for kind, n in zip(c.KINDS, words[c.FAILURES : c.FAILURES + len(c.KINDS)].tolist(), strict=True) if n},
            failed_ns=int(words[c.FAIL_NS]),
            inferences=everyone[c.ROWS],
            executions=sum(r.count for r in runs),
            queue_ns=everyone[c.WAITED],
            input_ns=everyone[c.INPUT],
            infer_ns=everyone[c.INFER],
            output_ns=everyone[c.OUTPUT],
            last_ms=self.last_ns // 1_000_000,
            runs=runs,
            request=tuple(request),
            queue=tuple(queue),
            compute=tuple(words[c.COMPUTE : c.COMPUTE + c.BINS].tolist()),
        )


def add_up(images: Iterable[c.Image], live_since_ns: int, name: str = "", version: str = "") -> Reading:
    """Sum the segments of all workers, optionally of one model or version only.

    Workers that were not seen since `live_since_ns` (monotonic) count with what they had counted, but not for gauges.
    """
    by_dialect: dict[c.Key, _Sum] = {}
    by_version: dict[c.Key, _Sum] = {}
    gauges: dict[tuple[str, str], Gauge] = {}
    workers: dict[int, WorkerVitals] = {}
    tallies: dict[str, c.Words] = {}
    for image in images:
        live = image.seen_ns > live_since_ns
        if live and image.index == 0:
            workers[image.worker] = WorkerVitals(image.worker, image.started_ns / 1e9, image.vitals)
        for key, words in image.slots:
            if (name and key[0] != name) or (version and key[1] != version):
                continue
            if key[1] or key[2]:  # a target that failed before its versions were known has a gauge and nothing to count
                by_version.setdefault((key[0], key[1], ""), _Sum()).add(words, image.epoch_ns)
            elif (counted := words[c.TALLIES : c.TALLIES + len(c.Tally)]).any():
                tallies[key[0]] = tallies.get(key[0], 0) + counted
            if key[2]:
                by_dialect.setdefault(key, _Sum()).add(words, image.epoch_ns)
            elif live and words[c.READY]:
                gauge = Gauge(key[0], key[1], int(words[c.PENDING]), words[c.READY] == 2)
                known = gauges.get((key[0], key[1]))
                gauges[key[0], key[1]] = gauge if known is None else _joined(known, gauge)
    return Reading(
        tuple(by_dialect[key].total(key) for key in sorted(by_dialect)),
        tuple(by_version[key].total(key) for key in sorted(by_version)),
        tuple(gauges[key] for key in sorted(gauges)),
        tuple(workers[number] for number in sorted(workers)),
        {model: dict(zip(c.Tally, tallies[model].tolist(), strict=True)) for model in sorted(tallies)},
    )


def _joined(one: Gauge, other: Gauge) -> Gauge:
    return Gauge(one.model, one.version, one.pending + other.pending, one.ready and other.ready)
