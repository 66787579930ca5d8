"""A small client of FloydHub's API, for tests of what servers do with jobs: it uploads, runs, looks, and asks endpoints."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.web import web

PATIENCE_S = 90.0
ENDED = frozenset({"success", "failed", "shutdown", "timeout"})


@dataclass(frozen=True)
class Hub:
    """One person's account on a server."""

    url: str
    person: str = "ann"

    def call(self, method: str, path: str, **options: Any) -> Any:
        answer = web.request(
            method, f"{self.url}/api/v1{path}", headers={"Authorization": f"apikey {self.person}"}, timeout=60.0, **options
        )
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def run(self, files: dict[str, str], mode: str = "serve", project: str = "x", **wanted: Any) -> "Job":
        """Upload these files and run them."""
        home = self.call("GET", f"/projects/{self.person}/{project}")
        said = {
            "name": f"{self.person}/{project}",
            "family_id": home["id"],
            "mode": mode,
            "module_type": "code",
            "command": wanted.get("full_command"),
        }
        parts = [("code", (f"./{name}", text.encode(), "text/plain")) for name, text in files.items()]
        module = self.call("POST", "/modules/", files=[*parts, ("json", (None, json.dumps(said).encode()))])
        asked = {"name": said["name"], "module_id": module["id"], "family_id": home["id"], **wanted}
        done = self.call("POST", "/experiments/run_module/", content=json.dumps(asked))
        return self.job(done["id"])

    def job(self, identity: str) -> "Job":
        return Job(self, identity, self.call("GET", f"/experiments/{identity}")["name"])


@dataclass(frozen=True)
class Job:
    """One job, looked at anew with every call."""

    hub: Hub
    id: str
    name: str

    def look(self) -> dict[str, Any]:
        found: dict[str, Any] = self.hub.call("GET", f"/experiments/{self.id}")
        return found

    @property
    def state(self) -> str:
        return str(self.look()["state"])

    @property
    def endpoint(self) -> str:
        return str(self.look()["service_url"])

    def log(self) -> str:
        look = self.look()
        answer = web.get(
            f"{self.hub.url}/api/v1/resources/{look['log_id']}?content=true", headers={"Authorization": f"apikey {self.hub.person}"}
        )
        return answer.text

    def stop(self) -> None:
        self.hub.call("GET", f"/experiments/cancel/{self.id}")

    def until(self, *states: str) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while (look := self.look())["state"] not in states:
            assert look["state"] not in ENDED, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)
        return look

    def ask(self, path: str = "", timeout_s: float = 60.0) -> httpx.Response:
        """The first answer that its program gives; until then the endpoint says 503."""
        deadline = time.monotonic() + PATIENCE_S
        endpoint = self.endpoint
        while (answer := web.get(endpoint + path, timeout=timeout_s)).status_code == 503:
            assert time.monotonic() < deadline, f"{answer.text}\n{self.log()}"
            time.sleep(0.05)
        return answer


def alive(folder: Path, job: Job) -> list[int]:
    """The processes of a job, found by where its files are; zombies are gone already."""
    return sorted(pid for pid in _processes() if _belongs(pid, str(folder), job.id))


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def _belongs(pid: int, folder: str, job: str) -> bool:
    """Every process of a job has its id in its environment, or in its command line, or the job's folder mounted."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            if file.read().rpartition(")")[2].split()[0] == "Z":
                return False
        texts = [Path(f"/proc/{pid}/{name}").read_bytes().decode("utf-8", "replace") for name in ("environ", "cmdline", "mountinfo")]
    except OSError:
        return False
    return any(job in text for text in texts)
