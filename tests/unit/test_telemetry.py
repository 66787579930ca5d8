"""The metrics page as a dialect, and the pulse: what a worker does every second for the others."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State
from dragoman.core.model import Timings
from dragoman.dialects import Access, Request
from dragoman.server.telemetry import Telemetry
from dragoman.serving.gateway import Gateway, VersionStatus
from dragoman.serving.live_settings import LiveSettings
from dragoman.serving.log_settings import LogSettings
from dragoman.serving.meters import Meters, Tally
from dragoman.serving.trace_settings import TraceSettings
from dragoman.serving.tracing import Tracer

OUTCOMES = ("succeeded", "failed", "cancelled")


class Worker:
    """What telemetry needs of a worker."""

    def __init__(self, directory: Path, number: int = 1) -> None:
        self.live = LiveSettings(directory)
        self.logs = LogSettings()
        self.logs.share(self.live)
        self.traces = TraceSettings(self.live)
        self.tracer = Tracer(self.traces, directory / "traces", number)
        self.meters = Meters(directory, number)
        self.gateway = Gateway(self.meters, tracer=self.tracer)
        self.store: dict[str, tuple[int, int]] | Exception = {"m": (3, 2)}
        self.gateway.publish("m", [VersionStatus("m", "1", State.READY, "")], {})
        self.telemetry = Telemetry(
            self.meters, self.gateway, self.tracer, self.live, "9.9", self.unfinished, "/monitoring/prometheus/metrics"
        )

    async def unfinished(self) -> dict[str, tuple[int, int]]:
        if isinstance(self.store, Exception):
            raise self.store
        return self.store

    async def value(self, name: str, **labels: str) -> float | None:
        for family in text_string_to_metric_families((await self.telemetry.page()).decode()):
            for sample in family.samples:
                if (sample.name, sample.labels) == (name, labels):
                    return float(sample.value)
        return None


def request(path: str, method: str = "GET") -> Request:
    async def receive() -> dict[str, Any]:
        raise AssertionError("nobody reads")

    return Request({"method": method, "path": path, "headers": []}, receive, 0)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(bounded())


def test_predictions_are_of_all_workers(tmp_path: Path) -> None:
    """What has not ended is as the store says; what has is the sum, also of a worker that has gone; both have zeros for every model."""

    async def test() -> None:
        one, other = Worker(tmp_path, 1), Worker(tmp_path, 2)
        one.meters.touch("n", "1")
        for worker in (one, other):
            worker.meters.tally("m", Tally.SUCCEEDED)
        one.meters.tally("m", Tally.CANCELLED)
        one.meters.tally("m", Tally.RESTARTS)
        await one.telemetry.close()
        assert await other.value("dragoman_predictions", model="m", state="waiting") == 3
        assert await other.value("dragoman_predictions", model="m", state="running") == 2
        assert await other.value("dragoman_predictions", model="n", state="running") == 0
        counts = {how: await other.value("dragoman_predictions_ended_total", model="m", outcome=how) for how in OUTCOMES}
        assert counts == {"succeeded": 2, "failed": 0, "cancelled": 1}
        assert await other.value("dragoman_predictions_ended_total", model="n", outcome="failed") == 0
        assert await other.value("dragoman_model_process_restarts_total", model="m") == 1
        assert await other.value("nv_inference_count", model="m", version="") is None

    run(test)


@pytest.mark.parametrize("failure", [ServingError(Kind.UNAVAILABLE, "the database is gone"), TimeoutError()])
def test_a_store_that_is_down_takes_its_gauges_only(tmp_path: Path, failure: Exception) -> None:
    """The page is there, without what nobody knows."""

    async def test() -> None:
        worker = Worker(tmp_path)
        worker.store = failure
        assert await worker.value("dragoman_predictions", model="m", state="waiting") is None
        assert await worker.value("dragoman_workers") == 1

    run(test)


@pytest.mark.parametrize("path", ["/metrics", "/monitoring/prometheus/metrics", "/metrics/"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_page(tmp_path: Path, path: str, method: str) -> None:
    """Both addresses, for anyone who can connect, in Prometheus' media type."""

    async def test() -> None:
        route = Worker(tmp_path).telemetry.route(request(path, method))
        assert route.access is Access.PUBLIC
        answer = await route.handler(request(path, method), *route.args)
        assert (answer.status, answer.media_type) == (200, b"text/plain; version=0.0.4; charset=utf-8")
        assert isinstance(answer.body, bytes)
        assert b'dragoman_model_ready{model="m",version="1"} 1\n' in answer.body

    run(test)


@pytest.mark.parametrize(
    ("path", "paths"), [("", ("/metrics",)), ("/metrics", ("/metrics",)), ("/v1/numbers/", ("/metrics", "/v1/numbers"))]
)
def test_the_second_path_is_a_setting(tmp_path: Path, path: str, paths: tuple[str, ...]) -> None:
    """There is one at most; it may be any, also the first."""

    async def test() -> None:
        worker = Worker(tmp_path)
        telemetry = Telemetry(worker.meters, worker.gateway, worker.tracer, worker.live, "9.9", worker.unfinished, path)
        assert telemetry.prefixes == paths
        for each in paths:
            assert telemetry.route(request(each)).access is Access.PUBLIC

    run(test)


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/metrics/x", "GET", 404), ("/monitoring/prometheus/metrics/x", "GET", 404), ("/metrics", "POST", 405), ("/metrics", "DELETE", 405)],
)
def test_other_requests_are_refused(tmp_path: Path, path: str, method: str, status: int) -> None:
    """In plain text, and with what is allowed where the method is wrong."""

    async def test() -> None:
        telemetry = Worker(tmp_path).telemetry
        with pytest.raises(ServingError) as caught:
            telemetry.route(request(path, method))
        answer = telemetry.refuse(request(path, method), caught.value)
        assert (answer.status, answer.media_type) == (status, b"text/plain; charset=utf-8")
        assert ((b"allow", b"GET, HEAD") in answer.headers) is (status == 405)

    run(test)


@pytest.mark.parametrize("kind", list(Kind))
def test_every_error_has_an_answer(tmp_path: Path, kind: Kind) -> None:
    """Total over the kinds; also for text that is no UTF-8."""

    async def test() -> None:
        answer = Worker(tmp_path).telemetry.refuse(request("/metrics"), ServingError(kind, "no \udcff"))
        assert 400 <= answer.status < 600
        assert answer.body == b"no ?\n"

    run(test)


def test_any_worker_answers_for_all(tmp_path: Path) -> None:
    """Counts of both are on the page of each."""

    async def test() -> None:
        one, other = Worker(tmp_path, 1), Worker(tmp_path, 2)
        for worker in (one, other):
            worker.meters.open("m", "1", "v2").succeeded(0, 1, Timings())
        for worker in (one, other):
            assert await worker.value("dragoman_requests_total", model="m", version="1", dialect="v2", outcome="success") == 2
            assert await worker.value("dragoman_workers") == 2

    run(test)


def test_many_scrapes_at_once_are_all_answered(tmp_path: Path) -> None:
    """They are made one after the other, and none is lost."""

    async def test() -> None:
        telemetry = Worker(tmp_path).telemetry
        pages = await asyncio.gather(*(telemetry.page() for _ in range(10)))
        assert all(page.startswith(b"# HELP dragoman_build_info") for page in pages)

    run(test)


def test_the_pulse_shows_this_worker_to_the_others(tmp_path: Path) -> None:
    """Gauges and vitals are there without anybody asking this worker."""

    async def test() -> None:
        one, other = Worker(tmp_path, 1), Meters(tmp_path, 2)
        pulse = asyncio.create_task(one.telemetry.pulse(0))
        while not other.read().gauges:  # a condition of another worker, bounded by the test's time-out
            await asyncio.sleep(0)
        (gauge,) = other.read().gauges
        assert (gauge.model, gauge.version, gauge.ready) == ("m", "1", True)
        assert other.read().workers[0].vitals.cpu_ns > 0
        pulse.cancel()
        await asyncio.gather(pulse, return_exceptions=True)
        await one.telemetry.close()
        assert other.read().gauges == ()

    run(test)


def test_the_pulse_obeys_what_other_workers_were_told(tmp_path: Path) -> None:
    """Without a request that would make this worker look."""

    async def test() -> None:
        one, other = Worker(tmp_path, 1), Worker(tmp_path, 2)
        pulse = asyncio.create_task(one.telemetry.pulse(0))
        other.logs.update({"log_verbose_level": 1})
        other.traces.update({"trace_level": "TIMESTAMPS"})
        while not (one.tracer.active and one.logs.lowest == 10):  # as above
            await asyncio.sleep(0)
        pulse.cancel()
        await asyncio.gather(pulse, return_exceptions=True)

    run(test)


def test_the_pulse_writes_traces_and_the_end_writes_the_rest(tmp_path: Path) -> None:
    """One file grows with each round; a portion that is not full is written when the worker ends."""

    async def test() -> None:
        worker = Worker(tmp_path)
        pulse = asyncio.create_task(worker.telemetry.pulse(0))
        worker.traces.update({"trace_level": "TIMESTAMPS", "trace_rate": "1"})
        worker.tracer.sample("m", "1", "first", 0, 1, Timings())
        file = tmp_path / "traces" / "trace.json"
        while not (file.exists() and file.stat().st_size):  # as above
            await asyncio.sleep(0)
        worker.traces.update({"log_frequency": "5"})
        worker.tracer.sample("m", "1", "second", 0, 1, Timings())
        pulse.cancel()
        await asyncio.gather(pulse, return_exceptions=True)
        await worker.telemetry.close()
        assert [t["request_id"] for t in json.loads(file.read_text())] == ["first"]
        assert [t["request_id"] for t in json.loads((tmp_path / "traces" / "trace.json.0").read_text())] == ["second"]

    run(test)


def test_the_pulse_goes_on_after_a_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A round that fails is logged, and the next one runs: or the worker would be taken for dead."""

    class Broken(Gateway):
        rounds = 0

        def gauges(self) -> list[Any]:
            self.rounds += 1
            if self.rounds == 1:
                raise RuntimeError("a bug")
            return super().gauges()

    async def test() -> None:
        worker = Worker(tmp_path)
        gateway = Broken(worker.meters)
        telemetry = Telemetry(worker.meters, gateway, worker.tracer, worker.live, "9.9", worker.unfinished)
        pulse = asyncio.create_task(telemetry.pulse(0))
        while gateway.rounds < 3:  # as above
            await asyncio.sleep(0)
        pulse.cancel()
        await asyncio.gather(pulse, return_exceptions=True)

    run(test)
    assert "a round of the pulse failed" in caplog.text
