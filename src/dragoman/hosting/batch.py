"""One batch: its members, how it is run, and what each member gets. Pure of any queue or loop; blocking. Called by servables.

A batch that fails is run again group by group from the members' own inputs, so that only the bad request fails.
"""

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from typing import TypeAlias

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import InferRequest, InferResponse, Timings
from dragoman.core.tensors import Failure, Rows, Tensors, concat, split
from dragoman.core.tracebacks import first_line, trace_of

Payload: TypeAlias = Tensors | Rows
Outcome: TypeAlias = InferResponse | ServingError
Predict: TypeAlias = Callable[[Payload, InferRequest, tuple[str, ...]], Payload]
"""(joined inputs, a member that stands for the batch, wanted outputs or () for all) -> outputs."""


class Member:
    """One request of a queue or batch. `order` is (priority level, arrival)."""

    __slots__ = ("future", "key", "length", "level", "order", "queued", "queued_ns", "request", "timer")

    def __init__(
        self, request: InferRequest, key: Hashable, length: int, order: tuple[int, int], future: "asyncio.Future[InferResponse]"
    ) -> None:
        self.request = request
        self.key = key
        self.length = length
        self.order = order
        self.level = order[0]
        self.future = future
        self.queued = True
        self.queued_ns = time.monotonic_ns()
        self.timer: asyncio.TimerHandle | None = None

    def __lt__(self, other: "Member") -> bool:
        return self.order < other.order

    def settle(self, outcome: Outcome) -> None:
        """Resolve this waiter alone, and only if nothing has resolved or cancelled it before."""
        if self.future.done():
            return
        if isinstance(outcome, ServingError):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


Batch: TypeAlias = list[Member]
Starting: TypeAlias = Callable[[Sequence[Member]], None]
"""Called with the members of a run right before it, in the thread that runs: all of a batch, then maybe each group of it alone."""


def tell_watches(members: Sequence[Member]) -> None:
    """Whoever follows one of these requests hears that it runs now."""
    for member in members:
        watch = member.request.watch
        if watch is not None:
            watch.started()


class _BrokenSignatureError(ServingError):
    """The outputs of a run cannot be cut into the members' shares."""

    def __init__(self, message: str) -> None:
        super().__init__(Kind.MODEL_FAILED, message)


def execute(batch: Batch, predict: Predict, name: str, starting: Starting = tell_watches) -> list[Outcome]:
    """Run a batch and return one outcome per member, in order. Never raises. Whoever has left by now is not run.

    Whatever user code raises is its failure and no more, SystemExit and KeyboardInterrupt included.
    """
    if any(m.future.done() for m in batch):
        gone: Outcome = ServingError(Kind.CANCELLED, "the request was given up before it ran")
        left = [m for m in batch if not m.future.done()]
        ran = dict(zip(map(id, left), execute(left, predict, name, starting) if left else [], strict=True))
        return [ran.get(id(m), gone) for m in batch]
    try:
        return _run(batch, predict, name, starting)
    except _BrokenSignatureError as error:  # running the members alone could only give each a wrong answer of its own
        return [error] * len(batch)
    except BaseException as error:
        failure = as_serving_error(error, name)
    groups: dict[object, list[int]] = {}
    for index, member in enumerate(batch):
        groups.setdefault(member.request.group or index, []).append(index)
    outcomes: list[Outcome] = [failure] * len(batch)
    if len(groups) == 1:
        return outcomes
    for indexes in groups.values():
        alone = [batch[i] for i in indexes]
        if all(m.future.done() for m in alone):  # cancelled or late meanwhile: nobody waits for it
            continue
        try:
            results: list[Outcome] = _run(alone, predict, name, starting)
        except BaseException as error:
            results = [as_serving_error(error, name)] * len(alone)
        for index, result in zip(indexes, results, strict=True):
            outcomes[index] = result
    return outcomes


def stand_in(batch: Batch, outcomes: Sequence[Outcome]) -> None:
    """Make somebody who still waits the leader of a run whose leader has left, so that the run is counted. On the loop, before settling."""
    owed = False
    for member, outcome in zip(batch, outcomes, strict=True):
        if isinstance(outcome, ServingError):
            continue
        if member.future.done():
            owed = owed or outcome.timings.leader
        elif owed:
            outcome.timings.leader = True
            return


def only(outputs: Payload, wanted: tuple[str, ...]) -> Payload:
    """The wanted outputs, in the model's order; all of them when nothing is named."""
    if not wanted or isinstance(outputs, Rows):
        return outputs
    return Tensors([t for t in outputs.items if t.name in wanted])


def as_serving_error(error: BaseException, name: str) -> ServingError:
    """What callers are told of an exception of the model: its type and first line. Its traceback is for the owner of a prediction."""
    if isinstance(error, ServingError):
        return error
    line = first_line(error)
    failure = ServingError(
        Kind.MODEL_FAILED, f"model '{name}' failed: {type(error).__name__}" + (f": {line}" if line else ""), trace=trace_of(error)
    )
    failure.__cause__ = error
    return failure


def _run(members: Sequence[Member], predict: Predict, name: str, starting: Starting) -> list[Outcome]:
    begin = time.monotonic_ns()
    first = members[0].request
    starting(members)
    if len(members) == 1:
        given = rows_of(first.inputs)
        outputs = predict(first.inputs, first, first.outputs)
        ran = time.monotonic_ns()
        length = members[0].length
        check_rows(outputs, given, name)
        return [outcome_of(InferResponse(outputs, Timings(begin - members[0].queued_ns, 0, ran - begin, 0, length, True, length)), name)]
    joined = concat([m.request.inputs for m in members])
    given = rows_of(joined)
    ready = time.monotonic_ns()
    outputs = predict(joined, first, _wanted(members))
    ran = time.monotonic_ns()
    check_rows(outputs, given, name)
    try:
        shares = split(outputs, [m.length for m in members])
    except ValueError as error:
        raise _BrokenSignatureError(f"model '{name}' broke its signature: {error}") from error
    end = time.monotonic_ns()
    size = sum(m.length for m in members)
    return [
        outcome_of(
            InferResponse(
                only(share, member.request.outputs),
                Timings(begin - member.queued_ns, ready - begin, ran - ready, end - ran, size, member is members[0], member.length),
            ),
            name,
        )
        for member, share in zip(members, shares, strict=True)
    ]


def rows_of(payload: Payload) -> int | None:
    """How many rows; None for tensors. To be asked before a run: a model owns its inputs and may change them."""
    return len(payload.items) if isinstance(payload, Rows) else None


def check_rows(outputs: Payload, expected: int | None, name: str) -> None:
    """Raise unless there are as many rows as were given: with fewer or more, nobody could say whose is whose."""
    got = rows_of(outputs)
    if got is not None and expected is not None and got != expected:
        raise _BrokenSignatureError(
            f"model '{name}' gave {got} output{'' if got == 1 else 's'} for {expected} input{'' if expected == 1 else 's'}"
        )


def outcome_of(response: InferResponse, name: str) -> Outcome:
    """The response, or the failure that stands in the place of one of its rows."""
    if isinstance(response.outputs, Rows):
        for row in response.outputs.items:
            if isinstance(row, Failure):
                return ServingError(Kind.MODEL_FAILED, f"model '{name}' failed: {row.message}", trace=row.trace)
    return response


def _wanted(members: Sequence[Member]) -> tuple[str, ...]:
    """The union of what members want; () when one of them wants everything."""
    first = members[0].request.outputs
    if all(m.request.outputs == first for m in members):
        return first
    if any(not m.request.outputs for m in members):
        return ()
    return tuple(dict.fromkeys(name for m in members for name in m.request.outputs))
