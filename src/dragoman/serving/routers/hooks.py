"""The hooks of a user's router class, which lives in a model process: preprocess and parse_event, merger, logic, postprocess. Called by router.py.

The other end is runtimes/python_mlrun_router.py. A hook that the class does not have costs nothing: nobody is asked.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dragoman.core.bodies import reply_of
from dragoman.core.model import InferRequest, ModelSpec, Servable
from dragoman.core.tensors import Reply, Rows, Value
from dragoman.core.values import jsonable
from dragoman.serving.python_models import CLASS_ARGUMENTS, ENGINE
from dragoman.serving.python_models import RUNTIME as PYTHON

Open = Callable[[ModelSpec], Awaitable[Servable]]


class Hooks:
    """`kind` is that of the class, `options` are the arguments that its object has."""

    def __init__(self, servable: Servable, name: str, kind: str, options: Mapping[str, Any]) -> None:
        self.servable = servable
        self.kind = kind
        self.options = options
        self._name = name

    @classmethod
    async def open(cls, spec: ModelSpec, members: Sequence[str], opener: Open) -> "Hooks":
        """Start the process of a router's class. Raises ServingError with the reason when that fails."""
        arguments = {"class": spec.arguments["class"], CLASS_ARGUMENTS: spec.arguments["args"], "router_members": list(members)}
        servable = await opener(replace(spec, runtime=PYTHON, engine=ENGINE, steps=(), arguments=arguments))
        try:
            response = await servable.infer(InferRequest(Rows([{}])))
            return cls(servable, spec.name, servable.platform, reply_of(response.outputs, spec.name).body)
        except BaseException:
            await servable.close()
            raise

    def has(self, operation: str) -> bool:
        return operation in self.servable.operations

    async def before(self, event: dict[str, Value], request: InferRequest) -> dict[str, Value]:
        """The event as preprocess, parse_event and validate leave it; with `terminated` its body is the answer."""
        if not self.has("before"):
            return event
        made: dict[str, Value] = (await self._asked("before", {**event, "operation": request.operation}, request)).body
        return made

    async def after(self, event: Mapping[str, Value], body: Value, request: InferRequest) -> Reply:
        """The answer as postprocess leaves it."""
        if not self.has("after"):
            return Reply(body)
        return await self._asked("after", {**event, "body": body, "operation": request.operation}, request)

    async def merged(self, body: dict[str, Value], results: Mapping[str, Value], request: InferRequest) -> Value:
        """What merger makes of the bodies of the members' answers, over this body."""
        return (await self._asked("merger", {"body": body, "results": dict(results)}, request)).body

    async def voted(self, predictions: list[list[Value]], weights: Sequence[float], request: InferRequest) -> Value:
        """What logic decides, of JSON types."""
        return jsonable((await self._asked("logic", {"predictions": predictions, "weights": list(weights)}, request)).body)

    async def _asked(self, operation: str, row: Value, request: InferRequest) -> Reply:
        part = InferRequest(
            Rows([row]), operation, id=request.id, deadline=request.deadline, priority=request.priority, caller=request.caller
        )
        return reply_of((await self.servable.infer(part)).outputs, self._name)
