"""Files in and out of a Tungsten model, over real sockets: every way to send one, what comes back, and what is refused."""

import base64
import contextlib
import io
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.e2e.plain import Plain, until
from tests.e2e.running import Running, serving
from tests.models import build, tungsten_files


def picture(width: int, height: int, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 10, 10)).save(buffer, form)
    return buffer.getvalue()


def data_uri(content: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def opened(uri: str, media_type: str = "image/png") -> Any:
    head, _, payload = uri.partition(",")
    assert head == f"data:{media_type};base64"
    return Image.open(io.BytesIO(base64.b64decode(payload, validate=True)))


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """A web server on loopback with one picture."""

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = picture(5, 3) if self.path == "/pic.png" else b"not here"
            self.send_response(200 if self.path == "/pic.png" else 404)
            self.send_header("Content-Type", "image/png")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tungsten_files.write_model(tmp_path_factory.mktemp("pictures") / "pictures", tungsten_files.PICTURES)


@pytest.fixture(scope="module")
def server(model: Path, site: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Fetching is opened for the site's address alone."""
    with serving(tmp_path_factory.mktemp("data"), str(model), "--allow-fetch", "127.0.0.1", "--max-file", "1MB") as running:
        yield running


@pytest.fixture
def client(server: Running) -> Plain:
    return Plain(server.port)


def predict(client: Plain, value: str) -> dict[str, Any]:
    reply = client.post("/predict", [{"picture": value}])
    assert reply.status == 200, reply.body
    answer: dict[str, Any] = reply.json()
    return answer


@pytest.mark.parametrize("way", ["data uri", "percent", "bare base64", "url", "upload"])
def test_every_way_to_send_a_file(client: Plain, site: str, way: str) -> None:
    """T24: data URI (base64 or percent), bare base64, http URL, and a file uploaded before."""
    content = picture(5, 3)
    if way == "upload":
        form = (
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
            + content
            + b"\r\n--x--\r\n"
        )
        reply = client.call("POST", "/files", body=form, headers={"Content-Type": "multipart/form-data; boundary=x"})
        assert reply.status == 200, reply.body
        value = reply.json()["serving_url"]
        assert value.startswith("http://")
    else:
        value = {
            "data uri": data_uri(content),
            "percent": "data:image/png," + "".join(f"%{byte:02x}" for byte in content),
            "bare base64": base64.b64encode(content).decode(),
            "url": f"{site}/pic.png",
        }[way]
    answer = predict(client, value)
    assert answer["status"] == "success", answer
    assert answer["outputs"][0]["size"] == [3, 5]
    assert opened(answer["outputs"][0]["turned"]).size == (3, 5)


def test_output_files_are_data_uris_wherever_they_are(client: Plain) -> None:
    """T11, T24: at the top, in lists, in dicts, in nested objects; PIL images are PNG, texts text/plain."""
    output = predict(client, data_uri(picture(4, 2)))["outputs"][0]
    assert opened(output["named"]["small"]).size == (1, 1)
    assert opened(output["inner"]["pic"]).size == (2, 4)
    assert [base64.b64decode(f.partition(",")[2]) for f in output["files"]] == [b"one", b"two"]
    assert output["text"] == "data:text/plain;base64," + base64.b64encode(b"4x2").decode()


def test_files_of_one_name_do_not_mix(client: Plain) -> None:
    """T25: every batch writes output.txt; each prediction gets its own content."""
    ids = [
        client.post("/predictions", [{"picture": data_uri(picture(width, 2)), "degrees": width}]).json()["prediction_id"]
        for width in range(1, 7)
    ]
    texts = []
    for each in ids:
        done = client.get(f"/predictions/{each}?wait=60").json()
        texts.append(base64.b64decode(done["outputs"][0]["text"].partition(",")[2]).decode())
    assert texts == [f"{width}x2" for width in range(1, 7)]


def test_nothing_is_left_in_the_models_folder(client: Plain, model: Path) -> None:
    """T35: temporary files are elsewhere."""
    predict(client, data_uri(picture(2, 2)))
    assert {p.name for p in model.iterdir() if p.name != "__pycache__"} <= {"tungsten_model.py", "output.txt"}


@pytest.mark.parametrize(
    "value",
    [
        "file:///etc/passwd",
        "file://host/etc/passwd",
        "ftp://example.com/x.png",
        "gopher://x",
        "s3://bucket/key",
        "not base64 at all!",
        7,
        {"a": 1},
        "",
    ],
)
def test_files_that_are_refused_at_the_door(client: Plain, value: object) -> None:
    """T18, T35: 422 that names the field before the file's inner part."""
    reply = client.post("/predictions", [{"picture": value}])
    assert reply.status == 422, reply.body
    assert reply.json()["detail"][0]["loc"][:4] == ["body", "__root__", 0, "picture"]


@pytest.mark.parametrize(
    "where", ["http://169.254.169.254/latest/meta-data", "http://10.0.0.1/x", "http://[::1]:1/x", "{site}/missing.png"]
)
def test_urls_that_cannot_be_had_fail_the_prediction(client: Plain, site: str, where: str) -> None:
    """Sheet section 4: accepted, then failed, with the reason; addresses that were not opened are never asked."""
    answer = predict(client, where.format(site=site))
    assert answer["status"] == "failed"
    assert answer["error_message"]


def test_a_picture_that_is_none_fails_alone(client: Plain) -> None:
    """Sheet section 4: 200, then failed."""
    answer = predict(client, data_uri(b"no picture at all"))
    assert answer["status"] == "failed"
    assert predict(client, data_uri(picture(2, 1)))["status"] == "success"


def test_a_file_above_the_limit_is_refused(client: Plain) -> None:
    """A bound on single files, told as such."""
    reply = client.post("/predict", [{"picture": data_uri(b"\0" * (2 << 20))}])
    assert reply.status in (413, 422), reply.status
    assert "1048576" in reply.body.decode() or "1 MB" in reply.body.decode() or "1.0 MB" in reply.body.decode()


def test_a_picture_of_too_many_pixels_never_reaches_the_model(client: Plain) -> None:
    """A few bytes may claim gigabytes of pixels."""
    claimed = bytearray(picture(1, 1))
    claimed[16:24] = (60_000).to_bytes(4, "big") * 2  # IHDR: width and height
    reply = client.post("/predict", [{"picture": data_uri(bytes(claimed))}])
    assert reply.status in (200, 413, 422)
    assert reply.status != 200 or reply.json()["status"] == "failed"
    assert "pixel" in reply.body.decode()


def test_the_demo_server(client: Plain) -> None:
    """Sheet section 5: metadata, one upload, one object in, one object out with URLs of files."""
    metadata = client.get("/demo/metadata").json()
    assert metadata["input_filetypes"] == {"picture": "image"}
    assert metadata["output_filetypes"] == {
        "turned": "image", "text": "binary", "files.$item": "binary", "named.$item": "image", "inner.pic": "image",
    }  # fmt: skip
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="../../evil.png"\r\n\r\n' + picture(5, 3) + b"\r\n--x--\r\n"
    uploaded = client.call("POST", "/demo/files", body=form, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert uploaded.status == 200, uploaded.body
    url = uploaded.json()["serving_url"]
    path = "/" + url.split("/", 3)[3]
    assert ".." not in path
    assert client.get(path).body == picture(5, 3)
    begun = client.post("/demo/predictions", {"picture": url})
    assert begun.status == 200, begun.body
    identity = begun.json()["id"]

    def ended() -> dict[str, Any] | None:
        state: dict[str, Any] = client.get(f"/demo/predictions/{identity}").json()
        return state if state["status"] in ("success", "failed") else None

    done = until(ended)
    assert set(done) >= {"id", "status", "input", "output", "demo_output", "logs", "failure_reason"}
    assert done["status"] == "success"
    turned = done["output"]["turned"]
    assert turned.startswith("http://")
    assert Image.open(io.BytesIO(client.get("/" + turned.split("/", 3)[3]).body)).size == (3, 5)


def test_uploads_of_one_name_are_two(client: Plain) -> None:
    """Better than the original, which returned the first file again."""
    urls = []
    for content in (b"first", b"second"):
        form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="same.txt"\r\n\r\n' + content + b"\r\n--x--\r\n"
        urls.append(
            client.call("POST", "/files", body=form, headers={"Content-Type": "multipart/form-data; boundary=x"}).json()["serving_url"]
        )
    assert urls[0] != urls[1]
    assert [client.get("/" + url.split("/", 3)[3]).body for url in urls] == [b"first", b"second"]
    assert client.call("POST", "/files", body=b"", headers={"Content-Type": "multipart/form-data; boundary=x"}).status == 422
    assert client.get("/files/nothing.txt").status == 404
    assert client.get("/files/../../etc/passwd").status == 404


def test_an_image_model_through_the_tensor_doors(client: Plain) -> None:
    """Files are BYTES: raw in V2's binary data or JSON text, base64 in TensorFlow Serving."""
    encoded = base64.b64encode(picture(5, 3)).decode()
    reply = client.post("/v1/models/pictures:predict", {"instances": [{"picture": {"b64": encoded}}]})
    assert reply.status == 200, reply.body
    turned = reply.json()["predictions"][0]["turned"]
    assert Image.open(io.BytesIO(base64.b64decode(turned["b64"]))).size == (3, 5)
    raw = picture(5, 3)
    header = json.dumps(
        {
            "inputs": [
                {"name": "picture", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw) + 4}},
            ],
            "outputs": [{"name": "turned", "parameters": {"binary_data": True}}],
        }
    ).encode()
    body = header + len(raw).to_bytes(4, "little") + raw
    answer = client.call("POST", "/v2/models/pictures/infer", body=body, headers={"Inference-Header-Content-Length": str(len(header))})
    assert answer.status == 200, answer.body
    length = int(answer.headers["inference-header-content-length"])
    assert Image.open(io.BytesIO(answer.body[length + 4 :])).size == (3, 5)


def test_half_an_upload_harms_nobody(client: Plain, server: Running) -> None:
    """A client that leaves in the middle of a file."""
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        line.sendall(
            b"POST /files HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 999\r\n\r\n--x\r\n"
        )
    assert predict(client, data_uri(picture(2, 1)))["status"] == "success"


HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="big.bin"\r\n\r\n'
TAIL = b"\r\n--x--\r\n"


def begin_upload(server: Running, length: int) -> socket.socket:
    """A connection on which a form with a file of that length is announced and its head sent."""
    line = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    whole = len(HEAD) + length + len(TAIL)
    head = f"POST /files HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: {whole}\r\n\r\n"
    line.sendall(head.encode() + HEAD)
    return line


def memory(server: Running) -> int:
    """The most that the server has had in memory, in bytes."""
    (peak,) = [line for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(peak.split()[1]) << 10


def test_uploads_go_to_the_disk_while_they_come(tmp_path: Path) -> None:
    """A large one takes a bounded part of memory, one that is too large is refused before it is whole, half a one leaves nothing."""
    mega = bytes(range(256)) * 4096
    with serving(tmp_path, str(build.iris(tmp_path / "iris.onnx")), "--max-file", "160MB") as server:
        before = memory(server)
        with begin_upload(server, 160 << 20) as line:
            for _ in range(160):
                line.sendall(mega)
            line.sendall(TAIL)
            reply = line.recv(1 << 16)
        assert reply.startswith(b"HTTP/1.1 200 ")
        assert memory(server) - before < 100 << 20
        (folder,) = tmp_path.rglob("uploads")
        (stored,) = [path for path in folder.iterdir() if path.suffix != ".json"]
        assert stored.read_bytes() == mega * 160
        with begin_upload(server, 200 << 20) as line:
            with contextlib.suppress(ConnectionError):
                for _ in range(180):
                    line.sendall(mega)
            assert line.recv(1 << 16).startswith(b"HTTP/1.1 413 ")
        with begin_upload(server, 100 << 20) as line:
            for _ in range(40):
                line.sendall(mega)
            until(lambda: bool([*folder.glob("*.part")]))
        until(lambda: not [*folder.glob("*.part")])
        assert len([*folder.iterdir()]) == 2
