"""A bucket that speaks as much of S3 as pushing and pulling needs, on this machine. It checks no signatures."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


@contextmanager
def bucket(reads: list[tuple[str, str]] | None = None) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Its address, and what it holds by key. Into `reads` goes the key and the range of every object that is read."""
    objects: dict[str, bytes] = {}
    seen = reads if reads is not None else []
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
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                if self.headers.get("If-None-Match") == "*" and self.key() in objects:
                    self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
                    return
                objects[self.key()] = content
            self.answer(200, ETag=tag(content))

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            if "list-type" in query:
                self.listed(query.get("prefix", [""])[0], deep="delimiter" not in query)
            elif self.key() in objects:
                self.read(objects[self.key()])
            else:
                self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

        def do_HEAD(self) -> None:
            self.do_GET()

        def read(self, content: bytes) -> None:
            facts = {"ETag": tag(content), "Last_Modified": "Wed, 01 Jan 2025 00:00:00 GMT"}
            if self.command == "HEAD":
                self.send_response(200)
                for name, value in {**facts, "Content_Length": str(len(content))}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                return
            asked = self.headers.get("Range", "")
            seen.append((self.key(), asked))
            if asked:
                start = int(asked.removeprefix("bytes=").partition("-")[0])
                self.answer(206, content[start:], Content_Range=f"bytes {start}-{len(content) - 1}/{len(content)}", **facts)
            else:
                self.answer(200, content, **facts)

        def listed(self, prefix: str, *, deep: bool = False) -> None:
            rows = "".join(
                f"<Contents><Key>{escape(key)}</Key><LastModified>2025-01-01T00:00:00.000Z</LastModified><ETag>{escape(tag(content))}</ETag>"
                f"<Size>{len(content)}</Size></Contents>"
                for key, content in sorted(objects.items())
                if key.startswith(prefix) and (deep or "/" not in key[len(prefix) :])
            )
            self.answer(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", objects
        finally:
            server.shutdown()
            thread.join()


def tag(content: bytes) -> str:
    """What the bucket knows this content by."""
    return f'"{hashlib.md5(content).hexdigest()}"'
