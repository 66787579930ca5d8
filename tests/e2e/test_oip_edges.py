"""The Open Inference Protocol at its edges, over raw sockets: the table of edge cases, malformed bodies, half-sent requests, HTTP's odd forms.

Requirements O14 to O16 and the readiness of O1 and O32. The table is that of tests/unit/v2/test_rows.py, here against real ONNX models.
"""

import http.client
import json
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import requests
from onnx import helper

from tests.e2e.running import Running, serving
from tests.models import build
from tests.unit.v2.client import GOOD
from tests.unit.v2.test_rows import ACCEPTED, REFUSED, Accepted, Row

INFER = "/v2/models/iris/infer"
CONFIG = """
name: "iris"
backend: "onnxruntime"
max_batch_size: 8
version_policy { all { } }
input [ { name: "input" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "label" data_type: TYPE_INT64 dims: [ ] }, { name: "probabilities" data_type: TYPE_FP32 dims: [ 3 ] } ]
"""
BODY = json.dumps(GOOD).encode()


def flowers(path: Path) -> Path:
    """input FP32 [N,4] -> label INT64 [N], probabilities FP32 [N,3], as the table's own model."""
    nodes = [
        helper.make_node("MatMul", ["input", "weights"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=-1),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    outputs = [build.value("label", "INT64", ["N"]), build.value("probabilities", "FP32", ["N", 3])]
    weights = build.constant("weights", np.array([[1, 2, 0.5]] * 4, np.float32))
    return build.save(path, nodes, [build.value("input", "FP32", ["N", 4])], outputs, [weights])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("edges")
    for version in ("1", "2"):
        flowers(root / "models" / "iris" / version / "model.onnx")
    (root / "models" / "iris" / "config.pbtxt").write_text(CONFIG)
    for datatype in ("INT8", "INT64", "UINT8", "BOOL", "FP16", "BF16", "BYTES"):
        build.identity(root / "models" / f"identity_{datatype.lower()}" / "1" / "model.onnx", datatype, None)
    with serving(root, str(root / "models")) as running:
        yield running


@pytest.fixture
def connection(server: Running) -> Iterator[http.client.HTTPConnection]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as made:
        yield made


def ask(connection: http.client.HTTPConnection, case: Row | Accepted) -> tuple[int, bytes, str]:
    """Status, body and content type."""
    body = case.body if isinstance(case.body, bytes) else json.dumps(case.body).encode()
    connection.putrequest(case.method, case.path, skip_accept_encoding=True)
    for name, value in case.headers:
        connection.putheader(name.decode(), value.decode())
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    reply = connection.getresponse()
    return reply.status, reply.read(), reply.headers["Content-Type"]


def good(connection: http.client.HTTPConnection) -> None:
    """A right request is answered rightly, on the connection as it is."""
    status, body, _ = ask(connection, Row("good", GOOD, 200))
    assert status == 200, body
    assert json.loads(body)["outputs"][0]["data"] == [1]


# --- O14: the table ---


@pytest.mark.parametrize("case", [pytest.param(row, id=row.row) for row in REFUSED])
def test_a_wrong_request_is_refused_by_rule(connection: http.client.HTTPConnection, case: Row) -> None:
    """O14, O16: the rule's status, {"error"} that names what was wrong, and the same connection serves on."""
    status, body, media_type = ask(connection, case)
    assert status == case.status, body
    assert media_type == "application/json"
    document = json.loads(body)
    assert list(document) == ["error"]
    for word in case.words:
        assert word in document["error"]
    kept = connection.sock
    good(connection)
    assert connection.sock is kept


@pytest.mark.parametrize("case", [pytest.param(row, id=row.row) for row in ACCEPTED])
def test_what_is_right_is_answered(connection: http.client.HTTPConnection, case: Accepted) -> None:
    """O14: oddities that clients really send are 200."""
    status, body, media_type = ask(connection, case)
    assert status == 200, body
    assert media_type == "application/json"
    json.loads(body)


def test_index_bodies(server: Running) -> None:
    """O14, row 39: the index takes an empty body; a filter that is not a boolean is 400."""
    url = f"{server.url}/v2/repository/index"
    assert requests.post(url, timeout=60).status_code == 200
    assert requests.post(url, json={"ready": True}, timeout=60).status_code == 200
    wrong = requests.post(url, json={"ready": 1}, timeout=60)
    assert wrong.status_code == 400
    assert "ready" in wrong.json()["error"]


def test_one_failed_model_makes_the_server_not_ready(tmp_path: Path) -> None:
    """O1, O14 row 40: 503 until it is settled, while the others answer; the failed one is 408 at its own ready."""
    flowers(tmp_path / "iris.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with serving(tmp_path, str(tmp_path / "iris.onnx"), str(tmp_path / "bad.onnx")) as server:
        ready = requests.get(f"{server.url}/v2/health/ready", timeout=60)
        assert ready.status_code == 503
        assert requests.get(f"{server.url}/v2/models/iris/ready", timeout=60).json() == {"name": "iris", "ready": True}
        assert requests.get(f"{server.url}/v2/models/bad/ready", timeout=60).status_code == 408
        assert requests.post(f"{server.url}{INFER}", data=BODY, timeout=60).status_code == 200
        assert requests.post(f"{server.url}/v2/repository/models/bad/unload", timeout=60).status_code == 200
        until(lambda: requests.get(f"{server.url}/v2/health/ready", timeout=60).status_code == 200)


# --- O15: nonsense, and clients that leave ---


def damaged(generator: random.Random) -> bytes:
    """The good body with something wrong with it: cut, doubled, bytes changed, or bytes without any sense."""
    body = bytearray(BODY)
    match generator.randrange(4):
        case 0:
            del body[generator.randrange(1, len(body)) :]
        case 1:
            for _ in range(generator.randrange(1, 9)):
                body[generator.randrange(len(body))] = generator.randrange(256)
        case 2:
            at = generator.randrange(len(body))
            body[at:at] = body[generator.randrange(at + 1) : generator.randrange(len(body))] or b"}"
        case _:
            body = bytearray(generator.randbytes(generator.randrange(200)))
    return bytes(body)


def test_200_malformed_bodies(connection: http.client.HTTPConnection) -> None:
    """O15: none is answered by a 5xx, every refusal is {"error"}, and right answers go on."""
    generator = random.Random(15)
    refused = 0
    for _ in range(200):
        status, body, _ = ask(connection, Row("random", damaged(generator), 400))
        assert status in (200, 400), body  # a changed digit is still a number
        if status == 400:
            refused += 1
            assert list(json.loads(body)) == ["error"]
        good(connection)
    assert refused > 150


def descriptors(server: Running) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.01)


def test_clients_that_leave_cost_nothing(server: Running, connection: http.client.HTTPConnection) -> None:
    """O15: half a head, half a body, an answer that nobody reads: every connection is given back, and the server serves on."""
    good(connection)
    before = descriptors(server)
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
    sockets = []
    for i in range(60):
        sent = (head[:20], head + BODY[:30], head + BODY)[i % 3]
        client = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        client.sendall(sent)
        sockets.append(client)
    until(lambda: descriptors(server) >= before + 60)
    for i, client in enumerate(sockets):
        if i % 2:  # a reset instead of a goodbye
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    until(lambda: descriptors(server) <= before)
    good(connection)


# --- O16: HTTP ---


class Raw:
    """One connection on which bytes go out as they are written."""

    def __init__(self, server: Running) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (names in lower case) and body of the next answer."""
        status = int(self._file.readline().split(b" ", 2)[1])
        headers = {}
        while (line := self._file.readline().strip()) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return status, headers, self._file.read(int(headers.get("content-length", 0)))

    def label(self) -> Any:
        """The label of the next answer, which must be right."""
        status, _, body = self.answer()
        assert status == 200, body
        return json.loads(body)["outputs"][0]["data"]


def test_header_names_in_any_case(server: Running) -> None:
    """O16: also the length header of binary requests."""
    document = {"inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}]}
    head = json.dumps(document).encode()
    body = head + struct.pack("<4f", 5.1, 3.5, 1.4, 0.2)
    for length, inference in (("content-length", "inference-header-content-length"), ("CONTENT-LENGTH", "INFERENCE-HEADER-CONTENT-LENGTH")):
        with Raw(server) as raw:
            raw.send(f"POST {INFER} HTTP/1.1\r\nhOST: x\r\n{length}: {len(body)}\r\n{inference}: {len(head)}\r\n\r\n".encode() + body)
            assert raw.label() == [1]


def test_chunked_requests(server: Running) -> None:
    """O16: a body in chunks of any size, with an extension and a trailer; then another request on the connection."""
    with Raw(server) as raw:
        for size in (1, 7, len(BODY)):
            raw.send(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            for at in range(0, len(BODY), size):
                piece = BODY[at : at + size]
                raw.send(b"%x;note=1\r\n%b\r\n" % (len(piece), piece))
            raw.send(b"0\r\nX-Trailer: 1\r\n\r\n")
            assert raw.label() == [1]


def test_expect_100_continue(server: Running) -> None:
    """O16: the server asks for the body before it comes; a request that is refused by its head is not asked for one."""
    with Raw(server) as raw:
        raw.send(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\nExpect: 100-continue\r\n\r\n".encode())
        assert raw.answer()[0] == 100
        raw.send(BODY)
        assert raw.label() == [1]
    with Raw(server) as raw:
        raw.send(b"POST /v2/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        status, _, body = raw.answer()
        assert (status, list(json.loads(body))) == (404, ["error"])


def test_pipelining(server: Running) -> None:
    """O16: 20 requests in one write are answered in their order, good and bad ones mixed."""
    requests_, expected = [], []
    for i in range(20):
        body = b"{" if i % 3 == 2 else json.dumps({**GOOD, "id": str(i)}).encode()
        requests_.append(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        expected.append("" if i % 3 == 2 else str(i))
    with Raw(server) as raw:
        raw.send(b"".join(requests_))
        for want in expected:
            status, headers, body = raw.answer()
            assert status == (200 if want else 400)
            assert "close" not in headers.get("connection", "")
            assert json.loads(body).get("id", "") == want


def test_what_is_not_http_is_answered_in_the_words_of_the_protocol(server: Running) -> None:
    """O14: a broken request line and contradicting lengths are 400, and the server serves on."""
    for wrong in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS\r\n\r\n",
        f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n{{}}".encode(),
        f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n".encode(),
    ):
        with Raw(server) as raw:
            raw.send(wrong)
            status, _, body = raw.answer()
            assert status == 400
            assert json.loads(body)["error"]
    with Raw(server) as raw:
        raw.send(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
        assert raw.label() == [1]


# --- O32 ---


def test_sigterm_turns_ready_off_and_lets_requests_finish(tmp_path: Path) -> None:
    """O32: a probe after the signal is refused or told 503; what ran and what waited then is answered; the exit code is 0."""
    model = build.slow(tmp_path / "slow.onnx")
    with serving(tmp_path, str(model), "--batch-size", "1", "--threads", "1") as server, ThreadPoolExecutor(2) as pool:

        def rounds(count: int) -> requests.Response:
            body = {"inputs": [{"name": "rounds", "shape": [1], "datatype": "INT64", "data": [count]}]}
            return requests.post(f"{server.url}/v2/models/slow/infer", json=body, timeout=100)

        def ready() -> bool:
            try:
                return requests.get(f"{server.url}/v2/health/ready", timeout=60).status_code == 200
            except requests.ConnectionError:
                return False

        assert rounds(100).status_code == 200  # from now on it runs in its thread, and the server can do other things meanwhile
        assert ready()
        busy = [pool.submit(rounds, 3_000) for _ in range(2)]
        until(lambda: 'dragoman_pending_requests{model="slow",version="1"} 1' in requests.get(f"{server.url}/metrics", timeout=60).text)
        server.process.terminate()
        until(lambda: not ready())
        assert [b.result().status_code for b in busy] == [200, 200]
        assert server.process.wait(60) == 0
