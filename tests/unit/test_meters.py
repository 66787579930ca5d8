"""Meters: sums are what was recorded, whoever recorded it, and they outlive their worker; gauges do not."""

import json
import signal
import subprocess
import sys
from bisect import bisect_left
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind
from dragoman.core.model import Timings
from dragoman.serving import meters as meters_module
from dragoman.serving.counters import BOUNDS_NS, SLOTS, place, size_at
from dragoman.serving.meters import LIVE_NS, MOST_METERS, OTHER, Gauge, Meters, Total, Vitals

NS = st.integers(0, 100 * 10**9)
TIMINGS = st.builds(Timings, st.just(0) | NS, NS, NS, NS, batch_size=st.integers(0, 300), leader=st.booleans(), rows=st.integers(0, 300))
SUCCESSES = st.lists(st.tuples(NS, TIMINGS), max_size=30)
FAILURES = st.lists(st.tuples(st.sampled_from(Kind), NS), max_size=10)
START_NS = 10**12


class Clock:
    """A monotonic clock that a test turns."""

    def __init__(self) -> None:
        self.now = START_NS

    def __call__(self) -> int:
        return self.now


def only(meters: Meters, name: str = "", version: str = "") -> Total:
    (total,) = meters.totals(name, version)
    return total


def of_dialect(meters: Meters, dialect: str) -> Total:
    (total,) = (t for t in meters.read().by_dialect if t.dialect == dialect)
    return total


def bins(times: list[int]) -> tuple[int, ...]:
    counted = Counter(bisect_left(BOUNDS_NS, ns) for ns in times)
    return tuple(counted[i] for i in range(len(BOUNDS_NS) + 1))


@given(SUCCESSES, FAILURES)
def test_sums_are_what_was_recorded(successes: list[tuple[int, Timings]], failures: list[tuple[Kind, int]]) -> None:
    """Every count, time and bin of a total follows from the requests, whatever they were."""
    meters = Meters()
    meter = meters.open("m", "1", "v2")
    for took, timings in successes:
        meter.succeeded(START_NS, START_NS + took, timings)
    for kind, took in failures:
        meter.failed(kind, took)
    total = only(meters)
    all_timings = [timings for _, timings in successes]
    leaders = [timings for timings in all_timings if timings.leader]
    assert (total.model, total.version, total.dialect) == ("m", "1", "")
    assert (total.success, total.success_ns) == (len(successes), sum(took for took, _ in successes))
    assert total.failures == Counter(kind for kind, _ in failures)
    assert total.failed_ns == sum(took for _, took in failures)
    assert total.inferences == sum(t.rows for t in all_timings)
    assert total.executions == len(leaders)
    for stage in ("queue_ns", "input_ns", "infer_ns", "output_ns"):
        assert getattr(total, stage) == sum(getattr(t, stage) for t in all_timings)
    assert total.request == bins([took for took, _ in successes])
    assert total.queue == bins([t.queue_ns for t in all_timings])
    assert total.compute == bins([t.infer_ns for t in leaders])
    assert {runs.size: runs.count for runs in total.runs} == Counter(size_at(place(t.batch_size)) for t in leaders)
    assert sum(runs.infer_ns for runs in total.runs) == sum(t.infer_ns for t in leaders)


@given(st.lists(st.tuples(NS, st.lists(TIMINGS, min_size=1, max_size=6)), max_size=10))
def test_requests_of_parts_add_up(requests: list[tuple[int, list[Timings]]]) -> None:
    """Each is one request, its rows are all rows, and the runs are those that its parts led."""
    meters = Meters()
    meter = meters.open("m", "1", "v2")
    stages = [meter.succeeded_in_parts(START_NS, START_NS + took, parts) for took, parts in requests]
    total = only(meters)
    led = [part for _, parts in requests for part in parts if part.leader]
    assert (total.success, total.success_ns) == (len(requests), sum(took for took, _ in requests))
    assert total.inferences == sum(part.rows for _, parts in requests for part in parts)
    assert total.executions == len(led)
    for stage in ("queue_ns", "input_ns", "infer_ns", "output_ns"):
        assert getattr(total, stage) == sum(getattr(t, stage) for t in stages)
    assert total.request == bins([took for took, _ in requests])
    assert total.queue == bins([parts[0].queue_ns for _, parts in requests])
    assert total.compute == bins([part.infer_ns for part in led])
    assert sum(runs.infer_ns for runs in total.runs) == sum(part.infer_ns for part in led)


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["1", "2"]), st.sampled_from(["v2", "tfserving"]), NS), max_size=40))
def test_rows_are_kept_apart_and_added_up(requests: list[tuple[str, str, str, int]]) -> None:
    """Each (model, version, dialect) has its own row, and the rows of a version add up to the version's."""
    meters = Meters()
    for model, version, dialect, took in requests:
        meters.open(model, version, dialect).succeeded(0, took, Timings())
    reading = meters.read()
    assert {(t.model, t.version, t.dialect): t.success for t in reading.by_dialect} == Counter(r[:3] for r in requests)
    assert {(t.model, t.version): t.success for t in reading.by_version} == Counter(r[:2] for r in requests)
    assert sum(t.success_ns for t in reading.by_version) == sum(r[3] for r in requests)


def test_one_meter_per_key() -> None:
    """Opening again, as after a reload, goes on with the same counts."""
    meters = Meters()
    assert meters.open("m", "1", "v2") is meters.open("m", "1", "v2")
    assert meters.open("m", "1", "v2") is not meters.open("m", "2", "v2")


def test_a_loaded_model_has_rows_of_zeros() -> None:
    """Before its first request a version is there, with nothing in it."""
    meters = Meters()
    meters.touch("m", "1")
    total = only(meters)
    assert (total.success, total.executions, total.last_ms, total.runs, dict(total.failures)) == (0, 0, 0, (), {})
    assert not any(total.request)
    assert meters.read().by_dialect == ()


def test_totals_of_one_model_or_version() -> None:
    """Names and versions narrow what is summed."""
    meters = Meters()
    for model, version in (("a", "1"), ("a", "2"), ("b", "1")):
        meters.touch(model, version)
    assert [(t.model, t.version) for t in meters.totals()] == [("a", "1"), ("a", "2"), ("b", "1")]
    assert [t.version for t in meters.totals("a")] == ["1", "2"]
    assert only(meters, "a", "2").version == "2"
    assert meters.totals("c") == []


def test_members_of_a_batch_are_one_execution() -> None:
    """Three requests of one run: three successes, their rows, one execution of the whole size."""
    meters = Meters()
    meter = meters.open("m", "1", "v2")
    for position, rows in enumerate((1, 2, 5)):
        meter.succeeded(0, 900, Timings(100, 20, 300, 40, batch_size=8, leader=position == 0, rows=rows))
    total = only(meters)
    assert (total.success, total.inferences, total.executions) == (3, 8, 1)
    (runs,) = total.runs
    assert (runs.size, runs.count, runs.input_ns, runs.infer_ns, runs.output_ns) == (8, 1, 20, 300, 40)
    assert (total.infer_ns, sum(total.compute)) == (900, 1)


def test_the_last_inference_is_the_latest(tmp_path: Path) -> None:
    """Of all dialects and workers, in milliseconds since 1970."""
    one, other = Meters(tmp_path, 1), Meters(tmp_path, 2)
    one.open("m", "1", "v2").succeeded(0, 5_000_000_000, Timings())
    earlier = only(one).last_ms
    other.open("m", "1", "tfserving").succeeded(0, 9_000_000_000, Timings(1, 1, 1, 1, leader=False))
    later = only(one).last_ms
    assert abs(later - earlier - 4000) <= 1000  # each worker relates its clock to the calendar by itself
    one.open("m", "1", "v2").succeeded(0, 6_000_000_000, Timings())
    assert only(one).last_ms == only(other).last_ms == later


@given(SUCCESSES, SUCCESSES)
def test_workers_are_summed(
    tmp_path_factory: pytest.TempPathFactory, first: list[tuple[int, Timings]], second: list[tuple[int, Timings]]
) -> None:
    """Both workers give the same totals, and they are those of one worker that had all requests."""
    directory = tmp_path_factory.mktemp("run")
    alone = Meters()
    workers = [Meters(directory, number) for number in (1, 2)]
    for worker, requests in zip(workers, (first, second), strict=True):
        for took, timings in requests:
            for each in (worker, alone):
                each.open("m", "1", "v2").succeeded(START_NS, START_NS + took, timings)
    shared = [worker.read().by_dialect for worker in workers]
    assert shared[0] == shared[1]
    expected = alone.read().by_dialect
    assert [without_moment(t) for t in shared[0]] == [without_moment(t) for t in expected]


def without_moment(total: Total) -> dict[str, object]:
    fields = {name: getattr(total, name) for name in total.__slots__ if name != "last_ms"}
    return {**fields, "failures": dict(total.failures)}


WORKER = """
import json, sys
from pathlib import Path
from dragoman.core.errors import Kind
from dragoman.core.model import Timings
from dragoman.serving.meters import Meters

meters = Meters(Path(sys.argv[1]), int(sys.argv[2]))
meter = meters.open("m", "1", "v2")
for line in sys.stdin:
    for _ in range(int(line)):
        meter.succeeded(0, 1_000, Timings(rows=2))
    meter.failed(Kind.OVERLOADED, 5)
    total = meters.totals("m", "1")[0]
    print(json.dumps([total.success, total.inferences, total.failures[Kind.OVERLOADED]]), flush=True)
"""


def test_processes_see_each_others_counts_and_outlive_each_other(tmp_path: Path) -> None:
    """Two worker processes and this one agree at any time; a worker that is killed leaves its counts, and its successor adds to them."""
    src = str(Path(meters_module.__file__).parents[2])

    def start(number: int) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": src},
        )  # fmt: skip

    def tell(process: "subprocess.Popen[str]", count: int) -> list[int]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{count}\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())  # type: ignore[no-any-return]

    with start(1) as one, start(2) as two:
        try:
            assert tell(one, 10) == [10, 20, 1]
            assert tell(two, 5) == [15, 30, 2]
            assert tell(one, 0) == [15, 30, 3]
            one.kill()
            assert one.wait() == -signal.SIGKILL
            assert tell(two, 1) == [16, 32, 4]
            with start(3) as three:
                assert tell(three, 100) == [116, 232, 5]
                three.kill()
            total = only(Meters(tmp_path, 4))
            assert (total.success, total.failures) == (116, {Kind.OVERLOADED: 5})
        finally:
            one.kill()
            two.kill()


def test_gauges_are_summed_over_workers(tmp_path: Path) -> None:
    """Pending requests add up; ready is what every worker that knows the version has ready."""
    clock = Clock()
    one, other = Meters(tmp_path, 1, clock=clock), Meters(tmp_path, 2, clock=clock)
    one.refresh([Gauge("a", "1", 2, True), Gauge("b", "1", 1, True)])
    other.refresh([Gauge("a", "1", 3, True), Gauge("b", "1", 0, False)])
    assert one.read().gauges == other.read().gauges == (Gauge("a", "1", 5, True), Gauge("b", "1", 1, False))


def test_the_gauges_of_a_dead_worker_go(tmp_path: Path) -> None:
    """A worker that has not been seen for a while counts no longer as one, but what it counted stays."""
    clock = Clock()
    dead, alive = Meters(tmp_path, 1, clock=clock), Meters(tmp_path, 2, clock=clock)
    dead.refresh([Gauge("m", "1", 7, False)], Vitals(1, 2))
    dead.open("m", "1", "v2").succeeded(0, 1, Timings())
    clock.now += LIVE_NS
    alive.refresh([Gauge("m", "1", 1, True)], Vitals(30, 40))
    reading = alive.read()
    assert reading.gauges == (Gauge("m", "1", 1, True),)
    assert [(w.worker, w.vitals) for w in reading.workers] == [(2, Vitals(30, 40))]
    assert reading.by_version[0].success == 1


def test_a_worker_that_ends_takes_its_gauges_along(tmp_path: Path) -> None:
    """After `close` there is no waiting for the time after which it would be taken for dead."""
    clock = Clock()
    ended, alive = Meters(tmp_path, 1, clock=clock), Meters(tmp_path, 2, clock=clock)
    ended.refresh([Gauge("m", "1", 7, True)])
    ended.close()
    alive.refresh([])
    assert alive.read().gauges == ()
    assert [w.worker for w in alive.read().workers] == [2]


def test_a_gauge_that_is_no_longer_known_goes() -> None:
    """A model that was forgotten has no gauge, and comes back with the next refresh that has it."""
    meters = Meters()
    meters.refresh([Gauge("m", "1", 1, True)])
    meters.refresh([])
    assert meters.read().gauges == ()
    meters.refresh([Gauge("m", "1", 0, False)])
    assert meters.read().gauges == (Gauge("m", "1", 0, False),)


def test_a_target_that_failed_has_a_gauge_and_no_counts() -> None:
    """Before its versions are known there is nothing to count."""
    meters = Meters()
    meters.refresh([Gauge("broken", "", 0, False)])
    assert meters.read().gauges == (Gauge("broken", "", 0, False),)
    assert meters.totals() == []


def test_workers_are_there_from_the_start(tmp_path: Path) -> None:
    """A worker counts as one before its first refresh."""
    one = Meters(tmp_path, 1)
    Meters(tmp_path, 2)
    assert [w.worker for w in one.read().workers] == [1, 2]


def test_more_models_than_one_file_holds(tmp_path: Path) -> None:
    """Another file is begun, and all of them are read."""
    meters = Meters(tmp_path, 1)
    for i in range(2 * SLOTS + 1):
        meters.open(f"m{i:04}", "1", "v2").succeeded(0, 1, Timings())
    assert len(list(tmp_path.glob("*.counters"))) == 3
    totals = Meters(tmp_path, 2).totals()
    assert [t.model for t in totals] == [f"m{i:04}" for i in range(2 * SLOTS + 1)]
    assert {t.success for t in totals} == {1}
    assert len(meters.read().workers) == 2


def test_the_number_of_rows_is_bounded() -> None:
    """Beyond the limit everything new shares one row, which no real model can be called."""
    meters = Meters()
    for i in range(MOST_METERS):
        meters.open(f"m{i}", "1", "v2")
    first, second = meters.open("late", "1", "v2"), meters.open("later", "7", "v2")
    assert first is second
    first.succeeded(0, 1, Timings())
    assert meters.open("m0", "1", "v2") is not first
    assert only(meters, OTHER).success == 1
    assert meters.totals("late") == []


def test_without_room_for_a_file_counts_stay_here(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A directory that cannot be written costs the sharing, not the counting, and is logged."""
    meters = Meters(tmp_path / "missing", 1)
    meters.open("m", "1", "v2").succeeded(0, 1, Timings())
    assert only(meters).success == 1
    assert "cannot be shared" in caplog.text


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_of_failure_is_counted_as_itself(kind: Kind) -> None:
    """No kind is folded into another, or forgotten when a new one comes."""
    meters = Meters()
    meters.open("m", "1", "v2").failed(kind, 3)
    total = of_dialect(meters, "v2")
    assert dict(total.failures) == {kind: 1}
    assert (total.failed_ns, total.success) == (3, 0)
