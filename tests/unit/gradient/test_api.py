"""The API of deployments on a whole server without sockets: what is answered, refused and shown, and what becomes of the model behind it."""

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

import dragoman
from dragoman.embed import TestClient, TestResponse
from tests.models import build, documented, learned

ROWS = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server with a model root: a model with a version folder, a single file, one that cannot be loaded, and Python code."""
    folder = tmp_path_factory.mktemp("gradient")
    build.iris(folder / "models" / "iris" / "7" / "model.onnx")
    documented.half_plus_two(folder / "models" / "half.onnx")
    learned.write(folder / "models" / "bad" / "model.onnx", b"no model")
    learned.write(folder / "models" / "trees" / "model.ubj", learned.xgboost_model())
    learned.write(folder / "models" / "code" / "model.py", b"def predict(x: float) -> float:\n    return x\n")
    with dragoman.TestClient(data_dir=str(folder / "data"), model_root=[str(folder / "models")]) as made:
        yield made


def made(client: TestClient, **fields: Any) -> str:
    """The id of a new deployment, of the model with a version folder unless the fields say another."""
    given = {"containerModelPath": "iris"} if not fields.keys() & {"modelId", "modelUrl", "env"} else {}
    answer = client.post("/deployments", json={"name": "a deployment", **given, **fields})
    assert answer.status == 201, answer.body
    deployment = answer.json()["id"]
    assert isinstance(deployment, str)
    return deployment


def settled(client: TestClient, deployment: str, *states: str) -> dict[str, Any]:
    """The deployment once it is in one of these states."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        found: dict[str, Any] = client.get(f"/deployments/{deployment}").json()
        if found["state"] in states:
            return found
        assert time.monotonic() < deadline, found


def message(answer: TestResponse) -> str:
    """The words of a refusal, where the original's client looks for them."""
    error = answer.json()["error"]
    assert error.keys() == {"name", "status", "message"}
    assert error["status"] == answer.status
    return str(error["message"])


def basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_a_deployments_life(client: TestClient) -> None:
    """Made, running, asked in all the ways, stopped, started, deleted: its endpoint answers while it runs, and only then."""
    deployment = made(client, name="iris", instanceCount=2, tags=["a"], projectId="p1")
    found = settled(client, deployment, "Running")
    assert (found["instanceCount"], found["runningCount"], found["deploymentType"], found["apiType"]) == (2, 2, "TFServing", "REST")
    assert found["endpoint"].endswith(f"/model-serving/{deployment}:predict")
    for path in ("", "/v1/models/model", "/v1/models/anything", "/versions/7", "/v1/models/model/versions/7"):
        assert client.post(f"/model-serving/{deployment}{path}:predict", json=ROWS).status == 200, path
        assert client.get(f"/model-serving/{deployment}{path}").status == 200, path
        assert client.get(f"/model-serving/{deployment}{path}/metadata").status == 200, path
    assert client.post(f"/v1/models/{deployment}:predict", json=ROWS).status == 200
    stopped = client.post(f"/deployments/{deployment}/stop").json()
    assert stopped["dtStopped"]
    settled(client, deployment, "Stopped")
    assert client.post(f"/model-serving/{deployment}:predict", json=ROWS).status == 404
    client.post(f"/deployments/{deployment}/start")
    settled(client, deployment, "Running")
    assert client.post(f"/model-serving/{deployment}:predict", json=ROWS).status == 200
    assert client.request("DELETE", f"/deployments/{deployment}").json() == {"id": deployment, "deleted": True}
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/start"), ("POST", "/stop"), ("GET", "/logs"), ("GET", "/metrics")):
        assert client.request(method, f"/deployments/{deployment}{path}").status == 404, path
    assert client.post(f"/model-serving/{deployment}:predict", json=ROWS).status == 404


def test_where_a_model_may_be_named(client: TestClient) -> None:
    """A path below a root, absolute or not, a URI, TensorFlow Serving's variables, a registered version, a name in a root."""
    registered = client.post("/dragoman/v1/registry/flowers", json={"source": "iris", "aliases": ["best"]})
    assert registered.status == 200, registered.body
    root = client.get(f"/deployments/{made(client)}").json()["containerModelPath"]
    assert root == "iris"
    for fields in (
        {"modelId": "flowers"},
        {"modelId": "flowers:1"},
        {"modelId": "flowers:best"},
        {"modelId": "models:/flowers/1"},
        {"modelId": "models:/flowers@best"},
        {"modelUrl": "models:/flowers/latest"},
        {"modelId": "iris"},
        {"modelUrl": "half.onnx"},
        {"modelUrl": "iris", "containerModelPath": "/models/elsewhere"},
        {"env": {"MODEL_BASE_PATH": ".", "MODEL_NAME": "iris"}},
    ):
        deployment = made(client, **fields)
        settled(client, deployment, "Running")
        client.request("DELETE", f"/deployments/{deployment}")


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({}, 400, "needs a model here"),
        ({"deploymentType": "Custom", "imageUrl": "me/mine"}, 400, "its image and command are not run"),
        ({"deploymentType": "Flask", "command": "python app.py"}, 400, "write the model as a Python model"),
        ({"deploymentType": "TensorRT", "modelId": "iris"}, 400, "no runtime for TensorRT"),
        ({"deploymentType": "ONNX", "modelId": "trees"}, 400, "the model's runtime is xgboost"),
        ({"modelId": "nobody"}, 404, "there is no model 'nobody'"),
        ({"modelId": "iris:9"}, 404, "there is no model 'iris:9'"),
        ({"modelId": "models:/nobody/1"}, 404, "nobody"),
        ({"modelUrl": "/etc/passwd"}, 400, "'/etc/passwd' is not in a folder that models may be registered from"),
        ({"modelUrl": "../data"}, 400, "'../data' is not in a folder"),
        ({"modelUrl": "nothing"}, 400, "'nothing' does not exist"),
        ({"modelUrl": "s3://bucket/model"}, 400, "s3://bucket/model"),
        ({"modelUrl": "https://example.com/model.onnx"}, 400, "https://example.com/model.onnx"),
        ({"modelId": "code"}, 400, "is Python code"),
        ({"env": {"MODEL_BASE_PATH": "/models"}}, 400, "'/models/model' is not in a folder"),
        ({"modelId": "iris", "instanceCount": 0}, 400, "instanceCount is 0"),
        ({"modelId": "iris", "apiType": "GRPC"}, 400, "--grpc-port"),
        ({"modelId": "iris", "authUsername": "joe"}, 400, "have to be used together"),
    ],
)
def test_what_cannot_be_deployed(client: TestClient, fields: dict[str, Any], status: int, says: str) -> None:
    """Each with its reason; nothing is left of it."""
    before = client.get("/deployments").json()
    answer = client.post("/deployments", json={"name": "x", **fields})
    assert answer.status == status, answer.body
    assert says in message(answer)
    assert client.get("/deployments").json() == before


def test_a_model_that_does_not_load(client: TestClient) -> None:
    """Error, with the reason, also in the log; a change that brings a good model makes it run, one that brings a bad one leaves it running."""
    deployment = made(client, containerModelPath="bad")
    found = settled(client, deployment, "Error")
    assert found["reason"]
    assert found["runningCount"] == 0
    rows = client.get(f"/deployments/{deployment}/logs").json()["logs"]
    assert any(found["reason"] in row["message"] for row in rows)
    assert client.request("PATCH", f"/deployments/{deployment}", json={"containerModelPath": "iris"}).status == 200
    settled(client, deployment, "Running")
    assert client.request("PATCH", f"/deployments/{deployment}", json={"containerModelPath": "bad"}).status == 200
    deadline = time.monotonic() + DEADLINE_S
    while "reason" not in (found := settled(client, deployment, "Running")):
        assert client.post(f"/model-serving/{deployment}:predict", json=ROWS).status == 200
        assert time.monotonic() < deadline, found
    assert client.post(f"/model-serving/{deployment}:predict", json=ROWS).status == 200
    client.post(f"/deployments/{deployment}/stop")
    settled(client, deployment, "Stopped")
    client.request("DELETE", f"/deployments/{deployment}")


def test_changes_of_one_that_is_stopped_wait(client: TestClient) -> None:
    """They are kept, and nothing runs; the model may even be one that cannot be loaded."""
    deployment = made(client)
    client.post(f"/deployments/{deployment}/stop")
    settled(client, deployment, "Stopped")
    changed = client.request("PUT", f"/deployments/{deployment}", json={"name": "other", "modelUrl": "half.onnx", "containerModelPath": ""})
    assert changed.json()["name"] == "other"
    assert changed.json()["state"] == "Stopped"
    client.post(f"/deployments/{deployment}/start")
    settled(client, deployment, "Running")
    assert client.post(f"/model-serving/{deployment}:predict", json={"instances": [[1.0]]}).json() == {"predictions": [[2.5]]}
    client.request("DELETE", f"/deployments/{deployment}")


def test_a_password_closes_every_way_to_a_model(client: TestClient) -> None:
    """In whatever protocol; at its own address even a look takes it. Others are open, and it can be changed and taken off."""
    deployment = made(client, authUsername="joe", authPassword="geheim")
    found = settled(client, deployment, "Running")
    assert found["oauthKey"] == "joe"
    assert "geheim" not in json.dumps(found)
    v2 = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": ROWS["instances"][0]}]}
    ways: list[tuple[str, Any]] = [
        (f"/model-serving/{deployment}:predict", ROWS),
        (f"/model-serving/{deployment}/v1/models/model:predict", ROWS),
        (f"/MODEL-SERVING/{deployment}:predict", ROWS),
        (f"/model-serving/%64{deployment[1:]}:predict", ROWS),
        (f"/v1/models/{deployment}:predict", ROWS),
        (f"/v2/models/{deployment}/infer", v2),
        (f"/models/{deployment}/predict", [{"X": ROWS["instances"][0]}]),
        (f"/models/{deployment}/predictions", [{"X": ROWS["instances"][0]}]),
        (f"/serve/{deployment}-7/invocations", {"inputs": ROWS["instances"]}),
        (f"/seldon/ns/{deployment}/api/v1.0/predictions", {"data": {"ndarray": ROWS["instances"]}}),
    ]
    for path, body in ways:
        assert client.post(path, json=body).status == 401, path
        assert client.post(path, json=body, headers=basic("joe", "wrong")).status == 401, path
        assert client.post(path, json=body, headers=basic("joe", "geheim")).status == 200, path
        assert client.post(path, json=body).status == 401, path
    later = client.post(ways[7][0], json=ways[7][1], headers=basic("joe", "geheim")).json()["prediction_id"]
    assert client.get(f"/models/{deployment}/predictions/{later}?wait=20").json()["status"] == "success"
    refused = client.post(ways[0][0], json=ROWS)
    assert refused.headers["www-authenticate"] == 'Basic realm="deployment"'
    assert refused.json().keys() == {"error"}
    assert client.get(f"/model-serving/{deployment}").status == 401
    assert client.get(f"/model-serving/{deployment}/metadata", headers=basic("joe", "geheim")).status == 200
    client.request("PATCH", f"/deployments/{deployment}", json={"authUsername": "ann", "authPassword": "other"})
    assert client.post(ways[0][0], json=ROWS, headers=basic("joe", "geheim")).status == 401
    assert client.post(ways[0][0], json=ROWS, headers=basic("ann", "other")).status == 200
    client.request("PATCH", f"/deployments/{deployment}", json={"authUsername": "", "authPassword": ""})
    assert client.post(ways[0][0], json=ROWS).status == 200
    client.request("DELETE", f"/deployments/{deployment}")


def test_lists_are_narrowed(client: TestClient) -> None:
    """By project, state, model and tag, in both forms of the request."""
    one = made(client, projectId="narrow", tags=["a", "b"], modelId="iris")
    two = made(client, projectId="narrow", tags=["c"])
    client.post(f"/deployments/{two}/stop")
    settled(client, one, "Running")
    settled(client, two, "Stopped")

    def ids(query: str) -> list[str]:
        return [each["id"] for each in client.get(f"/deployments?projectId=narrow{query}").json()["deployments"]]

    def of_body(tags: list[str] | None = None, **condition: str) -> list[str]:
        body = {"filter": {"where": {"and": [{"projectId": "narrow", **condition}]}}, **({"tagFilter": tags} if tags else {})}
        return [each["id"] for each in client.request("GET", "/deployments/getDeploymentList/", json=body).json()["deploymentList"]]

    assert ids("") == of_body() == [one, two]
    assert ids("&state=running") == of_body(state="Running") == [one]
    assert ids("&tag=b&tag=c") == of_body(tags=["b", "c"]) == [one, two]
    assert ids("&tag=c") == of_body(tags=["c"]) == [two]
    assert ids("&modelId=iris") == of_body(modelId="iris") == of_body(id=one) == [one]
    for each in (one, two):
        client.request("DELETE", f"/deployments/{each}")


def test_figures(client: TestClient) -> None:
    """Of the requests that it was asked, and those of the server."""
    deployment = made(client)
    settled(client, deployment, "Running")
    for _ in range(3):
        client.post(f"/model-serving/{deployment}:predict", json=ROWS)
    client.post(f"/model-serving/{deployment}:predict", json={"instances": [[1.0]]})
    charts = client.get(f"/deployments/{deployment}/metrics?charts=requestCount,requestFailures").json()["charts"]
    assert {name: points[deployment][0]["value"] for name, points in charts.items()} == {"requestCount": "4", "requestFailures": "1"}
    range_of = client.get(f"/metrics/api/v1/range?handle={deployment}&charts=cpuPercentage,memoryUsage&interval=30s&start=x")
    assert range_of.json()["charts"].keys() == {"cpuPercentage", "memoryUsage"}
    assert "requestSeconds" in client.get(f"/metrics/api/v1/list?handle={deployment}").json()["chart_names"]
    assert client.get(f"/deployments/{deployment}/metrics?charts=gpuTemp").status == 400
    client.request("DELETE", f"/deployments/{deployment}")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/deployments/desaaaaaaaaaaaa", None, 404),
        ("GET", "/deployments/..%2f..%2fx", None, 404),
        ("GET", "/deployments/a/b", None, 404),
        ("GET", "/deployments//", None, 404),
        ("PUT", "/deployments", None, 405),
        ("GET", "/deployments/v2/createDeployment/", None, 405),
        ("POST", "/deployments", [], 400),
        ("POST", "/deployments", {}, 400),
        ("POST", "/deployments/v2/createDeployment/", {"name": "x"}, 400),
        ("POST", "/deployments/v2/updateDeployment", {}, 400),
        ("POST", "/deployments/v2/updateDeployment", {"id": "desaaaaaaaaaaaa"}, 400),
        ("POST", "/deployments/v2/updateDeployment", {"id": "desaaaaaaaaaaaa", "isRunning": "yes"}, 400),
        ("POST", "/deployments/v2/updateDeployment/", {"id": "desaaaaaaaaaaaa", "isRunning": True}, 404),
        ("POST", "/deployments/v2/updateDeployment/", {"id": "desaaaaaaaaaaaa", "upd": []}, 404),
        ("POST", "/deployments/v2/deleteDeployment", {"id": ["x"]}, 400),
        ("POST", "/deployments/v2/deleteDeployment", {"id": "x"}, 404),
        ("GET", "/deployments/getDeploymentList/", {"filter": 5}, 400),
        ("GET", "/deployments/getDeploymentList/", {"filter": {"where": {"and": [{"id": {"neq": "x"}}]}}}, 400),
        ("GET", "/deployments/getDeploymentList/", {"filter": {"where": {"and": [{"secret": "x"}]}}}, 400),
        ("GET", "/deployments/getDeploymentList/", {"tagFilter": "a"}, 400),
        ("GET", "/deployments?state=Nix", None, 400),
        ("GET", "/deployments?state=%ff", None, 400),
        ("GET", "/entityTags/getTags?entity=project", None, 400),
        ("PUT", "/entityTags/updateTags", {"entity": "deployment", "entityId": "desaaaaaaaaaaaa", "tags": ["a"]}, 404),
        ("PUT", "/entityTags/updateTags", {"entity": "deployment", "entityId": "desaaaaaaaaaaaa", "tags": "a"}, 400),
        ("GET", "/jobs/logs?deploymentId=desaaaaaaaaaaaa", None, 404),
        ("GET", "/jobs/logs?deploymentId=desaaaaaaaaaaaa&line=-1", None, 400),
        ("GET", "/metrics/api/v1/range", None, 400),
    ],
)
def test_wrong_requests(client: TestClient, method: str, path: str, body: Any, status: int) -> None:
    """Each is refused in this API's words."""
    answer = client.request(method, path, json=body) if body is not None else client.request(method, path)
    assert answer.status == status, answer.body
    assert message(answer)
    if status == 405:
        assert answer.headers["allow"]


def test_a_version_that_a_deployment_serves_is_not_removed(client: TestClient) -> None:
    """The registry refuses it, as it does for what is deployed under its own name."""
    client.post("/dragoman/v1/registry/kept", json={"source": "iris"})
    deployment = made(client, modelId="kept")
    settled(client, deployment, "Running")
    assert client.request("DELETE", "/api/v1/model-version/kept/1").status == 406
    client.request("DELETE", f"/deployments/{deployment}")
    assert client.request("DELETE", "/api/v1/model-version/kept/1").status == 200
