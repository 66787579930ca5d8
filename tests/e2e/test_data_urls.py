"""data_url and bodies that are files, on a real server with real web servers, files and a bucket on loopback (MLRun requirements M13, M15)."""

import gzip
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.running import Running, serving
from tests.models import build
from tests.unit.library.bucket import bucket
from tests.web import web

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
LIMIT = 200_000
CLASS = """
from mlrun.serving import V2ModelServer

class Echo(V2ModelServer):
    def load(self):
        pass

    def predict(self, request):
        seen = [each.read().hex() if hasattr(each, "read") else each for each in request["inputs"]]
        return {"seen": seen, "parameters": request.get("parameters"), "id": request.get("id")}
"""


@dataclass
class Site:
    """A web server of ours: `pages` by path."""

    url: str
    pages: dict[str, tuple[int, bytes, dict[str, str]]]


@contextmanager
def site(host: str) -> Iterator[Site]:
    pages: dict[str, tuple[int, bytes, dict[str, str]]] = {}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            status, body, headers = pages.get(self.path, (404, b"none", {}))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer((host, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield Site(f"http://{host}:{server.server_address[1]}", pages)
        finally:
            server.shutdown()
            thread.join()


@dataclass
class World:
    """The server, an open web server, one that is closed to it, an open folder, a bucket and a port that never answers."""

    server: Running
    near: Site
    far: Site
    folder: Path
    objects: dict[str, bytes]
    silent: str

    def ask(self, body: Any, model: str = "echo", operation: str = "infer") -> httpx.Response:
        return web.post(f"{self.server.url}/v2/models/{model}/{operation}", json=body, timeout=60)

    def seen(self, url: str) -> Any:
        answer = self.ask({"data_url": url})
        assert answer.status_code == 200, answer.text
        return answer.json()["outputs"]["seen"]

    def refused(self, url: Any, model: str = "echo") -> tuple[int, str]:
        answer = self.ask({"data_url": url}, model)
        assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
        return answer.status_code, str(answer.json()["error"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("urls")
    (folder / "echo.py").write_text(CLASS)
    model = build.iris(folder / "iris.onnx")
    opened = folder / "opened"
    opened.mkdir()
    with ExitStack() as stack:
        near, far = stack.enter_context(site("127.0.0.1")), stack.enter_context(site("127.0.0.2"))
        address, objects = stack.enter_context(bucket())
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        facts = {"ENDPOINT": address, "ALLOW_HTTP": "true", "ACCESS_KEY_ID": "me", "SECRET_ACCESS_KEY": "it", "REGION": "here"}
        allowed = [word for entry in ("127.0.0.1", opened.as_uri(), "s3://open/in") for word in ("--allow-fetch", entry)]
        limits = ["--fetch-timeout", "1.5", "--max-file", str(LIMIT)]
        targets = [f"echo={folder / 'echo.py'}", f"iris={model}"]
        extra = {f"AWS_{name}": value for name, value in facts.items()}
        server = stack.enter_context(serving(folder / "data", *targets, *allowed, *limits, extra=extra))
        yield World(server, near, far, opened, objects, f"http://127.0.0.1:{listener.getsockname()[1]}")


def test_json_from_the_web(world: World) -> None:
    """Becomes the inputs; id and parameters of the body stay."""
    world.near.pages["/rows.json"] = (200, b'{"inputs": [[1, "a"], [2, null]]}', {"Content-Type": "application/json"})
    world.near.pages["/moved"] = (302, b"", {"Location": "/rows.json"})
    body = {"data_url": f"{world.near.url}/moved", "id": "7", "parameters": {"p": 1}, "inputs": ["not", "this"]}
    document = world.ask(body).json()
    assert document["id"] == "7"
    assert document["outputs"] == {"seen": [[1, "a"], [2, None]], "parameters": {"p": 1}, "id": "7"}


def test_a_model_of_tensors(world: World) -> None:
    """Any model takes a data_url, also by name."""
    world.near.pages["/points"] = (200, b"[[5.1, 3.5, 1.4, 0.2]]", {})
    answer = world.ask({"data_url": f"{world.near.url}/points"}, "iris")
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["outputs"]) == 1


def test_other_content_is_a_file(world: World) -> None:
    """With exactly its bytes; gzip of the connection is taken off."""
    world.near.pages["/a.png"] = (200, PNG, {"Content-Type": "image/png"})
    world.near.pages["/packed"] = (200, gzip.compress(PNG), {"Content-Encoding": "gzip"})
    assert world.seen(f"{world.near.url}/a.png") == [PNG.hex()]
    assert world.seen(f"{world.near.url}/packed") == [PNG.hex()]


def test_files_of_the_server(world: World) -> None:
    """Below the folder that was opened, and nowhere else, whatever links and dots say."""
    (world.folder / "rows.json").write_text("[[1]]")
    (world.folder.parent / "secret.json").write_text("[[9]]")
    (world.folder / "out.json").symlink_to(world.folder.parent / "secret.json")
    (world.folder / "up").symlink_to(world.folder.parent)
    assert world.seen((world.folder / "rows.json").as_uri()) == [[1]]
    assert world.seen(str(world.folder / "rows.json")) == [[1]]
    for path in ("out.json", "up/secret.json", "../secret.json", "%2e%2e/secret.json"):
        status, text = world.refused(f"{world.folder.as_uri()}/{path}")
        assert status == 403, (path, text)
    assert world.refused("file:///etc/passwd")[0] == 403
    assert world.refused(f"{world.folder.as_uri()}/none.json")[0] == 400
    assert world.refused(world.folder.as_uri())[0] == 400


def test_objects_of_a_bucket(world: World) -> None:
    """Below what was opened of it."""
    world.objects |= {"in/rows.json": b"[[1, 2]]", "out/rows.json": b"[[9]]", "in/big": b"x" * (LIMIT + 1)}
    assert world.seen("s3://open/in/rows.json") == [[1, 2]]
    assert world.refused("s3://open/out/rows.json")[0] == 403
    assert world.refused("s3://open/in/../out/rows.json")[0] == 400
    assert world.refused("s3://closed/in/rows.json")[0] == 403
    assert world.refused("s3://open/in/none")[0] == 400
    assert world.refused("s3://open/in/big")[0] == 413


def test_what_is_closed(world: World) -> None:
    """Private addresses, directly, by a redirect and in odd spellings; the text says what would open it."""
    world.near.pages["/away"] = (302, b"", {"Location": f"{world.far.url}/x"})
    world.near.pages["/local"] = (302, b"", {"Location": "file:///etc/passwd"})
    world.far.pages["/x"] = (200, b"[[9]]", {})
    status, text = world.refused(f"{world.far.url}/x")
    assert (status, "--allow-fetch 127.0.0.2" in text) == (403, True)
    port = world.far.url.rsplit(":", 1)[1]
    for url in (
        f"{world.near.url}/away",
        f"{world.near.url}/local",
        f"http://2130706434:{port}/x",
        "http://169.254.169.254/latest",
        "http://[::1]/",
    ):
        assert world.refused(url)[0] == 403, url


def test_limits(world: World) -> None:
    """Of size, packed or not, and of time; a bomb is not unpacked."""
    world.near.pages["/full"] = (200, b"[" + b"1," * (LIMIT // 2 - 2) + b"1]\n", {})
    world.near.pages["/big"] = (200, b"x" * (LIMIT + 1), {})
    world.near.pages["/bomb"] = (200, gzip.compress(bytes(50 << 20)), {"Content-Encoding": "gzip"})
    assert len(world.seen(f"{world.near.url}/full")) == LIMIT // 2 - 1
    assert world.refused(f"{world.near.url}/big")[0] == 413
    assert world.refused(f"{world.near.url}/bomb")[0] == 413
    status, text = world.refused(f"{world.silent}/x")
    assert (status, "within 1.5 s" in text) == (400, True)


@pytest.mark.parametrize(
    "url", ["", 7, [], "nonsense", "ftp://127.0.0.1/x", "store://models/m", "http://", "http://[", "v3io:///projects/x"]
)
def test_urls_that_mean_nothing(world: World, url: Any) -> None:
    """Are the caller's mistake; the server lives on."""
    if url == "":
        assert world.ask({"data_url": url}).status_code == 400
    else:
        assert world.refused(url)[0] in (400, 403)
    assert world.ask({"inputs": [1]}).status_code == 200


def test_servers_that_fail(world: World) -> None:
    """Are a client error, too; a password in a URL is not repeated."""
    world.near.pages["/500"] = (500, b"no", {})
    host = world.near.url.removeprefix("http://")
    assert world.refused(f"{world.near.url}/500")[0] == 400
    status, text = world.refused(f"http://me:s3cret@{host}/none?token=s3cret")
    assert status == 400
    assert "s3cret" not in text
    world.near.pages["/broken.json"] = (200, b"[1, 2", {"Content-Type": "application/json"})
    assert "no valid JSON" in world.refused(f"{world.near.url}/broken.json")[1]


@pytest.mark.parametrize("content_type", ["image/png", "IMAGE/x-any; q=1", "audio/wav", "video/mp4"])
def test_bodies_that_are_files(world: World, content_type: str) -> None:
    """Are one file-like input with exactly these bytes; a model of numbers refuses them and says what it takes."""
    headers = {"content-type": content_type}
    answer = web.post(f"{world.server.url}/v2/models/echo/infer", content=PNG, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"]["seen"] == [PNG.hex()]
    refused = web.post(f"{world.server.url}/v2/models/iris/infer", content=PNG, headers=headers, timeout=60)
    assert refused.status_code == 400, refused.text
    assert "iris" in refused.json()["error"]
