"""Memory: of an idle worker, after hundreds of thousands of requests, and after loading and unloading a large model again and again."""

import http.client
import subprocess
import sys

import numpy as np
import orjson

from benchmarks import servers
from benchmarks.models import Models, predictor
from benchmarks.options import Options
from benchmarks.processes import BenchmarkError, environment, memory_of
from benchmarks.results import Section, Table, Target
from benchmarks.servers import Server
from benchmarks.traffic import JSON, Shot, fire, iris_v2
from benchmarks.wrk import load
from tests.models import build

_MOST_IDLE_MB = 120
_LARGE_MB = 100
_CHUNK_S = 1
_WARM_REQUESTS = 10_000
_LONGEST_CHUNKS = 300
_GROWTH_MB = 2.0
"""What may be noise of the allocator: one request more in flight than before costs less than a page, a fragmented arena a megabyte."""
_KEPT_SHARE = 0.1
"""Of one model: memory that the allocator keeps after the last unload. A leak of one load in ten would be fifty times that."""
_FLOOR = """\
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
print(next(line.split()[1] for line in open("/proc/self/smaps_rollup") if line.startswith("Rss:")))
"""


def run(models: Models, options: Options) -> Section:
    section = Section("memory", "memory")
    _idle(models, section)
    _growth(models, options, section)
    _loads(models, options, section)
    return section


def _idle(models: Models, section: Section) -> None:
    shots = iris_v2(models.predict_iris)
    floor = subprocess.run(
        [sys.executable, "-c", _FLOOR, str(models.iris)], env=environment(), capture_output=True, text=True, check=True, timeout=60
    )
    rows = [["no server: Python, NumPy, onnxruntime, the same model", f"{int(floor.stdout) * 1024 / 1e6:.0f}", ""]]
    largest = 0.0
    for workers in (1, 2):
        with servers.dragoman(models, models.iris, workers=workers) as server:
            server.wait(shots)
            processes = server.processes
            for pid in processes.workers() if workers > 1 else [processes.pid]:
                rss = memory_of(pid) / 1e6
                largest = max(largest, rss)
                rows.append([f"a worker of {workers}", f"{rss:.0f}", f"{memory_of(pid, 'Pss') / 1e6:.0f}"])
            if workers > 1:
                rows.append(["its supervisor", f"{memory_of(processes.pid) / 1e6:.0f}", f"{memory_of(processes.pid, 'Pss') / 1e6:.0f}"])
    section.parts += ["### Idle, one small ONNX model", Table(("process", "RSS MB", "PSS MB"), rows)]
    section.targets.append(Target(f"idle worker below {_MOST_IDLE_MB} MB", f"{largest:.0f} MB", largest < _MOST_IDLE_MB))


def _growth(models: Models, options: Options, section: Section) -> None:
    shots = iris_v2(models.predict_iris)
    with servers.dragoman(models, models.iris, workers=1) as server:
        server.wait(shots)
        _send(server, shots[0], min(_WARM_REQUESTS, options.requests))
        first = memory_of(server.processes.pid) / 1e6
        rows = [["0", f"{first:.1f}"]]
        total = 0
        for part in (1, 2, 3, 4):
            total += _send(server, shots[0], options.requests * part // 4 - total)
            rows.append([f"{total:,}", f"{memory_of(server.processes.pid) / 1e6:.1f}"])
        fire(server.port, shots)
        grown = memory_of(server.processes.pid) / 1e6 - first
    section.parts += ["### Under load, one worker, iris, 64 connections", Table(("requests after warming up", "RSS MB"), rows)]
    section.targets.append(Target(f"no growth over {options.requests:,} requests", f"{grown:+.1f} MB over {total:,}", grown < _GROWTH_MB))


def _send(server: Server, shot: Shot, count: int) -> int:
    """Send at least so many requests; returns how many."""
    sent = 0
    for _ in range(_LONGEST_CHUNKS):
        if sent >= count:
            return sent
        sent += load(server.port, shot, 64, _CHUNK_S).requests
    raise BenchmarkError(f"only {sent} of {count} requests were answered in {_LONGEST_CHUNKS * _CHUNK_S} s")


def _loads(models: Models, options: Options, section: Section) -> None:
    path = build.large(models.folder / "large.onnx", _LARGE_MB)
    row = np.ones((1, 64), np.float32)
    tensor = {"name": "x", "shape": [1, 64], "datatype": "FP32", "data": row.ravel().tolist()}
    body = orjson.dumps({"inputs": [tensor]})
    numbers = predictor(path)(row)[0].ravel()[:8].tolist()
    shot = Shot("/v2/models/large/infer", JSON, body, lambda _headers, answer: orjson.loads(answer)["outputs"][0]["data"][:8], numbers)
    small = iris_v2(models.predict_iris)
    rows = []
    with servers.dragoman(models, models.iris, path, workers=1) as server:
        server.wait([*small, shot])
        pid = server.processes.pid

        def note(what: str) -> float:
            server.processes.settle()  # an unload is answered before the last of the model is gone
            now = memory_of(pid) / 1e6
            rows.append([what, f"{now:.1f}"])
            return now

        note("both models loaded by the command line")
        _control(server.port, "unload")
        before = note("large model unloaded")
        highest = 0.0
        for number in range(1, options.loads + 1):
            _control(server.port, "load")
            fire(server.port, [shot])
            highest = max(highest, memory_of(pid) / 1e6)
            _control(server.port, "unload")
            if number in (1, options.loads // 2):
                note(f"after {number} loads and unloads")
        after = note(f"after {options.loads} loads and unloads")
        fire(server.port, small)
    rows.append(["highest in between, loaded", f"{highest:.1f}"])
    kept = after - before
    section.parts += [f"### {options.loads} loads and unloads of a {_LARGE_MB} MB ONNX model", Table(("moment", "RSS MB"), rows)]
    section.targets.append(Target("the memory comes back", f"{kept:+.1f} MB after {options.loads}", kept < _LARGE_MB * _KEPT_SHARE))


def _control(port: int, action: str) -> None:
    """Load or unload the large model, as a client of the protocol does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", f"/v2/repository/models/large/{action}", b"{}", JSON)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise BenchmarkError(f"{action} was answered by {answer.status}: {body[:200].decode('utf-8', 'replace')}")
    finally:
        connection.close()
