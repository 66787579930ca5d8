"""MLflow's experiments, runs and logged models over HTTP: what logging a model takes."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.dialects.mlflow.site import Site


def new_run(site: Site, **fields: Any) -> str:
    """The id of a new run in the default experiment."""
    made = site.post("runs/create", experiment_id="0", user_id="u", run_name="r", start_time=5, **fields)
    assert made.status == 200, made
    return str(made.json["run"]["info"]["run_id"])


def new_model(site: Site, **fields: Any) -> str:
    """The id of a new logged model."""
    made = site.post("logged-models", experiment_id="0", **fields)
    assert made.status == 200, made
    return str(made.json["model"]["info"]["model_id"])


def found_runs(site: Site, **query: Any) -> list[str]:
    found = site.post("runs/search", **{"experiment_ids": ["0"], **query})
    assert found.status == 200, found
    return [each["info"]["run_name"] for each in found.json["runs"]]


# --- experiments ---


def test_experiments_are_made_found_and_changed(tmp_path: Path) -> None:
    """As set_experiment asks for them: by name first, then by id."""
    site = Site(tmp_path)
    assert site.get("experiments/get", experiment_id="0").json["experiment"] == {
        "experiment_id": "0",
        "name": "Default",
        "artifact_location": "mlflow-artifacts:/0",
        "lifecycle_stage": "active",
        "creation_time": 0,
        "last_update_time": 0,
    }
    missing = site.get("experiments/get-by-name", experiment_name="first")
    assert (missing.status, missing.code) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert site.post("experiments/create", name="first", tags=[{"key": "a", "value": "b"}]).json == {"experiment_id": "1"}
    taken = site.post("experiments/create", name="first")
    assert (taken.status, taken.code) == (400, "RESOURCE_ALREADY_EXISTS")
    found = site.get("experiments/get-by-name", experiment_name="first").json["experiment"]
    assert (found["experiment_id"], found["tags"]) == ("1", [{"key": "a", "value": "b"}])
    assert site.post("experiments/update", experiment_id="1", new_name="second").json == {}
    assert site.post("experiments/set-experiment-tag", experiment_id="1", key="c", value="d").json == {}
    assert site.post("experiments/delete-experiment-tag", experiment_id="1", key="a").json == {}
    found = site.get("experiments/get", experiment_id="1").json["experiment"]
    assert (found["name"], found["tags"]) == ("second", [{"key": "c", "value": "d"}])


def test_experiments_are_searched(tmp_path: Path) -> None:
    """GET and POST, by view, filter and order."""
    site = Site(tmp_path)
    for name in ("a", "b"):
        site.post("experiments/create", name=name)
    site.post("experiments/delete", experiment_id="1")

    def names(**query: Any) -> list[str]:
        return [each["name"] for each in site.post("experiments/search", **query).json["experiments"]]

    assert set(names()) == {"Default", "b"}
    assert names(view_type="DELETED_ONLY") == ["a"]
    assert names(view_type="ALL", order_by=["name DESC"]) == ["b", "a", "Default"]
    assert names(filter="name LIKE 'b%'") == ["b"]
    assert len(site.get("experiments/search", max_results=1).json["experiments"]) == 1
    assert site.post("experiments/search", view_type="SOME").status == 400
    site.post("experiments/restore", experiment_id="1")
    assert names(filter="name = 'a'") == ["a"]


@pytest.mark.parametrize("location", ["a\nb", "a\\b", "x" * 3000, 7])
def test_places_of_artifacts_are_text(location: Any, tmp_path: Path) -> None:
    """Any URI will do; the default experiment stays."""
    site = Site(tmp_path)
    assert site.post("experiments/create", name="x", artifact_location=location).code == "INVALID_PARAMETER_VALUE"
    assert site.post("experiments/create", name="y", artifact_location="s3://bucket/a/").status == 200
    run = site.post("runs/create", experiment_id="1").json["run"]["info"]
    assert run["artifact_uri"] == f"s3://bucket/a/{run['run_id']}/artifacts"
    assert site.post("experiments/delete", experiment_id="0").status == 400


# --- runs ---


def test_a_run_is_made_and_shown(tmp_path: Path) -> None:
    """Its name is a tag, too."""
    site = Site(tmp_path)
    made = site.post("runs/create", experiment_id="0", user_id="u", run_name="r", start_time="5", tags=[{"key": "a", "value": "b"}]).json[
        "run"
    ]
    run_id = made["info"]["run_id"]
    assert made["info"] == {
        "run_id": run_id,
        "run_uuid": run_id,
        "run_name": "r",
        "experiment_id": "0",
        "user_id": "u",
        "status": "RUNNING",
        "start_time": 5,
        "artifact_uri": f"mlflow-artifacts:/0/{run_id}/artifacts",
        "lifecycle_stage": "active",
    }
    assert made["data"] == {"tags": [{"key": "a", "value": "b"}, {"key": "mlflow.runName", "value": "r"}]}
    assert site.get("runs/get", run_id=run_id).json["run"] == made
    assert site.get("runs/get", run_uuid=run_id).json["run"] == made


def test_a_run_takes_metrics_parameters_and_tags(tmp_path: Path) -> None:
    """One by one and in batches; NaN is a word."""
    site = Site(tmp_path)
    run = {"run_id": new_run(site)}
    for path, body in (
        ("log-metric", {"key": "m", "value": 1.5, "timestamp": 7, "step": 1}),
        ("log-metric", {"key": "m", "value": 0.5, "timestamp": 9, "step": 0}),
        ("log-parameter", {"key": "p", "value": "1"}),
        ("set-tag", {"key": "t", "value": "1"}),
        ("set-tag", {"key": "gone", "value": "1"}),
        ("delete-tag", {"key": "gone"}),
        (
            "log-batch",
            {
                "metrics": [{"key": "n", "value": "NaN", "timestamp": 1}, {"key": "m", "value": 2, "timestamp": 8, "step": 2}],
                "params": [{"key": "q", "value": "2"}],
                "tags": [{"key": "mlflow.runName", "value": "named"}],
            },
        ),
    ):
        assert site.post(f"runs/{path}", **run, **body).json == {}, path
    shown = site.get("runs/get", **run).json["run"]
    assert shown["data"]["metrics"] == [
        {"key": "m", "value": 2.0, "timestamp": 8, "step": 2},
        {"key": "n", "value": "NaN", "timestamp": 1, "step": 0},
    ]
    assert shown["data"]["params"] == [{"key": "p", "value": "1"}, {"key": "q", "value": "2"}]
    assert shown["data"]["tags"] == [{"key": "mlflow.runName", "value": "named"}, {"key": "t", "value": "1"}]
    assert shown["info"]["run_name"] == "named"
    history = site.get("metrics/get-history", **run, metric_key="m").json
    assert history == {"metrics": [{"key": "m", "value": 2.0, "timestamp": 8, "step": 2}]}
    assert site.get("metrics/get-history", **run, metric_key="other").json == {"metrics": []}
    changed = site.post("runs/log-parameter", **run, key="p", value="2")
    assert (changed.status, changed.code) == (400, "INVALID_PARAMETER_VALUE")


def test_a_run_tells_what_it_read_and_made(tmp_path: Path) -> None:
    """Each thing once."""
    site = Site(tmp_path)
    run = {"run_id": new_run(site)}
    dataset = {
        "tags": [{"key": "context", "value": "training"}],
        "dataset": {"name": "d", "digest": "1", "source_type": "local", "source": "{}"},
    }
    for _ in range(2):
        assert site.post("runs/log-inputs", **run, datasets=[dataset], models=[{"model_id": "m-1"}]).json == {}
        assert site.post("runs/outputs", **run, models=[{"model_id": "m-2", "step": "3"}]).json == {}
    shown = site.get("runs/get", **run).json["run"]
    assert shown["inputs"] == {"dataset_inputs": [dataset], "model_inputs": [{"model_id": "m-1"}]}
    assert shown["outputs"] == {"model_outputs": [{"model_id": "m-2", "step": 3}]}


def test_older_clients_describe_models_in_a_tag(tmp_path: Path) -> None:
    """As the original keeps it."""
    site = Site(tmp_path)
    run = {"run_id": new_run(site)}
    for number in (1, 2):
        assert site.post("runs/log-model", **run, model_json=f'{{"n": {number}}}').json == {}
    tags = {each["key"]: each["value"] for each in site.get("runs/get", **run).json["run"]["data"]["tags"]}
    assert tags["mlflow.log-model.history"] == '[{"n":1},{"n":2}]'
    assert site.post("runs/log-model", **run, model_json="{").code == "INVALID_PARAMETER_VALUE"
    assert site.post("runs/log-model", **run, model_json="[" * 500 + "]" * 500).code == "INVALID_PARAMETER_VALUE"
    for odd in ("{", "7"):
        site.post("runs/set-tag", **run, key="mlflow.log-model.history", value=odd)
        assert site.post("runs/log-model", **run, model_json="{}").status == 400


def test_a_run_ends_and_goes(tmp_path: Path) -> None:
    """A deleted one takes nothing until it is restored."""
    site = Site(tmp_path)
    run = {"run_id": new_run(site)}
    ended = site.post("runs/update", **run, status="FINISHED", end_time=9, run_name="other").json["run_info"]
    assert (ended["status"], ended["end_time"], ended["run_name"]) == ("FINISHED", 9, "other")
    assert site.post("runs/update", **run, status="DONE").code == "INVALID_PARAMETER_VALUE"
    assert site.post("runs/delete", **run).json == {}
    assert site.get("runs/get", **run).json["run"]["info"]["lifecycle_stage"] == "deleted"
    assert site.post("runs/set-tag", **run, key="a", value="b").code == "INVALID_PARAMETER_VALUE"
    assert found_runs(site) == []
    assert found_runs(site, run_view_type="DELETED_ONLY") == ["other"]
    assert site.post("runs/restore", **run).json == {}
    assert found_runs(site) == ["other"]


def test_runs_are_searched(tmp_path: Path) -> None:
    """The latest first; by attributes, parameters, metrics and tags."""
    site = Site(tmp_path)
    for number, score in enumerate((0.5, 0.9, None)):
        run = {
            "run_id": site.post("runs/create", experiment_id="0", run_name=f"r{number}", start_time=number + 1).json["run"]["info"][
                "run_id"
            ]
        }
        site.post("runs/log-parameter", **run, key="p", value=str(number))
        if score is not None:
            site.post("runs/log-metric", **run, key="acc", value=score, timestamp=1)
    assert found_runs(site) == ["r2", "r1", "r0"]
    assert found_runs(site, order_by=["metrics.acc DESC"]) == ["r1", "r0", "r2"]
    assert found_runs(site, order_by=["attributes.start_time ASC"], max_results=1) == ["r0"]
    assert found_runs(site, filter="metrics.acc > 0.6 AND params.p = '1'") == ["r1"]
    assert found_runs(site, filter="tags.mlflow.runName = 'r2'") == ["r2"]
    assert found_runs(site, filter="attributes.status = 'RUNNING' and start_time < 2") == ["r0"]
    assert found_runs(site, filter="end_time > 0") == []
    assert found_runs(site, experiment_ids=["1"]) == []


def test_unknown_runs_and_missing_fields_are_refused(tmp_path: Path) -> None:
    """404 for a run, 400 for what is missing or of the wrong type."""
    site = Site(tmp_path)
    run = new_run(site)
    for path in ("update", "delete", "restore", "log-inputs", "outputs"):
        assert site.post(f"runs/{path}", run_id="x").code == "RESOURCE_DOES_NOT_EXIST", path
        assert site.post(f"runs/{path}").code == "INVALID_PARAMETER_VALUE", path
    for path, body in (
        ("create", {"experiment_id": 5}),
        ("create", {"tags": {}}),
        ("create", {"start_time": "soon"}),
        ("log-metric", {"value": 1}),
        ("log-metric", {"key": "m"}),
        ("log-metric", {"key": "m", "value": "much"}),
        ("log-metric", {"key": "m", "value": 1, "step": 1.5}),
        ("log-parameter", {"value": "x"}),
        ("set-tag", {"key": "x" * 300, "value": "y"}),
        ("set-tag", {"key": "x", "value": "y" * 20_000}),
        ("log-batch", {"metrics": [{}]}),
        ("log-batch", {"params": ["x"]}),
        ("log-inputs", {"datasets": [{"dataset": 7}]}),
        ("log-inputs", {"models": [{}]}),
        ("outputs", {"models": {"model_id": "x"}}),
        ("log-model", {"model_json": "{"}),
        ("search", {"experiment_ids": "0"}),
        ("search", {"run_view_type": 1}),
    ):
        refused = site.post(f"runs/{path}", **{"run_id": run, **body})
        assert (refused.status, refused.code) == (400, "INVALID_PARAMETER_VALUE"), (path, body)
    assert site.get("runs/get", run_id="x").status == 404
    assert site.post("runs/create", experiment_id="77").code == "RESOURCE_DOES_NOT_EXIST"


# --- logged models ---


def test_a_logged_model_is_made_finished_and_described(tmp_path: Path) -> None:
    """What log_model does before and after it uploads the files."""
    site = Site(tmp_path)
    made = site.post(
        "logged-models",
        experiment_id="0",
        name="m",
        model_type="",
        source_run_id="r1",
        params=[{"key": "p", "value": "1"}],
        tags=[{"key": "t", "value": "1"}],
    ).json["model"]
    model_id = made["info"]["model_id"]
    assert made["info"]["status"] == "LOGGED_MODEL_PENDING"
    assert made["info"]["artifact_uri"] == f"mlflow-artifacts:/0/models/{model_id}/artifacts"
    ready = site.ask("PATCH", f"logged-models/{model_id}", {"model_id": model_id, "status": "LOGGED_MODEL_READY"}).json["model"]
    assert ready["info"]["status"] == "LOGGED_MODEL_READY"
    assert site.ask("PATCH", f"logged-models/{model_id}/tags", {"tags": [{"key": "u", "value": "2"}]}).status == 200
    assert site.ask("DELETE", f"logged-models/{model_id}/tags/t").status == 200
    assert site.post(f"logged-models/{model_id}/params", params=[{"key": "q", "value": "2"}]).json == {}
    shown = site.ask("GET", f"logged-models/{model_id}").json["model"]
    assert shown["info"]["tags"] == [{"key": "u", "value": "2"}]
    assert shown["data"] == {"params": [{"key": "p", "value": "1"}, {"key": "q", "value": "2"}]}
    assert (shown["info"]["name"], shown["info"]["source_run_id"]) == ("m", "r1")


def test_logged_models_are_searched_and_removed(tmp_path: Path) -> None:
    """A removed one is not found, unless deleted ones are asked for."""
    site = Site(tmp_path)
    first, second = (new_model(site, name=name) for name in ("a", "b"))

    def found(**query: Any) -> list[str]:
        return [each["info"]["model_id"] for each in site.post("logged-models/search", **{"experiment_ids": ["0"], **query}).json["models"]]

    assert set(found()) == {first, second}
    assert found(filter="name = 'a'") == [first]
    assert found(order_by=[{"field_name": "name", "ascending": False}]) == [second, first]
    assert site.ask("DELETE", f"logged-models/{first}").json == {}
    assert found() == [second]
    gone = site.ask("GET", f"logged-models/{first}")
    assert (gone.status, gone.code) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert site.ask("GET", f"logged-models/{first}", query={"allow_deleted": "true"}).status == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "logged-models", {}, 400),
        ("POST", "logged-models", {"experiment_id": "77"}, 404),
        ("POST", "logged-models", {"experiment_id": "0", "params": 1}, 400),
        ("GET", "logged-models/m-x", None, 404),
        ("GET", "logged-models/..", None, 404),
        ("PATCH", "logged-models/m-x", {"status": "LOGGED_MODEL_READY"}, 404),
        ("PATCH", "logged-models/m-x", {"status": "READY"}, 400),
        ("DELETE", "logged-models/m-x", None, 404),
        ("PATCH", "logged-models/m-x/tags", {"tags": []}, 404),
        ("DELETE", "logged-models/m-x/tags/a", None, 404),
        ("POST", "logged-models/m-x/params", {}, 404),
        ("POST", "logged-models/search", {"experiment_ids": 0}, 400),
        ("POST", "logged-models/search", {"order_by": [{}]}, 400),
        ("POST", "logged-models/search", {"filter": "metrics.acc > 1"}, 400),
    ],
)
def test_wrong_requests_about_logged_models_are_refused(method: str, path: str, body: Any, status: int, tmp_path: Path) -> None:
    """With 400 or 404, and a code."""
    refused = Site(tmp_path).ask(method, path, body)
    assert refused.status == status
    assert refused.code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
