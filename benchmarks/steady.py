"""A constant rate of one request over several connections while something else happens to the server. Used by deploy and tensorflow."""

import http.client
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Steady:
    """Asks from the beginning of its block to the end; `right` looks at the body of every answer of status 200."""

    def __init__(self, port: int, path: str, body: bytes, rate: int, right: Callable[[bytes], bool], connections: int = 4) -> None:
        self.answered = 0
        """Rightly, that is; every other answer is among the failures."""
        self.times: list[float] = []
        self.failures: list[str] = []
        self._port = port
        self._path = path
        self._body = body
        self._right = right
        self._pause_s = connections / rate
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(connections)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        due = time.perf_counter()
        while not self._stopped.is_set():
            begin = time.perf_counter()
            try:
                connection.request("POST", self._path, self._body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
            else:
                self.times.append(time.perf_counter() - begin)
                if answer.status == 200 and self._right(content):
                    self.answered += 1
                else:
                    self.failures.append(content.decode())
            due += self._pause_s
            self._stopped.wait(max(0.0, due - time.perf_counter()))
        connection.close()
