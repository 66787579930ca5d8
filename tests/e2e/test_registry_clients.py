"""Submarine's and MLflow's own clients against one server: what one registers, the other lists and deploys, and every door answers for it.

Follows the sheet of Submarine (S1-S12, R1-R14) as far as its clients go; each test runs over SQLite and over PostgreSQL.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.clients import run
from tests.e2e.plain import Plain
from tests.e2e.running import Running, serving
from tests.models import build
from tests.postgres import database_of

FLOWERS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]
ENVELOPE = ["status", "code", "success", "message", "result", "attributes"]

SUBMARINE = """
from submarine.client import ApiException, ModelVersionApi, RegisteredModelApi
from submarine.client.api.serve_client import ServeClient
from submarine.client.utils.api_utils import get_api_client
models = RegisteredModelApi(get_api_client(given["url"]))
versions = ModelVersionApi(get_api_client(given["url"]))
serves = ServeClient(given["url"])
def plain(response):
    return response.to_dict()
def refused(call, *words, **named):
    try:
        return [0, plain(call(*words, **named))]
    except ApiException as error:
        return [error.status, json.loads(error.body)]
"""
MLFLOW = """
import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
mlflow.set_tracking_uri(given["url"])
mlflow.set_registry_uri(given["url"])
client = MlflowClient()
def refused(call, *words, **named):
    try:
        return ["", str(call(*words, **named))]
    except MlflowException as error:
        return [error.error_code, error.message]
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """The flags of a server that keeps its registry there."""
    return [] if request.param == "sqlite" else ["--store", database_of(tmp_path)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A model root with an ONNX model, and one whose file is no model."""
    folder = tmp_path / "root"
    build.iris(folder / "iris" / "model.onnx")
    (folder / "broken").mkdir()
    (folder / "broken" / "model.onnx").write_bytes(b"this is no graph")
    return folder


@pytest.fixture
def running(tmp_path: Path, root: Path, store: list[str]) -> Iterator[Running]:
    """An empty server over that root."""
    with serving(tmp_path / "data", "--model-root", str(root), *store) as server:
        yield server


def submarine(running: Running, script: str, **given: Any) -> Any:
    return run("submarine", SUBMARINE + script, url=running.url, **given)


def mlflow(running: Running, script: str, **given: Any) -> Any:
    return run("mlflow", MLFLOW + script, url=running.url, **given)


def register(running: Running, name: str = "iris", base: str = "iris", count: int = 1) -> list[dict[str, Any]]:
    """With Submarine's client: the versions as the server has them."""
    found: list[dict[str, Any]] = submarine(
        running,
        """
models.create_registered_model(registered_model_entity={"name": given["name"], "description": "flowers"})
made = [
    versions.create_model_version(
        base_dir=given["base"],
        model_version_entity={"name": given["name"], "userId": "", "experimentId": "e1", "description": "", "dataset": "fisher"},
    )
    for _ in range(given["count"])
]
answer(plain(versions.list_model_versions(given["name"]))["result"])
""",
        name=name,
        base=base,
        count=count,
    )
    return found


def deploy(running: Running, name: str, version: int | str) -> str:
    """With Submarine's client: the address that the answer names."""
    url: str = submarine(
        running,
        'answer(plain(serves.create_serve(given["name"], given["version"], async_req=False))["result"]["url"])',
        name=name,
        version=version,
    )
    return url


def ask(url: str, body: object) -> tuple[int, Any]:
    """POST JSON to an absolute address, as it is."""
    found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)(/.*)", url)
    assert found is not None, url
    reply = Plain(int(found[1])).post(found[2], body)
    return reply.status, reply.json()


def classes(probabilities: list[list[float]]) -> list[int]:
    return [row.index(max(row)) for row in probabilities]


class TestSubmarine:
    def test_a_models_life(self, running: Running) -> None:
        """Registered, deployed, called where the answer says, taken down, and deployed again (S1, S5-S9, S11, R3, R4, R9)."""
        (version,) = register(running)
        assert (version["version"], version["name"]) == (1, "iris")
        url = deploy(running, "iris", 1)
        status, body = ask(url, {"instances": FLOWERS})
        assert status == 200, body
        assert len(body["predictions"]) == 2
        stages = 'answer(plain(versions.get_model_version("iris", 1))["result"]["currentStage"])'
        assert submarine(running, stages) == "Production"
        gone = submarine(running, 'answer(plain(serves.delete_serve("iris", 1, async_req=False)))')
        assert (gone["code"], gone["success"], gone["result"]) == (200, True, None)
        assert submarine(running, stages) == "None"
        status, body = ask(url, {"instances": FLOWERS})
        assert status == 404, body
        assert isinstance(body, dict)
        assert deploy(running, "iris", "1") == url
        assert ask(url, {"instances": FLOWERS})[0] == 200

    def test_every_door_of_one_prefix(self, running: Running) -> None:
        """The url's prefix answers in MLflow's, Seldon's, V2's, TF Serving's and Tungsten's words, with the same numbers (R3)."""
        register(running)
        url = deploy(running, "iris", 1)
        prefix = url.removesuffix("/invocations")
        assert prefix != url
        status, scored = ask(url, {"inputs": FLOWERS})
        assert status == 200, scored
        tensor = {"name": "input", "datatype": "FP32", "shape": [2, 4], "data": FLOWERS}
        port = Plain(running.port)
        (described,) = port.get("/v2/models/iris").json()["inputs"]
        tensor["name"] = described["name"]
        status, v2 = ask(f"{prefix}/v2/models/iris/infer", {"inputs": [tensor]})
        assert status == 200, v2
        assert v2["model_version"] == "1"
        status, seldon = ask(f"{prefix}/api/v1.0/predictions", {"data": {"ndarray": FLOWERS}})
        assert status == 200, seldon
        assert seldon["meta"] == {}
        status, tensors = ask(
            f"{prefix}/api/v0.1/predictions", {"data": {"tensor": {"shape": [2, -1], "values": [*FLOWERS[0], *FLOWERS[1]]}}}
        )
        assert status == 200, tensors
        status, rows = ask(f"{prefix}/v1/models/iris:predict", {"instances": FLOWERS})
        assert status == 200, rows
        status, tungsten = ask(f"{prefix}/predict", [{described["name"]: row} for row in FLOWERS])
        assert status == 200, tungsten
        for old in (f"{running.url}/iris/1/api/v1.0/predictions", f"{running.url}/serve/iris-1/api/v1.0/predictions"):
            assert ask(old, {"data": {"ndarray": FLOWERS}}) == (200, seldon)
        assert ask(f"{running.url}/serve/iris-1/invocations", {"inputs": FLOWERS}) == (200, scored)
        first = v2["outputs"][0]["data"]
        assert len(first) in (2, 6)

    def test_versions_side_by_side(self, running: Running) -> None:
        """Each at its own url; taking one down leaves the other, and DELETE twice is no error (R4)."""
        register(running, count=3)
        urls = [deploy(running, "iris", version) for version in (1, 2, 3)]
        assert len(set(urls)) == 3
        assert [ask(url, {"instances": FLOWERS})[0] for url in urls] == [200, 200, 200]
        gone = submarine(
            running,
            """answer([plain(serves.delete_serve("iris", 2, async_req=False)), plain(serves.delete_serve("iris", 2, async_req=False))])""",
        )
        assert [each["success"] for each in gone] == [True, True]
        assert [ask(url, {"instances": FLOWERS})[0] for url in urls] == [200, 404, 200]

    def test_what_is_refused(self, running: Running) -> None:
        """Unknown models, versions and wrong ones are errors in the envelope, which the client can read (S3, S4, R2, R6, R12)."""
        register(running)
        register(running, "hopeless", "broken")
        answers = submarine(
            running,
            """
answer({
    "unknown model": refused(serves.create_serve, "rose", 1, async_req=False),
    "unknown version": refused(serves.create_serve, "iris", 7, async_req=False),
    "no name": refused(serves.serve_api.create_serve, serve_spec={"modelVersion": 1}),
    "no version": refused(serves.serve_api.create_serve, serve_spec={"modelName": "iris"}),
    "zero": refused(serves.create_serve, "iris", 0, async_req=False),
    "fraction": refused(serves.create_serve, "iris", 1.7, async_req=False),
    "truth": refused(serves.create_serve, "iris", True, async_req=False),
    "number as name": refused(serves.create_serve, 5, 1, async_req=False),
    "stop unknown": refused(serves.delete_serve, "rose", 1, async_req=False),
    "broken": refused(serves.create_serve, "hopeless", 1, async_req=False),
    "get": refused(models.get_registered_model, "rose"),
    "get version": refused(versions.get_model_version, "iris", 9),
    "delete version": refused(versions.delete_model_version, "iris", 9),
    "delete": refused(models.delete_registered_model, "rose"),
    "twice": refused(models.create_registered_model, registered_model_entity={"name": "iris"}),
    "path": refused(models.create_registered_model, registered_model_entity={"name": "../iris"}),
})
""",
        )
        wanted = {
            "unknown model": 404, "unknown version": 404, "no name": 400, "no version": 400, "zero": 400, "fraction": 400, "truth": 400,
            "number as name": 400, "stop unknown": 404, "get": 404, "get version": 404, "delete version": 404, "delete": 404, "path": 400,
        }  # fmt: skip
        for case, (status, body) in answers.items():
            if case in wanted:
                assert status == wanted[case], (case, status, body)
            assert list(body) == ENVELOPE, (case, body)
            assert (body["code"], body["success"], body["result"], body["attributes"]) == (status, False, None, {}), (case, body)
        assert answers["twice"][0] in (400, 409)
        assert 400 <= answers["broken"][0] < 600
        assert "hopeless" in answers["broken"][1]["message"]
        assert "modelName" in answers["no name"][1]["message"]
        assert "modelVersion" in answers["no version"][1]["message"]

    def test_tags_stages_and_names(self, running: Running) -> None:
        """Tags, descriptions, stages and a new name, as the client's other calls set them; a served model is not deleted (406)."""
        register(running)
        seen = submarine(
            running,
            """
models.create_registered_model_tag(name="iris", tag="flowers")
versions.create_model_version_tag(name="iris", version="1", tag="good")
versions.update_model_version(model_version_entity={"name": "iris", "version": 1, "currentStage": "Developing", "description": "first"})
one = plain(versions.get_model_version("iris", 1))["result"]
models.update_registered_model("iris", registered_model_entity={"name": "lily", "description": "renamed"})
other = plain(models.get_registered_model("lily"))["result"]
models.delete_registered_model_tag(name="lily", tag="flowers")
versions.delete_model_version_tag(name="lily", version="1", tag="good")
bare = [plain(models.get_registered_model("lily"))["result"]["tags"], plain(versions.get_model_version("lily", 1))["result"]["tags"]]
serves.create_serve("lily", 1, async_req=False)
kept = refused(models.delete_registered_model, "lily")
serves.delete_serve("lily", 1, async_req=False)
gone = refused(models.delete_registered_model, "lily")
answer([one, other, bare, kept, gone, plain(models.list_registered_models())["result"], models.ping3(), versions.ping1()])
""",
        )
        one, other, bare, kept, gone, left, *pings = seen
        assert (one["currentStage"], one["description"], one["tags"], one["dataset"]) == ("Developing", "first", ["good"], "fisher")
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", one["creationTime"])
        assert re.fullmatch(r"[0-9a-f]{32}", one["id"])
        assert (other["name"], other["description"], other["tags"]) == ("lily", "renamed", ["flowers"])
        assert bare == [[], []]
        assert (kept[0], gone[0], left) == (406, 0, [])
        assert ["Pong" in str(ping) for ping in pings] == [True, True]

    def test_the_seeds_own_commands(self, running: Running, root: Path) -> None:
        """The documented curl commands, trailing commas and all, word for word but for the port (S10, R5)."""
        register(running, "simple", "iris")
        body = '\n{\n  "modelName": "simple", \n  "modelVersion":1, \n}\n'
        words = ["curl", "-s", "-H", "Content-Type: application/json", "-d", body, f"{running.url}/api/v1/serve"]
        made = json.loads(subprocess.run([*words, "-X", "POST"], capture_output=True, check=True, timeout=60).stdout)
        assert list(made) == ENVELOPE
        url = made["result"]["url"]
        assert made == {
            "status": "OK", "code": 200, "success": True, "message": "Create a serve instance", "result": {"url": url}, "attributes": {},
        }  # fmt: skip
        assert ask(url, {"instances": FLOWERS})[0] == 200
        gone = json.loads(subprocess.run([*words, "-X", "DELETE"], capture_output=True, check=True, timeout=60).stdout)
        assert gone == {
            "status": "OK", "code": 200, "success": True, "message": "Delete the model serve instance", "result": None, "attributes": {},
        }  # fmt: skip
        assert ask(url, {"instances": FLOWERS})[0] == 404

    def test_sources_outside_the_roots(self, running: Running, tmp_path: Path, root: Path) -> None:
        """A base folder must lie in an allowed root and hold a model: no client chooses other files of this machine (R8, R11)."""
        build.iris(tmp_path / "elsewhere" / "model.onnx")
        (root / "link").symlink_to(tmp_path / "elsewhere")
        (root / "empty").mkdir()
        answers = submarine(
            running,
            """
models.create_registered_model(registered_model_entity={"name": "iris"})
answer([
    refused(versions.create_model_version, base_dir=base, model_version_entity={"name": "iris", "userId": "", "experimentId": "e"})
    for base in given["bases"]
])
""",
            bases=[str(tmp_path / "elsewhere"), "../elsewhere", "link", "iris/../../elsewhere", "empty", "nothing", "/etc", "file:///etc"],
        )
        assert [status for status, _ in answers] == [400] * 8, answers


class TestMlflow:
    def test_a_logged_model_is_deployable(self, running: Running) -> None:
        """`log_model(..., registered_model_name=...)` against our server, deployed by Submarine's client, called by name of column (R10)."""
        seen = mlflow(
            running,
            """
import pandas, sklearn.linear_model, sklearn.datasets
x, y = sklearn.datasets.load_iris(return_X_y=True, as_frame=True)
fitted = sklearn.linear_model.LogisticRegression(max_iter=500).fit(x, y)
with mlflow.start_run():
    described = mlflow.models.infer_signature(x, fitted.predict(x))
    needs = ["scikit-learn"]  # otherwise it is found out in a process of its own
    mlflow.sklearn.log_model(fitted, name="model", registered_model_name="flowers", signature=described, pip_requirements=needs)
version = client.get_model_version("flowers", "1")
few = x.iloc[[0, 60, 120]]
answer([version.status, version.current_stage, [str(each) for each in fitted.predict(few)], list(few.columns), few.values.tolist()])
""",
        )
        status, stage, expected, columns, rows = seen
        assert (status, stage) == ("READY", "None")
        listed = submarine(running, 'answer(plain(versions.get_model_version("flowers", 1))["result"])')
        assert (listed["modelType"], listed["currentStage"]) == ("sklearn", listed["currentStage"])
        url = deploy(running, "flowers", 1)
        back = [*columns[::-1], "colour"]
        shuffled = {"columns": back, "data": [[*row[::-1], "red"] for row in rows]}
        for body in ({"dataframe_split": shuffled}, {"dataframe_records": [dict(zip(columns, row, strict=True)) for row in rows]}):
            code, answer = ask(url, body)
            assert code == 200, answer
            assert [str(each) for each in answer["predictions"]] == expected
        code, answer = ask(url, {"dataframe_split": {"columns": columns[:3], "data": [row[:3] for row in rows]}})
        assert (code, answer["error_code"]) == (400, answer["error_code"])
        assert columns[3] in answer["message"]
        loaded = mlflow(
            running,
            """
model = mlflow.pyfunc.load_model("models:/flowers/1")
import pandas
answer([client.get_model_version("flowers", "1").current_stage,
    [str(each) for each in model.predict(pandas.DataFrame(given["rows"], columns=given["columns"]))]])
""",
            rows=rows,
            columns=columns,
        )
        assert loaded == ["Production", expected]

    def test_the_registry(self, running: Running, root: Path) -> None:
        """Create, get, search, update, rename, alias, stage, tag and delete, as the client's calls do them (R10, R14)."""
        seen = mlflow(
            running,
            """
source = given["source"]
client.create_registered_model("a", tags={"team": "x"}, description="first")
client.create_registered_model("b")
one = client.create_model_version("a", source, description="v1", tags={"k": "v"})
two = client.create_model_version("a", "file://" + source)
client.set_registered_model_alias("a", "champion", "2")
client.set_registered_model_tag("a", "owner", "me")
client.delete_registered_model_tag("a", "team")
client.set_model_version_tag("a", "1", "more", "1")
client.delete_model_version_tag("a", "1", "k")
client.update_model_version("a", "1", description="changed")
client.transition_model_version_stage("a", "1", "Staging")
client.transition_model_version_stage("a", "2", "Staging", archive_existing_versions=True)
a = client.get_registered_model("a")
result = {
    "a": [a.name, a.description, dict(a.tags), {k: str(v) for k, v in a.aliases.items()}],
    "versions": sorted([v.version, v.current_stage, v.description, dict(v.tags), v.status] for v in client.search_model_versions("name='a'")),
    "champion": client.get_model_version_by_alias("a", "champion").version,
    "uri": client.get_model_version_download_uri("a", "1"),
    "names": [m.name for m in client.search_registered_models()],
    "like": [m.name for m in client.search_registered_models("name LIKE 'a%'")],
    "latest": [[v.version, v.current_stage] for v in client.get_latest_versions("a", ["Staging"])],
    "errors": [
        refused(client.create_registered_model, "a"),
        refused(client.get_registered_model, "nobody"),
        refused(client.get_model_version, "a", "9"),
        refused(client.create_registered_model, "x/y"),
        refused(client.create_model_version, "a", "/etc"),
        refused(client.transition_model_version_stage, "a", "1", "Sideways"),
        refused(client.get_model_version_by_alias, "a", "nobody"),
        refused(client.create_model_version, "nobody", source),
    ],
}
client.delete_registered_model_alias("a", "champion")
client.rename_registered_model("a", "c")
client.delete_model_version("c", "1")
result["after"] = [sorted(v.version for v in client.search_model_versions("name='c'")), dict(client.get_registered_model("c").aliases)]
client.delete_registered_model("c")
result["left"] = [m.name for m in client.search_registered_models()]
answer(result)
""",
            source=str(root / "iris"),
        )
        assert seen["a"] == ["a", "first", {"owner": "me"}, {"champion": "2"}]
        assert seen["versions"] == [
            ["1", "Archived", "changed", {"more": "1"}, "READY"],
            ["2", "Staging", seen["versions"][1][2], {}, "READY"],
        ]
        assert str(seen["champion"]) == "2"
        assert Path(seen["uri"].removeprefix("file://")).exists()
        assert (seen["names"], seen["like"], seen["latest"]) == (["a", "b"], ["a"], [["2", "Staging"]])
        assert [code for code, _ in seen["errors"]] == [
            "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE",
            "INVALID_PARAMETER_VALUE", "INVALID_PARAMETER_VALUE", "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST",
        ]  # fmt: skip
        assert seen["after"] == [["2"], {}]
        assert seen["left"] == ["b"]

    def test_one_registry(self, running: Running, root: Path) -> None:
        """What MLflow registers Submarine lists, and the reverse; stages of both are shown as they were given (R9, R10)."""
        register(running, "from-submarine")
        mlflow(running, 'mlflow.register_model(given["source"], "from-mlflow")\nanswer(None)', source=str(root / "iris"))
        listed = submarine(running, 'answer(sorted(each["name"] for each in plain(models.list_registered_models())["result"]))')
        assert listed == ["from-mlflow", "from-submarine"]
        url = deploy(running, "from-mlflow", 1)
        assert ask(url, {"instances": FLOWERS})[0] == 200
        submarine(
            running,
            'versions.update_model_version(model_version_entity={"name": "from-submarine", "version": 1, "currentStage": "Developing"})\nanswer(0)',
        )
        seen = mlflow(
            running,
            'answer([client.get_model_version(name, "1").current_stage for name in ("from-mlflow", "from-submarine")])',
        )
        assert seen == ["Production", "Developing"]


def test_everything_is_there_after_a_restart(tmp_path: Path, root: Path, store: list[str]) -> None:
    """Killed, not stopped: registry, deployments and urls are as before; what was undeployed stays away."""
    data = tmp_path / "data"

    @contextmanager
    def started(port: int = 0) -> Iterator[Running]:
        with serving(data, "--model-root", str(root), *store, "-p", str(port)) as server:
            yield server

    with started() as first:
        register(first, count=2)
        one, two = deploy(first, "iris", 1), deploy(first, "iris", 2)
        submarine(first, 'serves.delete_serve("iris", 1, async_req=False)\nanswer(0)')
        port = first.port
        first.process.kill()
        first.process.wait(30)
    with started(port):
        assert ask(two, {"instances": FLOWERS})[0] == 200
        assert ask(one, {"instances": FLOWERS})[0] == 404
