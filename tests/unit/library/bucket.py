"""A bucket that speaks as much of S3 as pushing and pulling needs, on this machine. It checks no signatures."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


@contextmanager
def bucket() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Its address, and what it holds by key."""
    objects: dict[str, bytes] = {}
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def key(self) -> str:
            return unquote(urlsplit(self.path).path).split("/", 2)[-1]

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                if self.headers.get("If-None-Match") == "*" and self.key() in objects:
                    self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
                    return
                objects[self.key()] = content
            self.answer(200, ETag=f'"{hashlib.md5(content).hexdigest()}"')

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            if "list-type" in query:
                self.listed(query.get("prefix", [""])[0])
            elif self.key() in objects:
                content = objects[self.key()]
                self.answer(200, content, ETag=f'"{hashlib.md5(content).hexdigest()}"', Last_Modified="Wed, 01 Jan 2025 00:00:00 GMT")
            else:
                self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

        def listed(self, prefix: str) -> None:
            rows = "".join(
                f"<Contents><Key>{escape(key)}</Key><LastModified>2025-01-01T00:00:00.000Z</LastModified><ETag>&quot;x&quot;</ETag>"
                f"<Size>{len(content)}</Size></Contents>"
                for key, content in sorted(objects.items())
                if key.startswith(prefix) and "/" not in key[len(prefix) :]
            )
            self.answer(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", objects
        finally:
            server.shutdown()
            thread.join()
