"""One thread that waits for descriptors and times: all that the first process of a job does. Smaller and faster to start than asyncio."""

from __future__ import annotations

import errno
import heapq
import os
import selectors
import socket
import time
from typing import Callable

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class Timer:
    """Calls back once, unless it is cancelled before."""

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when


class Loop:
    """Callbacks run one after another and must not wait."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[Timer] = []
        self._running = True

    def watch(self, source: socket.socket | int, events: int, callback: Callable[[], None]) -> None:
        """Again for the same source: changes what it is watched for. Events 0: no more."""
        number = source if isinstance(source, int) else source.fileno()
        known = number in self._selector.get_map()
        if not events:
            if known:
                self._selector.unregister(number)
        elif known:
            self._selector.modify(number, events, callback)
        else:
            self._selector.register(number, events, callback)

    def forget(self, source: socket.socket | int) -> None:
        """Before it is closed."""
        self.watch(source, 0, self.stop)

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(time.monotonic() + seconds, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def run(self) -> None:
        """Until `stop`."""
        while self._running:
            now = time.monotonic()
            while self._timers and self._timers[0].when <= now:
                callback = heapq.heappop(self._timers).callback
                if callback is not None:
                    callback()
            if not self._running:
                return
            wait = max(0.0, self._timers[0].when - time.monotonic()) if self._timers else None
            for key, _ in self._selector.select(wait):
                if self._selector.get_map().get(key.fd) is key:  # an earlier callback may have forgotten it
                    key.data()

    def stop(self) -> None:
        self._running = False

    def connect(
        self, address: tuple[str, int], timeout_s: float, done: Callable[[socket.socket | None], None]
    ) -> Callable[[], None] | None:
        """Reaches a TCP address; `done` gets the connected socket, which does not block, or None. What is returned gives it up, None: it is
        over already."""
        try:
            sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
        except OSError:  # no IPv6
            done(None)
            return None
        sock.setblocking(False)
        failed = sock.connect_ex(address)
        if failed != errno.EINPROGRESS:
            if failed:
                sock.close()
            done(None if failed else sock)
            return None

        def over(keep: bool) -> None:
            timer.cancel()
            self.forget(sock)
            if not keep:
                sock.close()

        def settled() -> None:
            fine = not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            over(keep=fine)
            done(sock if fine else None)

        def late() -> None:
            over(keep=False)
            done(None)

        timer = self.after(timeout_s, late)
        self.watch(sock, WRITE, settled)
        return lambda: over(keep=False) if timer.callback is not None else None


def wake_by_signals(loop: Loop, callback: Callable[[int], None]) -> int:
    """Calls back in the loop with the number of each signal that has a handler; the descriptor is for signal.set_wakeup_fd."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)

    def read() -> None:
        try:
            numbers = os.read(reader, 512)
        except BlockingIOError:
            return
        for number in sorted(set(numbers)):
            callback(number)

    loop.watch(reader, READ, read)
    return writer
