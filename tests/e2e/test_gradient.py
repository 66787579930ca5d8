"""Gradient's deployments on the real command with two workers: its own command line (gradient 1.10), ours, gRPC, and what a restart leaves."""

import base64
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from dragoman.cli import main
from tests import clients
from tests.e2e.running import Running, run, serving
from tests.models import build, documented

ROWS = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
DEADLINE_S = 60.0
_ID = re.compile(r"des[0-9a-z]{12}")
_COMMANDS = """
from click.testing import CliRunner
from gradient.cli.cli import cli

printed = []
for words in given["commands"]:
    done = CliRunner().invoke(cli, ["deployments", *words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    printed.append(done.output)
answer(printed)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model root, and beside it the data directory of the server."""
    place = tmp_path_factory.mktemp("gradient")
    build.iris(place / "models" / "iris" / "1" / "model.onnx")
    documented.half_plus_two(place / "models" / "half" / "3" / "model.onnx")
    loud = place / "models" / "loud"
    loud.mkdir()
    (loud / "model.py").write_text(
        "print('the model is made')\n\n\ndef predict(x: float) -> float:\n    print('asked for', x)\n    return 2 * x\n"
    )
    return place


def arguments(folder: Path) -> list[str]:
    return ["--trusted-root", str(folder / "models"), "--workers", "2", "--grpc-port", "0"]


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Running]:
    with serving(folder, *arguments(folder)) as running:
        yield running


def gradient(server: Running, home: Path, *commands: list[str]) -> list[str]:
    """What the original's command line prints, command by command, one after the other in a program of its own."""
    environment = {
        "USE_LEGACY_DEPLOYMENTS": "1",
        **{f"PAPERSPACE_{name}": server.url for name in ("CONFIG_HOST", "CONFIG_LOG_HOST", "WEB_URL", "API_HOST")},
        "PAPERSPACE_CONFIG_PATH": str(home),
        "PAPERSPACE_USE_CONSOLE_COLORS": "false",
    }
    printed = clients.run("gradient", _COMMANDS, environment=environment, commands=commands)
    assert len(printed) == len(commands)
    return list(printed)


def settled(server: Running, deployment: str, *states: str) -> dict[str, Any]:
    """The deployment once it is in one of these states."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        found: dict[str, Any] = requests.get(f"{server.url}/deployments/{deployment}", timeout=30).json()
        if found["state"] in states:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def asked(server: Running, deployment: str, times: int = 8, body: Any = ROWS, **options: Any) -> set[int]:
    """The statuses of several requests, each over a connection of its own, so that every worker is asked."""
    url = f"{server.url}/model-serving/{deployment}:predict"
    return {requests.post(url, json=body, timeout=30, headers={"connection": "close"}, **options).status_code for _ in range(times)}


def made(server: Running, **fields: Any) -> str:
    answer = requests.post(f"{server.url}/deployments", json={"name": "made", **fields}, timeout=30)
    assert answer.status_code == 201, answer.text
    deployment = answer.json()["id"]
    assert isinstance(deployment, str)
    return deployment


def test_the_original_command_line(server: Running, tmp_path: Path) -> None:
    """Every command of Gradient's users, with the options that they had to give, against our server; its sentences are all there."""
    required = ["--deploymentType", "TFServing", "--machineType", "C4", "--imageUrl", "tensorflow/serving", "--clusterId", "cl1"]
    more = ["--containerModelPath", "iris", "--instanceCount", "2", "--authUsername", "joe", "--authPassword", "geheim"]
    scaling = ["--minInstanceCount", "1", "--maxInstanceCount", "3", "--resource", "cpu/target:60", "--env", '{"A": "b"}']
    (said,) = gradient(server, tmp_path, ["create", "--name", "my iris", *required, *more, *scaling, "--tag", "one", "--tags", "two,three"])
    created = re.search(rf"New deployment created with id: ({_ID.pattern})", said)
    assert created is not None, said
    deployment = created[1]
    of_it = ["--id", deployment]
    shown = requests.get(f"{server.url}/deployments/{deployment}", timeout=30).json()
    assert shown["tags"] == ["one", "three", "two"]
    assert shown["env"] == {"A": "***"}
    settled(server, deployment, "Running")
    assert asked(server, deployment) == {401}
    assert asked(server, deployment, auth=("joe", "geheim")) == {200}
    listed, none, details, added, removed, updated = gradient(
        server,
        tmp_path,
        ["list", "--state", "Running", "--tag", "two"],
        ["list", "--projectId", "another"],
        ["details", *of_it],
        ["tags", "add", *of_it, "--tag", "four"],
        ["tags", "remove", *of_it, "--tags", "one,two"],
        ["update", *of_it, "--name", "other", "--instanceCount", "1"],
    )
    for text in (
        "my iris",
        deployment,
        f"{server.url}/model-serving/{deployment}:predict",
        "REST",
        "TFServing",
        "Running",
        "Deployment State",
    ):
        assert text in listed
    assert "No data found" in none
    for text in ("my iris", "C4", "Running", "cl1", "cpu/target:60.0", "one, three, two"):
        assert text in details
    assert "Tags added to deployment" in added
    assert "Tags removed from deployment" in removed
    assert "Deployment data updated" in updated
    found = settled(server, deployment, "Running")
    assert (found["name"], found["instanceCount"], found["tags"]) == ("other", 1, ["four", "three"])
    (stopped,) = gradient(server, tmp_path, ["stop", *of_it])
    assert "Deployment stopped" in stopped
    settled(server, deployment, "Stopped")
    assert asked(server, deployment, auth=("joe", "geheim")) == {404}
    logs, followed, started = gradient(server, tmp_path, ["logs", *of_it], ["logs", *of_it, "--follow", "true"], ["start", *of_it])
    assert f"Deployment {deployment} logs" in logs
    for text in (logs, followed):
        assert "deployment 'my iris' is created" in text
        assert "stopped" in text
        assert "PSEOF" not in text
    assert "Deployment started" in started
    settled(server, deployment, "Running")
    assert asked(server, deployment, auth=("joe", "geheim")) == {200}
    deleted, left, unknown = gradient(server, tmp_path, ["delete", *of_it], ["list"], ["stop", *of_it])
    assert "Deployment deleted" in deleted
    assert deployment not in left
    assert "there is no deployment" in unknown


def test_our_command_line(server: Running, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same words, both forms of options, credentials that are made up, and what a Python model prints."""

    def ours(*words: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["deployments", *words, "--url", server.url])
        printed = "".join(capsys.readouterr())
        assert ended.value.code == code, printed
        return printed

    assert "No data found" in run(folder, "deployments", "list", "--tag", "nobody's", "--url", server.url).stdout
    said = ours("create", "--name=loud", "--deploymentType=Custom", "--machineType=C4", "--modelUrl", "loud", "--auth", "--tags", "a,b")
    found = re.search(rf"username:(\S+)\npassword:(\S+)\nNew deployment created with id: ({_ID.pattern})\nhttp\S+:predict\n", said)
    assert found is not None, said
    user, password, deployment = found.groups()
    settled(server, deployment, "Running")
    assert asked(server, deployment, auth=(user, password), body={"instances": [1.5]}) == {200}
    listed = ours("list", "--tag", "a", "--state", "running")
    assert re.match(r"Name +ID +Endpoint +Api Type +Deployment Type +Deployment State\n", listed)
    assert re.search(rf"loud +{deployment} +\S+ +REST +Custom +Running\n", listed)
    logs = ours("logs", "--id", deployment)
    for text in ("LINE", "MESSAGE", "the model is made", "asked for 1.5", "running"):
        assert text in logs
    assert "Tags removed from deployment" in ours("tags", "remove", f"--id={deployment}", "--tag", "a")
    assert json.loads(ours("details", "--id", deployment, "--output", "json"))["tags"] == ["b"]
    assert json.loads(ours("metrics", "get", "--id", deployment, "--metric", "requestCount"))["requestCount"][deployment]
    assert "Deployment stopped" in ours("stop", "--id", deployment)
    settled(server, deployment, "Stopped")
    assert ours("logs", "--id", deployment, "--follow", "--line", "1").endswith("\tstopped\n")
    assert "Deployment deleted" in ours("delete", "--id", deployment)
    assert "there is no deployment" in ours("start", "--id", deployment, code=1)
    assert "no runtime for TensorRT" in ours("create", "--name", "x", "--deploymentType", "TensorRT", code=1)
    ours("create", "--name", "x", "--deploymentType", "Nix", code=2)
    ours("create", "--name", "x", "--authUsername", "joe", code=2)


def test_deployments_outlive_the_server(folder: Path, tmp_path: Path) -> None:
    """What ran runs again under its id, with its password; what was stopped stays stopped and can be started; what was deleted is gone."""
    with serving(tmp_path, *arguments(folder)) as first:
        running = made(first, modelUrl="iris", authUsername="joe", authPassword="geheim")
        stopped, gone = made(first, modelUrl="half"), made(first, modelUrl="half")
        for each in (running, stopped, gone):
            settled(first, each, "Running")
        requests.post(f"{first.url}/deployments/{stopped}/stop", timeout=30)
        requests.delete(f"{first.url}/deployments/{gone}", timeout=30)
        settled(first, stopped, "Stopped")
        assert first.terminate() == 0
    with serving(tmp_path, *arguments(folder)) as second:
        settled(second, running, "Running")
        assert asked(second, running) == {401}
        assert asked(second, running, auth=("joe", "geheim")) == {200}
        assert settled(second, stopped, "Stopped")["name"] == "made"
        assert asked(second, stopped, body={"instances": [[1.0]]}) == {404}
        requests.post(f"{second.url}/deployments/{stopped}/start", timeout=30)
        settled(second, stopped, "Running")
        assert asked(second, stopped, body={"instances": [[1.0]]}) == {200}
        assert [each["id"] for each in requests.get(f"{second.url}/deployments", timeout=30).json()["deployments"]] == [running, stopped]


def test_grpc_deployments(server: Running) -> None:
    """Their endpoint is the gRPC port; there they are known by their id and, as in their containers, as `model`; a password holds there, too."""
    deployment = made(server, modelUrl="half", apiType="GRPC")
    found = settled(server, deployment, "Running")
    tensor = InferInput("x", [1, 1], "FP32").set_data_from_numpy(np.array([[1.0]], "f4"))
    with InferenceServerClient(found["endpoint"]) as client:
        for name in (deployment, "model"):
            assert client.infer(name, [tensor]).as_numpy("y").tolist() == [[2.5]]
        requests.patch(f"{server.url}/deployments/{deployment}", json={"authUsername": "joe", "authPassword": "geheim"}, timeout=30)
        settled(server, deployment, "Running")
        with pytest.raises(InferenceServerException, match="user name and password"):
            client.infer("model", [tensor])
        basic = "Basic " + base64.b64encode(b"joe:geheim").decode()
        assert client.infer("model", [tensor], headers={"authorization": basic}).as_numpy("y").tolist() == [[2.5]]
    requests.delete(f"{server.url}/deployments/{deployment}", timeout=30)
