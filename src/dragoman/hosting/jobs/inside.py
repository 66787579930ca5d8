"""The first process of a job: starts its program, keeps its limits, opens its gate, and ends when no process of it is left.

Run by __main__.py. Everything happens in one thread, in the loop.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import time
from dataclasses import replace
from typing import Any, Sequence

from dragoman.hosting.jobs import PORT, Orders, orders_from, processes
from dragoman.hosting.jobs.ending import Ending
from dragoman.hosting.jobs.gate import Gate
from dragoman.hosting.jobs.listening import Listening, ports_of
from dragoman.hosting.jobs.log import Log
from dragoman.hosting.jobs.loop import READ, Loop, wake_by_signals
from dragoman.hosting.jobs.program import Program, start
from dragoman.hosting.jobs.second_era import defines_app, serving
from dragoman.hosting.jobs.shimmed import free_port, with_shim
from dragoman.hosting.jobs.usage import Usage

_GONE_S = 0.02
"""Between two looks whether the processes are gone."""
_KILL_S = 30.0
"""A process that not even SIGKILL ends is in the kernel's hands; so long it is waited for."""
_HINT_S = 5.0
"""So long a program may listen elsewhere before the log says that this is not where it is looked for."""
_FILES = 65536
"""Connections at the gate, those who wait among them, if this many may be open."""
_OWN_FILES = 32
_ENDING = frozenset((signal.SIGTERM, signal.SIGINT))


def run(orders_fd: int) -> None:
    """Until the job has ended. Raises ValueError, TypeError or KeyError for what are no orders."""
    with open(orders_fd, "rb") as file:
        orders = orders_from(file.read())
    _keep_all()
    inside = Inside(orders)
    try:
        inside.begin()
        inside.loop.run()
    except Exception as wrong:  # the border of this process: whatever it is, the job gets an ending
        processes.signal_all(signal.SIGKILL)
        inside.finish("lost", 0, f"what watches the job has failed: {type(wrong).__name__}: {wrong}")
        raise


def _keep_all() -> None:
    """Whatever was inherited: the program gets none of it. Others stay open as well, since who started this may wait for their end."""
    for number in [int(name) for name in os.listdir("/proc/self/fd")]:
        with contextlib.suppress(OSError):  # the listing's own is closed already
            if number > 2:
                os.set_inheritable(number, False)


class Inside:
    """One start of a job."""

    def __init__(self, orders: Orders) -> None:
        self.loop = Loop()
        self._orders = orders = orders if orders.port else replace(orders, port=free_port())
        self._limits = orders.limits
        self._log = Log(orders.log, self._limits.log_size)
        self._usage = Usage(self._limits)
        self._ending = Ending(orders.end)
        listener = socket.socket(fileno=orders.gate)
        soft, hard = self._files = resource.getrlimit(resource.RLIMIT_NOFILE)
        files = max(soft, min(hard, _FILES))
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
        abreast = min(self._limits.concurrency, files // 4)
        self._gate = Gate(
            self.loop, listener, abreast, self._facts, self.end, self._refused, self._keep_progress,
            room=max(8, files - abreast - _OWN_FILES),
        )  # fmt: skip
        self._has_endpoint = orders.mode != "command"
        self._listening = Listening(self.loop, orders.port, self._is_mine, self._accepted)
        if orders.mode == "jupyter":
            self._listening.prefix = True  # it is told the endpoint's path when it is started
        self._program: Program | None = None
        self._began = 0.0
        self._unreachable_since = 0.0
        """Since when the program has not accepted connections; 0 while it does."""
        self._was_ready = False
        self._hinted = False
        self._left_alone = False
        """Whether the program has ended well and what it began goes on."""
        self._is_second_era = False
        self._alone = processes.is_alone()
        self._how = ""
        """How it ends, once that is decided."""
        self._code = 0
        self._reason = ""
        self._kill_at = 0.0

    def begin(self) -> None:
        """Starts the program."""
        signal.set_wakeup_fd(wake_by_signals(self.loop, self._signal), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGHUP, *_ENDING):
            signal.signal(number, lambda *_: None)
        if self._alone:
            signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # it is looked who sends them
        processes.adopt_orphans()
        processes.set_open(readable=False)
        processes.leave_keyring()
        file = self._file()
        if file and not os.path.isfile(os.path.join(self._orders.cwd, file)):
            self.finish("exit", 2, f"there is no {file} in the folder of the code, which is what is run in serve mode")
            return
        self._launch(self._orders.argv)
        if not self._how:
            self._look()

    def end(self, grace_s: float, how: str, reason: str) -> None:
        """Ends every process. The first who wants it says how; who comes later can only make it shorter."""
        if not self._how:
            self._how, self._reason = how, reason
            self._listening.stop()
            self._gate.shut("no", reason or "the job is ending", "ending")
            self._kill_at = time.monotonic() + grace_s
            processes.signal_all(signal.SIGTERM if grace_s > 0 else signal.SIGKILL)
            self._wait_for_none(self._kill_at + _KILL_S)
        self._kill_at = min(self._kill_at, time.monotonic() + grace_s)

    def finish(self, how: str, code: int, reason: str) -> None:
        """No process is left: says so, and that was all."""
        self._how = how
        ending = {"how": how, "code": code, "reason": reason, "ran_s": self._ran_s(), "calls": self._gate.calls, "at": time.time()}
        self._ending.final(ending)
        self._gate.ended(ending)
        self.loop.stop()

    # --- the program ---

    def _file(self) -> str:
        """Of serve mode: app.py."""
        last = self._orders.argv[-1]
        return last if self._orders.mode == "serve" and last.endswith(".py") else ""

    def _launch(self, argv: Sequence[str]) -> None:
        orders = self._orders
        environ = with_shim({"PORT": str(PORT), "PYTHONUNBUFFERED": "1", **orders.environ}, orders.port, orders.paths)
        try:
            self._program = start(argv, orders.cwd, environ, self._limits, self._files)
        except OSError as wrong:
            self.finish("exit", 127, f"{wrong.filename or argv[0]} cannot be started: {wrong.strerror}")
            return
        self._began = self._began or time.monotonic()
        self.loop.watch(self._program.output, READ, self._printed)
        if self._has_endpoint:
            self._unreachable_since = time.monotonic()
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
            self._check_left_alone()
        elif number != signal.SIGHUP:
            self.end(self._orders.grace_s, "stopped", "")

    def _exited(self, code: int) -> None:
        """The program has; what it began may still run."""
        assert self._program is not None
        self._code = code
        if self._how:
            return
        self._log.follow(self._program.output)
        if code == 0 and self._has_endpoint:
            self._left_alone = True  # it may have begun its server as a daemon
        else:
            self.end(self._orders.grace_s, "exit", self._why(code))

    def _why(self, code: int) -> str:
        if not code:
            return ""
        reason = f"the program was ended by {processes.signal_name(-code)}" if code < 0 else f"the program ended with exit code {code}"
        if code == -signal.SIGKILL:
            reason += ", by somebody on this machine or because its memory has run out"
        error = self._log.last_error()
        return f"{reason}: {error}" if error else reason

    def _check_left_alone(self) -> None:
        """Once nothing runs that the program may have left behind, its time is over; but a file that defines `app` may want to be served."""
        if self._how or not self._left_alone or processes.members():
            return
        self._left_alone = False
        file = self._file()
        if self._was_ready or not file:
            self.end(0, "exit", "")
        elif not self._is_second_era and defines_app(os.path.join(self._orders.cwd, file)):
            self._is_second_era = True
            self._log.say(f"{file} has ended without listening on port {PORT}, and defines `app`: that is served now.")
            self._leave_output()
            self._launch(serving(self._orders.python, file))
        else:
            self.end(0, "start_timeout", f"{file} ended without having accepted connections on port {PORT}, and defines no `app` to serve")

    def _leave_output(self) -> None:
        assert self._program is not None
        self._log.follow(self._program.output, 1 << 40)
        self.loop.forget(self._program.output)
        os.close(self._program.output)

    def _wait_for_none(self, at_most: float) -> None:
        now = time.monotonic()
        if processes.members() and now < at_most:
            if now >= self._kill_at:
                processes.signal_all(signal.SIGKILL)
            self.loop.after(_GONE_S, lambda: self._wait_for_none(at_most))
            return
        for process, code in processes.reap():
            if self._program is not None and process == self._program.process:
                self._code = code
        if self._program is not None:
            self._leave_output()
        self.finish(self._how, self._code, self._reason)

    # --- its endpoint ---

    def _is_mine(self) -> bool:
        """Where the network is shared, others may listen on the port."""
        port = self._orders.port
        return port == PORT or any(found == port for found, _ in ports_of(processes.members()))

    def _accepted(self, address: tuple[str, int], keeps_prefix: bool) -> None:
        self._unreachable_since, self._was_ready = 0.0, True
        self._gate.open(address, keeps_prefix)

    def _refused(self) -> None:
        self._unreachable_since = time.monotonic()
        self._gate.shut("failed", "the program does not accept connections any more")
        self._listening.ask()

    # --- limits ---

    def _look(self) -> None:
        """Every half second or more often: what is used, and for how long."""
        if self._how:
            return
        self._keep_progress()
        limits, orders, now = self._limits, self._orders, time.monotonic()
        if self._alone and processes.told_from_outside(_ENDING):
            self.end(orders.grace_s, "stopped", "")
            return
        how, reason = self._usage.look()
        silent_s = now - self._unreachable_since if self._unreachable_since else 0.0
        if how:
            self.end(0, how, reason)
        elif limits.max_runtime_s and orders.ran_s + self._ran_s() >= limits.max_runtime_s:
            self.end(orders.grace_s, "timeout", f"it has run for {limits.max_runtime_s:g} s, which is its maximum")
        elif silent_s and limits.start_timeout_s and silent_s >= limits.start_timeout_s:
            within = f"the program has not accepted connections on port {PORT} within {limits.start_timeout_s:g} s"
            self.end(orders.grace_s, "start_timeout", f"{within}; {self._elsewhere() or 'it listens on no port'}")
        elif self._gate.unheld_since is not None and now - self._gate.unheld_since >= orders.orphan_s:
            self.end(orders.grace_s, "orphaned", f"no server has looked after it for {orders.orphan_s:g} s")
        else:
            if silent_s > _HINT_S and not self._hinted and not self._was_ready and (where := self._elsewhere()):
                self._hinted = True
                self._log.say(f"The program does not listen on port {PORT}, where its endpoint is; {where}.")
            self.loop.after(self._usage.again_s, self._look)

    def _elsewhere(self) -> str:
        places = sorted({port for port, _ in ports_of(processes.members())})
        return "it listens on port " + ", ".join(map(str, places)) if places else ""

    def _keep_progress(self) -> None:
        self._ending.progress(self._ran_s(), self._gate.calls)

    def _ran_s(self) -> float:
        return time.monotonic() - self._began if self._began else 0.0

    def _facts(self) -> dict[str, Any]:
        used = self._usage
        return {"ran_s": self._ran_s(), "memory": used.memory, "processes": used.processes, "isolation": self._orders.isolation}
