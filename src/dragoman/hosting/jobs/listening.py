"""Whether the program accepts connections, whether it wants the endpoint's path in front, and which ports it listens on instead.

Only asks for OPTIONS, which runs no user code in Flask (requirement F13).
"""

from __future__ import annotations

import os
import socket
from typing import Callable

from dragoman.hosting.jobs.loop import READ, Loop

_LISTENS = "0A"
_DEEP = "/expose/0000000000000000"
"""No endpoint is called so."""


class Listening:
    """Asks until the program accepts, then how it wants its paths; `accepted(address, keeps_prefix)` is called once per `ask`."""

    def __init__(
        self, loop: Loop, port: int, mine: Callable[[], bool], accepted: Callable[[tuple[str, int], bool], None], probe_s: float = 5.0
    ) -> None:
        """`mine`: whether it is really the program that listens there, where others could. `probe_s`: how long an answer may take."""
        self._loop = loop
        self._addresses = (("127.0.0.1", port), ("::1", port))
        self._mine = mine
        self._accepted = accepted
        self._probe_s = probe_s
        self._wait_s = 0.0
        self.prefix: bool | None = None
        """Set: known without asking. Kept from one `ask` to the next."""
        self._asking = 0

    def ask(self) -> None:
        """Asks from now on, more and more seldom. Again: begins anew."""
        self._asking += 1
        self._wait_s = 0.01
        self._try(0, self._asking)

    def stop(self) -> None:
        self._asking += 1

    def _try(self, which: int, asking: int) -> None:
        if asking != self._asking:
            return
        address = self._addresses[which]

        def reached(sock: socket.socket | None) -> None:
            if asking != self._asking:
                if sock is not None:
                    sock.close()
            elif sock is not None and self._mine():
                if self.prefix is None:
                    self._options(sock, "/", lambda status: self._first(address, status))
                else:
                    sock.close()
                    self._accepted(address, self.prefix)
            else:
                if sock is not None:
                    sock.close()
                self._later(which, asking)

        self._loop.connect(address, self._probe_s, reached)

    def _later(self, which: int, asking: int) -> None:
        if which + 1 < len(self._addresses):
            self._try(which + 1, asking)
            return
        self._wait_s = min(0.25, self._wait_s * 1.2)
        self._loop.after(self._wait_s, lambda: self._try(0, asking))

    def _first(self, address: tuple[str, int], status: int) -> None:
        """Without `/` there may be a route for every path, as in the first apps, or only some, as in later ones: a path nobody has tells."""
        if status != 404:
            self._decide(address, keeps=False)
            return

        def reached(sock: socket.socket | None) -> None:
            if sock is None:
                self._decide(address, keeps=True)
            else:
                self._options(sock, _DEEP, lambda status: self._decide(address, keeps=status != 404))

        self._loop.connect(address, self._probe_s, reached)

    def _decide(self, address: tuple[str, int], keeps: bool) -> None:
        self.prefix = keeps
        self._accepted(address, keeps)

    def _options(self, sock: socket.socket, path: str, told: Callable[[int], None]) -> None:
        """The status, 0 when there is none in time. The rest of the reply is read, too: a program may not like to be left."""
        head = b""
        known = False

        def tell(status: int) -> None:
            nonlocal known
            if not known:
                known = True
                told(status)

        def over() -> None:
            timer.cancel()
            self._loop.forget(sock)
            sock.close()
            tell(0)

        def receive() -> None:
            nonlocal head
            try:
                piece = sock.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                piece = b""
            if not piece:
                over()
                return
            if not known:
                head += piece
                if b"\r\n" in head or len(head) > 1024:
                    tell(_status(head))

        timer = self._loop.after(self._probe_s, over)
        self._loop.watch(sock, READ, receive)
        try:
            sock.send(b"OPTIONS %s HTTP/1.1\r\nHost: localhost:5000\r\nConnection: close\r\n\r\n" % path.encode(), socket.MSG_NOSIGNAL)
        except OSError:
            over()


def _status(head: bytes) -> int:
    words = head.split(b"\r\n")[0].split()
    return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit() else 0


def ports_of(processes: list[int]) -> list[tuple[int, str]]:
    """Port and address of every TCP socket that these processes listen on."""
    inodes = set()
    for process in processes:
        folder = f"/proc/{process}/fd"
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            try:
                target = os.readlink(folder + "/" + name)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            with open("/proc/self/net/" + table) as file:
                rows = [line.split() for line in file][1:]
        except OSError:
            continue
        found |= {_place(row[1]) for row in rows if len(row) > 9 and row[3] == _LISTENS and row[9] in inodes}
    return sorted(found)


def _place(text: str) -> tuple[int, str]:
    """0100007F:1388 -> 5000, 127.0.0.1: words of four bytes in the machine's own order."""
    address, _, port = text.partition(":")
    words = [int(address[i : i + 8], 16).to_bytes(4, "little") for i in range(0, len(address), 8)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return int(port, 16), socket.inet_ntop(family, b"".join(words))
