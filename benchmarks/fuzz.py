"""Fuzz a whole server over real sockets for as long as wanted: `python -m benchmarks.fuzz --dialect v2 --requests 100000 --seed 1`.

Starts `dragoman serve` with models of every kind, sends valid and broken requests from one process over a few kept connections (for
`http`, which is about framing, over a connection each), judges every answer and prints what it found. The exit code is 1 if an answer was
wrong, something was logged as an error, or memory or descriptors grew. The same seed sends the same requests. A short run of the same is
part of the tests: tests/e2e/test_fuzz.py.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.e2e.running import serving
from tests.fuzz import submarine
from tests.fuzz.driver import DIALECTS, Driver, Report, logged_errors
from tests.fuzz.models import make

MOST_GROWTH_BYTES = 24 << 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--dialect", choices=DIALECTS, required=True)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--connections", type=int, default=4, help="requests in flight (default: 4)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dragoman-fuzz-") as folder:
        models = make(Path(folder) / "models")
        registry = submarine.write(Path(folder) / "registry")
        with serving(Path(folder), str(models), "--model-root", str(registry)) as server:
            driver = Driver(server.port, server.process.pid, options.dialect, options.seed, options.connections)
            report = driver.run(options.requests, _progress)
            alive = server.process.poll() is None
            code = server.terminate()
        errors = logged_errors(server.lines)
    return show(report, options.dialect, options.seed, errors, alive=alive and code == 0)


def show(report: Report, dialect: str, seed: int, errors: list[str], *, alive: bool) -> int:
    """Print a report; the exit code."""
    growth = report.rss_end - report.rss_warm
    print(
        f"\n{dialect}, seed {seed}: {report.requests} requests ({report.valid} valid) on {report.connections} connections, {report.seconds:.0f} s"
    )
    print("  statuses        " + ", ".join(f"{status}: {number}" for status, number in sorted(report.statuses.items())))
    print(f"  5xx             {report.count(500, 599)}, of which 500: {report.statuses[500]}")
    print(
        f"  memory          {report.rss_before >> 20} MiB at the start, {report.rss_warm >> 20} MiB warm, {report.rss_end >> 20} MiB at the end"
    )
    print(f"  descriptors     {report.descriptors_before} before, {report.descriptors_after} after")
    print(f"  logged errors   {len(errors)}")
    print(f"  wrong answers   {len(report.failures)}")
    for failure in report.failures:
        print(f"- {failure}")
    for line in errors[:20]:
        print(f"- logged: {line.rstrip()[:3000]}")
    grown = growth > MOST_GROWTH_BYTES or report.descriptors_after > report.descriptors_before
    return 1 if report.failures or errors or grown or not alive else 0


def _progress(report: Report) -> None:
    print(f"{report.requests} requests, {len(report.failures)} wrong, {report.rss_now >> 20} MiB", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
