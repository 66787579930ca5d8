"""Tungsten's REST API as a client meets it: the real command, model files in processes of their own, and HTTP from the standard library."""

import base64
import http.client
import http.server
import json
import queue
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import tungsten_models
from tests.e2e.running import Running, serving
from tests.models import build

JSON = {"Content-Type": "application/json"}
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
URI = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
ROOT = ["body", "__root__"]


class Server:
    """A server and its models' folder."""

    def __init__(self, running: Running, models: Path) -> None:
        self.running = running
        self.models = models

    def send(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, body. Bodies that are no bytes are JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.running.port, timeout=60)
        try:
            content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, content, JSON if headers is None and body is not None else headers or {})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, body: Any = None, status: int = 200, headers: dict[str, str] | None = None) -> Any:
        got, found, content = self.send(method, path, body, headers)
        assert (got, found["content-type"]) == (status, "application/json"), content
        return json.loads(content)

    def start(self, *rows: Any, path: str = "/predictions") -> str:
        (prediction_id,) = self.json("POST", path, list(rows)).values()
        return str(prediction_id)

    def ended(self, prediction_id: str, kind: str = "predictions") -> Any:
        found = self.json("GET", f"/{kind}/{prediction_id}?wait=30")
        assert found["status"] in ("success", "failed"), found
        return found

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            time.sleep(0.005)

    def open(self, name: str) -> None:
        """Let those go that wait for this file."""
        (self.models / "text" / name).touch()

    def hold(self, name: str) -> str:
        """A prediction that runs until `open`."""
        prediction_id = self.start({"prompt": f"wait {name}"})
        self.until(lambda: bool(self.json("GET", f"/predictions/{prediction_id}")["status"] == "running"))
        return prediction_id


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("tungsten")
    models = tungsten_models.write(folder / "models")
    iris = build.iris(folder / "iris.onnx")
    with serving(folder, str(models / "text"), str(models / "files"), str(iris)) as running:
        yield Server(running, models)


# --- the table of routes ---


def test_the_face(server: Server) -> None:
    """Three schemas of the default model, inlined, with limits, choices and descriptions."""
    found = server.json("GET", "/")
    assert found["input_schema"] == {
        "type": "object",
        "properties": {
            "prompt": {"type": "string", "minLength": 2, "maxLength": 60, "description": "What to say"},
            "seed": {"type": "integer", "minimum": 0, "maximum": 99, "default": 7, "description": "Seed"},
            "style": {"type": "string", "choices": ["plain", "loud"], "default": "plain", "description": "Style"},
        },
        "required": ["prompt"],
    }
    assert list(found["output_schema"]["properties"]) == ["text", "score", "batch"]
    assert list(found["demo_output_schema"]["properties"]) == ["page"]
    files = server.json("GET", "/models/files")
    assert files["input_schema"]["properties"]["image"]["format"] == "uri"
    assert "$ref" not in json.dumps(files)


def test_start_and_poll(server: Server) -> None:
    """An id at once; three keys; outputs in the order of the inputs, under the names of the fields."""
    prediction_id = server.start({"prompt": "one"}, {"prompt": "two", "style": "loud"}, {"prompt": "three"})
    assert len(prediction_id) == 32
    found = server.ended(prediction_id)
    assert list(found) == ["outputs", "status", "error_message"]
    assert [each["text"] for each in found["outputs"]] == ["one", "TWO", "three"]
    assert (found["status"], found["error_message"]) == ("success", None)


def test_the_four_words(server: Server) -> None:
    """Running while it runs, pending behind it, then success; and failed."""
    first = server.hold("words")
    second = server.start({"prompt": "second", "seed": 1})
    assert server.json("GET", f"/predictions/{second}") == {"outputs": None, "status": "pending", "error_message": None}
    assert server.json("GET", f"/predictions/{first}") == {"outputs": None, "status": "running", "error_message": None}
    server.open("words")
    assert server.ended(first)["status"] == server.ended(second)["status"] == "success"


def test_a_failure(server: Server) -> None:
    """The traceback for the owner, and the whole prediction has failed; the server goes on."""
    found = server.ended(server.start({"prompt": "fine"}, {"prompt": "boom"}))
    assert (found["outputs"], found["status"]) == (None, "failed")
    assert found["error_message"].startswith("Traceback")
    assert found["error_message"].endswith("ValueError: boom happened\n")
    assert server.json("POST", "/predict", [{"prompt": "boom"}])["error_message"] == found["error_message"]
    assert server.json("POST", "/predict", [{"prompt": "next"}])["status"] == "success"


def test_one_bad_input_does_not_fail_strangers(server: Server) -> None:
    """Also when it ran in their batch: only its own prediction shows the traceback."""
    held = server.hold("strangers")
    others = [server.start({"prompt": "boom" if number == 1 else f"good {number}"}) for number in range(4)]
    server.open("strangers")
    found = [server.ended(each) for each in (held, *others)]
    assert [each["status"] for each in found] == ["success", "success", "failed", "success", "success"]
    assert "boom" not in json.dumps([found[1], found[3], found[4]])


def test_predict(server: Server) -> None:
    """Waits, and answers what polling would."""
    found = server.json("POST", "/predict", [{"prompt": "now"}, {"prompt": "later", "seed": 3}])
    assert [each["text"] for each in found["outputs"]] == ["now", "later"]
    assert list(found) == ["outputs", "status", "error_message"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_cancel(server: Server, method: str) -> None:
    """Running or waiting, by either method, and again; the worker is free at once and the neighbour unhurt."""
    running = server.hold(f"never-{method}")
    queued = server.start({"prompt": "queued", "seed": 5})
    neighbour = server.start({"prompt": "neighbour", "seed": 6})
    for prediction_id in (queued, running, queued, running):
        status, headers, body = server.send(method, f"/predictions/{prediction_id}/cancel")
        assert (status, body, headers["content-length"]) == (200, b"", "0")
    for prediction_id in (queued, running):
        found = server.json("GET", f"/predictions/{prediction_id}")
        assert found == {"outputs": None, "status": "failed", "error_message": "Canceled"}
    assert server.ended(neighbour)["status"] == "success"
    server.send(method, f"/predictions/{neighbour}/cancel")
    assert server.ended(neighbour)["status"] == "success"
    assert "saying queued" not in server.running.output


def test_demo(server: Server) -> None:
    """Logs while it runs, what it shows beside what it answers; either route knows the id."""
    demo_id = server.start({"prompt": "wait demo"}, path="/demo")
    server.until(lambda: server.json("GET", f"/demo/{demo_id}")["logs"] == "saying wait demo\n")
    running = server.json("GET", f"/demo/{demo_id}")
    assert (running["status"], running["demo_outputs"]) == ("running", None)
    server.open("demo")
    found = server.ended(demo_id, "demo")
    assert found["demo_outputs"] == [{"page": "<b>wait demo</b>"}]
    assert found["outputs"][0]["text"] == "wait demo"
    assert server.json("GET", f"/predictions/{demo_id}")["outputs"] == found["outputs"]
    assert server.send("POST", f"/demo/{demo_id}/cancel")[::2] == (200, b"")


def test_every_model_answers(server: Server) -> None:
    """Below its name, with and without a tag; ids belong to their model."""
    for path in ("/models/iris", "/models/iris:1"):
        found = server.json("POST", f"{path}/predict", [{"X": [5.1, 3.5, 1.4, 0.2]}, {"X": ["6.7", 3, 5.2, 2.3]}])
        assert (found["status"], len(found["outputs"])) == ("success", 2)
        assert [each["label"] for each in found["outputs"]] == [[0], [2]]
        prediction_id = server.start({"X": [5.1, 3.5, 1.4, 0.2]}, path=f"{path}/predictions")
        assert server.ended(prediction_id)["outputs"] == found["outputs"][:1]
        assert server.json("GET", f"/models/iris/predictions/{prediction_id}")["status"] == "success"
        assert server.json("GET", f"/models/text/predictions/{prediction_id}", status=404) == {"detail": prediction_id}
        demo_id = server.start({"X": [5.1, 3.5, 1.4, 0.2]}, path=f"{path}/demo")
        assert server.ended(demo_id, "demo")["demo_outputs"] == found["outputs"][:1]
    assert server.json("POST", "/models/text:1/predict", [{"prompt": "tagged"}])["status"] == "success"


def test_the_same_model_through_other_doors(server: Server) -> None:
    """Rows as tensors and as instances; none at all is the caller's mistake."""
    tensors = {"inputs": [{"name": "prompt", "shape": [2], "datatype": "BYTES", "data": ["one", "two"]}]}
    found = {each["name"]: each["data"] for each in server.json("POST", "/v2/models/text/infer", tensors)["outputs"]}
    assert found["text"] == ["one", "two"]
    instances = server.json("POST", "/v1/models/text:predict", {"instances": [{"prompt": "one"}, {"prompt": "two", "style": "loud"}]})
    assert [each["text"] for each in instances["predictions"]] == ["one", "TWO"]
    assert "error" in server.json("POST", "/v1/models/text:predict", {"inputs": {"prompt": []}}, 400)


# --- bad input ---


@pytest.mark.parametrize(
    ("body", "loc", "code"),
    [
        ({"prompt": "one"}, ROOT, "type_error.list"),
        ([], ROOT, "value_error.list.min_items"),
        ([{}], [*ROOT, 0, "prompt"], "value_error.missing"),
        ([{"prompt": "a"}], [*ROOT, 0, "prompt"], "value_error.any_str.min_length"),
        ([{"prompt": "a" * 61}], [*ROOT, 0, "prompt"], "value_error.any_str.max_length"),
        ([{"prompt": "aa"}, {"prompt": "aa", "seed": -1}], [*ROOT, 1, "seed"], "value_error.number.not_ge"),
        ([{"prompt": "aa", "seed": 100}], [*ROOT, 0, "seed"], "value_error.number.not_le"),
        ([{"prompt": "aa", "seed": "x"}], [*ROOT, 0, "seed"], "type_error.integer"),
        ([{"prompt": "aa", "style": "odd"}], [*ROOT, 0, "style"], None),
        ([{"prompt": None}], [*ROOT, 0, "prompt"], "type_error.none.not_allowed"),
        ([7], [*ROOT, 0], "type_error.dict"),
        (b"nonsense", ["body", 0], "json_invalid"),
        (b"null", ["body"], "value_error.missing"),
        (b"", ["body"], "value_error.missing"),
    ],
)
@pytest.mark.parametrize("path", ["/predictions", "/predict", "/demo"])
def test_bad_input(server: Server, path: str, body: Any, loc: list[Any], code: str | None) -> None:
    """422 in the original's shape, before anything is queued."""
    (problem,) = server.json("POST", path, body, 422, JSON)["detail"]
    assert problem["loc"] == loc
    assert code is None or problem["type"] == code


def test_types_of_bodies(server: Server) -> None:
    """Text is not looked at; a body without a type is JSON."""
    body = b'[{"prompt":"aa"}]'
    (problem,) = server.json("POST", "/predict", body, 422, {"Content-Type": "text/plain"})["detail"]
    assert problem["type"] == "type_error.list"
    assert server.json("POST", "/predict", body, headers={})["status"] == "success"


def test_what_is_not_there(server: Server) -> None:
    """Ids, paths, methods, models."""
    for path in ("/predictions/nope", "/demo/nope", "/predictions/nope/cancel", "/demo/nope/cancel"):
        assert server.json("GET", path, status=404) == {"detail": "nope"}
    for path in ("/nope", "/predictions/a/b", "/models/text/nope"):
        assert server.json("GET", path, status=404)["detail"] == "Not Found"
    for method, path in (("PUT", "/predictions"), ("GET", "/predict"), ("DELETE", "/demo"), ("PUT", "/")):
        assert server.json(method, path, status=405)["detail"] == "Method Not Allowed"
    assert "nope" in server.json("POST", "/models/nope/predict", [{}], 404)["detail"]
    assert "nope" in server.json("POST", "/models/text:nope/predict", [{}], 404)["detail"]


def test_floats_that_json_does_not_have(server: Server) -> None:
    """null, by either way."""
    found = server.json("POST", "/predict", [{"prompt": "nan"}, {"prompt": "inf"}])
    assert [each["score"] for each in found["outputs"]] == [None, None]
    assert server.ended(server.start({"prompt": "nan"}))["outputs"][0]["score"] is None


# --- files ---


def test_files_in_and_out(server: Server) -> None:
    """Data URIs and base64 go in; files come out wherever they stand, read before the next call overwrites them."""
    rows = [{"image": URI}, {"image": base64.b64encode(PNG).decode(), "tail": "?"}]
    found = server.json("POST", "/models/files/predict", rows)
    assert found["error_message"] is None
    for output, tail in zip(found["outputs"], (b"!", b"?"), strict=True):
        kind, _, text = output["image"].partition(",")
        assert (kind, base64.b64decode(text)) == ("data:image/png;base64", PNG + tail)
        copies = [*output["inner"]["copies"], *output["named"].values()]
        assert [base64.b64decode(each.partition(",")[2]) for each in copies] == [PNG] * 3
        assert output["size"] == len(PNG)
    assert sorted(path.name for path in (server.models / "files").iterdir() if path.is_file()) == ["result.png", "tungsten_model.py"]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.com/a.png", "no file at all"])
def test_files_that_are_refused(server: Server, url: str) -> None:
    """422, at the place of the file."""
    (problem,) = server.json("POST", "/models/files/predictions", [{"image": url}], 422)["detail"]
    assert problem["loc"] == [*ROOT, 0, "image", "__root__"]


def test_a_url_that_may_not_be_fetched(server: Server) -> None:
    """It was accepted, and failed; nothing of this machine is read."""
    url = f"http://127.0.0.1:{server.running.port}/metrics"
    found = server.ended(server.start({"image": url}, path="/models/files/predictions"))
    assert found["status"] == "failed"
    assert "image" in found["error_message"]


def upload(server: Server, content: bytes) -> str:
    """The URL of a file whose name wants to be elsewhere."""
    head = '--x\r\nContent-Disposition: form-data; name="file"; filename="../../a.png"\r\nContent-Type: image/png\r\n\r\n'
    body = head.encode() + content + b"\r\n--x--\r\n"
    url: str = server.json("POST", "/files", body, headers={"Content-Type": "multipart/form-data; boundary=x"})["serving_url"]
    return url


def test_uploads(server: Server) -> None:
    """Uploaded once, used by URL; one name twice is two files, and no name leads anywhere else."""
    urls = [upload(server, content) for content in (PNG, b"x")]
    assert urls[0] != urls[1]
    paths = [url.partition(str(server.running.port))[2] for url in urls]
    assert [server.send("GET", path)[2] for path in paths] == [PNG, b"x"]
    found = server.json("POST", "/models/files/predict", [{"image": urls[0]}, {"image": paths[0]}])
    assert [each["size"] for each in found["outputs"]] == [len(PNG)] * 2
    for name in ("..%2F..%2Fetc%2Fpasswd", "nope.png", "%2e%2e"):
        assert server.json("GET", f"/files/{name}", status=404) == {"detail": "File not found"}


def test_the_demo_server(server: Server) -> None:
    """One object in and out, with URLs for files."""
    metadata = server.json("GET", "/models/files/demo/metadata")
    assert metadata["output_filetypes"]["inner.copies.$item"] == "binary"
    run = server.json("POST", "/models/files/demo/predictions", {"image": URI})
    assert run["failure_reason"] is None
    server.ended(run["id"])
    found = server.json("GET", f"/demo/predictions/{run['id']}")
    status, headers, body = server.send("GET", found["output"]["image"].partition(str(server.running.port))[2])
    assert (status, headers["content-type"], body) == (200, "image/png", PNG + b"!")
    assert server.send("POST", f"/demo/predictions/{run['id']}/cancel")[::2] == (200, b"null")
    (problem,) = server.json("POST", "/models/files/demo/predictions", {}, 422)["detail"]
    assert problem["loc"] == ["body", "image"]


# --- beyond the original ---


def test_events(server: Server) -> None:
    """Status and log lines as they come; the stream ends with the terminal status."""
    prediction_id = server.hold("events")
    connection = http.client.HTTPConnection("127.0.0.1", server.running.port, timeout=60)
    connection.request("GET", f"/predictions/{prediction_id}/events")
    answer = connection.getresponse()
    assert answer.getheader("content-type") == "text/event-stream; charset=utf-8"
    assert answer.readline() == b"event: status\n"
    assert json.loads(answer.readline().removeprefix(b"data: "))["status"] == "running"
    server.open("events")
    events = [event.splitlines() for event in answer.read().decode().strip().split("\n\n") if not event.startswith(":")]
    connection.close()
    logged = [json.loads(data.removeprefix("data: "))["text"] for kind, data in events if kind == "event: log"]
    assert "".join(logged) == "saying wait events\n"  # one print may come in several pieces
    assert events[-1] == ["event: status", 'data: {"status":"success","error_message":null}']


def test_a_client_that_hangs_up_cancels(server: Server) -> None:
    """Its run is broken off and the model is free, while polling goes on undisturbed."""
    with socket.create_connection(("127.0.0.1", server.running.port), 10) as connection:
        body = b'[{"prompt":"wait hangup"}]'
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        server.until(lambda: "saying wait hangup" in server.running.output)
    assert server.json("POST", "/predict", [{"prompt": "free again", "seed": 9}])["status"] == "success"


def test_waiting_calls_hold_nothing_up(server: Server) -> None:
    """Polls, new work and cancels are answered while many wait."""
    held = server.hold("crowd")
    connections = []
    for _ in range(40):
        connection = http.client.HTTPConnection("127.0.0.1", server.running.port, timeout=60)
        connection.request("POST", "/predict", b'[{"prompt":"crowd"}]', JSON)
        connections.append(connection)
    assert server.json("GET", f"/predictions/{held}")["status"] == "running"
    other = server.start({"prompt": "another"})
    assert server.send("POST", f"/predictions/{other}/cancel")[0] == 200
    assert server.json("POST", "/models/iris/predict", [{"X": [1, 2, 3, 4]}])["status"] == "success"
    server.open("crowd")
    for connection in connections:
        answer = json.loads(connection.getresponse().read())
        assert answer["outputs"][0]["text"] == "crowd"
        assert answer["outputs"][0]["batch"] <= 4
        connection.close()
    assert server.ended(held)["status"] == "success"


def test_a_webhook(tmp_path: Path) -> None:
    """A host that is open gets the whole prediction when it has ended; a URL that is none is refused at once."""
    received: queue.Queue[Any] = queue.Queue()

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    hooks = http.server.HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=hooks.serve_forever)
    thread.start()
    models = tungsten_models.write(tmp_path / "models")
    url = f"http://127.0.0.1:{hooks.server_port}/done"
    try:
        with serving(tmp_path, str(models / "text"), "--allow-fetch", "127.0.0.1") as running:
            server = Server(running, models)
            for headers, query in (({"X-Webhook-Url": url}, ""), ({}, f"?webhook={urllib.parse.quote(url, safe='')}")):
                made = server.json("POST", f"/predictions{query}", [{"prompt": "hook"}], headers={**JSON, **headers})
                told = received.get(timeout=30)
                assert (told["id"], told["status"], told["outputs"][0]["text"]) == (made["prediction_id"], "success", "hook")
            server.json("POST", "/predictions?webhook=nonsense", [{"prompt": "hook"}], 422)
    finally:
        hooks.shutdown()
        thread.join(10)
        hooks.server_close()


def test_details(server: Server) -> None:
    """What machines want to know."""
    prediction_id = server.start({"prompt": "boom"})
    server.ended(prediction_id)
    found = server.json("GET", f"/predictions/{prediction_id}?verbose=1")
    assert (found["id"], found["model"], found["version"]) == (prediction_id, "text", "1")
    assert found["error_kind"] == "model_failed"
    assert found["logs"] == "saying boom\n"
    assert found["created"] <= found["started"] <= found["finished"]


def test_the_pages(server: Server) -> None:
    """The document has the schemas of all models, and the page shows it."""
    document = server.json("GET", "/openapi.json")
    row = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]["items"]
    assert row["properties"]["style"]["enum"] == ["plain", "loud"]
    assert {"/models/iris:1/predict", "/models/files:1/demo", "/v2/models/text/versions/1/infer"} <= document["paths"].keys()
    status, headers, body = server.send("GET", "/docs")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"/models/iris:1/predict" in body


def test_cors(tmp_path: Path) -> None:
    """Pages of other origins may call and read, errors included, where the server was told so."""
    models = tungsten_models.write(tmp_path / "models")
    with serving(tmp_path, str(models / "text"), "--cors") as running:
        server = Server(running, models)
        origin = {"Origin": "http://page.example", "Access-Control-Request-Method": "POST"}
        for path in ("/predictions", "/predict", "/demo", "/models/text/predict"):
            status, headers, _ = server.send("OPTIONS", path, headers=origin)
            assert (status, headers["access-control-allow-origin"]) == (200, "*")
        _, headers, _ = server.send("POST", "/predict", [{}], {**JSON, "Origin": "http://page.example"})
        assert headers["access-control-allow-origin"] == "*"


def test_a_model_that_is_not_ready(tmp_path: Path) -> None:
    """503 at the face and at the routes until setup is over, 200 after; a setup that raises is told."""
    folder = tmp_path / "slow"
    folder.mkdir()
    waiting = "    def setup(self):\n        while not Path('go').exists():\n            time.sleep(0.005)\n\n    def predict(self, inputs"
    (folder / "tungsten_model.py").write_text(tungsten_models.TEXT.replace("    def predict(self, inputs", waiting, 1), "utf-8")
    with serving(tmp_path, str(folder), "--load", "background") as running:
        server = Server(running, tmp_path)
        assert server.send("GET", "/")[0] == 503
        status, headers, body = server.send("POST", "/predict", [{"prompt": "early"}])
        assert (status, json.loads(body)["error_kind"], headers["retry-after"]) == (503, "not_ready", "1")
        (folder / "go").touch()
        server.until(lambda: server.send("GET", "/")[0] == 200)
        assert server.json("POST", "/predict", [{"prompt": "now"}])["status"] == "success"


def test_results_do_not_last_for_ever(tmp_path: Path) -> None:
    """After the time that was set they are 404; unknown, like any id that never was."""
    models = tungsten_models.write(tmp_path / "models")
    with serving(tmp_path, str(models / "text"), "--result-expiration", "1") as running:
        server = Server(running, models)
        prediction_id = server.start({"prompt": "short-lived"})
        server.until(lambda: server.send("GET", f"/predictions/{prediction_id}")[0] == 404)
        assert server.json("GET", f"/predictions/{prediction_id}", status=404) == {"detail": prediction_id}
