"""Routers with the real command: members of every runtime, every kind, a user's own classes, all protocols, members that come and go (M31)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import tritonclient.grpc
import tritonclient.http

from tests.e2e.plain import until
from tests.e2e.running import Running, serving
from tests.models import build, documented, learned

MODELS = '''
import os
import pathlib
import time

from mlrun.serving import V2ModelServer
from mlrun.serving.routers import ParallelRun, VotingEnsemble

CENTRES = [[5.0, 3.4, 1.5, 0.2], [5.9, 2.8, 4.3, 1.3], [6.6, 3.0, 5.6, 2.0]]


class Nearest(V2ModelServer):
    def load(self):
        self.model = CENTRES

    def predict(self, request):
        if request.get("parameters", {}).get("fail"):
            raise RuntimeError("as it was asked to")
        distances = [[sum((a - b) ** 2 for a, b in zip(point, centre)) for centre in CENTRES] for point in request["inputs"]]
        return [row.index(min(row)) for row in distances]

    def explain(self, request):
        return [[1.0, 0.0, 0.0, 0.0] for _ in request["inputs"]]

    def op_name(self, event):
        return {"name": self.name, "asked": event.body}


class Stubborn(V2ModelServer):
    def load(self):
        self.model = self.get_param("label")

    def predict(self, request):
        return [self.model for _ in request["inputs"]]

    def explain(self, request):
        return [[0.0, 1.0, 0.0, 0.0] for _ in request["inputs"]]


class Late(Stubborn):
    """Is loaded as soon as a file is there."""

    def load(self):
        while not pathlib.Path(self.get_param("file")).exists():
            time.sleep(0.01)
        super().load()


class Never(Stubborn):
    def load(self):
        raise RuntimeError("no such luck")


class Careful(VotingEnsemble):
    """The highest label wins."""

    def preprocess(self, event):
        if event.body.get("die"):
            os._exit(3)
        event.body["inputs"] = [[float(each) for each in point] for point in event.body["inputs"]]
        return event

    def logic(self, predictions, weights):
        return predictions.max(axis=1)

    async def postprocess(self, event):
        event.body["careful"] = self.get_param("level", 1)
        return event


class Listed(ParallelRun):
    def merger(self, body, results):
        return {"votes": {name: result["outputs"] for name, result in results.items()}}
'''

TUNGSTEN = """
from typing import List

from tungstenkit import BaseIO, define_model


class Flower(BaseIO):
    sepal_length: float
    sepal_width: float
    petal_length: float
    petal_width: float


class Label(BaseIO):
    label: int


@define_model(input=Flower, output=Label, batch_size=2)
class Petals:
    def setup(self):
        pass

    def predict(self, inputs: List[Flower]) -> List[Label]:
        return [Label(label=(each.petal_length > 3) + (each.petal_length > 5)) for each in inputs]
"""

FLOWERS = build.IRIS_CENTRES.astype(float).round(1).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("routers")
    build.iris(folder / "iris.onnx")
    for number in (1, 3):
        documented.half_plus(folder / f"half_plus_{number}.onnx", number)
    learned.write(folder / "flowers.skops", learned.skops_of(learned.classifier()))
    (folder / "mine.py").write_text(MODELS)
    (folder / "petals").mkdir()
    (folder / "petals" / "tungsten_model.py").write_text(TUNGSTEN)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Running]:
    own = f"{folder}/mine.py"
    arguments = [
        *(str(folder / name) for name in ("iris.onnx", "flowers.skops", "petals", "half_plus_1.onnx", "half_plus_3.onnx")),
        f"nearest={own}:Nearest",
        f"stubborn:v2={own}:Stubborn",
        *("--class-args", 'stubborn:v2={"label": 2}'),
        *("--router", "vote=VotingEnsemble:iris,flowers,petals,nearest"),
        *(
            "--router",
            "mean=VotingEnsemble:half_plus_1,half_plus_3",
            "--class-args",
            'mean={"weights": {"half_plus_1": 1, "half_plus_3": 3}}',
        ),
        *("--router", "lenient=VotingEnsemble:iris,nearest", "--class-args", 'lenient={"tolerate": true}'),
        *("--router", "biased=VotingEnsemble:nearest,stubborn:v2", "--class-args", 'biased={"weights": {"nearest": 1, "stubborn:v2": 3}}'),
        *("--router", "named=VotingEnsemble:petals"),
        *("--router", "tower=VotingEnsemble:vote,stubborn:v2,nearest"),
        *("--router", "both=ParallelRun:nearest,stubborn:v2"),
        *("--router", "pick:v7=ModelRouter:nearest,stubborn:v2"),
        *("--router", f"careful={own}:Careful:nearest,stubborn:v2", "--class-args", 'careful={"level": 5, "prediction_col_name": "kind"}'),
        *("--router", f"listed={own}:Listed:iris,stubborn:v2"),
        *("--router", "round=VotingEnsemble:about", "--router", "about=ParallelRun:round"),
        *("--router", "lost=VotingEnsemble:nobody"),
        *("--grpc-port", "0"),
    ]
    with serving(folder, *arguments) as running:
        yield running


def ask(server: Running, path: str, inputs: Any = FLOWERS, status: int = 200, **more: Any) -> Any:
    answer = requests.post(f"{server.url}/v2/models/{path}", json={"inputs": inputs, **more}, timeout=60)
    assert answer.status_code == status, answer.text
    return answer.json()


# --- VotingEnsemble ---


@pytest.mark.parametrize("operation", ["infer", "predict"])
def test_an_ensemble_of_four_runtimes(server: Running, operation: str) -> None:
    """ONNX, scikit-learn, a Tungsten model and an MLRun class vote; the answer is MLRun's."""
    assert ask(server, f"vote/{operation}", id=7) == {"id": 7, "model_name": "vote", "outputs": [0, 1, 2], "model_version": "v1"}


def test_features_by_name(server: Running) -> None:
    """infer_dict reaches members that name their features, in any order; one that does not name them is named in the error."""
    names = ("sepal_length", "sepal_width", "petal_length", "petal_width")
    rows = [dict(zip(names, flower, strict=True)) for flower in FLOWERS]
    assert ask(server, "named/infer_dict", [dict(reversed(row.items())) for row in rows])["outputs"] == [0, 1, 2]
    assert "model 'iris' lacks 'X'" in ask(server, "vote/infer_dict", rows, 400)["error"]


def test_weights_and_the_mean(server: Running) -> None:
    """Models of floats are averaged, by the weights that their router was given; labels are counted by them."""
    assert ask(server, "mean/infer", [[0], [2]])["outputs"] == [[2.5], [3.5]]
    assert ask(server, "biased/infer")["outputs"] == [2, 2, 2]
    assert ask(server, "biased/explain")["outputs"] == [[0.25, 0.75, 0, 0]] * 3


def test_routers_of_routers(server: Running) -> None:
    """A router is a member like any other."""
    assert ask(server, "tower/infer")["outputs"] == [0, 1, 2]


@pytest.mark.parametrize("model", ["vote", "tower"])
def test_ensembles_behind_the_open_inference_protocol(server: Running, model: str) -> None:
    """tritonclient over HTTP and gRPC: a tensor in, a tensor out, and metadata that says how."""
    flowers = build.IRIS_CENTRES
    for triton, address in ((tritonclient.http, server.address), (tritonclient.grpc, server.grpc)):
        with triton.InferenceServerClient(address) as client:
            sent = triton.InferInput("X", [3, 4], "FP32")
            sent.set_data_from_numpy(flowers)
            answer = client.infer(model, [sent], request_id="a").as_numpy("label")
            assert answer.ravel().tolist() == [0, 1, 2]
    with tritonclient.http.InferenceServerClient(server.address) as client:
        described = client.get_model_metadata(model)
        assert [(each["name"], each["datatype"], each["shape"]) for each in described["inputs"]] == [("X", "FP32", [-1, 4])]
        assert described["platform"] == "mlrun_voting_ensemble"
        assert client.is_model_ready(model)


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/v1/models/vote:predict", {"instances": FLOWERS}, {"predictions": [0, 1, 2]}),
        ("/v1/models/mean:predict", {"instances": [[0], [2]]}, {"predictions": [[2.5], [3.5]]}),
        ("/models/vote/predict", [{"X": flower} for flower in FLOWERS], {"outputs": [0, 1, 2], "status": "success", "error_message": None}),
    ],
)
def test_ensembles_behind_other_protocols(server: Running, path: str, body: Any, expected: Any) -> None:
    """TensorFlow Serving's instances, Tungsten's inputs."""
    answer = requests.post(f"{server.url}{path}", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json() == expected


def test_many_data_points(server: Running) -> None:
    """Ten thousand flowers at once, in batches of two for one of the members."""
    outputs = ask(server, "biased/infer", FLOWERS * 3000)["outputs"]
    assert outputs == [2] * 9000
    assert ask(server, "vote/infer", FLOWERS * 50)["outputs"] == [0, 1, 2] * 50


# --- ParallelRun and ModelRouter ---


def test_a_parallel_run(server: Running) -> None:
    """Every member's answer, under its name."""
    assert ask(server, "both/infer", id="a") == {
        "id": "a",
        "model_name": "both",
        "outputs": {"nearest": [0, 1, 2], "stubborn:v2": [2, 2, 2]},
    }


def test_a_model_router(server: Running) -> None:
    """The body names the member, the first is the usual one; operations of members are the router's."""
    first = ask(server, "pick:v7/infer", id="a")
    assert (first["model_name"], first["outputs"], "timestamp" in first) == ("nearest", [0, 1, 2], True)
    second = ask(server, "pick/versions/v7/infer", model="stubborn:v2")
    assert (second["model_name"], second["model_version"], second["outputs"]) == ("stubborn", "v2", [2, 2, 2])
    assert ask(server, "pick/name", [])["name"] == "nearest"
    assert "has no member 'iris'" in ask(server, "pick/infer", status=400, model="iris")["error"]


# --- classes of users ---


def test_a_users_ensemble(server: Running) -> None:
    """Its hooks run in a process of its own, in MLRun's order; texts that preprocess made numbers of reach members that need numbers."""
    texts = [[str(each) for each in flower] for flower in FLOWERS]
    answer = ask(server, "careful/infer", texts, id="a")
    assert answer == {"id": "a", "model_name": "careful", "outputs": [2, 2, 2], "model_version": "v1", "careful": 5}
    described = requests.get(f"{server.url}/v2/models/careful", timeout=60).json()
    assert [each["name"] for each in described["outputs"]] == ["kind"]


def test_a_users_merger(server: Running) -> None:
    """What it answers is the answer."""
    votes = ask(server, "listed/infer")["votes"]
    assert votes["stubborn:v2"] == [2, 2, 2]
    assert [each["label"] for each in votes["iris"]] == [[0], [1], [2]]


def test_a_users_class_that_dies(server: Running) -> None:
    """The request fails; the class is started again, and nobody else notices."""
    assert "exit code 3" in ask(server, "careful/infer", status=503, die=True)["error"]
    assert ask(server, "vote/infer")["outputs"] == [0, 1, 2]

    def back() -> bool:
        answer = requests.post(f"{server.url}/v2/models/careful/infer", json={"inputs": FLOWERS}, timeout=60)
        assert answer.status_code in (200, 408, 503), answer.text
        return answer.status_code == 200

    until(back, what="the class")


# --- failures ---


def test_a_failing_member_is_named(server: Running) -> None:
    """The call fails with it; a lenient router answers with the rest and says who failed and why, in every protocol that has a place for it."""
    error = ask(server, "vote/infer", status=500, parameters={"fail": True})["error"]
    assert error == "member 'nearest' of router 'vote': model 'nearest' failed: RuntimeError: as it was asked to"
    answer = ask(server, "lenient/infer", parameters={"fail": True})
    assert answer["outputs"] == [0, 1, 2]
    assert list(answer["failed"]) == ["nearest"]
    assert "as it was asked to" in answer["failed"]["nearest"]
    assert "fail" not in ask(server, "lenient/infer")


@pytest.mark.parametrize("body", [{}, {"inputs": 5}, {"inputs": [[1, 2]]}, {"inputs": [["a", "b", "c", "d"]]}, {"inputs": []}, [1], "x"])
def test_bad_requests(server: Running, body: Any) -> None:
    """The client's fault, never the server's; it is told which model refused what."""
    answer = requests.post(f"{server.url}/v2/models/vote/infer", json=body, timeout=60)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]


def test_routers_that_cannot_be(server: Running) -> None:
    """A circle, and a member that is nowhere: everything else is served, and the reason is told."""
    for name, words in (("round", "round"), ("about", "about"), ("lost", "member 'nobody' of router 'lost'")):
        answer = requests.get(f"{server.url}/v2/models/{name}/ready", timeout=60)
        assert answer.status_code >= 400
        error = ask(server, f"{name}/infer", status=503)["error"]
        assert words in error


def test_a_member_that_is_unloaded_and_comes_back(server: Running) -> None:
    """Meanwhile its routers say who is missing, and answer again when it is back."""

    def repository(verb: str) -> None:
        answer = requests.post(f"{server.url}/v2/repository/models/half_plus_3/{verb}", timeout=60)
        assert answer.status_code == 200, answer.text

    repository("unload")
    error = ask(server, "mean/infer", [[0]], 503)["error"]
    assert error.startswith("member 'half_plus_3' of router 'mean': model 'half_plus_3' is ")
    repository("load")
    assert ask(server, "mean/infer", [[0]])["outputs"] == [[2.5]]


def test_a_router_is_unloaded_and_loaded(server: Running) -> None:
    """By name, as any model; its members are not touched."""
    for verb, status in (("unload", 503), ("load", 200)):
        answer = requests.post(f"{server.url}/v2/repository/models/listed/{verb}", timeout=60)
        assert answer.status_code == 200, answer.text
        ask(server, "listed/infer", status=status)
        assert ask(server, "iris/infer")["model_name"] == "iris"


# --- what the server says of them ---


def test_the_list(server: Running) -> None:
    """Routers come after the models of the command line, with their versions, those too that could not be loaded; the weights are those of the
    first ensemble (section 9)."""
    listed = requests.get(f"{server.url}/v2/models", timeout=60).json()
    assert listed["models"][:3] == ["iris", "flowers", "petals"]
    assert {"vote", "mean", "both", "pick:v7", "careful"} <= set(listed["models"])
    assert {"round", "about", "lost"} <= set(listed["models"])
    assert sum(listed["weights"].values()) == pytest.approx(1)


def test_members_are_metered_apart(server: Running) -> None:
    """As asked by a router, beside what clients asked them."""
    ask(server, "vote/infer")
    text = requests.get(f"{server.url}/metrics", timeout=60).text
    assert any('model="iris"' in line and '"router"' in line for line in text.splitlines())


# --- several workers, members that load late ---


def test_late_members_and_several_workers(folder: Path) -> None:
    """A router loads when its members have, in every worker; one whose member fails says so; the port is open all the time."""
    own, gate = f"{folder}/mine.py", folder / "gate"
    arguments = [
        f"late={own}:Late",
        f"never={own}:Never",
        f"{folder}/iris.onnx",
        *("--class-args", f'late={{"file": "{gate}", "label": 1}}'),
        *("--router", "vote=VotingEnsemble:iris,late,late2", "--class-args", 'vote={"vote_type": "classification"}'),
        *("--router", "late2=ModelRouter:late"),
        *("--router", f"careful={own}:Careful:iris,late"),
        *("--router", "hopeless=VotingEnsemble:iris,never"),
        *("--load", "background", "--workers", "2"),
    ]
    with serving(folder / "two", *arguments) as server:
        ready = f"{server.url}/v2/models/{{}}/ready"
        until(lambda: requests.get(ready.format("iris"), timeout=60).status_code == 200, what="iris")
        for name in ("vote", "late2", "careful"):
            assert requests.get(ready.format(name), timeout=60).status_code >= 400
        gate.touch()
        for name in ("vote", "careful"):
            until(lambda name=name: requests.get(ready.format(name), timeout=60).status_code == 200, what=name)  # type: ignore[misc] # a default of a lambda

        def everywhere() -> bool:
            answers = [requests.post(f"{server.url}/v2/models/vote/infer", json={"inputs": FLOWERS}, timeout=60) for _ in range(8)]
            return all(answer.status_code == 200 and answer.json()["outputs"] == [1, 1, 1] for answer in answers)

        until(everywhere, what="the vote of both workers")
        assert ask(server, "careful/infer")["outputs"] == [1, 1, 2]
        error = ask(server, "hopeless/infer", status=503)["error"]
        assert "never" in error
