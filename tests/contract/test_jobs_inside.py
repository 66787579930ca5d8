"""A job's first process: starts the program, keeps its log, passes requests through the gate, and leaves no process behind. With real programs."""

import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests.jobs_inside import DEADLINE_S, HTTP, Inside, command, inside, kinds, oldest_python, until

each_kind = pytest.mark.parametrize("kind", kinds())
each_python = pytest.mark.parametrize("python", sorted({sys.executable, oldest_python()}))

DAEMON = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open("daemon", "w").write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
os.wait()
"""
"""A process of its own session, with another parent, that does not listen to SIGTERM; and neither does the program."""


def alive(marker: str) -> list[int]:
    """Processes of the machine with this text on their command line or in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if marker.encode() in text:
            found.append(int(folder.name))
    return found


# --- a program, from its start to its end ---


@each_kind
@each_python
def test_a_command_runs_to_its_end(tmp_path: Path, kind: str, python: str) -> None:
    """Its output is in the log in order, both kinds, also what has no newline; the ending says 0 and how long it ran."""
    code = 'import os, sys; print("out"); print("err", file=sys.stderr); os.write(1, b"caf\\xc3\\xa9"); sys.exit()'
    end = command(tmp_path, code, kind=kind, python=python)
    assert (end["how"], end["code"], end["reason"], end["calls"]) == ("exit", 0, "", 0)
    assert 0 < end["ran_s"] < 60
    assert (tmp_path / "log").read_text() == "out\nerr\ncafé"


def test_a_crash_says_why(tmp_path: Path) -> None:
    """The exit code, and the exception that was printed last."""
    end = command(tmp_path, "import not_there")
    assert (end["how"], end["code"]) == ("exit", 1)
    assert end["reason"] == "the program ended with exit code 1: ModuleNotFoundError: No module named 'not_there'"


def test_a_signal_is_named(tmp_path: Path) -> None:
    """A program that is killed has its code, negative, and its name in the reason."""
    end = command(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert (end["how"], end["code"], end["reason"]) == ("exit", -11, "the program was ended by SIGSEGV")


def test_a_kill_from_outside_is_explained(tmp_path: Path) -> None:
    """It is how the kernel ends a program when memory has run out."""
    end = command(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert (end["how"], end["code"]) == ("exit", -9)
    assert end["reason"] == "the program was ended by SIGKILL, by somebody on this machine or because its memory has run out"


def test_what_cannot_be_started(tmp_path: Path) -> None:
    """The file is named."""
    with inside(tmp_path, mode="command", argv=("not-there", "x")) as job:
        end = job.end()
    assert (end["how"], end["code"], end["ran_s"]) == ("exit", 127, 0.0)
    assert end["reason"] == "not-there cannot be started: No such file or directory"


def test_a_project_without_app_py(tmp_path: Path) -> None:
    """Is told so (F25)."""
    with inside(tmp_path) as job:
        end = job.end()
    assert (end["how"], end["code"]) == ("exit", 2)
    assert "there is no app.py in the folder of the code" in end["reason"]


def test_the_program_gets_nothing_else(tmp_path: Path) -> None:
    """Its environment is what the orders say and two variables more; no descriptor, no terminal, a session of its own, no core files."""
    (tmp_path / "more").write_text("x")
    code = dedent("""
        import json, os, resource, sys
        print(json.dumps({
            "environ": dict(os.environ), "fds": [os.readlink("/proc/self/fd/" + n) for n in os.listdir("/proc/self/fd") if n not in "012"
                and os.path.exists("/proc/self/fd/" + n)], "session": os.getsid(0) == os.getpid(), "cwd": os.getcwd(), "in": sys.stdin.read(),
            "core": resource.getrlimit(resource.RLIMIT_CORE), "files": resource.getrlimit(resource.RLIMIT_NOFILE)}))
    """)
    command(tmp_path, code, environ={"FLOYDHUB": "1"}, port=5000)
    told = json.loads((tmp_path / "log").read_text())
    told["environ"].pop("LC_CTYPE", None)  # Python's own
    assert told.pop("environ") == {"PATH": os.environ["PATH"], "FLOYDHUB": "1", "PORT": "5000", "PYTHONUNBUFFERED": "1"}
    assert told == {
        "fds": [],
        "session": True,
        "cwd": str(tmp_path / "home"),
        "in": "",
        "core": [0, 0],
        "files": list(resource.getrlimit(resource.RLIMIT_NOFILE)),
    }


def test_output_is_seen_at_once(tmp_path: Path) -> None:
    """Python does not keep it until there is more (F20)."""
    with inside(tmp_path, mode="command", argv=(sys.executable, "-c", "import time; print('first'); time.sleep(600)")) as job:
        until(lambda: job.log == "first\n")
        job.stop()


@each_kind
def test_the_program_does_not_rule_its_first_process(tmp_path: Path, kind: str) -> None:
    """Its descriptors, among them the ending and the gate, are not for others of the same user, when that is not root."""
    code = "import os\ntry: print(os.readlink(f'/proc/{os.getppid()}/fd/2') and 'open')\nexcept PermissionError: print('closed')"
    command(tmp_path, code, kind=kind)
    assert (tmp_path / "log").read_text() == ("open\n" if os.getuid() == 0 and kind == "plain" else "closed\n")


# --- its endpoint ---


@each_kind
@each_python
def test_a_request_is_passed(tmp_path: Path, kind: str, python: str) -> None:
    """Before it is ready nobody waits for it; then the gate hands out a connected socket, and counts."""
    with inside(tmp_path, HTTP + "while not os.path.exists('go'): time.sleep(0.01)\nserve()", kind=kind, python=python) as job:
        refused = job.ask(ask="permit")
        assert refused.pop("ran_s") >= 0
        assert refused == {"answer": "no", "state": "starting", "reason": "the program does not accept connections yet"}
        assert not job.ask(ask="look")["ready"]
        (tmp_path / "home" / "go").touch()
        seen = job.ready()
        assert (seen["keeps_prefix"], seen["calls"], seen["waiting"], seen["busy"]) == (False, 0, 0, 0)
        line = job.line(ask="permit")
        assert line.hear() == {"answer": "go", "prefix": "strip"}
        assert line.get("/a/b?c=%2F").endswith(b"\r\n\r\n/a/b?c=%2F")
        assert job.ask(ask="look")["busy"] == 1
        line.close()
        seen = until(lambda: (found := job.ask(ask="look"))["busy"] == 0 and found)
        assert (seen["calls"], seen["ready"]) == (1, True)
        assert seen["idle_s"] >= 0
        until(lambda: job.ask(ask="look")["memory"] > 1 << 20)
        assert job.ask(ask="look")["processes"] == 1
        end = job.stop()
    assert (end["how"], end["calls"], end["reason"]) == ("stopped", 1, "it was asked to")


@pytest.mark.parametrize(
    ("options", "prefix"),
    [
        ({"/": 200, "*": 404}, "strip"),
        ({"/": 404, "*": 200}, "keep"),
        ({"/": 404, "*": 404, "/image": 200}, "strip"),
        ({"/": 501, "*": 501}, "strip"),
        ({"/": 302, "*": 404}, "strip"),
    ],
    ids=["a route /", "a route /<path:path>", "a route /image", "no OPTIONS", "redirects"],
)
def test_the_prefix_rule(tmp_path: Path, options: dict[str, int], prefix: str) -> None:
    """Only a program without `/` that takes any other path wants the endpoint's path in front (F13)."""
    with inside(tmp_path, HTTP + f"App.options = {options}\nserve()") as job:
        assert job.ready()["keeps_prefix"] == (prefix == "keep")
        assert job.line(ask="permit").hear() == {"answer": "go", "prefix": prefix}


def test_a_program_that_is_no_http_server(tmp_path: Path) -> None:
    """Is ready all the same when it accepts and hangs up."""
    code = "import socket\ns = socket.create_server(('0.0.0.0', 5000))\nwhile True: s.accept()[0].close()"
    with inside(tmp_path, code) as job:
        assert not job.ready()["keeps_prefix"]


def test_jupyter_is_told_its_path(tmp_path: Path) -> None:
    """So it is never asked, and keeps it."""
    code = HTTP + "App.do_OPTIONS = lambda self: open('asked', 'w').close()\nserve()"
    with inside(tmp_path, code, mode="jupyter") as job:
        assert job.ready()["keeps_prefix"]
        assert not (tmp_path / "home" / "asked").exists()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    """A ready program, one request at a time."""
    with inside(tmp_path_factory.mktemp("served"), HTTP + "serve()") as job:
        job.ready()
        yield job


def test_permits_come_in_order(served: Inside) -> None:
    """One at a time; each who waits is told how many are before it; who leaves is passed over (F15)."""
    first = served.permit()
    others = []
    for ahead in (1, 2, 3):
        others.append(served.line(ask="permit"))
        assert others[-1].hear() == {"answer": "wait", "ahead": ahead}
    assert (served.ask(ask="look")["waiting"], served.ask(ask="look")["busy"]) == (3, 1)
    second, gone, last = others
    gone.close()
    until(lambda: served.ask(ask="look")["waiting"] == 2)
    first.close()
    assert second.hear()["answer"] == "go"
    assert served.ask(ask="look")["waiting"] == 1
    second.say(ask="done")
    assert last.hear()["answer"] == "go"
    assert second.say(ask="permit").hear() == {"answer": "wait", "ahead": 1}
    last.close()
    assert second.hear()["answer"] == "go"
    second.close()


def test_a_crowd_waits_and_nobody_is_lost(served: Inside) -> None:
    """300 at the same time, each gets its turn."""
    lines = [served.line(ask="permit") for _ in range(300)]
    for line in lines:
        while (answer := line.hear())["answer"] == "wait":
            pass
        assert answer["answer"] == "go"
        line.close()
    until(lambda: served.ask(ask="look")["busy"] == 0)


def test_more_than_there_is_room_for(tmp_path: Path) -> None:
    """A first process that may not have as many files open lets the others wait outside; each comes in when one leaves."""
    with inside(tmp_path, HTTP + "serve()", before=("sh", "-c", 'ulimit -n 60; exec "$@"', "sh")) as job:
        job.ready()
        lines = [job.line(ask="permit") for _ in range(200)]
        for line in lines:
            while (answer := line.hear())["answer"] == "wait":
                pass
            assert answer["answer"] == "go"
            line.close()
        assert job.stop()["calls"] == 200


@pytest.mark.parametrize(
    "garbage",
    [
        b"{}\n",
        b"[]\n",
        b"\n",
        b"x" * 200_000,
        b'{"ask": "open"}\n',
        b'{"ask": "stop"}\n',
        b"[" * 60_000 + b"\n",
        b'{"ask": "permit"}\n' * 2,
    ],
    ids=["nothing", "a list", "an empty line", "no end", "unknown", "no grace", "deep", "twice"],
)
def test_what_is_no_question_ends_the_connection(served: Inside, garbage: bytes) -> None:
    """And nothing else: others are answered as before."""
    line = served.line()
    try:
        line.socket.sendall(garbage)
        while line.hear():
            pass
    except (ConnectionResetError, BrokenPipeError):
        pass
    assert served.permit().get("/x").endswith(b"/x")
    for open_line in served._lines:
        open_line.close()
    until(lambda: served.ask(ask="look")["busy"] == 0)


def test_a_sender_that_hangs_up_does_not_let_two_requests_meet(tmp_path: Path) -> None:
    """The program sees the end of its connection; the next request is passed once it has let go of that one (F15)."""
    code = HTTP + dedent("""
        def get(self):
            if self.path == "/slow":
                assert self.rfile.read() == b""
                open("noticed", "w").close()
                while not os.path.exists("go"): time.sleep(0.01)
                open("finished", "w").close()
            self.answer(200, str(os.path.exists("finished")).encode())
        App.do_GET = get
        serve()
    """)
    with inside(tmp_path, code) as job:
        job.ready()
        line = job.permit()
        line.passed[0].sendall(b"GET /slow HTTP/1.0\r\n\r\n")
        waiting = job.line(ask="permit")
        assert waiting.hear() == {"answer": "wait", "ahead": 1}
        line.close()
        until((tmp_path / "home" / "noticed").exists)
        assert (job.ask(ask="look")["busy"], job.ask(ask="look")["waiting"]) == (1, 1)
        (tmp_path / "home" / "go").touch()
        assert waiting.hear()["answer"] == "go"
        assert waiting.get("/next").endswith(b"True")


def test_a_program_that_writes_to_nobody(tmp_path: Path) -> None:
    """Is told so, and the next request is passed: a stream without an end does not keep others out."""
    code = HTTP + dedent("""
        def get(self):
            self.answer(200, b"")
            while self.path == "/stream":
                self.wfile.write(b"x" * 1000)
                time.sleep(0.01)
        App.do_GET = get
        serve()
    """)
    with inside(tmp_path, code) as job:
        job.ready()
        line = job.permit()
        line.passed[0].settimeout(DEADLINE_S)
        line.passed[0].sendall(b"GET /stream HTTP/1.0\r\n\r\n")
        assert line.passed[0].recv(100)
        line.close()
        assert job.permit().get().startswith(b"HTTP/1.0 200")


def test_several_at_once_when_asked(tmp_path: Path) -> None:
    """`concurrency` permits are out at a time."""
    with inside(tmp_path, HTTP + "serve()", limits={"concurrency": 2}) as job:
        job.ready()
        lines = [job.permit(), job.permit()]
        third = job.line(ask="permit")
        assert third.hear() == {"answer": "wait", "ahead": 2}
        lines[1].close()
        assert third.hear()["answer"] == "go"


def test_a_program_that_stops_listening(tmp_path: Path) -> None:
    """Who asks is told at once, those who wait too; when it listens again, it is ready again, and holders hear both."""
    code = HTTP + dedent("""
        while True:
            server = http.server.ThreadingHTTPServer(("0.0.0.0", 5000), App)
            threading.Thread(target=server.serve_forever).start()
            while not os.path.exists("pause"): time.sleep(0.01)
            server.shutdown(); server.server_close(); open("paused", "w").close()
            while os.path.exists("pause"): time.sleep(0.01)
    """)
    with inside(tmp_path, code) as job:
        holder = job.line(ask="hold")
        while not holder.hear()["ready"]:
            pass
        permit = job.permit()
        (tmp_path / "home" / "pause").touch()
        until((tmp_path / "home" / "paused").exists)
        waiting = job.line(ask="permit")
        assert waiting.hear()["answer"] == "wait"
        permit.close()
        reason = "the program does not accept connections any more"
        assert waiting.hear() == {"answer": "failed", "reason": reason}
        assert job.ask(ask="permit") == {"answer": "failed", "reason": reason}
        assert not holder.hear()["ready"]
        (tmp_path / "home" / "pause").unlink()
        assert holder.hear()["ready"]
        assert job.permit().get("/y").endswith(b"/y")


# --- its end ---


@each_kind
def test_stopping_ends_every_process(tmp_path: Path, kind: str) -> None:
    """Daemons and those that ignore SIGTERM too; holders hear the ending, which is the one that is written (F22)."""
    marker = f"MARK={tmp_path}"
    environ = {"MARK": str(tmp_path)}
    with inside(tmp_path, DAEMON + HTTP + "serve()", kind=kind, environ=environ) as job:
        holder = job.line(ask="hold")
        while not holder.hear()["ready"]:
            pass
        until((tmp_path / "home" / "daemon").exists)
        assert len(alive(marker)) == 2
        permit = job.permit()
        waiting = job.line(ask="permit")
        assert waiting.hear()["answer"] == "wait"
        end = job.stop(grace_s=0.2)
        assert not alive(marker)
        refused = waiting.hear()
        assert (refused["answer"], refused["state"], refused["reason"]) == ("no", "ending", "it was asked to")
        assert waiting.hear() == {}
        assert permit.hear() == {}
        assert not holder.hear()["ready"]
        assert holder.hear() == {"answer": "ended", **end}
    assert (end["how"], end["code"], end["calls"]) == ("stopped", -signal.SIGKILL, 1)


def test_a_program_may_end_in_its_own_way(tmp_path: Path) -> None:
    """It has its time after SIGTERM; a second, more impatient stop makes that shorter."""
    code = dedent("""
        import signal, sys, time
        def end(*_):
            print("goodbye"); sys.exit(3)
        signal.signal(signal.SIGTERM, end); print("up"); time.sleep(600)
    """)
    with inside(tmp_path, mode="command", argv=(sys.executable, "-c", code)) as job:
        until(lambda: job.log == "up\n")
        end = job.stop(grace_s=600)
        assert (end["how"], end["code"], job.log) == ("stopped", 3, "up\ngoodbye\n")


def test_the_more_impatient_stop_wins(tmp_path: Path) -> None:
    """And the first one says how it ended."""
    with inside(tmp_path, mode="command", argv=(sys.executable, "-c", DAEMON + "print('up')\ntime.sleep(600)")) as job:
        until(lambda: job.log == "up\n")
        job.ask(ask="stop", grace_s=600, how="timeout", reason="first")
        job.ask(ask="stop", grace_s=0, how="stopped", reason="second")
        end = job.end()
    assert (end["how"], end["reason"], end["code"]) == ("timeout", "first", -signal.SIGKILL)


def test_a_signal_means_stop(tmp_path: Path) -> None:
    """For whoever has no gate."""
    with inside(tmp_path, mode="command", argv=(sys.executable, "-c", "import time; print('up'); time.sleep(600)")) as job:
        until(lambda: job.log == "up\n")
        job.process.terminate()
        assert job.end()["how"] == "stopped"


@each_kind
def test_what_a_command_leaves_behind_is_ended(tmp_path: Path, kind: str) -> None:
    """It is over when its program is, daemons or not."""
    end = command(tmp_path, DAEMON, kind=kind, environ={"MARK": str(tmp_path)}, grace_s=0.1)
    assert (end["how"], end["code"]) == ("exit", 0)
    assert not alive(f"MARK={tmp_path}")


@each_kind
def test_nobody_looks_after_it(tmp_path: Path, kind: str) -> None:
    """A job whose server is gone ends in time; as long as one holds the gate, it goes on."""
    with inside(tmp_path, HTTP + "serve()", kind=kind, orphan_s=0.8) as job:
        holder = job.line(ask="hold")
        other = job.line(ask="hold")
        while not holder.hear()["ready"]:
            pass
        other.close()
        until(lambda: job.ask(ask="look")["ran_s"] > 1.5)
        holder.close()
        end = job.end()
    assert (end["how"], end["reason"]) == ("orphaned", "no server has looked after it for 0.8 s")
