"""ModelServer and models.get: what they send, what they make of answers, and how they fail. The server is a small one of our own."""

import asyncio
import base64
import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dragoman.compat.tungstenkit import BaseIO, Binary, ModelServer, models
from dragoman.compat.tungstenkit.exceptions import InvalidURL, ModelClientError, ModelNotFound, PredictionFailure
from dragoman.compat.tungstenkit.models import LocalModel

FILE = {"type": "string", "format": "uri"}
METADATA = {
    "input_schema": {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "file": FILE,
            "sketch": {"type": "object", "properties": {"image": FILE, "mask": FILE}},
        },
    },
    "output_schema": {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "file": FILE,
            "many": {"type": "array", "items": FILE},
            "named": {"type": "object", "additionalProperties": FILE},
            "inner": {"type": "object", "properties": {"pic": FILE}},
        },
    },
    "demo_output_schema": {},
}


def uri(data: bytes, media_type: str = "application/octet-stream") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


class Site:
    """A server that keeps what it was asked and answers what a test told it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any, Mapping[str, str]]] = []
        self.answers: dict[tuple[str, str], Any] = {("GET", "/"): METADATA, ("GET", "/models/m"): METADATA}
        self.url = ""
        self.cancelled = threading.Event()

    def answer(self, method: str, path: str, status: int = 200, body: Any = None) -> None:
        self.answers[method, path] = (status, body)

    def posted(self, path: str = "/predict") -> Any:
        return next(payload for method, where, payload, _ in self.asked if (method, where) == ("POST", path))

    def succeed(self, *outputs: Any, path: str = "/predict") -> None:
        self.answer("POST", path, body={"outputs": list(outputs), "status": "success", "error_message": None})


@pytest.fixture
def site() -> Iterator[Site]:
    """It listens on a free port."""
    made = Site()

    class Handler(BaseHTTPRequestHandler):
        def reply(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            payload = json.loads(self.rfile.read(length)) if length else None
            made.asked.append((self.command, self.path, payload, dict(self.headers)))
            found = made.answers.get((self.command, self.path), (404, {"detail": "Not Found"}))
            status, body = found if isinstance(found, tuple) else (200, found)
            if self.path.endswith("/cancel"):
                made.cancelled.set()
            text = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = reply  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, where output files go by default."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Row(BaseIO):
    text: str
    file: Binary


class TestInputs:
    """Whatever stands for a file is sent as a URI."""

    def test_plain_values(self, site: Site) -> None:
        """A dict for a dict, a list for a list; one request for the schemas and one for the prediction."""
        site.succeed({"text": "b"})
        server = ModelServer(site.url)
        assert server.predict({"text": "a"}) == {"text": "b"}
        assert server.predict([{"text": "a"}]) == [{"text": "b"}]
        assert site.posted() == [{"text": "a"}]
        assert [(method, path) for method, path, *_ in site.asked] == [("GET", "/"), ("POST", "/predict")] * 2

    @pytest.mark.parametrize(
        ("make", "sent"),
        [
            (lambda p: p, uri(b"words", "text/plain")),
            (lambda p: str(p), uri(b"words", "text/plain")),
            (lambda p: p.as_uri(), uri(b"words", "text/plain")),
            (lambda p: p.name, uri(b"words", "text/plain")),
            (lambda p: b"words", uri(b"words")),
            (lambda p: bytearray(b"words"), uri(b"words")),
            (lambda p: io.BytesIO(b"words"), uri(b"words")),
            (lambda p: io.StringIO("words"), uri(b"words")),
            (lambda p: Binary.from_bytes(b"words"), uri(b"words")),
            (lambda p: Binary.from_path(p), uri(b"words", "text/plain")),
            (lambda p: "https://example.com/a.png", "https://example.com/a.png"),
            (lambda p: uri(b"words", "text/plain"), uri(b"words", "text/plain")),
            (lambda p: None, None),
        ],
    )
    def test_files(self, site: Site, here: Path, make: Callable[[Path], Any], sent: str | None) -> None:
        """Paths, bytes, buffers and files as data URIs; web addresses as they are."""
        path = here / "a.txt"
        path.write_text("words")
        site.succeed({})
        ModelServer(site.url).predict({"file": make(path)})
        assert site.posted() == [{"file": sent}]

    def test_open_files(self, site: Site, here: Path) -> None:
        """By the file behind them, buffered or not."""
        (here / "a.txt").write_text("words")
        site.succeed({}, {}, {})
        with (here / "a.txt").open() as text, (here / "a.txt").open("rb") as binary, (here / "a.txt").open("rb", buffering=0) as raw:
            ModelServer(site.url).predict([{"file": text}, {"file": binary}, {"file": raw}])
        assert [row["file"] for row in site.posted()] == [uri(b"words", "text/plain")] * 2 + [uri(b"words")]

    def test_files_inside_of_objects(self, site: Site) -> None:
        """A masked image is two."""
        site.succeed({})
        ModelServer(site.url).predict({"sketch": {"image": b"a", "mask": b"b"}, "unknown": {"x": 1}})
        assert site.posted() == [{"sketch": {"image": uri(b"a"), "mask": uri(b"b")}, "unknown": {"x": 1}}]

    def test_objects(self, site: Site) -> None:
        """A BaseIO object is as good as a dict."""
        site.succeed({"text": "b"})
        assert ModelServer(site.url).predict(Row(text="a", file=Binary.from_bytes(b"a"))) == {"text": "b"}
        assert site.posted() == [{"text": "a", "file": uri(b"a")}]

    @pytest.mark.parametrize(
        ("inputs", "error"),
        [("text", TypeError), (5, TypeError), (["text"], ValueError), ([{1: "a"}], ValueError), ({"file": 5}, TypeError)],
    )
    def test_what_is_no_input(self, site: Site, inputs: Any, error: type[Exception]) -> None:
        """Is said before anything is sent."""
        with pytest.raises(error):
            ModelServer(site.url).predict(inputs)
        assert not [path for _, path, *_ in site.asked if path == "/predict"]

    def test_a_file_that_is_not_there(self, site: Site) -> None:
        """Python's own error."""
        with pytest.raises(FileNotFoundError):
            ModelServer(site.url).predict({"file": "nothing.txt"})

    def test_headers_and_path(self, site: Site) -> None:
        """For a server with keys, or with several models."""
        site.succeed({}, path="/models/m/predict")
        ModelServer(f"{site.url}/models/m/", headers={"Authorization": "Bearer key"}).predict({})
        assert {headers["Authorization"] for *_, headers in site.asked} == {"Bearer key"}
        assert [path for _, path, *_ in site.asked] == ["/models/m", "/models/m/predict"]


class TestOutputs:
    """Files come back as paths."""

    def test_files_are_saved(self, site: Site, here: Path) -> None:
        """In the working directory, wherever the schema has a file; a text that looks like one stays a text."""
        site.succeed(
            {
                "text": uri(b"no file"),
                "file": uri(b"a", "image/png"),
                "many": [uri(b"b", "text/plain"), uri(b"c")],
                "named": {"x": uri(b"d")},
                "inner": {"pic": uri(b"e")},
            }
        )
        output = ModelServer(site.url).predict({})
        assert output["text"] == uri(b"no file")
        assert output["file"].suffix == ".png"
        saved = [output["file"], *output["many"], output["named"]["x"], output["inner"]["pic"]]
        assert [path.read_bytes() for path in saved] == [b"a", b"b", b"c", b"d", b"e"]
        assert {path.parent for path in saved} == {here}
        assert len(set(saved)) == 5

    def test_a_folder_for_them(self, site: Site, here: Path) -> None:
        """Is made when it is missing."""
        site.succeed({"file": uri(b"a")})
        output = ModelServer(site.url).predict({}, output_file_dir=here / "new" / "folder")
        assert output["file"].parent == here / "new" / "folder"

    def test_a_name_that_leads_elsewhere(self, site: Site, here: Path) -> None:
        """The server's field names are its own words."""
        site.answers["GET", "/"] = {**METADATA, "output_schema": {"properties": {"../../evil": FILE}}}
        site.succeed({"../../evil": uri(b"a", "image/png")})
        (path,) = ModelServer(site.url).predict({}).values()
        assert path.parent == here
        assert path.name.startswith("evil-")

    def test_web_addresses(self, site: Site, here: Path) -> None:
        """Stay as they are, or are fetched when the caller named a folder."""
        site.answer("GET", "/out.txt", body=b"words")
        site.succeed({"file": f"{site.url}/out.txt"})
        server = ModelServer(site.url)
        assert server.predict({})["file"] == f"{site.url}/out.txt"
        fetched = server.predict({}, output_file_dir=here)["file"]
        assert (fetched.read_bytes(), fetched.suffix) == (b"words", ".txt")


class TestFailures:
    """Each kind has its exception."""

    def test_a_failed_prediction(self, site: Site) -> None:
        """With the server's message."""
        site.answer("POST", "/predict", body={"outputs": None, "status": "failed", "error_message": "Traceback ...\nValueError: boom"})
        with pytest.raises(PredictionFailure, match="ValueError: boom"):
            ModelServer(site.url).predict({})

    def test_a_refused_input(self, site: Site) -> None:
        """With status and body."""
        site.answer("POST", "/predict", 422, {"detail": [{"loc": ["body", 0, "text"], "msg": "field required"}]})
        with pytest.raises(ModelClientError, match="field required") as caught:
            ModelServer(site.url).predict({})
        assert (caught.value.status_code, caught.value.reason[:13], caught.value.url) == (422, "Unprocessable", f"{site.url}/predict")

    @pytest.mark.parametrize("body", [b"not json", b"\xff"])
    def test_what_is_not_json(self, site: Site, body: bytes) -> None:
        """A proxy's page, perhaps."""
        site.answer("POST", "/predict", 200, body)
        with pytest.raises(ModelClientError, match="is not JSON"):
            ModelServer(site.url).predict({})

    def test_no_server(self) -> None:
        """Status 0."""
        with pytest.raises(ModelClientError, match="cannot reach the model server at http://127") as caught:
            ModelServer("http://127.0.0.1:1").predict({})
        assert caught.value.status_code == 0

    @pytest.mark.parametrize("url", ["localhost:3000", "ftp://x", "", "file:///etc"])
    def test_what_is_no_url(self, url: str) -> None:
        """Is refused at once."""
        with pytest.raises(InvalidURL, match="begins with http"):
            ModelServer(url)


class TestSubmitting:
    """Predictions by id."""

    def pending(self, site: Site) -> ModelServer:
        site.answer("POST", "/predictions", body={"prediction_id": "abc"})
        site.answer("GET", "/predictions/abc", body={"outputs": None, "status": "running", "error_message": None})
        site.answer("POST", "/predictions/abc/cancel")
        return ModelServer(site.url)

    def finish(self, site: Site, **state: Any) -> None:
        site.answer("GET", "/predictions/abc", body={"outputs": [{"text": "b"}], "status": "success", "error_message": None, **state})

    def test_submit_poll_cancel_wait(self, site: Site) -> None:
        """Each by its own route."""
        server = self.pending(site)
        assert server.submit({"file": b"a"}) == "abc"
        assert site.posted("/predictions") == [{"file": uri(b"a")}]
        assert server.poll("abc")["status"] == "running"
        server.cancel("abc")
        assert site.cancelled.is_set()
        with pytest.raises(TimeoutError, match="prediction abc has not ended"):
            server.wait("abc", timeout_s=0, interval_s=0.01)
        self.finish(site)
        assert server.wait("abc") == [{"text": "b"}]

    def test_an_id_is_one_path_segment(self, site: Site) -> None:
        """Whatever it has in it."""
        with pytest.raises(ModelClientError):
            ModelServer(site.url).poll("../x?y")
        assert site.asked[-1][1] == "/predictions/..%2Fx%3Fy"

    def test_predict_async(self, site: Site) -> None:
        """Does not hold the event loop."""
        server = self.pending(site)

        async def scenario() -> Any:
            running = asyncio.create_task(server.predict_async({"text": "a"}, interval_s=0.01))
            while not [path for _, path, *_ in site.asked if path == "/predictions/abc"]:
                await asyncio.sleep(0.01)
            assert not running.done()
            self.finish(site)
            return await asyncio.wait_for(running, 10)

        assert asyncio.run(scenario()) == {"text": "b"}

    def test_cancelling_the_await_cancels_the_prediction(self, site: Site) -> None:
        """So nothing runs for nobody."""
        server = self.pending(site)

        async def scenario() -> None:
            running = asyncio.create_task(server.predict_async([{"text": "a"}], interval_s=0.01))
            while not [path for _, path, *_ in site.asked if path == "/predictions/abc"]:
                await asyncio.sleep(0.01)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

        asyncio.run(scenario())
        assert site.cancelled.is_set()

    def test_a_failure_of_an_asynchronous_one(self, site: Site) -> None:
        """Is the same exception."""
        server = self.pending(site)
        self.finish(site, status="failed", outputs=None, error_message="Canceled")
        with pytest.raises(PredictionFailure, match="Canceled"):
            asyncio.run(server.predict_async({}))


class Answered:
    def __init__(self, status: int, body: Any) -> None:
        self.status = status
        self.body = json.dumps(body).encode()


class Inside:
    """What of dragoman.TestClient a local model uses."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.closed = 0

    def request(
        self, method: str, path: str, *, json: object = None, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answered:
        self.asked.append((method, path, json))
        if path == "/":
            return Answered(200, METADATA)
        return Answered(200, {"outputs": [{"file": uri(b"a", "text/plain")}], "status": "success", "error_message": None})

    def close(self) -> None:
        self.closed += 1


class TestLocalModel:
    """A model in this program: the same rules without a socket."""

    def test_predict(self, here: Path) -> None:
        """Files in and out."""
        inside = Inside()
        output = LocalModel("name:tag", inside).predict({"file": b"b"}, output_file_dir=here / "out")
        assert output["file"].read_text() == "a"
        assert output["file"].parent == here / "out"
        assert inside.asked == [("GET", "/", None), ("POST", "/predict", [{"file": uri(b"b")}])]

    def test_it_is_unloaded(self) -> None:
        """By close, by leaving a block, by being dropped; once."""
        closed, left, dropped = Inside(), Inside(), Inside()
        model = LocalModel("a", closed)
        model.close()
        model.close()
        with LocalModel("a", left):
            pass
        LocalModel("a", dropped)
        assert (closed.closed, left.closed, dropped.closed) == (1, 1, 1)

    def test_an_unknown_model(self) -> None:
        """ModelNotFound with the reason."""
        with pytest.raises(ModelNotFound, match="nobody"):
            models.get("nobody:v1")
