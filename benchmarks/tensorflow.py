"""SavedModels over TensorFlow Serving's REST and gRPC, against TensorFlow called directly: what the server adds to a call; and reloads under load."""

import http.client
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import orjson

from benchmarks import rpc, servers
from benchmarks.models import Models
from benchmarks.options import Options
from benchmarks.processes import BenchmarkError, Processes, environment, free_port
from benchmarks.results import Section, Table, Target
from benchmarks.servers import Server
from benchmarks.steady import Steady
from benchmarks.traffic import JSON, Shot
from benchmarks.wrk import Load
from benchmarks.wrk import load as http_load
from dragoman.proto.messages import new
from tests.models import savedmodels

_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_IMAGE = (1, 224, 224, 3)
_RATE = 500
_SWAPS = 10

_DIRECT = """
import sys, time, json
import numpy as np, tensorflow as tf
folder, name, shape, seconds = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), float(sys.argv[4])
model = tf.saved_model.load(folder)
call = model.signatures["serving_default"]
value = tf.constant(np.ones(shape, np.float32))
for _ in range(5):
    call(**{name: value})
times = []
until = time.perf_counter() + seconds
while time.perf_counter() < until:
    begin = time.perf_counter()
    value = tf.constant(np.ones(shape, np.float32))
    {key: output.numpy() for key, output in call(**{name: value}).items()}
    times.append(time.perf_counter() - begin)
times.sort()
print(json.dumps([len(times) / sum(times), times[len(times) // 2] * 1e3, times[len(times) * 99 // 100] * 1e3]))
"""


def run(models: Models, options: Options) -> Section:
    section = Section("tensorflow", "tensorflow: SavedModels over REST and gRPC, one worker")
    for name, key, shape, most in (("half_plus_two", "x", (1, 1), 16), ("resnet", "keras_tensor", _IMAGE, 2)):
        section.parts += _overhead(models, options, name, key, shape, (1, most))
    for workers in (1, 2):
        text, failed = _swaps(models, workers)
        section.parts.append(text)
        section.targets.append(
            Target(f"{_SWAPS} reloads under {_RATE} requests/s, {workers} workers: no failed request", f"{failed} failed", not failed)
        )
    return section


def _overhead(models: Models, options: Options, name: str, key: str, shape: tuple[int, ...], at_once: Sequence[int]) -> list[Table | str]:
    """Requests per second and times, beside the same calls in one process without a server."""
    folder = savedmodels.path(name)
    rows: list[list[str]] = []
    body = orjson.dumps({"inputs": {key: np.ones(shape, np.float32)}}, option=orjson.OPT_SERIALIZE_NUMPY)
    message = models.folder / f"{name}.message"
    message.write_bytes(_message(name, key, shape))
    for engine in ("process", "local"):
        rate, p50, p99 = _direct(folder, key, shape, options.seconds)  # again, as a machine is not the same for minutes
        rows.append(["TensorFlow in process", "1", f"{rate:,.0f}", f"{p50:.2f}", f"{p99:.2f}", ""])
        with _served(models, folder.parent, name, engine) as (server, grpc_port):
            shot = Shot(f"/v1/models/{name}:predict", JSON, body, _unread)
            for connections in at_once:
                for protocol in ("REST", "gRPC"):
                    found = _load(protocol, server, grpc_port, shot, message, connections, options.seconds)
                    over = f"{(found.p50_ms - p50) * 1e3:,.0f}" if connections == 1 else ""
                    rows.append(
                        [
                            f"{protocol}, {engine} engine",
                            str(connections),
                            f"{found.rate:,.0f}",
                            f"{found.p50_ms:.2f}",
                            f"{found.p99_ms:.2f}",
                            over,
                        ]
                    )
                    print(f"  {name} {rows[-1]}", flush=True)
                    if found.refused or found.broken:
                        raise BenchmarkError(f"{found.refused + found.broken} requests failed")
    head = ("called by", "at a time", "calls/s", "p50 ms", "p99 ms", "p50 over direct, us")
    sizes = f"{len(body):,} bytes of JSON, {message.stat().st_size:,} of protobuf"
    return [f"### {name}: {' x '.join(map(str, shape))} FP32, {sizes}", Table(head, rows)]


def _unread(_headers: Mapping[str, str], _body: bytes) -> list[float]:
    return []


def _direct(folder: Path, key: str, shape: tuple[int, ...], seconds: int) -> tuple[float, float, float]:
    command = [sys.executable, "-c", _DIRECT, str(folder), key, json.dumps(shape), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120, check=False, env=environment())
    if done.returncode:
        raise BenchmarkError(f"TensorFlow failed: {done.stderr.strip()[-300:]}")
    rate, p50, p99 = json.loads(done.stdout.splitlines()[-1])
    return rate, p50, p99


def _message(name: str, key: str, shape: tuple[int, ...]) -> bytes:
    message: Any = new("tensorflow.serving.PredictRequest")
    message.model_spec.name = name
    tensor = message.inputs[key]
    tensor.dtype = 1
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = np.ones(shape, np.float32).tobytes()
    encoded: bytes = message.SerializeToString()
    return encoded


def _load(protocol: str, server: Server, grpc_port: int, shot: Shot, message: Path, connections: int, seconds: int) -> Load:
    if protocol == "REST":
        http_load(server.port, shot, connections, 1)
        return http_load(server.port, shot, connections, seconds)
    return rpc.load(grpc_port, _PREDICT, message, connections, seconds)


@contextmanager
def _served(models: Models, base: Path, name: str, engine: str) -> Iterator[tuple[Server, int]]:
    grpc_port = free_port()
    with servers.dragoman(models, Path(f"{name}={base}"), workers=1, flags=("--grpc-port", str(grpc_port), "--engine", engine)) as server:
        server.processes.wait_until(lambda: server.processes.listens(server.port), 120, "the server")
        yield server, grpc_port


# --- reloads ---


def _swaps(models: Models, workers: int) -> tuple[str, int]:
    """Version folders come and go below the base path of a served model, while somebody asks at a constant rate."""
    base = models.folder / f"swapped-{workers}"
    savedmodels.copy("half_plus_two", base / "1")
    port, grpc_port = free_port(), free_port()
    command = [
        sys.executable, "-m", "dragoman", "tfserving", f"--port={grpc_port}", f"--rest_api_port={port}", "--model_name=half_plus_two",
        f"--model_base_path={base}", f"--data-dir={models.folder / f'swaps-data-{workers}'}",
    ]  # fmt: skip
    with Processes(command, environment({"DRAGOMAN_WORKERS": str(workers)}), models.folder / "swaps.log") as processes:
        processes.wait_until(lambda: processes.listens(port) and _serves(port, "1"), 120, "the server")
        with Steady(port, "/v1/models/half_plus_two:predict", b'{"instances": [1.0, 2.0, 5.0]}', _RATE, _right) as asked:
            for version in range(2, _SWAPS + 2):
                savedmodels.copy("half_plus_two", base / str(version))
                processes.wait_until(partial(_serves, port, str(version)), 60, f"version {version}")
                shutil.rmtree(base / str(version - 1))
    text = (
        f"{_SWAPS} versions of half_plus_two in a row with {workers} workers under {_RATE} requests/s: {asked.answered} answered, "
        f"{len(asked.failures)} failed; median {median(asked.times) * 1e3:.1f} ms, longest {max(asked.times) * 1e3:.0f} ms."
    )
    print(f"  {text} {asked.failures[:2]}", flush=True)
    return text, len(asked.failures)


def _right(content: bytes) -> bool:
    return bool(orjson.loads(content) == {"predictions": [2.5, 3.0, 4.5]})


def _serves(port: int, version: str) -> bool:
    """Whether that version is the one that answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/v1/models/half_plus_two/metadata")
        answer = connection.getresponse()
        content = answer.read()
        return answer.status == 200 and orjson.loads(content)["model_spec"]["version"] == version
    finally:
        connection.close()
