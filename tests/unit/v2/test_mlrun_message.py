"""One request of MLRun's dialect without HTTP: what streams and routes call, over models of tensors, of rows and of whole requests."""

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.plugins import find
from dragoman.core.tensors import Blob, Value
from dragoman.dialects.v2.mlrun_message import Answered, answer, outcome
from tests.unit.v2.client import TEXT, Client, entry, iris, shout
from tests.unit.v2.mlrun_models import PLAIN, echo, whole_entry

FLOWER = [5.1, 3.5, 1.4, 0.2]
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\+00:00\Z")


@pytest.fixture(scope="module")
def server() -> Iterator[Client]:
    with Client([iris(), iris("2"), entry("text", TEXT, shout), whole_entry("whole", echo), whole_entry("plain", echo, PLAIN)]) as client:
        client.gateway.named = ("whole", "iris")
        yield client


def ask(server: Client, body: Any, **options: Any) -> Answered:
    return server.run(answer(server.gateway, body if isinstance(body, bytes | dict) else json.dumps(body).encode(), **options))


def told(server: Client, body: Any, **options: Any) -> dict[str, Any]:
    """The document that is sent."""
    written, media_type = ask(server, body, **options).written()
    assert media_type == "application/json"
    document: dict[str, Any] = json.loads(written)
    return document


def refused(server: Client, body: Any, **options: Any) -> ServingError:
    with pytest.raises(ServingError) as caught:
        ask(server, body, **options)
    return caught.value


def test_a_list_for_a_model_of_tensors(server: Client) -> None:
    """id, model_name, outputs and timestamp, in that order (M1); floats in the shortest text of their own width."""
    document = told(server, {"id": "x", "inputs": [FLOWER, FLOWER]}, model="iris")
    assert list(document) == ["id", "model_name", "outputs", "timestamp"]
    assert (document["id"], document["model_name"]) == ("x", "iris")
    assert document["outputs"] == [{"label": 1, "probabilities": [10.2, 20.4, 5.1]}] * 2
    assert TIME.match(document["timestamp"])


@pytest.mark.parametrize("given", [7, None, 2.5, True, "", "ü", ["a", {"b": 1}], {"k": None}])
@pytest.mark.parametrize("model", ["iris", "whole"])
def test_ids_of_any_kind(server: Client, model: str, given: Value) -> None:
    """They come back as they were (M7)."""
    answered = ask(server, {"id": given, "inputs": [FLOWER]}, model=model)
    assert json.loads(answered.written()[0])["id"] == given
    assert answered.id == given


def test_ids_that_nobody_gave(server: Client) -> None:
    """What the transport calls the request, else something new each time (M7)."""
    assert told(server, {"inputs": [FLOWER]}, model="iris", id="packet-1")["id"] == "packet-1"
    made = {
        told(server, {"inputs": [FLOWER]}, model=model, operation=op)["id"] for model in ("iris", "whole") for op in ("infer", "predict")
    }
    assert len(made) == 4
    assert all(made)


@pytest.mark.parametrize(
    ("body", "model", "named"),
    [
        ({"inputs": [[1, 2]]}, "", "whole"),
        ({"inputs": [FLOWER], "model": "iris"}, "", "iris"),
        ({"inputs": [FLOWER], "model": "iris:1"}, "", "iris"),
        ({"inputs": [FLOWER], "model": "whole"}, "iris:2", "iris"),
    ],
)
def test_which_model(server: Client, body: dict[str, Any], model: str, named: str) -> None:
    """The argument, else the body's `model`, with a version or without, else the default one (M18)."""
    assert told(server, body, model=model)["model_name"] == named


def test_which_operation(server: Client) -> None:
    """The body's operation wins; without any it is infer (M18, M22)."""
    assert ask(server, {"inputs": [1]}, model="whole").operation == "infer"
    assert told(server, {"inputs": [1], "operation": "explain"}, model="whole", operation="infer")["outputs"] == "explained by whole"
    assert "timestamp" not in told(server, {"inputs": [1]}, model="whole", operation="explain")


@pytest.mark.parametrize(
    "inputs",
    [
        [1, "two", 3.5, None, True],
        [[1, "x"], [2.0, "y"]],
        [[[[1], [2]], [[3], [4]]]],
        [],
        [{"a": 1}],
        [2**62, -1],
        [[0.1] * 4000, [1] * 4000],
    ],
)
def test_whole_requests_are_not_touched(server: Client, inputs: list[Any]) -> None:
    """Values, types and nesting reach the model as they were sent, long lists of numbers too (M8, M9)."""
    found = told(server, {"inputs": inputs}, model="whole")["outputs"]
    assert found == inputs
    assert repr(found) == repr(inputs)


def test_the_event(server: Client) -> None:
    """An operation of its own gets the event and answers bare (M14, sheet section 2)."""
    sent = {"inputs": [1], "parameters": {"p": 1}, "outputs": ["y"], "model": "whole", "more": {"x": [1]}}
    event = told(server, sent, operation="echo", id="7", trigger="kafka", path="topic", headers={"a": "b"}, content_type="text/x")
    assert event == {
        "body": sent, "id": "7", "path": "topic", "method": "POST", "trigger": "kafka", "headers": {"a": "b"}, "content_type": "text/x",
    }  # fmt: skip


def test_replies_of_user_code(server: Client) -> None:
    """A status and headers of user code are the answer's; text is text."""
    answered = ask(server, {"inputs": [1]}, model="whole", operation="status")
    assert (answered.status, answered.headers["x-pot"]) == (418, "tea")
    assert ask(server, {}, model="whole", operation="text").written() == (b"only text", "text/plain; charset=utf-8")


@pytest.mark.parametrize("value", [2**64 - 1, 2**70, -(2**70), "\ud800", [[[[[]]]]], 0.1 + 0.2, np.arange(3), np.array([0.1, 1], "f4")])
def test_answers_that_json_can_carry(value: Value) -> None:
    """What a class answered is written in any case, floats of an array in their own width."""
    (found,) = json.loads(Answered({"outputs": [value]}).written()[0])["outputs"]
    assert found == (value if not isinstance(value, np.ndarray) else [float(str(each)) for each in value])


def test_answers_that_are_no_json() -> None:
    """Not-a-number is null, a file its content, bytes and texts are themselves; what has no end is the model's failure."""
    answered = Answered({"outputs": [float("nan"), float("inf"), b"xy", Blob(b"z", "image/png"), np.array([np.nan])]})
    assert json.loads(answered.written()[0])["outputs"] == [None, None, "eHk=", "data:image/png;base64,eg==", [None]]
    assert Answered(Blob(b"z", "image/png")).written() == (b"z", "image/png")
    assert Answered(b"z").written() == (b"z", "application/octet-stream")
    assert Answered("ü\ud800", content_type="text/x").written() == ("ü?".encode(), "text/x")
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ServingError) as caught:
        Answered(deep, model="m").written()
    assert caught.value.kind is Kind.MODEL_FAILED


def test_features_by_name(server: Client) -> None:
    """infer_dict for a model of tensors: one object or a list of them, keys in any order, extra ones dropped (M10, M12)."""
    for inputs in ([{"zzz": 1, "input": FLOWER}], {"input": FLOWER}):
        assert told(server, {"inputs": inputs}, model="iris", operation="infer_dict")["outputs"][0]["label"] == 1
    error = refused(server, {"inputs": [{"x": 1}]}, model="iris", operation="predict_dict")
    assert "data point 0 for model 'iris' lacks 'input'" in error.message


def test_parameters_reach_models_of_tensors(server: Client) -> None:
    """They are the model's."""
    sent = {"inputs": [{"text_input": ["ab"]}], "parameters": {"twice": True}}
    assert told(server, sent, model="text")["outputs"] == [["ABAB"]]


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"{", Kind.INVALID_INPUT, "the request is not valid JSON"),
        (b"[1]", Kind.INVALID_INPUT, "must be a JSON object, not a list"),
        ({"model": 3}, Kind.INVALID_INPUT, "the field 'model' of the request must be a string, not a number"),
        ({"model": "iris", "operation": ["x"]}, Kind.INVALID_INPUT, "'operation'"),
        ({"model": "iris"}, Kind.INVALID_INPUT, "the request to model 'iris' needs a list 'inputs'"),
        ({"model": "iris", "inputs": 3}, Kind.INVALID_INPUT, "the inputs for model 'iris' must be a list, not a number"),
        ({"model": "iris", "inputs": [[1, 2]]}, Kind.INVALID_INPUT, "'iris'"),
        ({"model": "iris", "inputs": [[1, 2, 3, "x"]]}, Kind.INVALID_INPUT, "'x' came for FP32"),
        ({"model": "iris", "inputs": [FLOWER], "parameters": [1]}, Kind.INVALID_INPUT, "must be an object, not a list"),
        ({"model": "nobody", "inputs": []}, Kind.NOT_FOUND, "'nobody'"),
        ({"model": "nobody:1", "inputs": []}, Kind.NOT_FOUND, "'nobody'"),
        ({"model": "iris:9", "inputs": []}, Kind.NOT_FOUND, "has no version '9'"),
        ({"model": "iris:", "inputs": []}, Kind.NOT_FOUND, "'iris:'"),
        ({"model": "iris:@stable", "inputs": []}, Kind.NOT_FOUND, "@stable"),
        ({"model": "iris", "inputs": [FLOWER], "operation": "explain"}, Kind.UNSUPPORTED, "has no operation 'explain'"),
        ({"model": "iris", "inputs": [FLOWER], "operation": "dance"}, Kind.NOT_FOUND, "has no operation 'dance'; it has infer"),
        ({"model": "whole", "inputs": "x"}, Kind.INVALID_INPUT, "ValueError"),
        ({"model": "iris", "inputs": [1], "data_url": "http://x"}, Kind.INVALID_INPUT, "data_url"),
        ({"model": "iris", "inputs": [1], "data_url": 7}, Kind.INVALID_INPUT, "'data_url'"),
        (b'{"model": "whole", "inputs": [1], "id": ' + b"[" * 400 + b"]" * 400 + b"}", Kind.INVALID_INPUT, "nested deeper"),
        (b'{"model": "iris", "inputs": [[1,2,3,4]], "id": ' + b"[" * 400 + b"]" * 400 + b"}", Kind.INVALID_INPUT, "nested deeper"),
        (b'{"model": "iris", "inputs": ' + b"[" * 400 + b"]" * 400 + b"}", Kind.INVALID_INPUT, "nested deeper"),
    ],
)
def test_refusals(server: Client, body: Any, kind: Kind, words: str) -> None:
    """Each says what was wrong and for which model (M11, M16, M25)."""
    error = refused(server, body)
    assert error.kind is kind
    assert words in error.message


def test_outcomes(server: Client) -> None:
    """For streams: a refusal is an object with the id and the error, and says why; find() brings the function."""
    call = find("messages", "mlrun")
    assert call is outcome
    bad = server.run(outcome(server.gateway, b'{"id": 7, "model": "nobody"}', id="packet"))
    assert json.loads(bad.written()[0]) == {"id": 7, "error": bad.error.message if bad.error else ""}
    assert (bad.status, bad.id) == (404, 7)
    broken = server.run(outcome(server.gateway, b"\xff", id="packet"))
    assert (broken.status, broken.id) == (400, "packet")
    good = server.run(outcome(server.gateway, json.dumps({"inputs": [FLOWER], "model": "iris"}).encode()))
    assert (good.status, good.error, good.model) == (200, None, "iris")
    deep = server.run(outcome(server.gateway, b'{"model": "x", "id": ' + b"[" * 400 + b"]" * 400 + b"}"))
    assert deep.id is None


def test_a_data_url(server: Client) -> None:
    """What it names becomes the inputs; the other fields stay (M13)."""

    async def load(url: str) -> Value:
        assert url == "file:///data"
        return [[1, 2]]

    body = {"data_url": "file:///data", "id": 5, "parameters": {"k": 1}}
    event = told(server, body, model="whole", operation="echo", load=load)
    assert event["body"] == {**body, "inputs": [[1, 2]]}
