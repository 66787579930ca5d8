"""Load by wrk: one fixed request on a number of connections, each waiting for its answer before the next request."""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import BenchmarkError
from benchmarks.traffic import Shot

_SCRIPT = """\
local file = io.open("{body}", "rb")
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
{headers}
function done(summary, latency)
  local errors = summary.errors
  print(string.format("figures %d %d %d %d %d %d", summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"""
_FIGURES = re.compile(r"^figures (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Load:
    """What one run did."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    refused: int
    """Answers with a status of 400 or more."""
    broken: int
    """Connections that failed and answers that never came."""

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def load(port: int, shot: Shot, connections: int, seconds: int) -> Load:
    """Send the shot for some seconds. wrk uses one thread, which is enough for several times what the servers do."""
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder, "body")
        body.write_bytes(shot.body)
        script = Path(folder, "load.lua")
        script.write_text(
            _SCRIPT.format(body=body, headers="\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in shot.headers.items()))
        )
        url = f"http://127.0.0.1:{port}{shot.path}"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script), url]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
        except FileNotFoundError as error:
            raise BenchmarkError("this needs wrk: sh scripts/system_packages.sh wrk") from error
    return read(done.stdout + done.stderr)


def read(text: str) -> Load:
    """The figures in what wrk printed."""
    found = _FIGURES.search(text)
    if found is None:
        raise BenchmarkError(f"wrk failed: {' '.join(text.split())[-300:]}")
    requests, micros, p50, p99, refused, broken = map(int, found.groups())
    return Load(requests, micros / 1e6, p50 / 1e3, p99 / 1e3, refused, broken)
