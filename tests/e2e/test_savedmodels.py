"""SavedModels through the real command: in processes of their own, beside a model of another format, and registered through Submarine's API."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.running import Running, serving
from tests.models import build, savedmodels


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two workers, which share the processes of the models."""
    folder = tmp_path_factory.mktemp("savedmodels")
    savedmodels.copy("half_plus_two", folder / "models" / "half_plus_two" / "00000123")
    savedmodels.copy("missing_op", folder / "models" / "broken" / "7")
    build.iris(folder / "models" / "iris.onnx")
    uploaded = folder / "root" / "flowers"
    savedmodels.copy("tagged", uploaded / "1")
    (uploaded / "description.json").write_text(json.dumps({"id": "0123456789abcdef0123456789abcdef", "model_type": "tensorflow"}))
    targets = (str(folder / "models" / "half_plus_two"), str(folder / "models" / "broken"), str(folder / "models" / "iris.onnx"))
    with serving(folder, *targets, "--model-root", str(folder / "root"), "--workers", "2") as running:
        yield running


def post(server: Running, path: str, body: Any) -> tuple[int, Any]:
    answer = requests.post(f"{server.url}{path}", json=body, timeout=60)
    return answer.status_code, answer.json()


def test_the_documentations_example(server: Running) -> None:
    """Shapes are the graph's business, versions are numbers with zeros in front, and every signature answers; so does the other protocol."""
    assert post(server, "/v1/models/half_plus_two:predict", {"instances": [1.0, 2.0, 5.0]}) == (200, {"predictions": [2.5, 3.0, 4.5]})
    assert post(server, "/v1/models/half_plus_two/versions/123:predict", {"inputs": [[2.0]]}) == (200, {"outputs": [[3.0]]})
    examples = {"signature_name": "regress_x_to_y", "examples": [{"x": 80.0}]}
    assert post(server, "/v1/models/half_plus_two:regress", examples) == (200, {"results": [42.0]})
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 1], "data": [1, 2]}]}
    status, answer = post(server, "/v2/models/half_plus_two/infer", body)
    assert (status, answer["outputs"]) == (200, [{"name": "y", "datatype": "FP32", "shape": [2, 1], "data": [2.5, 3.0]}])


def test_what_the_graph_refuses(server: Running) -> None:
    """400 with TensorFlow's words, and the process goes on."""
    status, answer = post(server, "/v1/models/half_plus_two:predict", {"signature_name": "regress_x_to_y", "inputs": ["no example"]})
    assert status == 400
    assert "Could not parse example input, value: 'no example'" in answer["error"]
    assert post(server, "/v1/models/half_plus_two:predict", {"instances": [1.0]})[0] == 200


def test_a_model_that_does_not_load(server: Running) -> None:
    """Its version has failed with the reason; the others serve."""
    (found,) = requests.get(f"{server.url}/v1/models/broken", timeout=60).json()["model_version_status"]
    assert (found["version"], found["state"]) == ("7", "END")
    assert "the operation ParseExampleV9" in found["status"]["error_message"]
    body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [5.0, 3.4, 1.5, 0.2]}]}
    assert post(server, "/v2/models/iris/infer", body)[0] == 200


def test_registered_and_served(server: Running) -> None:
    """A folder of TensorFlow's, as Submarine leaves it: registered, deployed, and called by the url of the answer."""
    api = f"{server.url}/api/v1"
    requests.post(f"{api}/registered-model", json={"name": "flowers"}, timeout=60).raise_for_status()
    made = requests.post(f"{api}/model-version?baseDir=flowers", json={"name": "flowers", "userId": "", "experimentId": ""}, timeout=60)
    assert made.json()["result"]["modelType"] == "tensorflow", made.text
    served = requests.post(f"{api}/serve", json={"modelName": "flowers", "modelVersion": 1}, timeout=90)
    assert served.status_code == 200, served.text
    url = served.json()["result"]["url"].removesuffix("/invocations")
    row = {"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]}
    answer = requests.post(f"{url}/v1/models/flowers:predict", json={"instances": [row]}, timeout=60)
    assert answer.json() == {"predictions": [{"label": "foo!", "total": 25.0}]}


def test_the_server_itself_has_no_tensorflow(server: Running) -> None:
    """Neither supervisor nor workers have its libraries in memory; the models' processes have."""
    processes = family(server.process.pid)
    having = {pid for pid in processes if "libtensorflow" in Path(f"/proc/{pid}/maps").read_text()}
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in processes}
    ours = {pid for pid, command in commands.items() if pid == server.process.pid or "dragoman.server.child" in command}
    assert having
    assert len(ours) == 3
    assert not having & ours


def family(pid: int) -> set[int]:
    """A process and all that it started."""
    children = [child for thread in Path(f"/proc/{pid}/task").iterdir() for child in (thread / "children").read_text().split()]
    return {pid}.union(*(family(int(child)) for child in children))
