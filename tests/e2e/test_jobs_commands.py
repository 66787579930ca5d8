"""Our own commands for jobs against a real server, the server that `dragoman run` is where none runs, and FloydHub's client by `dragoman floyd`."""

import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.clients import python_of
from tests.e2e.running import Running, command, environment, serving
from tests.ports import free_port

SERVE = """\
from wsgiref.simple_server import make_server
def app(environ, start):
    start("200 OK", [("Content-Type", "text/plain")])
    return [open("said.txt", "rb").read()]
if __name__ == "__main__":
    make_server("0.0.0.0", 5000, app).serve_forever()
"""
TRAIN = """\
import os, sys
print("training", os.listdir("/input") if len(sys.argv) > 2 else "", flush=True)
open("/output/weights", "w").write("w")
sys.exit(int(sys.argv[1]))
"""
DEADLINE_S = 90.0


class Person:
    """Somebody with a home, a project's folder and a server's address ("" for the usual one)."""

    def __init__(self, root: Path, url: str = "") -> None:
        self.folder = root / "shop"
        (root / "home").mkdir()
        self.folder.mkdir()
        (self.folder / "app.py").write_text(SERVE)
        (self.folder / "train.py").write_text(TRAIN)
        (self.folder / "said.txt").write_text("hello")
        extra = {"HOME": str(root / "home"), "LOGNAME": "ann", "COLUMNS": "200"}
        self.environment: Mapping[str, str] = environment(root / "data", extra | ({"DRAGOMAN_URL": url} if url else {}))

    def start(self, *words: str, folder: Path | None = None) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command(*words),
            cwd=folder or self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str, code: int = 0, folder: Path | None = None) -> str:
        """What a command prints; it ends with this exit code."""
        process = self.start(*words, folder=folder)
        try:
            printed, _ = process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()
        assert process.returncode == code, printed
        return printed


def answered(url: str) -> bytes:
    """What an endpoint answers, when it is ready."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=DEADLINE_S) as reply:
                content: bytes = reply.read()
                return content
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
        assert time.monotonic() < deadline
        time.sleep(0.1)


def endpoint(printed: str) -> str:
    found = re.search(r"^URL to service endpoint: (\S+)$", printed, re.MULTILINE)
    assert found is not None, printed
    return found[1]


def gone(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=DEADLINE_S):
            return False
    except urllib.error.HTTPError as error:
        return error.code in (404, 410)
    except OSError:
        return True


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server without any model."""
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def person(tmp_path: Path, server: Running, request: pytest.FixtureRequest) -> Person:
    """Somebody whose project no other test has."""
    made = Person(tmp_path, server.url)
    made.run("init", request.node.name.removeprefix("test_")[:40])
    return made


def test_a_service(person: Person) -> None:
    """From run to an answer; shown, stopped, gone, started again, deleted."""
    url = endpoint(person.run("run", "--mode", "serve", "-m", "first"))
    assert answered(url) == b"hello"
    assert "running" in person.run("status")
    assert ["Url", url] in [line.split() for line in person.run("info").splitlines()]
    assert "shutdown request submitted" in person.run("stop")
    ended = person.run("logs", "-f")
    assert ended.endswith("[shutdown] Task execution cancelled\n")
    assert gone(url)
    assert "cannot be stopped" in person.run("stop", code=1)
    again = endpoint(person.run("restart", "1"))
    assert again != url
    assert answered(again) == b"hello"
    person.run("stop", "2")
    person.run("logs", "-f", "2")
    person.run("delete", "-y", "1", "2")
    assert len(person.run("status").splitlines()) == 2


def test_a_command_with_data(person: Person, tmp_path: Path) -> None:
    """A data set is uploaded and mounted; the job is followed, its output and code are fetched; its output is made a data set."""
    pictures = tmp_path / "pictures"
    (pictures / "sub").mkdir(parents=True)
    (pictures / "sub/é.txt").write_text("é")
    person.run("data", "init", "pictures", folder=pictures)
    name = person.run("data", "upload", folder=pictures).splitlines()[-1]
    assert name == "ann/datasets/pictures/1"
    assert person.run("data", "listfiles", "pictures/1", folder=pictures).splitlines() == ["sub/", "sub/é.txt"]
    printed = person.run("run", "--data", "pictures/1:input", "--follow", "python train.py 0 data")
    assert "training ['sub']" in printed.splitlines()
    assert printed.endswith("[success] Finished execution\n")
    person.run("output", "-d", "out")
    assert (person.folder / "out/weights").read_text() == "w"
    person.run("clone", "1", "-d", str(tmp_path / "code"))
    assert (tmp_path / "code/said.txt").read_text() == "hello"
    (number,) = re.findall(r"/projects/(\S+/1)", person.run("status"))
    assert "ann/datasets/pictures/2" in person.run("data", "add", f"ann/projects/{number}/output", folder=pictures)
    person.run("data", "clone", "pictures/1", "-d", "copy", folder=pictures)
    assert (pictures / "copy/sub/é.txt").read_text() == "é"


def test_a_command_that_fails(person: Person) -> None:
    """Its exit code is the one of the command that followed it; so is an environment that there is none of."""
    printed = person.run("run", "-f", "--", "python", "train.py", "3", code=1)
    assert printed.endswith("[failed] Task execution failed\n")
    assert "tensorflow-1.8" in person.run("run", "--env", "fortran", "x", code=3)


def test_following_is_ended_not_the_job(person: Person) -> None:
    """By Ctrl-C, and by a reader who has seen enough; neither is a traceback."""
    process = person.start("run", "--mode", "serve", "--follow")
    assert process.stdout is not None
    try:
        printed = ""
        while "running: python app.py" not in printed:
            printed += process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "The job goes on" in rest
    assert "Traceback" not in rest
    reader = person.start("logs", "-f", "1")
    assert reader.stdout is not None
    try:
        assert reader.stdout.readline() == "Launching job ...\n"
        reader.stdout.close()
        assert answered(endpoint(printed)) == b"hello"  # which prints a line that nobody reads
        assert reader.wait(DEADLINE_S) == 1
    finally:
        reader.kill()
    person.run("stop", "1")


def test_the_client_of_floydhub(person: Person, tmp_path: Path) -> None:
    """It is sent to our server, data sets too, and both work in one folder."""
    person.environment = {**person.environment, "DRAGOMAN_FLOYD": str(python_of("floyd").parents[1])}
    assert "Login Successful as ann" in person.run("floyd", "login", "--apikey", "ann")
    url = endpoint(person.run("floyd", "run", "--mode", "serve"))
    assert answered(url) == b"hello"
    assert "running" in person.run("status", "1")
    pictures = tmp_path / "theirs"
    pictures.mkdir()
    (pictures / "a.txt").write_text("a")
    person.run("floyd", "data", "init", "theirs", folder=pictures)
    assert "ann/datasets/theirs/1" in person.run("floyd", "data", "upload", folder=pictures)
    assert "valid" in person.run("data", "status", folder=pictures)
    person.run("stop", "1")


def alone_at(root: Path, port: str) -> Person:
    """Somebody with a project and no server, who has logged in at one that is not there any more."""
    alone = Person(root)
    (root / "home/.floydconfig").write_text(json.dumps({"username": "ann", "apikey": "ann", "server": f"http://127.0.0.1:{port}"}))
    assert "made on the server by the first" in alone.run("init", "alone")
    return alone


def test_a_command_without_a_server(tmp_path: Path) -> None:
    """`run` is the server for as long as the job lasts; how it ended is the exit code, and a later server knows the job."""
    port = str(free_port())
    alone = alone_at(tmp_path, port)
    printed = alone.run("run", "--port", port, "python train.py 0")
    assert f"at http://127.0.0.1:{port}" in printed
    assert printed.endswith("[success] Finished execution\n")
    assert alone.run("run", "--port", port, "python train.py 3", code=1).endswith("[failed] Task execution failed\n")
    with serving(tmp_path / "data") as later:
        shown = alone.run("status", "--url", later.url)
        assert [line.split()[0] for line in shown.splitlines()[2:]] == ["ann/projects/alone/2", "ann/projects/alone/1"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_service_without_a_server(tmp_path: Path, how: signal.Signals) -> None:
    """It answers until the command is ended; Ctrl-C, which the whole process group gets, ends the job first, then the server."""
    port = str(free_port())
    alone = alone_at(tmp_path, port)
    process = alone.start("run", "--mode", "serve", "--port", port)
    try:
        assert process.stdout is not None
        printed = ""
        while "URL to service endpoint" not in printed:
            line = process.stdout.readline()
            assert line, printed
            printed += line
        url = endpoint(printed)
        assert answered(url) == b"hello"
        if how is signal.SIGINT:
            os.killpg(process.pid, how)
        else:
            process.send_signal(how)
        rest, _ = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    assert process.returncode == 130
    assert rest.endswith("[shutdown] Task execution cancelled\n")
    assert gone(url)
