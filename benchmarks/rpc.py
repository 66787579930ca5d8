"""Load over gRPC: one fixed message, a number of calls in flight, each waiting for its answer before the next. Run in a process of its own.

    python -m benchmarks.rpc PORT METHOD BODY IN_FLIGHT SECONDS     prints the figures as JSON

The client is the same for every server, and its one interpreter is the bound on small messages: ratios are nearer to 1 than the servers are.
"""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import grpc.aio

from benchmarks.processes import BenchmarkError, environment
from benchmarks.wrk import Load

_CHANNELS = 4
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]


def load(port: int, method: str, body: Path, in_flight: int, seconds: int) -> Load:
    """Send the message in a file for some seconds."""
    command = [sys.executable, "-m", "benchmarks.rpc", str(port), method, str(body), str(in_flight), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False, env=environment())
    if done.returncode:
        raise BenchmarkError(f"the gRPC load failed: {done.stderr.strip()[-300:]}")
    return Load(**json.loads(done.stdout))


def call(port: int, method: str, body: bytes) -> bytes:
    """One call; returns the message that answers it."""
    return asyncio.run(_call(port, method, body))


async def _call(port: int, method: str, body: bytes) -> bytes:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=_OPTIONS) as channel:
        answer: bytes = await channel.unary_unary(method)(body, timeout=60)
        return answer


async def _load(port: int, method: str, body: bytes, in_flight: int, seconds: float) -> Load:
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=_OPTIONS) for _ in range(min(_CHANNELS, in_flight))]
    times: list[float] = []
    refused = 0

    async def caller(index: int, until: float) -> None:
        nonlocal refused
        call = channels[index % len(channels)].unary_unary(method)
        while (begin := time.perf_counter()) < until:
            try:
                await call(body, timeout=30)
            except grpc.aio.AioRpcError:
                refused += 1
                continue
            times.append(time.perf_counter() - begin)

    begin = time.perf_counter()
    await asyncio.gather(*(caller(index, begin + seconds) for index in range(in_flight)))
    took_s = time.perf_counter() - begin
    for channel in channels:
        await channel.close()
    times.sort()
    if not times:
        raise BenchmarkError(f"{method} answered nothing")
    return Load(len(times), took_s, times[len(times) // 2] * 1e3, times[len(times) * 99 // 100] * 1e3, refused, 0)


def main() -> None:
    port, method, body, in_flight, seconds = sys.argv[1:]
    done = asyncio.run(_load(int(port), method, Path(body).read_bytes(), int(in_flight), float(seconds)))
    print(json.dumps({name: getattr(done, name) for name in ("requests", "seconds", "p50_ms", "p99_ms", "refused", "broken")}))


if __name__ == "__main__":
    main()
