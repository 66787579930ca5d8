"""Other people's clients, each in a virtualenv of its own: made once per checkout from its locked requirements, used by end-to-end tests.

A script runs in the client's Python, gets its arguments as JSON, and answers with what it passes to `answer`.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_PRELUDE = """\
import json, sys
given = json.loads(sys.argv[1])
def answer(value):
    print("\\nANSWER " + json.dumps(value, default=str))
"""
_MARK = "ANSWER "
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""Nobody outside of this machine is told of a test, and a server that fails is not asked for minutes."""


@cache
def python_of(client: str) -> Path:
    """The interpreter that has `requirements/clients/CLIENT.txt`; making it takes seconds to a minute, once."""
    lock = ROOT / "requirements" / "clients" / f"{client}.txt"
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = ROOT / ".clients" / f"{client}-{digest}"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f"{client}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # tests run in several processes
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _uv("venv", "--python", sys.executable, str(folder))
            _uv("pip", "install", "--python", str(folder / "bin" / "python"), "--no-deps", "--require-hashes", "-r", str(lock))
            (folder / "ready").touch()
    return folder / "bin" / "python"


def run(client: str, script: str, *, timeout_s: float = 100.0, environment: dict[str, str] | None = None, **given: Any) -> Any:
    """What the script answers. `given` is a dict in the script. Fails with all that it printed when it fails."""
    done = subprocess.run(
        [str(python_of(client)), "-c", _PRELUDE + script, json.dumps(given)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**_kept(), **_QUIET, **(environment or {})},
        check=False,
    )
    answers = [line.removeprefix(_MARK) for line in done.stdout.splitlines() if line.startswith(_MARK)]
    assert done.returncode == 0, f"the client failed\n{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
    assert answers, f"the client answered nothing\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return json.loads(answers[-1])


def _kept() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTHONPATH", "MLFLOW_", "DRAGOMAN_"))}


def _uv(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "uv", "--quiet", *words], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"uv {words[0]} failed: {done.stderr[-4000:]}"
