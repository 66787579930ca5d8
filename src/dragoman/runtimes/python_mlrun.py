"""MLRun models: a class derived from V2ModelServer, of MLRun's own package or of our stand-in, behind hooks that both have. Called by python.py.

The hooks are run here, in MLRun's order (requirement M23), so that no class needs MLRun's graph around it. One event in, one Reply out.
"""

import importlib
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from types import ModuleType
from typing import Any

from dragoman.core.bodies import BY_NAME, INFER, features, listed, stamp
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import Call, Model, ModelSpec
from dragoman.core.tensors import Reply, Rows, Signature, Value
from dragoman.runtimes.python_mlrun_events import Calls, Event, answer_of, finished, opened, placed, selected
from dragoman.runtimes.python_mlrun_schema import signature_of
from dragoman.runtimes.python_parts import closed, guarded

BASE = "V2ModelServer"
ARGUMENTS = "class_args"
"""The runtime argument that holds the class arguments of one model."""
_PREFIX = "op_"
_OURS = frozenset(
    {"class", "model_class", "module", "model_module", "batch_size", ARGUMENTS, "trust_pickle", "processors", "threads", "device"}
)
"""Arguments of a spec that are not the operator's options for the model's own code."""


def is_mlrun(module: ModuleType, wanted: str = "") -> bool:
    """Whether a module has an MLRun model, or whether the class `wanted` of it is one."""
    return bool(_classes(module)) if not wanted else _is_server(vars(module).get(wanted))


def load_mlrun(spec: ModelSpec, module: ModuleType, file: str, wanted: str) -> Model:
    """Make the model's object and run its `load`. Raises INVALID_INPUT when it is not clear which class is meant."""
    return MlrunModel(spec, _chosen(spec, module, file, wanted))


class MlrunModel:
    """A Model of whole requests (Signature.whole)."""

    platform = "mlrun"
    concurrent = False
    streams = False
    batch_size = 1

    def __init__(self, spec: ModelSpec, model_class: type) -> None:
        given = spec.arguments.get(ARGUMENTS, {})
        arguments = dict(given) if isinstance(given, Mapping) else {}
        self._name = spec.name
        self._version = spec.version if spec.named_version else ""
        self._input_path = arguments.get("input_path") or ""
        self._result_path = arguments.get("result_path") or ""
        options = {name: value for name, value in spec.arguments.items() if name not in _OURS}
        self._context = context_of(options)
        key = f"{spec.name}:{self._version}" if self._version else spec.name
        instance: Any = model_class(**{"context": self._context, "name": key, "model_path": "", **arguments})
        self._instance: Any = instance
        self._calls = Calls()
        _load(instance, self._calls)
        self._metrics = dict(getattr(instance, "metrics", None) or {})
        self.signatures: Mapping[str, Signature] = {"": signature_of(getattr(instance, "model_spec", None))}
        custom = {name.removeprefix(_PREFIX) for name in dir(model_class) if name.startswith(_PREFIX) and name != _PREFIX}
        explains = {"explain"} if _is_own(model_class, "explain") else set()
        self.operations = frozenset({"predict", "infer", "predict_dict", "infer_dict", *explains, *custom})

    def predict(self, call: Call) -> Rows:
        if self._instance is None:
            raise closed(self._name)
        rows = call.inputs.items if isinstance(call.inputs, Rows) else []
        if len(rows) != 1 or not isinstance(rows[0], dict) or "body" not in rows[0]:
            raise invalid(f"model '{self._name}' takes one whole request at a time")
        return Rows([self._reply(rows[0], call.operation, record=call.record)])

    def close(self) -> None:
        self._instance = None
        self._calls.close()

    # --- one request ---

    def _reply(self, given: Mapping[str, Value], operation: str, *, record: bool) -> Reply:
        if operation not in INFER and operation != "explain":
            return self._custom(operation, given)
        began_s = time.time()
        clock = time.monotonic_ns()
        whole = opened(given["body"])
        body = selected(whole, self._input_path, self._name)
        if operation in BY_NAME:
            body = {**body, "inputs": listed(body.get("inputs"), features(self.signatures[""]), self._name)}
        self._instance.metrics = dict(self._metrics)
        request = self._hook("preprocess", Kind.INVALID_INPUT, body, operation)
        request = self._hook("validate", Kind.INVALID_INPUT, request, operation)
        explains = operation == "explain"
        seen = dict(request) if record and isinstance(request, dict) else request
        outputs = self._hook("explain" if explains else "predict", Kind.MODEL_FAILED, request)
        ready = answer_of(outputs, self._name)
        if ready is not None:
            return ready
        response = self._envelope(body.get("id", given.get("id")), outputs, "" if explains else stamp(began_s))
        response = self._hook("postprocess", Kind.MODEL_FAILED, response)
        reply = answer_of(response, self._name) or Reply(finished(placed(whole, self._result_path, response), self._name))
        if record:
            took_us = (time.monotonic_ns() - clock) // 1000
            try:
                return replace(reply, record=self._record(seen, response, operation, began_s, took_us))
            except ServingError as error:  # whoever asked gets the answer; only monitoring has lost something
                sys.stderr.write(f"what monitoring is to know of a request cannot be told: {error.message}\n")
        return reply

    def _custom(self, operation: str, given: Mapping[str, Value]) -> Reply:
        answer = self._hook(f"{_PREFIX}{operation}", Kind.MODEL_FAILED, Event(given, opened(given["body"]), operation))
        return answer_of(answer, self._name) or Reply(finished(answer, self._name))

    def _hook(self, name: str, kind: Kind, *arguments: Any) -> Any:
        return self._calls.hook(self._instance, name, kind, self._name, *arguments)

    def _envelope(self, given_id: Value, outputs: Any, when: str) -> dict[str, Any]:
        response: dict[str, Any] = {"id": given_id, "model_name": self._name, "outputs": outputs}
        if when:
            response["timestamp"] = when
        if self._version:
            response["model_version"] = self._version
        return response

    def _record(self, request: Any, response: Any, operation: str, began_s: float, took_us: int) -> dict[str, Value]:
        """What monitoring is told of a request (requirement M32). Raises MODEL_FAILED for what cannot be written."""
        instance = self._instance
        inputs, outputs = self._hook("logged_results", Kind.MODEL_FAILED, request, response, operation)
        if inputs is not None or outputs is not None:
            identity = response.get("id") if isinstance(response, dict) else None
            request, response = {"id": identity, "inputs": inputs or []}, {"outputs": outputs or []}
        record: dict[str, Any] = {"class": type(instance).__name__, "model": self._name, "version": self._version, "op": operation}
        record |= {"request": request, "resp": response, "when": stamp(began_s), "microsec": took_us}
        for name in ("labels", "metrics"):
            value = getattr(instance, name, None)
            if value:
                record[name] = value
        told: dict[str, Value] = finished(record, self._name)
        return told


# --- loading ---


def _load(instance: Any, calls: Calls) -> None:
    """As MLRun does: a ready object is not loaded, and a schema that `load` did not read is read afterwards where there is a model_path."""
    kind = type(instance)
    if not getattr(instance, "ready", False):
        if _is_own(kind, "post_init"):
            instance.post_init("sync")
        else:
            calls.settled(guarded(instance.load))
        instance.ready = True
    if getattr(instance, "model_spec", None) is None and getattr(instance, "model_path", None):
        with suppress(Exception):  # a path that the class reads in its own way has no schema
            instance.get_model()
    if _is_own(kind, "do_event"):
        sys.stderr.write(f"{kind.__name__}.do_event is not called: this server runs preprocess, validate, predict and postprocess itself\n")


def context_of(options: Mapping[str, Any]) -> Any:
    """A context as model code expects it outside of MLRun's platform, the original's or ours."""
    context = importlib.import_module("mlrun.serving.server").GraphContext()
    context.is_mock = True  # the original then asks no database
    if not hasattr(context, "parameters"):
        context.get_param = lambda key, default=None: options.get(key, default)
        context.get_secret = os.environ.get
    else:
        context.parameters = dict(options)
    return context


def _is_own(kind: type, method: str) -> bool:
    """Whether a class, or a base of it that is not MLRun's base class, defines a method."""
    owner = next((each for each in kind.__mro__ if method in vars(each)), object)
    return owner.__name__ != BASE and owner.__module__.partition(".")[0] != "builtins"


# --- which class ---


def _is_server(value: Any) -> bool:
    """Whether a value is a class that was derived from MLRun's."""
    return isinstance(value, type) and any(
        each is not value and each.__name__ == BASE and each.__module__.partition(".")[0] == "mlrun" for each in value.__mro__
    )


def _classes(module: ModuleType) -> dict[str, type]:
    """The models of a module: those that are written in it, without those that others of them are derived from."""
    own = {n: each for n, each in vars(module).items() if _is_server(each) and each.__module__ == module.__name__}
    bases = {base for each in own.values() for base in each.__mro__[1:]}
    return {name: each for name, each in own.items() if each not in bases and not name.startswith("_")}


def _chosen(spec: ModelSpec, module: ModuleType, file: str, wanted: str) -> type:
    if wanted:
        chosen: type = vars(module)[wanted]
        return chosen
    classes = _classes(module)
    if len(classes) > 1:
        names = ", ".join(f"'{name}'" for name in classes)
        raise invalid(
            f"'{file}' of model '{spec.name}' has several MLRun models: {names}; say which: {spec.name}={file}:{next(iter(classes))}",
            what="model",
        )
    return next(iter(classes.values()))
