"""One worker with everything in it: the order of loading, composed models, load and unload while it serves, what fails beside what works."""

import base64
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dragoman
from dragoman.core.model import BatchPolicy, ModelSpec, Step
from dragoman.embed import TestClient, TestResponse
from dragoman.server.defaults import defaults
from dragoman.server.loading import waves
from dragoman.server.settings import Settings
from dragoman.serving.repository import Found
from tests.models import build

SUMS = """
    platform: "ensemble"
    input { name: "a" data_type: TYPE_INT32 dims: [-1, 16] }
    input { name: "b" data_type: TYPE_INT32 dims: [-1, 16] }
    output { name: "twice" data_type: TYPE_INT32 dims: [-1, 16] }
    ensemble_scheduling {
        step { model_name: "add" model_version: -1 input_map { key: "INPUT0" value: "a" } input_map { key: "INPUT1" value: "b" }
               output_map { key: "OUTPUT0" value: "sum" } }
        step { model_name: "add" model_version: -1 input_map { key: "INPUT0" value: "sum" } input_map { key: "INPUT1" value: "sum" }
               output_map { key: "OUTPUT0" value: "twice" } }
    }
"""


def composed(name: str, *members: str) -> Found:
    return Found(name, {"1": ModelSpec(name, steps=tuple(Step(m) for m in members))})


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two models, and one made of one of them."""
    build.add_sub(tmp_path / "add" / "1" / "model.onnx")
    build.iris(tmp_path / "iris" / "1" / "model.onnx")
    (tmp_path / "a_sum").mkdir()
    (tmp_path / "a_sum" / "config.pbtxt").write_text(SUMS)
    return tmp_path


def states(client: TestClient) -> dict[str, str]:
    return {m["name"]: m["state"] for m in client.get("/dragoman/v1/models").json()["models"]}


def sums(client: TestClient) -> TestResponse:
    tensors = [{"name": n, "shape": [1, 16], "datatype": "INT32", "data": [v] * 16} for n, v in (("a", 2), ("b", 3))]
    return client.post("/v2/models/a_sum/infer", json={"inputs": tensors})


def infer_iris(client: TestClient, name: str = "iris", version: str = "") -> Any:
    body = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [5.0, 3.4, 1.5, 0.2]}], "outputs": [{"name": "label"}]}
    reply = client.post(f"/v2/models/{name}" + (f"/versions/{version}" if version else "") + "/infer", json=body)
    return reply.json()["outputs"][0]["data"] if reply.status == 200 else (reply.status, reply.json()["error"])


def post(client: TestClient, action: str, **parameters: Any) -> TestResponse:
    return client.post(f"/v2/repository/models/{action}", json={"parameters": parameters} if parameters else None)


# --- the order of loading ---


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sets(st.sampled_from("abcdefx"))), unique_by=lambda m: m[0]))
def test_members_come_before_what_is_made_of_them(models: list[tuple[str, set[str]]]) -> None:
    """Every model is in one wave, after the members that are there; only circles come together at the end."""
    found = [composed(name, *members) for name, members in models]
    order = waves(found)
    assert sorted(i for wave in order for i in wave) == list(range(len(found)))
    position = {found[i].name: number for number, wave in enumerate(order) for i in wave}
    for name, members in models:
        for member in members & position.keys() - {name}:
            assert position[member] < position[name] or position[member] == position[name] == len(order) - 1


def test_models_without_members_load_together() -> None:
    """There is one wave."""
    assert waves([composed("a"), composed("b"), Found("c", error="no")]) == [[0, 1, 2]]


def test_defaults_of_the_settings() -> None:
    """Batches in rows and seconds; cores are shared by the workers; the device only when it is named."""
    found = defaults(Settings(batch_size=5, batch_delay_ms=2.0, max_queue=9, instances=3, threads=4, trust_pickle=True, device="cuda:1"))
    assert found.batch == BatchPolicy(max_size=5, max_delay_s=0.002, max_queue=9)
    assert (found.instances, found.arguments) == (3, {"threads": 4, "trust_pickle": True, "device": "cuda:1"})
    assert (defaults(Settings()).repeatable, defaults(Settings(repeat=True)).repeatable) == (False, True)
    assert (Settings().setup_timeout, defaults(Settings()).load_timeout_s) == (3600, 3600)
    assert defaults(Settings(setup_timeout=0)).load_timeout_s == math.inf
    named = defaults(Settings(option=("saved_model_tags=serve,gpu", "device=cpu", "x=a=b"), device="cuda", threads=1)).arguments
    assert named == {"saved_model_tags": "serve,gpu", "x": "a=b", "device": "cuda", "threads": 1, "trust_pickle": False}
    many = defaults(Settings(workers=512))
    assert (many.arguments, many.batch.max_size) == ({"processors": 1, "trust_pickle": False}, BatchPolicy().max_size)


# --- serving ---


def test_a_repository_with_a_composed_model(repository: Path) -> None:
    """It is loaded after its member although it comes first in the alphabet, and answers."""
    with dragoman.TestClient(str(repository)) as client:
        assert client.loaded.failed == ()
        assert set(client.loaded.ready) == {"a_sum", "add", "iris"}
        assert sums(client).json()["outputs"][0]["data"] == [10] * 16
        assert client.get("/v2/health/ready").status == 200
        samples = {s["name"] for s in client.loaded.samples}
        assert "iris" in samples


def test_what_is_loaded_on_request(repository: Path) -> None:
    """At start what is named, with the members of what is composed; everything else when a client asks. What is nowhere has failed."""
    with dragoman.TestClient(str(repository), load="request", load_model=("a_sum", "none")) as client:
        assert states(client) == {"a_sum": "ready", "add": "ready", "none": "failed"}
        assert sums(client).status == 200
        assert post(client, "iris/load").status == 200
        assert states(client)["iris"] == "ready"
    with dragoman.TestClient(str(repository), load="request") as client:
        assert states(client) == {}
        assert client.get("/v2/health/ready").status == 200


def test_a_lenient_server_is_ready_whatever_its_models_are(repository: Path) -> None:
    """Triton's --strict-readiness=false: probes see the server, not the models."""
    (repository / "iris" / "1" / "model.onnx").write_text("no model")
    with dragoman.TestClient(str(repository)) as client:
        assert client.get("/v2/health/ready").status == 503
    with dragoman.TestClient(str(repository), lenient_readiness=True) as client:
        assert client.get("/v2/health/ready").status == 200


def test_a_name_of_its_own(repository: Path) -> None:
    """What clients of the Open Inference Protocol see."""
    with dragoman.TestClient(str(repository / "iris"), server_name="triton") as client:
        assert client.get("/v2").json()["name"] == "triton"


def test_allowed_batch_sizes_reach_the_model(tmp_path: Path) -> None:
    """Every answer is whole, in the server and in a process of its own."""
    build.identity(tmp_path / "m.onnx")
    for engine in ("local", "process"):
        with dragoman.TestClient(str(tmp_path / "m.onnx"), batch_sizes=(4,), engine=engine, data_dir=str(tmp_path / engine)) as client:
            for count in (1, 4, 9):
                rows = [[float(n)] for n in range(count)]
                assert client.post("/v1/models/m:predict", json={"instances": rows}).json() == {"predictions": rows}


def test_unloading_a_member_takes_the_composed_model_out_of_use_until_it_is_back(repository: Path) -> None:
    """Its callers hear which member is missing; loading the member is enough."""
    with dragoman.TestClient(str(repository)) as client:
        assert post(client, "add/unload").status == 200
        reply = sums(client)
        assert reply.status >= 400
        assert "member 'add' of ensemble 'a_sum'" in reply.json()["error"]
        assert post(client, "add/load").status == 200
        assert sums(client).status == 200


def test_unloading_with_dependents(repository: Path) -> None:
    """The members go too; loading the composed model brings them back."""
    with dragoman.TestClient(str(repository)) as client:
        assert post(client, "a_sum/unload", unload_dependents=True).status == 200
        assert states(client)["iris"] == "ready"
        assert "ready" not in (states(client)["add"], states(client)["a_sum"])
        assert post(client, "a_sum/load").status == 200
        assert sums(client).status == 200


def test_a_composed_model_without_its_member(repository: Path) -> None:
    """It fails alone, and says whom it misses."""
    (repository / "add" / "1" / "model.onnx").write_bytes(b"damaged")
    with dragoman.TestClient(str(repository)) as client:
        assert client.loaded.ready == ("iris",)
        failed = dict(client.loaded.failed)
        assert "needs a member that is not served" in failed["a_sum"]
        assert set(failed) == {"a_sum", "add"}


def test_a_reload_that_fails_leaves_the_old_model(repository: Path) -> None:
    """Through the protocol: the error says why, the model goes on, the server stays ready; mended, it is exchanged."""
    with dragoman.TestClient(str(repository)) as client:
        (repository / "iris" / "1" / "model.onnx").write_bytes(b"damaged")
        reply = post(client, "iris/load")
        assert 400 <= reply.status < 600
        assert "iris" in reply.json()["error"]
        assert infer_iris(client) == [0]
        assert client.get("/v2/health/ready").status == 200
        build.iris(repository / "iris" / "1" / "model.onnx")
        assert post(client, "iris/load").status == 200
        assert infer_iris(client) == [0]


def test_a_new_version_takes_over(repository: Path) -> None:
    """The highest is served and the one before is unloaded, as TensorFlow Serving does."""
    with dragoman.TestClient(str(repository)) as client:
        build.iris(repository / "iris" / "2" / "model.onnx")
        assert post(client, "iris/load").status == 200
        assert infer_iris(client, version="2") == [0]
        status, error = infer_iris(client, version="1")
        assert 400 <= status < 600
        assert "unload" in error  # its last requests may still be finishing


def test_one_version_of_two_may_fail(tmp_path: Path) -> None:
    """At the start the other one is served, and the model counts as ready; its bad version is in the status."""
    build.iris(tmp_path / "iris" / "1" / "model.onnx")
    (tmp_path / "iris" / "2").mkdir()
    (tmp_path / "iris" / "2" / "model.onnx").write_bytes(b"damaged")
    (tmp_path / "iris" / "config.pbtxt").write_text('backend: "onnxruntime" version_policy { all {} }')
    with dragoman.TestClient(str(tmp_path / "iris")) as client:
        assert client.loaded.ready == ("iris",)
        assert infer_iris(client) == [0]
        rows = client.get("/dragoman/v1/models/iris").json()["versions"]
        assert [(r["version"], r["state"]) for r in rows] == [("2", "failed"), ("1", "ready")]


def test_two_targets_of_one_name(repository: Path, tmp_path: Path) -> None:
    """The first answers and stays ready in the status; the second is among the failures with advice."""
    other = build.iris(tmp_path / "other" / "iris.onnx")
    with dragoman.TestClient(str(repository / "iris"), str(other)) as client:
        assert client.loaded.ready == ("iris",)
        assert "NAME=PATH" in dict(client.loaded.failed)["iris"]
        assert infer_iris(client) == [0]
        assert states(client) == {"iris": "ready"}


def test_an_uploaded_model(repository: Path) -> None:
    """Files and a configuration in a load request; a hostile path is refused and the server lives on."""
    content = base64.b64encode((repository / "iris" / "1" / "model.onnx").read_bytes()).decode()
    config = json.dumps({"backend": "onnxruntime"})
    with dragoman.TestClient() as client:
        assert post(client, "new/load", **{"config": config, "file:1/model.onnx": content}).status == 200
        assert infer_iris(client, "new") == [0]
        for path in ("../model.onnx", "/etc/passwd", "1/" + "x" * 400, "1"):
            reply = post(client, "new/load", **{"config": config, "file:1/model.onnx": content, f"file:{path}": content})
            assert 400 <= reply.status < 500
        assert infer_iris(client, "new") == [0]


def test_errors_that_the_http_server_finds_are_in_the_words_of_the_path() -> None:
    """A body that is too large at a path of a protocol is answered as that protocol does."""
    with dragoman.TestClient(max_body=10) as client:
        v2 = client.post("/v2/models/m/infer", body=b"x" * 11)
        tfs = client.post("/v1/models/m:predict", body=b"x" * 11)
        assert (v2.status, tfs.status) == (413, 413)
        assert "10 bytes" in v2.json()["error"]
        assert "10 bytes" in tfs.json()["error"]
