"""Processes that work on one store, for tests of what only real ones show."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.stores import Case

ROOT = Path(__file__).parents[1]


@contextmanager
def workers(case: Case, place: Path, count: int, body: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that have imported everything and wait for a line on their input, so that they begin at one moment; then `body` runs.

    `body` is that of `async def work(place, case, number)`.
    """
    lines = "\n".join(f"    {line}" for line in body.strip("\n").split("\n"))
    script = (
        "import asyncio, os, sys\nfrom pathlib import Path\nimport alembic.command, dragoman.store.sqlstore\nfrom tests import stores\n"
        "from dragoman.store import Change\nfrom dragoman.core.predictions import Progress\n"
        f"async def work(place, case, number):\n{lines}\n"
        "print('ready', flush=True)\nsys.stdin.readline()\n"
        f"asyncio.run(work(Path(sys.argv[1]), next(c for c in stores.CASES if c.name == {case.name!r}), int(sys.argv[2])))\n"
    )
    case.begun(place)  # a database server of the tests runs when it has answered: processes find ours, and start none of their own
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(place), str(number)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for number in range(count)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def answers(started: list[subprocess.Popen[str]]) -> list[str]:
    """What each wrote, once it has ended well."""
    texts = []
    for process in started:
        text, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        texts.append(text)
    return texts
