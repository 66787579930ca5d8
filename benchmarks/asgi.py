"""What an HTTP server costs without a model: raw ASGI applications, under our server or uvicorn, in processes that share a port.

    python -m benchmarks.asgi dragoman|uvicorn echo|image PORT WORKERS

`echo` sends the body back. `image` answers the mean of the numbers that follow the JSON head of the request, by NumPy: the least that a
Python server of that body can do.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import uvicorn
import uvloop

from dragoman.server.http import HttpServer, bind


class Raw:
    """Reads a request and answers; subclasses say what. Steps without a task under our server, as the server's own application does."""

    def eager(self, _scope: Mapping[str, Any]) -> bool:
        return True

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        pieces = []
        more = True
        while more:
            message = await receive()
            pieces.append(message["body"])
            more = message["more_body"]
        body = self.answer(scope, pieces[0] if len(pieces) == 1 else b"".join(pieces))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def answer(self, _scope: Mapping[str, Any], body: bytes) -> bytes:
        return body


class ImageMean(Raw):
    def answer(self, scope: Mapping[str, Any], body: bytes) -> bytes:
        head = next(int(value) for name, value in scope["headers"] if name == b"inference-header-content-length")
        mean = np.frombuffer(body, np.float32, offset=head) if head % 4 == 0 else np.frombuffer(body[head:], np.float32)
        return b'{"outputs":[{"data":[%.9g]}]}' % float(mean.mean())


echo = Raw()
image = ImageMean()
APPS = {"echo": echo, "image": image}


async def _listen(app: Raw, socket: Any) -> None:
    await HttpServer(app).start([socket])
    await asyncio.Event().wait()


def _ours(app: Raw, port: int, workers: int) -> None:
    """Fork the workers; they end with this process."""
    socket = bind("127.0.0.1", port)
    children = []
    for _ in range(workers):
        child = os.fork()
        if not child:
            uvloop.run(_listen(app, socket))
        children.append(child)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    for child in children:
        os.kill(child, signal.SIGKILL)


def main() -> None:
    kind, name, port, workers = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    if kind == "dragoman":
        _ours(APPS[name], port, workers)
    else:
        uvicorn.run(
            f"benchmarks.asgi:{name}",
            host="127.0.0.1",
            port=port,
            workers=workers,
            loop="uvloop",
            http="httptools",
            access_log=False,
            lifespan="off",
            log_level="warning",
        )


if __name__ == "__main__":
    main()
