"""The line between a worker and its supervisor: a worker whose supervisor is gone leaves, however that came about."""

import json
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from dragoman.server.configuration import read
from tests.e2e.plain import Plain, until
from tests.e2e.running import environment
from tests.models import build


@pytest.mark.parametrize("unread", [True, False])
def test_a_worker_leaves_with_its_supervisor(tmp_path: Path, unread: bool) -> None:
    """Also when the supervisor had not read what was reported to it: the kernel then resets the line instead of closing it."""
    model = build.iris(tmp_path / "iris.onnx")
    settings = read({"targets": (str(model),), "data_dir": str(tmp_path / "data"), "drain_timeout": 1.0}, environ={})
    (tmp_path / "run").mkdir()
    ours, theirs = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as port, theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "dragoman.server.child", str(theirs.fileno())],
            pass_fds=[theirs.fileno(), port.fileno()],
            env=environment(tmp_path),
        )
        order = {
            "settings": asdict(settings),
            "sockets": [port.fileno()],
            "index": 0,
            "serial": 1,
            "run_dir": str(tmp_path / "run"),
            "keeper": "",
            "run": "one",
        }
        ours.sendall(json.dumps(order).encode() + b"\n")
        client = Plain(port.getsockname()[1])
    try:
        until(lambda: _answers(client), what="the worker")
        if not unread:
            ours.settimeout(30)
            lines = ours.makefile("rb")
            while json.loads(lines.readline())["event"] != "loaded":
                pass
            lines.close()
        ours.close()
        assert process.wait(30) == 0
    finally:
        ours.close()
        if process.poll() is None:
            process.kill()
            process.wait()


def _answers(client: Plain) -> bool:
    try:
        return client.get("/v2/health/ready").status == 200
    except OSError:
        return False
