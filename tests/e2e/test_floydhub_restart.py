"""A server that is killed or ended while jobs run: they are there again with the next one, under the same names and addresses (issue's done-when)."""

import os
import signal
from pathlib import Path

import httpx

from tests.floyd import WEB, Floyd, answering, hub, project, until


def inside(folder: Path) -> list[int]:
    """The processes of this machine that work in a job's folder, whatever namespace they see themselves in."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(folder) in words:
                found.append(int(entry.name))
    return found


def test_jobs_outlive_their_server(tmp_path: Path) -> None:
    """kill -9: the program goes on, and the next server takes it over. SIGTERM: it ends with the server, and is started anew by the next one."""
    data, app = tmp_path / "hub", project(tmp_path / "app", app_py=WEB)
    data.mkdir()
    with hub(data) as server:
        floyd = Floyd(server.url, tmp_path / "home").logged_in("alice")
        floyd(app, "init", "living")
        done = floyd(app, "run", "--mode", "serve", "-m", "lives on")
        path = httpx.URL(done.endpoint).path
        first = answering(done.endpoint).json()
        port = server.port
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(30)
    with hub(data, "--port", str(port)) as server:
        second = answering(server.url + path).json()
        assert second == first, "the program was started anew"
        assert floyd.state(app, done.job) == "running"
        log = floyd(app, "logs", done.job).out
        assert log.count("running: python app.py") == 1
    assert not inside(data)
    with hub(data, "--port", str(port)) as server:
        third = answering(server.url + path).json()
        assert third["word"] == "of the program"
        assert "lives on" in floyd(app, "status").out
        floyd(app, "stop", done.job)
        until(lambda: floyd.state(app, done.job) == "shutdown")
        until(lambda: not inside(data / "dragoman" / "jobs" / "run"), lambda: str(inside(data)))
