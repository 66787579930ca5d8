"""Predictions outlive their server: kill -9 of the server, of a worker, retention, time-outs, queue limits. Real processes throughout."""

import contextlib
import os
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.plain import Plain, until
from tests.e2e.running import Running, serving
from tests.models import tungsten_files


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tungsten_files.write_talker(tmp_path / "talker")


def submit(client: Plain, prompt: str) -> str:
    reply = client.post("/predictions", [{"prompt": prompt}])
    assert reply.status == 200, reply.body
    return str(reply.json()["prediction_id"])


def state(client: Plain, prediction: str) -> dict[str, Any]:
    reply = client.get(f"/predictions/{prediction}")
    assert reply.status == 200, reply.body
    answer: dict[str, Any] = reply.json()
    return answer


def reach(client: Plain, prediction: str, *statuses: str) -> dict[str, Any]:
    def ask() -> dict[str, Any] | None:
        now = state(client, prediction)
        return now if now["status"] in statuses else None

    return until(ask, what=f"{prediction} {statuses}")


def stored(place: Path, prediction: str) -> str:
    """What the database says: that a run has started is there a moment after clients see it, so that quick runs cost no write."""
    (path,) = (place / "data").rglob("dragoman.db")
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        ((progress,),) = connection.execute("SELECT progress FROM predictions WHERE id = ?", [prediction])
    return str(progress)


def kill(running: Running) -> None:
    running.process.send_signal(signal.SIGKILL)
    running.process.wait(30)


def test_nothing_that_was_answered_is_lost_when_the_server_is_killed(model: Path, tmp_path: Path) -> None:
    """Results stay, what waited runs after the restart, what ran is reported failed with the reason; nothing is running for ever."""
    gate = tmp_path / "gate"
    with serving(tmp_path / "data", str(model)) as first:
        client = Plain(first.port)
        done = submit(client, "before the end")
        reach(client, done, "success")
        cancelled = submit(client, f"wait {gate}; cancelled")
        assert client.post(f"/predictions/{cancelled}/cancel").status == 200
        ran = submit(client, f"wait {gate}")
        reach(client, ran, "running")
        waited = [submit(client, f"waited {i}") for i in range(20)]
        kill(first)
    with serving(tmp_path / "data", str(model)) as second:
        client = Plain(second.port)
        assert state(client, done)["outputs"][0]["text"] == "before the end"
        assert state(client, cancelled)["error_message"] == "Canceled"
        for index, each in enumerate(waited):
            assert reach(client, each, "success", "failed")["outputs"][0]["text"] == f"waited {index}"
        lost = reach(client, ran, "success", "failed")
        assert lost["status"] == "failed"
        assert "stopped" in lost["error_message"]


def test_a_kill_under_load_loses_nothing(model: Path, tmp_path: Path) -> None:
    """Clients submit until the server is killed; every id that any of them got ends after the restart."""
    got: list[tuple[int, str]] = []
    with serving(tmp_path / "data", str(model)) as first:
        client = Plain(first.port)

        def keep_submitting(worker: int) -> None:
            for index in range(10_000):
                try:
                    reply = client.post("/predictions", [{"prompt": f"sleep 0.002; load {worker} {index}"}])
                    got.append((index, reply.json()["prediction_id"]))
                except (OSError, ValueError, KeyError):
                    return

        with ThreadPoolExecutor(8) as pool:
            for worker in range(8):
                pool.submit(keep_submitting, worker)
            until(lambda: len(got) > 100, what="a hundred predictions")
            kill(first)
    with serving(tmp_path / "data", str(model)) as second:
        client = Plain(second.port)
        ends = [reach(client, each, "success", "failed") for _, each in got]
        assert all(e["status"] == "success" or "stopped" in e["error_message"] for e in ends)
        assert sum(e["status"] == "success" for e in ends) > len(ends) * 0.5


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_ran_runs_once_more_where_that_does_no_harm(model: Path, tmp_path: Path, workers: str) -> None:
    """--repeat: kill -9 of the model's process in mid-run costs nobody an answer, whether polled or waited for."""
    gate = tmp_path / "gate"
    runs = model / "runs.jsonl"
    with serving(tmp_path / "data", str(model), "--repeat", "--workers", workers) as running, ThreadPoolExecutor(1) as pool:
        client = Plain(running.port)

        def process() -> int:
            reply = client.post("/predict", [{"prompt": "which"}])
            return int(reply.json()["outputs"][0]["pid"])

        victim = process()
        polled = submit(client, f"wait {gate}; polled")
        until(lambda: "polled" in runs.read_text(), what="the run")
        os.kill(victim, signal.SIGKILL)
        gate.touch()
        assert reach(client, polled, "success", "failed")["status"] == "success"
        gate.unlink()
        victim = process()
        waited = pool.submit(client.post, "/predict", [{"prompt": f"wait {gate}; waited"}])
        until(lambda: "waited" in runs.read_text(), what="the run")
        os.kill(victim, signal.SIGKILL)
        gate.touch()
        answer = waited.result(60)
        assert (answer.status, answer.json()["status"]) == (200, "success")
        assert answer.json()["outputs"][0]["pid"] != victim
        assert [runs.read_text().count(word) for word in ("polled", "waited")] == [2, 2]


def test_sigterm_keeps_what_waits(model: Path, tmp_path: Path) -> None:
    """A drained server leaves waiting predictions to the next one."""
    gate = tmp_path / "gate"
    with serving(tmp_path / "data", str(model), "--drain-timeout", "1") as first:
        client = Plain(first.port)
        held = submit(client, f"wait {gate}")
        reach(client, held, "running")
        waiting = submit(client, "for the next server")
        first.terminate()
    gate.touch()
    with serving(tmp_path / "data", str(model)) as second:
        assert reach(Plain(second.port), waiting, "success", "failed")["status"] == "success"


def test_results_are_dropped_after_their_time(model: Path, tmp_path: Path) -> None:
    """T27: --result-expiration."""
    with serving(tmp_path / "data", str(model), "--result-expiration", "1") as running:
        client = Plain(running.port)
        done = submit(client, "short-lived")
        until(lambda: client.get(f"/predictions/{done}").status == 404, what="the end of the result")
        assert client.get(f"/predictions/{done}").json() == {"detail": done}


def test_a_run_that_takes_too_long_is_ended(model: Path, tmp_path: Path) -> None:
    """T27: --prediction-timeout."""
    with serving(tmp_path / "data", str(model), "--prediction-timeout", "1") as running:
        client = Plain(running.port)
        endless = submit(client, "sleep 3600")
        assert reach(client, endless, "success", "failed")["error_message"].startswith("Timeout")
        assert reach(client, submit(client, "next"), "success", "failed")["status"] == "success"


def test_a_full_queue_says_when_to_come_back(model: Path, tmp_path: Path) -> None:
    """429 with Retry-After; nothing of what was accepted is lost."""
    gate = tmp_path / "gate"
    with serving(tmp_path / "data", str(model), "--max-predictions", "5") as running:
        client = Plain(running.port)
        held = submit(client, f"wait {gate}")
        reach(client, held, "running")
        replies = [client.post("/predictions", [{"prompt": f"n {i}"}]) for i in range(10)]
        refused = [r for r in replies if r.status != 200]
        assert refused
        assert {r.status for r in refused} == {429}
        assert all(int(r.headers["retry-after"]) >= 1 for r in refused)
        gate.touch()
        for reply in replies:
            if reply.status == 200:
                assert reach(client, reply.json()["prediction_id"], "success", "failed")["status"] == "success"


@pytest.fixture
def two_workers(model: Path, tmp_path: Path) -> Iterator[Running]:
    with serving(tmp_path / "data", str(model), "--workers", "2") as running:
        yield running


def test_workers_share_one_model_process_and_every_prediction(two_workers: Running, tmp_path: Path) -> None:
    """Requests of all workers meet in one batcher; any worker answers for, and cancels, any prediction."""
    client = Plain(two_workers.port)
    gate = tmp_path / "gate"
    held = submit(client, f"wait {gate}")
    reach(client, held, "running")
    with ThreadPoolExecutor(12) as pool:
        waiting = [pool.submit(client.post, "/predict", [{"prompt": f"shared {i}"}]) for i in range(12)]
        extra = submit(client, "cancelled by whoever answers")
        for _ in range(8):
            assert client.post(f"/predictions/{extra}/cancel").status == 200
            assert state(client, extra)["error_message"] == "Canceled"
        gate.touch()
        outputs = [each.result().json()["outputs"][0] for each in waiting]
    assert len({o["pid"] for o in outputs}) == 1
    assert max(o["batch"] for o in outputs) > 1
    for _ in range(8):
        assert state(client, held)["status"] in ("success", "running", "pending")
    assert reach(client, held, "success")["status"] == "success"


def test_a_worker_that_dies_loses_no_prediction(two_workers: Running, tmp_path: Path) -> None:
    """Its predictions are taken over by the other, or told as failed; the model process stays."""
    client = Plain(two_workers.port)
    ids = [submit(client, f"sleep 0.05; n {i}") for i in range(30)]
    workers = [int(p) for p in Path(f"/proc/{two_workers.process.pid}/task/{two_workers.process.pid}/children").read_text().split()]
    serving_workers = [p for p in workers if b"dragoman.server.child" in Path(f"/proc/{p}/cmdline").read_bytes()]
    assert len(serving_workers) == 2
    os.kill(serving_workers[0], signal.SIGKILL)

    def ended(each: str) -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = client.get(f"/predictions/{each}").json()
        except OSError:
            return None  # the connection was the dead worker's
        return answer if answer["status"] in ("success", "failed") else None

    for each in ids:
        end = until(lambda each=each: ended(each), what="the end of a prediction")  # type: ignore[misc]
        assert end["status"] == "success" or "stopped" in end["error_message"]
