"""Models in processes of their own behind the real command: shared by all workers, replaced when they die, gone with the server."""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import requests

from tests.e2e.running import Running, serving
from tests.models import build

ROW = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [5.0, 3.4, 1.5, 0.2]}], "outputs": [{"name": "label"}]}
WORKERS = pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one worker", "two workers"])


def until(condition: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def parents() -> dict[int, int]:
    """Process -> its parent, of everything on this machine that is not dead."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if entry.name.isdigit() and state != "Z":
            found[int(entry.name)] = int(parent)
    return found


def model_processes(server: int) -> list[int]:
    """Those of this server, in the order of their numbers."""
    found = []
    for pid, parent in parents().items():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            continue
        if parent == server and "dragoman.hosting.host" in command:
            found.append(pid)
    return sorted(found)


def infer(server: Running) -> "requests.Response":
    return requests.post(f"{server.url}/v2/models/iris/infer", json=ROW, timeout=30)


def metric(server: Running, sample: str) -> float:
    """From whichever worker answers."""
    page = requests.get(f"{server.url}/metrics", headers={"Connection": "close"}, timeout=30).text
    (line,) = [line for line in page.splitlines() if line.startswith(f"{sample} ")]
    return float(line.rpartition(" ")[2])


def state(server: Running) -> tuple[str, str]:
    model = requests.get(f"{server.url}/dragoman/v1/models", timeout=30).json()["models"][0]
    return model["state"], model["reason"]


@WORKERS
def test_one_process_serves_all_workers_and_is_replaced_when_it_dies(tmp_path: Path, workers: Sequence[str]) -> None:
    """kill -9 under load: every request is answered; those that ran at that moment may say that their process died."""
    model = build.iris(tmp_path / "iris.onnx")
    with serving(tmp_path, str(model), "--engine", "process", *workers) as server:
        (before,) = model_processes(server.process.pid)
        answers: list[requests.Response] = []
        stopping = threading.Event()

        def ask() -> None:
            while not stopping.is_set():
                answers.append(infer(server))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: len(answers) > 20, "no answers")
            os.kill(before, signal.SIGKILL)
            until(lambda: model_processes(server.process.pid) not in ([], [before]), "no new process")
            done = len(answers)
            until(lambda: len(answers) > done + 50, "no answers any more")
        finally:
            stopping.set()
            for thread in threads:
                thread.join()
        failed = [each for each in answers if each.status_code != 200]
        assert len(failed) <= 32
        assert all((each.status_code, "signal 9" in each.text) == (503, True) for each in failed)
        assert all(each.json()["outputs"][0]["data"] == [0] for each in answers if each.status_code == 200)
        assert len(model_processes(server.process.pid)) == 1
        assert metric(server, 'dragoman_model_process_restarts_total{model="iris"}') == 1
        given = requests.post(f"{server.url}/predictions", json=[{"X": [5.0, 3.4, 1.5, 0.2]}], timeout=30).json()["prediction_id"]
        until(lambda: metric(server, 'dragoman_predictions_ended_total{model="iris",outcome="succeeded"}') == 1, f"{given} is not counted")
        assert [metric(server, f'dragoman_predictions{{model="iris",state="{s}"}}') for s in ("waiting", "running")] == [0, 0]
        assert metric(server, "dragoman_workers") == (2 if workers else 1)
        assert "model process ended (signal 9)" in server.output
        assert server.terminate() == 0
        until(lambda: not model_processes(server.process.pid), "a process is left")


def test_a_crash_loop_is_unavailable_with_the_reason_and_tried_again(tmp_path: Path) -> None:
    """The status says why; a little later the model is loaded again and answers."""
    model = build.iris(tmp_path / "iris.onnx")
    with serving(tmp_path, str(model), "--engine", "process") as server:
        killed: set[int] = set()
        while len(killed) < 5:
            for pid in set(model_processes(server.process.pid)) - killed:
                assert infer(server).status_code == 200
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            time.sleep(0.005)
        until(lambda: state(server)[0] == "failed", "it is not given up")
        assert "its process ended 5 times within 60 s, at last: model process ended (signal 9)" in state(server)[1]
        answer = infer(server)
        assert answer.status_code == 503
        assert "version 1 stopped: its process ended 5 times within 60 s" in answer.json()["error"]
        until(lambda: state(server)[0] == "ready", "it is not tried again")
        assert infer(server).status_code == 200


@WORKERS
def test_nothing_outlives_a_killed_server(tmp_path: Path, workers: Sequence[str]) -> None:
    """kill -9 of the process that owns the model processes."""
    model = build.iris(tmp_path / "iris.onnx")
    with serving(tmp_path, str(model), "--engine", "process", "--instances", "2", *workers) as server:
        processes = model_processes(server.process.pid)
        assert len(processes) == 2
        assert infer(server).status_code == 200
        server.process.kill()
        server.process.wait()
        until(lambda: not set(processes) & set(parents()), "a process is left")


def test_a_killed_worker_leaves_the_model_processes_to_the_others(tmp_path: Path) -> None:
    """Its successor finds them loaded."""
    model = build.iris(tmp_path / "iris.onnx")
    with serving(tmp_path, str(model), "--engine", "process", "--workers", "2") as server:
        # The banner comes with the first worker; a process that only the killed one had would go with it.
        until(lambda: server.output.count("'iris' version 1 is ready") == 2, "a worker has not loaded")
        processes = model_processes(server.process.pid)
        workers = [pid for pid, parent in parents().items() if parent == server.process.pid and pid not in processes]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        until(lambda: len([p for p in parents().values() if p == server.process.pid]) == 3, "no new worker")
        assert all(infer(server).status_code == 200 for _ in range(20))
        assert model_processes(server.process.pid) == processes
