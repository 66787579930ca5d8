"""Parts of a job's first process on their own: orders, the log, the loop, questions to the program, and what a file's text says."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from dragoman.core import jobs
from dragoman.hosting.jobs import Limits, Orders, orders_from, processes
from dragoman.hosting.jobs.ending import Ending
from dragoman.hosting.jobs.gate import Gate
from dragoman.hosting.jobs.listening import Listening, ports_of
from dragoman.hosting.jobs.log import Log
from dragoman.hosting.jobs.loop import READ, Loop
from dragoman.hosting.jobs.second_era import defines_app
from tests.jobs_inside import DEADLINE_S, Line, unstamped, until

ORDERS = Orders(mode="serve", argv=("python", "app.py"), python="/p", cwd="/floyd/home", environ={"A": "1"}, gate=3, log=4, end=5)

# --- orders ---


def test_orders_come_back() -> None:
    """As they were given; infinity too."""
    orders = Orders(**{**asdict(ORDERS), "argv": ("a",), "limits": Limits(max_runtime_s=float("inf"), memory=5)})
    assert orders_from(json.dumps(asdict(orders)).encode()) == orders


def test_limits_are_those_of_core() -> None:
    """By name: a first process imports nothing of core."""
    assert {f.name for f in fields(Limits)} == {f.name for f in fields(jobs.Limits)}
    assert ORDERS.port == jobs.PORT


def test_newer_orders_are_understood() -> None:
    """A job may have been begun by a newer server: what is not known is left out."""
    told = {**asdict(ORDERS), "colour": "red", "limits": {"colours": 3, "cpus": 2}}
    assert orders_from(json.dumps(told).encode()).limits == Limits(cpus=2)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"argv": 3}', b"nonsense"])
def test_what_are_no_orders(text: bytes) -> None:
    """Is refused."""
    with pytest.raises((ValueError, TypeError, KeyError)):
        orders_from(text)


# --- second-era files ---


@pytest.mark.parametrize(
    "text",
    [
        "app = Flask(__name__)",
        "app: object = 1",
        "def app(e, s): pass",
        "async def app(a, b, c): pass",
        "class app: pass",
        "from server import app",
        "from server import create as app",
        "import flask_thing as app",
        "a, (app, b) = 1, (2, 3)",
        "x = app = 1",
        "try:\n    import a\nexcept ImportError:\n    pass\nelse:\n    app = 1",
        "try:\n    a\nexcept E:\n    app = 1",
        "if debug:\n    app = 1",
        "if __name__ == '__main__':\n    pass\nelse:\n    app = 1",
        "with open('x') as app:\n    pass",
        "with a:\n    app = 1",
        "# -*- coding: latin-1 -*-\napp = '\xe9'",
    ],
)
def test_files_that_define_app(tmp_path: Path, text: str) -> None:
    """In whatever way a module may."""
    (tmp_path / "app.py").write_bytes(text.encode("latin-1"))
    assert defines_app(str(tmp_path / "app.py"))


@pytest.mark.parametrize(
    "text",
    [
        *("", "apps = 1", "app", "app.run()", "app.x = 1", "app[0] = 1", "import app.x", "app: int", "def f():\n    app = 1"),
        *(
            "class A:\n    app = 1",
            "if __name__ == '__main__':\n    app = 1",
            "if '__main__' == __name__:\n    app = 1",
            "[app for app in x]",
        ),
        *("app = (", "\0", "(" * 5000, "import app.thing as other"),
    ],
)
def test_files_that_do_not(tmp_path: Path, text: str) -> None:
    """Nor does what is no Python at all."""
    (tmp_path / "app.py").write_text(text)
    assert not defines_app(str(tmp_path / "app.py"))


def test_files_that_are_none(tmp_path: Path) -> None:
    """Absent, a folder, or too large to be looked at."""
    with open(tmp_path / "large.py", "wb") as file:
        file.write(b"app = 1\n")
        file.truncate(5 << 20)
    assert [defines_app(str(path)) for path in (tmp_path / "x.py", tmp_path, tmp_path / "large.py")] == [False] * 3


# --- the log ---


def written(folder: Path, pieces: list[bytes], size: int = 0, before: bytes = b"") -> tuple[str, Log]:
    (folder / "log").write_bytes(before)
    target = os.open(folder / "log", os.O_WRONLY | os.O_APPEND)
    log = Log(target, size)
    for piece in pieces:
        reader, writer = os.pipe()
        os.write(writer, piece)
        os.close(writer)
        assert not log.follow(reader)
        os.close(reader)
    log.say("over")
    os.close(target)
    return unstamped((folder / "log").read_text("utf-8", "replace")), log


def test_lines_of_ours_begin_lines(tmp_path: Path) -> None:
    """Also after a piece that has no end."""
    assert written(tmp_path, [b"a\n"])[0] == "a\n@over\n"
    assert written(tmp_path, [b"a"])[0] == "a\n@over\n"
    assert written(tmp_path, [])[0] == "@over\n"


@pytest.mark.parametrize(("size", "kept"), [(0, "abcdef"), (6, "abcdef"), (5, "abcde"), (2, "ab")])
def test_the_size_of_a_log(tmp_path: Path, size: int, kept: str) -> None:
    """Is kept to the byte; 0 means any."""
    text = written(tmp_path, [b"abc", b"def"], size)[0]
    assert text.startswith(kept + "\n@")
    assert ("The log is full" in text) == (kept != "abcdef")


def test_a_log_that_was_full_before(tmp_path: Path) -> None:
    """Gets lines of ours all the same."""
    text = written(tmp_path, [b"abc"], 3, before=b"xyz\n")[0]
    assert text.splitlines() == ["xyz", "@The log is full: what the program prints from here on is not kept.", "@over"]


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    """A full disk does not end the job."""
    target = os.open("/dev/full", os.O_WRONLY)
    reader, writer = os.pipe()
    os.write(writer, b"ValueError: x\n")
    os.close(writer)
    log = Log(target, 0)
    assert not log.follow(reader)
    log.say("x")
    assert log.last_error() == "ValueError: x"
    os.close(reader)
    os.close(target)


@pytest.mark.parametrize(
    ("last", "error"),
    [
        (b"Traceback ...\n  File\nKeyError: 'a'\n", "KeyError: 'a'"),
        (b"a.b.MyError\n\n  \n", "a.b.MyError"),
        (b"ValueError: then\nbye\n", ""),
        (b"  indented Error\n", ""),
        (b"\xff\xfe\n", ""),
        (b"", ""),
        (b"x" * 9000 + b"\nOSError: no\n", "OSError: no"),
        (b"OSError: " + b"x" * 600, "OSError: " + "x" * 491),
    ],
)
def test_the_last_error(tmp_path: Path, last: bytes, error: str) -> None:
    """The last line, when it names one."""
    assert written(tmp_path, [last] if last else [])[1].last_error() == error


# --- the loop ---


def test_timers_come_in_order() -> None:
    """And not those that were cancelled, not even by another."""
    loop, seen = Loop(), list[str]()
    loop.after(0.03, loop.stop)
    loop.after(0.02, lambda: seen.append("second"))
    late = loop.after(0.01, lambda: seen.append("cancelled"))
    loop.after(0.005, late.cancel)
    loop.after(0, lambda: seen.append("first"))
    loop.run()
    assert seen == ["first", "second"]


def test_what_is_forgotten_is_not_called() -> None:
    """Also when it was ready at the same time as who forgets it."""
    loop, seen = Loop(), list[int]()
    pairs = [socket.socketpair() for _ in range(2)]
    for number, (here, there) in enumerate(pairs):
        there.send(b"x")

        def ready(number: int = number) -> None:
            seen.append(number)
            loop.forget(pairs[1 - number][0])
            loop.stop()

        loop.watch(here, READ, ready)
    loop.run()
    assert len(seen) == 1
    for pair in pairs:
        for end in pair:
            end.close()


def test_nobody_is_there() -> None:
    """A connection that is refused, one that takes too long, and one that is given up."""
    loop, seen = Loop(), list[socket.socket | None]()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address: tuple[str, int] = server.getsockname()
        loop.connect(address, 5, seen.append)
        server.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        loop.connect(address, 0.05, seen.append)
        given_up = loop.connect(address, 0.05, lambda _: seen.append(server))
        assert given_up is not None
        given_up()
        loop.after(0.2, loop.stop)
        loop.run()
        for filler in fillers:
            filler.close()
    assert seen == [None, None]


# --- listening ---


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        yield server


def asked(server: socket.socket, answers: list[bytes | None], mine: bool = True) -> tuple[bool, list[bytes]]:
    """Whether a server that gives these answers keeps the prefix, and what it was asked. None: it does not answer."""
    loop, questions, found = Loop(), list[bytes](), list[bool]()
    kept = list[socket.socket]()

    def serve() -> None:
        for answer in answers:
            there, _ = server.accept()
            questions.append(there.recv(65536).split(b"\r\n")[0])
            if answer is None:
                kept.append(there)
                continue
            there.sendall(answer)
            there.close()

    def accepted(_address: tuple[str, int], keeps: bool) -> None:
        found.append(keeps)
        loop.after(0.05, loop.stop)

    thread = threading.Thread(target=serve)
    thread.start()
    Listening(loop, server.getsockname()[1], lambda: mine, accepted, probe_s=0.3).ask()
    loop.run()
    thread.join()
    for there in kept:
        there.close()
    (keeps,) = found
    return keeps, questions


@pytest.mark.parametrize(
    ("answers", "keeps"),
    [
        ([b"HTTP/1.1 200 OK\r\n\r\n"], False),
        ([b"HTTP/1.0 404 NOT FOUND\r\nA: b\r\n\r\nbody", b"HTTP/1.0 200 OK\r\n\r\n"], True),
        ([b"HTTP/1.1 404 Not Found\r\n\r\n", b"HTTP/1.1 404 Not Found\r\n\r\n"], False),
        ([b"HTTP/1.1 404 Not Found\r\n\r\n", None], True),
        ([None], False),
        ([b""], False),
        ([b"\xff\xfe" * 2000], False),
        ([b"HTTP/1.1 4\xb24 \r\n"], False),
        ([b"HTTP/1.1\r\n"], False),
    ],
)
def test_how_a_program_wants_its_paths(server: socket.socket, answers: list[bytes | None], keeps: bool) -> None:
    """By two questions at most, which a program need not answer."""
    found, questions = asked(server, answers)
    assert (found, len(questions)) == (keeps, len(answers))
    assert questions[0] == b"OPTIONS / HTTP/1.1"
    assert questions[1:] == [b"OPTIONS /expose/0000000000000000 HTTP/1.1"] * (len(answers) - 1)


def test_ports_are_found(server: socket.socket) -> None:
    """Of these processes, of all families, and of sockets that listen only."""
    with socket.create_server(("::", 0), family=socket.AF_INET6) as other, socket.create_connection(server.getsockname()) as client:
        found = ports_of([os.getpid(), 2**22 + 1])
        assert {(server.getsockname()[1], "127.0.0.1"), (other.getsockname()[1], "::")} <= set(found)
        assert client.getsockname()[1] not in {port for port, _ in found}
    assert ports_of([]) == []


# --- processes ---


_FAMILY = """if True:
    import subprocess, sys, time
    from dragoman.hosting.jobs import processes
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'input()'], stdin=sys.stdin).wait()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as child:
        while len(found := processes.members()) < 2:
            time.sleep(0.01)
        assert child.pid in found
        assert sorted(processes.most()) == sorted(found)
        assert processes.resident(found) >= processes.proportional(found) > 1 << 20
        child.stdin.write(b"\\n")
        child.stdin.close()
        while processes.members():
            time.sleep(0.01)
        assert processes.most() == []
        assert processes.resident(found) == processes.proportional(found) == 0
        assert [code for number, code in processes.reap() if number == child.pid] == [0]
        child.returncode = 0
    print("as it should be")
"""


def test_two_ways_to_look_for_processes() -> None:
    """Find the same ones: children and theirs, and none that has ended. In a process of its own, since tests may have other children."""
    done = subprocess.run([sys.executable, "-c", _FAMILY], capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.stdout == "as it should be\n", done.stderr


@pytest.mark.parametrize("leave", ["hosting.jobs.processes.leave_keyring", "engines.jobs.bubble._leave_keyring"])
def test_keys_of_the_kernel_are_not_inherited(leave: str) -> None:
    """What the server's session keyring holds is out of reach, where the kernel has such keyrings and lets this process use them."""
    program = f"""if True:
        import ctypes, os
        import dragoman.{leave.rpartition(".")[0]}
        call = ctypes.CDLL(None, use_errno=True).syscall
        machine = os.uname().machine
        search = {{"x86_64": 250, "aarch64": 219}}.get(machine, 0)
        add = {{"x86_64": 248, "aarch64": 217}}.get(machine, 0)
        if not search or call(search, 1, None) < 0 or call(add, b"user", b"secret", b"x", 1, -3) < 0:
            print("no keyrings")
        else:
            found = call(search, 10, -3, b"user", b"secret", 0) > 0
            dragoman.{leave}()
            print(found, call(search, 10, -3, b"user", b"secret", 0) > 0)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() in ("True False", "no keyrings")


def test_signals_have_names() -> None:
    """Those that have none keep their number."""
    assert [processes.signal_name(number) for number in (9, 15, 40, 99)] == ["SIGKILL", "SIGTERM", "signal 40", "signal 99"]


def test_a_program_that_does_not_let_go(tmp_path: Path, server: socket.socket) -> None:
    """Holds up the next request only so long, and not the end."""
    loop = Loop()
    with socket.socket(socket.AF_UNIX) as listener:
        place = os.open(tmp_path, os.O_PATH)
        listener.bind(f"/proc/self/fd/{place}/gate")
        os.close(place)
        listener.listen()
        gate = Gate(loop, listener, 1, lambda: {"ran_s": 0.0}, lambda *_: None, lambda: None, linger_s=0.1)
        gate.open(server.getsockname(), keeps_prefix=False)
        over = threading.Event()

        def look() -> None:
            if over.is_set():
                gate.ended({"how": "exit"})
                loop.stop()
            loop.after(0.01, look)

        look()
        thread = threading.Thread(target=loop.run)
        thread.start()
        lines = [Line(tmp_path).say(ask="permit") for _ in range(2)]
        assert lines[0].hear()["answer"] == "go"
        assert lines[1].hear()["answer"] == "wait"
        kept = [server.accept()[0]]
        lines[0].close()
        assert lines[1].hear()["answer"] == "go"
        kept.append(server.accept()[0])
        lines[1].close()
        until(lambda: gate.seen()["busy"] == 0)
        last = Line(tmp_path).say(ask="permit")
        assert last.hear()["answer"] == "go"
        kept.append(server.accept()[0])
        last.say(ask="done")
        over.set()
        assert last.hear() == {}
        thread.join()
        assert [there.recv(1) for there in kept] == [b""] * 3
        last.close()
        for there in kept:
            there.close()


def test_an_ending_says_how_far_it_has_come(tmp_path: Path) -> None:
    """Each word replaces the one before, whichever is longer, and no more room on the disk is needed for any."""
    path = tmp_path / "end.json"
    with path.open("wb", 0) as file:
        ending = Ending(file.fileno())
        size = path.stat().st_size
        ending.progress(12345.5, 1000)
        assert json.loads(path.read_bytes()) == {"ran_s": 12345.5, "calls": 1000}
        ending.progress(1.0, 2)
        assert json.loads(path.read_bytes()) == {"ran_s": 1.0, "calls": 2}
        ending.final({"how": "exit", "reason": "\udcff" + "x" * 5000, "calls": 3})
    said = json.loads(path.read_bytes())
    assert (said["how"], said["calls"], said["reason"][:2]) == ("exit", 3, "?x")
    assert path.stat().st_size == size
