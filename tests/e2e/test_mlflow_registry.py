"""MLflow's own client against running servers: artifacts, runs, pages, keys, several workers, and servers that are killed.

What the registry alone does, and models that are deployed afterwards, is in test_registry_clients.py.
"""

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests import clients
from tests.e2e.plain import Plain, until
from tests.e2e.running import Running, run, serving
from tests.models import build

API = "/api/2.0/mlflow"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
CLIENT = """
import mlflow, os, pathlib, tempfile
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
mlflow.set_tracking_uri(given["url"])
client = MlflowClient()
def refused(call, *words, **named):
    try:
        return ["", str(call(*words, **named))]
    except MlflowException as error:
        return [error.error_code, error.message]
def fitted():
    import pandas, sklearn.linear_model, sklearn.datasets
    x, y = sklearn.datasets.load_iris(return_X_y=True, as_frame=True)
    return sklearn.linear_model.LogisticRegression(max_iter=500).fit(x, y), x
"""


def mlflow(server: Running, script: str, *, environment: dict[str, str] | None = None, **given: Any) -> Any:
    return clients.run("mlflow", CLIENT + script, url=server.url, environment=environment, **given)


def test_artifacts_go_in_and_come_back(tmp_path: Path) -> None:
    """Texts, folders and large files of a run, through two workers: listed, fetched, and kept inside of their folder."""
    large = os.urandom(20 << 20)
    (tmp_path / "large.bin").write_bytes(large)
    with serving(tmp_path / "data", "--workers", "2") as server:
        seen = mlflow(
            server,
            """
with mlflow.start_run() as run:
    run_id = run.info.run_id
    mlflow.log_text("héllo", "notes/a b.txt")
    mlflow.log_dict({"a": [1]}, "settings.json")
    mlflow.log_artifact(given["large"])
    folder = pathlib.Path(tempfile.mkdtemp())
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "x.bin").write_bytes(b"")
    (folder / "deep" / "100% é.txt").write_text("x")
    mlflow.log_artifacts(str(folder), "tree")
back = pathlib.Path(mlflow.artifacts.download_artifacts(run_id=run_id))
missing = refused(mlflow.artifacts.download_artifacts, run_id=run_id, artifact_path="nothing")
answer([
    sorted(str(each.relative_to(back)) for each in back.rglob("*") if each.is_file()),
    mlflow.artifacts.load_text(run.info.artifact_uri + "/notes/a b.txt"),
    mlflow.artifacts.load_dict(run.info.artifact_uri + "/settings.json"),
    (back / "large.bin").read_bytes() == pathlib.Path(given["large"]).read_bytes(),
    [[each.path, each.is_dir, each.file_size] for each in client.list_artifacts(run_id)],
    [each.path for each in client.list_artifacts(run_id, "tree/deep")],
    run.info.artifact_uri,
])
""",
            large=str(tmp_path / "large.bin"),
            environment={"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"},
        )
    files, text, document, same, listed, deep, uri = seen
    assert files == ["large.bin", "notes/a b.txt", "settings.json", "tree/deep/100% é.txt", "tree/deep/er/x.bin"]
    assert (text, document, same) == ("héllo", {"a": [1]}, True)
    assert listed == [["large.bin", False, len(large)], ["notes", True, None], ["settings.json", False, listed[2][2]], ["tree", True, None]]
    assert deep == ["tree/deep/100% é.txt", "tree/deep/er"]
    place = tmp_path / "data" / "dragoman" / "artifacts" / uri.removeprefix("mlflow-artifacts:/")
    assert (place / "large.bin").read_bytes() == large


def test_a_logged_model_comes_back_in_every_way(tmp_path: Path) -> None:
    """By version, alias, stage, as the latest, by its own id, and through the run that made it; copied and registered again."""
    with serving(tmp_path / "data", "--workers", "2") as server:
        seen = mlflow(
            server,
            """
model, x = fitted()
mlflow.set_experiment("flowers")
with mlflow.start_run() as run:
    mlflow.log_metric("accuracy", 0.9)
    logged = mlflow.sklearn.log_model(model, name="model", registered_model_name="iris", params={"depth": 3}, pip_requirements=["scikit-learn"])
client.set_registered_model_alias("iris", "champion", "1")
client.transition_model_version_stage("iris", "1", "Staging")
again = mlflow.register_model(f"runs:/{run.info.run_id}/model", "other")
copied = client.copy_model_version("models:/iris@champion", "copy")
expected = [int(each) for each in model.predict(x.head(5))]
uris = ["models:/iris/1", "models:/iris@champion", "models:/iris/Staging", "models:/iris/latest", logged.model_uri, "models:/other/1",
        "models:/copy/1", f"runs:/{run.info.run_id}/model"]
described = [pathlib.Path(mlflow.artifacts.download_artifacts(uri), "MLmodel").read_text() for uri in uris]
answer([
    [int(each) for each in mlflow.pyfunc.load_model("models:/iris@champion").predict(x.head(5))] == expected,
    [uri for uri, text in zip(uris, described) if logged.model_id not in text],
    client.get_model_version("iris", "1").source,
    client.get_model_version("iris", "1").run_id == run.info.run_id,
    [again.version, again.status, copied.version],
    [model.status, dict(model.params), model.source_run_id == run.info.run_id]
        if (model := client.get_logged_model(logged.model_id)) else None,
    [each.model_id == logged.model_id for each in client.search_logged_models([run.info.experiment_id])],
    [each.model_id == logged.model_id for each in client.get_run(run.info.run_id).outputs.model_outputs],
    sorted(os.listdir(mlflow.artifacts.download_artifacts("models:/iris/1")))[:1],
])
""",
        )
    same, wrong, source, of_run, versions, logged, found, outputs, files = seen
    assert (same, wrong) == (True, [])
    assert source.startswith("models:/m-")
    assert of_run
    assert versions[1:] == ["READY", 1] or versions[1:] == ["READY", "1"]
    assert logged[0] == "READY"
    assert (logged[1]["depth"], logged[2]) == ("3", True)
    assert (found, outputs, files) == ([True], [True], ["MLmodel"])


def test_runs_keep_what_training_writes(tmp_path: Path) -> None:
    """By hand and by autologging: parameters, metrics, tags, inputs; found again by search; the server is another one afterwards."""
    with serving(tmp_path / "data") as server:
        mlflow(
            server,
            """
import pandas, sklearn.linear_model, sklearn.datasets
x, y = sklearn.datasets.load_iris(return_X_y=True, as_frame=True)
mlflow.set_experiment("by hand")
for depth in (1, 2, 3):
    with mlflow.start_run(run_name=f"depth {depth}", tags={"team": "blue"}):
        mlflow.log_params({"depth": depth, "kind": "tree"})
        for step in range(3):
            mlflow.log_metrics({"loss": 1.0 / (depth + step), "odd": float("nan")}, step=step)
        mlflow.log_input(mlflow.data.from_pandas(x.head(3), name="iris"), context="training")
mlflow.set_experiment("by itself")
mlflow.sklearn.autolog(log_datasets=False, log_models=False)
sklearn.linear_model.LogisticRegression(max_iter=300).fit(x, y)
mlflow.flush_async_logging()
answer(0)
""",
        )
    with serving(tmp_path / "data") as server:
        seen = mlflow(
            server,
            """
found = mlflow.search_runs(experiment_names=["by hand"], filter_string="metrics.loss < 0.3 and params.kind = 'tree' and tags.team = 'blue'",
                           order_by=["metrics.loss ASC"], output_format="list")
best = found[0]
auto, = mlflow.search_runs(experiment_names=["by itself"], output_format="list")
again = refused(client.log_param, best.info.run_id, "depth", 7)
answer([
    [each.info.run_name for each in found],
    dict(best.data.params), best.data.metrics["loss"], str(best.data.metrics["odd"]), best.info.status,
    [each.dataset.name for each in best.inputs.dataset_inputs],
    [auto.data.params["max_iter"], "training_score" in auto.data.metrics, auto.info.status],
    again[0],
    [each.name for each in client.search_experiments(order_by=["name ASC"])],
    [len(client.search_runs([best.info.experiment_id], max_results=2)), mlflow.last_active_run() is None],
])
""",
        )
    names, params, loss, odd, status, inputs, auto, again, experiments, _ = seen
    assert names == ["depth 3", "depth 2"]
    assert params == {"depth": "3", "kind": "tree"}
    assert (loss, odd, status, inputs) == (0.2, "nan", "FINISHED", ["iris"])
    assert auto == ["300", True, "FINISHED"]
    assert again == "INVALID_PARAMETER_VALUE"
    assert experiments == ["Default", "by hand", "by itself"]


def test_many_models_are_paged_and_filtered(tmp_path: Path) -> None:
    """Also while others make and remove some: nothing that stays is left out or comes twice."""
    build.iris(tmp_path / "root" / "iris" / "model.onnx")
    with serving(tmp_path / "data", "--model-root", str(tmp_path / "root"), "--workers", "2") as server:
        prompt = {"name": "prompt", "tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}]}
        assert Plain(server.port).post(f"{API}/registered-models/create", prompt).status == 200
        seen = mlflow(
            server,
            """
for number in range(30):
    client.create_registered_model(f"m{number:02d}", tags={"team": "blue" if number % 2 else "red"})
for number in range(12):
    client.create_model_version("m00", "iris", tags={"k": str(number)}, run_id="r1" if number < 3 else None)
def everything(search, **query):
    found, token = [], None
    while True:
        page = search(page_token=token, **query)
        found += page
        token = page.token
        if not token:
            return found
        if len(found) == 7:
            client.create_registered_model("a")
            client.delete_registered_model("m03")
answer({
    "all": [each.name for each in everything(client.search_registered_models, max_results=7)],
    "down": [each.name for each in client.search_registered_models(order_by=["name DESC"], max_results=3)],
    "blue": len(client.search_registered_models("tags.team = 'blue'")),
    "like": [each.name for each in client.search_registered_models("name ILIKE 'M1%' and name != 'm10' and tag.team = 'red'")],
    "versions": [int(each.version) for each in everything(client.search_model_versions, filter_string="name='m00'", max_results=5)],
    "some": [int(each.version) for each in client.search_model_versions("name='m00' and version_number > 9", order_by=["version_number ASC"])],
    "run": [int(each.version) for each in client.search_model_versions("run_id = 'r1'")],
    "tag": [int(each.version) for each in client.search_model_versions("tags.k = '5'")],
    "wrong": [refused(client.search_registered_models, each)[0] for each in ("size > 1", "name ~ 'x'", "name = 'x", "name = 'a' or name = 'b'")],
})
""",
        )
    assert seen["all"] == [f"m{number:02d}" for number in range(30)]
    assert seen["down"] == ["m29", "m28", "m27"]
    assert seen["blue"] == 14
    assert seen["like"] == ["m12", "m14", "m16", "m18"]
    assert seen["versions"] == list(range(12, 0, -1))
    assert seen["some"] == [10, 11, 12]
    assert seen["run"] == [3, 2, 1]
    assert seen["tag"] == [6]
    assert seen["wrong"] == ["INVALID_PARAMETER_VALUE"] * 4


def test_clients_that_register_at_once_get_numbers_of_their_own(tmp_path: Path) -> None:
    """Through several workers: none fails, and none is given twice."""
    build.iris(tmp_path / "root" / "iris" / "model.onnx")
    with serving(tmp_path / "data", "--model-root", str(tmp_path / "root"), "--workers", "3") as server:
        plain = Plain(server.port)
        assert plain.post(f"{API}/registered-models/create", {"name": "iris"}).status == 200

        def register(_: int) -> str:
            made = plain.post(f"{API}/model-versions/create", {"name": "iris", "source": "iris"})
            assert made.status == 200, made
            return str(made.json()["model_version"]["version"])

        def found(name: str) -> int:
            return plain.post(f"{API}/experiments/create", {"name": name}).status

        with ThreadPoolExecutor(8) as pool:
            assert sorted(pool.map(register, range(24)), key=int) == [str(number) for number in range(1, 25)]
            assert sorted(pool.map(found, ["same"] * 6 + ["a", "b", "c"])) == [200] * 4 + [400] * 5


def test_keys_are_sent_as_mlflow_sends_them(tmp_path: Path) -> None:
    """As token or as password; without one only the registry can be read, and refusals come at once."""
    build.iris(tmp_path / "root" / "iris" / "model.onnx")
    folder = tmp_path / "data"
    with serving(folder, "--model-root", str(tmp_path / "root"), "--require-key") as server:
        admin = run(folder, "keys", "add", "boss", "--scope", "admin").stdout.split()[-1]
        infer = run(folder, "keys", "add", "caller", "--scope", "infer").stdout.split()[-1]
        seen = mlflow(
            server,
            """
def everything(name, **environment):
    for each in ("TOKEN", "USERNAME", "PASSWORD"):
        os.environ.pop(f"MLFLOW_TRACKING_{each}", None)
    os.environ.update({f"MLFLOW_TRACKING_{each}": value for each, value in environment.items()})
    started = refused(mlflow.start_run)[0]
    mlflow.end_run()
    return [
        refused(client.create_registered_model, name)[0],
        refused(client.create_model_version, name, "iris")[0],
        refused(client.search_registered_models)[0],
        refused(client.get_model_version_download_uri, "first", "1")[0],
        started,
    ]
answer([
    everything("first", TOKEN=given["admin"]),
    everything("second", USERNAME="anybody", PASSWORD=given["admin"]),
    everything("third"),
    everything("third", TOKEN=given["infer"]),
    everything("third", USERNAME="boss", PASSWORD="wrong"),
])
""",
            admin=admin,
            infer=infer,
        )
        closed = ["UNAUTHENTICATED", "UNAUTHENTICATED", "", "UNAUTHENTICATED", "UNAUTHENTICATED"]
        weak = [code and "PERMISSION_DENIED" for code in closed]
        assert seen == [[""] * 5, [""] * 5, closed, weak, closed]
        plain = Plain(server.port)
        for method in ("GET", "PUT", "DELETE"):
            assert plain.call(method, f"{FILES}/x", body=b"x" if method == "PUT" else None).status == 401
        assert plain.call("PUT", f"{FILES}/x", body=b"x", headers={"Authorization": f"Bearer {admin}"}).status == 200


def test_what_was_answered_is_there_after_a_kill(tmp_path: Path) -> None:
    """Models, runs and artifacts; an upload that was under way is not, and leaves nothing that anybody sees."""
    folder = tmp_path / "data"
    with serving(folder) as server:
        seen = mlflow(
            server,
            """
model, x = fitted()
with mlflow.start_run() as run:
    mlflow.log_param("p", 1)
    mlflow.sklearn.log_model(model, name="model", registered_model_name="iris", pip_requirements=["scikit-learn"])
answer([run.info.run_id, [int(each) for each in model.predict(x.head(5))], x.head(5).to_dict("list")])
""",
        )
        run_id, expected, rows = seen
        incoming = folder / "dragoman" / "artifacts" / ".incoming"
        with socket.create_connection(("127.0.0.1", server.port)) as half:
            half.sendall(b"PUT %b/half/done HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 90000000\r\n\r\n" % FILES.encode())
            half.sendall(b"x" * (20 << 20))
            until(lambda: any(each.stat().st_size for each in incoming.iterdir()), what="the upload")
            server.process.kill()
            server.process.wait(30)
    with serving(folder) as server:
        plain = Plain(server.port)
        assert plain.get(f"{FILES}/half/done").status == 404
        assert [each["path"] for each in plain.get(FILES).json()["files"]] == ["0"]
        assert plain.get(f"{FILES}/.incoming/x").status == 400
        assert len(list(incoming.iterdir())) == 1
        for file in incoming.iterdir():
            os.utime(file, (1.0, 1.0))
        assert plain.call("PUT", f"{FILES}/new", body=b"x").status == 200
        assert list(incoming.iterdir()) == []
        found = mlflow(
            server,
            """
import pandas
model = mlflow.pyfunc.load_model("models:/iris/1")
answer([client.get_run(given["run"]).data.params, [int(each) for each in model.predict(pandas.DataFrame(given["rows"]))]])
""",
            run=run_id,
            rows=rows,
        )
    assert found == [{"p": "1"}, expected]


def test_a_client_that_leaves_ends_its_upload(tmp_path: Path) -> None:
    """The server gives back what it held of it."""
    with serving(tmp_path / "data") as server:
        incoming = tmp_path / "data" / "dragoman" / "artifacts" / ".incoming"
        with socket.create_connection(("127.0.0.1", server.port)) as half:
            half.sendall(b"PUT %b/half/done HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 90000000\r\n\r\n" % FILES.encode())
            half.sendall(b"x" * (20 << 20))
            until(lambda: incoming.exists() and any(each.stat().st_size for each in incoming.iterdir()), what="the upload")
        until(lambda: not list(incoming.iterdir()), what="the end of the upload")
        assert Plain(server.port).get(f"{FILES}/half/done").status == 404
