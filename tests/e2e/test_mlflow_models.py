"""MLflow's model folders behind the real command, asked through every protocol that is there: columns by name, whoever asks."""

import json
from pathlib import Path

import requests

from tests.e2e.running import run, serving
from tests.models import mlflow_folders as made

ROW = dict(zip(made.FLOWER, (6.6, 3.0, 5.6, 2.0), strict=True))


def v2(url: str, model: str, **columns: list[float]) -> requests.Response:
    inputs = [{"name": name, "shape": [len(data)], "datatype": "FP64", "data": data} for name, data in columns.items()]
    return requests.post(f"{url}/v2/models/{model}/infer", json={"inputs": inputs}, timeout=30)


def test_columns_through_every_protocol(tmp_path: Path) -> None:
    """V2 sends a tensor per column, TensorFlow Serving and Tungsten rows; who has the whole matrix sends that."""
    folder = made.flowers(tmp_path / "flowers")
    with serving(tmp_path / "data", str(folder)) as server:
        described = requests.get(f"{server.url}/v2/models/flowers", timeout=30).json()
        assert [(each["name"], each["datatype"], each["shape"]) for each in described["inputs"]] == [(n, "FP64", [-1]) for n in made.FLOWER]
        assert v2(server.url, "flowers", **{name: [value, value] for name, value in ROW.items()}).json()["outputs"] == [
            {"name": "predict", "shape": [2], "datatype": "INT64", "data": [2, 2]}
        ]
        matrix = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": list(ROW.values())}]}
        assert requests.post(f"{server.url}/v2/models/flowers/infer", json=matrix, timeout=30).json()["outputs"][0]["data"] == [2]
        predict = f"{server.url}/v1/models/flowers:predict"
        assert requests.post(predict, json={"instances": [ROW]}, timeout=30).json() == {"predictions": [2]}
        assert requests.post(predict, json={"inputs": {name: [value] for name, value in ROW.items()}}, timeout=30).json() == {
            "outputs": [2]
        }
        bare = {"signature_name": "matrix", "instances": [list(ROW.values())]}
        assert requests.post(predict, json=bare, timeout=30).json() == {"predictions": [2]}
        tungsten = requests.post(f"{server.url}/predict", json=[ROW, ROW], timeout=30).json()
        assert tungsten["outputs"] == [{"predict": 2}, {"predict": 2}]


def test_in_an_mlserver_repository(tmp_path: Path) -> None:
    """model-settings.json may stand beside the MLmodel or above its folder; the folder must be one, and code is refused as everywhere."""

    def settings(folder: Path, uri: str) -> None:
        told = {"name": folder.name, "implementation": "mlserver_mlflow.MLflowRuntime", "parameters": {"uri": uri, "version": "v2"}}
        (folder / "model-settings.json").write_text(json.dumps(told))

    root = tmp_path / "models"
    settings(made.flowers(root / "beside"), "./")
    made.flowers(root / "above" / "model")
    settings(root / "above", "./model")
    made.own_code(root / "code" / "model")
    settings(root / "code", "./model")
    (root / "none" / "model").mkdir(parents=True)
    settings(root / "none", "./model")
    with serving(tmp_path / "data", str(root)) as server:
        for model in ("beside", "above"):
            answer = v2(server.url, model, **{name: [value] for name, value in ROW.items()}).json()
            assert (answer["model_version"], answer["outputs"][0]["data"]) == ("v2", [2])
        assert "--trust-pickle" in server.output
        assert "expected the folder of an MLflow model" in server.output


def test_wrong_columns(tmp_path: Path) -> None:
    """A client's mistake is a client's error, which names the column."""
    folder = made.flowers(tmp_path / "flowers")
    with serving(tmp_path / "data", str(folder)) as server:
        missing = v2(server.url, "flowers", sepal_length=[1.0])
        assert missing.status_code == 400
        assert "sepal_width" in missing.json()["error"]
        text = requests.post(f"{server.url}/v1/models/flowers:predict", json={"instances": [{**ROW, "petal_width": "secret"}]}, timeout=30)
        assert text.status_code == 400
        assert requests.post(f"{server.url}/predict", json=[{**ROW, "petal_width": None}], timeout=30).status_code == 422
        assert v2(server.url, "flowers", **{name: [value] for name, value in ROW.items()}).status_code == 200


def test_code_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Only with the operator's word; then tables go in, columns come out, parameters are read, and failures are the model's."""
    folder = made.own_code(tmp_path / "doubling")
    refused = run(tmp_path / "data", "serve", str(folder), "--port", "0")
    assert refused.returncode == 1
    assert "--trust-pickle" in refused.stdout + refused.stderr
    with serving(tmp_path / "data", str(folder), "--trust-pickle", "--environments", "never") as server:
        answer = v2(server.url, "doubling", x=[1.0, 2.5]).json()
        assert {each["name"]: each["data"] for each in answer["outputs"]} == {"twice": [2.0, 5.0], "text": ["1", "2.5"]}
        body = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [3.0]}], "parameters": {"times": 10}}
        times = requests.post(f"{server.url}/v2/models/doubling/infer", json=body, timeout=30).json()
        assert times["outputs"][0]["data"] == [30.0]
        body["parameters"] = {"times": "many"}
        assert requests.post(f"{server.url}/v2/models/doubling/infer", json=body, timeout=30).status_code == 400
        rows = requests.post(f"{server.url}/v1/models/doubling:predict", json={"instances": [{"x": 1.5, "note": "hi"}]}, timeout=30)
        assert rows.json() == {"predictions": [{"twice": 3.0, "text": "1.5"}]}
