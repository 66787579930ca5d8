"""Classes run by MLRun 1.12.1's own mock server (golden/mlrun/record.py), and by us: the same answers, and refusals where it refuses."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.bodies import event
from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Call, Model, ModelSpec
from dragoman.core.plugins import find
from dragoman.core.tensors import Reply, Rows
from tests.models.snippets import same_process

FOLDER = Path(__file__).parent / "mlrun"
CASES = json.loads((FOLDER / "answers.json").read_text("utf-8"))
KINDS = {
    "MLRunNotFoundError: nothing by that name": (Kind.INVALID_INPUT, 404),
    "KeyError: 'fail'": (Kind.MODEL_FAILED, None),  # the original says 400, as of everything
    "NotImplementedError: NotImplementedError()": (Kind.UNSUPPORTED, None),  # the same
}
"""What a refusal of the original is here, where it is not INVALID_INPUT without a status of its own."""


@pytest.fixture(scope="module")
def models() -> Iterator[dict[str, Model]]:
    with same_process():
        load = find("runtimes", "python")
        hooks = {"class": "Hooks", "class_args": {"model_path": str(FOLDER / "logged"), "k": 7}, "color": "red"}
        file = str(FOLDER / "models.py")
        yield {
            "hooks": load(ModelSpec("hooks", artifact=file, arguments=hooks)),
            "plain:v1": load(ModelSpec("plain", version="v1", named_version=True, artifact=file, arguments={"class": "Plain"})),
        }


def asked(model: Model, case: dict[str, Any]) -> Reply:
    outputs = model.predict(Call(Rows([event(json.loads(json.dumps(case["body"])), id="event")]), case["operation"]))
    assert isinstance(outputs, Rows)
    reply = outputs.items[0]
    assert isinstance(reply, Reply)
    return reply


@pytest.mark.parametrize("case", CASES, ids=[f"{number}-{case['operation']}" for number, case in enumerate(CASES)])
def test_the_original_answers_the_same(models: dict[str, Model], case: dict[str, Any]) -> None:
    """But for `model_version`, which 1.12 has dropped, and for the words and kinds of refusals that are not user code's."""
    expected = case["answer"]
    model = models[case["model"]]
    if isinstance(expected, dict) and expected.get("status") in (400, 404):
        with pytest.raises(ServingError) as caught:
            asked(model, case)
        assert (caught.value.kind, caught.value.status) == KINDS.get(expected["text"], (Kind.INVALID_INPUT, None))
        return
    reply = asked(model, case)
    if isinstance(expected, dict) and "status" in expected:
        assert (reply.status, reply.body) == (expected["status"], expected["text"])
        return
    body = reply.body
    if isinstance(body, dict):
        assert body.pop("model_version", "") == case["model"].partition(":")[2]
        if "timestamp" in body:
            body["timestamp"] = "now"
        body["more"] = [name for name in body.get("more", ()) if name != "model_version"]
        expected = {**expected, "more": expected.get("more", [])}
    assert body == expected
