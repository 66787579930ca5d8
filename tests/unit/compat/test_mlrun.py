"""What model files find as `mlrun` where it is not installed: names, model folders, data items, the logger, errors, routers' base classes."""

import datetime
import http.server
import importlib
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dragoman.compat.absent import mlrun
from dragoman.compat.absent.mlrun import errors
from dragoman.compat.absent.mlrun.artifacts import ModelArtifact, get_model
from dragoman.compat.absent.mlrun.datastore import DataItem, get_object
from dragoman.compat.absent.mlrun.features import Feature, Features
from dragoman.compat.absent.mlrun.serving import (
    EnrichmentModelRouter,
    EnrichmentVotingEnsemble,
    GraphContext,
    ModelRouter,
    ParallelRun,
    Response,
    V2ModelServer,
    VotingEnsemble,
)
from dragoman.compat.absent.mlrun.utils import Logger, create_logger, get_in, now_date, update_in

SPEC = """
kind: model
metadata: {key: iris, project: p, tag: t, labels: {l: 1}}
spec:
  model_file: model.bin
  framework: sklearn
  algorithm: SVC
  parameters: {depth: 3}
  metrics: {accuracy: 0.9}
  inputs: [{name: a, value_type: float}, {name: b, dims: [2]}]
  outputs: [{name: y, value_type: int}]
  extra_data: {near: near.csv, far: "http://h/x.csv", root: /x.csv, odd: {a: 1}}
"""


def put(path: Path, content: str = "content") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


# --- names ---


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (
            "",
            "get_or_create_ctx get_dataitem get_object get_model DataItem MLClientCtx MLRunInvalidArgumentError logger serving errors utils",
        ),
        (".serving", "V2ModelServer ModelRouter VotingEnsemble ParallelRun EnrichmentModelRouter EnrichmentVotingEnsemble GraphContext"),
        (".serving.v2_serving", "V2ModelServer"),
        (".serving.routers", "BaseModelRouter ModelRouter VotingEnsemble ParallelRun"),
        (".serving.server", "Response GraphContext"),
        (".artifacts", "get_model ModelArtifact"),
        (".artifacts.model", "get_model ModelArtifact"),
        (".datastore", "DataItem get_dataitem get_object"),
        (".execution", "MLClientCtx get_or_create_ctx"),
        (".features", "Feature"),
        (".utils", "logger now_date create_logger get_in update_in"),
        (".errors", "MLRunInvalidArgumentError MLRunNotFoundError MLRunHTTPStatusError err_to_str"),
    ],
)
def test_names_that_serving_code_imports(module: str, names: str) -> None:
    """They are where the original has them."""
    found = importlib.import_module(f"dragoman.compat.absent.mlrun{module}")
    assert [name for name in names.split() if not hasattr(found, name)] == []


def test_names_of_the_platform() -> None:
    """Asking for one says that the original is needed, and is no import error of something else."""
    with pytest.raises(AttributeError, match="get_run_db is not among"):
        _ = mlrun.get_run_db
    assert not hasattr(mlrun, "new_function")


# --- the base class, without a server ---


def test_a_class_on_its_own(tmp_path: Path) -> None:
    """As people try theirs out: make it, load it, call its hooks."""

    class Model(V2ModelServer):
        def load(self) -> None:
            self.file, self.extra = self.get_model("bin")

        def predict(self, request: dict[str, Any]) -> Any:
            return request["inputs"]

    put(tmp_path / "model_spec.yaml", SPEC)
    put(tmp_path / "model.bin")
    model = Model(name="m:v2", model_path=str(tmp_path), depth=1, k=2)
    model.post_init()
    assert (model.name, model.version, model.ready, model.protocol) == ("m", "v2", True, "v2")
    assert model.file == str(tmp_path / "model.bin")
    assert (model.get_param("depth"), model.get_param("k"), model.get_param("z", 9)) == (3, 2, 9)
    request = model.validate(model.preprocess({"inputs": [1]}, "infer"), "infer")
    assert model.postprocess(model.predict(request)) == [1]
    assert model.logged_results(request, {}, "infer") == (None, None)
    model.set_metric("a", 1)
    assert model.metrics == {"a": 1}
    with pytest.raises(NotImplementedError):
        model.explain(request)
    with pytest.raises(NotImplementedError):
        V2ModelServer(model=0).predict(request)


def test_a_ready_object() -> None:
    """It need not be true; without one and without a load there is nothing to serve. Without a model_path there is no file."""
    model = V2ModelServer(model=0, context=GraphContext({"a": 1}))
    model.post_init()
    assert (model.ready, model.name, model.get_param("a"), model.get_model()) == (True, "", 1, (None, {}))
    with pytest.raises(ValueError, match="no load method"):
        V2ModelServer().post_init()


def test_contexts(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Parameters, secrets of the environment, a logger, results that stay in memory."""
    monkeypatch.setenv("MLRUN_K8S_SECRET__A", "1")
    context = GraphContext({"p": 2})
    assert (context.get_param("p"), context.get_param("q", 3), context.get_secret("A"), context.get_secret("B")) == (2, 3, "1", None)
    with caplog.at_level(logging.ERROR):
        context.push_error(None, "went wrong", source="m", n=1)
    assert "m: went wrong {'n': 1}" in caplog.text
    asked = [
        mlrun.get_secret_or_env("A"),
        mlrun.get_secret_or_env("B", default="d"),
        mlrun.get_secret_or_env("A", {"P_A": "x"}, prefix="P"),
    ]
    assert [*asked, mlrun.get_secret_or_env("A", str.lower)] == ["1", "d", "x", "a"]
    run = mlrun.get_or_create_ctx("r")
    run.log_result("a", 1)
    run.log_results({"b": 2})
    run.set_label("l", 1)
    run.set_label("l", 2, replace=False)
    run.commit()
    assert (run.name, run.results, run.labels, run.get_param("x", 5), run.get_secret("A")) == ("r", {"a": 1, "b": 2}, {"l": 1}, 5, "1")
    answer = Response(body="b", status_code=404)
    assert (answer.headers, answer.body, answer.content_type, answer.status_code) == ({}, "b", "text/plain", 404)


# --- model folders ---


def test_a_described_folder(tmp_path: Path) -> None:
    """Everything that model_spec.yaml says; a path to the file itself means the same."""
    put(tmp_path / "model_spec.yaml", SPEC)
    put(tmp_path / "model.bin")
    for place in (tmp_path, tmp_path / "model_spec.yaml", f"file://{tmp_path}"):
        file, spec, extra = get_model(str(place), ".pkl")
        assert file == str(tmp_path / "model.bin")
        assert spec is not None
        assert (spec.key, spec.project, spec.tag, spec.labels, spec.framework, spec.algorithm) == (
            "iris", "p", "t", {"l": 1}, "sklearn", "SVC"
        )  # fmt: skip
        assert (spec.parameters, spec.metrics, spec.kind) == ({"depth": 3}, {"accuracy": 0.9}, "model")
        assert spec.inputs.to_dict() == [{"name": "a", "value_type": "float"}, {"name": "b", "value_type": "str", "dims": [2]}]
        assert {name: item.url for name, item in extra.items()} == {
            "near": f"{tmp_path}/near.csv", "far": "http://h/x.csv", "root": "/x.csv"
        }  # fmt: skip
    assert spec is not None
    assert (spec.inputs["a"].value_type, spec.inputs[1].name, spec.inputs.keys()) == ("float", "b", ["a", "b"])
    assert [each.name for each in spec.outputs.values()] == ["y"]


def test_specs_that_name_no_file_or_a_folder(tmp_path: Path) -> None:
    """Then the suffix says which file is meant, as in folders without a spec; some formats are a folder."""
    put(tmp_path / "model_spec.yaml", "spec: {inputs: [{name: a}]}")
    file = put(tmp_path / "m.json")
    found, spec, extra = get_model(str(tmp_path), ".json")
    assert (found, spec is not None and spec.inputs.keys(), extra) == (str(file), ["a"], {})
    with pytest.raises(ValueError, match="names no model_file"):
        get_model(str(tmp_path), ".pkl")
    put(tmp_path / "model_spec.yaml", "spec: {model_file: saved}")
    put(tmp_path / "saved" / "graph.pb")
    assert get_model(str(tmp_path), ".pkl")[0] == str(tmp_path / "saved")


def test_flat_specs() -> None:
    """Older ones have no metadata and spec of their own."""
    spec = ModelArtifact({"kind": "model", "key": "k", "model_file": "f", "inputs": [{"name": "a"}]})
    assert (spec.key, spec.model_file, spec.inputs.keys()) == ("k", "f", ["a"])
    assert ModelArtifact().inputs == Features()


def test_other_places(tmp_path: Path) -> None:
    """A folder without a spec, a file of the suffix, a file of any, an item for a path."""
    file = put(tmp_path / "b.pkl")
    put(tmp_path / "c.pkl")
    put(tmp_path / "a.txt")
    found, spec, extra = get_model(str(tmp_path))
    assert (found, spec, sorted(extra)) == (str(file), None, ["a.txt", "b.pkl", "c.pkl"])
    assert get_model(str(tmp_path), ".txt")[0] == str(tmp_path / "a.txt")
    assert get_model(str(file), ".pkl") == (str(file), None, {})
    assert get_model(str(file)) == (str(file), None, {})
    assert get_model(DataItem(str(put(tmp_path / "x" / "weights")))) == (str(tmp_path / "x" / "weights"), None, {})


@pytest.mark.parametrize(
    ("place", "suffix", "reason"),
    [
        ("", "", "no model_path"),
        ("store://models/p/m", "", "MLRun database"),
        ("missing", "", "neither a folder nor a file"),
        ("missing.pkl", "", "no model file"),
        ("missing.yaml", "", "No such file"),
        ("http://h/folder", "", "folder elsewhere"),
        (".", ".none", "neither model_spec.yaml nor a file"),
        ("bad/nothing.yaml", "", "is no object"),
        ("bad/broken.yaml", "", "is no YAML"),
        ("bad/empty.yaml", "", "names no model_file"),
        ("bad/gone.yaml", "", "no model file"),
        ("bad/feature.yaml", "", "needs a name"),
    ],
)
def test_places_without_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, suffix: str, reason: str) -> None:
    """Each says what is wrong, and names the path."""
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "a.txt")
    put(tmp_path / "bad" / "nothing.yaml", "- 1")
    put(tmp_path / "bad" / "broken.yaml", "a: [")
    put(tmp_path / "bad" / "empty.yaml", "spec: {}")
    put(tmp_path / "bad" / "gone.yaml", "spec: {model_file: gone.pkl}")
    put(tmp_path / "bad" / "feature.yaml", "spec: {model_file: gone.pkl, inputs: [1]}")
    with pytest.raises((ValueError, OSError), match=reason):
        get_model(place, suffix)


def test_features() -> None:
    """A type that nobody gave is a text, as the original has it."""
    assert Feature("int", name="a").to_dict() == {"name": "a", "value_type": "int"}
    assert Feature(name="a").value_type == "str"


# --- data items ---


@pytest.fixture
def site() -> Iterator[str]:
    """An HTTP server with one answer."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that the server looks for
            self.send_response(200)
            self.end_headers()
            self.wfile.write(SPEC.encode() if self.path.endswith(".yaml") else b"a,b\n1,2\n")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # the original's name
            """Nothing is printed."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_items_here(tmp_path: Path) -> None:
    """Whole, in part, as text, as a path, as a folder's list."""
    item = mlrun.get_dataitem(str(put(tmp_path / "f.csv", "a,b\n1,2\n")))
    assert (item.get(), item.get(3, 2), item.get(encoding="utf-8")) == (b"a,b\n1,2\n", b"b\n1", "a,b\n1,2\n")
    assert (item.local(), item.key, item.suffix, item.kind, str(item)) == (item.url, "f.csv", ".csv", "file", item.url)
    assert DataItem(f"file://{item.url}").local() == item.url
    assert DataItem(str(tmp_path)).listdir() == DataItem(str(tmp_path)).ls() == ["f.csv"]
    assert get_object(item.url) == b"a,b\n1,2\n"
    assert Path(item).read_text() == "a,b\n1,2\n"


def test_items_as_tables(tmp_path: Path) -> None:
    """By their suffix, or by the format that is asked for."""
    put(tmp_path / "f.csv", "a,b\n1,2\n")
    assert DataItem(str(tmp_path / "f.csv")).as_df().to_dict("list") == {"a": [1], "b": [2]}
    assert DataItem(str(tmp_path / "f.csv")).as_df(columns=["b"]).to_dict("list") == {"b": [2]}
    put(tmp_path / "f.txt", json.dumps([{"a": 1}]))
    assert DataItem(str(tmp_path / "f.txt")).as_df(format="json").to_dict("list") == {"a": [1]}


def test_items_elsewhere(tmp_path: Path, site: str) -> None:
    """http is read with what Python has; a model file is copied once, under its own name; other schemes take fsspec."""
    item = DataItem(f"{site}/f.csv")
    assert (item.get(), item.kind) == (b"a,b\n1,2\n", "http")
    path = item.local()
    assert (Path(path).name, item.local()) == ("f.csv", path)
    file, _, _ = get_model(f"{site}/model.pkl", ".pkl")
    assert Path(file).read_bytes() == b"a,b\n1,2\n"
    file, spec, extra = get_model(f"{site}/m/model_spec.yaml")
    assert (Path(file).name, spec and spec.key, extra["near"].url) == ("model.bin", "iris", f"{site}/m/near.csv")
    with pytest.raises(RuntimeError, match="cannot be listed"):
        DataItem("http://h/folder").listdir()


# --- small things ---


def test_the_logger(caplog: pytest.LogCaptureFixture) -> None:
    """Facts after the message; levels by name or number; children."""
    log = create_logger("debug", name="mlrun.test")
    with caplog.at_level(logging.DEBUG, "mlrun.test"):
        log.debug("one", a=1)
        log.info("two %s", "x")
        log.warning("three")
        log.warning("four")
        log.error("five")
        try:
            raise KeyError("k")
        except KeyError:
            log.exception("six")
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("DEBUG", "one {'a': 1}"), ("INFO", "two x"), ("WARNING", "three"), ("WARNING", "four"), ("ERROR", "five"), ("ERROR", "six")
    ]  # fmt: skip
    assert "KeyError" in caplog.text
    log.set_logger_level("ERROR")
    assert (log.level, log.get_child("c").level) == (logging.ERROR, logging.ERROR)


def test_the_logger_without_any_set_up(capsys: pytest.CaptureFixture[str]) -> None:
    """What a model says is seen on standard error, once for each message, wherever that leads by then."""
    name = "mlrun.alone"
    quiet = logging.getLogger(name)
    quiet.propagate = False
    log = Logger(name)
    log.info("first")
    log.info("second", n=1)
    log.debug("third")
    assert capsys.readouterr().err == "INFO first\nINFO second {'n': 1}\n"
    quiet.handlers.clear()


def test_paths_into_dicts() -> None:
    """Dotted, made where they are missing."""
    body: dict[str, Any] = {"a": {"b": 1}}
    assert (get_in(body, "a.b"), get_in(body, ["a", "c"], 5), get_in(body, "a.b.c")) == (1, 5, None)
    update_in(body, "x.y", 2)
    assert body == {"a": {"b": 1}, "x": {"y": 2}}
    assert now_date().utcoffset() == datetime.timedelta(0)


def test_errors_say_a_status() -> None:
    """By class, or by the one that raises."""
    assert issubclass(errors.MLRunInvalidArgumentError, ValueError)
    statuses = {each.error_status_code for each in vars(errors).values() if isinstance(each, type) and hasattr(each, "error_status_code")}
    assert {400, 401, 403, 404, 405, 409, 412, 422, 500, 501, 503, 504} <= statuses
    assert errors.MLRunHTTPError("x", status_code=418).error_status_code == 418
    error = errors.MLRunRuntimeError("outer")
    error.__cause__ = KeyError("inner")
    assert errors.err_to_str(error) == "outer, caused by: 'inner'"
    assert (errors.err_to_str(None), errors.err_to_str("x")) == ("", "x")


# --- routers ---


def test_routers_are_names_to_subclass() -> None:
    """With the original's arguments and hooks; what routes is the server's."""
    router = ModelRouter(name="r", routes={"m": 1}, protocol="v1", depth=3)
    assert (router.name, router.routes, router.url_prefix, router.health_prefix, router.inputs_key) == (
        "r", {"m": 1}, "/v1/models", "/v1/health", "instances"
    )  # fmt: skip
    assert (router.get_param("depth"), router.get_param("x", 4)) == (3, 4)
    assert ModelRouter(context=GraphContext({"x": 5})).get_param("x") == 5
    event = type("Event", (), {"body": '{"inputs": [1]}'})()
    assert router.parse_event(router.postprocess(router.preprocess(event))) == {"inputs": [1]}
    event.body = {"inputs": []}
    assert router.parse_event(event) is event.body
    router.post_init()


def test_routers_that_merge_and_vote() -> None:
    """A merger of dicts; a vote that a subclass may build upon, its type decided by the first predictions where nobody says it."""
    parallel = ParallelRun(extend_event=True, executor_type="array")
    assert (parallel.name, parallel.extend_event, parallel.executor_type) == ("ParallelRun", True, "array")
    assert parallel.merger({"a": 1}, {"m": {"b": 2}, "n": {"b": 3}}) == {"a": 1, "b": 3}
    voting = VotingEnsemble(vote_type="regression", weights={"m": 1.0})
    assert (voting.name, voting.vote_type, voting.weights, voting.prediction_col_name) == (
        "VotingEnsemble", "regression", {"m": 1.0}, "prediction"
    )  # fmt: skip
    assert voting.logic([[1, 3]], [0.25, 0.75]) == [2.5]
    undecided = VotingEnsemble()
    assert undecided.logic([[1, 0, 0], [2, 2.0, 1], [5, 4, 3]], [0.5, 0.25, 0.25]) == [0, 2, 5]
    assert undecided.vote_type == "classification"
    assert VotingEnsemble().logic([[1.5, 2.5]], [0.5, 0.5]) == [2.0]


@pytest.mark.parametrize("kind", [EnrichmentModelRouter, EnrichmentVotingEnsemble])
def test_routers_of_the_feature_store(kind: type) -> None:
    """Can be imported, and say why they cannot be served."""
    with pytest.raises(RuntimeError, match=f"{kind.__name__} reads features from MLRun's feature store"):
        kind(feature_vector_uri="x")
