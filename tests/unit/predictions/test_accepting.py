"""Accepting predictions: bounds, durability before the answer, clients that go away, order, and the synchronous way."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import BatchPolicy, InferRequest, ModelSpec
from dragoman.core.predictions import Prediction, Progress
from dragoman.core.tensors import Blob, Rows, Value
from dragoman.serving.late_store import LateStore
from dragoman.store import Store
from tests.fakes_store import FakeStore
from tests.servables import run, settle
from tests.unit.predictions.rig import BROKEN, LIMITS, Bench, Scripted, bench, ended, publish, serving

P = Progress


class SlowStore(FakeStore):
    """Inserts wait until the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.inserting = 0

    async def add_prediction(self, prediction: Prediction) -> None:
        self.inserting += 1
        await self.gate.wait()
        await super().add_prediction(prediction)


async def refused(it: Bench, *rows: Value, **options: str) -> ServingError:
    with pytest.raises(ServingError) as caught:
        await it.submit(*rows, **options)
    return caught.value


def test_nothing_runs_before_it_is_stored(tmp_path: Path) -> None:
    """The model is asked only when the insert is durable, and so is the id answered."""

    async def scenario() -> None:
        store = SlowStore()
        async with bench(tmp_path, store) as it:
            submitting = asyncio.ensure_future(it.submit())
            await settle(lambda: store.inserting == 1)
            assert it.servable.asked == []
            assert not submitting.done()
            store.gate.set()
            await it.service.get(await submitting)
            await it.asked(1)

    run(scenario)


def test_a_client_that_goes_away_while_it_is_accepted(tmp_path: Path) -> None:
    """Nobody knows its id: it is withdrawn once it is stored, and holds no place."""

    async def scenario() -> None:
        store = SlowStore()
        async with bench(tmp_path, store) as it:
            submitting = asyncio.ensure_future(it.submit())
            await settle(lambda: store.inserting == 1)
            submitting.cancel()
            await asyncio.gather(submitting, return_exceptions=True)
            assert submitting.cancelled()
            store.gate.set()
            await settle(lambda: [p.progress for p in store._predictions.values()] == [P.CANCELLED])
            assert it.service.waiting() == {}
            assert it.ended == [("m", P.CANCELLED)]
            assert it.servable.asked == []

    run(scenario)


def test_too_many_wait_for_one_model(tmp_path: Path) -> None:
    """One more than `max_predictions` is OVERLOADED, with when to come again; what runs does not count."""

    async def scenario() -> None:
        async with bench(tmp_path, limits=replace(LIMITS, waiting=2)) as it:
            first = await it.submit()
            await it.submit()
            error = await refused(it)
            assert (error.kind, error.retry_after_s, error.what) == (Kind.OVERLOADED, 1.0, "prediction")
            assert error.message == "2 predictions wait for model 'm', at most 2 may"
            await it.asked(2)
            it.servable.start(0)
            assert it.service.waiting() == {"m": 1}
            await it.stored_as(first, P.RUNNING)
            assert await it.service.unfinished() == {"m": (1, 1)}
            await it.submit()
            await refused(it)
            await it.service.cancel(first)
            assert it.service.waiting() == {"m": 2}
            assert await it.service.unfinished() == {"m": (2, 0)}
            await refused(it)

    run(scenario)


def test_the_bound_holds_while_inserts_are_under_way(tmp_path: Path) -> None:
    """Many clients at once get no more places than there are, however slow the store is."""

    async def scenario() -> None:
        store = SlowStore()
        async with bench(tmp_path, store, limits=replace(LIMITS, waiting=3)) as it:
            tasks = [asyncio.ensure_future(it.submit()) for _ in range(10)]
            await settle(lambda: sum(task.done() for task in tasks) == 7)
            store.gate.set()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert sum(isinstance(r, str) for r in results) == 3

    run(scenario)


def test_too_many_wait_for_all_models(tmp_path: Path) -> None:
    """All models together may have four times as many."""

    async def scenario() -> None:
        async with bench(tmp_path, limits=replace(LIMITS, waiting=1)) as it:
            for number in range(5):
                entry = publish(it.gateway, it.servable, f"m{number}")
                assert entry is not None
                if number == 4:
                    with pytest.raises(ServingError, match="4 predictions wait, at most 4 may"):
                        await it.service.submit(entry, [{"x": 1}])
                else:
                    await it.service.submit(entry, [{"x": 1}])

    run(scenario)


def test_large_inputs_wait_in_the_store(tmp_path: Path) -> None:
    """A worker holds so many bytes of inputs; beyond that predictions wait outside its memory. A single large one is always taken."""

    async def scenario() -> None:
        async with bench(tmp_path, limits=replace(LIMITS, held_bytes=1000)) as it:
            large = {"x": Blob(b"x" * 5000)}
            first, second = await it.submit(large), await it.submit(large)
            assert (await it.stored(first)).progress is P.CLAIMED
            assert (await it.stored(second)).progress is P.PENDING
            await it.asked(1)
            await it.service.beat()
            it.servable.finish(0, {"y": 1})
            await it.reach(first, P.SUCCEEDED)
            await it.service.beat()
            await it.asked(2)
            assert it.servable.asked[1].inputs == Rows([large])

    run(scenario)


@pytest.mark.parametrize(
    ("rows", "options", "kind", "text"),
    [
        ([], {}, Kind.INVALID_INPUT, "a call of model 'm' needs at least one input, got none"),
        ([{"x": 1}] * 101, {}, Kind.TOO_LARGE, "101 inputs for model 'm' in one call, at most 100 are accepted"),
        ([{"x": 1}], {"operation": "explain"}, Kind.UNSUPPORTED, "model 'm' has no operation 'explain'"),
        ([{"x": object()}], {}, Kind.INVALID_INPUT, "the inputs for model 'm' cannot be stored"),
        ([{"x": 1}], {"webhook": "ftp://x/"}, Kind.INVALID_INPUT, "the webhook must be an http:// or https:// URL"),
    ],
)
def test_what_is_refused(tmp_path: Path, rows: list[Value], options: dict[str, str], kind: Kind, text: str) -> None:
    """Nothing is stored of it, and it takes no place."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            with pytest.raises(ServingError) as caught:
                await it.service.submit(it.gateway.find("m"), rows, **options)
            assert caught.value.kind is kind
            assert text in caught.value.message
            assert it.fake._predictions == {}
            assert it.service.waiting() == {}

    run(scenario)


def test_a_data_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """UNAVAILABLE, with a reason that tells nothing of paths."""

    async def scenario() -> None:
        (tmp_path / "owners").write_text("a file where the folder should be")
        async with bench(tmp_path) as it:
            error = await refused(it)
            assert (error.kind, error.message) == (
                Kind.UNAVAILABLE,
                "this server cannot keep predictions: its data directory is not writable",
            )

    run(scenario)


def test_accepted_predictions_are_never_refused_by_the_model(tmp_path: Path) -> None:
    """The model's queue is full of other requests: an accepted prediction waits until it gets in."""

    async def scenario() -> None:
        attempts = 0

        async def answer(request: InferRequest) -> Value:
            nonlocal attempts
            attempts += 1
            if attempts <= 3:
                raise ServingError(Kind.OVERLOADED, "the queue of model 'm' is full")
            return {"y": 1}

        async with bench(tmp_path) as it:
            it.servable.answer = answer
            key = await it.submit({"x": 1}, {"x": 2})
            assert (await it.service.wait(key, 10)).outputs == [{"y": 1}, {"y": 1}]

    run(scenario)


def test_predictions_come_to_the_model_in_order(tmp_path: Path) -> None:
    """However many wait, at most half of the model's queue is taken by predictions, first come, first served."""

    async def scenario() -> None:
        servable = Scripted()
        gateway = serving(servable, spec=ModelSpec("m", batch=BatchPolicy(max_size=2, max_queue=8)))
        async with bench(tmp_path, servable=servable, gateway=gateway) as it:
            keys = [await it.submit({"x": n}) for n in range(10)]
            await it.asked(4)
            for _ in range(100):
                await asyncio.sleep(0)
            assert [r.inputs.items[0]["x"] for r in servable.asked] == [0, 1, 2, 3]  # type: ignore[index] # rows
            for number in range(10):
                await it.asked(number + 1)
                servable.finish(number, {"y": number})
            for number, key in enumerate(keys):
                assert (await it.service.wait(key, 10)).outputs == [{"y": number}]

    run(scenario)


def test_cancelling_one_that_waits_for_its_turn_lets_the_next_in(tmp_path: Path) -> None:
    """Whoever is cancelled before the model was asked leaves no gap."""

    async def scenario() -> None:
        servable = Scripted()
        gateway = serving(servable, spec=ModelSpec("m", batch=BatchPolicy(max_size=1, max_queue=2)))
        async with bench(tmp_path, servable=servable, gateway=gateway) as it:
            keys = [await it.submit({"x": n}) for n in range(4)]
            await it.asked(1)
            await it.service.cancel(keys[1])
            await it.service.cancel(keys[0])
            await it.asked(2)
            assert servable.asked[1].inputs.items == [{"x": 2}]
            servable.finish(1, {"y": 2})
            await it.asked(3)
            servable.finish(2, {"y": 3})
            assert (await it.service.wait(keys[3], 10)).outputs == [{"y": 3}]

    run(scenario)


def test_a_demo_is_asked_for_as_one(tmp_path: Path) -> None:
    """The operation reaches the model, with the signature of that name, in one group per prediction."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            await it.submit({"x": 1}, {"x": 2}, operation="demo", caller="me", dialect="d")
            await it.submit({"x": 3})
            await it.asked(3)
            one, two, other = it.servable.asked
            assert (one.operation, one.signature, one.caller, one.dialect) == ("demo", "@demo", "me", "d")
            assert one.group == two.group != other.group
            assert (other.operation, other.signature) == ("predict", "")

    run(scenario)


# --- the store is opened late ---


def test_a_server_that_keeps_nothing_opens_no_store(tmp_path: Path) -> None:
    """Neither a beat nor a question about an unknown id makes a database; the first prediction does."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            missing = LateStore(_opener(it), lambda: False)
            parts = replace(it.parts, store=missing)
            service = type(it.service)(parts)
            await service.beat()
            with pytest.raises(ServingError, match="there is no prediction"):
                await service.get("0" * 32)
            assert it.opened == 0
            assert not (tmp_path / "owners").exists()
            key = await service.submit(it.gateway.find("m"), [{"x": 1}])
            assert it.opened == 1
            assert (await service.get(key)).progress is P.CLAIMED
            await service.close()

    run(scenario)


def _opener(it: Bench):  # type: ignore[no-untyped-def] # the opener of a LateStore
    async def opener() -> Store:
        it.opened += 1
        return it.store

    return opener


# --- while the caller waits ---


def test_a_synchronous_run(tmp_path: Path) -> None:
    """Outputs or failure in a view as of a stored one; the store is not touched."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            running = asyncio.ensure_future(it.service.run(it.gateway.find("m"), [{"x": 1}]))
            await it.asked(1)
            it.servable.start(0, "printed")
            it.servable.finish(0, {"y": 1})
            view = await running
            assert (view.progress, view.outputs, view.logs) == (P.SUCCEEDED, [{"y": 1}], "printed")
            assert view.started == view.finished == 1000.0
            failing = asyncio.ensure_future(it.service.run(it.gateway.find("m"), [{"x": 1}]))
            await it.asked(2)
            it.servable.finish(1, BROKEN)
            assert ended(await failing) == (P.FAILED, BROKEN.trace, "model_failed")
            assert it.opened == 0

    run(scenario)


@pytest.mark.parametrize("kind", [Kind.OVERLOADED, Kind.NOT_READY, Kind.UNAVAILABLE])
def test_a_synchronous_run_that_cannot_be_now(tmp_path: Path, kind: Kind) -> None:
    """What another attempt could change is raised, so that the dialect answers it as it answers everybody."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            running = asyncio.ensure_future(it.service.run(it.gateway.find("m"), [{"x": 1}]))
            await it.asked(1)
            it.servable.finish(0, ServingError(kind, "not now"))
            with pytest.raises(ServingError, match="not now"):
                await running

    run(scenario)


@pytest.mark.parametrize("kind", [Kind.OVERLOADED, Kind.NOT_READY, Kind.UNAVAILABLE, Kind.UNSUPPORTED])
def test_a_synchronous_run_that_ends_once_it_has_started(tmp_path: Path, kind: Kind) -> None:
    """The model's process dies: the prediction has failed, whatever the kind of the error."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            running = asyncio.ensure_future(it.service.run(it.gateway.find("m"), [{"x": 1}, {"x": 2}]))
            await it.asked(2)
            it.servable.start(0)
            it.servable.finish(0, ServingError(kind, "its process ended"))
            view = await running
            assert (view.progress, view.error_kind, view.outputs) == (P.FAILED, kind.value, None)
            assert view.error.endswith(": its process ended")

    run(scenario)


def test_a_client_that_hangs_up(tmp_path: Path) -> None:
    """Cancelling the await of a synchronous run cancels its requests."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            running = asyncio.ensure_future(it.service.run(it.gateway.find("m"), [{"x": 1}, {"x": 2}]))
            await it.asked(2)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert running.cancelled()
            assert it.servable.cancelled == 2

    run(scenario)
