"""MLRun's routers as models (MLRun requirement M31): VotingEnsemble, ParallelRun and ModelRouter over members of any runtime.

A router takes a whole request and asks the gateway for its members by name at call time. Opened by server/loading.py. A member that fails
fails the call, or, with `tolerate`, is named in the answer.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dragoman.core.bodies import BY_NAME, INFER, described
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import EMPTY, InferRequest, InferResponse, ModelSpec, Timings
from dragoman.core.rows import row_schema
from dragoman.core.tensors import Blob, Form, Reply, Rows, Signature, TensorSpec, Value
from dragoman.serving.composed import first_failure, refuse_circle
from dragoman.serving.gateway import Gateway
from dragoman.serving.routers.answers import columns, explained, merged, weights_of
from dragoman.serving.routers.calling import Member, ask, entry_of, predictions_of
from dragoman.serving.routers.hooks import Hooks, Open
from dragoman.serving.routers.options import PLATFORMS, ROUTER, VOTING, Options, options
from dragoman.serving.routers.voting import alone, decided, declared, voted
from dragoman.serving.settings import quoted

log = logging.getLogger("dragoman.models")

RUNTIME = "router"
"""What the spec of a router has as its runtime. Its members are the steps; its arguments are `args` and `kind`, or `class` for a user's own,
whose file is the artifact."""


async def open_router(spec: ModelSpec, gateway: Gateway, opener: Open) -> "Router":
    """A router over members that are served now; `opener` starts the process of a user's own class.

    Raises INVALID_INPUT for arguments that its kind does not take and for a router that is made of itself, UNAVAILABLE or NOT_READY for a
    member that is not served.
    """
    refuse_circle(spec, gateway, "router")
    members = members_of(spec)
    signatures = [entry_of(gateway, member, spec.name)[1] for member in members]
    hooks = await Hooks.open(spec, [member.key for member in members], opener) if spec.artifact else None
    try:
        return Router(spec, gateway, signatures, hooks)
    except ServingError:
        if hooks is not None:
            await hooks.servable.close()
        raise


class Router:
    """`signatures` are those of the members. Made by open_router."""

    def __init__(self, spec: ModelSpec, gateway: Gateway, signatures: Sequence[Signature], hooks: Hooks | None = None) -> None:
        self._spec = spec
        self._gateway = gateway
        self._hooks = hooks
        self.kind: str = hooks.kind if hooks is not None else spec.arguments["kind"]
        self.members = members_of(spec)
        self._keys = [member.key for member in self.members]
        given = hooks.options if hooks is not None else spec.arguments["args"]
        self.options: Options = options(self.kind, given, self._keys, spec.name, strict=hooks is None)
        self._vote_type = self.options.vote_type or declared([predictions_of(each, self.options.column) for each in signatures])
        self.signatures: Mapping[str, Signature] = {"": self._signature(signatures)}
        self.platform = PLATFORMS[self.kind]

    @property
    def weights(self) -> Mapping[str, float]:
        """By member; their sum is 1."""
        return self.options.weights

    @property
    def operations(self) -> frozenset[str]:
        """A ModelRouter does whatever one of its members does now."""
        own = frozenset({*INFER, "explain"})
        if self.kind != ROUTER:
            return own
        table = self._gateway.table()
        entries = [table.get((member.name, member.version)) for member in self.members]
        return own.union(*(entry.servable.operations for entry in entries if entry is not None))

    def _signature(self, members: Sequence[Signature]) -> Signature:
        """Data points are described as by the first member that describes them."""
        known = next((s for s in members if s.inputs and described(s)), members[0])
        inputs, outputs = known.inputs, known.outputs if self.kind == ROUTER else ()
        if not known.whole:  # what another runtime calls a tensor is no value_type
            inputs, outputs = (tuple(replace(spec, native="") for spec in specs) for specs in (inputs, outputs))
        if self.kind == VOTING:
            prediction = None if self.options.by_name else predictions_of(known, self.options.column)
            outputs = (TensorSpec(prediction.name if prediction else self.options.column, None, None),)
        return Signature(Form.ROWS, inputs, outputs, batch=False, input_schema=row_schema(known), whole=True)

    async def infer(self, request: InferRequest) -> InferResponse:
        """Raises ServingError, which names the member that failed, if one did."""
        begin = time.monotonic_ns()
        if asyncio.current_task() is None:
            await asyncio.sleep(0)  # the HTTP server runs a request's first step without a task; task groups need one
        event = self._one(request)
        if self._hooks is not None:
            event = await self._hooks.before(event, request)
            if event.get("terminated"):
                return _response(Reply(event["body"]), begin)
        event = self._checked(event, request.operation)
        failures: dict[str, str] = {}
        if self.kind == ROUTER:
            body = await ask(self._gateway, self._routed(event), event, request, self._spec.name)
        else:
            results, failures = await self._asked(event, request)
            body = await self._combined(event, results, request)
            if failures and isinstance(body, dict):
                body["failed"] = failures
        reply = Reply(body) if self._hooks is None else await self._hooks.after(event, body, request)
        if request.record:
            reply = replace(reply, record={"class": self._spec.arguments.get("class") or self.kind})
        return _response(reply, begin, failures)

    def _one(self, request: InferRequest) -> dict[str, Value]:
        items = request.inputs.items if isinstance(request.inputs, Rows) else []
        if len(items) != 1 or not isinstance(items[0], dict):
            raise invalid(f"router '{self._spec.name}' takes one event at a time")
        event: dict[str, Value] = items[0]
        return event

    def _checked(self, event: dict[str, Value], operation: str) -> dict[str, Value]:
        """The event with a body that members can take: an object, with a list of inputs where the operation is one of MLRun's."""
        name, body = self._spec.name, event.get("body")
        if isinstance(body, Blob):
            return {**event, "body": {"inputs": [body]}}
        if not isinstance(body, dict):
            raise invalid(f"the body of a request to router '{name}' must be an object with 'inputs'", "body")
        if not isinstance(body.get("parameters") or {}, dict):
            raise invalid(f"the parameters of the request to router '{name}' must be an object", "body")
        if operation in INFER or operation == "explain":
            if "inputs" not in body:
                raise invalid(f"the request to router '{name}' has no 'inputs'", "body")
            if not isinstance(body["inputs"], list) and not (operation in BY_NAME and isinstance(body["inputs"], dict)):
                raise invalid(f"the 'inputs' of a request to router '{name}' must be a list", "body")
        return event

    def _routed(self, event: Mapping[str, Value]) -> Member:
        """The member that the body names as its `model`, else the first."""
        wanted = event["body"].get("model")
        if wanted is None or wanted == self._spec.name:
            return self.members[0]
        for member in self.members:
            if wanted == member.key:
                return member
        raise invalid(f"router '{self._spec.name}' has no member {quoted(str(wanted))}; it has {', '.join(self._keys)}", "model")

    async def _asked(self, event: dict[str, Value], request: InferRequest) -> tuple[dict[str, Value], dict[str, str]]:
        """The bodies of the members' answers, in the order of the members, and what those said that failed and may."""
        column = self.options.column if self.kind == VOTING and request.operation in INFER else ""
        failures: dict[str, ServingError] = {}

        async def one(member: Member) -> Value:
            try:
                return await ask(self._gateway, member, event, request, self._spec.name, column)
            except ServingError as error:
                if not self.options.tolerate:
                    raise
                failures[member.key] = error
                return None

        if self.options.serial:
            answers = [await one(member) for member in self.members]
        else:
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(one(member)) for member in self.members]
            except BaseExceptionGroup as failed:
                first = first_failure(failed, f"router '{self._spec.name}'")
                if first.kind is Kind.INTERNAL:
                    log.exception("router '%s' failed", self._spec.name)
                raise first from first.__cause__
            answers = [task.result() for task in tasks]
        results = {key: answer for key, answer in zip(self._keys, answers, strict=True) if key not in failures}
        if not results:
            raise next(iter(failures.values()))
        for key, error in failures.items():
            log.warning("router '%s' answered without its member '%s': %s", self._spec.name, key, error.message)
        return results, {key: failures[key].message for key in self._keys if key in failures}

    async def _combined(self, event: Mapping[str, Value], results: dict[str, Value], request: InferRequest) -> Value:
        own: dict[str, Any] = {"id": event["id"], "model_name": self._spec.name}
        if self.kind != VOTING:
            start = dict(event["body"]) if self.options.extend_event else {}
            if self._hooks is not None and self._hooks.has("merger"):
                return await self._hooks.merged(start, results, request)
            return {**start, **own, **merged(results, self.options, self._spec.name)}
        if request.operation == "explain":
            own["outputs"] = explained(results, self.options, self._spec.name)
        else:
            own["outputs"] = await self._voted(results, request)
        return {**own, "model_version": self.options.version} if self.options.version else own

    async def _voted(self, results: dict[str, Value], request: InferRequest) -> Value:
        try:
            predictions, bare = columns(results, self.options.column)
            weights = weights_of(predictions, self.options, self._spec.name)
            if self._hooks is not None and self._hooks.has("logic"):
                points = [[alone(cell) for cell in point] for point in zip(*predictions.values(), strict=True)]
                votes = await self._hooks.voted(points, list(weights.values()), request)
                bare = bare and isinstance(votes, list) and len(votes) == 1
            else:
                self._vote_type = self._vote_type or decided(predictions)
                votes = voted(predictions, weights, self._vote_type)
        except ServingError as error:
            error.message = f"router '{self._spec.name}': {error.message}"
            raise
        votes = votes[0] if bare else votes
        return {self.options.column: votes} if self.options.by_name else votes

    async def stream(self, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
        yield await self.infer(request)

    async def lost(self) -> str:
        """Members come and go by themselves: only a user's class has a process to lose."""
        if self._hooks is not None:
            return await self._hooks.servable.lost()
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody resolves that future")

    async def drain(self, deadline: float) -> None:
        """Requests in flight are counted by the gateway."""
        if self._hooks is not None:
            await self._hooks.servable.drain(deadline)

    async def close(self) -> None:
        """Members belong to themselves."""
        if self._hooks is not None:
            await self._hooks.servable.close()

    def trouble(self) -> str:
        return self._hooks.servable.trouble() if self._hooks is not None else ""

    def pending(self) -> int:
        return self._hooks.servable.pending() if self._hooks is not None else 0


def members_of(spec: ModelSpec) -> tuple[Member, ...]:
    return tuple(Member(f"{s.model}:{s.version}" if s.version else s.model, s.model, s.version) for s in spec.steps)


def _response(reply: Reply, begin: int, failures: Mapping[str, str] = EMPTY) -> InferResponse:
    """Failures are named in the parameters too, for protocols that show the outputs only."""
    parameters = {"failed_members": ", ".join(failures)} if failures else EMPTY
    return InferResponse(Rows([reply]), Timings(infer_ns=time.monotonic_ns() - begin), parameters)
