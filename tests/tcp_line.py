"""A line to a server on this machine that breaks when it is told to: for tests of what a client makes of a connection that is lost."""

import contextlib
import socket
import threading
from typing import Self


class Line:
    """Passes on what clients of `port` send to `target` and back. A context manager."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._marker = b""
        self._answered = False
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_at(self, marker: bytes, *, answered: bool) -> None:
        """Break the next connection whose client sends this: before it is passed on, or when it is answered, without the answer."""
        with self._lock:
            self._marker, self._answered = marker, answered

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                silent = threading.Event()
                threading.Thread(target=self._forth, args=(client, server, silent), daemon=True).start()
                threading.Thread(target=self._back, args=(client, server, silent), daemon=True).start()

    def _forth(self, client: socket.socket, server: socket.socket, silent: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                with self._lock:
                    meant = bool(self._marker) and self._marker in data
                    if meant:
                        self._marker = b""
                        self.cuts += 1
                if meant and not self._answered:
                    break
                if meant:
                    silent.set()
                server.sendall(data)
        _close(server, client)

    def _back(self, client: socket.socket, server: socket.socket, silent: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                if silent.is_set():
                    break
                client.sendall(data)
        _close(client, server)


def _close(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
