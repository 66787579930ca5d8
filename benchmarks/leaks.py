"""Does a server grow? `python -m benchmarks.leaks` sends 200,000 small requests and prints its memory and descriptors after every 50,000.

Each round goes over fresh connections, several requests ahead on each (pipelined), to one form of request after the other: JSON, binary data,
TensorFlow Serving rows, and requests that are refused. The exit code is 1 if memory grew by more than 8 MiB after the first round, or
descriptors stayed open.
"""

import argparse
import json
import struct
import sys
import tempfile
import time
from pathlib import Path

from tests.e2e.crowd import ROW, post
from tests.e2e.running import Running, serving
from tests.fuzz.driver import descriptors, rss_bytes
from tests.fuzz.wire import Wire
from tests.models import build

MOST_GROWTH_BYTES = 8 << 20
AHEAD = 32
"""Requests that are on their way at a time on one connection."""


def kinds() -> list[tuple[bytes, int]]:
    """Requests and the status of their answers."""
    head = json.dumps({"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}]}).encode()
    tail = struct.pack("<4f", 5.0, 3.4, 1.5, 0.2)
    lines = f"POST /v2/models/iris/infer HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: {len(head)}\r\n"
    return [
        (post("/v2/models/iris/infer", ROW), 200),
        (f"{lines}Content-Length: {len(head) + len(tail)}\r\n\r\n".encode() + head + tail, 200),
        (post("/v1/models/iris:predict", {"instances": [[5.0, 3.4, 1.5, 0.2]]}), 200),
        (post("/v2/models/iris/infer", {"inputs": []}), 400),
    ]


def load(server: Running, requests: int, connections: int) -> None:
    """Send that many requests of all kinds in equal parts; AssertionError for an answer with another status."""
    wires = [Wire(server.port) for _ in range(connections)]
    for data, status in kinds():
        for _ in range(requests // len(kinds()) // connections // AHEAD):
            for wire in wires:
                wire.send(data * AHEAD)
            for wire in wires:
                for _ in range(AHEAD):
                    answer = wire.answer("POST")
                    assert answer is not None
                    assert answer.status == status, answer
    for wire in wires:
        wire.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leaks", description=__doc__)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dragoman-leaks-") as folder:
        model = build.iris(Path(folder) / "iris.onnx")
        with serving(Path(folder), str(model), "--log-level", "warning") as server:
            pid = server.process.pid
            print("| requests | RSS, KiB | descriptors | seconds |\n|---|---|---|---|")
            sizes, open_files, begin, sent = [rss_bytes(pid)], [descriptors(pid)], time.monotonic(), 0
            print(f"| 0 | {sizes[0] >> 10} | {open_files[0]} | |", flush=True)
            for _ in range(options.rounds):
                load(server, options.requests // options.rounds, options.connections)
                sent += options.requests // options.rounds
                time.sleep(0.5)  # until the server has closed its side of the connections
                sizes.append(rss_bytes(pid))
                open_files.append(descriptors(pid))
                print(f"| {sent} | {sizes[-1] >> 10} | {open_files[-1]} | {time.monotonic() - begin:.1f} |", flush=True)
    return 1 if sizes[-1] - sizes[1] > MOST_GROWTH_BYTES or open_files[-1] > max(open_files[:2]) else 0


if __name__ == "__main__":
    sys.exit(main())
