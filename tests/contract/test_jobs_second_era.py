"""Programs of FloydHub's second era, which define `app` and do not serve it; and others whose first process ends before they are served."""

import sys
from pathlib import Path

import pytest

from tests.jobs_inside import HTTP, Inside, inside, kinds, oldest_python, unstamped, until

each_kind = pytest.mark.parametrize("kind", kinds())

WSGI = """
import os, sys
print("loaded as", __name__, sys.argv, os.path.basename(os.getcwd()))
import beside
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [beside.greeting.encode(), environ["PATH_INFO"].encode()]
if __name__ == "__main__":
    print("run")
"""


ONE = """
def serve_one():
    server = http.server.HTTPServer(("0.0.0.0", 5000), App)
    answered = []
    def get(self):
        self.answer(200, self.path.encode())
        answered.append(self.path)
    App.do_GET = get
    while not answered:
        server.handle_request()
"""
"""Serves until it has answered one request."""


def project(folder: Path) -> Path:
    """A folder for a job whose app.py has another module beside it."""
    home = folder / "home"
    home.mkdir()
    (home / "beside.py").write_text("greeting = 'hello '\n")
    (home / "gate.py").write_text("raise SystemExit('not ours')\n")
    return folder


def without(folder: Path, *packages: str) -> dict[str, str]:
    """An environment in which these cannot be imported, whatever Python has."""
    (folder / "packages").mkdir()
    for package in packages:
        (folder / "packages" / f"{package}.py").write_text("raise ImportError")
    return {"PYTHONPATH": str(folder / "packages")}


def get(job: Inside, path: str) -> bytes:
    line = job.permit()
    found = line.get(path)
    line.close()
    return found


@each_kind
@pytest.mark.parametrize("python", sorted({sys.executable, oldest_python()}))
def test_app_is_served(tmp_path: Path, kind: str, python: str) -> None:
    """By the standard library where there is nothing better; the file is imported this time, as it was meant, and the log says so."""
    with inside(project(tmp_path), WSGI, kind=kind, python=python, environ=without(tmp_path, "werkzeug")) as job:
        assert not job.ready()["keeps_prefix"]
        assert get(job, "/a").endswith(b"\r\n\r\nhello /a")
        assert get(job, "/b").endswith(b"\r\n\r\nhello /b")
        lines = unstamped(job.log).splitlines()
        end = job.stop()
    assert lines[:4] == [
        "loaded as __main__ ['app.py'] home",
        "run",
        "@app.py has ended without listening on port 5000, and defines `app`: that is served now.",
        "loaded as app ['app.py'] home",
    ]
    assert (end["how"], end["calls"]) == ("stopped", 2)


def test_the_jobs_own_server_is_preferred(tmp_path: Path) -> None:
    """werkzeug's, when the job's packages have it."""
    stand_in = tmp_path / "packages" / "werkzeug"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").touch()
    (stand_in / "serving.py").write_text(
        "def run_simple(host, port, app, threaded):\n"
        "    from wsgiref.simple_server import make_server\n"
        "    print('werkzeug serves', threaded)\n"
        "    make_server(host, port, app).serve_forever()\n"
    )
    with inside(project(tmp_path), WSGI, environ={"PYTHONPATH": str(stand_in.parent)}) as job:
        job.ready()
        assert get(job, "/c").endswith(b"hello /c")
        assert "werkzeug serves True\n" in job.log


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print('nothing to serve')", "app.py ended without having accepted connections on port 5000, and defines no `app` to serve"),
        (
            "if __name__ == '__main__':\n    app = print",
            "app.py ended without having accepted connections on port 5000, and defines no `app`",
        ),
        ("app = 3", "the program ended with exit code 1"),
        ("async def app(scope, receive, send): pass", "the program ended with exit code 1"),
        ("app = 1 / (__name__ == '__main__')", "the program ended with exit code 1: ZeroDivisionError: division by zero"),
    ],
    ids=["nothing", "in main only", "a number", "ASGI without uvicorn", "a crash"],
)
def test_what_cannot_be_served(tmp_path: Path, code: str, reason: str) -> None:
    """Has failed, with the reason."""
    with inside(tmp_path, code, environ=without(tmp_path, "uvicorn")) as job:
        end = job.end()
        log = job.log
    assert end["reason"].startswith(reason)
    assert ("app of app.py is int: a WSGI application was expected" in log) == (code == "app = 3")
    assert ("name uvicorn in floyd_requirements.txt" in log) == code.startswith("async")


def test_asgi_with_uvicorn(tmp_path: Path) -> None:
    """An ASGI application is given to uvicorn, when the job's packages have it."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "uvicorn.py").write_text("def run(app, host, port): print('uvicorn', host, port)")
    with inside(tmp_path, "async def app(scope, receive, send): pass", environ={"PYTHONPATH": str(tmp_path / "packages")}) as job:
        end = job.end()
        assert job.log.endswith("uvicorn 127.0.0.1 5000\n")
    assert end["how"] == "start_timeout"


@each_kind
def test_a_program_may_leave_its_server_behind(tmp_path: Path, kind: str) -> None:
    """As a daemon: the job goes on until that has ended."""
    with inside(tmp_path, HTTP + ONE + "if os.fork(): sys.exit()\nos.setsid()\nserve_one()", kind=kind) as job:
        job.ready()
        assert get(job, "/d").endswith(b"/d")
        end = job.end()
    assert (end["how"], end["code"], end["reason"], end["calls"]) == ("exit", 0, "", 1)


def test_a_server_that_ends_well_is_not_served_again(tmp_path: Path) -> None:
    """It was ready once: with `app` or without, that was all."""
    with inside(tmp_path, HTTP + ONE + "app = 1\nserve_one()") as job:
        job.ready()
        assert get(job, "/e").endswith(b"/e")
        end = job.end()
    assert (end["how"], end["code"], end["reason"]) == ("exit", 0, "")


def test_a_broken_server_is_a_failure(tmp_path: Path) -> None:
    """An exit code other than 0 is never second-era."""
    with inside(tmp_path, "app = 1\nraise SystemExit(4)") as job:
        assert job.end()["reason"] == "the program ended with exit code 4"


def test_the_hint(tmp_path: Path) -> None:
    """A program that serves elsewhere is told so in its log before its time is over."""
    with inside(tmp_path, HTTP + "print('up')\nhttp.server.HTTPServer(('127.0.0.1', 0), App).serve_forever()") as job:
        until(lambda: "The program does not listen on port 5000, where its endpoint is; it listens on port " in job.log)
