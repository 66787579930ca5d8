"""Requests per second and CPU per request of a raw ASGI echo behind our HTTP server and behind uvicorn, alternately in one run.

    python benchmarks/http_echo.py [--pairs 3] [--seconds 3] [--connections 16] [--body 88]

Drives with wrk where it is installed, else with a small asyncio load (which is slower than both servers: then believe the CPU column).
Both servers run uvloop and httptools in one process each. Ratios within a pair count; absolute figures depend on the machine.
"""

import argparse
import asyncio
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from dragoman.server.http import HttpServer, bind

KINDS = ("dragoman", "dragoman-tasks", "uvicorn")


class Echo:
    """Answers the request body; `GET /cpu` answers the CPU nanoseconds that the process has used."""

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Handle one request."""
        pieces = []
        more = True
        while more:
            message = await receive()
            pieces.append(message["body"])
            more = message["more_body"]
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if scope["path"] == "/cpu":
            body = b"%d" % time.process_time_ns()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class EagerEcho(Echo):
    """The same, stepped without a task."""

    def eager(self, _scope: dict[str, Any]) -> bool:
        """Agree to that."""
        return True


async def serve_ours(app: Echo, port: int) -> None:
    """Serve until the process is ended."""
    server = HttpServer(app)
    await server.start([bind("127.0.0.1", port)])
    await asyncio.Event().wait()


def serve(kind: str, port: int) -> None:
    """Run one server in this process."""
    if kind == "uvicorn":
        uvicorn.run(
            Echo(), host="127.0.0.1", port=port, loop="uvloop", http="httptools", access_log=False, lifespan="off", log_level="warning"
        )
    else:
        uvloop.run(serve_ours(EagerEcho() if kind == "dragoman" else Echo(), port))


def free_port() -> int:
    """Return a port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_ns(port: int) -> int:
    """Ask a server for its CPU time; wait for it to listen."""
    until = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/cpu", timeout=5) as answer:
                return int(answer.read())
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


async def asyncio_load(port: int, seconds: float, connections: int, request: bytes) -> int:
    """Send requests one after the other on each connection; return how many were answered."""
    until = time.monotonic() + seconds
    answered = 0

    async def client() -> None:
        nonlocal answered
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < until:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            size = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(size)
            answered += 1
        writer.close()

    await asyncio.gather(*(client() for _ in range(connections)))
    return answered


def measure(port: int, seconds: float, connections: int, size: int) -> tuple[float, float]:
    """Drive one server; return requests per second and CPU microseconds per request."""
    before, began = cpu_ns(port), time.monotonic()
    if shutil.which("wrk"):
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            script.write(
                f'wrk.method = "POST"\nwrk.body = string.rep("x", {size})\nwrk.headers["Content-Type"] = "application/json"\n'
                'function done(summary)\n  print("answered " .. summary.requests)\nend\n'
            )
            script.flush()
            command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script.name, f"http://127.0.0.1:{port}/v2/models/m/infer"]
            text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        answered = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("answered "))
    else:
        head = f"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
        answered = uvloop.run(asyncio_load(port, seconds, connections, head.encode() + b"x" * size))
    elapsed = time.monotonic() - began
    return answered / elapsed, (cpu_ns(port) - before) / answered / 1000


def main() -> None:
    """Start the servers, measure alternately, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--body", type=int, default=88)
    parser.add_argument("--serve", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.port)
        return
    ports = {kind: free_port() for kind in KINDS}
    here = str(Path(__file__).resolve())
    servers = [subprocess.Popen([sys.executable, here, "--serve", kind, "--port", str(port)]) for kind, port in ports.items()]
    figures: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    try:
        for port in ports.values():
            cpu_ns(port)
        for _ in range(options.pairs):
            for kind, port in ports.items():
                figures[kind].append(measure(port, options.seconds, options.connections, options.body))
                print(f"{kind:16} {figures[kind][-1][0]:9.0f} req/s {figures[kind][-1][1]:8.1f} us CPU a request", flush=True)
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait()
    for kind in KINDS[:2]:
        speed = [ours[0] / other[0] for ours, other in zip(figures[kind], figures["uvicorn"], strict=True)]
        cpu = [other[1] / ours[1] for ours, other in zip(figures[kind], figures["uvicorn"], strict=True)]
        print(f"{kind} against uvicorn: {statistics.median(speed):.2f}x the requests per second, 1/{statistics.median(cpu):.2f} of the CPU")


if __name__ == "__main__":
    main()
