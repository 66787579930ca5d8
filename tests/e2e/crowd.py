"""Many clients that ask one server at once, over raw connections, while a test does something to it. Used by the tests of faults."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import requests

from tests.e2e.running import Running
from tests.fuzz.wire import Answer, BrokenAnswerError, Wire

WAIT_S = 60.0
ROW = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [5.0, 3.4, 1.5, 0.2]}]}


def post(path: str, tree: Any, *headers: str) -> bytes:
    """A whole request with a JSON body."""
    body = json.dumps(tree).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def get(path: str, *headers: str) -> bytes:
    """A whole request without a body."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]).encode()


INFER = post("/v2/models/iris/infer", ROW)


def rounds(count: int, **more: Any) -> Any:
    """A request to the model "slow" that takes as long as `count` says: some 30 us for each."""
    return {"inputs": [{"name": "rounds", "shape": [1], "datatype": "INT64", "data": [count]}], **more}


def ask(port: int, data: bytes, method: str = "POST") -> Answer:
    """One request on a connection of its own."""
    wire = Wire(port)
    try:
        wire.send(data)
        answer = wire.answer(method)
    finally:
        wire.close()
    assert answer is not None, "the server closed without an answer"
    return answer


def until(condition: Callable[[], bool], what: str = "the condition never came true") -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def pending(server: Running) -> float:
    """Requests that wait for a model."""
    page = requests.get(f"{server.url}/metrics", timeout=WAIT_S).text
    return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith("dragoman_pending_requests{"))


class Crowd:
    """`clients` threads that send `request` again and again on kept connections until the block ends; a closed connection is made anew.

    `statuses` counts the answers, `errors` keeps what was neither an answer nor a refused connection, `check` may object to an answer.
    """

    def __init__(self, port: int, request: bytes, clients: int = 16, check: Callable[[Answer], None] | None = None) -> None:
        self._port = port
        self._request = request
        self._check = check
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]
        self.statuses: Counter[int] = Counter()
        self.errors: list[str] = []
        self.lost = 0
        """Requests whose connection ended before an answer had begun."""

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())

    def grow(self, by: int) -> None:
        """Wait until so many more have been answered."""
        goal = self.answered + by
        until(lambda: self.answered >= goal or bool(self.errors), "the crowd is not answered any more")

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(WAIT_S)

    def _run(self) -> None:
        wire: Wire | None = None
        try:
            while not self._stop.is_set():
                if wire is None or wire.ended:
                    wire = self._connect(wire)
                    if wire is None:
                        continue
                wire.send(self._request)
                answer = wire.answer("POST")
                with self._lock:
                    if answer is None:
                        self.lost += 1
                    else:
                        self.statuses[answer.status] += 1
                if answer is not None and self._check is not None:
                    self._check(answer)
        except (BrokenAnswerError, AssertionError, KeyError, ValueError) as error:
            self.errors.append(f"{type(error).__name__}: {error}")
        finally:
            if wire is not None:
                wire.close()

    def _connect(self, old: Wire | None) -> Wire | None:
        if old is not None:
            old.close()
        try:
            return Wire(self._port)
        except OSError:  # nobody listens; the test knows whether that is right
            self._stop.wait(0.005)
            return None
