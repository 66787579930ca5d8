"""Load by clients that submit a prediction and poll until it is done, as Tungsten's clients do. Bare protocols, so that little is spent here."""

import asyncio
import re
import time
from dataclasses import dataclass
from statistics import quantiles
from typing import cast

import uvloop

from benchmarks.processes import BenchmarkError

PAUSE_S = 0.005
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_ID = re.compile(rb'"prediction_id": ?"([^"]+)"')


@dataclass(frozen=True, slots=True)
class Polled:
    done: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        return self.done / self.seconds


class _Client(asyncio.Protocol):
    """One kept-alive connection: submits, polls, and begins anew until the time is over. `ended` then has nothing, or what went wrong."""

    def __init__(self, post: bytes, until: float, latencies: list[float]) -> None:
        self._post = post
        self._until = until
        self._latencies = latencies
        self._buffer = b""
        self._poll = b""
        self._begun = 0.0
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._submit()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = _LENGTH.search(head)
        if length is not None and len(body) < int(length[1]):
            return
        self._buffer = b""
        if not head.startswith(b"HTTP/1.1 200"):
            self._fail(f"answered {head.splitlines()[0].decode()}: {body[:200]!r}")
        elif not self._poll:
            found = _ID.search(body)
            if found is None:
                self._fail(f"gave no id: {body[:200]!r}")
                return
            self._poll = b"GET /predictions/%b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % found[1]
            self._transport.write(self._poll)
        elif b'"success"' in body:
            self._latencies.append(time.perf_counter() - self._begun)
            self._submit()
        elif b'"failed"' in body:
            self._fail("a prediction failed")
        else:
            self._loop.call_later(PAUSE_S, self._transport.write, self._poll)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"closed the connection: {exc}")

    def close(self) -> None:
        self._transport.close()

    def _submit(self) -> None:
        now = time.perf_counter()
        if now < self._until:
            self._begun, self._poll = now, b""
            self._transport.write(self._post)
        elif not self.ended.done():
            self.ended.set_result(None)

    def _fail(self, why: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(BenchmarkError(why))


def poll(port: int, body: bytes, clients: int, seconds: float) -> Polled:
    """Submit and poll every 5 ms, on so many connections, for so long. Every prediction must succeed."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_poll(port, body, clients, seconds))


async def _poll(port: int, body: bytes, clients: int, seconds: float) -> Polled:
    head = b"POST /predictions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    latencies: list[float] = []
    begin = time.perf_counter()
    loop = asyncio.get_running_loop()
    made = [
        (await loop.create_connection(lambda: _Client(head % len(body) + body, begin + seconds, latencies), "127.0.0.1", port))[1]
        for _ in range(clients)
    ]
    try:
        await asyncio.gather(*(client.ended for client in made))
    finally:
        for client in made:
            client.close()
    took = time.perf_counter() - begin
    cuts = quantiles(latencies, n=100) if len(latencies) > 1 else [0.0] * 99
    return Polled(len(latencies), took, cuts[49] * 1e3, cuts[98] * 1e3)
