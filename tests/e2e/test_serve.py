"""`dragoman serve` as users start it: one file, several targets, bad targets, ports, background loading, workers, signals."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.plain import until
from tests.e2e.running import Running, run, serving
from tests.models import build, tungsten_files
from tests.ports import free_port

ROW = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [5.0, 3.4, 1.5, 0.2]}]}


@pytest.fixture
def iris(tmp_path: Path) -> Path:
    return build.iris(tmp_path / "models" / "iris.onnx")


def infer(session: requests.Session, server: Running, row: list[float], model: str = "iris") -> dict[str, Any]:
    body = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": row}]}
    answer = session.post(f"{server.url}/v2/models/{model}/infer", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return {o["name"]: o["data"] for o in answer.json()["outputs"]}


def test_one_file_is_served_in_every_dialect(tmp_path: Path, iris: Path) -> None:
    """The same model answers Open Inference Protocol and TensorFlow Serving clients, and the banner's own curl lines work."""
    with serving(tmp_path, str(iris)) as server, requests.Session() as session:
        v2 = infer(session, server, [5.0, 3.4, 1.5, 0.2])
        tfs = session.post(f"{server.url}/v1/models/iris:predict", json={"instances": [[5.0, 3.4, 1.5, 0.2]]}, timeout=60).json()
        assert tfs["predictions"][0]["probabilities"] == v2["probabilities"]
        curls = [line.strip() for line in server.lines if line.strip().startswith("curl ")]
        assert len(curls) == 3
        for line in curls:
            done = subprocess.run(line.replace("curl ", "curl -sS --fail ", 1), shell=True, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)


def test_several_targets_and_one_bad_one(tmp_path: Path, iris: Path) -> None:
    """A broken file does not stop the others; its reason is in the status, the index and the log."""
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"this is no model")
    image = build.image_mean(tmp_path / "image.onnx")
    with serving(tmp_path, f"flowers={iris}", str(image), str(broken)) as server:
        listed = requests.get(f"{server.url}/v2/models", timeout=60).json()
        assert sorted(listed["models"]) == ["broken", "flowers", "image"]
        index = {row["name"]: row for row in requests.post(f"{server.url}/v2/repository/index", timeout=60).json()}
        assert index["broken"]["state"] == "UNAVAILABLE"
        assert index["broken"]["reason"]
        assert requests.get(f"{server.url}/v2/health/ready", timeout=60).status_code == 503
        status = run(tmp_path, "status", "--url", server.url)
        assert status.returncode == 1
        assert "broken" in status.stdout
        answer = requests.post(f"{server.url}/v2/models/broken/infer", json=ROW, timeout=60)
        assert answer.status_code == 503
        assert "broken" in answer.json()["error"]


def test_nothing_loaded_is_exit_code_1(tmp_path: Path) -> None:
    """When no target can be served the command says why and ends with 1; the port never opens."""
    done = run(tmp_path, "serve", str(tmp_path / "missing.onnx"), "-p", "0")
    assert done.returncode == 1
    assert "missing.onnx" in done.stderr


def test_a_taken_port_is_named(tmp_path: Path, iris: Path) -> None:
    """The error says which port, and the exit code is 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(tmp_path, "serve", str(iris), "-p", str(port))
    assert done.returncode == 1
    assert str(port) in done.stderr
    assert "in use" in done.stderr


def test_wrong_flags_are_exit_code_2(tmp_path: Path) -> None:
    """Values that a setting cannot have are named."""
    done = run(tmp_path, "serve", "--workers", "many")
    assert done.returncode == 2
    assert "--workers" in done.stderr


def test_several_ports_answer_alike(tmp_path: Path, iris: Path) -> None:
    """Each port speaks every dialect."""
    with serving(tmp_path, str(iris), "-p", "0", "-p", "0") as server:
        assert len(server.urls) == 2
        for url in server.urls:
            assert requests.get(f"{url}/v2/models/iris/ready", timeout=60).status_code == 200
            assert requests.get(f"{url}/v1/models/iris", timeout=60).json()["model_version_status"][0]["state"] == "AVAILABLE"


def test_background_loading_opens_the_port_at_once(tmp_path: Path, iris: Path) -> None:
    """Until the models are there, ready is 503 and inference 503 with Retry-After, or already answered; in the end it is served."""
    with serving(tmp_path, str(iris), "--load", "background") as server:
        deadline = time.monotonic() + 60
        while True:
            answer = requests.post(f"{server.url}/v2/models/iris/infer", json=ROW, timeout=60)
            if answer.status_code == 200:
                break
            assert answer.status_code in (503, 404), answer.text
            assert answer.status_code == 404 or answer.headers["Retry-After"]
            assert time.monotonic() < deadline
        assert requests.get(f"{server.url}/v2/health/ready", timeout=60).status_code == 200


def test_64_threads_get_their_own_answers(tmp_path: Path) -> None:
    """Every answer belongs to its request, whatever was joined with it."""
    model = build.add_sub(tmp_path / "sums.onnx")
    with serving(tmp_path, str(model)) as server:

        def ask(thread: int) -> None:
            with requests.Session() as session:
                for i in range(30):
                    a, b = [thread * 100 + i] * 16, [i] * 16
                    inputs = [{"name": n, "shape": [1, 16], "datatype": "INT32", "data": v} for n, v in (("INPUT0", a), ("INPUT1", b))]
                    body = {"id": f"{thread}-{i}", "inputs": inputs}
                    answer = session.post(f"{server.url}/v2/models/sums/infer", json=body, timeout=60).json()
                    assert answer["id"] == f"{thread}-{i}"
                    outputs = {o["name"]: o["data"] for o in answer["outputs"]}
                    assert outputs["OUTPUT0"] == [x + y for x, y in zip(a, b, strict=True)]
                    assert outputs["OUTPUT1"] == [x - y for x, y in zip(a, b, strict=True)]

        with ThreadPoolExecutor(64) as pool:
            for done in [pool.submit(ask, t) for t in range(64)]:
                done.result()


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_under_load_loses_no_request(tmp_path: Path, iris: Path, workers: int) -> None:
    """Every request that was sent is answered; then connections are refused and the exit code is 0."""
    with serving(tmp_path, str(iris), "--workers", str(workers)) as server:
        lost: list[str] = []
        answered = 0
        stop = threading.Event()
        counting = threading.Lock()

        def send(session: requests.Session) -> requests.Response:
            return session.post(f"{server.url}/v2/models/iris/infer", json=ROW, timeout=60)

        def ask() -> None:
            nonlocal answered
            with requests.Session() as session:
                while not stop.is_set():
                    try:
                        try:
                            answer = send(session)
                        except requests.ConnectionError as error:
                            if "refused" in str(error):
                                raise
                            # An idle kept-alive connection may be closed at any time; a client tries a new one, which must be served or refused.
                            session.close()
                            answer = send(session)
                    except requests.ConnectionError as error:
                        if "refused" not in str(error):  # nothing listens any more: an honest end
                            lost.append(str(error))
                        return
                    if answer.status_code != 200:
                        lost.append(f"{answer.status_code} {answer.text}")
                    with counting:
                        answered += 1

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 60
        while answered < 300 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.terminate() == 0
        stop.set()
        for thread in threads:
            thread.join(60)
        assert not lost
        assert answered >= 300


def test_sigterm_lets_a_running_request_finish(tmp_path: Path) -> None:
    """A request that is being computed when the signal comes is answered; ready turns false meanwhile or the port is closed."""
    model = build.slow(tmp_path / "slow.onnx")
    with serving(tmp_path, str(model)) as server:
        body = {"inputs": [{"name": "rounds", "shape": [1], "datatype": "INT64", "data": [500]}]}
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(requests.post, f"{server.url}/v2/models/slow/infer", json=body, timeout=60) for _ in range(4)]
            deadline = time.monotonic() + 30
            while not any(f.done() for f in asked) and time.monotonic() < deadline:
                time.sleep(0.001)
            assert server.terminate() == 0
            assert [f.result().status_code for f in asked] == [200] * 4


def test_a_dead_worker_is_replaced_and_nobody_notices_for_long(tmp_path: Path, iris: Path) -> None:
    """Kill one of two workers: the other serves, and after a while there are two again."""
    with serving(tmp_path, str(iris), "--workers", "2") as server:
        children = _children(server.process.pid)
        assert len(children) == 2
        os.kill(children[0], signal.SIGKILL)
        deadline = time.monotonic() + 60
        while True:
            now = _children(server.process.pid)
            if len(now) == 2 and children[0] not in now:
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with requests.Session() as session:
            for _ in range(20):
                assert infer(session, server, [5.0, 3.4, 1.5, 0.2])["label"] == [0]


def test_workers_leave_when_their_supervisor_is_killed(tmp_path: Path, iris: Path) -> None:
    """No worker outlives a supervisor that had no chance to say goodbye."""
    with serving(tmp_path, str(iris), "--workers", "2") as server:
        children = _children(server.process.pid)
        server.process.kill()
        server.process.wait()
        deadline = time.monotonic() + 60
        while any(Path(f"/proc/{pid}/cmdline").exists() and _alive(pid) for pid in children):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_the_configuration_file_and_print_config(tmp_path: Path, iris: Path) -> None:
    """A TOML file holds everything the flags do; flags win; --print-config shows the result."""
    config = tmp_path / "dragoman.toml"
    config.write_text(f'targets = ["f={iris}"]\nbatch_size = 4\nmax_body = "1MB"\n')
    shown = run(tmp_path, "serve", "--config", str(config), "--batch-size", "8", "--print-config")
    assert shown.returncode == 0
    assert "batch_size = 8" in shown.stdout
    assert "max_body = 1048576" in shown.stdout
    with serving(tmp_path, "--config", str(config)) as server:
        assert requests.get(f"{server.url}/v2/models/f/ready", timeout=60).status_code == 200
        too_large = requests.post(f"{server.url}/v2/models/f/infer", data=b"x" * (2 << 20), timeout=60)
        assert too_large.status_code == 413
        assert too_large.json()["error"]


def _children(pid: int) -> list[int]:
    """Worker processes of a supervisor."""
    children = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if int(fields[1]) == pid and b"dragoman.server.child" in words and fields[0] != "Z":
                children.append(int(entry.name))
    return sorted(children)


def _alive(pid: int) -> bool:
    try:
        return (Path(f"/proc/{pid}") / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_the_port_is_closed_until_the_targets_are_there(tmp_path: Path, iris: Path) -> None:
    """With --load wait clients are refused, not kept waiting, while models load; the first connection that works finds it ready."""
    port = free_port()
    refused = 0
    stop = threading.Event()

    def knock() -> int:
        nonlocal refused
        while not stop.is_set():
            try:
                return requests.get(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5).status_code
            except requests.ConnectionError:
                refused += 1
        return 0

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(knock)
        try:
            with serving(tmp_path, str(iris), "-p", str(port)):
                assert answer.result(60) == 200
        finally:
            stop.set()
    assert refused


@pytest.mark.parametrize(("source", "protocols"), [("PICTURES", 1), ("NUMBERS", 3)])
def test_the_banner_of_a_python_model(tmp_path: Path, source: str, protocols: int) -> None:
    """Its lines work as they are; a model that takes a picture has one line, which sends a picture."""
    folder = tungsten_files.write_model(tmp_path / "model", getattr(tungsten_files, source))
    with serving(tmp_path, str(folder)) as server:
        until(lambda: "Metrics: " in server.output, what="the whole banner")
        curls = [line.strip() for line in server.lines if line.strip().startswith("curl ")]
        assert len(curls) == protocols
        assert "/predict -H 'Content-Type: application/json' -d '[{" in curls[0]
        for line in curls:
            done = subprocess.run(line.replace("curl ", "curl -sS --fail ", 1), shell=True, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout).get("status", "success") == "success", done.stdout
