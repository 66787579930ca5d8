"""Start the real command on a free port and stop it by its process id. Used by every end-to-end test."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

FOREIGN = ("tfserving", "triton", "mlserver")
START_TIMEOUT_S = 90.0
_GRPC = re.compile(r"^gRPC: (\S+)$", re.MULTILINE)
_LISTENING = re.compile(r"listening on (.+?)(?: \(.*\))?$")


@dataclass
class Running:
    """A server process. `lines` is everything that it printed so far."""

    process: "subprocess.Popen[str]"
    lines: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.urls[0]

    @property
    def address(self) -> str:
        """host:port, as tritonclient wants it."""
        return self.url.split("//")[1]

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def grpc(self) -> str:
        """host:port of gRPC, which the banner names below the line that says where it listens."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while (found := _GRPC.search(self.output)) is None:
            assert time.monotonic() < deadline, self.output
            time.sleep(0.01)
        return found[1]

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def terminate(self, timeout_s: float = 60.0) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dragoman", *arguments]


def environment(data_dir: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of this process, with this tree's package first and a data directory of its own."""
    source = str(Path(__file__).parents[2] / "src")
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("DRAGOMAN_")},
        "PYTHONPATH": source,
        "XDG_DATA_HOME": str(data_dir),
        "PYTHONUNBUFFERED": "1",
        **(extra or {}),
    }


@contextmanager
def serving(data_dir: Path, *arguments: str, extra: Mapping[str, str] | None = None, verb: Sequence[str] = ("serve",)) -> Iterator[Running]:
    """`dragoman serve ARGUMENTS` until the block ends; yields when it listens. Port 0 unless the arguments name one. `verb`: another command.

    Commands of other servers name their ports themselves.
    """
    ports = [] if verb[0] in FOREIGN or any(a in ("-p", "--port") for a in arguments) else ["--port", "0"]
    process = subprocess.Popen(
        command(*verb, *arguments, *ports),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(data_dir, extra),
        start_new_session=True,
    )
    running = Running(process)
    printed: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            running.lines.append(line)
            printed.put(line)
        printed.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not running.urls:
            line = printed.get(timeout=max(0.1, deadline - time.monotonic()))
            if line is None:
                raise AssertionError(f"the server ended with {process.wait()} before it listened:\n{running.output}")
            found = _LISTENING.search(line.rstrip())
            if found:
                running.urls = found[1].split(", ")
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        reader.join(10)
        if process.stdout is not None:
            process.stdout.close()


def run(data_dir: Path, *arguments: str, timeout_s: float = 60.0, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    """One command to its end."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=environment(data_dir), timeout=timeout_s, input=stdin)
