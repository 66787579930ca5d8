"""MLRun's routers as models (MLRun requirement M31): VotingEnsemble, ParallelRun and ModelRouter over members of any runtime.

A router takes a whole request and asks the gateway for its members by name at call time. Opened by server/loading.py. A member that fails
fails the call, or, with `tolerate`, is named in the answer.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from dragoman.core.bodies import BY_NAME, INFER
from dragoman.core.errors import ServingError, invalid
from dragoman.core.model import InferRequest, InferResponse, ModelSpec, Timings
from dragoman.core.rows import row_schema
from dragoman.core.tensors import Blob, Form, Reply, Rows, Signature, TensorSpec, Value
from dragoman.serving.composed import first_failure, refuse_circle
from dragoman.serving.gateway import Gateway
from dragoman.serving.routers.answers import columns, explained, merged, vote
from dragoman.serving.routers.calling import Member, ask, entry_of, predictions_of
from dragoman.serving.routers.options import PLATFORMS, ROUTER, VOTING, Options, options
from dragoman.serving.routers.voting import decided, declared

log = logging.getLogger("dragoman.models")

RUNTIME = "router"
"""What the spec of a router has as its runtime. Its members are the steps; `kind` and `args` are among its arguments."""

_ANY = {"type": "object", "properties": {"inputs": {}}, "required": ["inputs"]}


class Router:
    """Raises INVALID_INPUT when it is made with arguments that its kind does not take. Call `check_members` before anything else."""

    def __init__(self, spec: ModelSpec, gateway: Gateway) -> None:
        self._spec = spec
        self._gateway = gateway
        self.kind: str = spec.arguments["kind"]
        self.members = tuple(Member(f"{s.model}:{s.version}" if s.version else s.model, s.model, s.version) for s in spec.steps)
        self._keys = [member.key for member in self.members]
        self.options: Options = options(self.kind, spec.arguments.get("args", {}), self._keys, spec.name)
        self._vote_type = self.options.vote_type
        self.signatures: Mapping[str, Signature] = {"": Signature(Form.ROWS, input_schema=_ANY, whole=True)}
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

    def check_members(self) -> None:
        """Raise INVALID_INPUT or UNAVAILABLE when a member is not served, or is made of this router itself. Learns what they take."""
        refuse_circle(self._spec, self._gateway, "router")
        signatures = [entry_of(self._gateway, member, self._spec.name)[1] for member in self.members]
        self.signatures = {"": self._signature(signatures)}
        self._vote_type = self._vote_type or declared([predictions_of(signature, self.options.column) for signature in signatures])

    def _signature(self, members: list[Signature]) -> Signature:
        """Data points are described as by the first member that describes them."""
        known = next((s for s in members if s.inputs and row_schema(s) != _ANY), members[0])
        outputs = known.outputs if self.kind == ROUTER else ()
        if self.kind == VOTING:
            prediction = None if self.options.by_name else predictions_of(known, self.options.column)
            outputs = (TensorSpec(prediction.name if prediction else self.options.column, None, None),)
        return Signature(Form.ROWS, known.inputs, outputs, batch=False, input_schema=row_schema(known), whole=True)

    async def infer(self, request: InferRequest) -> InferResponse:
        """Raises ServingError, which names the member that failed, if one did."""
        begin = time.monotonic_ns()
        if asyncio.current_task() is None:
            await asyncio.sleep(0)  # the HTTP server runs a request's first step without a task; task groups need one
        event = self._event(request)
        if self.kind == ROUTER:
            body = await ask(self._gateway, self._routed(event), event, request, self._spec.name)
            failures: dict[str, str] = {}
        else:
            results, failures = await self._asked(event, request)
            body = self._combined(event, results, request.operation)
            if failures:
                body["failed"] = failures
        response = InferResponse(Rows([Reply(body)]), Timings(infer_ns=time.monotonic_ns() - begin))
        if failures:
            response.parameters = {"failed_members": ", ".join(failures)}
        return response

    def _event(self, request: InferRequest) -> dict[str, Value]:
        """The event of a request, its body checked: an object with a list of inputs."""
        name = self._spec.name
        if not isinstance(request.inputs, Rows) or len(request.inputs.items) != 1 or not isinstance(request.inputs.items[0], dict):
            raise invalid(f"router '{name}' takes one event at a time")
        event: dict[str, Value] = request.inputs.items[0]
        body = event.get("body")
        if isinstance(body, Blob):
            return {**event, "body": {"inputs": [body]}}
        if not isinstance(body, dict):
            raise invalid(f"the body of a request to router '{name}' must be an object with 'inputs'", "body")
        if request.operation in INFER or request.operation == "explain":
            if "inputs" not in body:
                raise invalid(f"the request to router '{name}' has no 'inputs'", "body")
            if not isinstance(body["inputs"], list) and not (request.operation in BY_NAME and isinstance(body["inputs"], dict)):
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
        raise invalid(f"router '{self._spec.name}' has no member {wanted!r}; it has {', '.join(self._keys)}", "model")

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
                raise first_failure(failed, f"router '{self._spec.name}'") from failed
            answers = [task.result() for task in tasks]
        results = {key: answer for key, answer in zip(self._keys, answers, strict=True) if key not in failures}
        if not results:
            raise next(iter(failures.values()))
        for key, error in failures.items():
            log.warning("router '%s' answered without its member '%s': %s", self._spec.name, key, error.message)
        return results, {key: failures[key].message for key in self._keys if key in failures}

    def _combined(self, event: Mapping[str, Value], results: dict[str, Value], operation: str) -> dict[str, Value]:
        own: dict[str, Any] = {"id": event["id"], "model_name": self._spec.name}
        if self.kind != VOTING:
            fields = merged(results, self.options, self._spec.name)
            return {**(event["body"] if self.options.extend_event else {}), **own, **fields}
        if operation == "explain":
            own["outputs"] = explained(results, self.options, self._spec.name)
        else:
            own["outputs"] = self._voted(results)
        return {**own, "model_version": self.options.version} if self.options.version else own

    def _voted(self, results: dict[str, Value]) -> Value:
        try:
            predictions, bare = columns(results, self.options.column)
            if not self._vote_type:
                self._vote_type = decided(predictions)
            votes: Value = vote(predictions, self.options, self._vote_type, self._spec.name)
        except ServingError as error:
            raise ServingError(error.kind, f"router '{self._spec.name}': {error.message}") from error
        votes = votes[0] if bare else votes
        return {self.options.column: votes} if self.options.by_name else votes

    async def stream(self, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
        yield await self.infer(request)

    async def lost(self) -> str:
        """Never returns: members come and go by themselves, the router has nothing to lose."""
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody resolves that future")

    async def drain(self, deadline: float) -> None:
        """Nothing waits here: requests in flight are counted by the gateway."""

    async def close(self) -> None:
        """Members belong to themselves."""

    def trouble(self) -> str:
        return ""

    def pending(self) -> int:
        return 0
