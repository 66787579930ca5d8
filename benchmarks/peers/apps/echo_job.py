"""A job's program: sends back what it gets, over HTTP/1.0 as Flask's own server does; ends at once when it is asked for /die."""

import os
import signal
from http.server import BaseHTTPRequestHandler, HTTPServer


class Echo(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        if self.path.endswith("/die"):
            os.kill(os.getpid(), signal.SIGKILL)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Not a word: what is measured is not a log."""


if __name__ == "__main__":
    HTTPServer(("0.0.0.0", int(os.environ.get("PORT", "5000"))), Echo).serve_forever()
