"""A server that speaks FloydHub's protocol (the sheet's section 8) and does nothing: what it was sent, and what it is told to answer, lies open."""

import email.parser
import email.policy
import io
import json
import re
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Json = dict[str, Any]

ENVIRONMENTS = {"cpu": {"default": "image", "tensorflow-1.8": "image"}, "gpu": {"default": "image", "pytorch-1.0": "image"}, "gpu2": {}}
SUCCESS = "[success] Finished execution\n"


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class State:
    """All that the server knows; a test may change any of it."""

    user: str = "ann"
    passwords: dict[str, str] = field(default_factory=dict)
    keys: set[str] | None = None
    """Which are accepted; None: any."""
    jobs: dict[str, Json] = field(default_factory=dict)
    logs: dict[str, list[bytes]] = field(default_factory=dict)
    """What a log holds, one item more at each look; when the last one is out, the job has ended with success."""
    code: dict[str, dict[str, bytes]] = field(default_factory=dict)
    about: list[Json] = field(default_factory=list)
    data: dict[str, Json] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """By resource."""
    uploads: dict[str, bytearray] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    drop_after: int = 0
    """Pieces of an upload after which the connection is cut, once; 0 for never."""
    asked: list[Asked] = field(default_factory=list)
    refuse: dict[str, tuple[int, Json]] = field(default_factory=dict)
    """`METHOD /path` -> what is answered instead."""
    ranges: bool = False
    """Whether a log is sent from an offset."""
    unpacked: str = "valid"
    cut_downloads: bool = False

    def sent(self, method: str, path: str) -> list[Asked]:
        return [each for each in self.asked if each.method == method and re.fullmatch(path, each.path)]


def job(name: str = "ann/projects/shop/1", **changes: Any) -> Json:
    """A job object as the protocol has it."""
    number = name.rpartition("/")[2]
    return {
        "id": f"job{number}", "name": name, "created": "2026-03-09T12:00:00", "description": "first", "state": "running", "duration": 61.7,
        "log_id": f"log{number}", "instance_log_id": f"log{number}", "timeout_seconds": 604800, "instance_type": "c1", "mode": "command",
        "canvas": {"nodes": {"1": {"taskInstanceId": f"ti{number}", "type": "module_node"}}}, "service_url": None, "tensorboard_url": None,
        "output_id": None, "latest_metrics": None, **changes,
    }  # fmt: skip


def version(name: str = "ann/datasets/pics/1", **changes: Any) -> Json:
    number = name.rpartition("/")[2]
    return {
        "module_type": "DataModule", "id": f"data{number}", "name": name, "date_created": "2026-03-09T12:00:00", "description": "",
        "data": {"state": "valid", "size": "3 kB"}, "version": number, "resource_id": f"res{number}", "public": False, **changes,
    }  # fmt: skip


def tarred(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, each in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(each)
            tar.addfile(member, io.BytesIO(each))
    return content.getvalue()


@contextmanager
def floydhub() -> Iterator[tuple[str, State]]:
    """A server at a URL, and its state."""
    server = _Server(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.state = State()


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        return

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def _any(self) -> None:
        state = self.server.state
        path, _, query = self.path.partition("?")
        early = state.refuse.get(f"{self.command} {path}")
        chunked = b"" if early else self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = Asked(self.command, unquote(path), parse_qs(query), {k.lower(): v for k, v in self.headers.items()}, chunked)
        state.asked.append(asked)
        if early is not None:
            self.close_connection = True
            self._answer(early[0], json.dumps(early[1]).encode(), connection="close")
            return
        if not path.startswith("/api/v1/"):
            self._answer(404, b"{}")
            return
        if not self._known(asked):
            self._answer(401, b'{"message": "who are you?"}')
            return
        self._routed(asked, [unquote(part) for part in path.removeprefix("/api/v1/").strip("/").split("/")])

    do_GET = do_POST = do_PATCH = do_HEAD = do_DELETE = _any  # noqa: N815 # as http.server has it

    def _known(self, asked: Asked) -> bool:
        keys = self.server.state.keys
        if keys is None or asked.path.startswith(("/api/v1/cli_version", "/api/v1/env", "/api/v1/user/login", "/api/v1/upload")):
            return True
        return asked.headers.get("authorization", "").partition(" ")[2] in keys

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content_type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        if "content_length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, content: Any, status: int = 200) -> None:
        self._answer(status, json.dumps(content).encode())

    def _missing(self) -> None:
        self._json({"message": "there is none"}, 404)

    def _routed(self, asked: Asked, parts: list[str]) -> None:
        state = self.server.state
        match asked.method, parts:
            case "GET", ["cli_version"]:
                self._json({"latest_version": "0.11.17", "min_version": "0.0.1"})
            case "GET", ["env"]:
                self._json(ENVIRONMENTS)
            case "GET", ["user"]:
                self._json({"uid": "1", "username": state.user, "email": "x@localhost", "type": None})
            case "POST", ["user", "login"]:
                given = asked.json()
                if state.passwords.get(given["username"]) == given["password"]:
                    self._json({"access_token": f"token-of-{given['username']}"})
                else:
                    self._json({"message": "no"}, 401)
            case "GET", [("projects" | "datasets") as kind, owner, name]:
                self._json(
                    {"id": f"{kind}-{owner}-{name}", "name": name, "description": "", "public": False, "latest_experiment_name": None}
                )
            case "POST", ["datasets", _]:
                made = version("ann/datasets/pics/9")
                state.data[made["name"]] = made
                self._json({"data_id": made["id"]})
            case "POST", ["modules"] if asked.headers["content-type"].startswith("multipart/"):
                self._code(asked)
            case "POST", ["modules"]:
                made = version("ann/datasets/pics/1", data={"state": "uploading", "size": "0"}, resource_id=None)
                state.data[made["name"]] = made
                self._json({"id": made["id"], "name": made["name"]})
            case "POST", ["modules", identity, "upload_v2_credentials"]:
                self._json({"data_upload_id": f"up-{identity}", "token": "secret"})
            case _, ["upload", *rest]:
                self._upload(asked, rest)
            case "POST", ["experiments", "run_module"]:
                self._made(asked)
            case "GET", ["experiments"]:
                family = asked.query["family_id"][0]
                self._json([each for each in state.jobs.values() if family.endswith(each["name"].split("/")[2])])
            case "GET", ["experiments", "cancel", identity]:
                for each in state.jobs.values():
                    if each["id"] == identity:
                        each["state"] = "shutdown"
                self._json({})
            case "POST", ["experiments", "restart", _]:
                again = job("ann/projects/shop/2", service_url="http://h/expose/two", mode="serve")
                state.jobs[again["name"]] = again
                self._json({"id": again["id"], "name": again["name"]})
            case "GET" | "DELETE", ["experiments", *name]:
                self._one(asked, state.jobs, "/".join(name))
            case "GET", ["taskinstances", identity]:
                self._json({"id": identity, "log_id": "log1", "output_ids": {}, "mode": "serving", "module_id": "code1"})
            case "GET", ["modules"]:
                self._json(list(state.data.values()))
            case "GET", ["modules", "code1"]:
                self._json({"name": "c", "description": "", "command": "", "resource_id": "code-res"})
            case "GET" | "DELETE", ["modules", *name]:
                self._one(asked, state.data, "/".join(name))
            case "GET", ["resources", resource, *path]:
                self._resource(asked, resource, "/".join(path))
            case "GET", ["download", "artifacts", kind, identity]:
                self._tar(f"{kind}:{identity}:{asked.query['path'][0]}")
            case _:
                self._missing()

    def _one(self, asked: Asked, kept: dict[str, Json], name: str) -> None:
        found = next((each for key, each in kept.items() if name in (key, each["id"], key.rpartition("/")[0])), None)
        if found is None:
            self._missing()
        elif asked.method == "DELETE":
            del kept[found["name"]]
            self._json({})
        else:
            self._json(found)

    def _code(self, asked: Asked) -> None:
        head = f"Content-Type: {asked.headers['content-type']}\r\n\r\n".encode()
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + asked.body)
        files: dict[str, bytes] = {}
        for part in message.iter_parts():
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            if part.get_param("name", header="content-disposition") == "json":
                self.server.state.about.append(json.loads(content))
            else:
                files[part.get_filename() or ""] = content
        identity = f"code{len(self.server.state.code) + 1}"
        self.server.state.code[identity] = files
        self._json({"id": identity})

    def _made(self, asked: Asked) -> None:
        state, given, about = self.server.state, asked.json(), self.server.state.about[-1]
        owner, _, project = given["name"].partition("/")
        mode = about["mode"] or "command"
        url = "http://127.0.0.1:1/expose/0123456789abcdef" if mode == "serve" else None
        number = len(state.jobs) + 1
        made = job(f"{owner}/projects/{project}/{number}", mode=mode, service_url=url, state="queued")
        state.jobs[made["name"]] = made
        self._json({"id": made["id"], "name": made["name"]})

    def _resource(self, asked: Asked, resource: str, path: str) -> None:
        state = self.server.state
        if resource in state.logs:
            self._log(asked, resource)
        elif "download" in asked.query:
            self._tar(resource)
        elif path in state.files.get(resource, {}):
            self._answer(200, state.files[resource][path], content_type="application/octet-stream")
        elif below := [
            name.removeprefix(f"{path}/" if path else "")
            for name in state.files.get(resource, {})
            if not path or name.startswith(f"{path}/")
        ]:
            kinds = {name.partition("/")[0]: "directory" if "/" in name else "file" for name in below}
            self._json({"files": [{"name": n, "type": kind} for n, kind in kinds.items()], "skipped_files": 0, "total_files": len(kinds)})
        else:
            self._missing()

    def _log(self, asked: Asked, resource: str) -> None:
        state = self.server.state
        shown = state.logs[resource]
        seen = len([each for each in state.asked if each.path.endswith(f"/resources/{resource}")])
        content = b"".join(shown[:seen])
        if seen >= len(shown):
            for each in state.jobs.values():
                if each["log_id"] == resource and each["state"] in ("queued", "running"):
                    each["state"] = "success"
        start = int((asked.headers.get("range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        if state.ranges and start:
            if start >= len(content):
                self._json({"message": "nothing new"}, 416)
            else:
                self._answer(206, content[start:], content_type="text/plain; charset=utf-8")
            return
        self._answer(200, content, content_type="text/plain; charset=utf-8")

    def _tar(self, key: str) -> None:
        files = self.server.state.files.get(key)
        if files is None:
            self._missing()
            return
        content = tarred(files)
        if self.server.state.cut_downloads:
            self.close_connection = True
            self._answer(200, content[:600], content_length=str(len(content)))
        else:
            self._answer(200, content, content_type="application/x-tar")

    def _upload(self, asked: Asked, rest: list[str]) -> None:
        state = self.server.state
        if asked.method == "POST":
            state.uploads["u1"] = bytearray()
            state.lengths["u1"] = int(asked.headers["upload-length"])
            host = urlsplit(f"http://{asked.headers['host']}").netloc
            self._answer(201, b"", location=f"http://{host}/api/v1/upload/u1")
            return
        if rest[0] not in state.uploads:
            self._missing()
            return
        have = state.uploads[rest[0]]
        if asked.method == "PATCH":
            assert int(asked.headers["upload-offset"]) == len(have)
            have += asked.body
            if state.drop_after:
                state.drop_after -= 1
                if not state.drop_after:
                    self.close_connection = True
                    self.connection.close()
                    return
            if len(have) == state.lengths[rest[0]]:
                for each in state.data.values():
                    each["data"], each["resource_id"] = {"state": state.unpacked, "size": "3 kB", "reason": "it holds a device"}, "res1"
        self._answer(204, b"", upload_offset=str(len(have)))
