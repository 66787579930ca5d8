"""The gate before a model: order, room, cancels at every stage."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.model import BatchPolicy, ModelSpec
from dragoman.serving.predictions.gates import MOST_ROWS, Gate, capacity
from tests.servables import run, settle


class Visitor:
    """Goes in when it may and stays until it is let go."""

    def __init__(self, gate: Gate, rows: int) -> None:
        self.rows = rows
        self.inside = False
        self.leave = asyncio.Event()
        self.task = asyncio.ensure_future(self._visit(gate))

    async def _visit(self, gate: Gate) -> None:
        async with gate.enter(self.rows):
            self.inside = True
            try:
                await self.leave.wait()
            finally:
                self.inside = False


def test_first_come_first_served() -> None:
    """A large call at the head is not passed by small ones behind it; one that is larger than the gate passes alone."""

    async def scenario() -> None:
        gate = Gate(4)
        visitors = [Visitor(gate, rows) for rows in (3, 2, 1, 9, 1)]
        await settle(lambda: visitors[0].inside)
        assert [v.inside for v in visitors] == [True, False, False, False, False]
        visitors[0].leave.set()
        await settle(lambda: visitors[2].inside)
        assert [v.inside for v in visitors] == [False, True, True, False, False]
        visitors[1].leave.set()
        visitors[2].leave.set()
        await settle(lambda: visitors[3].inside)
        assert not visitors[4].inside
        visitors[3].leave.set()
        await settle(lambda: visitors[4].inside)
        visitors[4].leave.set()
        await asyncio.gather(*(v.task for v in visitors))

    run(scenario)


@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["leave", "cancel", "turn"]), st.integers(0, 9)), max_size=40))
def test_any_history_keeps_the_bound_and_the_room(history: list[tuple[int, str, int]]) -> None:
    """Whoever comes, leaves and is cancelled: never more inside than fit, and in the end everybody gets in."""

    async def scenario() -> None:
        gate = Gate(4)
        visitors: list[Visitor] = []
        for rows, action, which in history:
            visitors.append(Visitor(gate, rows))
            victim = visitors[which % len(visitors)]
            if action == "leave":
                victim.leave.set()
            elif action == "cancel":
                victim.task.cancel()
            else:
                await asyncio.sleep(0)
            assert sum(min(v.rows, 4) for v in visitors if v.inside) <= 4
        for visitor in visitors:
            visitor.leave.set()
        await asyncio.gather(*(v.task for v in visitors), return_exceptions=True)
        last = Visitor(gate, 4)
        await settle(lambda: last.inside)
        last.leave.set()
        await last.task

    run(scenario)


def test_the_room_is_half_of_the_queue() -> None:
    """Direct requests find the other half free."""
    assert capacity(ModelSpec("m")) == MOST_ROWS
    assert capacity(ModelSpec("m", batch=BatchPolicy(max_queue=100))) == 50
    assert capacity(ModelSpec("m", batch=BatchPolicy(max_queue=1))) == 1
    assert capacity(ModelSpec("m", batch=BatchPolicy(max_queue=0))) == MOST_ROWS
