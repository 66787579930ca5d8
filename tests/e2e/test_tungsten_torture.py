"""Everything is killed at random moments under load, and nothing that was answered with an id is lost, or left running for ever."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.e2e.plain import Plain, until
from tests.e2e.running import Running, serving
from tests.models import tungsten_files

CLIENTS = 6
LIVES = 2
KILLS = 3
"""Of processes below the server, in each of its lives; it is killed itself in the end. Five of one model would be a crash loop."""
REASONS = (
    "stopped while it ran",
    "keeper of the model processes is gone",
    "model process ended",
    "Canceled",
    "connection to the model process",
    "SubprocessTerminated",
)


def children(pid: int) -> dict[int, bytes]:
    """Process id -> command line of what a process has started, and what that has."""
    found: dict[int, bytes] = {}
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            try:
                found[int(child)] = Path(f"/proc/{child}/cmdline").read_bytes()
                found |= children(int(child))
            except OSError:  # it has ended meanwhile
                continue
    return found


class Load:
    """Clients that submit, poll, wait and cancel until the block ends; a server that is away is asked again."""

    def __init__(self, port: int, seed: str) -> None:
        self._port = port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(Random(f"{seed} {number}"), number)) for number in range(CLIENTS)]
        self.accepted: dict[str, str] = {}
        """Id -> prompt."""
        self.cancelled: set[str] = set()
        self.statuses: Counter[int] = Counter()
        self.wrong: list[str] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(60)

    def _run(self, rng: Random, number: int) -> None:
        client = Plain(self._port)
        count = 0
        while not self._stop.is_set():
            count += 1
            prompt = f"{rng.choice(('', 'sleep 0.001;', 'sleep 0.01;', 'sleep 0.05;'))} n {number} {count}".strip()
            try:
                self._ask(client, prompt, rng)
            except (OSError, EOFError, ValueError):  # it was killed
                self._stop.wait(0.01)
            except Exception as error:
                if "http.client" in type(error).__module__:
                    self._stop.wait(0.01)
                    continue
                self.wrong.append(repr(error))
                return

    def _ask(self, client: Plain, prompt: str, rng: Random) -> None:
        if rng.random() < 0.3:
            reply = client.post("/predict", [{"prompt": prompt}])
            self.statuses[reply.status] += 1
            if reply.status == 200:
                answer = reply.json()
                if answer["status"] == "success" and answer["outputs"][0]["text"] != prompt:
                    self.wrong.append(f"{prompt!r} was answered with {answer}")
            return
        reply = client.post("/predictions", [{"prompt": prompt}])
        self.statuses[reply.status] += 1
        if reply.status != 200:
            return
        key = reply.json()["prediction_id"]
        self.accepted[key] = prompt
        if rng.random() < 0.15:
            self.cancelled.add(key)
            client.post(f"/predictions/{key}/cancel")
        elif rng.random() < 0.5:
            client.get(f"/predictions/{key}?wait={rng.choice((0, 0.1, 5))}")


def victims(server: Running) -> list[int]:
    """Workers and model processes, by how they were started."""
    return [pid for pid, line in children(server.process.pid).items() if b"dragoman.server.child" in line or b"hosting.host" in line]


@pytest.mark.parametrize(("seed", "workers"), [(1, "2"), (2, "1")])
def test_random_kills_lose_nothing(tmp_path: Path, seed: int, workers: str) -> None:
    """Workers, the model process and the whole server, again and again; then every id has its end, and the end is the right one."""
    rng = Random(seed)
    model = tungsten_files.write_talker(tmp_path / "talker")
    arguments = (str(model), "--workers", workers)
    accepted: dict[str, str] = {}
    cancelled: set[str] = set()
    for life in range(LIVES):
        with serving(tmp_path / "data", *arguments) as server:
            load = Load(server.port, f"{seed} {life}")
            with load.running():
                for _ in range(KILLS):
                    time.sleep(rng.uniform(0.1, 0.8))
                    below = victims(server)
                    if below:
                        os.kill(rng.choice(sorted(below)), rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
                goal = len(load.accepted) + 20
                until(lambda load=load, goal=goal: len(load.accepted) >= goal or bool(load.wrong), what="more predictions")  # type: ignore[misc]
                below = list(children(server.process.pid))
                server.process.send_signal(signal.SIGKILL)
                server.process.wait(30)
        assert not load.wrong
        assert set(load.statuses) <= {200, 503}, load.statuses
        until(lambda below=below: not any(Path(f"/proc/{pid}").exists() for pid in below), what="the end of all processes")  # type: ignore[misc]
        accepted |= load.accepted
        cancelled |= load.cancelled
    with serving(tmp_path / "data", *arguments) as server:
        client = Plain(server.port)
        ends: Counter[str] = Counter()
        for key, prompt in accepted.items():
            end = until(lambda key=key: ended(client, key), what=f"the end of {key}")  # type: ignore[misc]
            ends[end["status"]] += 1
            if end["status"] == "success":
                assert end["outputs"][0]["text"] == prompt
            else:
                assert any(reason in end["error_message"] for reason in REASONS), end
                assert key in cancelled or end["error_message"] != "Canceled"
        assert ends["success"] > len(accepted) / 2, ends
        assert not [line for line in server.lines if "Traceback" in line]


def ended(client: Plain, key: str) -> dict[str, Any] | None:
    reply = client.get(f"/predictions/{key}")
    assert reply.status == 200, f"{key} is lost: {reply.body!r}"
    answer: dict[str, Any] = reply.json()
    return answer if answer["status"] in ("success", "failed") else None
