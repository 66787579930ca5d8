"""The metrics page: three systems' names over the same counters, each consistent, each explained in the documentation."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from dragoman.core.errors import Kind
from dragoman.core.jobs import Phase
from dragoman.core.model import Timings
from dragoman.server.metrics import exposition
from dragoman.server.vitals import Memory
from dragoman.serving.counters import ROUND_NS, TFSERVING_NS
from dragoman.serving.jobs.metering import Metering
from dragoman.serving.meters import Gauge, Meters, Vitals

DOCS = Path(__file__).parents[2] / "docs" / "operations.md"
NS = st.integers(0, 2 * 10**12)


_JOBS = Metering({Phase.RUNNING: 2, Phase.FAILED: 1}, seconds=30.5, calls=7, waiting=3, memory=4096)


class Page:
    """A page as an independent parser reads it."""

    def __init__(self, meters: Meters, utilization: float | None = None, memory: Memory | None = None) -> None:
        self.text = exposition(meters.read(), "9.9", utilization, memory, {"iris": (2, 1)}, jobs=_JOBS).decode()
        self.families = {family.name: family for family in text_string_to_metric_families(self.text)}
        # The parser gives every counter the ending that OpenMetrics asks for; Triton's and TensorFlow Serving's have none.
        written = names(self.text.splitlines())
        self.samples = [
            sample._replace(name=sample.name.removesuffix("_total")) if sample.name.removesuffix("_total") in written else sample
            for family in self.families.values()
            for sample in family.samples
        ]

    def value(self, name: str, **labels: str) -> float:
        (value,) = [s.value for s in self.samples if s.name == name and s.labels == labels]
        return value

    def rows(self, name: str) -> list[dict[str, str]]:
        return [s.labels for s in self.samples if s.name == name]

    def buckets(self, name: str, **labels: str) -> list[tuple[str, float]]:
        return [
            (s.labels["le"], s.value)
            for s in self.samples
            if s.name == f"{name}_bucket" and {k: v for k, v in s.labels.items() if k != "le"} == labels
        ]


def busy() -> Meters:
    """A server that has seen something of everything."""
    meters = Meters()
    meters.refresh([Gauge("iris", "1", 3, True), Gauge("iris", "2", 0, True), Gauge("broken", "", 0, False)], Vitals(1 << 20, 5 * 10**8))
    for model, version, dialect in (("iris", "1", "v2"), ("iris", "1", "tfserving"), ("iris", "2", "tfserving"), ("other", "1", "v2")):
        meter = meters.open(model, version, dialect)
        for position in range(4):
            meter.succeeded(0, 20_000_000, Timings(1_000_000, 2_000, 3_000_000, 4_000, batch_size=4, leader=not position, rows=1))
        for kind in Kind:
            meter.failed(kind, 1_000)
    return meters


@pytest.fixture(name="page", scope="module")
def _page() -> Page:
    return Page(busy(), 0.25, Memory(1000, 400))


def test_requests_are_counted_by_outcome(page: Page) -> None:
    """One row per dialect and outcome that happened."""
    labels = {"model": "iris", "version": "1", "dialect": "v2"}
    assert page.value("dragoman_requests_total", **labels, outcome="success") == 4
    for kind in Kind:
        assert page.value("dragoman_requests_total", **labels, outcome=kind.value) == 1


def test_our_histograms_are_in_seconds(page: Page) -> None:
    """Sums and counts are those of the requests, and of the runs for compute."""
    labels = {"model": "iris", "version": "1", "dialect": "v2"}
    assert page.value("dragoman_request_duration_seconds_sum", **labels) == 0.08
    assert page.value("dragoman_request_duration_seconds_count", **labels) == 4
    assert page.value("dragoman_queue_duration_seconds_sum", **labels) == 0.004
    assert page.value("dragoman_compute_duration_seconds_sum", **labels) == 0.003
    assert page.value("dragoman_compute_duration_seconds_count", **labels) == 1
    assert dict(page.buckets("dragoman_request_duration_seconds", **labels)) == {
        **{repr(b / 1e9): 4.0 if b >= 20_000_000 else 0.0 for b in ROUND_NS}, "+Inf": 4.0,
    }  # fmt: skip


def test_batch_sizes_are_per_run(page: Page) -> None:
    """Two dialects ran batches of four rows; the rows add up."""
    labels = {"model": "iris", "version": "1"}
    buckets = dict(page.buckets("dragoman_batch_size", **labels))
    assert (buckets["2"], buckets["4"], buckets["+Inf"]) == (0, 2, 2)
    assert page.value("dragoman_batch_size_sum", **labels) == 8


def test_gauges_and_workers(page: Page) -> None:
    """What is pending, what is ready, and which workers there are."""
    assert page.value("dragoman_pending_requests", model="iris", version="1") == 3
    assert page.value("dragoman_model_ready", model="iris", version="2") == 1
    assert page.value("dragoman_model_ready", model="broken", version="") == 0
    assert page.value("dragoman_workers") == 1
    assert page.value("dragoman_worker_memory_bytes", worker="0") == 1 << 20
    assert page.value("dragoman_worker_cpu_seconds_total", worker="0") == 0.5
    (build,) = page.rows("dragoman_build_info")
    assert build["version"] == "9.9"


def test_tritons_names_have_tritons_labels_and_units(page: Page) -> None:
    """Dialects are one, durations are microseconds, failures have reasons."""
    labels = {"model": "iris", "version": "1"}
    expected = {
        "nv_inference_request_success": 8, "nv_inference_count": 8, "nv_inference_exec_count": 2,
        "nv_inference_request_duration_us": 160_000, "nv_inference_queue_duration_us": 8_000,
        "nv_inference_compute_input_duration_us": 16, "nv_inference_compute_infer_duration_us": 24_000,
        "nv_inference_compute_output_duration_us": 32, "nv_inference_pending_request_count": 3,
    }  # fmt: skip
    assert {name: page.value(name, **labels) for name in expected} == expected
    reasons = {r: page.value("nv_inference_request_failure", **labels, reason=r) for r in ("REJECTED", "CANCELED", "BACKEND", "OTHER")}
    assert reasons == {"REJECTED": 4, "CANCELED": 2, "BACKEND": 2, "OTHER": 2 * (len(Kind) - 4)}
    assert page.value("nv_cpu_utilization") == 0.25
    assert (page.value("nv_cpu_memory_total_bytes"), page.value("nv_cpu_memory_used_bytes")) == (1000, 400)


def test_tfservings_names_are_of_its_dialect_only(page: Page) -> None:
    """Versions are one, statuses canonical, times microseconds; requests of other dialects are not in them."""
    assert page.value(":tensorflow:serving:request_count", model_name="iris", status="OK") == 8
    assert page.value(":tensorflow:serving:request_count", model_name="iris", status="INVALID_ARGUMENT") == 2
    statuses = [row for row in page.rows(":tensorflow:serving:request_count") if row["model_name"] == "iris"]
    assert sum(page.value(":tensorflow:serving:request_count", **row) for row in statuses) == 8 + 2 * len(Kind)
    latency = {"model_name": "iris", "API": "predict", "entrypoint": "REST"}
    assert page.value(":tensorflow:serving:request_latency_count", **latency) == 8
    assert page.value(":tensorflow:serving:request_latency_sum", **latency) == 160_000
    runtime = {"model_name": "iris", "API": "predict", "runtime": "dragoman"}
    assert page.value(":tensorflow:serving:runtime_latency_count", **runtime) == 2
    assert page.value(":tensorflow:serving:runtime_latency_sum", **runtime) == 6_000
    assert {row["model_name"] for row in page.rows(":tensorflow:serving:request_latency_count")} == {"iris"}


def test_tfservings_calls_have_their_own_rows() -> None:
    """Each call of either door has its name and entrypoint; a model's requests are counted together."""
    meters = Meters()
    for dialect in ("tfserving", "tfserving-classify", "tfserving-regress", "tfserving-grpc", "tfserving-grpc-multi"):
        meters.open("m", "1", dialect).succeeded(0, 1_000, Timings())
    page = Page(meters)
    assert page.value(":tensorflow:serving:request_count", model_name="m", status="OK") == 5
    rows = {(row["API"], row["entrypoint"]) for row in page.rows(":tensorflow:serving:request_latency_count")}
    assert rows == {("predict", "REST"), ("classify", "REST"), ("regress", "REST"), ("Predict", "GRPC"), ("MultiInference", "GRPC")}


@given(st.lists(NS, max_size=30))
def test_tfservings_buckets_are_exact(times: list[int]) -> None:
    """Each of the 33 buckets holds exactly the requests that its bound says, whatever they took."""
    meters = Meters()
    for took in times:
        meters.open("m", "1", "tfserving").succeeded(0, took, Timings())
    buckets = Page(meters).buckets(":tensorflow:serving:request_latency", model_name="m", API="predict", entrypoint="REST")
    expected: list[float] = [sum(took <= bound for took in times) for bound in TFSERVING_NS]
    assert [count for _, count in buckets] == ([*expected, len(times)] if times else [])


def test_tfservings_bounds_grow_by_four_fifths() -> None:
    """The labels are 10 x 1.8^n microseconds, to six digits as that server prints them."""
    meters = Meters()
    meters.open("m", "1", "tfserving").succeeded(0, 1, Timings())
    bounds = [le for le, _ in Page(meters).buckets(":tensorflow:serving:request_latency", model_name="m", API="predict", entrypoint="REST")]
    assert bounds[:6] == ["10", "18", "32.4", "58.32", "104.976", "188.957"]
    assert [float(le) for le in bounds[:-1]] == pytest.approx([10 * 1.8**n for n in range(33)], rel=1e-5)
    assert bounds[-1] == "+Inf"


@given(st.lists(st.tuples(NS, NS, NS, st.booleans(), st.integers(0, 5000)), max_size=20))
def test_histograms_are_consistent(requests: list[tuple[int, int, int, bool, int]]) -> None:
    """Buckets never fall, and the last one is the count, in every histogram of the page."""
    meters = Meters()
    for took, waited, ran, leader, size in requests:
        for dialect in ("v2", "tfserving"):
            meters.open("m", "1", dialect).succeeded(0, took, Timings(waited, 0, ran, 0, size, leader, size))
    page = Page(meters)
    for family in page.families.values():
        if family.type != "histogram":
            continue
        for row in page.rows(f"{family.name}_count"):
            counts = [count for _, count in page.buckets(family.name, **row)]
            assert counts == sorted(counts)
            assert counts[-1] == page.value(f"{family.name}_count", **row)


def test_a_loaded_model_has_zeros() -> None:
    """Before the first request, Triton's counters are there with value 0, so that a dashboard sees the first increase."""
    meters = Meters()
    meters.touch("m", "1")
    page = Page(meters)
    for name in ("nv_inference_request_success", "nv_inference_count", "nv_inference_exec_count"):
        assert page.value(name, model="m", version="1") == 0
    assert page.value("nv_inference_request_failure", model="m", version="1", reason="OTHER") == 0
    assert page.value("dragoman_batch_size_count", model="m", version="1") == 0


def test_an_empty_server_has_a_valid_page() -> None:
    """Without models and where the machine is unknown, rows are missing, and the page still parses."""
    page = Page(Meters())
    assert page.value("dragoman_workers") == 1
    assert "nv_cpu_utilization" not in page.families
    assert "nv_cpu_memory_total_bytes" not in page.families
    assert page.rows("dragoman_requests_total") == []


def test_labels_of_hostile_names_are_escaped() -> None:
    """A model may be called almost anything."""
    meters = Meters()
    name = 'a"b\\c{d}=\U0001f600'
    meters.open(name, "1", "v2").succeeded(0, 1, Timings())
    assert Page(meters).value("dragoman_requests_total", model=name, version="1", dialect="v2", outcome="success") == 1


def names(lines: Iterable[str]) -> set[str]:
    return {line.split()[2] for line in lines if line.startswith("# TYPE ")}


def test_jobs_are_counted_by_phase(page: Page) -> None:
    """Every phase has a row, so that an alert on one that never was is no mistake; seconds and calls are of all jobs together."""
    assert {
        row["phase"]: page.value("dragoman_jobs", **row) for row in page.rows("dragoman_jobs") if page.value("dragoman_jobs", **row)
    } == {
        "running": 2,
        "failed": 1,
    }
    assert len(page.rows("dragoman_jobs")) == len(Phase)
    assert page.value("dragoman_job_running_seconds_total") == 30.5
    assert page.value("dragoman_job_calls_total") == 7
    assert page.value("dragoman_job_waiting_requests") == 3
    assert page.value("dragoman_job_memory_bytes") == 4096


def test_every_metric_is_documented(page: Page) -> None:
    """Each name of the page is in docs/operations.md, and each name in its table is on the page."""
    served = names(page.text.splitlines())
    documented = set(re.findall(r"^\| `((?:dragoman_|nv_|:tensorflow)[a-z_:]*)", DOCS.read_text("utf-8"), re.MULTILINE))
    assert served == documented


def test_every_family_has_a_help_text_and_a_type(page: Page) -> None:
    """Nothing is exposed without saying what it is."""
    for family in page.families.values():
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
