"""One call of many rows as many requests: each row (or, of a tensor model, each batch of rows) is asked for on its own, answers come in order.

Called by Gateway.infer_rows only. The first failure cancels the rest and is raised once. At most about two batches of one call wait at a
time, so that a long call cannot fill the model's queue, and rows with equal options follow each other, so that their batches are full.
"""

import asyncio
import itertools
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from dragoman.core.bodies import answered_rows, points_of, whole_request
from dragoman.core.convert import input_tensors, output_rows
from dragoman.core.errors import Kind, ServingError
from dragoman.core.keys import canonical_json
from dragoman.core.model import InferRequest, InferResponse, ModelSpec, Watch
from dragoman.core.tensors import Failure, Form, Rows, Signature, Tensors, Value

_PAUSES_S = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Between attempts to get a row into a full queue."""

_GROUPS = itertools.count(1)

Part = TypeVar("Part")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Fan(Generic[Part, Result]):
    """How the parts of one call are asked for.

    `lanes` is how many may be under way at once. With `patient` a part that found the model's queue full is asked for again until
    `deadline` (monotonic seconds); it has not run, so that is safe. `done` hears which part has been answered.
    """

    ask: Callable[[int, Part], Awaitable[Result]]
    lanes: int
    patient: bool
    deadline: float
    done: Callable[[int], None] | None = None

    async def all(self, parts: Sequence[Part], order: Sequence[int]) -> list[Result]:
        """The answers to all parts, in the order of the parts; they are asked for in `order`."""
        if len(parts) == 1:
            return [await self._one(0, parts[0])]
        answers: dict[int, Result] = {}
        left = deque(order)

        async def lane() -> None:
            while left:
                index = left.popleft()
                answers[index] = await self._one(index, parts[index])

        if asyncio.current_task() is None:
            await asyncio.sleep(0)  # the HTTP server runs a request's first step without a task; task groups need one
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.lanes, len(parts))):
                    group.create_task(lane())
        except BaseExceptionGroup as failed:
            raise _first(failed) from None
        return [answers[index] for index in range(len(parts))]

    async def _one(self, index: int, part: Part) -> Result:
        attempt = 0
        while True:
            try:
                answer = await self.ask(index, part)
            except ServingError as error:
                pause_s = _PAUSES_S[min(attempt, len(_PAUSES_S) - 1)]
                if not self.patient or error.kind is not Kind.OVERLOADED or time.monotonic() + pause_s > self.deadline:
                    raise
            else:
                if self.done is not None:
                    self.done(index)
                return answer
            attempt += 1
            await asyncio.sleep(pause_s)


async def fan_out(
    infer: Callable[[InferRequest], Awaitable[InferResponse]],
    spec: ModelSpec,
    signature: Signature,
    rows: Sequence[Value],
    template: InferRequest,
    *,
    watch: Callable[[int], Watch | None] | None = None,
    done: Callable[[int], None] | None = None,
    patient: bool = False,
) -> list[Value]:
    """One output per row. `template` is the request that is sent for each part, but for its inputs and its watch.

    Of a tensor model a part is as many rows as make a batch, and is watched and done under the index of its first row.
    """

    async def ask(index: int, row: Value) -> Value:
        response = await infer(_part(template, Rows([row]), None if watch is None else watch(index)))
        return only_row(response.outputs, spec.name)

    if signature.whole:
        request = whole_request(points_of(Rows(list(rows)), signature), _part(template, Rows([]), None if watch is None else watch(0)))
        answers = answered_rows((await infer(request)).outputs, len(rows), spec.name)
        for index in range(len(rows) if done is not None else 0):
            assert done is not None
            done(index)
        return answers
    if signature.form is Form.ROWS:
        return await Fan(ask, lanes(spec), patient, template.deadline, done).all(rows, by_options(rows, signature.options))

    size = max(1, spec.batch.max_size) if signature.batch else 1
    parts = [input_tensors(rows[start : start + size], signature, spec.name) for start in range(0, len(rows), size)]

    async def ask_batch(index: int, part: Tensors) -> list[Value]:
        response = await infer(_part(template, part, None if watch is None else watch(index * size)))
        answers = output_rows(response.outputs, signature, spec.name)
        expected = min(size, len(rows) - index * size)
        if len(answers) != expected:
            raise ServingError(Kind.MODEL_FAILED, f"model '{spec.name}' answered {len(answers)} outputs for {expected} inputs")
        return answers

    tell = None if done is None else lambda index: done(index * size)
    batches = await Fan(ask_batch, max(1, lanes(spec) // size), patient, template.deadline, tell).all(parts, range(len(parts)))
    return [answer for batch in batches for answer in batch]


def new_group() -> str:
    """What the parts of one call have in common, and no other call of any process of this machine."""
    return f"{os.getpid()}-{next(_GROUPS)}"


def _part(template: InferRequest, inputs: Tensors | Rows, watch: Watch | None) -> InferRequest:
    """The template with these inputs. Field by field: `replace` takes five times as long, once per row."""
    t = template
    return InferRequest(
        inputs, t.operation, t.signature, t.outputs, t.parameters, t.id, t.deadline, t.priority, t.group, t.caller, t.strict, t.dialect,
        watch, t.record,
    )  # fmt: skip


def lanes(spec: ModelSpec) -> int:
    """How many rows of one call may wait at once: two full batches per instance, but never more than half of the model's queue."""
    most = 2 * max(1, spec.batch.max_size) * max(1, spec.instances)
    return max(1, min(most, spec.batch.max_queue // 2)) if spec.batch.max_queue else most


def by_options(rows: Sequence[Value], options: Sequence[str]) -> list[int]:
    """Indexes of the rows, those with equal options next to each other, in the order in which each set of options appears first."""
    if not options or len(rows) == 1:
        return list(range(len(rows)))
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(_options(row, options), []).append(index)
    return [index for group in groups.values() for index in group]


def only_row(outputs: Tensors | Rows, model: str) -> Value:
    """The one output of a request of one row. Raises MODEL_FAILED for any other number, and what the model said of a row that failed."""
    if not isinstance(outputs, Rows) or len(outputs.items) != 1:
        count = len(outputs.items) if isinstance(outputs, Rows) else "tensors"
        raise ServingError(Kind.MODEL_FAILED, f"model '{model}' answered {count} outputs for 1 input")
    value = outputs.items[0]
    if isinstance(value, Failure):
        raise ServingError(Kind.MODEL_FAILED, value.message, trace=value.trace)
    return value


def admit_rows(rows: Sequence[Value], most: int, model: str) -> None:
    """Raise INVALID_INPUT for no rows, TOO_LARGE for more than `most` (0: any number)."""
    if not rows:
        raise ServingError(Kind.INVALID_INPUT, f"a call of model '{model}' needs at least one input, got none", what="body")
    if most and len(rows) > most:
        raise ServingError(Kind.TOO_LARGE, f"{len(rows)} inputs for model '{model}' in one call, at most {most} are accepted", what="body")


def signature_of(signatures: Mapping[str, Signature], operation: str) -> str:
    """The name of the signature of an operation: "@demo" for demo where the model has one, else the default."""
    name = f"@{operation}"
    return name if operation != "predict" and name in signatures else ""


def _options(row: Value, options: Sequence[str]) -> str:
    try:
        return canonical_json([row.get(name) if isinstance(row, dict) else None for name in options])
    except TypeError:  # an option that holds a file or an array: it decides about batches, not about the order
        return ""


def _first(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failed.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


__all__ = ["admit_rows", "fan_out", "new_group", "signature_of"]
