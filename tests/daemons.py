"""Servers of other people that tests start on a free port of the loopback: PostgreSQL and message brokers.

Each is ended by its process id when the tests are over; should the tests be killed, the kernel ends it.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from dragoman.core.model import EMPTY

START_S = 60.0
_LIBC = ctypes.CDLL(None)


def end_with_parent(how: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """To be run in a child before it becomes the program: the kernel sends it this signal when the thread that started it ends."""

    def prepare() -> None:
        if sys.platform == "linux":
            _LIBC.prctl(1, how)  # PR_SET_PDEATHSIG

    return prepare


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


class Daemon:
    """One program that is started again on the same port as often as a test wants. What it prints is kept in `log`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        ready: Callable[[], bool],
        environment: Mapping[str, str] = EMPTY,
        *,
        crash: signal.Signals = signal.SIGKILL,
        options: Mapping[str, Any] = EMPTY,
    ) -> None:
        """`crash` is the signal that leaves nothing running, `options` go to Popen."""
        self._name = name
        self._command = command
        self._log = log
        self._ready = ready
        self._environment = dict(environment)
        self._crash = crash
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it is ready."""
        started: Future[subprocess.Popen[bytes]] = Future()
        threading.Thread(target=self._run, args=(started,), name=self._name, daemon=True).start()
        self._process = started.result(START_S)
        deadline = time.monotonic() + START_S
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{self._name} did not start:\n{self._log.read_text(errors='replace')}")
            time.sleep(0.02)

    def _run(self, started: "Future[subprocess.Popen[bytes]]") -> None:
        """In a thread that lives as long as the program does: when a thread ends, the kernel ends what it has started."""
        try:
            with self._log.open("ab") as log:
                process = subprocess.Popen(
                    self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=end_with_parent(self._crash),
                    env={**os.environ, **self._environment}, **self._options,
                )  # fmt: skip
        except BaseException as error:
            started.set_exception(error)
            raise
        started.set_result(process)
        process.wait()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """SIGTERM ends it in order, SIGKILL is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_S)
            self._process = None

    def freeze(self) -> None:
        """From here on it holds its connections and says nothing, until `thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
