"""MLRun's dialect beside MLRun 1.12.1's own mock server: plain lists and infer_dict for one class file, and the same lists for an ONNX model.

The mock has no HTTP: it is called in its own process, one call after the other. What we do includes client, socket, HTTP and the way to the
model's process and back.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import IO, Any

import orjson

from benchmarks import servers
from benchmarks.models import Models
from benchmarks.options import Options
from benchmarks.processes import BenchmarkError, environment
from benchmarks.results import Section, Table
from benchmarks.servers import Server
from benchmarks.traffic import IRIS_ROWS, JSON, Shot
from benchmarks.wrk import load

_PEER = "mlrun"
_APP = servers.SCRIPTS / "apps" / "mlrun_iris"
_NAMES = ("sepal_length", "sepal_width", "petal_length", "petal_width")
_CLIENTS = (1, 16)


def run(models: Models, options: Options) -> Section:
    section = Section("mlrun", "mlrun: plain lists, beside MLRun 1.12.1's mock server, which is called in its own process")
    reason = servers.install(_PEER)
    if reason:
        section.parts.append(f"- {_PEER} is left out, it cannot be installed: {reason}")
    rows = [list(row) for row in IRIS_ROWS]
    bodies = {"infer": {"inputs": rows}, "infer_dict": {"inputs": [dict(zip(_NAMES, row, strict=True)) for row in rows]}}
    arguments = f"iris={json.dumps({'model_path': str(_APP)})}"
    with (
        servers.dragoman(models, f"iris={_APP / 'iris.py'}:Iris", workers=1, flags=("--class-args", arguments)) as ours,
        _mock(models, reason) as theirs,
    ):
        for operation, body in bodies.items():
            expected = theirs.ask(operation, body, 0)["outputs"] if theirs else None
            section.parts.append(_compared(ours, theirs, operation, body, expected, options))
    with servers.dragoman(models, models.iris, workers=1) as ours:
        section.parts.append(_compared(ours, None, "infer", bodies["infer"], None, options, " of an ONNX model"))
    return section


class _Mock:
    """The mock server, over a pipe."""

    def __init__(self, stdin: IO[str], stdout: IO[str]) -> None:
        self._stdin = stdin
        self._stdout = stdout
        while (line := stdout.readline()) and line != "ready\n":
            pass
        if not line:
            raise BenchmarkError("MLRun's mock server did not start")

    def ask(self, operation: str, body: Any, seconds: int) -> dict[str, Any]:
        """An answer of the mock, or with seconds what many calls took."""
        path = f"/v2/models/iris/{operation}"
        self._stdin.write(json.dumps({"path": path, "body": body, "seconds": seconds}) + "\n")
        self._stdin.flush()
        while line := self._stdout.readline():
            if line.startswith("{"):  # it prints notes of its own
                found: dict[str, Any] = json.loads(line)
                return found
        raise BenchmarkError("MLRun's mock server has ended")


@contextmanager
def _mock(models: Models, missing: str) -> Iterator[_Mock | None]:
    if missing:
        yield None
        return
    kept = {"PEER_PYTHON": sys.executable, "MODELS": str(models.folder)}
    if "PEERS_DIR" in os.environ:
        kept["PEERS_DIR"] = os.environ["PEERS_DIR"]
    env = {name: value for name, value in environment(kept).items() if name != "PYTHONPATH"}
    command = [str(servers.SCRIPTS / f"{_PEER}.sh"), "run"]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield _Mock(process.stdin, process.stdout)
        finally:
            process.kill()


def _compared(
    ours: Server, theirs: _Mock | None, operation: str, body: Any, expected: list[float] | None, options: Options, what: str = ""
) -> Table:
    """In turns: ours over HTTP at each number of clients, and the mock in its process."""
    shot = Shot(f"/v2/models/iris/{operation}", JSON, orjson.dumps(body), _numbers if expected else _any, expected or [1])
    ours.wait([shot])
    rows = []
    for clients in _CLIENTS:
        done, its = [], []
        for _ in range(options.pairs):
            done.append(load(ours.port, shot, clients, options.seconds))
            if done[-1].refused or done[-1].broken:
                raise BenchmarkError(f"{done[-1].refused + done[-1].broken} requests were not answered")
            if theirs is not None:
                its.append(theirs.ask(operation, body, options.seconds))
        rate = median(each.rate for each in done)
        p50, p99 = (median(getattr(each, name) for each in done) for name in ("p50_ms", "p99_ms"))
        row = [f"{operation}{what}", str(clients), f"{rate:,.0f}", f"{p50:.2f} / {p99:.2f}"]
        if its:
            ratio = median(mine.rate / each["rate"] for mine, each in zip(done, its, strict=True))
            row += [f"{median(e['rate'] for e in its):,.0f}", f"{median(e['p50_ms'] for e in its):.2f}", f"**{ratio:.2f}**"]
        else:
            row += ["-", "-", "-"]
        print(f"  {row}", flush=True)
        rows.append(row)
    head = ("operation", "clients", "req/s over HTTP", "p50 / p99 ms", "mock: calls/s, no HTTP", "its p50 ms", "ratio")
    return Table(head, rows)


def _numbers(_headers: object, body: bytes) -> list[float]:
    found: list[float] = orjson.loads(body)["outputs"]
    return found


def _any(_headers: object, body: bytes) -> list[int]:
    return [int(len(orjson.loads(body)["outputs"]) == len(IRIS_ROWS))]
