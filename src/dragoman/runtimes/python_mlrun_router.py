"""A user's own router: a class derived from MLRun's ModelRouter, ParallelRun or VotingEnsemble, whose hooks the server calls. See python.py.

The routing itself is the server's (serving/routers/router.py); here lives the user's object. Each operation is one hook or a few in MLRun's
order; `operations` has only those that the class, or a base of it that is not MLRun's, defines.
"""

from collections.abc import Callable, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from dragoman.core.errors import Kind, invalid
from dragoman.core.model import Call, ModelSpec
from dragoman.core.tensors import Form, Reply, Rows, Signature, Value
from dragoman.runtimes.python_mlrun import ARGUMENTS, context_of
from dragoman.runtimes.python_mlrun_events import Calls, Event, answer_of, finished, opened
from dragoman.runtimes.python_parts import closed, guarded

MEMBERS = "router_members"
"""The argument of a spec that makes it a router's: the keys of its members."""
KINDS = ("VotingEnsemble", "ParallelRun", "ModelRouter")
_OPERATIONS: Mapping[str, tuple[str, ...]] = {
    "before": ("preprocess", "parse_event", "validate"),
    "after": ("postprocess",),
    "merger": ("merger",),
    "logic": ("logic",),
}
"""Operation -> the hooks that it runs."""
_OPTIONS = (
    "vote_type", "weights", "format_response_with_col_name_flag", "prediction_col_name", "extend_event", "executor_type", "version",
    "tolerate", "by_member",
)  # fmt: skip


def load_router(spec: ModelSpec, module: ModuleType, file: str, wanted: str) -> "RouterHooks":
    """Make the router's object. Raises INVALID_INPUT for a class that is none of MLRun's routers."""
    made = vars(module).get(wanted)
    if not isinstance(made, type):
        raise invalid(f"'{file}' of router '{spec.name}' has no class '{wanted}'", what="model")
    kind = next((each.__name__ for each in made.__mro__ if _is_mlruns(each) and each.__name__ in KINDS), "")
    if not kind:
        raise invalid(f"the class '{wanted}' of router '{spec.name}' is not derived from one of MLRun's {', '.join(KINDS)}", what="model")
    return RouterHooks(spec, made, kind)


class RouterHooks:
    """A Model whose rows are what the operations take: an event, or an object with what the hook's arguments are called."""

    concurrent = False
    streams = False
    batch_size = 1

    def __init__(self, spec: ModelSpec, kind: type, base: str) -> None:
        self._name = spec.name
        self.platform = base
        self.signatures: Mapping[str, Signature] = {"": Signature(Form.ROWS, whole=True)}
        self._own = {name for hooks in _OPERATIONS.values() for name in hooks if _is_users(kind, name)}
        self.operations = frozenset(
            {"predict", *(operation for operation, hooks in _OPERATIONS.items() if not self._own.isdisjoint(hooks))}
        )
        context = context_of({})
        context.stream = SimpleNamespace(enabled=False)  # the original's ensembles look there whether records are wanted
        given: Any = {"context": context, "name": spec.name, "routes": dict.fromkeys(spec.arguments[MEMBERS])}
        self._instance: Any = kind(**{**given, **spec.arguments.get(ARGUMENTS, {})})
        self._calls = Calls()
        if _is_users(kind, "post_init"):
            self._calls.settled(guarded(self._instance.post_init, "sync"))

    def predict(self, call: Call) -> Rows:
        """One row in, one Reply out; of "predict" the options that the object has."""
        if self._instance is None:
            raise closed(self._name)
        assert isinstance(call.inputs, Rows)
        (row,) = call.inputs.items
        operations: Mapping[str, Callable[[Any], Reply]] = {
            "predict": self._described,
            "before": self._before,
            "after": self._after,
            "merger": lambda given: Reply(self._finished(self._hook("merger", Kind.MODEL_FAILED, given["body"], given["results"]))),
            "logic": self._logic,
        }
        return Rows([operations[call.operation](row)])

    def close(self) -> None:
        self._instance = None
        self._calls.close()

    def _described(self, _row: Value) -> Reply:
        kwargs = getattr(self._instance, "kwargs", None) or {}
        given = {name: getattr(self._instance, name, kwargs.get(name)) for name in _OPTIONS}
        return Reply({name: self._finished(getattr(value, "value", value)) for name, value in given.items() if value is not None})

    def _before(self, row: dict[str, Value]) -> Reply:
        """The event after preprocess, parse_event and validate; with `terminated` it is the answer already."""
        event: Any = Event(row, opened(row["body"]), row["operation"])
        event.path = row["path"]
        if "preprocess" in self._own:
            event = self._hook("preprocess", Kind.INVALID_INPUT, event)
        ended = bool(getattr(event, "terminated", False))
        if not ended and "parse_event" in self._own:
            event.body = self._hook("parse_event", Kind.INVALID_INPUT, event)
        if not ended and "validate" in self._own:
            event.body = self._hook("validate", Kind.INVALID_INPUT, event.body, event.method)
        return Reply({**row, "body": self._finished(event.body), "id": event.id, "terminated": ended})

    def _after(self, row: dict[str, Value]) -> Reply:
        event = self._hook("postprocess", Kind.MODEL_FAILED, Event(row, row["body"], row["operation"]))
        body = getattr(event, "body", event)
        return answer_of(body, self._name) or Reply(self._finished(body))

    def _logic(self, given: dict[str, Value]) -> Reply:
        """Predictions by data point and member, and weights in the order of the members, as arrays, as the original gives them."""
        votes = self._hook("logic", Kind.MODEL_FAILED, np.array(given["predictions"]), np.array(given["weights"]))
        return Reply(self._finished(votes))

    def _hook(self, name: str, kind: Kind, *arguments: Any) -> Any:
        return self._calls.hook(self._instance, name, kind, self._name, *arguments)

    def _finished(self, value: Any) -> Value:
        return finished(value, self._name)


def _is_mlruns(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "mlrun"


def _is_users(kind: type, name: str) -> bool:
    """Whether a user's class has a method of its own."""
    owner = next((each for each in kind.__mro__ if name in vars(each)), object)
    return owner is not object and not _is_mlruns(owner)
