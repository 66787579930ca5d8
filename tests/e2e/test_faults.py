"""Clients that leave, wait or hold on; signals; dead processes; models that come and go: what a running server does then."""

import json
import os
import signal
import socket
import subprocess
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from onnx import helper

from tests.e2e.crowd import INFER, ROW, WAIT_S, Crowd, ask, get, pending, post, rounds, until
from tests.e2e.running import Running, serving
from tests.fuzz.driver import descriptors, rss_bytes
from tests.fuzz.wire import Answer, Wire
from tests.models import build

LIVE = get("/v2/health/live")
WIDE = 2_000_000
"""Elements of a tensor whose answer is larger than all buffers on its way."""


def wide(path: Path) -> Path:
    """x FP32 [N] -> y FP32 [N, WIDE]: a small request with a large answer."""
    shape = np.array([1, WIDE])
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axis"], ["column"]),
        helper.make_node("Tile", ["column", "repeats"], ["y"]),
    ]
    constants = [build.constant("axis", np.array([1])), build.constant("repeats", shape)]
    return build.save(path, nodes, [build.value("x", "FP32", ["N"])], [build.value("y", "FP32", ["N", WIDE])], constants)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("faults")
    models = [
        build.iris(folder / "iris.onnx"),
        build.slow(folder / "slow.onnx"),
        build.shout(folder / "shout.onnx"),
        wide(folder / "wide.onnx"),
    ]
    with serving(folder, *map(str, models), "--batch-size", "1", "--max-body", "1MB") as running:
        assert ask(running.port, post("/v2/models/slow/infer", rounds(3_000))).status == 200  # now it is known to deserve a thread
        yield running


@pytest.fixture(autouse=True)
def unharmed(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test with the common server: it answers rightly, nothing waits, every descriptor is back, no error was logged."""
    if "server" not in request.fixturenames:
        yield
        return
    server: Running = request.getfixturevalue("server")
    assert ask(server.port, LIVE, "GET").status == 200
    before = descriptors(server.process.pid)
    yield
    assert ask(server.port, INFER).status == 200
    until(lambda: pending(server) == 0, "requests wait whose clients have left")
    until(lambda: descriptors(server.process.pid) <= before, "descriptors are not given back")
    assert '"level": "error"' not in server.output
    assert "Traceback" not in server.output


# --- clients that leave ---

GENERATE = post("/v2/models/shout/generate_stream", {"text_input": "hello"})
SLOW = post("/v2/models/slow/infer", rounds(2_000))
BIG = post(
    "/v2/models/wide/infer",
    {
        "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    },
)
STAGES = {
    "before anything": b"",
    "within the head": INFER[:40],
    "before the body": INFER[: INFER.index(b"\r\n\r\n") + 4],
    "within the body": INFER[:-10],
    "within a chunk": get("/v2/repository/index", "Transfer-Encoding: chunked").replace(b"GET", b"POST") + b"ff\r\n{",
    "waiting for 100 Continue": INFER.replace(b"Host", b"Expect: 100-continue\r\nHost")[: -len(json.dumps(ROW))],
    "while it is queued": SLOW,
    "before a stream begins": GENERATE,
    "before a large answer": BIG,
    "with requests behind it": SLOW + INFER + INFER[:50],
}


@pytest.mark.parametrize("ending", ["close", "reset", "half"])
@pytest.mark.parametrize("stage", STAGES)
def test_clients_that_leave(server: Running, stage: str, ending: str) -> None:
    """Whenever and however eight clients leave, nothing is left of them and others are answered."""
    made = []
    for _ in range(8):
        each = socket.create_connection(("127.0.0.1", server.port), WAIT_S)
        each.sendall(STAGES[stage])
        made.append(each)
    assert ask(server.port, INFER).status == 200
    for each in made:
        if ending == "half":
            each.shutdown(socket.SHUT_WR)
            while each.recv(1 << 20):
                pass
        elif ending == "reset":
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        each.close()


def test_clients_that_leave_within_a_large_answer(server: Running) -> None:
    """A client that has read a part of the answer and hangs up, by reset or in peace, ends it."""
    for ending in ("close", "reset"):
        each = socket.create_connection(("127.0.0.1", server.port), WAIT_S)
        each.sendall(BIG)
        assert each.recv(10_000).startswith(b"HTTP/1.1 200 OK\r\n")
        if ending == "reset":
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        each.close()


def test_slow_readers_hold_up_nobody(server: Running) -> None:
    """Clients that take none of their large answers cost the memory of one answer each; others are answered meanwhile, and so are they."""
    before = rss_bytes(server.process.pid)
    readers = []
    for _ in range(4):
        wire = Wire(server.port)
        wire.send(BIG + BIG + BIG)  # what stands behind the first is not run before that is taken
        assert wire.readable(WAIT_S)
        readers.append(wire)
    for _ in range(50):
        assert ask(server.port, INFER).status == 200
    assert rss_bytes(server.process.pid) - before < 6 * 4 * WIDE + (64 << 20)
    for wire in readers:
        for _ in range(3):
            answer = wire.answer("POST")
            assert answer is not None
            assert len(answer.body) > 4 * WIDE
        wire.close()


def test_a_thousand_idle_connections(server: Running) -> None:
    """They cost little and hold up nobody."""
    before = rss_bytes(server.process.pid)
    idle = [socket.create_connection(("127.0.0.1", server.port), WAIT_S) for _ in range(1_000)]
    for each in idle[::2]:
        each.sendall(INFER[:30])
    with Crowd(server.port, INFER, 4) as crowd:
        crowd.grow(200)
    assert crowd.statuses.keys() == {200}
    assert not crowd.errors
    assert rss_bytes(server.process.pid) - before < 50 << 20
    assert b"200 OK" in _rest_of(idle[0], INFER[30:])
    assert b"200 OK" in _rest_of(idle[1], INFER)
    for each in idle:
        each.close()


def _rest_of(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    return connection.recv(1_000)


def test_a_body_in_chunks_has_the_same_limit(server: Running) -> None:
    """--max-body counts what comes, announced or not."""
    for path in ("/v2/models/iris/infer", "/v1/models/iris:predict"):
        wire = Wire(server.port)
        wire.send(f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        while not wire.readable() and wire.send(b"10000\r\n" + b" " * 0x10000 + b"\r\n"):
            pass
        answer = wire.answer("POST")
        assert answer is not None
        assert answer.status == 413
        assert "1048576" in json.loads(answer.body)["error"]
        wire.close()


def test_bombs_leave_memory_as_it_was(server: Running) -> None:
    """Small bodies that would inflate to 110 MiB are refused one after the other and at once, and nothing of them is kept."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join([packer.compress(bytes(1 << 20)) for _ in range(110)]) + packer.flush()
    before = rss_bytes(server.process.pid)
    for path in ("/v2/models/iris/infer", "/v1/models/iris:predict", "/v2/repository/index"):
        wires = [Wire(server.port) for _ in range(6)]
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()
        for wire in wires:
            wire.send(head + bomb)
        assert ask(server.port, INFER).status == 200
        for wire in wires:
            answer = wire.answer("POST")
            assert answer is not None
            assert answer.status == 413
            wire.close()
    assert rss_bytes(server.process.pid) - before < 32 << 20


def test_time_outs_under_load(server: Running) -> None:
    """Requests that cannot be answered in their time are refused in it, by word, and leave the model to the others."""
    hurried = post("/v2/models/slow/infer", rounds(1_000, parameters={"timeout": 20_000}))
    with Crowd(server.port, hurried, 12, _check_deadline) as crowd:
        until(lambda: crowd.statuses[503] >= 20 or bool(crowd.errors), "no request was late")
        for _ in range(20):
            assert ask(server.port, INFER).status == 200
    assert not crowd.errors
    assert crowd.statuses.keys() <= {200, 503}
    assert ask(server.port, post("/v2/models/slow/infer", rounds(1))).status == 200


def _check_deadline(answer: Answer) -> None:
    assert answer.status == 200 or "deadline" in json.loads(answer.body)["error"]


# --- too much ---


def test_the_connection_limit(tmp_path: Path) -> None:
    """The connection above the limit is told so and closed; when one of the others ends there is room again."""
    with serving(tmp_path, str(build.iris(tmp_path / "iris.onnx")), "--max-connections", "5") as server:
        wires = [Wire(server.port) for _ in range(5)]
        for wire in wires:
            wire.send(INFER)
            answer = wire.answer("POST")
            assert answer is not None
            assert answer.status == 200
        refused = ask(server.port, INFER)
        assert refused.status == 503
        assert "connections" in json.loads(refused.body)["error"]
        wires.pop().close()
        until(lambda: ask(server.port, INFER).status == 200)
        for wire in wires:
            wire.send(INFER)
            answer = wire.answer("POST")
            assert answer is not None
            assert answer.status == 200
            wire.close()


def test_a_full_queue_refuses_at_once(tmp_path: Path) -> None:
    """--max-queue: what does not fit is told to come again, whoever waits is answered, other models do not notice, and memory stays."""
    models = [build.slow(tmp_path / "slow.onnx"), build.iris(tmp_path / "iris.onnx")]
    with serving(tmp_path, *map(str, models), "--max-queue", "4", "--batch-size", "1") as server:
        assert ask(server.port, post("/v2/models/slow/infer", rounds(3_000))).status == 200
        with Crowd(server.port, post("/v2/models/slow/infer", rounds(300)), 32, _check_refusal) as crowd:
            crowd.grow(200)
            before = rss_bytes(server.process.pid)
            for _ in range(20):
                assert ask(server.port, INFER).status == 200
            crowd.grow(1_000)
            after = rss_bytes(server.process.pid)
        assert not crowd.errors
        assert crowd.statuses.keys() == {200, 503}
        assert after - before < 16 << 20


def _check_refusal(answer: Answer) -> None:
    if answer.status == 503:
        assert int(answer.headers[b"retry-after"]) >= 1
        assert "queue" in json.loads(answer.body)["error"]


# --- signals and dead processes ---


def test_the_second_sigterm_changes_nothing(tmp_path: Path) -> None:
    """A request in flight is answered though two signals came, and the exit code is 0."""
    with serving(tmp_path, str(build.slow(tmp_path / "slow.onnx"))) as server:
        wire = _busy(server, 4_000)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: _refused(server.port))
        server.process.send_signal(signal.SIGTERM)
        answer = wire.answer("POST")
        assert answer is not None
        assert answer.status == 200
        wire.close()
        until(lambda: server.process.poll() is not None or _signalled(server), "the server does not end")
        assert server.process.wait(WAIT_S) == 0


def _signalled(server: Running) -> bool:
    """Once more, and again as often as this is asked; says no."""
    server.process.send_signal(signal.SIGTERM)
    return False


def test_ctrl_c_drains_and_a_second_one_does_not_wait(tmp_path: Path) -> None:
    """One SIGINT ends like SIGTERM; the second ends at once with 130, whatever is in flight."""
    model = str(build.slow(tmp_path / "slow.onnx"))
    with serving(tmp_path, model) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(WAIT_S) == 0
    with serving(tmp_path, model) as server:
        wire = _busy(server, 2_000_000)
        server.process.send_signal(signal.SIGINT)
        until(lambda: _refused(server.port))
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(WAIT_S) == 130
        wire.close()


def _busy(server: Running, count: int) -> Wire:
    """A connection with a request that is being computed in a thread: the first, slow one has shown that the model deserves one."""
    wire = Wire(server.port)
    wire.send(post("/v2/models/slow/infer", rounds(3_000)))
    assert wire.answer("POST") is not None
    wire.send(post("/v2/models/slow/infer", rounds(count)))
    # it has been read when one that came later is answered
    assert ask(server.port, LIVE, "GET").status == 200
    assert not wire.readable()
    return wire


def _refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), WAIT_S).close()
    except ConnectionError:
        return True
    return False


def test_the_port_is_free_at_once(tmp_path: Path) -> None:
    """A server that ended under load, drained or killed, can be started again on its port without waiting."""
    model = str(build.iris(tmp_path / "iris.onnx"))
    port = "0"
    for ending in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
        with serving(tmp_path, model, "--port", port) as server:
            port = str(server.port)
            with Crowd(server.port, INFER, 4) as crowd:
                crowd.grow(50)
                server.process.send_signal(ending)
                server.process.wait(WAIT_S)
            assert crowd.statuses.keys() == {200}
            assert ending == signal.SIGKILL or not crowd.lost


def test_a_worker_killed_under_load(tmp_path: Path) -> None:
    """Clients of the other worker notice nothing, those of the dead one connect again, and there are two again."""
    with serving(tmp_path, str(build.iris(tmp_path / "iris.onnx")), "--workers", "2") as server:
        before = workers(server.process.pid)
        assert len(before) == 2
        with Crowd(server.port, INFER, 12) as crowd:
            crowd.grow(200)
            os.kill(before[0], signal.SIGKILL)
            crowd.grow(200)
            until(lambda: len(workers(server.process.pid)) == 2 and before[0] not in workers(server.process.pid))
            crowd.grow(200)
        assert not crowd.errors
        assert crowd.statuses.keys() == {200}
        assert crowd.lost <= 12
        assert before[1] in workers(server.process.pid)
        assert "signal SIGKILL" in server.output


def test_the_supervisor_killed_under_load(tmp_path: Path) -> None:
    """Its workers answer what they have, leave, and free the port."""
    model = str(build.iris(tmp_path / "iris.onnx"))
    with serving(tmp_path, model, "--workers", "2") as server:
        left = workers(server.process.pid)
        with Crowd(server.port, INFER, 4) as crowd:
            crowd.grow(100)
            server.process.kill()
            server.process.wait(WAIT_S)
            until(lambda: not any(_runs(pid) for pid in left), "workers outlive their supervisor")
        assert not crowd.errors
        assert crowd.statuses.keys() == {200}
        port = str(server.port)
    with serving(tmp_path, model, "--port", port) as server:
        assert ask(server.port, INFER).status == 200


def workers(pid: int) -> list[int]:
    """The worker processes of a supervisor."""
    listed = subprocess.run(["ps", "-o", "pid=,stat=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=False).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    return sorted(int(row[0]) for row in rows if "dragoman.server.child" in row[2] and not row[1].startswith("Z"))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# --- models that come and go under load ---


def scaled(path: Path, factor: float) -> Path:
    """x FP32 [N] -> y FP32 [N] = x * factor, put in place in one step as careful people do."""
    new = path.with_name("model.onnx.new")
    build.save(
        new,
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [build.value("x", "FP32", ["N"])],
        [build.value("y", "FP32", ["N"])],
        [build.constant("factor", np.array([factor], np.float32))],
    )
    return new.replace(path)


ONE = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}]}


@pytest.fixture
def changing(tmp_path: Path) -> Iterator[Running]:
    (tmp_path / "models" / "scaled" / "1").mkdir(parents=True)
    scaled(tmp_path / "models" / "scaled" / "1" / "model.onnx", 0.0)
    with serving(tmp_path, str(tmp_path / "models")) as server:
        yield server


def test_fifty_reloads_under_load_lose_nothing(tmp_path: Path, changing: Running) -> None:
    """Every request is answered by a model that has been put there, never by an error; once the load is answered, by the new one."""
    factors = [0.0]
    asked = post("/v2/models/scaled/infer", ONE)

    def check(answer: Answer) -> None:
        assert answer.status == 200, answer.body
        assert json.loads(answer.body)["outputs"][0]["data"][0] in factors

    assert ask(changing.port, asked).status == 200
    before = descriptors(changing.process.pid)
    with Crowd(changing.port, asked, 16, check) as crowd:
        for factor in range(1, 51):
            factors.append(float(factor))
            scaled(tmp_path / "models" / "scaled" / "1" / "model.onnx", float(factor))
            assert ask(changing.port, post("/v2/repository/models/scaled/load", {})).status == 200
            assert json.loads(ask(changing.port, asked).body)["outputs"][0]["data"] == [factor]
        crowd.grow(50)
    assert not crowd.errors
    assert not crowd.lost
    assert crowd.statuses.keys() == {200}
    until(lambda: descriptors(changing.process.pid) <= before, "descriptors are not given back")


def test_unload_and_load_under_load(changing: Running) -> None:
    """Between the two a request is told that the model is unloaded or loading; no other error, and never a wrong answer."""

    def check(answer: Answer) -> None:
        if answer.status == 503:
            assert any(word in json.loads(answer.body)["error"] for word in ("unloaded", "loading"))
        else:
            assert answer.status == 200
            assert json.loads(answer.body)["outputs"][0]["data"] == [0.0]

    with Crowd(changing.port, post("/v2/models/scaled/infer", ONE), 16, check) as crowd:
        for _ in range(20):
            assert ask(changing.port, post("/v2/repository/models/scaled/unload", {})).status == 200
            crowd.grow(5)
            assert ask(changing.port, post("/v2/repository/models/scaled/load", {})).status == 200
            crowd.grow(5)
    assert not crowd.errors
    assert not crowd.lost
    assert crowd.statuses.keys() == {200, 503}


def test_loads_and_unloads_at_once(changing: Running) -> None:
    """Eight clients that load and unload the same model as they like: each is answered, and the last wish holds."""
    outcomes: list[int] = []

    def wish(kind: str) -> None:
        outcomes.extend(ask(changing.port, post(f"/v2/repository/models/scaled/{kind}", {})).status for _ in range(10))

    threads = [threading.Thread(target=wish, args=(kind,)) for kind in ("load", "unload") * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert len(outcomes) == 80
    assert set(outcomes) <= {200, 400, 503}, set(outcomes)
    assert ask(changing.port, post("/v2/repository/models/scaled/load", {})).status == 200
    assert ask(changing.port, post("/v2/models/scaled/infer", ONE)).status == 200
    assert "Traceback" not in changing.output


def test_a_model_file_that_is_gone(tmp_path: Path, changing: Running) -> None:
    """The load says so, names the model and no path of the server's inside, and what was loaded goes on answering."""
    (tmp_path / "models" / "scaled" / "1" / "model.onnx").unlink()
    answer = ask(changing.port, post("/v2/repository/models/scaled/load", {}))
    assert answer.status in (400, 404)
    assert "scaled" in json.loads(answer.body)["error"]
    assert ask(changing.port, post("/v2/models/scaled/infer", ONE)).status == 200
    assert requests.get(f"{changing.url}/v2/health/ready", timeout=WAIT_S).status_code == 200
