"""Load by clients that submit a prediction and poll until it is done, as Tungsten's clients do. Raw sockets, so that little is spent here."""

import asyncio
import time
from dataclasses import dataclass
from statistics import quantiles

import orjson

from benchmarks.processes import BenchmarkError

PAUSE_S = 0.005


@dataclass(frozen=True, slots=True)
class Polled:
    done: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        return self.done / self.seconds


class _Client:
    """One kept-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def call(self, request: bytes) -> dict[str, object]:
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        body = await self._reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200"):
            line = head.splitlines()[0].decode()
            raise BenchmarkError(f"answered {line}: {body[:200]!r}")
        answer: dict[str, object] = orjson.loads(body)
        return answer

    def close(self) -> None:
        self._writer.close()


def poll(port: int, body: bytes, clients: int, seconds: float) -> Polled:
    """Submit and poll every 5 ms, on so many connections, for so long. Every prediction must succeed."""
    return asyncio.run(_poll(port, body, clients, seconds))


async def _poll(port: int, body: bytes, clients: int, seconds: float) -> Polled:
    post = (
        b"POST /predictions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    ) + body
    latencies: list[float] = []
    begin = time.perf_counter()

    async def keep_asking() -> None:
        client = _Client(*await asyncio.open_connection("127.0.0.1", port))
        try:
            while time.perf_counter() - begin < seconds:
                asked = time.perf_counter()
                identity = str((await client.call(post))["prediction_id"])
                get = b"GET /predictions/%b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % identity.encode()
                while True:
                    status = (await client.call(get))["status"]
                    if status == "success":
                        break
                    if status == "failed":
                        raise BenchmarkError("a prediction failed")
                    await asyncio.sleep(PAUSE_S)
                latencies.append(time.perf_counter() - asked)
        finally:
            client.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(keep_asking())
    took = time.perf_counter() - begin
    cuts = quantiles(latencies, n=100) if len(latencies) > 1 else [0.0] * 99
    return Polled(len(latencies), took, cuts[49] * 1e3, cuts[98] * 1e3)
