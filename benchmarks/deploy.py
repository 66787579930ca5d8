"""Deployments over Submarine's API: one at a time, two hundred at once, thirty versions in a row under load, and after a kill -9."""

import http.client
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.models import Models
from benchmarks.options import Options
from benchmarks.processes import BenchmarkError, Processes, environment, free_port
from benchmarks.results import Section, Table, Target
from benchmarks.start import ready
from benchmarks.steady import Steady

_WAIT_S = 120.0
_MANY = 200
_AT_ONCE = 16
_VERSIONS = 30
_RATE = 200
_STAY_S = 0.2
"""That each of them serves, at least."""
_ROW = [5.1, 3.5, 1.4, 0.2]
_INFER = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": _ROW}]}


def run(models: Models, options: Options) -> Section:
    section = Section("deploy", "deploy: registered versions of a small ONNX model, through Submarine's API")
    section.parts.append(_one_at_a_time(models, options))
    rolling = [_rolling(models, workers) for workers in (1, 2)]
    section.parts += [_many(models, workers) for workers in (1, 2)]
    section.parts += [line for line, _ in rolling]
    failed = sum(failures for _, failures in rolling)
    section.targets.append(
        Target(f"{_VERSIONS} versions in a row at {_RATE} requests/s: no failed request", f"{failed} failed", failed == 0)
    )
    return section


# --- what is measured ---


def _one_at_a_time(models: Models, options: Options) -> Table:
    """Deploy and undeploy in turns, each waited for."""
    rows = []
    for workers in (1, 4):
        with _server(models, workers) as (port, _):
            _register(port, models, "iris", 1)
            turns = [
                (_timed(port, "POST", "/api/v1/serve", _spec("iris", 1)), _timed(port, "DELETE", "/api/v1/serve", _spec("iris", 1)))
                for _ in range(max(10, options.starts * 10))
            ]
        for what, times in zip(("deploy", "undeploy"), zip(*turns, strict=True), strict=True):
            p50, p95 = np.percentile(times, (50, 95)) * 1e3
            rows.append([what, str(workers), f"{p50:.0f}", f"{p95:.0f}", str(len(times))])
            print(f"  {what}, {workers} workers: p50 {p50:.0f} ms, p95 {p95:.0f} ms", flush=True)
    return Table(("call", "workers", "p50 ms", "p95 ms", "calls"), rows)


def _many(models: Models, workers: int) -> str:
    """Two hundred models by sixteen clients, then killed and started again."""
    folder = models.folder / f"many-{workers}"
    with _server(models, workers, folder) as (port, processes):
        for index in range(_MANY):
            _register(port, models, f"m{index}", 1)
        processes.settle()
        before = processes.memory_mb()
        begin = time.perf_counter()
        with ThreadPoolExecutor(_AT_ONCE) as clients:
            list(clients.map(lambda index: _call(port, "POST", "/api/v1/serve", _spec(f"m{index}", 1)), range(_MANY)))
        took_s = time.perf_counter() - begin
        processes.settle()
        memory = processes.memory_mb() - before
        for pid in processes.ids():
            os.kill(pid, signal.SIGKILL)
    begin = time.perf_counter()
    with _server(models, workers, folder, wait=False) as (port, processes):
        processes.wait_until(lambda: _serves_all(port), _WAIT_S, "every model")
        back_s = time.perf_counter() - begin
    text = (
        f"{_MANY} models with {workers} workers and {_AT_ONCE} clients: all ready after {took_s:.1f} s ({took_s / _MANY * 1e3:.0f} ms each), "
        f"{memory:.0f} MB more ({memory / _MANY:.1f} each). After kill -9 of everything: from the command to all of them ready {back_s:.1f} s."
    )
    print(f"  {text}", flush=True)
    return text


def _rolling(models: Models, workers: int) -> tuple[str, int]:
    """Each version takes the place of the one before, while somebody asks all the time."""
    with _server(models, workers) as (port, _):
        for version in range(1, _VERSIONS + 1):
            _register(port, models, "iris", version)
        _call(port, "POST", "/api/v1/serve", _spec("iris", 1))
        versions: set[str] = set()

        def right(content: bytes) -> bool:
            versions.add(json.loads(content)["model_version"])
            return True

        with Steady(port, "/v2/models/iris/infer", json.dumps(_INFER).encode(), _RATE, right) as load:
            begin = time.perf_counter()
            for version in range(2, _VERSIONS + 1):
                _call(port, "POST", "/api/v1/serve", _spec("iris", version))
                _call(port, "DELETE", "/api/v1/serve", _spec("iris", version - 1))
                time.sleep(_STAY_S)
            took_s = time.perf_counter() - begin
    text = (
        f"{_VERSIONS} versions in a row with {workers} workers under {_RATE} requests/s: {took_s:.1f} s, "
        f"{load.answered} requests answered by {len(versions)} versions, {len(load.failures)} failed; "
        f"median {median(load.times) * 1e3:.1f} ms, longest {max(load.times) * 1e3:.0f} ms."
    )
    print(f"  {text} {load.failures[:3]}", flush=True)
    return text, len(load.failures)


# --- the server and its registry ---


@contextmanager
def _server(models: Models, workers: int, folder: Path | None = None, *, wait: bool = True) -> Iterator[tuple[int, Processes]]:
    """An empty server over the folder of the models, with a data directory of its own unless one is given."""
    port = free_port()
    folder = folder or models.folder / f"deploy-{workers}-{time.monotonic_ns()}"
    folder.mkdir(exist_ok=True)
    command: Sequence[str] = [
        sys.executable, "-m", "dragoman", "serve", "--port", str(port), "--workers", str(workers), "--model-root", str(models.folder),
    ]  # fmt: skip
    with Processes(command, environment({"XDG_DATA_HOME": str(folder)}), folder / "log") as processes:
        if wait:
            processes.wait_until(lambda: ready(port), _WAIT_S, "dragoman")
        yield port, processes


def _register(port: int, models: Models, name: str, version: int) -> None:
    if version == 1:
        _call(port, "POST", "/api/v1/registered-model", {"name": name})
    _call(port, "POST", f"/api/v1/model-version?baseDir={models.iris.name}", {"name": name, "userId": "", "experimentId": "e"})


def _spec(name: str, version: int) -> dict[str, Any]:
    return {"modelName": name, "modelVersion": version}


def _timed(port: int, method: str, path: str, body: object) -> float:
    begin = time.perf_counter()
    _call(port, method, path, body)
    return time.perf_counter() - begin


def _call(port: int, method: str, path: str, body: object) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_WAIT_S)
    try:
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise BenchmarkError(f"{method} {path} with {body}: {answer.status} {content[:300]!r}")
    return json.loads(content)


def _serves_all(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_WAIT_S)
        connection.request("POST", "/v2/repository/index", '{"ready": true}', {"Content-Type": "application/json"})
        answer = connection.getresponse()
        models = json.loads(answer.read())
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return answer.status == 200 and len(models) == _MANY
