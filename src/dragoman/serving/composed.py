"""Models made of models. A composed model is a Servable that asks the gateway for its members by name at call time, never a blocking Model.

The first kind is Triton's ensemble: steps that run as soon as the tensors they need exist. A member that fails fails the call, and is named.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import InferRequest, InferResponse, ModelSpec, Step, Timings
from dragoman.core.tensors import Signature, Tensor, Tensors, batch_length
from dragoman.serving.gateway import Gateway


class Ensemble:
    """Serves `spec.steps`. Raises INVALID_INPUT when it is made with steps that cannot produce the declared outputs."""

    def __init__(self, spec: ModelSpec, gateway: Gateway) -> None:
        if spec.signature is None:
            raise invalid(f"ensemble '{spec.name}' declares no inputs and outputs")
        self._spec = spec
        self._gateway = gateway
        self._order = _order(spec, spec.signature)
        self.signatures: Mapping[str, Signature] = {"": spec.signature}
        self.operations: frozenset[str] = frozenset({"predict"})
        self.platform = spec.platform or "ensemble"

    def check_members(self) -> None:
        """Raise INVALID_INPUT or UNAVAILABLE when a member is not served, lacks a tensor that a step maps, or is made of this one itself."""
        refuse_circle(self._spec, self._gateway, "ensemble")
        for step in self._spec.steps:
            try:
                signature = self._gateway.find(step.model, step.version).signatures[""]
            except ServingError as error:
                raise ServingError(
                    Kind.UNAVAILABLE, f"ensemble '{self._spec.name}' needs a member that is not served: {error.message}"
                ) from error
            for name in step.inputs:
                if signature.inputs and name not in signature.input_by_name:
                    raise invalid(f"ensemble '{self._spec.name}' feeds the input '{name}', which its member '{step.model}' does not have")
            for name in step.outputs:
                if signature.outputs and name not in signature.output_by_name:
                    raise invalid(f"ensemble '{self._spec.name}' reads the output '{name}', which its member '{step.model}' does not have")

    async def infer(self, request: InferRequest) -> InferResponse:
        if not isinstance(request.inputs, Tensors):
            raise invalid(f"ensemble '{self._spec.name}' takes tensors, not rows")
        if asyncio.current_task() is None:
            await asyncio.sleep(0)  # the HTTP server runs a request's first step without a task; task groups need one
        begin = time.monotonic_ns()
        pool = {t.name: t for t in request.inputs.items}
        for tensor in pool.values():
            tensor.array.flags.writeable = False  # several members may get the same array; each that writes must copy
        queue_ns = 0
        try:
            for wave in self._order:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._step(step, pool, request)) for step in wave]
                for step, task in zip(wave, tasks, strict=True):
                    response = task.result()
                    queue_ns = max(queue_ns, response.timings.queue_ns)
                    assert isinstance(response.outputs, Tensors)
                    for tensor in response.outputs.items:
                        if tensor.name in step.outputs:
                            name = step.outputs[tensor.name]
                            pool[name] = Tensor(name, tensor.datatype, tensor.array)
        except BaseExceptionGroup as failures:
            raise first_failure(failures, f"ensemble '{self._spec.name}'") from failures
        signature = self.signatures[""]
        wanted = [spec.name for spec in signature.outputs if not request.outputs or spec.name in request.outputs]
        lost = next((name for name in wanted if name not in pool), None)
        if lost is not None:
            raise ServingError(Kind.MODEL_FAILED, f"no member of ensemble '{self._spec.name}' gave its output '{lost}'")
        outputs = Tensors([pool[name] for name in wanted])
        rows = batch_length(request.inputs, signature) or 1
        return InferResponse(outputs, Timings(queue_ns, 0, time.monotonic_ns() - begin - queue_ns, 0, rows, True, rows))

    def _inputs(self, step: Step, signature: Signature, pool: Mapping[str, Tensor]) -> Tensors:
        """What a member gets: tensors of its own, under its own names. An optional one may be missing."""
        declared = signature.input_by_name
        inputs = []
        for name, source in step.inputs.items():
            tensor = pool.get(source)
            if tensor is not None:
                inputs.append(Tensor(name, tensor.datatype, tensor.array.copy()))  # a member owns its inputs and may change them
            elif source not in self.signatures[""].input_by_name:
                raise ServingError(Kind.MODEL_FAILED, f"its input '{name}' is needed, but no member gave '{source}'")
            elif name not in declared or not declared[name].optional:
                raise invalid(f"its input '{name}' is needed, but the request has no '{source}'")
        return Tensors(inputs)

    async def _step(self, step: Step, pool: Mapping[str, Tensor], request: InferRequest) -> InferResponse:
        try:
            entry = self._gateway.find(step.model, step.version)
            part = InferRequest(
                self._inputs(step, entry.signatures[""], pool),
                outputs=tuple(step.outputs),
                parameters=request.parameters,
                id=request.id,
                deadline=request.deadline,
                priority=request.priority,
                caller=request.caller,
                dialect="ensemble",
            )
            return await self._gateway.infer(entry, part)
        except ServingError as error:
            # The model that the client named is there; it is a member that is not.
            kind = Kind.UNAVAILABLE if error.kind is Kind.NOT_FOUND else error.kind
            raise ServingError(
                kind, f"member '{step.model}' of ensemble '{self._spec.name}': {error.message}", retry_after_s=error.retry_after_s
            ) from error

    async def stream(self, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
        yield await self.infer(request)

    async def lost(self) -> str:
        """Never returns: members come and go by themselves, the ensemble has nothing to lose."""
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


def _order(spec: ModelSpec, signature: Signature) -> list[list[Step]]:
    """The steps in waves: each wave needs only what the request and earlier waves bring. Raises INVALID_INPUT for a cycle or a gap."""
    have = {s.name for s in signature.inputs}
    waiting = list(spec.steps)
    waves: list[list[Step]] = []
    while waiting:
        wave = [s for s in waiting if all(source in have for source in s.inputs.values())]
        if not wave:
            stuck = min({source for s in waiting for source in s.inputs.values()} - have)
            raise invalid(f"ensemble '{spec.name}': nothing produces the tensor '{stuck}' before a step needs it")
        waves.append(wave)
        waiting = [s for s in waiting if s not in wave]
        have |= {name for s in wave for name in s.outputs.values()}
    missing = [s.name for s in signature.outputs if s.name not in have]
    if missing:
        raise invalid(f"ensemble '{spec.name}': no step produces its output '{missing[0]}'")
    return waves


def refuse_circle(spec: ModelSpec, gateway: Gateway, what: str) -> None:
    """Raise INVALID_INPUT for a model that is made of itself, however far around: it would call itself for ever."""
    below = {step.model for step in spec.steps}
    seen: set[str] = set()
    while below:
        name = below.pop()
        if name == spec.name:
            raise invalid(f"{what} '{name}' is made of itself, through its members")
        seen.add(name)
        members = (s.model for e in gateway.entries() if e.name == name for s in e.spec.steps)
        below |= {m for m in members if m not in seen}


def first_failure(group: BaseExceptionGroup[BaseException], whose: str) -> ServingError:
    """The error of the first member that failed; the others were cancelled because of it."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            return first_failure(error, whose)
        if isinstance(error, ServingError):
            return error
    return ServingError(Kind.INTERNAL, f"{whose} failed")
