"""MLRun's model classes without MLRun: hooks and their order, events in and replies out, what a class is told and what its errors become."""

import io
import json
import pickle
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dragoman.core.bodies import event
from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Call, Model, ModelSpec
from dragoman.core.plugins import find
from dragoman.core.tensors import FP64, INT64, Blob, Form, Reply, Rows, Tensors, TensorSpec
from tests.models.snippets import model_of, same_process, write

HEAD = """
import io
import mlrun
import numpy as np
from mlrun.serving import V2ModelServer
"""
HOOKS = """
class Model(V2ModelServer):
    def load(self):
        self.seen = ["load"]
    def preprocess(self, request, operation):
        self.seen = [f"preprocess {operation}"]
        return {**request, "inputs": request["inputs"] + ["p"]}
    def validate(self, request, operation):
        self.seen.append(f"validate {operation}")
        return super().validate(request, operation)
    def predict(self, request):
        self.seen.append("predict")
        return request["inputs"]
    def explain(self, request):
        self.seen.append("explain")
        return {"because": request["inputs"]}
    def postprocess(self, response):
        return {**response, "seen": self.seen}
"""


@pytest.fixture(autouse=True)
def _process() -> Iterator[None]:
    with same_process():
        yield


def made(folder: Path, body: str, **class_args: Any) -> Model:
    """The model 'm' with these lines after the imports."""
    return model_of(folder, HEAD + body, class_args=class_args)


def predicting(folder: Path, body: str, **class_args: Any) -> Model:
    """A class whose predict has this body."""
    return made(
        folder, f"class Model(V2ModelServer):\n    def load(self): pass\n    def predict(self, request):\n        {body}", **class_args
    )


def reply(model: Model, body: Any, operation: str = "infer", *, record: bool = False, **facts: Any) -> Reply:
    outputs = model.predict(Call(Rows([event(body, **facts)]), operation, record=record))
    assert isinstance(outputs, Rows)
    (answer,) = outputs.items
    assert isinstance(answer, Reply)
    return answer


def outputs(model: Model, inputs: list[Any], operation: str = "infer") -> Any:
    return reply(model, {"inputs": inputs}, operation).body["outputs"]


def refused(model: Model, body: Any, operation: str = "infer") -> ServingError:
    with pytest.raises(ServingError) as caught:
        reply(model, body, operation)
    return caught.value


# --- one request ---


def test_hooks_in_order(tmp_path: Path) -> None:
    """preprocess, validate, predict or explain, postprocess: M23. Only infer has a time, and nobody gave a version."""
    model = made(tmp_path, HOOKS)
    body = reply(model, {"inputs": [1], "id": 7}).body
    assert datetime.fromisoformat(body.pop("timestamp")).utcoffset() is not None
    assert body == {"id": 7, "model_name": "m", "outputs": [1, "p"], "seen": ["preprocess infer", "validate infer", "predict"]}
    seen = ["preprocess explain", "validate explain", "explain"]
    assert reply(model, {"inputs": [1]}, "explain", id="x").body == {
        "id": "x", "model_name": "m", "outputs": {"because": [1, "p"]}, "seen": seen
    }  # fmt: skip
    assert (model.platform, model.concurrent, model.signatures[""].whole, model.signatures[""].form) == ("mlrun", False, True, Form.ROWS)
    assert model.operations == {"infer", "predict", "infer_dict", "predict_dict", "explain"}
    assert getattr(model, "batch_size", 0) == 1


@pytest.mark.parametrize("given", [None, 5, "a", [1], {"a": 1}])
def test_ids_of_any_json_type(tmp_path: Path, given: Any) -> None:
    """The body's own is echoed as it is; else it is the event's (M7)."""
    model = predicting(tmp_path, "return 1")
    assert reply(model, {"inputs": [], "id": given}, id="event").body["id"] == given
    assert reply(model, {"inputs": []}, id="event").body["id"] == "event"


def test_everything_in_the_body_reaches_predict(tmp_path: Path) -> None:
    """parameters, outputs, model and fields that nobody knows, values and types intact (M8, M9, M14)."""
    model = predicting(tmp_path, "return request")
    body = {"inputs": [1, 2.5, "x", None, True, [[0]]], "parameters": {"a": [1]}, "outputs": ["q"], "model": "m", "other": {}}
    assert reply(model, json.loads(json.dumps(body))).body["outputs"] == body


def test_versions_are_named(tmp_path: Path) -> None:
    """A version that somebody gave is in the answer, and the class knows it."""
    path = write(
        tmp_path,
        f"{HEAD}\nclass Model(V2ModelServer):\n    def load(self): pass\n    def predict(self, r): return [self.name, self.version]",
    )
    spec = ModelSpec("m", version="v1", named_version=True, artifact=str(path), runtime="python")
    body = reply(find("runtimes", "python")(spec), {"inputs": []}).body
    assert (body["model_name"], body["model_version"], body["outputs"]) == ("m", "v1", ["m", "v1"])


def test_custom_operations(tmp_path: Path) -> None:
    """op_xx gets the event; what it returns is sent bare."""
    model = made(
        tmp_path,
        """
class Model(V2ModelServer):
    def load(self): pass
    def predict(self, request): return 0
    def op_echo(self, event):
        return [event.body, event.id, event.path, event.method, event.headers, event.content_type, event.trigger.kind]
    def op_none(self, event): pass
""",
    )
    assert {"echo", "none"} <= model.operations
    answer = reply(
        model, {"x": 1}, "echo", id=3, path="/v2/models/m/echo", method="PUT", headers={"a": "b"}, content_type="t/x", trigger="kafka"
    )
    assert answer.body == [{"x": 1}, 3, "echo", "PUT", {"a": "b"}, "t/x", "kafka"]
    assert reply(model, "text", "none").body is None
    assert reply(model, [1], "echo").body[0] == [1]


def test_files_are_file_objects(tmp_path: Path) -> None:
    """A body that is a file is one input; files inside of a body are opened where they are, with their names (M15)."""
    model = predicting(tmp_path, "return [[type(f).__name__, f.name, f.read().decode()] for f in request['inputs']]")
    assert reply(model, Blob(b"abc", "image/png", "a.png")).body["outputs"] == [["BytesIO", "a.png", "abc"]]
    assert outputs(model, [Blob(b"x", name="1"), Blob(b"y", name="2")]) == [["BytesIO", "1", "x"], ["BytesIO", "2", "y"]]
    deep = predicting(tmp_path / "deep", "return request['inputs'][0]['f'][0].read()")
    assert outputs(deep, [{"f": [b"raw"]}]) == b"raw"


def test_inputs_by_name(tmp_path: Path) -> None:
    """Sorted before preprocess, in the order of the schema; extra keys dropped (M10, M12). Without a schema it is refused (M11)."""
    described = made(tmp_path, HOOKS.replace('self.seen = ["load"]', "self.get_model()"), model_path=str(logged(tmp_path / "files")))
    assert outputs(described, [{"b": 1, "a": 2, "c": 3}], "infer_dict") == [[2, 1], "p"]
    message = refused(described, {"inputs": [{"b": 1}]}, "predict_dict").message
    assert "'a'" in message
    assert refused(described, {}, "predict_dict").kind is Kind.INVALID_INPUT
    assert "model_spec.yaml" in refused(made(tmp_path / "other", HOOKS), {"inputs": [{"a": 1}]}, "infer_dict").message


def test_paths_into_the_body(tmp_path: Path) -> None:
    """input_path says where the request is, result_path where the answer goes."""
    model = predicting(tmp_path, "return request['inputs']", input_path="a.b", result_path="c.d")
    body = reply(model, {"a": {"b": {"inputs": [1]}}, "c": 2}, id=9).body
    assert body["a"] == {"b": {"inputs": [1]}}
    assert (body["c"]["d"]["outputs"], body["c"]["d"]["id"]) == ([1], 9)
    assert "'a.b'" in refused(model, {"a": 1}).message


@pytest.mark.parametrize("body", [[1], "text", 5, None])
def test_bodies_that_are_no_objects(tmp_path: Path, body: Any) -> None:
    """Refused before any hook runs."""
    error = refused(predicting(tmp_path, "return 1"), body)
    assert (error.kind, error.what) == (Kind.INVALID_INPUT, "body")


def test_only_events(tmp_path: Path) -> None:
    """A model of whole requests takes one at a time, and no tensors."""
    model = predicting(tmp_path, "return 1")
    for inputs in (Rows([]), Rows([1]), Rows([event({}), event({})]), Tensors([])):
        with pytest.raises(ServingError, match="one whole request"):
            model.predict(Call(inputs))


def test_a_closed_model(tmp_path: Path) -> None:
    """Says so."""
    model = predicting(tmp_path, "return 1")
    model.close()
    assert refused(model, {"inputs": []}).kind is Kind.UNAVAILABLE


# --- what comes out ---


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("np.float32(0.5)", 0.5),
        ("[np.int64(3), np.bool_(True), np.str_('x')]", [3, True, "x"]),
        ("{'a': np.array([[1, 2]]), 5: (1, 2)}", {"a": [[1, 2]], "5": [1, 2]}),
        ("np.array(['a', None])", ["a", None]),
        ("io.BytesIO(b'raw')", b"raw"),
        ("(each for each in [1, 2])", [1, 2]),
        ("(each for each in ['a', 'b'])", "ab"),
        ("type('Series', (), {'__array__': lambda self, *a, **k: np.array([1, 2])})()", [1, 2]),
    ],
)
def test_results_become_plain(tmp_path: Path, source: str, expected: Any) -> None:
    """NumPy scalars and arrays (M27), series and other arrays, files, and generators to their end."""
    found = outputs(predicting(tmp_path, f"return {source}"), [])
    assert _plain(found) == expected


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def test_results_that_are_nothing_plain(tmp_path: Path) -> None:
    """The place is named, and the model goes on."""
    model = predicting(tmp_path, "return [1, {'a': object()}] if request['inputs'] else 1")
    error = refused(model, {"inputs": [1]})
    assert error.kind is Kind.MODEL_FAILED
    assert "outputs[1].a" in error.message
    assert outputs(model, []) == 1


def test_asynchronous_hooks(tmp_path: Path) -> None:
    """Awaited, on one loop that lasts as long as the model."""
    model = made(
        tmp_path,
        """
import asyncio
class Model(V2ModelServer):
    async def load(self): self.loop = asyncio.get_running_loop()
    async def predict(self, request):
        await asyncio.sleep(0)
        return asyncio.get_running_loop() is self.loop
    async def explain(self, request):
        for each in (1, 2):
            yield each
""",
    )
    assert outputs(model, []) is True
    assert outputs(model, [], "explain") == [1, 2]
    model.close()


def test_an_interrupted_coroutine(tmp_path: Path) -> None:
    """Is cancelled before the next call runs, and the loop goes on."""
    model = made(
        tmp_path,
        """
import asyncio
def interrupt(): raise KeyboardInterrupt
class Model(V2ModelServer):
    async def load(self): self.ends = []
    async def predict(self, request):
        if request["inputs"]:
            asyncio.get_running_loop().call_soon(interrupt)
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.ends.append("cancelled")
        return self.ends
""",
    )
    with pytest.raises(KeyboardInterrupt):
        outputs(model, [1])
    assert outputs(model, []) == ["cancelled"]
    model.close()


def test_responses_with_a_status(tmp_path: Path) -> None:
    """From predict, postprocess and custom operations: sent as they are."""
    model = made(
        tmp_path,
        """
class Model(V2ModelServer):
    def load(self): pass
    def predict(self, request): return self.context.Response(body={"a": np.int8(1)}, status_code=422, headers={"x": 1})
    def explain(self, request): return 1
    def postprocess(self, response): return mlrun.serving.Response(body="gone", status_code=410, content_type="text/x")
    def op_odd(self, event): return self.context.Response(status_code=99)
""",
    )
    assert reply(model, {"inputs": []}) == Reply({"a": 1}, 422, "", {"x": "1"})
    assert reply(model, {"inputs": []}, "explain") == Reply("gone", 410, "text/x")
    assert "status 99" in refused(model, {}, "odd").message


@pytest.mark.parametrize(
    ("hook", "error", "kind", "status", "text"),
    [
        ("preprocess", "ValueError('no such\\nthing')", Kind.INVALID_INPUT, None, "ValueError: no such"),
        ("validate", "KeyError('x')", Kind.INVALID_INPUT, None, "KeyError: 'x'"),
        ("predict", "RuntimeError('bad luck')", Kind.MODEL_FAILED, None, "RuntimeError: bad luck"),
        ("predict", "SystemExit(3)", Kind.MODEL_FAILED, None, "tried to end its process"),
        ("predict", "NotImplementedError('no')", Kind.UNSUPPORTED, None, "NotImplementedError: no"),
        ("predict", "mlrun.errors.MLRunNotFoundError('that')", Kind.INVALID_INPUT, 404, "MLRunNotFoundError: that"),
        ("validate", "mlrun.MLRunInvalidArgumentError('this')", Kind.INVALID_INPUT, 400, "MLRunInvalidArgumentError: this"),
        ("preprocess", "mlrun.errors.MLRunServiceUnavailableError('later')", Kind.MODEL_FAILED, 503, "later"),
        ("postprocess", "TypeError()", Kind.MODEL_FAILED, None, "TypeError"),
        ("predict", "type('Gone', (Exception,), {'status_code': 410})('for good')", Kind.INVALID_INPUT, 410, "Gone: for good"),
        ("validate", "type('Odd', (Exception,), {'status_code': True, 'error_status_code': 200})()", Kind.INVALID_INPUT, None, "Odd"),
    ],
)
def test_errors_of_user_code(tmp_path: Path, hook: str, error: str, kind: Kind, status: int | None, text: str) -> None:
    """Before predict they are the caller's, after it the model's, unless they say a status (M24, M25). The model stays ready."""
    model = made(
        tmp_path,
        f"""
class Model(V2ModelServer):
    def load(self): pass
    def predict(self, request): return 1
class Wrong(Model):
    def {hook}(self, request, *more):
        if request.get("ok") or "outputs" in request and request["outputs"] == 2: return 2 if "{hook}" == "predict" else request
        raise {error}
""",
    )
    failed = refused(model, {"inputs": [], "outputs": 1})
    assert (failed.kind, failed.status) == (kind, status)
    assert text in failed.message
    assert "\n" not in failed.message
    assert ("model.py" in failed.trace) == (kind is Kind.MODEL_FAILED)
    if hook != "postprocess":
        assert reply(model, {"inputs": [], "ok": True}).status == 200


def test_what_the_base_class_checks(tmp_path: Path) -> None:
    """inputs must be there and a list (M16), but not for protocol v1."""
    model = predicting(tmp_path, "return 1")
    assert '"inputs"' in refused(model, {}).message
    assert "list" in refused(model, {"inputs": {}}).message
    assert reply(predicting(tmp_path / "old", "return 1", protocol="v1"), {"instances": 1}).body["outputs"] == 1


# --- what a class is told ---


def logged(folder: Path, *, spec: bool = True) -> Path:
    """A model folder as MLRun logs it."""
    folder.mkdir(parents=True)
    (folder / "model.pkl").write_bytes(pickle.dumps({"w": 2}))
    (folder / "names.csv").write_text("x\n1\n")
    if spec:
        (folder / "model_spec.yaml").write_text(
            """
kind: model
metadata: {key: iris, project: p, labels: {l: 1}}
spec:
  model_file: model.pkl
  framework: sklearn
  parameters: {depth: 3, k: 4}
  metrics: {accuracy: 0.9}
  inputs: [{name: a, value_type: float}, {name: b, value_type: int}, {name: c.d, value_type: odd}]
  outputs: [{name: y, value_type: int}]
  extra_data: {names: names.csv}
""".replace(", {name: c.d, value_type: odd}", "")
        )
    return folder


LOADING = """
import pathlib
import pickle
class Model(V2ModelServer):
    def load(self):
        file, extra = self.get_model(".pkl")
        self.weight = pickle.loads(pathlib.Path(file).read_bytes())["w"]
        self.extra = {name: item.get(encoding="utf-8") for name, item in extra.items() if name.startswith("names")}
    def predict(self, request):
        spec = self.model_spec
        return [self.weight, self.extra, spec and [[f.name, f.value_type] for f in spec.inputs], spec and spec.framework]
    def op_params(self, event):
        return [self.get_param(name, "none") for name in event.body]
"""


def test_logged_models(tmp_path: Path) -> None:
    """get_model reads model_spec.yaml: file, schema, parameters, extra data (M23). The schema is the signature."""
    model = made(tmp_path, LOADING, model_path=str(logged(tmp_path / "files")), k=5)
    assert outputs(model, []) == [2, {"names": "x\n1\n"}, [["a", "float"], ["b", "int"]], "sklearn"]
    assert reply(model, ["depth", "k", "other"], "params").body == [3, 4, "none"]
    signature = model.signatures[""]
    assert signature.inputs == (TensorSpec("a", FP64, (-1,), native="float"), TensorSpec("b", INT64, (-1,), native="int"))
    assert signature.outputs == (TensorSpec("y", INT64, (-1,), native="int"),)
    assert signature.input_schema == {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a", "b"]}


def test_folders_without_a_spec(tmp_path: Path) -> None:
    """The first file with the suffix; every file is extra data; there is no schema."""
    model = made(tmp_path, LOADING, model_path=str(logged(tmp_path / "files", spec=False)))
    assert outputs(model, []) == [2, {"names.csv": "x\n1\n"}, None, None]
    assert model.signatures[""].inputs == (TensorSpec("inputs", None, None),)


def test_a_schema_that_load_did_not_read(tmp_path: Path) -> None:
    """Is read afterwards; a path that means nothing to us is the class's own business."""
    source = "class Model(V2ModelServer):\n    def load(self): pass\n    def predict(self, request): return self.model_path"
    assert [s.name for s in made(tmp_path, source, model_path=str(logged(tmp_path / "files"))).signatures[""].inputs] == ["a", "b"]
    assert outputs(made(tmp_path / "other", source, model_path="special:thing"), []) == "special:thing"


def test_parameters_of_class_and_server(tmp_path: Path) -> None:
    """Class arguments first, then the options of the server; those that steer the runtime are none of the model's."""
    source = (
        HEAD
        + "class Model(V2ModelServer):\n    def load(self): pass\n    def predict(self, r): return [self.get_param(n, 0) for n in r['inputs']]"
    )
    model = model_of(tmp_path, source, class_args={"k": 1}, k=2, color="red", trust_pickle=True)
    assert outputs(model, ["k", "color", "trust_pickle", "x"]) == [1, "red", 0, 0]


def test_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Secrets come from the environment, by MLRun's name too; the logger takes facts."""
    monkeypatch.setenv("MLRUN_K8S_SECRET__TOKEN", "t")
    monkeypatch.setenv("PLAIN", "p")
    body = "self.context.logger.info('seen', n=1); return [self.context.get_secret(n) for n in request['inputs']]"
    with caplog.at_level("INFO"):
        assert outputs(predicting(tmp_path, body), ["TOKEN", "PLAIN", "ABSENT"]) == ["t", "p", None]
    assert "seen {'n': 1}" in caplog.text


def test_records(tmp_path: Path) -> None:
    """What monitoring is told, when it asks: the request after validate, the answer after postprocess, metrics of this request alone (M32)."""
    model = made(
        tmp_path,
        HOOKS.replace("def load(self):", "def load(self):\n        self.labels = {'l': 1}; self.set_metric('always', 1)").replace(
            'self.seen.append("predict")',
            'self.seen.append("predict"); self.set_metric("n" if len(request["inputs"]) == 2 else "m", np.int8(2))',
        ),
    )
    assert reply(model, {"inputs": [1]}).record is None
    first = reply(model, {"inputs": [1], "id": 3}, record=True)
    assert first.record is not None
    assert first.record["request"] == {"inputs": [1, "p"], "id": 3}
    assert first.record["resp"] == first.body
    assert (first.record["class"], first.record["model"], first.record["version"], first.record["op"]) == ("Model", "m", "", "infer")
    assert first.record["labels"] == {"l": 1}
    assert first.record["metrics"] == {"always": 1, "n": 2}
    assert first.record["microsec"] >= 0
    assert first.record["when"] == first.body["timestamp"]
    second = reply(model, {"inputs": [1, 2]}, record=True)
    assert second.record is not None
    assert second.record["metrics"] == {"always": 1, "m": 2}


def test_records_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cost the caller nothing."""
    model = predicting(tmp_path, "self.set_metric('n', object()); return 1")
    answer = reply(model, {"inputs": []}, record=True)
    assert (answer.body["outputs"], answer.record) == (1, None)
    assert "metrics.n" in capsys.readouterr().err


def test_records_of_other_values(tmp_path: Path) -> None:
    """logged_results names what is recorded instead."""
    source = "def logged_results(self, request, response, op): return [len(request['inputs'])], None\nclass Last(Model): pass"
    model = made(tmp_path, HOOKS + "    " + source)
    record = reply(model, {"inputs": [1], "id": 3}, record=True).record
    assert record is not None
    assert (record["request"], record["resp"]) == ({"id": 3, "inputs": [2]}, {"outputs": []})


# --- which class, and how it loads ---


def test_several_classes(tmp_path: Path) -> None:
    """One of them is named; bases of others, and names that begin with "_", are no models."""
    source = HEAD + "\n".join(
        f"class {name}({base}):\n    def load(self): pass\n    def predict(self, request): return '{name}'"
        for name, base in [("Base", "V2ModelServer"), ("A", "Base"), ("_C", "Base")]
    )
    assert outputs(model_of(tmp_path, source), []) == "A"
    source += "\nclass B(A.__mro__[1]):\n    pass"
    with pytest.raises(ServingError) as caught:
        model_of(tmp_path / "two", source)
    assert caught.value.message.endswith("several MLRun models: 'A', 'B'; say which: m=model.py:A")
    assert outputs(model_of(tmp_path / "two", source, **{"class": "Base"}), []) == "Base"


def test_a_model_without_mlrun_beside_one(tmp_path: Path) -> None:
    """A class of our own API in the same file is served as such."""
    source = HEAD + "class A(V2ModelServer): pass\nclass Plain:\n    def predict(self, x: int) -> int: return x"
    assert model_of(tmp_path, source, **{"class": "Plain"}).platform == "python"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("class Model(V2ModelServer):\n    def load(self): raise OSError('no weights')", "OSError: no weights"),
        ("class Model(V2ModelServer):\n    def predict(self, request): return 1", "no load method"),
        ("class Model(V2ModelServer):\n    def load(self): self.get_model('.pkl')", "neither a folder nor a file"),
        ("class Model(V2ModelServer):\n    def __init__(self): pass", "unexpected keyword argument"),
    ],
)
def test_failed_loads(tmp_path: Path, source: str, reason: str) -> None:
    """The reason is told in one line, with its type (M26)."""
    with pytest.raises(ServingError) as caught:
        made(tmp_path, source, **({"model_path": "nowhere"} if "get_model" in source else {}))
    assert caught.value.kind is Kind.MODEL_FAILED
    assert caught.value.message.startswith("model 'm' could not be loaded: ")
    assert reason in caught.value.message


def test_ready_objects_and_own_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model that makes itself ready is not loaded; post_init of its own is called; do_event is not, which is said."""
    source = """
class Model(V2ModelServer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, model=5, **kwargs)
    def load(self): raise RuntimeError
    def predict(self, request): return [self.model, self.ready]
    def do_event(self, event): pass
"""
    assert outputs(made(tmp_path, source), []) == [5, True]
    assert "Model.do_event is not called" in capsys.readouterr().err
    source = """
class Model(V2ModelServer):
    def load(self): self.steps = ["load"]
    def post_init(self, mode="sync"):
        super().post_init(mode)
        self.steps.append(mode)
    def predict(self, request): return self.steps
"""
    assert outputs(made(tmp_path / "own", source), []) == ["load", "sync"]


ORIGINAL = """
class Response:
    def __init__(self, headers=None, body=None, content_type=None, status_code=200):
        self.headers, self.body, self.content_type, self.status_code = headers or {}, body, content_type, status_code
class GraphContext:
    def __init__(self, level="info", logger=None, server=None, nuclio_context=None):
        self.is_mock, self.Response, self._server = False, Response, server
    def get_param(self, key, default=None):
        return self._server.parameters.get(key, default) if self._server else default
"""
SERVER = """
class V2ModelServer:
    def __init__(self, context=None, name=None, model_path=None, model=None, protocol=None, input_path=None, result_path=None,
                 shard_by_endpoint=None, **kwargs):
        self.name, self.context, self.model_path, self.protocol = name, context, model_path, protocol or "v2"
        self.ready, self.error, self.model_spec, self.metrics, self._params = False, "", None, {}, kwargs
    def post_init(self, mode="sync", **kwargs): raise AssertionError("asks the database")
    def do_event(self, event, *args, **kwargs): raise AssertionError("is the platform's")
    def get_param(self, key, default=None):
        return self._params[key] if key in self._params else self.context.get_param(key, default)
    def preprocess(self, request, operation): return request
    def validate(self, request, operation): return request
    def postprocess(self, request): return request
    def explain(self, request): raise NotImplementedError()
    def logged_results(self, request, response, op): return None, None
"""


def test_an_installed_original_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It is found before our stand-in, and only what both have is called: neither its database nor its event loop."""
    site = tmp_path / "site" / "mlrun"
    write(site / "serving", SERVER, "v2_serving.py")
    write(site / "serving", ORIGINAL, "server.py")
    write(site / "serving", "from .v2_serving import V2ModelServer", "__init__.py")
    write(site, "ORIGINAL = True", "__init__.py")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    source = """
import mlrun
from mlrun.serving import V2ModelServer
class Model(V2ModelServer):
    def load(self): self.set_metric = None
    def predict(self, request): return [mlrun.ORIGINAL, self.name, self.get_param("k"), self.get_param("color"), self.context.is_mock]
    def op_no(self, event): return self.context.Response(body="no", status_code=418)
"""
    model = model_of(tmp_path / "m", source, class_args={"k": 1}, color="red")
    assert outputs(model, []) == [True, "m", 1, "red", True]
    assert reply(model, {}, "no") == Reply("no", 418)
    assert "explain" not in model.operations
    assert reply(model, {"inputs": []}, record=True).record is not None
    assert capsys.readouterr().err == ""
    assert Path(str(sys.modules["mlrun"].__file__)).is_relative_to(site)


def test_file_objects_keep_their_place(tmp_path: Path) -> None:
    """A file object that is answered is sent whole, wherever it was read to."""
    model = predicting(tmp_path, "f = io.BytesIO(b'abc'); f.read(); return f")
    assert outputs(model, []) == io.BytesIO(b"abc").getvalue()
