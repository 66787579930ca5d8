"""The servable and its batcher: joining, priorities, deadlines, cancellation, failures, bounds. No test sleeps to wait for an outcome."""

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import BatchPolicy, Call, InferRequest, InferResponse, ModelSpec
from dragoman.core.tensors import BYTES, FP32, INT64, Signature, Tensor, Tensors, TensorSpec
from dragoman.hosting.servable import LOOP_BOUND_NS, Cost, LocalServable
from tests.fakes import FakeModel, row

DEFAULT = BatchPolicy()
SLOW, JOINED, INLINE = 10 * LOOP_BOUND_NS, 20_000, 1_000


def servable(model: FakeModel, policy: BatchPolicy = DEFAULT, cost_ns: int = SLOW, instances: int = 1) -> LocalServable:
    """A servable whose model is believed to take that long, so that a test can choose how it runs."""
    cost = Cost()
    for elements in (0, 1, 2, 4, 8, 16, 32, 64, 128, 256):
        cost.record(elements, cost_ns)
    return LocalServable(ModelSpec("m", batch=policy, instances=instances), [model] * instances, cost)


def ask(*values: float, **fields: Any) -> InferRequest:
    return InferRequest(row(*values), **fields)


def numbers(response: InferResponse) -> list[Any]:
    assert isinstance(response.outputs, Tensors)
    return response.outputs.items[0].array.tolist()  # type: ignore[no-any-return]


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(bounded())


@pytest.mark.parametrize("cost_ns", [INLINE, JOINED, SLOW], ids=["inline", "joined", "thread"])
def test_every_way_of_running_gives_each_request_its_own_answer(cost_ns: int) -> None:
    """64 requests at once, each answered with its own numbers."""

    async def test() -> None:
        subject = servable(FakeModel(), BatchPolicy(max_size=8), cost_ns)
        answers = await asyncio.gather(*(subject.infer(ask(i, i + 0.5)) for i in range(64)))
        assert [numbers(a) for a in answers] == [[[2.0 * i, 2 * i + 1.0]] for i in range(64)]
        await subject.close()

    run(test)


def test_requests_of_one_pass_of_the_loop_run_together() -> None:
    """A joined model runs ten concurrent requests as batches of at most max_size."""

    async def test() -> None:
        model = FakeModel()
        subject = servable(model, BatchPolicy(max_size=8), JOINED)
        answers = await asyncio.gather(*(subject.infer(ask(i, 0)) for i in range(10)))
        assert model.calls == [8, 2]
        assert [a.timings.batch_size for a in answers] == [8] * 8 + [2] * 2
        assert [a.timings.leader for a in answers] == [True, *[False] * 7, True, False]

    run(test)


def test_batches_form_while_the_model_is_busy() -> None:
    """What arrives during a run is the next batch, without any timer."""

    async def test() -> None:
        gate = threading.Event()
        model = FakeModel(gate=gate)
        subject = servable(model, BatchPolicy(max_size=4))
        first = asyncio.ensure_future(subject.infer(ask(1, 1)))
        await until(lambda: model.entered == 1)
        rest = [asyncio.ensure_future(subject.infer(ask(i, i))) for i in range(6)]
        await until(lambda: subject.pending() == 2)  # four more stand ready for the moment the model is free
        gate.set()
        await asyncio.gather(first, *rest)
        assert model.calls == [1, 4, 2]
        await subject.close()

    run(test)


def test_only_equal_keys_are_joined() -> None:
    """Other trailing shapes, operations and parameters that the signature reads make other batches; parameters that it does not read do not."""

    async def test() -> None:
        signature = Signature(
            inputs=(TensorSpec("x", FP32, (-1, -1)),), outputs=(TensorSpec("y", FP32, (-1, -1)),), batch=True, reads=frozenset({"beam"})
        )
        model = FakeModel(signature=signature)
        subject = servable(model, BatchPolicy(max_size=8), JOINED)

        def wide(width: int, **parameters: object) -> InferRequest:
            return InferRequest(Tensors([Tensor("x", FP32, np.ones((1, width), "f4"))]), parameters=parameters)

        requests = [wide(2), wide(3), wide(2, trace="a"), wide(2, beam=1), wide(2, beam=True), wide(2, beam=1.0)]
        await asyncio.gather(*(subject.infer(r) for r in requests))
        assert sorted(model.calls) == [1, 1, 1, 1, 2]

    run(test)


def test_several_inputs_join_by_name_whatever_their_order() -> None:
    """Two clients that send the inputs in different order share a batch and get their own answers."""

    async def test() -> None:
        specs = (TensorSpec("a", FP32, (-1,)), TensorSpec("b", INT64, (-1,)))

        def subtract(call: Call) -> Tensors:
            assert isinstance(call.inputs, Tensors)
            named = {t.name: t.array for t in call.inputs.items}
            return Tensors([Tensor("y", FP32, (named["a"] - named["b"]).astype("f4"))])

        model = FakeModel(signature=Signature(inputs=specs, outputs=(TensorSpec("y", FP32, (-1,)),), batch=True), run=subtract)
        subject = servable(model, cost_ns=JOINED)
        a, b = Tensor("a", FP32, np.array([5.0], "f4")), Tensor("b", INT64, np.array([3]))
        first, second = await asyncio.gather(subject.infer(InferRequest(Tensors([a, b]))), subject.infer(InferRequest(Tensors([b, a]))))
        assert model.calls == [2]
        assert numbers(first) == numbers(second) == [2.0]

    run(test)


def test_bytes_tensors_join() -> None:
    """Object arrays of bytes are concatenated and split like numbers."""

    async def test() -> None:
        specs = (TensorSpec("s", BYTES, (-1,)),)
        model = FakeModel(signature=Signature(inputs=specs, outputs=specs, batch=True), run=lambda call: call.inputs)
        subject = servable(model, cost_ns=JOINED)
        texts = [np.array([b"a\0", b""], dtype=object), np.array([b"ccc"], dtype=object)]
        answers = await asyncio.gather(*(subject.infer(InferRequest(Tensors([Tensor("s", BYTES, t)]))) for t in texts))
        assert [numbers(a) for a in answers] == [[b"a\0", b""], [b"ccc"]]
        assert model.calls == [3]

    run(test)


def test_wanted_outputs_are_the_union_for_the_run_and_each_members_own_after_it() -> None:
    """One member wants y, the other z: the model is asked for both, each gets its own."""

    async def test() -> None:
        asked: list[tuple[str, ...]] = []

        def both(call: Call) -> Tensors:
            assert isinstance(call.inputs, Tensors)
            asked.append(call.outputs)
            array = call.inputs.items[0].array
            return Tensors([Tensor("y", FP32, array), Tensor("z", FP32, -array)])

        outputs = (TensorSpec("y", FP32, (-1, 2)), TensorSpec("z", FP32, (-1, 2)))
        model = FakeModel(signature=Signature(inputs=(TensorSpec("x", FP32, (-1, 2)),), outputs=outputs, batch=True), run=both)
        subject = servable(model, cost_ns=JOINED)
        first, second = await asyncio.gather(subject.infer(ask(1, 1, outputs=("y",))), subject.infer(ask(2, 2, outputs=("z",))))
        assert asked == [("y", "z")]
        assert isinstance(first.outputs, Tensors)
        assert isinstance(second.outputs, Tensors)
        assert [t.name for t in first.outputs.items] == ["y"]
        assert [t.name for t in second.outputs.items] == ["z"]
        assert numbers(second) == [[-2.0, -2.0]]

    run(test)


@pytest.mark.parametrize("cost_ns", [JOINED, SLOW], ids=["joined", "thread"])
def test_a_bad_request_fails_alone(cost_ns: int) -> None:
    """The batch is run again request by request, from the members' own inputs: the model has doubled the joined copy already."""

    async def test() -> None:
        subject = servable(FakeModel(), BatchPolicy(max_size=8), cost_ns)
        results = await asyncio.gather(*(subject.infer(ask(i, -1 if i == 2 else 1)) for i in range(5)), return_exceptions=True)
        for i, result in enumerate(results):
            if i == 2:
                assert isinstance(result, ServingError)
                assert result.kind is Kind.MODEL_FAILED
                assert "ArithmeticError: a negative number" in result.message
            else:
                assert isinstance(result, InferResponse)
                assert numbers(result) == [[2.0 * i, 2.0]]
        await subject.close()

    run(test)


def test_members_of_one_group_fail_together() -> None:
    """A group is one prediction: its parts are run again together, so one bad part fails the others but no stranger."""

    async def test() -> None:
        subject = servable(FakeModel(), BatchPolicy(max_size=8), JOINED)
        requests = [ask(1, 1, group="g"), ask(-1, 1, group="g"), ask(3, 3)]
        results = await asyncio.gather(*(subject.infer(r) for r in requests), return_exceptions=True)
        assert [isinstance(r, ServingError) for r in results] == [True, True, False]

    run(test)


def test_a_model_that_returns_too_few_rows_fails_every_member() -> None:
    """Splitting is impossible, so nobody gets a neighbour's row."""

    async def test() -> None:
        model = FakeModel(run=lambda call: row(1, 1))
        subject = servable(model, cost_ns=JOINED)
        results = await asyncio.gather(subject.infer(ask(1, 1, 2, 2)), subject.infer(ask(3, 3)), return_exceptions=True)
        for result in results:
            assert isinstance(result, ServingError)
            assert result.kind is Kind.MODEL_FAILED
            assert "has shape [1, 2] for a batch of 3" in result.message
        assert model.calls == [3]

    run(test)


@pytest.mark.parametrize("stage", ["queued", "running"])
def test_a_cancelled_member_does_not_hurt_its_neighbours(stage: str) -> None:
    """Cancel one of four, before or while the batch runs: the other three are answered, and nothing waits for the cancelled one."""

    async def test() -> None:
        gate = threading.Event()
        model = FakeModel(gate=gate)
        subject = servable(model, BatchPolicy(max_size=5 if stage == "queued" else 4))
        blocker = asyncio.ensure_future(subject.infer(ask(9, 9))) if stage == "queued" else None
        await until(lambda: model.entered == (1 if blocker else 0))
        members = [asyncio.ensure_future(subject.infer(ask(i, i))) for i in range(4)]
        await until(lambda: (subject.pending() == 4) if blocker else (model.entered == 1))
        members[1].cancel()
        await asyncio.wait([members[1]])
        if stage == "queued":
            assert subject.pending() == 3
        gate.set()
        answers = await asyncio.gather(*(m for i, m in enumerate(members) if i != 1))
        assert [numbers(a)[0][0] for a in answers] == [0.0, 4.0, 6.0]
        assert members[1].cancelled()
        if blocker is not None:
            await blocker
            assert model.calls == [1, 3]
        await subject.close()

    run(test)


def test_a_full_batch_stands_ready_and_whoever_leaves_it_is_not_run() -> None:
    """While the model is busy a full batch is handed to its thread; one member leaves before it runs, the others are answered."""

    async def test() -> None:
        gate = threading.Event()
        model = FakeModel(gate=gate)
        subject = servable(model, BatchPolicy(max_size=4))
        first = asyncio.ensure_future(subject.infer(ask(9, 9)))
        await until(lambda: model.entered == 1)
        members = [asyncio.ensure_future(subject.infer(ask(i, i))) for i in range(4)]
        await asyncio.sleep(0.01)
        assert subject.pending() == 0
        members[2].cancel()
        await asyncio.wait([members[2]])
        gate.set()
        answers = await asyncio.gather(first, *(m for i, m in enumerate(members) if i != 2))
        assert [numbers(a)[0][0] for a in answers] == [18.0, 0.0, 2.0, 6.0]
        assert model.calls == [1, 3]
        await subject.close()

    run(test)


def test_a_full_queue_refuses_at_once() -> None:
    """The third waiting request of a queue of two is OVERLOADED, with a hint when to come back."""

    async def test() -> None:
        gate = threading.Event()
        model = FakeModel(gate=gate)
        subject = servable(model, BatchPolicy(max_queue=2))
        running = asyncio.ensure_future(subject.infer(ask(1, 1)))
        await until(lambda: model.entered == 1)
        waiting = [asyncio.ensure_future(subject.infer(ask(i, i))) for i in range(2)]
        await until(lambda: subject.pending() == 2)
        with pytest.raises(ServingError) as caught:
            await subject.infer(ask(3, 3))
        assert caught.value.kind is Kind.OVERLOADED
        assert caught.value.retry_after_s
        gate.set()
        await asyncio.gather(running, *waiting)
        await subject.close()

    run(test)


@pytest.mark.parametrize("stage", ["queued", "running"])
def test_a_deadline_resolves_the_waiter_and_only_it(stage: str) -> None:
    """Late while it waits or while it runs: TIMEOUT; its neighbour is answered."""

    async def test() -> None:
        gate = threading.Event()
        model = FakeModel(gate=gate)
        subject = servable(model, BatchPolicy(max_size=2))
        blocker = asyncio.ensure_future(subject.infer(ask(9, 9))) if stage == "queued" else None
        await until(lambda: model.entered == (1 if blocker else 0))
        neighbour = asyncio.ensure_future(subject.infer(ask(1, 1)))
        with pytest.raises(ServingError) as caught:
            await subject.infer(ask(2, 2, deadline=time.monotonic() + 0.02))
        assert caught.value.kind is Kind.TIMEOUT
        gate.set()
        assert numbers(await neighbour) == [[2.0, 2.0]]
        if blocker is not None:
            await blocker
            assert model.calls == [1, 1], "the late one was dropped before it ran"
        await subject.close()

    run(test)


def test_a_deadline_in_the_past_never_runs() -> None:
    """It is refused when it arrives."""

    async def test() -> None:
        model = FakeModel()
        subject = servable(model, cost_ns=JOINED)
        with pytest.raises(ServingError) as caught:
            await subject.infer(ask(1, 1, deadline=time.monotonic() - 1))
        assert caught.value.kind is Kind.TIMEOUT
        assert model.calls == []

    run(test)


def test_a_far_deadline_is_kept_too() -> None:
    """Deadlines beyond the precise ones are looked at by a tick."""

    async def test() -> None:
        gate = threading.Event()
        subject = servable(FakeModel(gate=gate))
        loop = asyncio.get_running_loop()
        late = asyncio.ensure_future(subject.infer(ask(1, 1, deadline=time.monotonic() + 2.1)))
        begin = loop.time()
        with pytest.raises(ServingError):
            await late
        assert loop.time() - begin >= 2.0
        gate.set()
        await subject.close()

    run(test)


def test_priorities_order_the_queue() -> None:
    """Lower levels run first, arrival decides within a level, and none means the default level."""

    async def test() -> None:
        gate = threading.Event()
        order: list[float] = []

        def note(call: Call) -> Tensors:
            assert isinstance(call.inputs, Tensors)
            order.append(float(call.inputs.items[0].array[0, 0]))
            return Tensors([Tensor("y", FP32, call.inputs.items[0].array)])

        model = FakeModel(gate=gate, run=note)
        subject = servable(model, BatchPolicy(max_size=1, levels=3, default_level=2))
        first = asyncio.ensure_future(subject.infer(ask(0, 0)))
        await until(lambda: model.entered == 1)
        rest = [asyncio.ensure_future(subject.infer(ask(v, 0, priority=p))) for v, p in [(1, 3), (2, 0), (3, 1), (4, 1), (5, 9)]]
        await until(lambda: subject.pending() == 5)
        gate.set()
        await asyncio.gather(first, *rest)
        assert order == [0, 3, 4, 2, 1, 5]
        await subject.close()

    run(test)


def test_the_delay_waits_for_company_and_a_preferred_size_ends_it() -> None:
    """With a delay of ten seconds, two requests wait; the third makes the preferred size and all run at once."""

    async def test() -> None:
        model = FakeModel()
        subject = servable(model, BatchPolicy(max_size=8, max_delay_s=10, preferred=(3,)), JOINED)
        waiting = [asyncio.ensure_future(subject.infer(ask(i, i))) for i in range(2)]
        await asyncio.sleep(0.02)
        assert subject.pending() == 2
        await asyncio.gather(subject.infer(ask(5, 5)), *waiting)
        assert model.calls == [3]

    run(test)


def test_the_delay_ends_by_itself() -> None:
    """Nobody else comes: the lone request runs when the delay is over."""

    async def test() -> None:
        model = FakeModel()
        subject = servable(model, BatchPolicy(max_size=8, max_delay_s=0.02), JOINED)
        assert numbers(await subject.infer(ask(1, 1))) == [[2.0, 2.0]]
        assert model.calls == [1]

    run(test)


def test_a_request_that_does_not_fit_waits_for_the_next_batch() -> None:
    """Sizes 3, 3, 1 with a maximum of 4: the small one overtakes, the other big one stays."""

    async def test() -> None:
        model = FakeModel()
        subject = servable(model, BatchPolicy(max_size=4), JOINED)
        await asyncio.gather(subject.infer(ask(*[1] * 6)), subject.infer(ask(*[2] * 6)), subject.infer(ask(3, 3)))
        assert model.calls == [4, 3]

    run(test)


def test_a_request_above_the_size_runs_alone() -> None:
    """More rows than a batch may join is one run of its own."""

    async def test() -> None:
        model = FakeModel()
        subject = servable(model, BatchPolicy(max_size=4), JOINED)
        big, small = await asyncio.gather(subject.infer(ask(*[1] * 20)), subject.infer(ask(1, 1)))
        assert sorted(model.calls) == [1, 10]
        assert len(numbers(big)) == 10
        assert len(numbers(small)) == 1

    run(test)


@pytest.mark.parametrize("shape", [(), (0, 2)], ids=["scalar", "zero rows"])
def test_scalars_and_empty_batches_run_alone(shape: tuple[int, ...]) -> None:
    """What has no length is never joined; an empty batch is legal."""

    async def test() -> None:
        model = FakeModel(run=lambda call: call.inputs)
        subject = servable(model, cost_ns=JOINED)
        answer = await subject.infer(InferRequest(Tensors([Tensor("x", FP32, np.zeros(shape, "f4"))])))
        assert isinstance(answer.outputs, Tensors)
        assert answer.outputs.items[0].array.shape == shape

    run(test)


def test_many_requests_that_cannot_join_do_not_pile_up_the_stack() -> None:
    """Thousands of waiting single runs are started one after the other, in slices of the loop."""

    async def test() -> None:
        model = FakeModel()
        subject = servable(model, BatchPolicy(max_size=2), JOINED)
        await asyncio.gather(*(subject.infer(ask(*[1.0] * 8)) for _ in range(3000)))
        assert len(model.calls) == 3000

    run(test)


def test_several_instances_run_side_by_side() -> None:
    """Two instances: two batches run although neither has ended."""

    async def test() -> None:
        gate = threading.Event()
        model = FakeModel(gate=gate)
        subject = servable(model, BatchPolicy(max_size=1), instances=2)
        tasks = [asyncio.ensure_future(subject.infer(ask(i, i))) for i in range(3)]
        await until(lambda: subject.pending() == 1)
        gate.set()
        await asyncio.gather(*tasks)
        await subject.close()

    run(test)


def test_drain_waits_and_then_fails_what_is_left() -> None:
    """After the deadline whoever still waits is told that the model was unloaded."""

    async def test() -> None:
        gate = threading.Event()
        model = FakeModel(gate=gate)
        subject = servable(model, BatchPolicy(max_size=1))
        running, waiting = (asyncio.ensure_future(subject.infer(ask(i, i))) for i in range(2))
        await until(lambda: subject.pending() == 1)
        await subject.drain(time.monotonic() + 0.01)
        with pytest.raises(ServingError) as caught:
            await waiting
        assert caught.value.kind is Kind.UNAVAILABLE
        gate.set()
        await running
        await subject.close()
        assert model.closed

    run(test)


def test_late_requests_may_go_last_instead_of_failing() -> None:
    """Triton's DELAY: past the queue's time-out a request loses its place, not its answer."""

    async def test() -> None:
        gate = threading.Event()
        order: list[float] = []

        def note(call: Call) -> Tensors:
            assert isinstance(call.inputs, Tensors)
            order.append(float(call.inputs.items[0].array[0, 0]))
            return Tensors([Tensor("y", FP32, call.inputs.items[0].array)])

        policy = BatchPolicy(max_size=1, queue_timeout_s=0.5, timeout_delays=True)
        model = FakeModel(gate=gate, run=note)
        subject = servable(model, policy)
        first = asyncio.ensure_future(subject.infer(ask(0, 0)))
        await until(lambda: model.entered == 1)
        late = asyncio.ensure_future(subject.infer(ask(1, 0)))
        await asyncio.sleep(0.55)
        fresh = asyncio.ensure_future(subject.infer(ask(2, 0)))
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, late, fresh)
        assert order == [0, 2, 1]
        await subject.close()

    run(test)


def test_cost_is_learned_by_size() -> None:
    """A size not seen yet is expected to take twice as long per doubling; one slow run does not make a fast model slow."""
    cost = Cost()
    assert cost.expect(4) == LOOP_BOUND_NS, "nothing is known: a thread is the safe place"
    cost.record(4, 1000)
    assert cost.expect(4) == 1000
    assert cost.expect(16) == 4000
    cost.record(4, 5_000_000)
    assert cost.expect(4) < LOOP_BOUND_NS * 2
    for _ in range(30):
        cost.record(4, 1000)
    assert cost.expect(4) < 2000


def test_the_policy_of_the_request_cannot_outlive_the_queues_own_timeout() -> None:
    """Without override the shorter of both counts."""

    async def test() -> None:
        gate = threading.Event()
        subject = servable(FakeModel(gate=gate), BatchPolicy(max_size=1, queue_timeout_s=0.02, timeout_override=False))
        blocker = asyncio.ensure_future(subject.infer(ask(0, 0, deadline=math.inf)))
        with pytest.raises(ServingError) as caught:
            await subject.infer(ask(1, 1, deadline=time.monotonic() + 60))
        assert caught.value.kind is Kind.TIMEOUT
        gate.set()
        await asyncio.wait([blocker])
        await subject.close()

    run(test)


async def until(condition: Callable[[], bool]) -> None:
    """Wait on the loop for a condition; the enclosing test bounds it."""
    while not condition():
        await asyncio.sleep(0.001)
