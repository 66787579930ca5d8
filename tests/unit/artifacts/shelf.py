"""A web server with files, on this machine: ETags, ranges, conditional requests, and answers that break off when told to."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Shelf:
    """`files` by path; `breaks` maps a path to the byte counts after which its next answers break off; `seen` are requests and their ranges."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    breaks: dict[str, list[int]] = field(default_factory=dict)
    seen: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    tagged: bool = True
    down: bool = False
    locked: bool = False


def tag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


@contextmanager
def shelf() -> Iterator[Shelf]:
    """It listens until the block ends."""
    found = Shelf()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.close_connection = True
            asked = self.headers.get("Range", "")
            found.seen.append((self.path, asked))
            found.headers.append(dict(self.headers.items()))
            if found.down:
                self.send_error(503)
                return
            if found.locked:
                self.send_error(401)
                return
            content = found.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            if found.tagged and self.headers.get("If-None-Match") == tag(content):
                self.send_response(304)
                self.end_headers()
                return
            start = 0
            if asked and self.headers.get("If-Range") == tag(content):
                start = int(asked.removeprefix("bytes=").partition("-")[0])
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if found.tagged:
                self.send_header("ETag", tag(content))
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            limits = found.breaks.get(self.path, [])
            self.wfile.write(content[start:][: limits.pop(0)] if limits else content[start:])

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
