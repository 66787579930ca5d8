"""Endpoints of jobs: long streams, events, other protocols, and what becomes of both sides when one of them goes."""

import http.client
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import websockets
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from tests.endpoints import WAIT_S, Received, Served, Site, says, site, until

MB = 1 << 20


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    """One server for all tests of this file."""
    with site(max_body=1 << 20) as made:
        yield made


def head_of(served: Served, method: str = "GET", *headers: str) -> bytes:
    return "\r\n".join([f"{method} {served.path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def everything(conn: socket.socket) -> bytes:
    """What comes until the other side ends it, however it does that."""
    data = b""
    with suppress(ConnectionResetError):
        while piece := conn.recv(1 << 16):
            data += piece
    return data


def until_recv(conn: socket.socket, end: bytes, data: bytes = b"") -> bytes:
    """What comes, behind what has come, up to where the end is in it."""
    while end not in data:
        piece = conn.recv(1 << 16)
        assert piece, data
        data += piece
    return data


# --- size and pace ---


def resident(pid: int = 0) -> int:
    """Bytes of memory of a process."""
    lines = Path(f"/proc/{pid or os.getpid()}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) << 10


@pytest.mark.parametrize("chunked", [False, True])
def test_a_stream_of_300_mb_passes_both_ways_in_little_memory(here: Site, chunked: bool) -> None:
    """A program that answers while it reads: neither body is ever held (issue point 4)."""
    size, piece = 300 * MB, b"x" * MB

    def answering(request: Received) -> None:
        coding = "transfer-encoding: chunked" if chunked else f"content-length: {size}"
        request.conn.sendall(f"HTTP/1.1 200 OK\r\n{coding}\r\n\r\n".encode())
        for each in request.body():
            request.conn.sendall(b"%x\r\n%b\r\n" % (len(each), each) if chunked else each)
        if chunked:
            request.conn.sendall(b"0\r\n\r\n")

    served = here.serving(answering)
    before = resident()
    most = taken = 0
    with here.connect() as client:
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"

        def send() -> None:
            client.sendall(head_of(served, "POST", framing))
            for _ in range(size // MB):
                client.sendall(b"%x\r\n%b\r\n" % (MB, piece) if chunked else piece)
            if chunked:
                client.sendall(b"0\r\n\r\n")

        sender = threading.Thread(target=send)
        sender.start()
        reply = http.client.HTTPResponse(client)
        reply.begin()
        while got := reply.read(MB):
            taken += len(got)
            if taken % (20 * MB) < MB:
                most = max(most, resident())
        sender.join(WAIT_S)
        reply.close()
    assert taken == size
    assert most - before < 150 * MB
    served.free()


def test_a_client_that_does_not_read_stops_the_program(here: Site) -> None:
    """What it sends is not gathered meanwhile."""
    sent: list[int] = [0]

    def answering(request: Received) -> None:
        request.conn.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        request.conn.settimeout(1.0)
        with suppress(TimeoutError):
            while sent[0] < 300:
                request.conn.sendall(b"x" * MB)
                sent[0] += 1

    served = here.serving(answering)
    with here.connect() as client:
        client.sendall(head_of(served))
        until(lambda: served.program.now == 0 and sent[0], "it went on for ever")
        assert sent[0] < 60
    served.free()


def test_a_program_that_does_not_read_stops_the_client(here: Site) -> None:
    """As above, the other way."""
    go = threading.Event()

    def answering(request: Received) -> None:
        go.wait(WAIT_S)
        request.conn.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")

    served = here.serving(answering)
    with here.connect() as client:
        client.sendall(head_of(served, "POST", f"Content-Length: {300 * MB}"))
        client.settimeout(0.3)
        sent = 0
        with suppress(TimeoutError):
            while sent < 300 * MB:
                sent += client.send(b"x" * MB)
        assert sent < 60 * MB
        go.set()
        client.settimeout(WAIT_S)
        assert until_recv(client, b"big").startswith(b"HTTP/1.1 413 ")  # early, and its client hears it
    served.free()


def test_events_arrive_when_they_are_sent(here: Site) -> None:
    """Server-sent events are not gathered; the head does not wait for the first."""
    steps = [threading.Event() for _ in range(4)]

    def answering(request: Received) -> None:
        request.conn.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number, step in enumerate(steps):
            step.wait(WAIT_S)
            request.conn.sendall(b"data: %d\n\n" % number)

    served = here.serving(answering)
    with here.connect() as client:
        client.sendall(head_of(served))
        assert b"text/event-stream" in until_recv(client, b"\r\n\r\n")
        got = b""
        for number, step in enumerate(steps):
            step.set()
            got = until_recv(client, b"data: %d\n\n" % number, got)
        assert until_recv(client, b"0\r\n\r\n", got)
    served.free()


def test_both_sides_may_take_turns_in_one_request(here: Site) -> None:
    """What a client sends in chunks arrives before its request is over."""

    def answering(request: Received) -> None:
        request.conn.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for piece in request.body():
            request.conn.sendall(piece[::-1])

    served = here.serving(answering)
    with here.connect() as client:
        client.sendall(head_of(served, "POST", "Transfer-Encoding: chunked"))
        until_recv(client, b"\r\n\r\n")
        for word in (b"abc", b"def"):
            client.sendall(b"3\r\n%b\r\n" % word)
            assert word[::-1] in until_recv(client, word[::-1])
        client.sendall(b"0\r\n\r\n")
        assert until_recv(client, b"0\r\n\r\n")


# --- one side goes ---


def hung_up(request: Received) -> bool:
    """Whether the request's sender hangs up within the time of a test."""
    with suppress(ConnectionError):
        return request.conn.recv(1) == b""
    return True


@pytest.mark.parametrize("how", ["close", "reset", "half"])
@pytest.mark.parametrize("when", ["waiting for an answer", "in the answer", "in the request"])
def test_a_hang_up_is_passed_on(here: Site, how: str, when: str) -> None:
    """The program's connection is closed and the permit given back. Who only closes its sending side is gone, too: that is how it looks."""
    begun, told = threading.Event(), threading.Event()

    def answering(request: Received) -> None:
        begun.set()
        if when == "in the answer":
            request.conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nabc")
        if when == "in the request":
            with suppress(AssertionError, ConnectionError):
                for _ in request.body():
                    pass
                return
            told.set()
        elif hung_up(request):
            told.set()

    served = here.serving(answering)
    client = here.connect()
    if when == "in the request":
        client.sendall(head_of(served, "POST", f"Content-Length: {10 * MB}") + b"x" * MB)
    else:
        client.sendall(head_of(served))
    if when == "in the answer":
        until_recv(client, b"abc")
    assert begun.wait(WAIT_S)
    if how == "half":
        client.shutdown(socket.SHUT_WR)
    elif how == "reset":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    else:
        client.close()
    assert told.wait(WAIT_S)
    served.free()
    client.close()
    served.program.answering = says("HTTP/1.1 200 OK\nContent-Length: 2", b"ok")
    with here.connect() as other:
        other.sendall(head_of(served))
        assert until_recv(other, b"ok")


def test_who_hangs_up_leaves_the_queue(here: Site) -> None:
    """Nobody waits for an answer that nobody wants."""
    go = threading.Event()

    def answering(request: Received) -> None:
        go.wait(WAIT_S)
        request.conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    served = here.serving(answering)
    clients = [here.connect() for _ in range(4)]
    for number, client in enumerate(clients):
        client.sendall(head_of(served))
        until(lambda n=number: served.gate.seen["waiting"] == n, "it is not in the queue")  # type: ignore[misc] # mypy cannot see the default
    for client in clients[1:3]:
        client.close()
    until(lambda: served.gate.seen["waiting"] == 1, "it is still in the queue")
    go.set()
    for client in (clients[0], clients[3]):
        assert until_recv(client, b"ok")
        client.close()
    assert served.gate.seen["calls"] == 2


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nnot a size\r\n",
    ],
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_answer_that_breaks_off_has_no_false_end(here: Site, reply: bytes, version: str, caplog: pytest.LogCaptureFixture) -> None:
    """The client's connection is cut: what it has is not whole, and it can tell. Nothing is logged as our own failure."""

    def answering(request: Received) -> None:
        request.conn.sendall(reply)

    served = here.serving(answering)
    with here.connect() as client:
        client.sendall(head_of(served, "GET", "Connection: close").replace(b"HTTP/1.1", f"HTTP/{version}".encode()))
        got, reset = b"", False
        try:
            while piece := client.recv(1 << 16):
                got += piece
        except ConnectionResetError:
            reset = True
    assert not got.endswith(b"0\r\n\r\n")
    assert reset or b" 502 " in got or b"\r\ncontent-length: 1000000\r\n" in got or b"\r\ntransfer-encoding: chunked\r\n" in got
    assert not [record for record in caplog.records if record.name.startswith("dragoman")]  # others are of the programs, of other tests too
    served.free()


def test_a_program_that_is_killed_in_its_answer_to_the_end_of_the_connection_cuts_it(here: Site) -> None:
    """A reset is no end, also where the end of the connection is that of the answer."""

    def answering(request: Received) -> None:
        request.conn.sendall(b"HTTP/1.0 200 OK\r\n\r\nabc")
        until(lambda: seen.is_set(), "the client has nothing")
        request.conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    seen = threading.Event()
    served = here.serving(answering)
    with here.connect() as client:
        client.sendall(head_of(served))
        got = until_recv(client, b"abc")
        seen.set()
        got += everything(client)
    assert not got.endswith(b"0\r\n\r\n")


def test_a_job_that_ends_answers_who_waits(here: Site) -> None:
    """Those in its queue get an answer of ours, not silence."""

    def answering(request: Received) -> None:
        hung_up(request)

    served = here.serving(answering)
    clients = [here.connect() for _ in range(3)]
    for client in clients:
        client.sendall(head_of(served))
    until(lambda: served.gate.seen["waiting"] == 2, "they do not wait")
    served.gate.close()
    clients[0].close()
    for client in clients[1:]:
        raw = until_recv(client, b"}")
        assert raw.split()[1] == b"503"
        assert json.loads(raw.partition(b"\r\n\r\n")[2])["state"]
        client.close()


def test_a_server_that_ends_lets_answers_finish() -> None:
    """And cuts what has no end of its own, such as WebSockets."""
    go = threading.Event()

    def answering(request: Received) -> None:
        go.wait(WAIT_S)
        request.conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def tunnel(request: Received) -> None:
        request.conn.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        hung_up(request)

    with site() as other:
        first, second = other.serving(answering), other.serving(tunnel)
        with other.connect() as client, other.connect() as open_one:
            client.sendall(head_of(first))
            open_one.sendall(head_of(second, "GET", "Connection: Upgrade", "Upgrade: x"))
            until_recv(open_one, b"\r\n\r\n")
            until(lambda: first.program.now == 1, "the program was not asked")
            ending = threading.Thread(target=other.end)
            ending.start()
            assert everything(open_one) == b""
            go.set()
            assert until_recv(client, b"ok")
            ending.join(WAIT_S)


# --- other protocols ---


@pytest.fixture(scope="module")
def sockets(here: Site) -> Iterator[Served]:
    """A program that speaks WebSocket: it sends back what it gets."""

    def answering(connection: ServerConnection) -> None:
        assert connection.request is not None
        connection.send(connection.request.path)
        for message in connection:
            if message == "bye":
                connection.close(4000, "as you wish")
            else:
                connection.send(message)

    job = here.job(project="sockets")
    with serve(answering, "127.0.0.1", 0, max_size=64 * MB, subprotocols=[websockets.Subprotocol("chat")]) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        gate = here.gate(job, 5)
        gate.open(server.socket.getsockname())
        yield Served(here, job, gate, here.program(says("HTTP/1.1 500 x")))
        server.shutdown()
        thread.join(WAIT_S)


def test_websockets_pass(here: Site, sockets: Served) -> None:
    """Texts, bytes, pings, long messages, sub-protocols, and why it was closed (issue point 4)."""
    url = f"ws://127.0.0.1:{here.port}{sockets.path}/chat?room=1"
    with connect(
        url, max_size=64 * MB, subprotocols=[websockets.Subprotocol("chat")], additional_headers={"Authorization": "its own"}
    ) as one:
        assert one.recv() == "/chat?room=1"
        assert one.subprotocol == "chat"
        for message in ("hello", b"\x00\xff", "x" * 200_000, os.urandom(20 * MB)):
            one.send(message)
            assert one.recv() == message
        assert one.ping().wait(WAIT_S)
        with connect(url, subprotocols=[websockets.Subprotocol("chat")]) as two:
            assert two.recv() == "/chat?room=1"
        one.send("bye")
        with pytest.raises(websockets.ConnectionClosed) as closed:
            one.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "as you wish")
    sockets.free()


def test_a_websocket_that_is_cut_frees_its_permit(here: Site, sockets: Served) -> None:
    """A client that goes without a goodbye."""
    client = here.connect()
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    client.sendall(
        head_of(
            sockets,
            "GET",
            "Connection: keep-alive, Upgrade",
            "Upgrade: websocket",
            key,
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Protocol: chat",
        )
    )
    head = until_recv(client, b"\r\n\r\n").lower()
    assert head.startswith(b"http/1.1 101 ")
    assert b"\r\nupgrade: websocket\r\n" in head
    assert b"\r\nconnection: upgrade\r\n" in head
    assert b"\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n" in head
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    sockets.free()


def test_any_other_protocol_passes_with_its_half_closes(here: Site) -> None:
    """From the first byte behind the heads, which may come with them; a side that has ended hears the other to its end."""

    def answering(request: Received) -> None:
        assert request.header("upgrade") == "its-own/1"
        request.conn.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: its-own/1\r\nConnection: upgrade\r\n\r\nfirst")
        data = request.rest + everything(request.conn)
        request.conn.sendall(data[::-1])

    served = here.serving(answering)
    with here.connect() as client:
        client.sendall(head_of(served, "POST", "Connection: upgrade", "Upgrade: its-own/1") + b"early")
        until_recv(client, b"first")
        client.sendall(b"late" * 50_000)
        client.shutdown(socket.SHUT_WR)
        assert everything(client) == (b"early" + b"late" * 50_000)[::-1]
    served.free()


def test_another_protocol_does_not_keep_requests_out(here: Site) -> None:
    """It is somebody who is there, so the job is not idle; but requests are one at a time beside it (requirement F15)."""

    def answering(request: Received) -> None:
        if request.header("upgrade"):
            request.conn.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
            hung_up(request)
        else:
            request.conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    served = here.serving(answering)
    with here.connect() as lasting, here.connect() as client:
        lasting.sendall(head_of(served, "GET", "Connection: Upgrade", "Upgrade: x"))
        until_recv(lasting, b"\r\n\r\n")
        for _ in range(3):
            client.sendall(head_of(served))
            until_recv(client, b"ok")
        until(lambda: served.gate.seen["busy"] == 0, "a permit did not come back")
        assert served.gate.seen["idle_s"] == 0
        assert served.program.now == 1
    until(lambda: served.gate.seen["idle_s"] > 0, "it is not idle")
    until(lambda: served.program.now == 0, "the program was not hung up on")


@pytest.mark.parametrize("status", [200, 400, 426])
def test_a_refused_upgrade_is_an_ordinary_answer(here: Site, status: int) -> None:
    """The program need not know the protocol."""
    served = here.serving(says(f"HTTP/1.1 {status} x\nContent-Length: 2", b"no"))
    with here.connect() as client:
        client.sendall(head_of(served, "GET", "Connection: upgrade", "Upgrade: websocket"))
        raw = everything(client)
    assert raw.startswith(b"HTTP/1.1 %d " % status)
    assert raw.endswith(b"\r\n\r\nno")
    served.free()


@pytest.mark.parametrize(
    "headers",
    [
        ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
        ("Connection: Upgrade", "Upgrade: websocket", "Content-Length: 3"),
        ("Upgrade: websocket",),
    ],
)
def test_upgrades_that_cannot_pass_are_ignored(here: Site, headers: tuple[str, ...]) -> None:
    """HTTP/2, one with a body, one that Connection does not name: the program gets an ordinary request, and the connection goes on."""

    def answering(request: Received) -> None:
        body = b"".join(request.body())
        text = b"%d %b" % (request.header("upgrade") is not None, body)
        request.conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))

    served = here.serving(answering)
    body = b"abc" if any("Length" in each for each in headers) else b""
    with here.connect() as client:
        for _ in range(2):
            client.sendall(head_of(served, "POST", *headers) + body)
            assert until_recv(client, b"0 " + body).startswith(b"HTTP/1.1 200 ")


def test_elsewhere_websockets_are_refused_as_before(here: Site) -> None:
    """Only endpoints have somebody who speaks it; where no job is they are told so."""
    for path, status in (("/v2/health/live", b"501"), ("/expose/nothing-here", b"404")):
        with here.connect() as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".encode())
            assert everything(client).split()[1] == status
