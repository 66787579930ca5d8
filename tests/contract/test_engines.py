"""What every engine promises, wherever the model lives: one suite over all of them, with the same model."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import BatchPolicy, InferRequest, InferResponse, ModelSpec, Servable
from dragoman.core.plugins import BUILT_IN
from dragoman.core.tensors import FP32, Blob, Rows, Tensor, Tensors
from dragoman.engines import Engines
from tests.fakes import row
from tests.models import build
from tests.scripted import ROWS, journal, noted, rows, runs, scripted_runtime
from tests.servables import run

ENGINES = list(BUILT_IN["engines"])
pytestmark = pytest.mark.parametrize("engine", ENGINES)


@dataclass
class Heard:
    """A watch that notes what it hears."""

    starts: int = 0
    texts: list[str] = field(default_factory=list)

    def started(self) -> None:
        self.starts += 1

    def log(self, text: str) -> None:
        self.texts.append(text)


@dataclass
class World:
    """A servable of the engine in question, and where its model writes."""

    servable: Servable
    folder: Path

    def gate(self, name: str = "gate") -> str:
        return str(self.folder / name)

    def open_gate(self, name: str = "gate") -> None:
        (self.folder / name).touch()

    def ask(self, request: InferRequest) -> "asyncio.Task[InferResponse]":
        return asyncio.ensure_future(self.servable.infer(request))

    async def running(self, *names: str) -> None:
        """Wait until a run with exactly these rows has begun."""
        await until(lambda: bool(runs(self.folder)) and runs(self.folder)[-1] == list(names))


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.002)


@asynccontextmanager
async def world(engine: str, folder: Path, **changes: Any) -> AsyncIterator[World]:
    arguments = {"journal": str(folder / "journal"), **changes.pop("arguments", {})}
    spec = replace(ModelSpec("m", runtime="scripted", engine=engine, batch=BatchPolicy(max_size=5), arguments=arguments), **changes)
    with scripted_runtime(folder):
        engines = Engines()
        try:
            servable = await engines.open(spec)
            try:
                yield World(servable, folder)
            finally:
                for gate in ("gate", "second"):  # whatever went wrong, nothing waits for ever
                    (folder / gate).touch()
                await servable.close()
        finally:
            await engines.close()


def check(engine: str, folder: Path, test: Callable[[World], Awaitable[None]], **changes: Any) -> None:
    async def whole() -> None:
        async with world(engine, folder, **changes) as w:
            await test(w)

    run(whole)


def out(response: InferResponse) -> list[Any]:
    assert isinstance(response.outputs, Rows)
    return [each["out"] for each in response.outputs.items]


async def failure(work: Awaitable[object]) -> ServingError:
    with pytest.raises(ServingError) as caught:
        await work
    return caught.value


def test_a_model_says_what_it_is(engine: str, tmp_path: Path) -> None:
    """Signatures, operations and platform are those of the model, wherever it lives."""

    async def test(w: World) -> None:
        assert w.servable.signatures == {"": ROWS}
        assert w.servable.operations == {"predict", "explain"}
        assert (w.servable.platform, w.servable.trouble(), w.servable.pending()) == ("scripted", "", 0)

    check(engine, tmp_path, test)


def test_tensors_go_in_and_out(engine: str, tmp_path: Path) -> None:
    """The model owns its input and may write into it; only wanted outputs come back; the stages are measured."""

    async def test(w: World) -> None:
        response = await w.servable.infer(InferRequest(row(1, 2, 3, 4), outputs=("y",)))
        assert isinstance(response.outputs, Tensors)
        assert [(t.name, t.datatype, t.array.tolist()) for t in response.outputs.items] == [("y", FP32, [[2, 4], [6, 8]])]
        assert response.timings.infer_ns > 0
        assert (response.timings.batch_size, response.timings.rows, response.timings.leader) == (2, 2, True)
        error = await failure(w.servable.infer(InferRequest(row(-1, 2))))
        assert (error.kind, error.message) == (Kind.MODEL_FAILED, "model 'm' failed: ArithmeticError: a negative number")

    check(engine, tmp_path, test, arguments={"tensors": True})


def test_rows_go_in_and_out(engine: str, tmp_path: Path) -> None:
    """Every kind of value that a row may hold arrives as it was, and comes back."""
    value = {
        "none": None, "bool": True, "int": 2**70, "float": float("inf"), "text": "\ud83d\ude00 half", "bytes": b"\0\xff",
        "file": Blob(b"png", "image/png", "a.png"), "list": [[1.5] * 9, [1, "x", None], []], "nested": {"a": {"b": [1] * 20}},
    }  # fmt: skip

    async def test(w: World) -> None:
        assert out(await w.servable.infer(rows({"value": value}))) == [value]
        array = np.arange(6, dtype="f4").reshape(2, 3)
        (back,) = out(await w.servable.infer(rows({"value": array})))
        assert (back.dtype, back.tolist()) == (array.dtype, array.tolist())

    check(engine, tmp_path, test)


def test_requests_that_wait_run_together(engine: str, tmp_path: Path) -> None:
    """While the model is busy they gather; equal options share a batch; everybody gets his own answer."""

    async def test(w: World) -> None:
        first = w.ask(rows({"name": "first", "do": "gate", "gate": w.gate()}))
        await w.running("first")
        others = [w.ask(rows({"name": str(i), "value": i, "option": i % 2})) for i in range(8)]
        await until(lambda: w.servable.pending() == 8)
        w.open_gate()
        assert [out(await each) for each in others] == [[i] for i in range(8)]
        await first
        assert runs(w.folder)[1:] == [["0", "2", "4", "6"], ["1", "3", "5", "7"]]
        responses = [await each for each in others]
        assert [r.timings.batch_size for r in responses] == [4] * 8
        assert sum(r.timings.leader for r in responses) == 2

    check(engine, tmp_path, test)


@pytest.mark.parametrize(
    ("act", "text"), [("raise", "ValueError: boom"), ("leave", "SystemExit: 3"), ("stop", "KeyboardInterrupt"), ("fail", "this row")]
)
def test_what_user_code_raises_is_its_failure(engine: str, act: str, text: str, tmp_path: Path) -> None:
    """Whatever it is, the model serves on; the traceback, from user code on, is there for the owner."""

    async def test(w: World) -> None:
        error = await failure(w.servable.infer(rows({"do": act})))
        assert error.kind is Kind.MODEL_FAILED
        assert error.message == f"model 'm' failed: {text}"
        if act == "fail":
            assert error.trace == "its trace"
        else:
            assert error.trace.splitlines()[-1] == text
            assert error.trace.startswith("Traceback")
            assert "scripted.py" in error.trace.splitlines()[1]
        assert out(await w.servable.infer(rows({"value": 1}))) == [1]

    check(engine, tmp_path, test)


def test_one_bad_request_does_not_fail_strangers(engine: str, tmp_path: Path) -> None:
    """After an exception in a batch of several each runs once alone; nobody sees another's traceback; parts of one prediction stay together."""

    async def test(w: World) -> None:
        first = w.ask(rows({"name": "first", "do": "gate", "gate": w.gate()}))
        await w.running("first")
        asked = [
            w.ask(rows({"name": "a", "value": 1}, group="A")),
            w.ask(rows({"name": "b", "do": "raise", "text": "secret of B"}, group="B")),
            w.ask(rows({"name": "c", "value": 3}, group="B")),
            w.ask(rows({"name": "d", "do": "raise", "text": "secret of D"}, group="D")),
        ]
        await until(lambda: w.servable.pending() == 4)
        w.open_gate()
        await first
        assert out(await asked[0]) == [1]
        for index, own, other in ((1, "B", "D"), (2, "B", "D"), (3, "D", "B")):
            error = await failure(asked[index])
            assert f"secret of {own}" in error.message
            assert f"ValueError: secret of {own}" in error.trace
            assert f"secret of {other}" not in error.message + error.trace
        assert runs(w.folder)[1:] == [["a", "b", "c", "d"], ["a"], ["b", "c"], ["d"]]

    check(engine, tmp_path, test)


@pytest.mark.parametrize("count", [1, 3])
def test_a_wrong_number_of_outputs_is_a_clear_failure(engine: str, count: int, tmp_path: Path) -> None:
    """At once, for everybody of the batch, and nobody runs again."""

    async def test(w: World) -> None:
        first = w.ask(rows({"name": "first", "do": "gate", "gate": w.gate()}))
        await w.running("first")
        asked = [w.ask(rows({"do": "nothing"})), *(w.ask(rows({"value": i})) for i in range(count - 1))]
        await until(lambda: w.servable.pending() == count)
        w.open_gate()
        await first
        for each in asked:
            error = await failure(each)
            assert error.kind is Kind.MODEL_FAILED
            assert f"gave {count - 1} outputs for {count} input" in error.message
        assert len(noted(w.folder, "run")) == 2

    check(engine, tmp_path, test)


def test_a_queued_request_that_is_cancelled_never_runs(engine: str, tmp_path: Path) -> None:
    """Its neighbours in the queue run without it."""

    async def test(w: World) -> None:
        first = w.ask(rows({"name": "first", "do": "gate", "gate": w.gate()}))
        await w.running("first")
        asked = [w.ask(rows({"name": str(i), "value": i})) for i in range(4)]
        await until(lambda: w.servable.pending() == 4)
        asked[0].cancel()
        asked[2].cancel()
        await until(lambda: w.servable.pending() == 2)
        w.open_gate()
        assert [out(await asked[i]) for i in (1, 3)] == [[1], [3]]
        await first
        assert runs(w.folder)[1:] == [["1", "3"]]

    check(engine, tmp_path, test)


@pytest.mark.parametrize("late", [False, True])
def test_one_of_a_running_batch_may_leave(engine: str, late: bool, tmp_path: Path) -> None:
    """By cancelling or by its deadline: the run goes on for the others."""

    async def test(w: World) -> None:
        first = w.ask(rows({"name": "first", "do": "gate", "gate": w.gate()}))
        await w.running("first")
        deadline = {"deadline": time.monotonic() + 1.0} if late else {}
        leaves = w.ask(rows({"name": "a", "value": 1}, **deadline))
        stays = w.ask(rows({"name": "b", "do": "gate", "gate": w.gate("second"), "value": 2}))
        await until(lambda: w.servable.pending() == 2)
        w.open_gate()
        await w.running("a", "b")
        if late:
            assert (await failure(leaves)).kind is Kind.TIMEOUT
        else:
            leaves.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaves
        w.open_gate("second")
        assert out(await stays) == [2]
        await first
        assert len(noted(w.folder, "run")) == 2

    check(engine, tmp_path, test)


def test_a_request_that_waits_is_late_at_its_deadline(engine: str, tmp_path: Path) -> None:
    """It never runs."""

    async def test(w: World) -> None:
        first = w.ask(rows({"name": "first", "do": "gate", "gate": w.gate()}))
        await w.running("first")
        assert (await failure(w.ask(rows({"name": "late"}, deadline=time.monotonic() + 0.05)))).kind is Kind.TIMEOUT
        assert (await failure(w.ask(rows({"name": "late"}, deadline=time.monotonic() - 1)))).kind is Kind.TIMEOUT
        w.open_gate()
        await first
        assert runs(w.folder) == [["first"]]

    check(engine, tmp_path, test)


def test_a_full_queue_refuses_at_once(engine: str, tmp_path: Path) -> None:
    """With the time after which it is worth asking again."""

    async def test(w: World) -> None:
        first = w.ask(rows({"name": "first", "do": "gate", "gate": w.gate()}))
        await w.running("first")
        asked = [w.ask(rows({"name": str(i)})) for i in range(2)]
        await until(lambda: w.servable.pending() == 2)
        error = await failure(w.ask(rows({"name": "more"})))
        assert (error.kind, error.retry_after_s) == (Kind.OVERLOADED, 1.0)
        w.open_gate()
        await asyncio.gather(first, *asked)

    check(engine, tmp_path, test, batch=BatchPolicy(max_size=4, max_queue=2))


def test_a_watch_hears_when_its_request_runs(engine: str, tmp_path: Path) -> None:
    """Not while it waits; once more when it runs alone after a failed batch."""

    async def test(w: World) -> None:
        first = w.ask(rows({"name": "first", "do": "gate", "gate": w.gate()}))
        await w.running("first")
        good, bad = Heard(), Heard()
        asked = [w.ask(rows({"name": "a"}, watch=good)), w.ask(rows({"name": "b", "do": "raise"}, watch=bad))]
        await until(lambda: w.servable.pending() == 2)
        assert (good.starts, bad.starts) == (0, 0)
        w.open_gate()
        await asked[0]
        await failure(asked[1])
        await first
        assert (good.starts, bad.starts) == (2, 2)

    check(engine, tmp_path, test)


def test_a_stream_of_a_model_that_has_none_is_one_answer(engine: str, tmp_path: Path) -> None:
    """Whoever asks for a stream gets it in one piece."""

    async def test(w: World) -> None:
        parts = [part async for part in w.servable.stream(rows({"value": 5}))]
        assert [out(part) for part in parts] == [[5]]

    check(engine, tmp_path, test)


def test_drain_waits_for_what_runs_and_waits(engine: str, tmp_path: Path) -> None:
    """Until everything has its answer."""

    async def test(w: World) -> None:
        asked = [w.ask(rows({"name": str(i), "do": "gate", "gate": w.gate(), "value": i})) for i in range(6)]
        await until(lambda: bool(runs(w.folder)))
        draining = asyncio.ensure_future(w.servable.drain(time.monotonic() + 20))
        await asyncio.sleep(0)
        assert not draining.done()
        w.open_gate()
        await draining
        assert [out(await each) for each in asked] == [[i] for i in range(6)]

    check(engine, tmp_path, test)


def test_drain_gives_up_at_its_deadline(engine: str, tmp_path: Path) -> None:
    """What still waits then is told that the model is unloaded."""

    async def test(w: World) -> None:
        first = w.ask(rows({"name": "first", "do": "gate", "gate": w.gate()}))
        await w.running("first")
        waits = w.ask(rows({"name": "second"}))
        await until(lambda: w.servable.pending() == 1)
        await w.servable.drain(time.monotonic() + 0.05)
        assert (await failure(waits)).kind is Kind.UNAVAILABLE
        w.open_gate()
        await asyncio.gather(first, return_exceptions=True)

    check(engine, tmp_path, test)


def test_close_closes_the_model(engine: str, tmp_path: Path) -> None:
    """Once, and in the process in which it was loaded."""

    async def test(w: World) -> None:
        await w.servable.infer(rows({"value": 1}))

    check(engine, tmp_path, test)
    pids = {each["pid"] for each in journal(tmp_path)}
    assert [each["event"] for each in journal(tmp_path)] == ["setup", "run", "ran", "close"]
    assert len(pids) == 1


def test_a_model_that_cannot_be_loaded_says_why(engine: str, tmp_path: Path) -> None:
    """The type and text of the exception are in the reason."""

    async def test() -> None:
        arguments = {"setup": [{"do": "raise", "text": "no weights"}]}
        with pytest.raises((ServingError, ValueError), match="no weights"):
            async with world(engine, tmp_path, arguments=arguments):
                raise AssertionError("it must not open")

    run(test)


def test_real_formats_live_anywhere(engine: str, tmp_path: Path) -> None:
    """An ONNX model gives the same answers in either place, and refuses the same input in the same words."""
    path = build.iris(tmp_path / "iris.onnx")

    async def test() -> None:
        engines = Engines()
        servable = await engines.open(ModelSpec("iris", runtime="onnx", artifact=str(path), engine=engine))
        response = await servable.infer(InferRequest(Tensors([Tensor("X", FP32, build.IRIS_CENTRES.astype("f4"))])))
        assert isinstance(response.outputs, Tensors)
        label = response.outputs.get("label")
        assert label is not None
        assert label.array.ravel().tolist() == [0, 1, 2]
        wrong = InferRequest(Tensors([Tensor("X", FP32, np.zeros((1, 3), "f4"))]), strict=False)
        assert (await failure(servable.infer(wrong))).kind is Kind.INVALID_INPUT
        await servable.close()
        await engines.close()

    run(test)
