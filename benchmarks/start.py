"""From the command to the first 200 of /v2/health/ready with one small ONNX model, and which imports that time goes to."""

import re
import socket
import sys
import time
from collections.abc import Mapping
from statistics import median

from benchmarks.models import Models
from benchmarks.options import Options
from benchmarks.processes import BenchmarkError, Processes, environment, free_port
from benchmarks.results import Section, Table, Target

_MOST_S = 1.0
_WAIT_S = 60.0
_SHOWN = 10
_IMPORT = re.compile(r"^import time:\s+(\d+) \|\s+\d+ \| +(\S+)$", re.MULTILINE)


def run(models: Models, options: Options) -> Section:
    section = Section("start", "start: one small ONNX model, command to ready")
    rows = []
    for workers in (1, 2):
        times = [start(models, workers)[0] for _ in range(options.starts + 1)][1:]  # the first one fills the disk cache
        rows.append([str(workers), f"{median(times):.2f}", ", ".join(f"{each:.2f}" for each in sorted(times))])
        print(f"  {workers} workers: {median(times):.2f} s", flush=True)
        if workers == 1:
            section.targets.append(Target("one worker: below 1 s", f"{median(times):.2f} s", median(times) < _MOST_S))
    imports = by_package(start(models, 1, "-X", "importtime")[1])
    total = sum(imports.values())
    top = sorted(imports.items(), key=lambda item: -item[1])[:_SHOWN]
    section.parts += [
        Table(("workers", "median s", "all s"), rows),
        f"Imports of one worker, {total / 1e6:.2f} s together (measuring itself makes them slower):",
        Table(("package", "ms", "share"), [[name, f"{spent / 1e3:.0f}", f"{spent / total:.0%}"] for name, spent in top]),
    ]
    return section


def start(models: Models, workers: int, *python_options: str) -> tuple[float, str]:
    """Start once; returns seconds until it was ready, and what the command printed."""
    port = free_port()
    arguments = ["serve", str(models.iris), "--port", str(port), "--workers", str(workers)]
    command = [sys.executable, *python_options, "-m", "dragoman", *arguments]
    env = environment({"XDG_DATA_HOME": str(models.folder / "data")})
    begin = time.perf_counter()
    with Processes(command, env, models.folder / "start.log") as processes:
        processes.wait_until(lambda: ready(port), _WAIT_S, "dragoman")
        took_s = time.perf_counter() - begin
        if not processes.listens(port):
            raise BenchmarkError(f"port {port} was taken by somebody else meanwhile")
    return took_s, processes.output()


def ready(port: int) -> bool:
    """Ask once."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_WAIT_S) as connection:
            connection.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def by_package(text: str) -> Mapping[str, int]:
    """Microseconds of own time of every import in what `-X importtime` printed, by top-level package."""
    spent: dict[str, int] = {}
    for micros, module in _IMPORT.findall(text):
        top = module.partition(".")[0]
        name = "Python's standard library" if top in sys.stdlib_module_names else top
        spent[name] = spent.get(name, 0) + int(micros)
    return spent
