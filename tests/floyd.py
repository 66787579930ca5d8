"""FloydHub's own client, as somebody uses it in a folder against a server of ours; and programs for it to run. Used by end-to-end tests.

Its reports of crashes are turned off, and the two addresses that --host does not move are set, as `dragoman floyd` does; the rest is as released.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen

import httpx

from tests import clients
from tests.e2e.running import Running, command, environment, serving
from tests.web import web

PATIENCE_S = 90.0

_SCRIPT = """\
import os, tempfile, warnings
warnings.simplefilter("ignore")
os.chdir(given["folder"])
import raven
raven.Client = lambda *a, **k: None
import floyd
floyd.floyd_web_host = given["url"].rstrip("/")
floyd.tus_server_endpoint = floyd.floyd_web_host + "/api/v1/upload/"
printed = tempfile.TemporaryFile()
kept = [os.dup(1), os.dup(2)]
sys.stdout.flush()
os.dup2(printed.fileno(), 1)
os.dup2(printed.fileno(), 2)
code = 0
try:
    from floyd.main import cli
    cli(["-h", given["url"], *given["words"]], prog_name="floyd")
except SystemExit as end:
    if isinstance(end.code, str):
        print(end.code)
        end.code = 1
    code = end.code or 0
except BaseException as error:
    print("CRASHED", type(error).__name__, error)
    code = 70
sys.stdout.flush()
os.dup2(kept[0], 1)
os.dup2(kept[1], 2)
printed.seek(0)
answer({"code": code, "out": printed.read().decode("utf-8", "replace")})
"""


@dataclass(frozen=True)
class Done:
    """What a command printed, on either output, and its exit code."""

    code: int
    out: str

    @property
    def job(self) -> str:
        """The name of the job that was started."""
        return self._found(r"^([\w.-]+/projects/[\w.-]+/\d+)$")

    @property
    def endpoint(self) -> str:
        return self._found(r"URL to service endpoint: (\S+)")

    def _found(self, pattern: str) -> str:
        found = re.search(pattern, self.out, re.MULTILINE)
        assert found, self.out
        return found[1]


@dataclass(frozen=True)
class Floyd:
    """The client of one person, with a home of their own."""

    url: str
    home: Path

    def __call__(self, folder: Path, *words: str, code: int = 0, timeout_s: float = 100.0) -> Done:
        """`floyd WORDS` in a folder; fails when it ends with another code."""
        changed = {"HOME": str(self.home), "PYTHONIOENCODING": "utf-8", "LC_ALL": "C.UTF-8", "BROWSER": "true"}
        said = clients.run("floyd", _SCRIPT, timeout_s=timeout_s, environment=changed, folder=str(folder), url=self.url, words=list(words))
        assert said["code"] == code, f"floyd {' '.join(words)} ended with {said['code']}:\n{said['out']}"
        return Done(said["code"], said["out"])

    @contextmanager
    def meanwhile(self, folder: Path, *words: str) -> Iterator[Popen[str]]:
        """`dragoman floyd WORDS`, which goes on beside the test; its standard output is for reading."""
        client = clients.python_of("floyd").parents[1]
        given = environment(self.home, {"HOME": str(self.home), "DRAGOMAN_FLOYD": str(client), "DRAGOMAN_URL": self.url})
        with Popen(command("floyd", *words), cwd=folder, env=given, stdout=PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def logged_in(self, name: str) -> "Floyd":
        self.home.mkdir(parents=True, exist_ok=True)
        self(self.home, "login", "-k", name)
        return self

    def state(self, folder: Path, job: str) -> str:
        """As `floyd status` shows it."""
        line = next(line for line in self(folder, "status", job).out.splitlines() if line.startswith(job))
        return re.split(r"\s{2,}", line)[2]


@contextmanager
def hub(folder: Path, *arguments: str) -> Iterator[Running]:
    """A server with jobs, and nothing else. Jobs end with it."""
    with serving(folder, *arguments, extra={"HOME": str(folder)}) as running:
        yield running


def project(folder: Path, **files: str) -> Path:
    """A folder with files; in names `__` stands for a slash, and the last `_` for a dot."""
    for name, text in files.items():
        stem, _, suffix = name.rpartition("_")
        path = folder / (stem.replace("__", "/") + "." + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def until(condition: Callable[[], object], what: object = "") -> None:
    """Wait for a condition. `what` is said, or called for what is said, when it never comes."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(0.05)


def answering(endpoint: str) -> httpx.Response:
    """The first answer of the program itself: until then the endpoint says 503, and nothing else (requirement F16)."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        answer = web.get(endpoint, timeout=30.0)
        if answer.status_code != 503:
            assert answer.status_code != 410, answer.text
            return answer
        assert answer.headers["retry-after"].isdigit()
        assert {"state", "message"} <= answer.json().keys()
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.05)


WEB = """\
import hashlib, json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

WORD = "of the program"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply(200, json.dumps(report()).encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.reply(200, hashlib.sha256(body).hexdigest().encode())

    def reply(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def report():
    sums = {}
    for root, _, names in os.walk("."):
        for name in names:
            path = os.path.join(root, name)
            with open(path, "rb") as file:
                sums[path] = hashlib.sha256(file.read()).hexdigest()
    here = [place for place in ("/input", "/floyd/input/input") if os.path.isdir(place)]
    data = {place: {name: open(os.path.join(place, name)).read() for name in sorted(os.listdir(place))} for place in here}
    return {"word": WORD, "files": sums, "data": data, "floydhub": os.environ.get("FLOYDHUB"), "pid": os.getpid()}


if __name__ == "__main__":
    print("starting", flush=True)
    with open("/output/kept.txt", "w") as file:
        file.write("kept")
    with open("written.txt", "w") as file:
        file.write("here")
    HTTPServer(("0.0.0.0", 5000), Handler).serve_forever()
"""
"""A program without any package: it says what it sees of its folder, its data and its environment."""
