"""Jobs: from `dragoman run` to the first answer, the endpoint beside a call of the program itself, what clients see when it is killed, memory.

The program does nothing but send back its input, and takes a connection per request as Flask's own server does: what is between it and its
client shows as much as it can.
"""

import collections
import http.client
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks import servers
from benchmarks.models import Models
from benchmarks.options import Options
from benchmarks.processes import BenchmarkError, Processes, environment, free_port, memory_of
from benchmarks.results import Section, Table

_APP = servers.SCRIPTS / "apps" / "echo_job.py"
_BODIES = {"small (100 bytes)": b"x" * 100, "12 MiB": b"x" * (12 << 20)}
_READY_S = 120.0
_CLIENTS = 8
_ENDPOINT = re.compile(r"http://[^\s/]+(/expose/\S+)")


def run(models: Models, options: Options) -> Section:
    section = Section("jobs", "jobs: an endpoint beside its program called directly")
    code = models.folder / "echo"
    code.mkdir()
    shutil.copy(_APP, code / "app.py")
    direct = free_port()
    env = environment({"PORT": str(direct)})
    with (
        servers.dragoman(models, workers=1) as ours,
        Processes([sys.executable, str(code / "app.py")], env, models.folder / "direct.log") as processes,
    ):
        for each, port in ((ours.processes, ours.port), (processes, direct)):
            each.wait_until(lambda each=each, port=port: each.listens(port), _READY_S, "the server")  # type: ignore[misc] # mypy cannot see the defaults
        _command(code, ours.port, "init", "echo")
        starts = []
        for _ in range(max(2, options.starts)):
            began = time.perf_counter()
            path = _started(code, ours.port)
            starts.append(time.perf_counter() - began)
        section.parts.append(f"- from `dragoman run` to the first 200: {starts[0]:.1f} s, again {median(starts[1:]):.1f} s")
        rows = []
        for name, body in _BODIES.items():
            ratios, ms = [], []
            for _ in range(options.pairs):
                plain = _latency(direct, "/", body, options.seconds)
                through = _latency(ours.port, path, body, options.seconds)
                ratios.append(through / plain)
                ms.append((plain * 1000, through * 1000))
            own, endpoint = (median(each) for each in zip(*ms, strict=True))
            rows.append((name, f"{own:.2f} ms", f"{endpoint:.2f} ms", f"{median(ratios):.2f}"))
        section.parts.append(Table(("body, there and back", "the program itself", "its endpoint", "ratio"), rows))
        count = 10_000 if options.pairs > 1 else 1_000
        seen = _killed(ours.port, path, count)
        section.parts.append(Table((f"{count} requests, the program killed in the middle: clients saw", "times"), seen))
        jobs = 20 if options.pairs > 1 else 4
        section.parts.append(f"- memory of ours per job, with {jobs} jobs at once: {_memory(code, ours, jobs) / 2**20:.1f} MiB")
    return section


def _memory(code: Path, ours: servers.Server, count: int) -> float:
    """Bytes that every further job takes besides its program: in the server, in its first process, and in what keeps it apart."""
    before = _besides_programs(ours)
    for _ in range(count):
        _started(code, ours.port)
    return (_besides_programs(ours) - before) / count


def _besides_programs(ours: servers.Server) -> int:
    """Bytes of the server and of all that it has started, but for the programs themselves."""
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in ours.processes.ids()}
    return sum(memory_of(pid, "Pss") for pid, words in commands.items() if b"app.py" not in words.split(b"\0"))


def _command(code: Path, port: int, *arguments: str) -> str:
    """What `dragoman ARGUMENTS` printed, run in the folder of the code."""
    env = environment({"DRAGOMAN_URL": f"http://127.0.0.1:{port}", "HOME": str(code.parent)})
    done = subprocess.run(
        [sys.executable, "-m", "dragoman", *arguments], cwd=code, env=env, capture_output=True, text=True, timeout=_READY_S
    )
    if done.returncode:
        raise BenchmarkError(f"dragoman {arguments[0]} failed: {done.stdout[-500:]} {done.stderr[-1000:]}")
    return done.stdout


def _started(code: Path, port: int) -> str:
    """The path of a new job's endpoint, once it answers."""
    printed = _command(code, port, "run", "--mode", "serve")
    found = _ENDPOINT.search(printed)
    if found is None:
        raise BenchmarkError(f"no endpoint in {printed!r}")
    deadline = time.monotonic() + _READY_S
    while _status(port, found[1], b"x") != 200:
        if time.monotonic() > deadline:
            raise BenchmarkError("the job did not start")
        time.sleep(0.01)
    return found[1]


def _status(port: int, path: str, body: bytes) -> int:
    """The status of an answer that is whole, 0 for none."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        client.request("POST", path, body)
        answer = client.getresponse()
        got = answer.read()
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        client.close()
    if answer.status == 200 and len(got) != len(body):
        raise BenchmarkError("a body came back at another length")
    return answer.status


def _latency(port: int, path: str, body: bytes, seconds: int) -> float:
    """Seconds that a request takes, by the median of those in this time."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end or not times:
        if (status := _status(port, path, body)) != 200:
            raise BenchmarkError(f"{path} answered {status}")
        times.append(time.perf_counter() - began)
    return median(times)


def _killed(port: int, path: str, count: int) -> list[tuple[str, str]]:
    """How often clients saw what, when the program kills itself half-way."""
    statuses: collections.Counter[int] = collections.Counter()
    lock, numbers = threading.Lock(), iter(range(count))

    def ask() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            status = _status(port, path + "/die" if number == count // 2 else path, b"x" * 100)
            with lock:
                statuses[status] += 1

    _together(ask)
    words = {0: "no answer", 502: "502, bad gateway", 503: "503, come again", 410: "410, it has ended"}
    return [(words.get(status, str(status)), str(times)) for status, times in sorted(statuses.items())]


def _together(ask: Callable[[], None]) -> None:
    threads = [threading.Thread(target=ask) for _ in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
