"""Run the benchmarks: `python -m benchmarks [SECTION...]`. Prints tables and writes them to benchmarks/RESULTS.md."""

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import (
    deploy,
    engines,
    grpc_calls,
    image,
    installed,
    iris,
    jobs,
    json_bodies,
    memory,
    mlrun,
    slow,
    start,
    store,
    streams,
    tensorflow,
    tungsten,
)
from benchmarks.models import Models
from benchmarks.options import Options
from benchmarks.processes import BenchmarkError
from benchmarks.results import Section, circumstances, markdown, write
from benchmarks.servers import PEERS

SECTIONS: Mapping[str, Callable[[Models, Options], Section]] = {
    "iris": iris.run,
    "image": image.run,
    "json": json_bodies.run,
    "slow": slow.run,
    "engines": engines.run,
    "start": start.run,
    "memory": memory.run,
    "tungsten": tungsten.run,
    "store": store.run,
    "deploy": deploy.run,
    "tensorflow": tensorflow.run,
    "grpc": grpc_calls.run,
    "mlrun": mlrun.run,
    "streams": streams.run,
    "jobs": jobs.run,
    "peers": installed.run,
}
RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"what to measure (default: all): {', '.join(SECTIONS)}")
    parser.add_argument("--seconds", type=int, default=5, help="of each load, 1 to 60 (default: 5)")
    parser.add_argument("--pairs", type=int, default=3, help="turns of each comparison (default: 3)")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"servers to compare with, or 'none' (default: {','.join(PEERS)})")
    parser.add_argument(
        "--quick", action="store_true", help="short loads, to see that everything works; not written unless --output is given"
    )
    parser.add_argument("--output", type=Path, help="file to write to (default: benchmarks/RESULTS.md)")
    options = parser.parse_args()
    peers = () if options.peers == "none" else tuple(options.peers.split(","))
    for unknown in [*(set(options.sections) - SECTIONS.keys()), *(set(peers) - set(PEERS))]:
        parser.error(f"there is no '{unknown}'")
    if not 1 <= options.seconds <= 60 or not 1 <= options.pairs <= 20:
        parser.error("--seconds takes 1 to 60, --pairs 1 to 20")
    chosen = (
        Options(min(options.seconds, 2), 1, peers, 20_000, 4, 2)
        if options.quick
        else Options(options.seconds, options.pairs, peers, 200_000, 50, 5)
    )
    output = options.output or (None if options.quick else RESULTS)
    return _run(options.sections or list(SECTIONS), chosen, output, command(sys.argv[1:]))


def _run(names: list[str], options: Options, output: Path | None, called: str) -> int:
    """Each section by itself: one that fails does not stop the others."""
    failed = 0
    for name in names:
        print(f"== {name}", flush=True)
        load = os.getloadavg()[0]
        with tempfile.TemporaryDirectory(prefix="dragoman-bench-") as folder:
            try:
                section = SECTIONS[name](Models(Path(folder)), options)
            except (BenchmarkError, OSError) as error:
                print(f"{name} failed: {error}", file=sys.stderr, flush=True)
                failed += 1
                continue
        text = f"{markdown(section)}\n{circumstances(called, load)}\n"
        print(f"\n{text}", flush=True)
        if output is not None:
            write(output, name, text)
    return 1 if failed else 0


def command(arguments: list[str]) -> str:
    """What was called, without the place of the output, which is nobody else's."""
    kept = []
    skip = False
    for argument in arguments:
        if not skip and not argument.startswith("--output"):
            kept.append(argument)
        skip = argument == "--output"
    return shlex.join(["python", "-m", "benchmarks", *kept])


if __name__ == "__main__":
    sys.exit(main())
