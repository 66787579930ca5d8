"""Models that come, change and go on disk while clients ask: hot reload of the real command, with one worker and with two.

TensorFlow Serving's layout and list of models, and a Triton repository in poll mode. ONNX files, as they load in milliseconds.
"""

import shutil
from pathlib import Path

import pytest
import requests

from tests.e2e.crowd import Crowd, post, until
from tests.e2e.running import Running, serving
from tests.e2e.test_deployments_workers import CONNECTIONS, scaled

POLL = ("--poll", "0.05")
PREDICT = {"inputs": [1.0]}


def add(base: Path, version: int | str, factor: float) -> Path:
    """A version folder that appears at once, complete, as TensorFlow Serving's users make them."""
    made = scaled(base / f"coming-{version}" / "model.onnx", factor).parent
    return made.rename(base / str(version))


def factors(server: Running, path: str) -> set[float]:
    """What the workers of a server make of 1.0, asked over new connections; an error counts as its status."""
    seen = set()
    for _ in range(CONNECTIONS if "--workers" in server.process.args else 1):  # type: ignore[operator] # a list, as running.py gives it
        reply = requests.post(f"{server.url}/v1/models/{path}:predict", json=PREDICT, timeout=10)
        seen.add(reply.json()["outputs"][0] if reply.ok else -reply.status_code)
    return seen


def states(server: Running, name: str) -> dict[str, str]:
    """Version -> state, as the status of a model tells it."""
    reply = requests.get(f"{server.url}/v1/models/{name}", timeout=10)
    return {each["version"]: each["state"] for each in reply.json().get("model_version_status", [])}


def listed(path: Path, *models: str) -> None:
    """Write a list of models, complete at once."""
    new = path.with_suffix(".new")
    new.write_text(f"model_config_list {{ {' '.join(f'config {{ {model} }}' for model in models)} }}", "utf-8")
    new.replace(path)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_versions_change_under_load_and_no_request_fails(tmp_path: Path, workers: str) -> None:
    """New versions, removed ones and one that is changed in place: every request has the answer of some version that was there."""
    base = tmp_path / "half"
    add(base, 1, 1.0)
    with serving(tmp_path, f"half={base}", *POLL, "--workers", workers) as server:
        with Crowd(server.port, post("/v1/models/half:predict", PREDICT), clients=8) as crowd:
            for version in range(2, 7):
                add(base, version, version)
                until(lambda version=version: factors(server, "half") == {version}, f"version {version} does not come")
            shutil.rmtree(base / "6")
            until(lambda: factors(server, "half") == {5.0}, "version 5 does not come back")
            scaled(base / "5" / "model.onnx", 50.0)
            until(lambda: factors(server, "half") == {50.0}, "the changed version does not come")
            add(base, 6, 60.0)
            until(lambda: factors(server, "half") == {60.0}, "the version that was removed does not come again")
            crowd.grow(200)
        assert (dict(crowd.statuses).keys(), crowd.lost, crowd.errors) == ({200}, 0, [])
        assert "Traceback" not in server.output
