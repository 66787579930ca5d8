"""Many rows in one call: order, windows, full batches by options, failures, cancels; rows for tensor models."""

import asyncio
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import BatchPolicy, InferRequest, InferResponse, ModelSpec, Timings
from dragoman.core.tensors import FP32, INT64, Failure, Form, Rows, Signature, Tensor, Tensors, TensorSpec, Value
from dragoman.serving.fanout import by_options, lanes
from dragoman.serving.gateway import Entry, Gateway
from dragoman.serving.meters import Meters
from tests.servables import run, settle
from tests.unit.predictions.rig import BROKEN, Scripted

OPTIONS = Signature(form=Form.ROWS, batch=True, options=("o",))
SUM = Signature(inputs=(TensorSpec("a", FP32, (-1,)), TensorSpec("b", INT64, (-1,))), outputs=(TensorSpec("sum", FP32, (-1,)),), batch=True)


def entry_of(servable: Any, **policy: Any) -> Entry:
    return Entry(ModelSpec("m", batch=BatchPolicy(**{"max_size": 4, **policy})), servable)


def gateway(**options: Any) -> Gateway:
    return Gateway(Meters(), **options)


class Summing:
    """A tensor model: adds a and b, and remembers its batches."""

    platform = "sum"
    operations = frozenset({"predict"})

    def __init__(self, signature: Signature = SUM, lose: int = 0) -> None:
        self.signatures = {"": signature}
        self.batches: list[int] = []
        self._lose = lose

    async def infer(self, request: InferRequest) -> InferResponse:
        assert isinstance(request.inputs, Tensors)
        a, b = (t.array for t in request.inputs.items)
        self.batches.append(a.size)
        total = np.atleast_1d(a + b)[self._lose :].astype("f4")
        return InferResponse(Tensors([Tensor("sum", FP32, total if self.signatures[""].batch else total[0])]), Timings())


def test_one_row_is_one_request() -> None:
    """It carries everything that the caller said, and a group."""

    async def scenario() -> None:
        servable, asked = Scripted(), gateway()
        entry = entry_of(servable)
        said: Any = {"parameters": {"p": 1}, "dialect": "d", "caller": "c", "request_id": "i", "priority": 2}
        call = asyncio.ensure_future(asked.infer_rows(entry, [{"x": 1}], **said))
        await settle(lambda: len(servable.asked) == 1)
        request = servable.asked[0]
        assert (request.inputs, request.parameters, request.dialect, request.caller) == (Rows([{"x": 1}]), {"p": 1}, "d", "c")
        assert (request.id, request.priority) == ("i", 2)
        assert request.group
        assert request.watch is None
        assert entry.in_flight == 1
        servable.finish(0, "out")
        assert await call == ["out"]
        assert entry.in_flight == 0

    run(scenario)


def test_answers_come_in_order_whatever_the_model_does() -> None:
    """Ten rows answered backwards."""

    async def scenario() -> None:
        servable = Scripted()
        done: list[int] = []
        call = asyncio.ensure_future(gateway().infer_rows(entry_of(servable, max_size=5), list(range(10)), done=done.append))
        await settle(lambda: len(servable.asked) == 10)
        assert len({r.group for r in servable.asked}) == 1
        for number in reversed(range(10)):
            servable.finish(number, number * 10)
        assert await call == [n * 10 for n in range(10)]
        assert sorted(done) == list(range(10))

    run(scenario)


def test_a_long_call_leaves_room_in_the_queue() -> None:
    """Two batches of it wait at a time; when rows are answered the next ones come at once."""

    async def scenario() -> None:
        servable = Scripted()
        call = asyncio.ensure_future(gateway().infer_rows(entry_of(servable), list(range(100))))
        for start in range(0, 96, 4):
            await settle(lambda: len(servable.waiting) == 8)  # awaited in this round
            for number in range(start, start + 4):
                servable.finish(number, number)
        while servable.waiting:
            servable.finish(next(iter(servable.waiting)), 0)
            await asyncio.sleep(0)
        assert len(await call) == 100

    run(scenario)


@pytest.mark.parametrize(
    ("policy", "instances", "expected"),
    [({}, 1, 64), ({"max_size": 8}, 2, 32), ({"max_size": 1}, 1, 2), ({"max_size": 8, "max_queue": 10}, 1, 5), ({"max_queue": 1}, 1, 1)],
)
def test_how_many_may_wait(policy: dict[str, int], instances: int, expected: int) -> None:
    """Two batches per instance, at most half of the queue, at least one."""
    assert lanes(ModelSpec("m", batch=BatchPolicy(**policy), instances=instances)) == expected  # type: ignore[arg-type] # numbers


@given(st.lists(st.sampled_from([{"o": 1}, {"o": True}, {"o": 1.0}, {"o": None}, {}, "bare"]), min_size=1))
def test_rows_are_asked_for_by_their_options(rows: list[Value]) -> None:
    """Every row once; equal options next to each other (1 and true are not equal); first come, first asked."""
    order = by_options(rows, ("o",))
    assert sorted(order) == list(range(len(rows)))
    keys = [repr(rows[i]["o"]) if isinstance(rows[i], dict) and "o" in rows[i] else "None" for i in order]
    assert len([k for n, k in enumerate(keys) if n == 0 or keys[n - 1] != k]) == len(set(keys))
    assert by_options(rows, ()) == list(range(len(rows)))


def test_mixed_options_come_back_in_order() -> None:
    """Alternating options: asked for in two runs, answered in the order of the call."""

    async def scenario() -> None:
        async def answer(request: InferRequest) -> Value:
            assert isinstance(request.inputs, Rows)
            return request.inputs.items[0]["n"]

        servable = Scripted()
        servable.answer = answer
        servable.signatures = {"": OPTIONS}
        rows = [{"o": n % 2, "n": n} for n in range(30)]
        assert await gateway().infer_rows(entry_of(servable), rows) == list(range(30))
        asked = [r.inputs.items[0]["o"] for r in servable.asked]  # type: ignore[index] # rows
        assert asked == [0] * 15 + [1] * 15

    run(scenario)


def test_the_first_failure_is_raised_once() -> None:
    """The rest is cancelled; a second failure in the same moment is not lost as an unretrieved exception."""

    async def scenario() -> None:
        servable, entry = Scripted(), entry_of(Scripted())
        entry = entry_of(servable)
        call = asyncio.ensure_future(gateway().infer_rows(entry, list(range(6))))
        await settle(lambda: len(servable.asked) == 6)
        servable.finish(2, BROKEN)
        servable.finish(3, ServingError(Kind.MODEL_FAILED, "another"))
        with pytest.raises(ServingError) as caught:
            await call
        assert caught.value is BROKEN
        assert servable.cancelled == 4
        assert entry.in_flight == 0

    run(scenario)


def test_a_cancelled_call_cancels_its_rows() -> None:
    """All of them, waiting or not yet asked for."""

    async def scenario() -> None:
        servable = Scripted()
        call = asyncio.ensure_future(gateway().infer_rows(entry_of(servable), list(range(100))))
        await settle(lambda: len(servable.asked) == 8)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert call.cancelled()
        assert (len(servable.asked), servable.cancelled) == (8, 8)

    run(scenario)


@pytest.mark.parametrize("outputs", [Rows([]), Rows([1, 2]), Tensors([])], ids=["none", "two", "tensors"])
def test_a_wrong_number_of_outputs(outputs: Rows | Tensors) -> None:
    """One input, one output: anything else is the model's failure."""

    class Wrong(Scripted):
        async def infer(self, request: InferRequest) -> InferResponse:
            return InferResponse(outputs, Timings())

    async def scenario() -> None:
        with pytest.raises(ServingError, match=r"model 'm' answered .* for 1 input") as caught:
            await gateway().infer_rows(entry_of(Wrong()), [1])
        assert caught.value.kind is Kind.MODEL_FAILED

    run(scenario)


def test_a_row_that_failed_alone() -> None:
    """A failure in the place of an output carries its trace."""

    async def scenario() -> None:
        async def answer(request: InferRequest) -> Value:
            return Failure("bad row", "Traceback...")

        servable = Scripted()
        servable.answer = answer
        with pytest.raises(ServingError, match="bad row") as caught:
            await gateway().infer_rows(entry_of(servable), [1])
        assert caught.value.trace == "Traceback..."

    run(scenario)


def test_what_is_refused_before_anything_runs() -> None:
    """No rows, too many, unknown operations."""

    async def scenario() -> None:
        servable = Scripted()
        for rows, operation, kind in (
            ([], "predict", Kind.INVALID_INPUT),
            ([1] * 4, "predict", Kind.TOO_LARGE),
            ([1], "x", Kind.UNSUPPORTED),
        ):
            with pytest.raises(ServingError) as caught:
                await gateway(max_inputs=3).infer_rows(entry_of(servable), rows, operation=operation)
            assert caught.value.kind is kind
        assert servable.asked == []

    run(scenario)


def test_one_deadline_for_the_whole_call() -> None:
    """Rows that are asked for later have no more time than the first."""

    async def scenario() -> None:
        async def answer(request: InferRequest) -> Value:
            return request.deadline

        servable = Scripted()
        servable.answer = answer
        before = time.monotonic()
        deadlines = set(await gateway(request_timeout_s=100).infer_rows(entry_of(servable), list(range(50))))
        assert len(deadlines) == 1
        assert before + 100 <= deadlines.pop() <= time.monotonic() + 100
        assert set(await gateway().infer_rows(entry_of(servable), list(range(3)))) == {math.inf}
        assert set(await gateway(request_timeout_s=5).infer_rows(entry_of(servable), [1, 2], deadline=7.0)) == {7.0}

    run(scenario)


def test_patience_with_a_full_queue() -> None:
    """A patient call asks again for what was refused, until its deadline; an impatient one raises at once."""

    async def scenario() -> None:
        refusals = 3

        async def answer(request: InferRequest) -> Value:
            nonlocal refusals
            refusals -= 1
            if refusals >= 0:
                raise ServingError(Kind.OVERLOADED, "full")
            return "in"

        servable = Scripted()
        servable.answer = answer
        assert await gateway().infer_rows(entry_of(servable), [1], patient=True) == ["in"]
        refusals = 1000
        with pytest.raises(ServingError, match="full"):
            await gateway().infer_rows(entry_of(servable), [1])
        with pytest.raises(ServingError, match="full"):
            await gateway().infer_rows(entry_of(servable), [1], patient=True, deadline=time.monotonic() + 0.05)

    run(scenario)


# --- tensor models ---


def test_rows_for_a_tensor_model() -> None:
    """Converted, cut into batches of the model's size, and back to rows in order; each batch is watched and done as its first row."""

    async def scenario() -> None:
        servable = Summing()
        watched: list[int] = []
        done: list[int] = []
        rows = [{"a": n / 2, "b": n} for n in range(10)]
        answers = await gateway().infer_rows(entry_of(servable), rows, watch=watched.append, done=done.append)
        assert answers == [{"sum": n * 1.5} for n in range(10)]
        assert servable.batches == [4, 4, 2]
        assert watched == sorted(done) == [0, 4, 8]

    run(scenario)


def test_a_tensor_model_without_a_batch_axis() -> None:
    """Row by row."""

    async def scenario() -> None:
        scalar = Signature(
            inputs=(TensorSpec("a", FP32, ()), TensorSpec("b", INT64, ())), outputs=(TensorSpec("sum", FP32, ()),), batch=False
        )
        servable = Summing(scalar)
        answers = await gateway().infer_rows(entry_of(servable), [{"a": n, "b": n} for n in range(3)])
        assert [answer["sum"] for answer in answers] == [0, 2, 4]
        assert servable.batches == [1, 1, 1]

    run(scenario)


def test_rows_that_do_not_fit_a_tensor_model() -> None:
    """INVALID_INPUT before anything runs; a model that loses rows is at fault."""

    async def scenario() -> None:
        servable = Summing()
        with pytest.raises(ServingError) as caught:
            await gateway().infer_rows(entry_of(servable), [{"a": 1, "b": 1}] * 5 + [{"a": "x", "b": 1}])
        assert caught.value.kind is Kind.INVALID_INPUT
        assert servable.batches == []
        with pytest.raises(ServingError, match="answered 2 outputs for 3 inputs"):
            await gateway().infer_rows(entry_of(Summing(lose=1)), [{"a": 1, "b": 1}] * 3)

    run(scenario)
