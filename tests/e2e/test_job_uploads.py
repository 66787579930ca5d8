"""Uploads of code and data over HTTP, as hostile and as unlucky as they come: too large, cut off, with the server killed in the middle."""

import io
import json
import os
import signal
import socket
import tarfile
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.running import Running
from tests.floyd import hub, until
from tests.golden.test_floydhub_code import EXPECTED, FOLDER
from tests.jobs_files import FORM, archive, form, special
from tests.web import web

KEY = {"Authorization": "apikey alice", "x-floydhub-cli-version": "0.11.17"}
TUS = {"Tus-Resumable": "1.0.0"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with hub(tmp_path_factory.mktemp("hub"), "--max-code", "1M", "--max-code-files", "50", "--max-data-set", "4M") as running:
        yield running


def project(url: str) -> str:
    return str(web.get(f"{url}/api/v1/projects/alice/x", headers=KEY).json()["id"])


def send(url: str, body: bytes, content_type: str = FORM) -> httpx.Response:
    return web.post(f"{url}/api/v1/modules/", content=body, headers={**KEY, "Content-Type": content_type}, timeout=60)


def said(url: str) -> bytes:
    return json.dumps({"name": "alice/x", "family_id": project(url), "mode": "serve", "module_type": "code"}).encode()


class Upload:
    """One data set's version, and the upload of it."""

    def __init__(self, url: str, length: int) -> None:
        family = web.get(f"{url}/api/v1/datasets/alice/d", headers=KEY).json()["id"]
        words = {"name": "alice/d", "module_type": "data", "data_type": "gzip", "family_id": family, "resumable": True}
        self.id = str(web.post(f"{url}/api/v1/modules/", json=words, headers=KEY).json()["id"])
        self.credentials(url)
        name = b64encode(self.id.encode()).decode()
        self.begun = web.post(
            f"{url}/api/v1/upload/", auth=self.auth, headers={**TUS, "Upload-Length": str(length), "Upload-Metadata": f"filename {name}"}
        )

    def credentials(self, url: str) -> None:
        got = web.post(f"{url}/api/v1/modules/{self.id}/upload_v2_credentials", headers=KEY).json()
        self.auth = (got["data_upload_id"], got["token"])

    def place(self, url: str) -> str:
        return f"{url}/api/v1/upload/{self.id}"

    def offset(self, url: str) -> int:
        return int(web.head(self.place(url), auth=self.auth, headers=TUS).headers["upload-offset"])

    def patch(self, url: str, offset: int, content: bytes) -> httpx.Response:
        headers = {**TUS, "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        return web.patch(self.place(url), auth=self.auth, headers=headers, content=content, timeout=60)

    def state(self, url: str) -> tuple[int, str]:
        answer = web.get(f"{url}/api/v1/resources/{self.id}/state", headers=KEY)
        return answer.status_code, answer.text

    def settled(self, url: str) -> tuple[int, str]:
        until(lambda: self.state(url)[1] not in ('"waiting"', '"unpacking"'), lambda: self.state(url))
        return self.state(url)


def halfway(server: Running, head: str, body: bytes) -> bytes:
    """What the server answers to a request of which only so much is ever sent."""
    with socket.create_connection(("127.0.0.1", server.port), 30) as line:
        line.sendall(head.encode() + b"\r\n\r\n" + body)
        return line.recv(65536)


# --- code ---


def test_what_the_client_sends_comes_back(server: Running) -> None:
    """A recorded upload, and the code downloaded again: every name and byte is the same (requirement F4)."""
    project(server.url)
    body = (FOLDER / "code.body").read_bytes().replace(b'"family_id": "fam1", "arch"', b'"family_id": null, "arch"')
    sent = send(server.url, body, json.loads((FOLDER / "code.json").read_text())["content_type"])
    assert sent.status_code == 200, sent.text
    module = web.get(f"{server.url}/api/v1/modules/{sent.json()['id']}", headers=KEY).json()
    tar = web.get(f"{server.url}/api/v1/resources/{module['resource_id']}?content=true&download=true", headers=KEY)
    found = {}
    with tarfile.open(fileobj=io.BytesIO(tar.content)) as members:
        for member in members:
            if source := members.extractfile(member):
                found[member.name] = source.read()
    assert found == EXPECTED


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"../../etc/x": b"1"}, "'..'"),
        ({"/etc/x": b"1"}, "relative path"),
        ({"./a": b"1", "./a/b": b"2"}, "as a file and as a folder"),
        ({f"./f{index}": b"" for index in range(51)}, "limit of 50 files"),
        ({"./a": bytes(700_000), "./b": bytes(700_000)}, "limit of 1048576 bytes"),
    ],
)
def test_code_that_is_refused(files: dict[str, bytes], words: str, server: Running) -> None:
    """A 4xx in JSON with a message that says what and how much."""
    answer = send(server.url, form(files, said(server.url)))
    assert 400 <= answer.status_code < 500
    assert words in answer.json()["message"]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", FORM),
        (b"no form", FORM),
        (form({"./a": b"1"}, None), FORM),
        (form({"./a": b"1"}, b"[]"), FORM),
        (form({"./a": b"1"}, b"\xff"), FORM),
        (form({"./a": b"1"})[:-20], FORM),
        (form({"./a": b"1"}), "multipart/form-data"),
        (form({"./a": b"1"}), "multipart/form-data; boundary=other"),
        (b"--B\r\n" + b"x" * 100_000, FORM),
    ],
)
def test_what_is_no_upload(body: bytes, content_type: str, server: Running) -> None:
    """Never a 5xx."""
    answer = send(server.url, body, content_type)
    assert 400 <= answer.status_code < 500
    assert answer.json()["message"]


def test_an_announced_length_is_refused_at_once(server: Running) -> None:
    """The answer comes before the body does (section 10: limits are told early)."""
    head = f"POST /api/v1/modules/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: apikey alice\r\nContent-Type: {FORM}\r\nContent-Length: 9000000000"
    answer = halfway(server, head, b"--B\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"limit of 1048576 bytes" in answer


def test_a_file_that_never_ends(server: Running) -> None:
    """Of an upload without a length, no more is taken than the limit; the refusal comes while the client still sends."""
    chunk = form({"./a": b""}, None).removesuffix(b"\r\n--B--\r\n") + bytes(3 << 20)
    head = f"POST /api/v1/modules/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: apikey alice\r\nContent-Type: {FORM}\r\nTransfer-Encoding: chunked"
    answer = halfway(server, head, b"%x\r\n" % (1 << 40) + chunk)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_client_that_hangs_up(server: Running) -> None:
    """The server goes on."""
    with socket.create_connection(("127.0.0.1", server.port), 30) as line:
        line.sendall(
            f"POST /api/v1/modules/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: apikey alice\r\nContent-Type: {FORM}\r\n"
            "Content-Length: 100000\r\n\r\n--B\r\n".encode()
        )
    assert send(server.url, form({"./app.py": b"1"}, said(server.url))).status_code == 200


# --- data ---


def test_an_upload_outlives_its_server(tmp_path: Path) -> None:
    """kill -9 in the middle of a piece: the next server says how much it has, which is what was answered or more, and the rest follows."""
    files = {f"f{index}.bin": os.urandom(400_000) for index in range(5)}
    content = archive(*files.items())
    with hub(tmp_path) as server:
        upload = Upload(server.url, len(content))
        assert upload.begun.status_code == 201
        assert upload.begun.headers["location"] == upload.place(server.url)
        assert upload.patch(server.url, 0, content[:1_000_000]).headers["upload-offset"] == "1000000"
        with socket.create_connection(("127.0.0.1", server.port), 30) as line:
            name = b64encode(":".join(upload.auth).encode()).decode()
            line.sendall(
                f"PATCH /api/v1/upload/{upload.id} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {name}\r\nTus-Resumable: 1.0.0\r\n"
                "Content-Type: application/offset+octet-stream\r\nUpload-Offset: 1000000\r\nContent-Length: 900000\r\n\r\n".encode()
                + content[1_000_000:1_600_000]
            )
            waiting = tmp_path / "dragoman" / "jobs" / "uploads" / upload.id
            until(lambda: waiting.stat().st_size > 1_000_000, "nothing of the piece was written")
            assert web.head(upload.place(server.url), auth=upload.auth, headers=TUS).status_code == 423
            server.process.send_signal(signal.SIGKILL)
            server.process.wait(30)
    with hub(tmp_path) as server:
        upload.credentials(server.url)
        offset = upload.offset(server.url)
        assert 1_000_000 < offset <= 1_600_000
        assert upload.patch(server.url, 0, content[:10]).status_code == 409
        done = upload.patch(server.url, offset, content[offset:])
        assert (done.status_code, done.headers["upload-offset"]) == (204, str(len(content)))
        assert upload.settled(server.url) == (200, '"valid"')
        for name, expected in files.items():
            got = web.get(f"{server.url}/api/v1/resources/{upload.id}/{name}?content=true", headers=KEY)
            assert got.content == expected


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"no archive at all", "cannot be unpacked"),
        (archive(("../x", b"1")), "'..'"),
        (archive(special("l", tarfile.SYMTYPE, "/etc/passwd")), "leads out"),
        (archive(special("d", tarfile.CHRTYPE)), "neither file, folder nor link"),
        (archive(("zeros", bytes(8 << 20))), "more than 4194304 bytes"),
    ],
)
def test_data_that_cannot_be_unpacked(content: bytes, word: str, server: Running) -> None:
    """The client, which would ask for half an hour, is told the reason instead."""
    upload = Upload(server.url, len(content))
    assert upload.patch(server.url, 0, content).status_code == 204
    status, text = upload.settled(server.url)
    assert 400 <= status < 500
    assert word in json.loads(text)["message"]
    assert web.head(upload.place(server.url), auth=upload.auth, headers=TUS).status_code == 410


def test_data_that_is_too_large(server: Running) -> None:
    """Refused when it is announced, with both numbers."""
    upload = Upload(server.url, 5 << 20)
    assert upload.begun.status_code == 413
    assert "5242880 bytes, the limit is 4194304 bytes" in upload.begun.json()["message"]


def test_wrong_passwords(server: Running) -> None:
    """Of another upload, or none: 401, and nothing is told."""
    upload, other = Upload(server.url, 10), Upload(server.url, 10)
    for auth in (("nobody", "x"), (upload.id, "x"), (upload.id, other.auth[1]), other.auth):
        answer = web.head(upload.place(server.url), auth=auth, headers=TUS)
        assert answer.status_code in (401, 404)
    assert web.head(upload.place(server.url), headers=TUS).status_code == 401
    assert upload.offset(server.url) == 0


@pytest.mark.parametrize("path", ["../../secret", "..%2f..%2fsecret", "%2e%2e/x", "a%00b"])
def test_paths_that_lead_out(path: str, server: Running) -> None:
    """Of listings and downloads: a 4xx in JSON."""
    content = archive(("a.txt", b"hello"))
    upload = Upload(server.url, len(content))
    upload.patch(server.url, 0, content)
    assert upload.settled(server.url) == (200, '"valid"')
    for target in (
        f"/api/v1/resources/{upload.id}/{path}?content=true",
        f"/api/v1/download/artifacts/data/{upload.id}?is_dir=true&path={path}",
    ):
        with socket.create_connection(("127.0.0.1", server.port), 30) as line:
            line.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: apikey alice\r\nConnection: close\r\n\r\n".encode())
            answer = line.recv(65536)
        assert answer.split()[1] in (b"400", b"404"), answer
