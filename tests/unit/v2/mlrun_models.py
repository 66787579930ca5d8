"""Models of whole requests of our own, as the server sees MLRun classes: for tests of dialects without a model process."""

import time
from collections.abc import Callable
from typing import Any

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Call, ModelSpec
from dragoman.core.tensors import FP64, INT64, Form, Reply, Rows, Signature, TensorSpec, Value
from dragoman.hosting.servable import Cost, LocalServable
from dragoman.serving.gateway import Entry

NAMES = ("sepal", "petal")
SCHEMA = Signature(
    Form.ROWS,
    tuple(TensorSpec(name, FP64, (-1,), native="float") for name in NAMES),
    (TensorSpec("kind", INT64, (-1,), native="int"),),
    input_schema={"type": "object", "properties": {name: {} for name in NAMES}, "required": list(NAMES)},
    whole=True,
)
PLAIN = Signature(
    Form.ROWS,
    (TensorSpec("inputs", None, None),),
    input_schema={"type": "object", "properties": {"inputs": {}}, "required": ["inputs"]},
    whole=True,
)

Predict = Callable[[dict[str, Any]], Value]


class Whole:
    """Answers what `predict` makes of the body; explain says who is asked, op_echo gives the event back, op_status replies 418."""

    def __init__(self, name: str, predict: Predict, signature: Signature) -> None:
        self.signatures = {"": signature}
        self.operations = frozenset({"predict", "infer", "predict_dict", "infer_dict", "explain", "echo", "status", "text"})
        self.platform = "whole"
        self.concurrent = True
        self.batch_size = 1
        self.name = name
        self._predict = predict

    def predict(self, call: Call) -> Rows:
        assert isinstance(call.inputs, Rows)
        (event,) = call.inputs.items
        return Rows([self._reply(event, event["body"], call.operation)])

    def _reply(self, event: dict[str, Any], body: dict[str, Any], operation: str) -> Reply:
        if operation == "echo":
            return Reply(event)
        if operation == "status":
            return Reply({"error": "a teapot"}, 418, headers={"x-pot": "tea", "bad\r\nname": "x", "content-length": "7"})
        if operation == "text":
            return Reply("only text")
        if not isinstance(body, dict) or not isinstance(body.get("inputs"), list):
            raise ServingError(Kind.INVALID_INPUT, 'ValueError: Expected key "inputs" in request body')
        outputs = f"explained by {self.name}" if operation == "explain" else self._predict({**body, "op": operation})
        answer = {"id": body.get("id", event["id"]), "model_name": self.name, "outputs": outputs}
        if operation != "explain":
            answer["timestamp"] = "2026-01-01 00:00:00.000000+00:00"
        return Reply(answer)

    def close(self) -> None:
        pass


def whole_entry(name: str, predict: Predict, signature: Signature = SCHEMA, version: str = "1") -> Entry:
    """A served model of whole requests."""
    spec = ModelSpec(name, version)
    return Entry(spec, LocalServable(spec, [Whole(name, predict, signature)], Cost()))


def echo(body: dict[str, Any]) -> Value:
    """The inputs again."""
    return body["inputs"]


def slow(body: dict[str, Any]) -> Value:
    """Takes as long as its first input says."""
    time.sleep(body["inputs"][0])
    return body["inputs"]
