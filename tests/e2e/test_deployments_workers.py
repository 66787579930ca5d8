"""Deployments of the real command with three workers: every worker agrees, and nothing is lost when processes are killed.

Models are registered and deployed through Submarine's API and the Open Inference Protocol's repository calls.
"""

import base64
import http.client
import json
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from onnx import helper

from tests import postgres
from tests.e2e.crowd import Crowd, pending, post, until
from tests.e2e.plain import Plain, Reply
from tests.e2e.running import Running, serving
from tests.e2e.test_model_processes import model_processes
from tests.fuzz.wire import Answer
from tests.models import build

ONE = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}]}
CONNECTIONS = 30
"""So many new connections reach every one of three workers, but for a chance in a hundred thousand."""


def scaled(path: Path, factor: float) -> Path:
    """x FP32 [N] -> y FP32 [N] = x * factor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    build.save(
        path,
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [build.value("x", "FP32", ["N"])],
        [build.value("y", "FP32", ["N"])],
        [build.constant("factor", np.array([factor], np.float32))],
    )
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A model root with models that multiply by 1 to 6."""
    for factor in range(1, 7):
        scaled(tmp_path / "root" / f"times{factor}" / "model.onnx", factor)
    return tmp_path / "root"


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, ...]:
    """What names the store on the command line."""
    return () if request.param == "sqlite" else ("--store", postgres.database_of(tmp_path))


@contextmanager
def server_of(place: Path, root: Path, *more: str) -> Iterator[tuple[Running, Plain]]:
    with serving(place, "--model-root", str(root), "--workers", "3", *more) as server:
        yield server, Plain(server.port)


def register(plain: Plain, root: Path, model: str = "scaled", count: int = 6) -> None:
    """Versions 1 to `count`, each multiplying by its number."""
    assert plain.post("/api/2.0/mlflow/registered-models/create", {"name": model}).status == 200
    for factor in range(1, count + 1):
        source = str(root / f"times{factor}")
        assert plain.post("/api/2.0/mlflow/model-versions/create", {"name": model, "source": source}).status == 200


def serve(plain: Plain, version: int, model: str = "scaled", method: str = "POST") -> Reply:
    return plain.call(method, "/api/v1/serve", {"modelName": model, "modelVersion": version})


def answers(plain: Plain, version: int | str, model: str = "scaled") -> Counter[Any]:
    """What new connections are answered by a version, or the status where that is no success."""
    found: Counter[Any] = Counter()
    for _ in range(CONNECTIONS):
        reply = plain.post(f"/v2/models/{model}/versions/{version}/infer" if version else f"/v2/models/{model}/infer", ONE)
        found[reply.json()["outputs"][0]["data"][0] if reply.status == 200 else reply.status] += 1
    return found


def workers(pid: int) -> list[int]:
    """The worker processes of a supervisor."""
    listed = subprocess.run(["ps", "-o", "pid=,stat=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=False).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    return sorted(int(row[0]) for row in rows if "dragoman.server.child" in row[2] and not row[1].startswith("Z"))


def test_every_worker_agrees_when_a_call_returns(tmp_path: Path, root: Path, store: tuple[str, ...]) -> None:
    """An empty server is ready; each deploy is everybody's at once, each undeploy too, and the first of them makes the store."""
    with server_of(tmp_path, root, *store) as (server, plain):
        assert plain.get("/v2/health/ready").status == 200
        register(plain, root)
        for version in range(1, 7):
            assert serve(plain, version).status == 200
            assert answers(plain, version) == {float(version): CONNECTIONS}
        for version in range(1, 6):
            assert serve(plain, version, method="DELETE").status == 200
            assert answers(plain, version).keys() <= {404, 503}
        assert answers(plain, "") == {6.0: CONNECTIONS}
        assert server.terminate() == 0


def test_targets_are_loaded_and_unloaded_in_every_worker(tmp_path: Path, root: Path, store: tuple[str, ...]) -> None:
    """What a load request brings reaches all of them; none of it is there after the server, which starts as its command line says."""
    target = scaled(tmp_path / "repository" / "scaled" / "1" / "model.onnx", 1.0)
    with server_of(tmp_path, root, *store, str(target.parents[2])) as (server, plain):
        for _ in range(2):
            assert plain.post("/v2/repository/models/scaled/unload").status == 200
            assert answers(plain, "") == {503: CONNECTIONS}
            assert plain.post("/v2/repository/models/scaled/load").status == 200
            assert answers(plain, "") == {1.0: CONNECTIONS}
        scaled(target, 7.0)
        assert plain.post("/v2/repository/models/scaled/load").status == 200
        assert answers(plain, "") == {7.0: CONNECTIONS}
        content = base64.b64encode(scaled(tmp_path / "sent.onnx", 9.0).read_bytes()).decode()
        sent = {"parameters": {"config": '{"backend": "onnxruntime"}', "file:1/model.onnx": content}}
        assert plain.post("/v2/repository/models/scaled/load", sent).status == 200
        assert answers(plain, "") == {9.0: CONNECTIONS}
        os.kill(workers(server.process.pid)[0], signal.SIGKILL)
        until(lambda: len(workers(server.process.pid)) == 3)
        until(lambda: answers(plain, "") == {9.0: CONNECTIONS})
        bad = {"parameters": {"config": '{"backend": "onnxruntime"}', "file:1/model.onnx": "bm9uc2Vuc2U="}}
        assert plain.post("/v2/repository/models/scaled/load", bad).status >= 400
        assert answers(plain, "") == {9.0: CONNECTIONS}
        assert plain.post("/v2/repository/models/scaled/unload").status == 200
    with server_of(tmp_path, root, *store, str(target.parents[2])) as (server, plain):
        assert answers(plain, "") == {7.0: CONNECTIONS}


def test_a_folder_of_a_model_root_is_loaded_by_its_name(tmp_path: Path, root: Path) -> None:
    """For ever: it is there after a restart, until it is unloaded; the index knows what could be loaded."""
    with server_of(tmp_path, root) as (_, plain):
        assert plain.post("/v2/repository/models/nothing/load").status in (400, 404)
        assert plain.post("/v2/repository/models/times3/load").status == 200
        assert answers(plain, "", "times3") == {3.0: CONNECTIONS}
        register(plain, root, count=1)
        rows = {row["name"]: row["state"] for row in plain.post("/v2/repository/index").json()}
        assert rows["times3"] == "READY"
        assert rows["scaled"] == "UNAVAILABLE"
        assert rows["times1"] == "UNAVAILABLE"
    with server_of(tmp_path, root) as (_, plain):
        assert answers(plain, "", "times3") == {3.0: CONNECTIONS}
        assert plain.post("/v2/repository/models/times3/unload").status == 200
        assert answers(plain, "", "times3").keys() <= {404, 503}
    with server_of(tmp_path, root) as (_, plain):
        assert answers(plain, "", "times3").keys() <= {404, 503}


def in_threads(calls: list[Callable[[], object]]) -> list[threading.Thread]:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    return threads


def test_a_worker_killed_in_the_middle_of_deploys(tmp_path: Path, root: Path, store: tuple[str, ...]) -> None:
    """Every call ends; the lost ones are asked again, and everybody has everything, the new worker too."""
    with server_of(tmp_path, root, *store) as (server, plain):
        register(plain, root)
        victim = workers(server.process.pid)[0]

        def deploy(version: int) -> None:
            for _ in range(20):
                try:
                    if serve(plain, version).status == 200:
                        done.append(version)
                        return
                except OSError:
                    lost.append(version)
                except http.client.HTTPException:  # an answer that ends in the middle
                    lost.append(version)

        done: list[int] = []
        lost: list[int] = []
        threads = in_threads([lambda v=v: deploy(v) for v in range(1, 7)])  # type: ignore[misc]
        os.kill(victim, signal.SIGKILL)
        for thread in threads:
            thread.join(60)
        assert sorted(done) == [1, 2, 3, 4, 5, 6]
        until(lambda: len(workers(server.process.pid)) == 3)
        for version in range(1, 7):
            until(lambda version=version: answers(plain, version) == {float(version): CONNECTIONS})  # type: ignore[misc]


def kill_everything(server: Running) -> None:
    """As if the machine had lost its power: no process of the server lives on."""
    children = workers(server.process.pid)
    server.process.kill()
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    server.process.wait()


def test_the_whole_server_killed_in_the_middle_of_deploys(tmp_path: Path, root: Path, store: tuple[str, ...]) -> None:
    """What was answered is there after the start, at once, and so is what was wished for; deploys work as before."""
    with server_of(tmp_path, root, *store) as (server, plain):
        register(plain, root)
        assert serve(plain, 1).status == 200
        assert serve(plain, 2).status == 200
        assert serve(plain, 2, method="DELETE").status == 200
        answered: list[int] = []

        def deploy(version: int) -> None:
            try:
                if serve(plain, version).status == 200:
                    answered.append(version)
            except Exception:
                return  # the connection ended with the server

        threads = in_threads([lambda v=v: deploy(v) for v in range(3, 7)])  # type: ignore[misc]
        until(lambda: len(plain.get("/api/v1/serve").json()["result"]) > 1)
        kill_everything(server)
        for thread in threads:
            thread.join(60)
    with server_of(tmp_path, root, *store) as (_, plain):
        wanted = {each["modelVersion"] for each in plain.get("/api/v1/serve").json()["result"]}
        assert wanted >= {1, *answered}
        assert 2 not in wanted
        for version in wanted:
            assert answers(plain, version) == {float(version): CONNECTIONS}
        for version in range(1, 7):
            assert serve(plain, version).status == 200
            assert answers(plain, version) == {float(version): CONNECTIONS}


def test_rolling_versions_under_load_loses_no_request(tmp_path: Path, root: Path) -> None:
    """Each version is deployed before the one before is undeployed, twice around; whoever asks for the model is always answered."""

    def check(answer: Answer) -> None:
        assert answer.status == 200, answer.body
        assert json.loads(answer.body)["outputs"][0]["data"][0] in range(1, 7)

    with server_of(tmp_path, root) as (server, plain):
        register(plain, root)
        assert serve(plain, 1).status == 200
        with Crowd(server.port, post("/v2/models/scaled/infer", ONE), 8, check) as crowd:
            last = 1
            for version in (2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6):
                assert serve(plain, version).status == 200
                assert serve(plain, last, method="DELETE").status == 200
                last = version
                crowd.grow(20)
            asked = sum(crowd.statuses.values())
        assert not crowd.errors
        assert not crowd.lost
        assert crowd.statuses.keys() == {200}
        assert asked >= 220
        until(lambda: counted(server) == sum(crowd.statuses.values()))
        os.kill(workers(server.process.pid)[1], signal.SIGKILL)
        until(lambda: len(workers(server.process.pid)) == 3)
        assert counted(server) == sum(crowd.statuses.values())


def counted(server: Running) -> float:
    """Requests by the metrics of whichever worker answers."""
    page = requests.get(f"{server.url}/metrics", headers={"Connection": "close"}, timeout=30).text
    lines = [line for line in page.splitlines() if line.startswith("dragoman_requests_total{") and 'model="scaled"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_undeploying_lets_requests_in_flight_finish(tmp_path: Path, root: Path) -> None:
    """None fails; a SIGTERM in the middle of others drains them, too, and ends with 0."""
    build.slow(root / "slow" / "model.onnx")
    with server_of(tmp_path, root) as (server, plain):
        assert plain.post("/v2/repository/models/slow/load").status == 200
        body = {"inputs": [{"name": "rounds", "shape": [1], "datatype": "INT64", "data": [500]}]}
        found: list[int] = []

        def ask() -> None:
            found.append(plain.post("/v2/models/slow/infer", body).status)

        threads = in_threads([ask] * 12)
        until(lambda: pending(server) > 0)
        assert plain.post("/v2/repository/models/slow/unload").status == 200
        for thread in threads:
            thread.join(60)
        assert found == [200] * 12
        assert plain.post("/v2/repository/models/slow/load").status == 200
        found.clear()
        threads = in_threads([ask] * 12)
        until(lambda: pending(server) > 0)
        assert server.terminate() == 0
        for thread in threads:
            thread.join(60)
        assert found == [200] * 12


def test_a_deployed_model_has_one_process_for_all_workers(tmp_path: Path, root: Path) -> None:
    """One per version, while it is deployed."""
    with server_of(tmp_path, root, "--engine", "process") as (server, plain):
        register(plain, root, count=2)
        for version in (1, 2):
            assert serve(plain, version).status == 200
            assert answers(plain, version) == {float(version): CONNECTIONS}
            assert len(model_processes(server.process.pid)) == version
        assert serve(plain, 1, method="DELETE").status == 200
        until(lambda: len(model_processes(server.process.pid)) == 1)
        assert answers(plain, 2) == {2.0: CONNECTIONS}
        assert serve(plain, 2, method="DELETE").status == 200
        until(lambda: not model_processes(server.process.pid))
        assert server.terminate() == 0
