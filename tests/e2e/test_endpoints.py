"""Endpoints of jobs: requests and replies arrive as they were sent, and what callers are told instead. Real sockets, gates and programs."""

import hashlib
import http.client
import http.server
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.jobs import Job, Mode, Phase
from tests.endpoints import WAIT_S, Received, Served, Site, says, site, until


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    """One server for all tests of this file."""
    with site(max_body=1 << 20) as made:
        yield made


def echo(request: Received) -> None:
    """What the program saw, as JSON; the body by its digest and length."""
    digest, size = hashlib.sha256(), 0
    for piece in request.body():
        digest.update(piece)
        size += len(piece)
    seen = {"line": request.line, "headers": request.headers, "sha256": digest.hexdigest(), "size": size}
    body = json.dumps(seen).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    request.conn.sendall(head.encode() + body)


@pytest.fixture(scope="module")
def keeping(here: Site) -> Served:
    """A program that wants its endpoint's path in front."""
    return here.serving(echo, keeps_prefix=True, concurrency=50, project="keeping")


@pytest.fixture(scope="module")
def stripping(here: Site) -> Served:
    """A program that does not know where it is."""
    return here.serving(echo, concurrency=50, project="stripping")


def asked(
    at: Site, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, **options: Any
) -> tuple[int, dict[str, str], bytes]:
    """Ask with the standard library's client: status, headers by lower-case name, body."""
    client = http.client.HTTPConnection("127.0.0.1", at.port, timeout=WAIT_S)
    try:
        client.request(method, path, body, headers or {}, **options)
        reply = client.getresponse()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
    finally:
        client.close()


def seen(at: Site, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, **options: Any) -> dict[str, Any]:
    """What an echoing program saw of a request."""
    status, _, body = asked(at, method, path, body, headers, **options)
    assert status == 200, body
    found: dict[str, Any] = json.loads(body)
    return found


def curl(*arguments: str) -> bytes:
    done = subprocess.run(["curl", "-sS", "-m", "20", *arguments], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- requests ---


@pytest.mark.parametrize(
    "rest", ["", "/", "/a/b", "/a%2Fb%20c", "/a//b/", "/..;/x", "?q=1&q=%20+", "/api/v1/x", "/v2/models/m/infer", "/predict"]
)
def test_paths_and_queries_arrive_as_they_were_sent(here: Site, keeping: Served, stripping: Served, rest: str) -> None:
    """With the endpoint's path for a program that keeps it, else from the root (requirement F13)."""
    assert seen(here, "GET", keeping.path + rest)["line"] == f"GET {keeping.path}{rest} HTTP/1.1"
    stripped = rest if rest.startswith("/") else f"/{rest}"
    assert seen(here, "GET", stripping.path + rest)["line"] == f"GET {stripped} HTTP/1.1"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
def test_any_method_passes_with_and_without_a_body(here: Site, stripping: Served, method: str) -> None:
    """GET with a form, too (requirement F13)."""
    assert seen(here, method, stripping.path)["size"] == 0
    found = seen(here, method, stripping.path, b"a=1&b=2", {"Content-Type": "application/x-www-form-urlencoded"})
    assert found["line"] == f"{method} / HTTP/1.1"
    assert (found["size"], found["sha256"]) == (7, hashlib.sha256(b"a=1&b=2").hexdigest())
    assert ["content-type", "application/x-www-form-urlencoded"] in found["headers"]


@pytest.mark.parametrize("size", [0, 1, 300_000, 3 << 20, 13 << 20])
@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_of_any_size_arrive(here: Site, stripping: Served, size: int, chunked: bool) -> None:
    """Above the limit for bodies of models, of a known length and in chunks (requirement F12)."""
    body = os.urandom(size)
    pieces = (body[at : at + 77_777] for at in range(0, size, 77_777)) if chunked else body
    found = seen(here, "POST", stripping.path, pieces, encode_chunked=chunked, headers={"Transfer-Encoding": "chunked"} if chunked else {})
    assert (found["size"], found["sha256"]) == (size, hashlib.sha256(body).hexdigest())


def test_a_short_body_in_chunks_gets_a_length(here: Site, stripping: Served) -> None:
    """HTTP/1.0 programs do not know chunks."""
    found = seen(here, "POST", stripping.path, iter([b"ab", b"c"]), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    names = dict(found["headers"])
    assert names["content-length"] == "3"
    assert "transfer-encoding" not in names


def test_curl_sends_a_file(here: Site, stripping: Served, tmp_path: Path) -> None:
    """As a form, with and without asking first whether it may (requirement F11)."""
    (tmp_path / "x.jpg").write_bytes(os.urandom(2 << 20))
    for expect in ("Expect: 100-continue", "Expect:"):
        found = json.loads(curl("-F", f"file=@{tmp_path}/x.jpg", "-H", expect, stripping.url))
        headers = dict(found["headers"])
        assert headers["content-type"].startswith("multipart/form-data; boundary=")
        assert int(headers["content-length"]) == found["size"] > 2 << 20
        assert "expect" not in headers


def test_what_concerns_one_connection_stays_there(here: Site, stripping: Served) -> None:
    """Hop-by-hop headers, and those that Connection names; others arrive in order, also twice."""
    sent = {"Connection": "keep-alive, X-Mine", "X-Mine": "1", "Keep-Alive": "5", "TE": "trailers", "Proxy-Authorization": "Basic x"}
    found = seen(here, "GET", stripping.path, headers={**sent, "Authorization": "Bearer its-own", "Cookie": "a=b", "X-Yours": "2"})
    names = dict(found["headers"])
    assert names["connection"] == "close"
    assert not {"x-mine", "keep-alive", "te", "proxy-authorization"} & names.keys()
    assert (names["authorization"], names["cookie"], names["x-yours"]) == ("Bearer its-own", "a=b", "2")


def test_connection_cannot_take_away_what_a_program_needs(here: Site, stripping: Served) -> None:
    """Host and Content-Type are not for a caller to leave out in this way."""
    found = seen(here, "POST", stripping.path, b"x", {"Connection": "host, content-type, content-length", "Content-Type": "text/x"})
    names = dict(found["headers"])
    assert (names["host"], names["content-type"], names["content-length"]) == (f"127.0.0.1:{here.port}", "text/x", "1")


def test_a_program_learns_how_it_was_reached(here: Site, keeping: Served, stripping: Served) -> None:
    """Who asked, by which host, scheme and prefix; what a proxy in front has said of the first three is kept."""
    names = dict(seen(here, "GET", stripping.path, headers={"Host": "jobs.example", "X-Forwarded-Prefix": "/evil"})["headers"])
    assert names["host"] == "jobs.example"
    forwarded = {key.removeprefix("x-forwarded-"): value for key, value in names.items() if key.startswith("x-forwarded-")}
    assert forwarded == {"for": "127.0.0.1", "host": "jobs.example", "proto": "http", "prefix": stripping.path}
    front = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Host": "out.example", "X-Forwarded-Proto": "https"}
    names = dict(seen(here, "GET", keeping.path, headers=front)["headers"])
    forwarded = {key.removeprefix("x-forwarded-"): value for key, value in names.items() if key.startswith("x-forwarded-")}
    assert forwarded == {"for": "192.0.2.7, 127.0.0.1", "host": "out.example", "proto": "https"}


def test_an_old_client_may_say_no_host(here: Site, stripping: Served) -> None:
    """HTTP/1.0: it gets its answer with an end that it knows."""
    with here.connect() as client:
        client.sendall(f"GET {stripping.path} HTTP/1.0\r\n\r\n".encode())
        head, _, body = b"".join(iter(lambda: client.recv(65536), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert dict(json.loads(body)["headers"])["host"] == f"127.0.0.1:{here.port}"


def test_several_requests_use_one_connection(here: Site, stripping: Served) -> None:
    """A client's connection is kept between requests, whatever the program does with its own."""
    client = http.client.HTTPConnection("127.0.0.1", here.port, timeout=WAIT_S)
    used = set()
    for size in (0, 10, 500_000, 10, 0):
        client.request("POST", stripping.path, b"x" * size)
        assert client.sock is not None
        used.add(client.sock.getsockname())
        assert json.loads(client.getresponse().read())["size"] == size
    client.close()
    assert len(used) == 1


# --- replies ---


@pytest.mark.parametrize("status", [200, 201, 302, 400, 404, 418, 500, 503])
def test_status_headers_and_body_come_back_unchanged(here: Site, status: int) -> None:
    """Errors of the program, too (requirement F11)."""
    head = (
        f"HTTP/1.0 {status} Its Own\nContent-Type: image/x-test\nX-Twice: 1\nX-Twice: 2\nServer: Flask\nLocation: /there\nSet-Cookie: a=b"
    )
    body = os.urandom(1000)
    served = here.serving(says(f"{head}\nContent-Length: 1000", body))
    client = http.client.HTTPConnection("127.0.0.1", here.port, timeout=WAIT_S)
    client.request("GET", served.path)
    reply = client.getresponse()
    assert (reply.status, reply.read()) == (status, body)
    names = [(name.lower(), value) for name, value in reply.getheaders()]
    theirs = ("content-type", "x-twice", "server", "location", "set-cookie")
    assert [each for each in names if each[0] in theirs] == [
        ("content-type", "image/x-test"),
        *(("x-twice", "1"), ("x-twice", "2"), ("server", "Flask"), ("location", "/there"), ("set-cookie", "a=b")),
    ]
    assert sum(name == "content-length" for name, _ in names) == 1
    client.close()


@pytest.mark.parametrize("framing", ["length", "close", "chunked"])
@pytest.mark.parametrize("size", [0, 5, 100_000, 3 << 20])
def test_replies_of_every_framing_arrive(here: Site, framing: str, size: int) -> None:
    """Of a known length, to the end of the connection as HTTP/1.0 has it, and in chunks."""
    body = os.urandom(size)

    def answering(request: Received) -> None:
        head = {"length": f"content-length: {size}\r\n", "close": "", "chunked": "Transfer-Encoding: chunked\r\n"}[framing]
        request.conn.sendall(f"HTTP/1.{int(framing == 'chunked')} 200 OK\r\n{head}\r\n".encode())
        for at in range(0, size, 7777):
            piece = body[at : at + 7777]
            request.conn.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if framing == "chunked" else piece)
        if framing == "chunked":
            request.conn.sendall(b"0\r\nX-Trailer: 1\r\n\r\n")

    served = here.serving(answering)
    assert asked(here, "GET", served.path)[2] == body
    served.free()


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body_have_none(here: Site, status: int) -> None:
    """And the next request on the connection is not disturbed by what the program sends all the same."""
    served = here.serving(says(f"HTTP/1.1 {status} x\nETag: e", b"not a body"))
    client = http.client.HTTPConnection("127.0.0.1", here.port, timeout=WAIT_S)
    for _ in range(2):
        client.request("GET", served.path)
        reply = client.getresponse()
        assert (reply.status, reply.getheader("etag"), reply.read()) == (status, "e", b"")
    client.close()


def test_head_has_the_length_and_no_body(here: Site) -> None:
    """As the program says, which may be more than anybody would send."""
    served = here.serving(says("HTTP/1.1 200 OK\nContent-Length: 123456789"))
    status, headers, body = asked(here, "HEAD", served.path)
    assert (status, headers["content-length"], body) == (200, "123456789", b"")
    served.free()


def test_interim_answers_are_no_answers(here: Site) -> None:
    """100 and 103 come before the answer and are not mistaken for it."""
    served = here.serving(
        says("HTTP/1.1 100 Continue\n\nHTTP/1.1 103 Early Hints\nLink: </x>\n\nHTTP/1.1 200 OK\nContent-Length: 2", b"ok")
    )
    status, headers, body = asked(here, "GET", served.path)
    assert (status, body) == (200, b"ok")
    assert "link" not in headers


def test_cors_is_the_programs_own_affair(stripping: Served) -> None:
    """Preflights reach it, and nothing is added to its answers, also with --cors."""
    with site(cors=True) as other:
        served = other.serving(says("HTTP/1.1 204 No Content\nAccess-Control-Allow-Origin: https://mine"))
        asking = {"Origin": "https://page", "Access-Control-Request-Method": "POST"}
        for method in ("OPTIONS", "GET"):
            _, headers, _ = asked(other, method, served.path, headers=asking)
            assert headers["access-control-allow-origin"] == "https://mine"
            assert not {"access-control-allow-methods", "access-control-expose-headers"} & headers.keys()


def test_no_key_is_needed(here: Site) -> None:
    """Not even where everything else wants one (requirement F14)."""
    with site(require_key=True, data_dir=str(here.folder / "keys")) as other:
        served = other.serving(echo)
        assert seen(other, "POST", served.path, b"x")["size"] == 1
        assert seen(other, "POST", served.path, b"x", {"Authorization": "Bearer of-its-own"})["size"] == 1


def test_pythons_own_server_is_understood(here: Site) -> None:
    """HTTP/1.0 and a connection that ends, as Flask's development server has it."""

    class Own(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body[::-1])

        def log_message(self, *_: Any) -> None:
            pass

    job = here.job()
    with http.server.HTTPServer(("127.0.0.1", 0), Own) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        here.gate(job).open(("127.0.0.1", server.server_port))
        body = os.urandom(1 << 20)
        assert asked(here, "POST", f"/expose/{job.endpoint}", body)[2] == body[::-1]
        server.shutdown()
        thread.join()


# --- what callers are told instead ---


def told(at: Site, path: str, method: str = "GET") -> tuple[int, dict[str, Any], dict[str, str]]:
    """An answer in our own words: status, JSON, headers."""
    status, headers, body = asked(at, method, path)
    assert headers["content-type"] == "application/json"
    return status, json.loads(body), headers


@pytest.mark.parametrize(
    "path",
    ["/expose/nothing-is-here-1", "/expose/", "/expose", "/serve/x/projects/y", "/serve/x", "/expose/%00%ff/x", "/serve/x/projects/"],
)
def test_what_never_was_is_not_found(here: Site, path: str) -> None:
    """A plain 404 in JSON, never a page (sheet section 10)."""
    status, content, _ = told(here, path)
    assert status == 404
    assert isinstance(content["message"], str)


@pytest.mark.parametrize("phase", [Phase.SUCCESS, Phase.FAILED, Phase.SHUTDOWN, Phase.TIMEOUT])
def test_an_ended_job_says_how(here: Site, phase: Phase) -> None:
    """410 with its state, reason and seconds (requirement F22); the program's last words are for its owner."""
    job = here.job(phase=phase, reason="because of a test: KeyError: 'secret'", ran_s=12.34)
    status, content, _ = told(here, f"/expose/{job.endpoint}", "POST")
    assert status == 410
    assert content["state"] == phase.value
    assert content["seconds"] == 12.3
    assert "(because of a test)" in content["message"]
    assert job.name in content["message"]


def test_a_job_that_is_being_stopped_is_over(here: Site) -> None:
    """Nobody is sent to it any more."""
    assert told(here, f"/expose/{here.job(phase=Phase.STOPPING).endpoint}")[0] == 410


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.STARTING])
def test_a_job_that_starts_asks_to_come_again(here: Site, phase: Phase) -> None:
    """503 with Retry-After, state and seconds so far, at once (requirement F16)."""
    job = here.job(phase=phase, created=time.time() - 30)
    status, content, headers = told(here, f"/expose/{job.endpoint}")
    assert (status, content["state"]) == (503, phase.value)
    assert int(headers["retry-after"]) > 0
    assert content["seconds"] >= 30


def test_a_program_that_does_not_listen_yet_asks_to_come_again(here: Site) -> None:
    """Its gate says since when it runs."""
    job = here.job()
    here.gate(job)
    status, content, headers = told(here, f"/expose/{job.endpoint}")
    assert (status, content["state"], content["seconds"]) == (503, "starting", 1.5)
    assert int(headers["retry-after"]) > 0


def test_a_program_that_does_not_listen_any_more_is_a_bad_gateway(here: Site) -> None:
    """502 that says so, and not that it starts."""
    served = here.serving(echo)
    served.program.close()
    status, content, _ = told(here, served.path)
    assert (status, content["state"]) == (502, "running")
    assert "does not accept connections" in content["message"]
    served.free()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 400_000,
        b"HTTP/1.1 20",
    ],
)
def test_a_program_that_breaks_http_is_a_bad_gateway(here: Site, raw: bytes) -> None:
    """502 in JSON, and its permit comes back."""

    def answering(request: Received) -> None:
        request.conn.sendall(raw)

    served = here.serving(answering)
    status, content, _ = told(here, served.path)
    assert (status, content["state"], content["job"]) == (502, "running", served.job.name)
    assert content["message"]
    served.free()


def test_command_jobs_have_no_endpoint(here: Site) -> None:
    """Whatever their state; notebooks have one."""
    for phase in (Phase.RUNNING, Phase.SUCCESS):
        assert told(here, f"/expose/{here.job(mode=Mode.COMMAND, phase=phase).endpoint}")[0] == 404
    job = here.job(mode=Mode.JUPYTER)
    here.gate(job).open(here.program(echo).address, keeps_prefix=True)
    assert seen(here, "GET", f"/expose/{job.endpoint}/tree")["line"] == f"GET /expose/{job.endpoint}/tree HTTP/1.1"


def test_a_gate_below_a_long_path_is_reached(here: Site) -> None:
    """The kernel takes 107 bytes as the address of a socket; data directories may be deeper."""
    with site(below="x" * 120) as other:
        served = other.serving(echo)
        assert seen(other, "GET", served.path)["size"] == 0


# --- a project's own address ---


def test_requests_go_to_a_projects_jobs_in_turn(here: Site) -> None:
    """And to others while one starts, is busy or has lost its program (sheet section 10: no-downtime replacement)."""
    one = here.serving(says("HTTP/1.1 200 OK\nContent-Length: 1", b"1"), project="turns")
    path = "/serve/ann/projects/turns"
    assert {asked(here, "GET", path)[2] for _ in range(3)} == {b"1"}
    two = here.serving(says("HTTP/1.1 200 OK\nContent-Length: 1", b"2"), project="turns")
    assert sorted(asked(here, "GET", path)[2] for _ in range(4)) == [b"1", b"1", b"2", b"2"]
    here.gate(here.job(project="turns"))  # one that starts
    assert {asked(here, "GET", path)[2] for _ in range(6)} == {b"1", b"2"}
    two.program.close()
    assert {asked(here, "GET", path)[2] for _ in range(4)} == {b"1"}
    here.put(replace(one.job, phase=Phase.STOPPING))
    assert told(here, path)[0] in (502, 503)


def test_the_free_job_of_a_project_is_asked(here: Site) -> None:
    """Nobody waits for a busy one meanwhile; when all are busy, requests wait."""
    hold = threading.Event()

    def held(request: Received) -> None:
        hold.wait(WAIT_S)
        says("HTTP/1.1 200 OK\nContent-Length: 4", b"held")(request)

    busy = here.serving(held, project="free")
    free = here.serving(says("HTTP/1.1 200 OK\nContent-Length: 4", b"free"), project="free")
    answers: list[bytes] = []
    waiting = threading.Thread(target=lambda: answers.append(asked(here, "GET", busy.path)[2]))
    waiting.start()
    until(lambda: busy.gate.seen["busy"] == 1, "nobody was let in")
    assert [asked(here, "GET", "/serve/ann/projects/free/x")[2] for _ in range(4)] == [b"free"] * 4
    here.put(replace(free.job, phase=Phase.STOPPING))
    last = threading.Thread(target=lambda: answers.append(asked(here, "GET", "/serve/ann/projects/free")[2]))
    last.start()
    until(lambda: busy.gate.seen["waiting"] == 1, "nobody waits")
    hold.set()
    for thread in (waiting, last):
        thread.join(WAIT_S)
    assert answers == [b"held"] * 2


def test_a_projects_address_is_not_submarines(here: Site) -> None:
    """/serve/NAME-VERSION is the prefix of a model, also where USER has a dash: what follows tells them apart."""
    job = here.job(owner="ann-marie", project="dashes")
    here.gate(job, 10).open(here.program(echo).address, keeps_prefix=True)
    for rest in ("", "/", "/v2/models/x/infer", "/api/v1/x"):
        path = f"/serve/ann-marie/projects/dashes{rest}"
        assert seen(here, "GET", path)["line"] == f"GET {path} HTTP/1.1"


def test_a_project_whose_jobs_have_ended_says_how(here: Site) -> None:
    """410 with the newest one's end."""
    here.job(project="over", phase=Phase.FAILED, reason="first")
    here.job(project="over", phase=Phase.SHUTDOWN, reason="second")
    status, content, _ = told(here, "/serve/ann/projects/over")
    assert (status, content["state"]) == (410, "shutdown")
    assert "second" in content["message"]


def test_a_job_of_another_server_is_said_to_be_there(here: Site) -> None:
    """Of one that shares the store: its endpoint is not unknown, but it is not here. Jobs of its project that are here answer."""
    job = here.job(project="shared", place="another")
    for path in (f"/expose/{job.endpoint}", "/serve/ann/projects/shared"):
        status, content, _ = told(here, path)
        assert (status, content["state"]) == (404, "running")
        assert "ann/projects/shared/" in content["message"]
        assert "another server" in content["message"]
    own = here.job(project="shared")
    here.gate(own, 10).open(here.program(echo).address)
    assert seen(here, "GET", "/serve/ann/projects/shared")["line"] == "GET / HTTP/1.1"


# --- jobs that come back ---


def test_a_request_wakes_a_job_that_sleeps(here: Site) -> None:
    """And is answered by it once it is ready; so is who comes meanwhile (issue point 4)."""
    job = here.job(phase=Phase.ASLEEP, started=time.time() - 100, since=time.time() - 100)
    woken: list[str] = []

    async def wake(job_id: str) -> Job:
        woken.append(job_id)
        queued = replace(job, phase=Phase.QUEUED)
        here.board.put(queued)
        return queued

    here.wakes(wake)
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(asked(here, "POST", f"/expose/{job.endpoint}", b"x")[0])) for _ in range(3)]
    threads[0].start()
    until(lambda: woken, "nobody woke it")
    for thread in threads[1:]:
        thread.start()
    here.put(replace(job, phase=Phase.STARTING))
    here.put(replace(job, phase=Phase.RUNNING, since=time.time()))
    gate = here.gate(job)
    gate.open(here.program(echo).address)
    for thread in threads:
        thread.join(WAIT_S)
    assert answers == [200] * 3
    assert woken == [job.id]
    here.wakes(None)


def test_a_job_that_fails_to_come_back_says_how(here: Site) -> None:
    """Who waits for it hears of its end at once."""
    job = here.job(phase=Phase.QUEUED, started=time.time() - 100)
    answers: list[tuple[int, dict[str, Any], dict[str, str]]] = []
    waiting = threading.Thread(target=lambda: answers.append(told(here, f"/expose/{job.endpoint}")))
    waiting.start()
    here.put(replace(job, phase=Phase.STARTING))
    here.put(replace(job, phase=Phase.FAILED, reason="its virtualenv is gone"))
    waiting.join(WAIT_S)
    assert answers[0][0] == 410
    assert "its virtualenv is gone" in answers[0][1]["message"]


def test_a_deleted_job_is_unknown_to_who_waits(here: Site) -> None:
    """404 at once."""
    job = here.job(phase=Phase.STARTING, started=time.time() - 100)
    answers: list[int] = []
    waiting = threading.Thread(target=lambda: answers.append(told(here, f"/expose/{job.endpoint}")[0]))
    waiting.start()
    here.do(lambda: here.board.drop(job.id))
    waiting.join(WAIT_S)
    assert answers == [404]


# --- one at a time ---


def test_one_request_at_a_time_and_none_is_lost(here: Site) -> None:
    """By default (requirement F15); with more asked for, that many."""

    counting = threading.Lock()
    now: list[int] = []
    most = 0

    def slow(request: Received) -> None:
        nonlocal most
        for _ in request.body():
            pass
        with counting:
            now.append(1)
            most = max(most, len(now))
        time.sleep(0.01)
        with counting:
            now.pop()
        request.conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    for concurrency in (1, 3):
        served = here.serving(slow, concurrency=concurrency)
        answers: list[tuple[int, bytes]] = []

        def ask(served: Served = served, answers: list[tuple[int, bytes]] = answers) -> None:
            for _ in range(5):
                status, _, body = asked(here, "POST", served.path, b"x" * 1000)
                answers.append((status, body))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert answers == [(200, b"ok")] * 40
        assert most <= concurrency
        assert served.gate.seen["calls"] == 40


def test_a_slow_upload_does_not_keep_others_out(here: Site) -> None:
    """A short body is complete before its request asks for a permit."""
    served = here.serving(echo)
    with here.connect() as slow:
        slow.sendall(f"POST {served.path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nfirst".encode())
        assert seen(here, "POST", served.path, b"quick")["size"] == 5
        slow.sendall(b"x" * 995)
        assert slow.recv(100).startswith(b"HTTP/1.1 200 ")
