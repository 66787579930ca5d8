"""Model roots and trust with the real command: an empty server that is filled through its registry, pickles and code, and ways out of roots."""

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.running import Running, run, serving
from tests.models import build, learned
from tests.unit.library.projects import project

WAYS_OUT = ("--trusted-root", "--trust-pickle", "skops", "ONNX", "safetensors", "UBJSON")


class Client:
    """Calls one server; answers are (status, JSON)."""

    def __init__(self, server: Running) -> None:
        self.server = server

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.server.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                status, content = reply.status, reply.read()
        except urllib.error.HTTPError as error:
            with error:
                status, content = error.code, error.read()
        return status, json.loads(content) if content else None

    def register(self, name: str, source: str) -> tuple[int, Any]:
        """A model of that name, and a version of it through MLflow's registry."""
        self.call("POST", "/api/2.0/mlflow/registered-models/create", {"name": name})
        return self.call("POST", "/api/2.0/mlflow/model-versions/create", {"name": name, "source": source})

    def load(self, name: str) -> tuple[int, str]:
        """V2's load; the status and what it says."""
        status, answer = self.call("POST", f"/v2/repository/models/{name}/load", {})
        return status, "" if answer is None else str(answer.get("error", ""))

    def predicts(self, name: str, inputs: list[list[float]]) -> Any:
        status, answer = self.call("POST", f"/v1/models/{name}:predict", {"instances": inputs})
        assert status == 200, answer
        return answer["predictions"]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Folders `open` and `safe`, each with a skops file, a pickle, a Python model and an ONNX file; `outside` has a model too."""
    from sklearn.linear_model import LinearRegression  # here, so that not every process of a test run imports it

    estimator = LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
    for root in ("open", "safe", "outside"):
        for name in ("doubled", "pickled"):
            (tmp_path / root / name).mkdir(parents=True)
        learned.write(tmp_path / root / "doubled" / "model.skops", learned.skops_of(estimator))
        learned.write(tmp_path / root / "pickled" / "model.joblib", learned.joblib_of(estimator))
        project(tmp_path / root / "code")
        (tmp_path / root / "iris").mkdir()
        build.iris(tmp_path / root / "iris" / "model.onnx")
    return tmp_path.resolve()


def test_an_empty_server_is_filled(site: Path) -> None:
    """`serve --model-root DIR` with nothing stored is ready, takes models by their names below the root and from its registry, and keeps them."""
    data = site / "data"
    with serving(data, "--model-root", str(site / "open")) as server:
        client = Client(server)
        assert client.call("GET", "/v2/health/ready")[0] == 200
        assert "register and deploy one" in server.output
        assert client.load("iris") == (200, "")
        status, answer = client.register("twice", f"file://{site}/open/doubled")
        assert (status, answer["model_version"]["version"]) == (200, "1"), answer
        assert client.load("twice") == (200, "")
        assert client.predicts("twice", [[3.0]]) == pytest.approx([6.0])
        assert server.terminate() == 0
    with serving(data, "--model-root", str(site / "open")) as server:
        assert Client(server).predicts("twice", [[4.0]]) == pytest.approx([8.0])
    ran = run(data, "models", "--output", "json")
    assert [(row["repository"], row["version"]) for row in json.loads(ran.stdout)] == [("twice", "1")]


@pytest.mark.parametrize("name", ["pickled", "code"])
def test_what_can_run_code(site: Path, name: str) -> None:
    """From a root it is registered but not loaded, and the refusal says what to do; from a trusted root it is served."""
    with serving(site / "data", "--model-root", str(site / "open"), "--trusted-root", str(site / "safe")) as server:
        client = Client(server)
        assert client.register("theirs", str(site / "open" / name))[0] == 200
        assert client.register("mine", str(site / "safe" / name))[0] == 200
        for refused in ("theirs", name):  # from the registry, and by its name below the first root
            status, message = client.load(refused)
            assert 400 <= status < 600
            assert all(word in message for word in WAYS_OUT), message
            assert str(site) not in message
        assert client.load("mine") == (200, "")
        if name == "pickled":
            assert client.predicts("mine", [[3.0]]) == pytest.approx([6.0])
        else:
            status, answer = client.call("POST", "/models/mine/predict", [{"text": "hello"}])
            assert (status, answer["outputs"][0]["said"]) == (200, "HELLO")


def test_trust_is_of_now(site: Path) -> None:
    """What was deployed is loaded again under the flags of the new start: --trust-pickle opens it, without it the model says why it is not."""
    data, root = site / "data", str(site / "open")
    with serving(data, "--model-root", root, "--trust-pickle") as server:
        client = Client(server)
        assert client.register("m", f"{root}/pickled")[0] == 200
        assert client.load("m") == (200, "")
    with serving(data, "--model-root", root) as server:
        client = Client(server)
        status, answer = client.call("POST", "/v1/models/m:predict", {"instances": [[1.0]]})
        assert status >= 400, answer
        assert client.load("iris") == (200, "")
        index = client.call("POST", "/v2/repository/index", {})[1]
        assert "--trust-pickle" in next(row["reason"] for row in index if row["name"] == "m")


def test_ways_out_of_a_root(site: Path) -> None:
    """Sources outside are refused with 400, there or not; nothing is registered, and nothing waits for a pipe."""
    root = site / "open"
    (root / "link").symlink_to(site / "outside")
    (root / "linked").mkdir()
    (root / "linked" / "model.onnx").symlink_to(site / "outside" / "iris" / "model.onnx")
    (root / "pipe").mkdir()
    os.mkfifo(root / "pipe" / "model.onnx")
    (root / "circle").symlink_to("circle")
    with serving(site / "data", "--model-root", str(root)) as server:
        client = Client(server)
        for source in (
            f"{site}/outside/iris", f"{root}/../outside/iris", "../outside/iris", f"{root}/link/iris", "link/iris", f"file://{root}/%2e%2e/outside/iris",
            "linked", "pipe", "circle", "/etc/passwd", "/dev/zero", "nothing", "", "iris\0", "file://elsewhere/iris", "runs:/x/model",
            "nonsense", f"{site}/data/dragoman/keys.toml", "mlflow-artifacts:/../x", "models:/none/1", ".", "/", "~",
        ):  # fmt: skip
            status, answer = client.register("m", source)
            assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), (source, answer)
        for name in ("link", "linked", "pipe", "circle", "nothing", "..", "%2e%2e%2foutside"):
            assert 400 <= client.load(name)[0] < 500, name
        assert client.call("GET", "/v2/health/ready")[0] == 200
        assert client.call("GET", "/api/2.0/mlflow/model-versions/search?max_results=10")[1].get("model_versions", []) == []


def test_files_that_change(site: Path) -> None:
    """A registered file that is not what it was is not loaded."""
    with serving(site / "data", "--model-root", str(site / "open")) as server:
        client = Client(server)
        assert client.register("m", "iris")[0] == 200
        with (site / "open" / "iris" / "model.onnx").open("ab") as file:
            file.write(b"more")
        status, message = client.load("m")
        assert status >= 400
        assert "missing or has changed" in message


def test_what_was_built_is_as_before(site: Path) -> None:
    """A server that was told nothing serves the newest model that was built; with a root, or with something deployed, it picks none."""
    data = site / "data"
    assert run(data, "build", str(site / "outside" / "code"), "-n", "text:1").returncode == 0
    with serving(data) as server:
        assert "Use model 'text:1'" in server.output
        assert Client(server).call("POST", "/predict", [{"text": "x"}])[1]["outputs"][0]["said"] == "X"
    with serving(data, "--model-root", str(site / "open")) as server:
        assert "Use model" not in server.output
        assert Client(server).load("iris") == (200, "")
    with serving(data) as server:
        assert "Use model" not in server.output


def test_a_root_that_is_none(site: Path) -> None:
    """A folder that is not there is an error at the start."""
    ran = run(site / "data", "serve", "--port", "0", "--model-root", str(site / "nothing"))
    assert ran.returncode != 0
    assert "nothing, which is no folder" in ran.stderr
