"""Other people's clients, each in a virtualenv of its own: made once per checkout from its locked requirements, used by end-to-end tests.

A script runs in the client's Python, gets its arguments as JSON, and answers with what it passes to `answer`.
"""

import atexit
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Any

from tests.once import made_once

ROOT = Path(__file__).parents[1]
_MARK = "ANSWER "
_ONE_AT_A_TIME = threading.Lock()
_IMPORTS = {
    "mlflow": ("mlflow", "mlflow.sklearn", "pandas", "sklearn.linear_model", "sklearn.datasets"),
    # Not gradient itself, which reads its environment when it is imported.
    "gradient": (
        "gql",
        "requests_toolbelt",
        "pymongo",
        "marshmallow",
        "click.testing",
        "halo",
        "terminaltables",
        "websocket",
        "dateutil.parser",
    ),
    # Not floyd itself, which looks at the current folder when it is imported.
    "floyd": (
        "requests",
        "requests_toolbelt",
        "click",
        "clint.textui",
        "marshmallow",
        "tabulate",
        "yaml",
        "pytz",
        "pathlib2",
        "pkg_resources",
    ),
    "submarine": ("submarine.client", "submarine.client.api.serve_client"),
}
"""What a client's scripts import, which takes seconds: it is done once per test process, and each script runs in a fork of that."""
_FORKING = """\
import importlib, json, os, sys, traceback
for name in sys.argv[1:]:
    importlib.import_module(name)
for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        files = [os.open(path, os.O_WRONLY) for path in order["files"]]
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(files[0], 1)
        os.dup2(files[1], 2)
        os.environ.clear()
        os.environ.update(order["environment"])
        code = 1
        try:
            def answer(value):
                print("\\nANSWER " + json.dumps(value, default=str))
            sys.argv[:] = ["-c"]
            names = {"__name__": "__main__", "json": json, "sys": sys, "given": order["given"], "answer": answer}
            exec(compile(order["script"], "<script>", "exec"), names)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""Nobody outside of this machine is told of a test, and a server that fails is not asked for minutes."""


@cache
def python_of(client: str) -> Path:
    """The interpreter that has `requirements/clients/CLIENT.txt`; making it takes seconds to a minute, once."""
    lock = ROOT / "requirements" / "clients" / f"{client}.txt"
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = ROOT / ".clients" / f"{client}-{digest}"

    def make(folder: Path) -> None:
        _uv("venv", "--python", sys.executable, str(folder))
        _uv("pip", "install", "--python", str(folder / "bin" / "python"), "--no-deps", "--require-hashes", "-r", str(lock))

    return made_once(folder, make) / "bin" / "python"


def run(client: str, script: str, *, timeout_s: float = 100.0, environment: dict[str, str] | None = None, **given: Any) -> Any:
    """What the script answers. `given` is a dict in the script. Fails with all that it printed when it fails."""
    with _ONE_AT_A_TIME:
        return _run(_forker(client), script, timeout_s, {**_kept(), **_QUIET, **(environment or {})}, given)


def _run(forker: subprocess.Popen[str], script: str, timeout_s: float, environment: dict[str, str], given: dict[str, Any]) -> Any:
    assert forker.stdin is not None
    assert forker.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("out", "err")]
        for file in files:
            file.touch()
        order = {
            "script": script,
            "given": given,
            "files": [str(file) for file in files],
            "environment": environment,
        }
        forker.stdin.write(json.dumps(order) + "\n")
        forker.stdin.flush()
        late = threading.Timer(timeout_s, os.killpg, (int(forker.stdout.readline() or 0) or forker.pid, signal.SIGKILL))
        late.start()
        code = int(forker.stdout.readline() or -1)
        late.cancel()
        out, err = (file.read_text("utf-8", "replace") for file in files)
    answers = [line.removeprefix(_MARK) for line in out.splitlines() if line.startswith(_MARK)]
    assert code == 0, f"the client failed with {code}\n{out[-4000:]}\n{err[-8000:]}"
    assert answers, f"the client answered nothing\n{out[-4000:]}\n{err[-4000:]}"
    return json.loads(answers[-1])


@cache
def _forker(client: str) -> subprocess.Popen[str]:
    """The client's Python with its imports done; it ends with this process, when its standard input does."""
    forker = subprocess.Popen(
        [str(python_of(client)), "-c", _FORKING, *_IMPORTS.get(client, ())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**_kept(), **_QUIET},
        start_new_session=True,
    )
    atexit.register(forker.communicate)  # which closes its standard input
    return forker


def _kept() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTHONPATH", "MLFLOW_", "DRAGOMAN_"))}


def _uv(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "uv", "--quiet", *words], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"uv {words[0]} failed: {done.stderr[-4000:]}"
