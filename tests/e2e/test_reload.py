"""Models that come, change and go on disk while clients ask: hot reload of the real command, with one worker and with two.

TensorFlow Serving's layout and list of models, and a Triton repository in poll mode. ONNX files, as they load in milliseconds.
"""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests

from dragoman.proto.messages import message_class, new, parse_text
from tests.e2e.crowd import Crowd, post, until
from tests.e2e.running import Running, run, serving
from tests.e2e.test_deployments_workers import CONNECTIONS, scaled
from tests.e2e.test_tfserving_grpc import grpc_address

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


def answers(server: Running, path: str, *wanted: float) -> Callable[[], bool]:
    """Whether every worker answers with one of these."""
    return lambda: factors(server, path) == set(wanted)


def states(server: Running, name: str) -> dict[str, str]:
    """Version -> state, as the status of a model tells it."""
    reply = requests.get(f"{server.url}/v1/models/{name}", timeout=10)
    return {each["version"]: each["state"] for each in reply.json().get("model_version_status", [])}


def workers_of(server: Running) -> list[str]:
    """Process ids of the workers."""
    return Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text("utf-8").split()


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
                until(answers(server, "half", version), f"version {version} does not come")
            shutil.rmtree(base / "6")
            until(answers(server, "half", 5.0), "version 5 does not come back")
            scaled(base / "5" / "model.onnx", 50.0)
            until(answers(server, "half", 50.0), "the changed version does not come")
            add(base, 6, 60.0)
            until(answers(server, "half", 60.0), "the version that was removed does not come again")
            crowd.grow(200)
        assert (set(crowd.statuses), crowd.lost, crowd.errors) == ({200}, 0, [])
        assert "Traceback" not in server.output


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_list_of_models_changes_under_load(tmp_path: Path, workers: str) -> None:
    """A canary: both versions, the label moves, the old version goes, another model comes; a broken file in between changes nothing."""
    base, other, file = tmp_path / "half", tmp_path / "other", tmp_path / "models.config"
    for version in (1, 2):
        add(base, version, version)
    add(other, 1, 7.0)
    both = f'name: "half" base_path: "{base}" model_version_policy {{ all {{}} }} version_labels {{ key: "stable" value: %d }}'
    listed(file, both % 1)
    options = ("--model-config-file", str(file), "--model-config-poll", "0.05", *POLL, "--workers", workers)
    with serving(tmp_path, *options) as server:
        with Crowd(server.port, post("/v1/models/half/labels/stable:predict", PREDICT), clients=8) as crowd:
            assert factors(server, "half/labels/stable") == {1.0}
            listed(file, both % 2)
            until(answers(server, "half/labels/stable", 2.0), "the label does not move")
            file.write_text("model_config_list {", "utf-8")
            until(lambda: "Error parsing text-format tensorflow.serving.ModelServerConfig" in server.output, "a bad file is not told")
            assert factors(server, "half/labels/stable") == {2.0}
            listed(file, (both % 2).replace("all {}", "latest {}"), f'name: "other" base_path: "{other}"')
            until(answers(server, "other", 7.0), "the other model does not come")
            until(lambda: states(server, "half") == {"2": "AVAILABLE", "1": "END"}, "version 1 does not go")
            crowd.grow(200)
        assert (set(crowd.statuses), crowd.lost, crowd.errors) == ({200}, 0, [])
        add(other, 2, 8.0)
        until(answers(server, "other", 8.0), "what the list names is not followed")
        listed(file, f'name: "other" base_path: "{other}"')
        until(lambda: set(states(server, "half").values()) == {"END"}, "the model does not go")
        assert factors(server, "half") <= {-404.0, -503.0}
        assert "Traceback" not in server.output


def test_a_list_by_request_reaches_every_worker(tmp_path: Path) -> None:
    """HandleReloadConfigRequest returns when all workers serve it; what it may not do changes nothing; a new worker knows it, too."""
    base = tmp_path / "half"
    for version in (1, 2):
        add(base, version, version)
    with serving(tmp_path, f"target={base}", *POLL, "--workers", "2", "--grpc-port", "0") as server:
        address = grpc_address(server)

        def reload(model: str) -> Any:
            request: Any = new("tensorflow.serving.ReloadConfigRequest")
            parse_text(f"config {{ model_config_list {{ config {{ {model} }} }} }}", request)
            with grpc.insecure_channel(address) as channel:
                call = channel.unary_unary(
                    "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
                    request_serializer=lambda message: message.SerializeToString(),
                    response_deserializer=message_class("tensorflow.serving.ReloadConfigResponse").FromString,
                )
                return call(request, timeout=30)

        listed = f'name: "half" base_path: "{base}" model_version_policy {{ all {{}} }} version_labels {{ key: "stable" value: %d }}'
        assert reload(listed % 1).status.error_code == 0
        assert factors(server, "half/labels/stable") == {1.0}
        assert factors(server, "target") <= {-404.0, -503.0}
        with pytest.raises(grpc.RpcError, match="Request to assign label to version 3 of model half, which is not currently available"):
            reload(listed % 3)
        assert factors(server, "half/labels/stable") == {1.0}
        (victim, _) = workers_of(server)
        os.kill(int(victim), signal.SIGKILL)
        until(lambda: len(workers_of(server)) == 2 and victim not in workers_of(server), "no new worker")
        add(base, 3, 3.0)
        until(answers(server, "half", 3.0), "not every worker follows the list")
        until(answers(server, "half/labels/stable", 1.0), "not every worker knows the label")


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (("--model-config-file", "{folder}/broken.config"), 2, "Error parsing text-format tensorflow.serving.ModelServerConfig"),
        (("good={folder}/good", "bad={folder}/bad", "--exit-on-error"), 1, "a model could not be loaded (--exit-on-error)"),
        (("good={folder}/good", "bad={folder}/bad", "--exit-on-error", "--workers", "2"), 1, "model 'bad' version 1 failed to load"),
    ],
)
def test_starts_that_end_at_once(tmp_path: Path, options: tuple[str, ...], code: int, text: str) -> None:
    """A list that is none, and one bad model where every one matters: as TensorFlow Serving's start does."""
    (tmp_path / "broken.config").write_text("model_config_list {", "utf-8")
    add(tmp_path / "good", 1, 1.0)
    (add(tmp_path / "bad", 1, 1.0) / "model.onnx").write_bytes(b"damaged")
    ended = run(tmp_path, "serve", "--port", "0", *(option.format(folder=tmp_path) for option in options))
    assert (ended.returncode, text in ended.stderr) == (code, True), ended.stderr
    assert "Traceback" not in ended.stderr
