"""The first process of a job: starts its program, keeps its limits, opens its gate, and ends when no process of it is left.

Run by __main__.py. Everything happens in one thread, in the loop.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import zlib
from typing import Any, Sequence

from dragoman.hosting.jobs import Orders, orders_from, processes
from dragoman.hosting.jobs.gate import Gate
from dragoman.hosting.jobs.listening import Listening, ports_of
from dragoman.hosting.jobs.log import Log
from dragoman.hosting.jobs.loop import READ, Loop, wake_by_signals
from dragoman.hosting.jobs.program import Program, start

_LOOK_S = 0.5
"""Between two looks at what all processes of the job use."""
_GONE_S = 0.02
"""Between two looks whether they are gone."""
_KILL_S = 30.0
"""A process that not even SIGKILL ends is in the kernel's hands; so long it is waited for."""


def run(orders_fd: int) -> None:
    """Until the job has ended. Raises ValueError, TypeError or KeyError for what are no orders."""
    with open(orders_fd, "rb") as file:
        orders = orders_from(file.read())
    for number in (orders.gate, orders.log, orders.end):
        os.set_inheritable(number, False)
    inside = Inside(orders)
    try:
        inside.begin()
        inside.loop.run()
    except Exception as wrong:  # the border of this process: whatever it is, the job gets an ending
        processes.signal_all(signal.SIGKILL)
        inside.finish("lost", 0, f"what watches the job has failed: {type(wrong).__name__}: {wrong}")
        raise


class Inside:
    """One start of a job."""

    def __init__(self, orders: Orders) -> None:
        self.loop = Loop()
        self._orders = orders
        self._limits = orders.limits
        self._log = Log(orders.log, self._limits.log_size)
        self._gate = Gate(
            self.loop,
            socket.socket(fileno=orders.gate),
            self._limits.concurrency,
            self._facts,
            self.end,
            self._refused,
        )
        self._has_endpoint = orders.mode != "command"
        self._port = orders.port
        self._listening = Listening(self.loop, self._port, lambda: True, self._accepted)
        if orders.mode == "jupyter":
            self._listening.prefix = True
        self._program: Program | None = None
        self._began = 0.0
        self._accepts_since = 0.0
        """Since when the program has not accepted connections, or 0."""
        self._was_ready = False
        self._memory = 0
        self._count = 0
        self._how = ""
        """How it ends, once that is decided."""
        self._code = 0
        self._reason = ""
        self._kill_at = 0.0

    def begin(self) -> None:
        """Starts the program."""
        signal.set_wakeup_fd(wake_by_signals(self.loop, self._signal), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        processes.adopt_orphans()
        processes.set_open(readable=False)
        self._launch(self._orders.argv)
        if self._program is not None:
            self._look()

    def end(self, grace_s: float, how: str, reason: str) -> None:
        """Ends every process. The first who wants it says how; who comes later can only make it shorter."""
        if not self._how:
            self._how, self._reason = how, reason
            self._listening.stop()
            self._gate.shut("no", reason or "the job is ending", "ending")
            self._kill_at = time.monotonic() + grace_s
            processes.signal_all(signal.SIGTERM)
            self._wait_for_none(time.monotonic() + grace_s + _KILL_S)
        self._kill_at = min(self._kill_at, time.monotonic() + grace_s)

    def finish(self, how: str, code: int, reason: str) -> None:
        """No process is left: says so, and that was all."""
        ending = {"how": how, "code": code, "reason": reason, "ran_s": self._ran_s(), "calls": self._gate.calls, "at": time.time()}
        os.write(self._orders.end, json.dumps(ending).encode() + b"\n")
        os.fsync(self._orders.end)
        self._gate.ended(ending)
        self.loop.stop()

    # --- the program ---

    def _launch(self, argv: Sequence[str]) -> None:
        environ = {"PORT": "5000", "PYTHONUNBUFFERED": "1", **self._orders.environ}
        spread = zlib.crc32(self._orders.cwd.encode() + str(os.getpid()).encode())
        try:
            self._program = start(argv, self._orders.cwd, environ, self._limits, spread)
        except OSError as wrong:
            self.finish("exit", 127, f"{wrong.filename} cannot be started: {wrong.strerror}")
            return
        self._began = self._began or time.monotonic()
        self.loop.watch(self._program.output, READ, self._printed)
        if self._has_endpoint:
            self._accepts_since = time.monotonic()
            self._gate.shut("no", "the program does not accept connections yet", "starting")
            self._listening.ask()

    def _printed(self) -> None:
        assert self._program is not None
        if not self._log.follow(self._program.output):
            self.loop.forget(self._program.output)

    def _signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            for process, code in processes.reap():
                if self._program is not None and process == self._program.process:
                    self._exited(code)
        elif number != signal.SIGHUP:
            self.end(self._orders.grace_s, "stopped", "")

    def _exited(self, code: int) -> None:
        """The program has; what it began may still run."""
        if self._how:
            self._code = code
            return
        reason = ""
        if code < 0:
            reason = f"the program was ended by {processes.signal_name(-code)}"
        elif code:
            reason = f"the program ended with exit code {code}"
        self._log.follow(self._program.output if self._program else -1)
        if reason and self._log.last_error():
            reason += ": " + self._log.last_error()
        self._code = code
        self.end(self._orders.grace_s, "exit", reason)

    def _wait_for_none(self, at_most: float) -> None:
        left = processes.members()
        now = time.monotonic()
        if left and now < at_most:
            if now >= self._kill_at:
                processes.signal_all(signal.SIGKILL)
            self.loop.after(_GONE_S, lambda: self._wait_for_none(at_most))
            return
        for process, code in processes.reap():
            if self._program is not None and process == self._program.process:
                self._code = code
        if self._program is not None:
            self._log.follow(self._program.output, 1 << 40)
        self.finish(self._how, self._code, self._reason)

    # --- its endpoint ---

    def _accepted(self, address: tuple[str, int], keeps_prefix: bool) -> None:
        self._accepts_since, self._was_ready = 0.0, True
        self._gate.open(address, keeps_prefix)

    def _refused(self) -> None:
        self._accepts_since = time.monotonic()
        self._gate.shut("failed", "the program does not accept connections any more")
        self._listening.ask()

    # --- limits ---

    def _look(self) -> None:
        """Twice a second: what is used, and for how long."""
        if self._how:
            return
        now, limits, orders = time.monotonic(), self._limits, self._orders
        found = processes.members()
        self._count, self._memory = len(found), processes.resident(found)
        if limits.memory and self._memory > limits.memory:
            used = processes.proportional(found)
            if used > limits.memory:
                self.end(0, "memory", f"it used {_size(used)} of memory; {_size(limits.memory)} are allowed")
                return
        if limits.processes and self._count > limits.processes:
            self.end(0, "processes", f"it ran {self._count} processes at once; {limits.processes} are allowed")
        elif limits.max_runtime_s and orders.ran_s + self._ran_s() >= limits.max_runtime_s:
            self.end(orders.grace_s, "timeout", f"it has run for {limits.max_runtime_s:g} s, its maximum")
        elif self._accepts_since and limits.start_timeout_s and now - self._accepts_since >= limits.start_timeout_s:
            self.end(orders.grace_s, "start_timeout", self._unreachable(found))
        elif self._gate.unheld_since is not None and now - self._gate.unheld_since >= orders.orphan_s:
            self.end(orders.grace_s, "orphaned", f"no server has looked after it for {orders.orphan_s:g} s")
        else:
            self.loop.after(_LOOK_S, self._look)

    def _unreachable(self, found: list[int]) -> str:
        text = f"the program has not accepted connections on port 5000 within {self._limits.start_timeout_s:g} s"
        others = ", ".join(f"{port} ({address})" for port, address in ports_of(found))
        return text + ("; it listens on port " + others if others else "; it listens on no port")

    def _ran_s(self) -> float:
        return time.monotonic() - self._began if self._began else 0.0

    def _facts(self) -> dict[str, Any]:
        return {"ran_s": self._ran_s(), "memory": self._memory, "processes": self._count, "isolation": self._orders.isolation}


def _size(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"
