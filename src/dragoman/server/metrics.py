"""What the metrics page says: our own names, then those where Triton's and TensorFlow Serving's dashboards look. Called by server/telemetry.py.

Rows are only of models that were loaded, so what clients ask for cannot add any. Every name is explained in docs/operations.md.
"""

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeAlias

from dragoman.core.errors import Kind
from dragoman.server.exposition import Exposition, summed
from dragoman.server.job_metrics import add_jobs
from dragoman.server.vitals import Memory
from dragoman.serving.counters import BOUNDS_NS, ROUND_NS, TFSERVING_NS, Tally
from dragoman.serving.jobs.metering import Metering
from dragoman.serving.totals import Reading, Runs, Total

_ROUND_AT = [BOUNDS_NS.index(bound) for bound in ROUND_NS]
_ROUND_LE = [repr(bound / 1e9) for bound in ROUND_NS]
_TFSERVING_AT = [BOUNDS_NS.index(bound) for bound in TFSERVING_NS]
_TFSERVING_LE = [f"{10 * 9**n / 5**n:.6g}" for n in range(len(TFSERVING_NS))]
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

_REASONS: Mapping[Kind, str] = {
    Kind.OVERLOADED: "REJECTED",
    Kind.TIMEOUT: "REJECTED",
    Kind.CANCELLED: "CANCELED",
    Kind.MODEL_FAILED: "BACKEND",
}
"""Triton's words; all other kinds are OTHER."""
_CANONICAL: Mapping[Kind, str] = {
    Kind.INVALID_INPUT: "INVALID_ARGUMENT",
    Kind.NOT_FOUND: "NOT_FOUND",
    Kind.NOT_READY: "UNAVAILABLE",
    Kind.CONFLICT: "FAILED_PRECONDITION",
    Kind.OVERLOADED: "UNAVAILABLE",
    Kind.TIMEOUT: "DEADLINE_EXCEEDED",
    Kind.CANCELLED: "CANCELLED",
    Kind.MODEL_FAILED: "INTERNAL",
    Kind.UNSUPPORTED: "UNIMPLEMENTED",
    Kind.UNAVAILABLE: "UNAVAILABLE",
    Kind.TOO_LARGE: "RESOURCE_EXHAUSTED",
    Kind.UNAUTHENTICATED: "UNAUTHENTICATED",
    Kind.FORBIDDEN: "PERMISSION_DENIED",
    Kind.INTERNAL: "INTERNAL",
}
"""TensorFlow Serving's statuses."""
_TFSERVING = {
    "tfserving": ("predict", "REST"),
    "tfserving-classify": ("classify", "REST"),
    "tfserving-regress": ("regress", "REST"),
    "tfserving-grpc": ("Predict", "GRPC"),
    "tfserving-grpc-classify": ("Classify", "GRPC"),
    "tfserving-grpc-regress": ("Regress", "GRPC"),
    "tfserving-grpc-multi": ("MultiInference", "GRPC"),
}
"""Dialect -> its API and entrypoint in TensorFlow Serving's labels. Only requests in its own dialects are in its metrics."""


_ENDINGS = (Tally.SUCCEEDED, Tally.FAILED, Tally.CANCELLED)

Unfinished: TypeAlias = Mapping[str, tuple[int, int]]
"""Model -> how many of its predictions wait, and how many run."""


def exposition(
    reading: Reading,
    version: str,
    utilization: float | None = None,
    memory: Memory | None = None,
    unfinished: Unfinished | None = None,
    streams: Iterable[Mapping[str, Any]] = (),
    jobs: Metering | None = None,
) -> bytes:
    """The whole page; what is None is not known and has no rows. Pure."""
    page = Exposition()
    _ours(page, reading, version)
    _predictions(page, reading, unfinished)
    _streams(page, list(streams))
    if jobs is not None:
        add_jobs(page, jobs)
    _tritons(page, reading, utilization, memory)
    _tfservings(page, reading)
    return page.text()


def _ours(page: Exposition, reading: Reading, version: str) -> None:
    page.family("dragoman_build_info", "gauge", "Always 1; what this server is.")
    page.sample(1, {"version": version, "python": platform.python_version()})
    page.family("dragoman_requests_total", "counter", "Requests that reached a model, by outcome: success, or the kind of failure.")
    for total in reading.by_dialect:
        page.sample(total.success, {**_dialect(total), "outcome": "success"})
        for kind, count in total.failures.items():
            page.sample(count, {**_dialect(total), "outcome": kind.value})
    page.family(
        "dragoman_request_duration_seconds", "histogram", "Time from the decoded request to its answer, of requests that succeeded."
    )
    for total in reading.by_dialect:
        page.histogram(_ROUND_LE, *summed([total.request], _ROUND_AT), total.success_ns / 1e9, _dialect(total))
    page.family("dragoman_queue_duration_seconds", "histogram", "Time that a request waited for the model, of requests that succeeded.")
    for total in reading.by_dialect:
        page.histogram(_ROUND_LE, *summed([total.queue], _ROUND_AT), total.queue_ns / 1e9, _dialect(total))
    page.family("dragoman_compute_duration_seconds", "histogram", "Time of one run of the model, which may answer several requests.")
    for total in reading.by_dialect:
        page.histogram(_ROUND_LE, *summed([total.compute], _ROUND_AT), _run_ns(total) / 1e9, _dialect(total))
    page.family("dragoman_batch_size", "histogram", "Rows of one run of the model.")
    for total in reading.by_version:
        below = [sum(runs.count for runs in total.runs if runs.size <= size) for size in _SIZES]
        page.histogram([str(size) for size in _SIZES], below, total.executions, total.inferences, _version(total))
    page.family("dragoman_pending_requests", "gauge", "Requests that wait for the model, in all workers.")
    for gauge in reading.gauges:
        page.sample(gauge.pending, {"model": gauge.model, "version": gauge.version})
    page.family("dragoman_model_ready", "gauge", "1 when every worker that knows this version serves it, else 0.")
    for gauge in reading.gauges:
        page.sample(int(gauge.ready), {"model": gauge.model, "version": gauge.version})
    page.family("dragoman_workers", "gauge", "Worker processes that are alive.")
    page.sample(len(reading.workers), {})
    page.family("dragoman_worker_start_time_seconds", "gauge", "When a worker started, since 1970.")
    for worker in reading.workers:
        page.sample(worker.started_s, {"worker": str(worker.worker)})
    page.family("dragoman_worker_cpu_seconds_total", "counter", "Processor time that a worker has used.")
    for worker in reading.workers:
        page.sample(worker.vitals.cpu_ns / 1e9, {"worker": str(worker.worker)})
    page.family("dragoman_worker_memory_bytes", "gauge", "Resident memory of a worker.")
    for worker in reading.workers:
        if worker.vitals.memory_bytes:
            page.sample(worker.vitals.memory_bytes, {"worker": str(worker.worker)})


def _streams(page: Exposition, streams: Sequence[Mapping[str, Any]]) -> None:
    """Of streams in all workers, under their addresses without secrets."""
    page.family("dragoman_stream_messages_total", "counter", "Messages of a stream whose answers are written, by outcome.")
    for each in streams:
        page.sample(each["answered"] - each["failed"], {"stream": each["stream"], "outcome": "success"})
        page.sample(each["failed"], {"stream": each["stream"], "outcome": "error"})
    page.family("dragoman_stream_abandoned_total", "counter", "Messages of a stream that were given up unanswered, and come again.")
    for each in streams:
        page.sample(each["abandoned"], {"stream": each["stream"]})
    page.family("dragoman_stream_in_flight", "gauge", "Messages of a stream that are being answered.")
    for each in streams:
        page.sample(each["in_flight"], {"stream": each["stream"]})
    page.family("dragoman_stream_running", "gauge", "1 when a stream runs in every worker that has it, else 0.")
    for each in streams:
        page.sample(int(each["state"] == "running"), {"stream": each["stream"]})
    page.family(
        "dragoman_stream_lag", "gauge", "Messages that wait at the broker, by partition or shard; without a row where it is not known."
    )
    for each in streams:
        for lane, lag in sorted(each["lag"].items()):
            if lag is not None:
                page.sample(lag, {"stream": each["stream"], "lane": lane})


def _predictions(page: Exposition, reading: Reading, unfinished: Unfinished | None) -> None:
    """Of models as a whole. Every model that was loaded has its rows, with zeros."""
    models = sorted({total.model for total in reading.by_version} | reading.tallies.keys() | (unfinished or {}).keys())
    if unfinished is not None:
        page.family("dragoman_predictions", "gauge", "Asynchronous predictions that have not ended, in all workers.")
        for model in models:
            waiting, running = unfinished.get(model, (0, 0))
            page.sample(waiting, {"model": model, "state": "waiting"})
            page.sample(running, {"model": model, "state": "running"})
    nothing: Mapping[Tally, int] = {}
    page.family("dragoman_predictions_ended_total", "counter", "Asynchronous predictions that have ended, by how.")
    for model in models:
        for ending in _ENDINGS:
            page.sample(reading.tallies.get(model, nothing).get(ending, 0), {"model": model, "outcome": ending.value})
    page.family("dragoman_model_process_restarts_total", "counter", "Model processes that were started in the place of one that died.")
    for model in models:
        page.sample(reading.tallies.get(model, nothing).get(Tally.RESTARTS, 0), {"model": model})
    page.family("dragoman_records_total", "counter", "Tracking records of requests that arrived where they were to go.")
    for model in models:
        page.sample(reading.tallies.get(model, nothing).get(Tally.RECORDED, 0), {"model": model})
    page.family("dragoman_records_dropped_total", "counter", "Tracking records that were dropped: no room, or nobody took them.")
    for model in models:
        page.sample(reading.tallies.get(model, nothing).get(Tally.UNRECORDED, 0), {"model": model})


def _tritons(page: Exposition, reading: Reading, utilization: float | None, memory: Memory | None) -> None:
    counters: list[tuple[str, str, Callable[[Total], int]]] = [
        ("nv_inference_request_success", "Number of requests that succeeded, all batch sizes.", lambda t: t.success),
        ("nv_inference_count", "Number of rows inferred.", lambda t: t.inferences),
        ("nv_inference_exec_count", "Number of runs of the model.", lambda t: t.executions),
        ("nv_inference_request_duration_us", "Time of requests, in microseconds.", lambda t: t.success_ns // 1000),
        ("nv_inference_queue_duration_us", "Time of requests in the queue, in microseconds.", lambda t: t.queue_ns // 1000),
        ("nv_inference_compute_input_duration_us", "Time of requests in joining inputs, in microseconds.", lambda t: t.input_ns // 1000),
        ("nv_inference_compute_infer_duration_us", "Time of requests in the model, in microseconds.", lambda t: t.infer_ns // 1000),
        (
            "nv_inference_compute_output_duration_us",
            "Time of requests in splitting outputs, in microseconds.",
            lambda t: t.output_ns // 1000,
        ),
    ]
    for name, about, value in counters:
        page.family(name, "counter", about)
        for total in reading.by_version:
            page.sample(value(total), _version(total))
    page.family("nv_inference_request_failure", "counter", "Number of requests that failed, by reason.")
    for total in reading.by_version:
        reasons = dict.fromkeys(("REJECTED", "CANCELED", "BACKEND", "OTHER"), 0)
        for kind, count in total.failures.items():
            reasons[_REASONS.get(kind, "OTHER")] += count
        for reason, count in reasons.items():
            page.sample(count, {**_version(total), "reason": reason})
    page.family("nv_inference_pending_request_count", "gauge", "Requests that wait for the model.")
    for gauge in reading.gauges:
        if gauge.version:
            page.sample(gauge.pending, {"model": gauge.model, "version": gauge.version})
    if utilization is not None:
        page.family("nv_cpu_utilization", "gauge", "How busy the processors of this machine are, 0 to 1.")
        page.sample(utilization, {})
    if memory is not None:
        page.family("nv_cpu_memory_total_bytes", "gauge", "Memory of this machine.")
        page.sample(memory.total_bytes, {})
        page.family("nv_cpu_memory_used_bytes", "gauge", "Memory of this machine that is in use.")
        page.sample(memory.used_bytes, {})


def _tfservings(page: Exposition, reading: Reading) -> None:
    """Its histograms have its own bounds, which the counters keep beside ours, so nothing is estimated."""
    groups = [
        (key, list(totals))
        for key, totals in groupby(
            sorted((t for t in reading.by_dialect if t.dialect in _TFSERVING), key=_tfserving_key), key=_tfserving_key
        )
    ]
    page.family(":tensorflow:serving:request_count", "counter", "Requests in TensorFlow Serving's protocol, by canonical status.")
    for model, totals in groupby(sorted((t for _, each in groups for t in each), key=lambda t: t.model), key=lambda t: t.model):
        statuses: dict[str, int] = {"OK": 0}
        for total in totals:
            statuses["OK"] += total.success
            for kind, count in total.failures.items():
                statuses[_CANONICAL[kind]] = statuses.get(_CANONICAL[kind], 0) + count
        for status, count in statuses.items():
            page.sample(count, {"model_name": model, "status": status})
    page.family(":tensorflow:serving:request_latency", "histogram", "Time of requests in TensorFlow Serving's protocol, in microseconds.")
    for (model, api, entrypoint), of_model in groups:
        labels = {"model_name": model, "API": api, "entrypoint": entrypoint}
        took_us = sum(t.success_ns for t in of_model) / 1000
        page.histogram(_TFSERVING_LE, *summed([t.request for t in of_model], _TFSERVING_AT), took_us, labels)
    page.family(":tensorflow:serving:runtime_latency", "histogram", "Time of runs that such requests led, in microseconds.")
    for (model, api, _), of_model in groups:
        labels = {"model_name": model, "API": api, "runtime": "dragoman"}
        ran_us = sum(_run_ns(t) for t in of_model) / 1000
        page.histogram(_TFSERVING_LE, *summed([t.compute for t in of_model], _TFSERVING_AT), ran_us, labels)


def _tfserving_key(total: Total) -> tuple[str, str, str]:
    return (total.model, *_TFSERVING[total.dialect])


def _run_ns(total: Total) -> int:
    runs: Iterable[Runs] = total.runs
    return sum(each.infer_ns for each in runs)


def _version(total: Total) -> dict[str, str]:
    return {"model": total.model, "version": total.version}


def _dialect(total: Total) -> dict[str, str]:
    return {"model": total.model, "version": total.version, "dialect": total.dialect}
