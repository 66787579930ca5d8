"""The gate of a job: who may pass a request to its program, in which order, and what is seen from outside. The protocol is in __init__.py.

Knows nothing of processes and limits: inside.py opens and shuts it.
"""

from __future__ import annotations

import array
import contextlib
import json
import socket
import time
from collections import deque
from functools import partial
from typing import Any, Callable, Mapping

from dragoman.hosting.jobs.loop import READ, WRITE, Loop

_LINE = 65536
_BACKLOG = 1 << 20
"""Bytes that somebody may leave unread before the connection is given up."""
_CONNECT_S = 10.0
_NOT_CLOSED = (4, 5)
"""States of TCP in which only this side has closed: FIN_WAIT1, FIN_WAIT2."""
_POLL_S = 0.05
_CLOSES_S = 0.02
"""How long a program has that has answered, to close its side by itself, before it is hung up on."""
_PIECES = 256
"""What a connection may hold, in pieces of _LINE."""


class _Caller:
    """One connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.read = b""
        self.unsent: deque[tuple[bytes, socket.socket | None]] = deque()
        self.waits = False
        """In the queue."""
        self.passes = False
        """Has a permit, or is being connected for one."""
        self.holds = False
        self.lasts = False
        """Speaks another protocol with the program: not a request any more, but somebody who is there."""
        self.app: socket.socket | None = None
        """Its connection to the program, which it has been given, too."""
        self.give_up: Callable[[], None] | None = None
        """Ends the attempt to reach the program."""


class Gate:
    """Shut until `open`. `facts` are the fields of Seen that others know; `refused` is called when the program does not accept any more."""

    def __init__(
        self,
        loop: Loop,
        listener: socket.socket,
        concurrency: int,
        facts: Callable[[], Mapping[str, Any]],
        stop: Callable[[float, str, str], None],
        refused: Callable[[], None],
        counted: Callable[[], None] = lambda: None,
        room: int = 65536,
        linger_s: float = 60.0,
    ) -> None:
        """`counted` is called with every permit. `room`: connections at a time; others wait until they are accepted. `linger_s`: how long a
        program may go on with a request whose sender has hung up, before the next one is passed all the same."""
        self._loop = loop
        self._listener = listener
        self._concurrency = max(1, concurrency)
        self._facts = facts
        self._stop = stop
        self._refused = refused
        self._counted = counted
        self._room = room
        self._linger_s = linger_s
        self._lingering: set[socket.socket] = set()
        self._callers: set[_Caller] = set()
        self._queue: deque[_Caller] = deque()
        self._busy = 0
        self._calls = 0
        self._address: tuple[str, int] | None = None
        self._keeps_prefix = False
        self._shut: dict[str, Any] = {"answer": "no", "state": "starting", "reason": ""}
        self._idle_since = 0.0
        self.unheld_since: float | None = time.monotonic()
        """Since when nobody holds it; None while somebody does."""
        listener.setblocking(False)
        loop.watch(listener, READ, self._accept)

    @property
    def calls(self) -> int:
        return self._calls

    def open(self, address: tuple[str, int], keeps_prefix: bool) -> None:
        """The program accepts connections there."""
        self._address, self._keeps_prefix = address, keeps_prefix
        self._idle_since = time.monotonic()
        self._tell_holders()

    def shut(self, answer: str, reason: str, state: str = "") -> None:
        """No permits from now on: those who wait are told why, those who have one go on."""
        was_open, self._address = self._address is not None, None
        self._shut = {"answer": answer, "reason": reason}
        if state:
            self._shut["state"] = state
        queue, self._queue = self._queue, deque()
        for caller in queue:
            caller.waits = False
            self._refuse(caller)
        if was_open:
            self._tell_holders()

    def ended(self, ending: Mapping[str, Any]) -> None:
        """The last word to those who hold it; then nobody is connected any more."""
        for caller in [c for c in self._callers if c.holds]:
            self._say(caller, {"answer": "ended", **ending})
        for caller in list(self._callers):
            self._drop(caller)
        for app in self._lingering:
            self._loop.forget(app)
            self._hang_up(app)
            app.close()
        self._lingering.clear()
        self._loop.forget(self._listener)
        self._listener.close()

    def seen(self) -> dict[str, Any]:
        """The fields of core.jobs.Seen."""
        ready = self._address is not None
        idle_s = time.monotonic() - self._idle_since if ready and not self._occupied else 0.0
        return {
            "ready": ready,
            "keeps_prefix": self._keeps_prefix,
            "waiting": len(self._queue),
            "busy": self._busy,
            "calls": self._calls,
            "idle_s": idle_s,
            **self._facts(),
        }

    @property
    def _occupied(self) -> bool:
        return bool(self._busy or self._queue) or any(caller.lasts for caller in self._callers)

    # --- connections ---

    def _accept(self) -> None:
        for _ in range(min(64, self._room - len(self._callers))):
            try:
                sock, _address = self._listener.accept()
            except OSError:  # nobody else is there; or who was has gone
                return
            sock.setblocking(False)
            caller = _Caller(sock)
            self._callers.add(caller)
            if len(self._callers) == self._room:
                self._loop.forget(self._listener)
            self._loop.watch(sock, READ, partial(self._receive, caller))

    def _receive(self, caller: _Caller) -> None:
        try:
            piece = caller.sock.recv(_LINE)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._drop(caller)
            return
        *lines, caller.read = (caller.read + piece).split(b"\n")
        for line in lines:
            if caller in self._callers and not self._answer(caller, line):
                self._drop(caller)
        if len(caller.read) > _LINE:
            self._drop(caller)

    def _answer(self, caller: _Caller, line: bytes) -> bool:
        """False: this is not the protocol."""
        try:
            question = json.loads(line)
            ask = question["ask"]
            if ask == "stop":
                grace_s, how, reason = float(question["grace_s"]), str(question["how"]), str(question["reason"])
        except (ValueError, TypeError, KeyError, RecursionError):
            return False
        if ask == "permit":
            if caller.waits or caller.passes:
                return False
            self._ask_permit(caller)
        elif ask == "done":
            self._give_back(caller)
        elif ask == "last":
            if not caller.passes or caller.app is None:
                return False
            caller.passes, caller.lasts = False, True
            self._free()
        elif ask == "look":
            self._say(caller, {"answer": "seen", **self.seen()})
        elif ask == "hold":
            caller.holds = True
            self.unheld_since = None
            self._say(caller, {"answer": "seen", **self.seen()})
        elif ask == "stop" and how == "idle" and self._occupied:
            self._say(caller, {"answer": "busy"})
        elif ask == "stop":
            self._say(caller, {"answer": "stopping"})
            self._stop(grace_s, how, reason)
        else:
            return False
        return True

    def _say(self, caller: _Caller, answer: Mapping[str, Any], beside: socket.socket | None = None) -> None:
        caller.unsent.append((json.dumps(answer).encode() + b"\n", beside))
        self._send(caller)

    def _send(self, caller: _Caller) -> None:
        while caller.unsent:
            line, beside = caller.unsent[0]
            rights = [] if beside is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [beside.fileno()]))]
            try:
                sent = caller.sock.sendmsg([line], rights, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                break
            except OSError:
                self._loop.after(0, lambda: self._drop(caller))  # not now: who says something is in the middle of it
                return
            caller.unsent.popleft()
            if sent < len(line):
                caller.unsent.appendleft((line[sent:], None))
        if sum(len(line) for line, _ in caller.unsent) > _BACKLOG:
            self._loop.after(0, lambda: self._drop(caller))
            return
        events = READ | WRITE if caller.unsent else READ
        self._loop.watch(caller.sock, events, lambda: self._move(caller))

    def _move(self, caller: _Caller) -> None:
        if caller.unsent:
            self._send(caller)
        if caller in self._callers:
            self._receive(caller)

    def _drop(self, caller: _Caller) -> None:
        if caller not in self._callers:
            return
        if len(self._callers) == self._room:
            self._loop.watch(self._listener, READ, self._accept)
        self._callers.discard(caller)
        self._loop.forget(caller.sock)
        caller.sock.close()
        if caller.waits:
            caller.waits = False
            self._queue.remove(caller)
        if caller.lasts and caller.app is not None:
            self._hang_up(caller.app)
            caller.app.close()
            self._idle_since = time.monotonic()
        self._give_back(caller)
        if caller.holds and not any(c.holds for c in self._callers):
            self.unheld_since = time.monotonic()

    def _tell_holders(self) -> None:
        for caller in [c for c in self._callers if c.holds]:
            self._say(caller, {"answer": "seen", **self.seen()})

    # --- permits ---

    def _ask_permit(self, caller: _Caller) -> None:
        if self._address is None:
            self._refuse(caller)
            return
        ahead = self._busy + len(self._queue)
        caller.waits = True
        self._queue.append(caller)
        if ahead >= self._concurrency:
            self._say(caller, {"answer": "wait", "ahead": ahead})
        self._grant()

    def _grant(self) -> None:
        while self._queue and self._busy < self._concurrency and self._address is not None:
            caller = self._queue.popleft()
            caller.waits, caller.passes = False, True
            self._busy += 1
            self._reach(caller, self._address)

    def _reach(self, caller: _Caller, address: tuple[str, int]) -> None:
        def reached(sock: socket.socket | None) -> None:
            caller.give_up = None  # nothing is left to give up
            if sock is not None:
                self._calls += 1
                self._counted()
                caller.app = sock
                self._say(caller, {"answer": "go", "prefix": "keep" if self._keeps_prefix else "strip"}, sock)
                return
            self._say(caller, {"answer": "failed", "reason": "the program does not accept connections any more"})
            caller.passes = False
            self._busy -= 1
            if self._address is not None:
                self._refused()

        caller.give_up = self._loop.connect(address, _CONNECT_S, reached)

    def _refuse(self, caller: _Caller) -> None:
        answer = dict(self._shut)
        if answer["answer"] == "no":
            answer["ran_s"] = self._facts()["ran_s"]
        self._say(caller, answer)

    def _give_back(self, caller: _Caller) -> None:
        if not caller.passes:
            return
        if caller.give_up is not None:
            caller.give_up()
            caller.give_up = None
        caller.passes = False
        app, caller.app = caller.app, None
        if app is None:
            self._free()
            return
        if self._drained(app):
            self._let_go_of(app)
            return
        self._lingering.add(app)

        def hang_up() -> None:
            if app in self._lingering:
                self._loop.forget(app)
                self._hang_up(app)
                self._let_go(app, 0.001, time.monotonic() + self._linger_s)

        def moved() -> None:
            timer.cancel()
            if self._drained(app):
                self._loop.forget(app)
                self._let_go_of(app)
            else:
                hang_up()

        timer = self._loop.after(_CLOSES_S, hang_up)
        self._loop.watch(app, READ, moved)

    @staticmethod
    def _drained(app: socket.socket) -> bool:
        """Whether the program has closed its side, or is gone. What nobody has read is dropped: it may wait for room to go on."""
        try:
            return any(not app.recv(_LINE) for _ in range(_PIECES))
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _hang_up(self, app: socket.socket) -> None:
        """A program that goes on to write hears so from now on."""
        self._drained(app)
        with contextlib.suppress(OSError):  # the program has hung up already
            app.shutdown(socket.SHUT_RDWR)

    def _let_go(self, app: socket.socket, wait_s: float, at_most: float) -> None:
        """Waits for the program to close its side, or to write to nobody: until then it may be at work for a sender who did not wait for it."""
        if app not in self._lingering:
            return
        if _is_at_work(app) and time.monotonic() < at_most:
            self._loop.after(wait_s, lambda: self._let_go(app, min(2 * wait_s, _POLL_S), at_most))
            return
        self._let_go_of(app)

    def _let_go_of(self, app: socket.socket) -> None:
        self._lingering.discard(app)
        app.close()
        self._free()

    def _free(self) -> None:
        self._busy -= 1
        self._idle_since = time.monotonic()
        self._grant()


def _is_at_work(app: socket.socket) -> bool:
    """Whether the program has not closed a connection that we have shut, and does not write to it either: closing it now breaks that off."""
    if app.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] not in _NOT_CLOSED:
        return False
    try:
        return not app.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return False
