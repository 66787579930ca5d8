"""A model that takes 5 ms whatever the number of rows, 64 clients: how much of the ideal batched throughput is reached.

Ideal is 32 rows divided by what a run with 32 rows takes in onnxruntime alone, measured in this process right before and after each load,
with nothing else running: no server, no requests, never a pause between two runs.
"""

import http.client
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import orjson

from benchmarks import servers
from benchmarks.models import Models, predictor, run_times_s, steady
from benchmarks.options import Options
from benchmarks.processes import BenchmarkError
from benchmarks.results import Section, Table, Target
from benchmarks.traffic import JSON, Array, Shot, fire
from benchmarks.wrk import load

CLIENTS = 64
BATCH = 32
RUN_S = 0.005
_LEAST = 0.9


@dataclass(frozen=True, slots=True)
class Turn:
    rate: float
    p50_ms: float
    p99_ms: float
    alone_s: float
    """A run with a full batch, without the server."""
    inside_s: float
    """A run as the server itself measured it."""
    rows: float
    """Mean rows of a run."""

    @property
    def of_ideal(self) -> float:
        return self.rate * self.alone_s / BATCH


def run(models: Models, options: Options) -> Section:
    path = steady(Path(models.folder, "steady.onnx"), RUN_S)
    predict = predictor(path)
    row = [0.25, 0.5, 0.75, 1.0]
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": row}
    shot = Shot("/v2/models/steady/infer", JSON, orjson.dumps({"inputs": [tensor]}), _numbers, row)
    check_identity(predict(np.array([row], np.float32))[0], row)
    turns = []
    with servers.dragoman(models, path, workers=1, flags=("--threads", "1", "--batch-size", str(BATCH))) as server:
        server.wait([shot])
        load(server.port, shot, CLIENTS, 1)
        for _ in range(options.pairs):
            before_s = median(run_times_s(predict, BATCH))
            count, rows, nanoseconds = _executions(server.port)
            done = load(server.port, shot, CLIENTS, options.seconds)
            count_after, rows_after, nanoseconds_after = _executions(server.port)
            fire(server.port, [shot])
            if done.refused or done.broken:
                raise BenchmarkError(f"the 5 ms model failed to answer {done.refused + done.broken} requests")
            runs = count_after - count
            alone_s = (before_s + median(run_times_s(predict, BATCH))) / 2
            turn = Turn(
                done.rate, done.p50_ms, done.p99_ms, alone_s, (nanoseconds_after - nanoseconds) / runs / 1e9, (rows_after - rows) / runs
            )
            print(f"  {turn.rate:.0f} req/s of {BATCH / turn.alone_s:.0f}: {turn.of_ideal:.1%}", flush=True)
            turns.append(turn)
    share = median(turn.of_ideal for turn in turns)
    head = ("req/s", "ideal", "of ideal", "p50 ms", "p99 ms", "run of 32 alone ms", "run inside ms", "rows a run", "time in runs")
    return Section(
        "slow",
        "slow: a 5 ms model that batches well, 64 connections, one worker",
        [Table(head, [_row(turn) for turn in turns])],
        [Target("at least 90 % of ideal batched throughput", f"{share:.1%}", share >= _LEAST)],
    )


def check_identity(got: Array, expected: list[float]) -> None:
    """The model must answer its input."""
    if got.tolist() != [expected]:
        raise BenchmarkError(f"the model made for this answers {got.tolist()}, expected {[expected]}")


def _row(turn: Turn) -> list[str]:
    busy = turn.rate / turn.rows * turn.inside_s
    return [
        f"{turn.rate:,.0f}",
        f"{BATCH / turn.alone_s:,.0f}",
        f"**{turn.of_ideal:.1%}**",
        f"{turn.p50_ms:.1f}",
        f"{turn.p99_ms:.1f}",
        f"{turn.alone_s * 1e3:.2f}",
        f"{turn.inside_s * 1e3:.2f}",
        f"{turn.rows:.1f}",
        f"{busy:.1%}",
    ]


def _executions(port: int) -> tuple[int, int, int]:
    """Runs, rows and nanoseconds in runs so far, by the server's own statistics."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/v2/models/steady/stats")
        stats = orjson.loads(connection.getresponse().read())["model_stats"][0]
    finally:
        connection.close()
    return stats["execution_count"], stats["inference_count"], sum(each["compute_infer"]["ns"] for each in stats["batch_stats"])


def _numbers(_headers: object, body: bytes) -> list[float]:
    return list(orjson.loads(body)["outputs"][0]["data"])
