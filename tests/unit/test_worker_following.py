"""A whole worker that follows its files: the start with models that are missing or broken, lists of models, and load requests in between."""

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

import dragoman
from dragoman.core.errors import ServingError
from dragoman.embed import TestClient
from tests.e2e.crowd import until
from tests.models import build

POLL: dict[str, Any] = {"poll": 0.01}


def add(base: Path, version: str) -> Path:
    """A version that appears at once, complete."""
    coming = base.parent / f"coming-{base.name}-{version}"
    build.iris(coming / "model.onnx")
    base.mkdir(parents=True, exist_ok=True)
    return coming.rename(base / version)


def serves(client: TestClient, name: str = "iris") -> list[str]:
    reply = client.get(f"/v1/models/{name}")
    statuses = reply.json().get("model_version_status", [])
    return [each["version"] for each in statuses if each["state"] == "AVAILABLE"]


def listed(file: Path, *models: str) -> str:
    file.write_text(f"model_config_list {{ {' '.join(f'config {{ {model} }}' for model in models)} }}", "utf-8")
    return str(file)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    add(tmp_path / "iris", "1")
    return tmp_path / "iris"


# --- the start ---


def test_a_start_that_waits_for_a_version(tmp_path: Path) -> None:
    """A base path that is missing, then empty, then has one: the start ends with it (TensorFlow Serving's)."""
    made: list[TestClient] = []
    start = threading.Thread(target=lambda: made.append(TestClient(f"iris={tmp_path / 'iris'}", wait_for_models=True, **POLL)))
    start.start()
    (tmp_path / "iris").mkdir()
    start.join(0.3)
    assert start.is_alive()
    add(tmp_path / "iris", "4")
    start.join(60)
    (client,) = made
    with client:
        assert (client.loaded.ready, client.loaded.failed, serves(client)) == (("iris",), (), ["4"])


@pytest.mark.parametrize(("exists", "hopeless"), [(True, False), (False, True)])
def test_a_start_that_does_not_wait(tmp_path: Path, exists: bool, hopeless: bool) -> None:
    """An empty folder that is looked at may fill; a path that is not there is an error, and is served all the same once it is there."""
    if exists:
        (tmp_path / "iris").mkdir()
    with dragoman.TestClient(f"iris={tmp_path / 'iris'}", **POLL) as client:
        assert (client.loaded.hopeless, client.loaded.ready) == (hopeless, ())
        add(tmp_path / "iris", "4")
        until(lambda: serves(client) == ["4"])


@pytest.mark.parametrize("strict", [False, True])
def test_one_broken_model_of_two(tmp_path: Path, base: Path, strict: bool) -> None:
    """With --exit-on-error that is enough to end the start; without, the other is served."""
    (add(tmp_path / "bad", "1") / "model.onnx").write_bytes(b"damaged")
    with dragoman.TestClient(str(base), str(tmp_path / "bad"), exit_on_error=strict) as client:
        assert client.loaded.hopeless is strict
        assert [name for name, _ in client.loaded.failed] == ["bad"]
        assert serves(client) == ["1"]


def test_an_empty_repository_fills(tmp_path: Path) -> None:
    """As Triton's in poll mode: it is no error to have nothing yet."""
    (tmp_path / "models").mkdir()
    with dragoman.TestClient(str(tmp_path / "models"), **POLL) as client:
        assert not client.loaded.hopeless
        add(tmp_path / "models" / "iris", "1")
        until(lambda: serves(client) == ["1"])
        shutil.rmtree(tmp_path / "models" / "iris")
        until(lambda: serves(client) == [])


# --- lists of models ---


def test_a_list_of_models(tmp_path: Path, base: Path) -> None:
    """Names, policies and labels of the file; targets may stand beside it."""
    add(base, "2")
    models = f'name: "a" base_path: "{base}" model_version_policy {{ all {{}} }} version_labels {{ key: "stable" value: 1 }}'
    file = listed(tmp_path / "models.config", models, f'name: "b" base_path: "{base}"')
    with dragoman.TestClient(str(base), model_config_file=file) as client:
        assert client.loaded.failed == ()
        assert (serves(client, "a"), serves(client, "b"), serves(client)) == (["2", "1"], ["2"], ["2"])
        reply = client.post("/v1/models/a/labels/stable:predict", json={"instances": [[5.0, 3.4, 1.5, 0.2]]})
        assert reply.status == 200
        assert client.get("/v1/models/a/labels/stable/metadata").json()["model_spec"]["version"] == "1"


def test_a_list_that_is_wrong_ends_the_start(tmp_path: Path) -> None:
    """Nothing is served by half a list."""
    file = listed(tmp_path / "models.config", 'name: "a" base_path: "relative"')
    with pytest.raises(ServingError, match="Expected model a to have an absolute path or URI"):
        dragoman.TestClient(model_config_file=file)


@pytest.mark.parametrize("early", [False, True])
def test_a_label_of_a_version_that_is_not_there(tmp_path: Path, base: Path, early: bool) -> None:
    """At start it is an error of that model, unless labels may come early."""
    file = listed(tmp_path / "models.config", f'name: "a" base_path: "{base}" version_labels {{ key: "next" value: 9 }}')
    with dragoman.TestClient(model_config_file=file, unavailable_labels=early, **POLL) as client:
        failed = [reason for _, reason in client.loaded.failed]
        text = "Request to assign label to version 9 of model a, which is not currently available for inference"
        assert failed == ([] if early else [text])
        add(base, "9")
        until(lambda: client.get("/v1/models/a/labels/next/metadata").status == 200)


def test_a_duplicate_of_a_target_is_an_error(tmp_path: Path, base: Path) -> None:
    """The target is served, and the status of the start names the clash."""
    file = listed(tmp_path / "models.config", f'name: "iris" base_path: "{base}"')
    with dragoman.TestClient(str(base), model_config_file=file) as client:
        assert client.loaded.failed == (("iris", "two targets are called 'iris'; name one of them differently with NAME=PATH"),)
        assert serves(client) == ["1"]


# --- requests in between ---


def test_loading_and_unloading_by_request_goes_with_polling(base: Path) -> None:
    """Unloaded by request it stays so; a load request serves what is there now, and is followed again."""
    with dragoman.TestClient(str(base), **POLL) as client:
        assert client.post("/v2/repository/models/iris/unload").status == 200
        add(base, "2")
        assert serves(client) == []
        assert client.post("/v2/repository/models/iris/load").status == 200
        assert serves(client) == ["2"]
        add(base, "3")
        until(lambda: serves(client) == ["3"])


def test_a_load_request_need_not_wait_for_the_next_look(base: Path) -> None:
    """What is there is served when it returns, however seldom the server looks; what cannot be loaded is its error."""
    with dragoman.TestClient(str(base), poll=3600) as client:
        add(base, "2")
        assert client.post("/v2/repository/models/iris/load").status == 200
        assert serves(client) == ["2"]
        (add(base, "3") / "model.onnx").write_bytes(b"damaged")
        reply = client.post("/v2/repository/models/iris/load")
        assert (reply.status >= 400, serves(client)) == (True, ["2"])
        shutil.rmtree(base / "3")
        assert client.post("/v2/repository/models/iris/load").status == 200
        assert serves(client) == ["2"]


def test_models_on_request_are_followed_once_they_are_loaded(tmp_path: Path, base: Path) -> None:
    """--load request: what nobody has asked for is left alone."""
    with dragoman.TestClient(str(tmp_path), load="request", load_model=["iris"], **POLL) as client:
        add(tmp_path / "other", "1")
        add(base, "2")
        until(lambda: serves(client) == ["2"])
        assert serves(client, "other") == []
