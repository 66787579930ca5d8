"""`dragoman register`, `deploy`, `undeploy`, `versions`, `models` and `status --watch` against a running server, as a user types them."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.plain import Plain, until
from tests.e2e.running import Running, command, environment, serving
from tests.models import build

ROW = {"instances": [[5.1, 3.5, 1.4, 0.2]]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    build.iris(folder / "iris" / "model.onnx")
    (folder / "broken").mkdir()
    (folder / "broken" / "model.onnx").write_bytes(b"no graph")
    return folder


@pytest.fixture
def running(tmp_path: Path, root: Path) -> Iterator[Running]:
    with serving(tmp_path / "data", "--model-root", str(root)) as server:
        yield server


def do(running: Running, *words: str, code: int = 0) -> str:
    """What a command prints; its exit code is as expected."""
    done = subprocess.run(
        command(*words),
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(Path("/nonexistent"), {"DRAGOMAN_URL": running.url}),
        check=False,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout + done.stderr


def test_from_file_to_service(running: Running, root: Path) -> None:
    """Register a folder, deploy it, call it, register the next version and see it take over, take it down."""
    port = Plain(running.port)
    said = do(running, "register", "iris", str(root / "iris"), "--alias", "champion", "--description", "the first")
    assert "iris:1" in said
    assert port.post("/v1/models/iris:predict", ROW).status == 404
    assert "ready" in do(running, "deploy", "iris")
    assert port.post("/v1/models/iris:predict", ROW).status == 200
    do(running, "register", "iris", str(root / "iris"))
    (served,) = until(lambda: [each for each in deployments(running) if each["version"] == "2" and each["state"] == "ready"])
    assert served["model"] == "iris"
    until(lambda: [each["version"] for each in deployments(running)] == ["2"] or None)
    listed = do(running, "versions", "iris")
    assert [line.split()[:2] for line in listed.splitlines()] == [["name", "version"], ["iris", "2"], ["iris", "1"]]
    assert "champion" in listed
    assert "iris" in do(running, "models", "--url", running.url)
    assert "nothing" in do(running, "undeploy", "iris")
    assert port.post("/v1/models/iris:predict", ROW).status == 404


def test_versions_by_hand(running: Running, root: Path) -> None:
    """One beside the others, exactly some, and one less."""
    for _ in range(3):
        do(running, "register", "iris", str(root / "iris"))
    do(running, "deploy", "iris:1")
    do(running, "deploy", "iris:3")
    assert sorted(each["version"] for each in deployments(running)) == ["1", "3"]
    do(running, "deploy", "iris", "--versions", "2,3")
    assert sorted(each["version"] for each in deployments(running)) == ["2", "3"]
    do(running, "undeploy", "iris:2")
    assert [each["version"] for each in deployments(running)] == ["3"]
    do(running, "deploy", "iris", "--versions", "latest:2")
    assert sorted(each["version"] for each in deployments(running)) == ["2", "3"]
    do(running, "deploy", "iris", "--versions", "all")
    assert sorted(each["version"] for each in deployments(running)) == ["1", "2", "3"]


def test_what_goes_wrong_is_said(running: Running, root: Path, tmp_path: Path) -> None:
    """Each mistake ends with exit code 1 or 2 and one line that says what to do."""
    build.iris(tmp_path / "outside.onnx")
    assert "--model-root" in do(running, "register", "iris", str(tmp_path / "outside.onnx"), code=1)
    assert "rose" in do(running, "deploy", "rose", code=1)
    do(running, "register", "broken", str(root / "broken"), code=0)
    assert "broken" in do(running, "deploy", "broken", code=1)
    assert "sideways" in do(running, "deploy", "iris", "--versions", "sideways", code=1)
    assert "NAME" in do(running, "deploy", "iris:", code=2)
    assert "there is no server" in do(running, "deploy", "iris", "--url", "http://127.0.0.1:9", code=1)


def test_the_status_is_followed(running: Running, root: Path) -> None:
    """`status --watch` prints again when something has changed, and ends with Ctrl-C."""
    watch = subprocess.Popen(
        [*command("status", "--watch", "--output", "json", "--url", running.url)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(Path("/nonexistent")),
        start_new_session=True,
    )
    assert watch.stdout is not None
    try:
        assert json.loads(watch.stdout.readline())["models"] == []
        do(running, "register", "iris", str(root / "iris"), "--deploy")
        states: list[str] = []
        while "ready" not in states:
            states = [each["state"] for each in json.loads(watch.stdout.readline())["models"]]
        os.kill(watch.pid, signal.SIGINT)
        assert watch.wait(30) == 130
    finally:
        watch.kill()
        watch.wait()
        watch.stdout.close()


def deployments(running: Running) -> list[dict[str, str]]:
    found: list[dict[str, str]] = Plain(running.port).get("/dragoman/v1/deployments").json()["deployments"]
    return found
