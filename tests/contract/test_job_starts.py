"""A job from its start to its end, and taken over by another server: with every isolation that this machine allows."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dragoman.engines.jobs.started import forget_end, read_end, read_left, read_record
from tests.jobs import RefusedError, Server, Setting, eventually, job_folder, own_folder, parent_of, permit, processes_with, settings

WHOLE, *_ = settings()
PLAIN = next(setting for setting in settings() if setting.kind == "shim")
ENDS = [WHOLE, PLAIN]
"""The most and the least that this machine allows, for what the steps between do not change."""

_ECHO = """\
import http.server, sys

class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = sys.argv[1].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.HTTPServer(("0.0.0.0", 5000), Echo).serve_forever()
"""
_LEAVES_DAEMONS = """\
import os, subprocess, sys, time
quiet = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, "-c", quiet, sys.argv[1]])
    os._exit(0)
subprocess.Popen([sys.executable, "-c", quiet, sys.argv[1]], start_new_session=True)
print("started", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module", params=settings(), ids=lambda setting: setting.name)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One server of each isolation."""
    server = Server(request.param)
    yield server
    server.close()


@pytest.fixture(scope="module", params=ENDS, ids=lambda setting: setting.name)
def some_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One of the most and one of the least isolation."""
    server = Server(request.param)
    yield server
    server.close()


@pytest.fixture
def root(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder that the server of the test may write to."""
    name = "server" if "server" in request.fixturenames else "some_server"
    setting = request.getfixturevalue(name).setting if name in request.fixturenames else WHOLE
    with own_folder(setting) as folder:
        yield folder


def get(folder: Path) -> bytes:
    """What the program in this folder answers to GET /."""
    with permit(folder) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while more := connection.recv(4096):
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 200 " in head
    return body


def serving(server: Server, root: Path, name: str, **asked: Any) -> Path:
    folder = job_folder(server.setting, root, name, _ECHO)
    server.launch(folder, **{"mode": "serve", "argv": ["python", "app.py", name], **asked})
    return folder


def log_of(folder: Path) -> str:
    return (folder / "log").read_text()


def lasting(server: Server, root: Path, name: str, **asked: Any) -> tuple[Path, str]:
    """A job that has left daemons, which ignore SIGTERM; its folder, and what marks its processes."""
    folder = job_folder(server.setting, root, name, _LEAVES_DAEMONS)
    marker = f"marker-{os.getpid()}-{root.name}-{name}"
    server.launch(folder, argv=["python", "app.py", marker], **asked)
    eventually(lambda: len(processes_with(marker)) == 3, "the daemons have not begun")
    return folder, marker


def test_jobs_listen_on_one_port(server: Server, root: Path) -> None:
    """Two unmodified programs on port 5000 at once each get their own requests (F10)."""
    folders = [serving(server, root, name) for name in ("one", "two")]
    assert [get(folder) for folder in folders] == [b"one", b"two"]
    assert all(server.ask("seen", folder=folder)["ready"] for folder in folders)
    for folder in folders:
        assert server.ask("stop", folder=folder, grace_s=5)["how"] == "stopped"


@pytest.mark.parametrize("alone", [setting for setting in settings() if setting.alone], ids=lambda setting: setting.name)
def test_an_endpoint_without_a_network(alone: Setting) -> None:
    """A job that reaches nothing can be reached: through its gate."""
    server = Server(alone)
    try:
        with own_folder(alone) as folder:
            folder = serving(server, folder, "alone", network=False)
            assert get(folder) == b"alone"
            assert server.ask("stop", folder=folder, grace_s=5)["how"] == "stopped"
    finally:
        server.close()


def test_jobs_have_data_of_their_own(server: Server, root: Path) -> None:
    """Two jobs at once that mount different data under one name, and write one file of /output, each see their own (F17, F19)."""
    program = "import os, time\nsaid = open('/input/file.txt').read()\nprint(said, flush=True)\nopen('/output/file.txt', 'a').write(said)\n"
    folders = []
    for name in ("one", "two"):
        data = root / f"data-{name}"
        data.mkdir()
        (data / "file.txt").write_text(name)
        folders.append(job_folder(server.setting, root, name, program + "while not os.path.exists('go'): time.sleep(0.02)\n"))
        server.launch(folders[-1], mounts={"input": data})
    for folder in folders:
        (folder / "home" / "go").touch()
        assert server.ask("ended", folder=folder)["code"] == 0
        assert log_of(folder).strip() == (folder / "output" / "file.txt").read_text() == folder.name


def test_no_process_is_left(server: Server, root: Path) -> None:
    """A stop ends what has daemonised itself and ignores SIGTERM; another job goes on (F22)."""
    other = serving(server, root, "other")
    folder, marker = lasting(server, root, "stopped")
    end = server.ask("stop", folder=folder, grace_s=0.2)
    assert end["how"] == "stopped"
    assert processes_with(marker) == []
    assert get(other) == b"other"
    server.ask("stop", folder=other, grace_s=5)


@pytest.mark.skipif(not WHOLE.contained, reason="without namespaces the program rules its first process")
def test_a_program_cannot_end_its_job_by_a_signal() -> None:
    """Its job would be taken for one whose server has ended, and started again, for ever; from outside the same signal ends it."""
    server = Server(WHOLE)
    program = "import os, signal, time\nfor number in (2, 15, 9, 19): os.kill(1, number)\ntime.sleep(1)\nprint('here')\n"
    try:
        with own_folder(WHOLE) as root:
            folder = job_folder(WHOLE, root, "one", program + "while not os.path.exists('go'): time.sleep(0.02)\n")
            server.launch(folder)
            eventually(lambda: "here" in log_of(folder), "the program has ended")
            record = read_record(folder)
            assert record is not None
            os.kill(record.pid, signal.SIGTERM)
            assert server.ask("ended", folder=folder)["how"] == "stopped"
    finally:
        server.close()


def test_killed_from_outside(server: Server, root: Path) -> None:
    """When its first process is killed by somebody, the job is lost, and none of it is left."""
    folder, marker = lasting(server, root, "lost")
    record = read_record(folder)
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    end = server.ask("ended", folder=folder)
    assert (end["how"], end["code"]) == ("lost", -9)
    assert "killed" in end["reason"]
    assert end["ran_s"] > 0
    assert read_end(folder) is None
    eventually(lambda: processes_with(marker) == [], "processes are left")


def test_what_a_killed_one_has_used_is_known(some_server: Server, root: Path) -> None:
    """Every request counts, although its first process could not say how it ended: to the server, and to the next one."""
    folder = serving(some_server, root, "used")
    for _ in range(5):
        assert get(folder) == b"used"
    until_served = read_left(folder)
    assert until_served is not None
    record = read_record(folder)
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    end = some_server.ask("ended", folder=folder)
    assert (end["how"], end["calls"]) == ("lost", 5)
    left = read_left(folder)
    assert left is not None
    assert (left.how, left.calls) == ("lost", 5)
    assert 0 < left.ran_s <= end["ran_s"]
    forget_end(folder)
    assert read_left(folder) is None


def test_kill(some_server: Server, root: Path) -> None:
    """`kill` does the same at once."""
    folder, marker = lasting(some_server, root, "killed")
    some_server.ask("kill", folder=folder)
    assert some_server.ask("ended", folder=folder)["how"] == "lost"
    eventually(lambda: processes_with(marker) == [], "processes are left")


def test_a_stop_of_one_whose_gate_does_not_answer(some_server: Server, root: Path) -> None:
    """Nothing of a job that its first process cannot end any more is left either."""
    folder, marker = lasting(some_server, root, "deaf")
    (folder / "gate").unlink()
    assert some_server.ask("stop", folder=folder, grace_s=1)["how"] == "lost"
    eventually(lambda: processes_with(marker) == [], "processes are left")


def test_it_ends_by_itself(server: Server, root: Path) -> None:
    """How a program ends is told, by the server and by what it leaves on disk; its log is kept, its temporary files only until the next start."""
    program = "import os, sys, tempfile\nprint(os.listdir(tempfile.gettempdir()))\ntempfile.mkdtemp()\nprint('said', file=sys.stderr)\nsys.exit(3)\n"
    folder = job_folder(server.setting, root, "ends", program)
    for times in (1, 2):
        server.launch(folder)
        end = server.ask("ended", folder=folder)
        assert (end["how"], end["code"]) == ("exit", 3)
        found = read_end(folder)
        assert found is not None
        assert (found.code, found.reason) == (3, end["reason"])
        lines = log_of(folder).splitlines()
        assert sorted(lines) == sorted(["[]", "said"] * times)


def test_the_isolation_is_told(server: Server, root: Path) -> None:
    """A start says which isolation is in force, and so does its gate."""
    folder = job_folder(server.setting, root, "told", "import time; time.sleep(600)")
    sentence = server.launch(folder)["isolation"]
    expected = {"whole": "own files, processes and network (with a way out)", "shim": "no namespaces: the job runs as this server's user"}
    assert sentence.startswith(expected.get(server.setting.kind, "own files and processes, the machine's network: port 5000 is moved"))
    assert server.ask("seen", folder=folder)["isolation"] == sentence
    server.ask("stop", folder=folder, grace_s=0)


def test_a_long_path(some_server: Server, root: Path) -> None:
    """A gate works where the path of its folder has more bytes than an address of a unix socket."""
    folder = root / ("long" * 20) / ("long" * 20)
    folder.mkdir(parents=True)
    folder = serving(some_server, folder, "far")
    assert get(folder) == b"far"
    some_server.ask("stop", folder=folder, grace_s=5)


def test_a_start_that_cannot_be(server: Server, root: Path) -> None:
    """An interpreter that is not there is an error that says so, and nothing is left."""
    folder = job_folder(server.setting, root, "none", "")
    with pytest.raises(RefusedError, match="job 'none' cannot be started: "):
        server.launch(folder, python="/usr/bin/no-python-here")
    assert processes_with(str(root)) == []


def test_a_cancelled_start(some_server: Server, root: Path) -> None:
    """A start that is given up while it begins leaves no process."""
    folder = job_folder(some_server.setting, root, "given-up", "import time; time.sleep(600)")
    python = some_server.setting.python
    said = some_server.ask("cancelled launch", folder=folder, python=python, readable=[python.parents[1]], environ={"MARK": "x"})
    assert said.startswith("CancelledError(")
    record = read_record(folder)
    assert record is None or not Path(f"/proc/{record.pid}").exists()


def test_temporary_files_go(some_server: Server, root: Path) -> None:
    """Temporary files of the last start go, whatever modes a program gave them."""
    program = "import os\nos.chdir(os.environ['TMPDIR'])\nos.makedirs('a/b')\nos.symlink('/', 'a/l')\nos.chmod('a', 0)\n"
    folder = job_folder(some_server.setting, root, "modes", program)
    for _ in range(2):
        some_server.launch(folder)
        assert some_server.ask("ended", folder=folder)["code"] == 0, log_of(folder)


# --- taken over ---


@pytest.mark.parametrize("setting", settings(), ids=lambda setting: setting.name)
def test_a_killed_server_is_followed(setting: Setting) -> None:
    """A job goes on when its server is killed; the next one takes it over, sees it, and ends it with all that belongs to it."""
    with own_folder(setting) as root:
        first = Server(setting)
        try:
            folder = serving(first, root, "goes-on")
            assert get(folder) == b"goes-on"
            helpers = {pid for pid in processes_with("tap0") if parent_of(pid) == first.pid}
            assert len(helpers) == (setting.kind == "whole")
        finally:
            first.kill()
        assert get(folder) == b"goes-on"
        second = Server(setting)
        try:
            record = read_record(folder)
            assert record is not None
            assert second.ask("adopt", folder=folder) == {"isolation": record.isolation, "pid": record.pid}
            seen = second.ask("seen", folder=folder)
            assert (seen["ready"], seen["calls"]) == (True, 2)
            assert second.ask("stop", folder=folder, grace_s=5)["how"] == "stopped"
            eventually(lambda: not helpers & set(processes_with("tap0")), "the way out is left")
            assert second.ask("adopt", folder=folder) is None
        finally:
            second.close()


def test_one_that_was_let_go(some_server: Server, root: Path) -> None:
    """A server may leave a job to the next one without ending itself."""
    first = Server(some_server.setting)
    try:
        folder = serving(first, root, "let-go")
        first.ask("release", folder=folder)
        assert get(folder) == b"let-go"
        some_server.ask("adopt", folder=folder)
        assert some_server.ask("stop", folder=folder, grace_s=5)["how"] == "stopped"
    finally:
        first.close()


def test_what_ended_meanwhile(some_server: Server, root: Path) -> None:
    """There is nothing to take over of a job that has ended; how, it has left on disk."""
    first = Server(some_server.setting)
    folder = job_folder(some_server.setting, root, "meanwhile", "import os, time\nwhile not os.path.exists('go'): time.sleep(0.02)\n")
    first.launch(folder)
    first.kill()
    (folder / "home" / "go").touch()
    end = eventually(lambda: read_end(folder), "it has not ended")
    assert (end.how, end.code) == ("exit", 0)
    eventually(lambda: some_server.ask("adopt", folder=folder) is None)


def test_nothing_to_adopt(some_server: Server, root: Path) -> None:
    """A folder without a start, or with one that makes no sense, has nothing to take over."""
    assert some_server.ask("adopt", folder=root) is None
    for text in ("", "{", "[]", "{}", '{"job": "x"}', "null"):
        (root / "start.json").write_text(text)
        assert some_server.ask("adopt", folder=root) is None, text


def test_a_number_that_is_somebody_elses_now(some_server: Server, root: Path) -> None:
    """A process that has the number of a job's first one, but is not it, is left alone."""
    folder = job_folder(some_server.setting, root, "gone", "")
    some_server.launch(folder)
    some_server.ask("ended", folder=folder)
    told = json.loads((folder / "start.json").read_text())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        for other in ({}, {"boot": "another"}, {"born": 0}):
            (folder / "start.json").write_text(json.dumps({**told, "pid": stranger.pid, **other}))
            assert some_server.ask("adopt", folder=folder) is None
        assert stranger.poll() is None
        stranger.communicate(b"\n")


def test_one_that_runs_and_does_not_answer(some_server: Server, root: Path) -> None:
    """A job whose gate has gone is ended rather than left to itself."""
    first = Server(some_server.setting)
    folder, marker = lasting(first, root, "mute")
    first.kill()
    (folder / "gate").unlink()
    assert some_server.ask("adopt", folder=folder) is None
    eventually(lambda: processes_with(marker) == [], "processes are left")
