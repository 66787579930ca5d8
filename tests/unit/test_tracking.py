"""MLflow's experiments, runs and logged models in the store, without a protocol around them."""

import asyncio
import math
from dataclasses import replace
from itertools import count

import pytest

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.serving.late_store import LateStore
from dragoman.serving.tracking import DEFAULT, PENDING, Experiment, LoggedModel, Metric, Run, Tracking
from dragoman.store import Store
from tests.fakes_store import FakeStore
from tests.servables import run


class Site:
    """Tracking over a store in memory, which is made when it is first written to, with a clock and ids of its own."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.made = False
        self.now = 1000.0

        async def opened() -> Store:
            self.made = True
            return self.store

        numbers = count(1)
        self.late = LateStore(opened, lambda: self.made)
        self.tracking = Tracking(self.late, clock=lambda: self.now, new_id=lambda: f"{next(numbers):032x}")

    async def run(self) -> Run:
        return await self.tracking.create_run(DEFAULT, name="r", user="u", started=5, tags={"a": "b"})

    async def logged(self) -> LoggedModel:
        return await self.tracking.create_logged(DEFAULT, name="m", kind="t", run="r1", params={"p": "1"}, tags={"a": "b"})


def refusal(caught: pytest.ExceptionInfo[ServingError]) -> tuple[Kind, str]:
    return caught.value.kind, caught.value.what


def test_looking_makes_no_database() -> None:
    """The default experiment is there all the same."""

    async def body() -> None:
        site = Site()
        assert await site.tracking.experiments() == [Experiment("0", "Default", "mlflow-artifacts:/0")]
        assert await site.tracking.runs([DEFAULT]) == []
        assert await site.tracking.all_logged([DEFAULT]) == []
        for looking in (site.tracking.run, site.tracking.logged, site.tracking.location):
            with pytest.raises(ServingError) as caught:
                await looking("x")
            assert caught.value.kind is Kind.NOT_FOUND
        with pytest.raises(ServingError):
            await site.tracking.change_run("x", lambda each: each)
        assert not site.made

    run(body)


def test_experiments_have_numbers_and_names_of_their_own() -> None:
    """A name is taken once, by a deleted one too; the number goes on."""

    async def body() -> None:
        tracking = Site().tracking
        one = await tracking.create_experiment("one", tags={"a": "b"})
        two = await tracking.create_experiment("two", "s3://bucket/x")
        assert (one.id, one.location, one.tags, one.created) == ("1", "mlflow-artifacts:/1", {"a": "b"}, 1_000_000)
        assert (two.id, two.location) == ("2", "s3://bucket/x")
        assert await tracking.experiment_named("one") == one
        await tracking.change_experiment("1", lambda each: replace(each, deleted=True))
        for name in ("one", "two", "Default"):
            with pytest.raises(ServingError) as caught:
                await tracking.create_experiment(name)
            assert refusal(caught) == (Kind.CONFLICT, "experiment")
        with pytest.raises(ServingError) as caught:
            await tracking.change_experiment("2", lambda each: replace(each, name="one"))
        assert refusal(caught) == (Kind.CONFLICT, "experiment")
        await tracking.change_experiment("2", lambda each: replace(each, name="three"))
        assert [(each.id, each.name, each.deleted) for each in await tracking.experiments()] == [
            ("0", "Default", False),
            ("1", "one", True),
            ("2", "three", False),
        ]

    run(body)


def test_experiments_that_are_made_at_once_are_told_apart() -> None:
    """By several workers, too: they are made in the store."""

    async def body() -> None:
        site = Site()
        others = [site.tracking, Tracking(site.late)]
        made = await asyncio.gather(*(others[n % 2].create_experiment(f"e{n}") for n in range(10)))
        assert sorted(int(each.id) for each in made) == list(range(1, 11))

    run(body)


def test_unknown_experiments_are_not_found() -> None:
    """By id, by name, and as the place of something new; a deleted one takes nothing new."""

    async def body() -> None:
        tracking = Site().tracking
        for doing in (
            tracking.experiment("7"),
            tracking.experiment_named("x"),
            tracking.change_experiment("7", lambda each: each),
            tracking.create_run("7", name="", user="", started=0, tags={}),
            tracking.create_logged("7", name="", kind="", run="", params={}, tags={}),
        ):
            with pytest.raises(ServingError) as caught:
                await doing
            assert refusal(caught) == (Kind.NOT_FOUND, "experiment")
        gone = await tracking.create_experiment("gone")
        await tracking.change_experiment(gone.id, lambda each: replace(each, deleted=True))
        with pytest.raises(ServingError, match="is deleted") as caught:
            await tracking.create_run(gone.id, name="", user="", started=0, tags={})
        assert caught.value.kind is Kind.INVALID_INPUT

    run(body)


def test_a_run_comes_back_as_it_was_made() -> None:
    """With a name and a start where it has none."""

    async def body() -> None:
        site = Site()
        made = await site.run()
        assert (made.id, made.location) == (f"{1:032x}", f"mlflow-artifacts:/0/{1:032x}/artifacts")
        assert (made.status, made.started, made.ended) == ("RUNNING", 5, 0)
        assert await site.tracking.run(made.id) == made
        other = await site.tracking.create_run(DEFAULT, name="", user="", started=0, tags={})
        assert (other.name, other.started) == ("run-00000000", 1_000_000)
        tagged = await site.tracking.create_run(DEFAULT, name="", user="", started=0, tags={"mlflow.runName": "n"})
        assert tagged.name == "n"
        assert [each.id for each in await site.tracking.runs([DEFAULT, "1"])] == [made.id, other.id, tagged.id]
        assert await site.tracking.runs(["1"]) == []

    run(body)


def test_a_run_keeps_what_is_written_to_it() -> None:
    """Everything, also numbers that are not finite."""

    async def body() -> None:
        site = Site()
        made = await site.run()

        def write(each: Run) -> Run:
            measured = each.given({"p": "1"}).measured({"m": [Metric(math.inf, 1, 2)]})
            return replace(measured, datasets=[{"dataset": {"name": "d"}}], took=["m-1"], made={"m-2": 3}, ended=9)

        written = await site.tracking.change_run(made.id, write)
        assert written == await site.tracking.run(made.id)
        assert written.metrics == {"m": Metric(math.inf, 1, 2)}
        assert (written.params, written.tags, written.made, written.ended) == ({"p": "1"}, {"a": "b"}, {"m-2": 3}, 9)

    run(body)


def test_the_last_value_of_a_metric_stays() -> None:
    """By step, then by time; of equals the first that came."""
    empty = Run("1", "0", "x", "r")
    values = [Metric(1.0, 5, 1), Metric(2.0, 1, 2), Metric(3.0, 9, 1), Metric(4.0, 1, 2)]
    assert empty.measured({"m": values}).metrics == {"m": Metric(2.0, 1, 2)}
    one_by_one = empty
    for value in values:
        one_by_one = one_by_one.measured({"m": [value]})
    assert one_by_one.metrics == {"m": Metric(2.0, 1, 2)}


def test_parameters_do_not_change() -> None:
    """Writing the same again is no error."""
    given = Run("1", "0", "x", "r").given({"p": "1"}).given({"p": "1", "q": "2"})
    assert given.params == {"p": "1", "q": "2"}
    with pytest.raises(ServingError, match="do not change") as caught:
        given.given({"p": "2"})
    assert caught.value.kind is Kind.INVALID_INPUT


def test_a_deleted_run_does_not_change() -> None:
    """Until it is restored."""

    async def body() -> None:
        site = Site()
        made = await site.run()
        await site.tracking.change_run(made.id, lambda each: replace(each, deleted=True), deleted=True)
        with pytest.raises(ServingError, match="is deleted") as caught:
            await site.tracking.change_run(made.id, lambda each: each.given({"p": "1"}))
        assert caught.value.kind is Kind.INVALID_INPUT
        await site.tracking.change_run(made.id, lambda each: replace(each, deleted=False), deleted=True)
        assert (await site.tracking.change_run(made.id, lambda each: each.given({"p": "1"}))).params == {"p": "1"}

    run(body)


def test_a_change_that_raises_changes_nothing() -> None:
    """What it raises comes out."""

    async def body() -> None:
        site = Site()
        made = await site.run()

        def refuse(each: Run) -> Run:
            raise invalid("this change is refused")

        with pytest.raises(ServingError, match="this change is refused"):
            await site.tracking.change_run(made.id, refuse)
        assert await site.tracking.run(made.id) == made

    run(body)


def test_a_run_holds_only_so_much() -> None:
    """One more is refused, and the run stays as it was."""

    async def body() -> None:
        site = Site()
        made = await site.run()
        tags = {str(number): "x" * 10_000 for number in range(1000)}
        for growing in (
            site.tracking.change_run(made.id, lambda each: replace(each, tags=tags)),
            site.tracking.create_run(DEFAULT, name="", user="", started=0, tags=tags),
        ):
            with pytest.raises(ServingError) as caught:
                await growing
            assert caught.value.kind is Kind.TOO_LARGE
        assert await site.tracking.runs([DEFAULT]) == [made]

    run(body)


def test_a_logged_model_comes_back_and_changes() -> None:
    """Its place is that of its files; each change has a time."""

    async def body() -> None:
        site = Site()
        made = await site.logged()
        assert (made.id, made.status, made.run) == (f"m-{1:032x}", PENDING, "r1")
        assert await site.tracking.location(made.id) == made.location == f"mlflow-artifacts:/0/models/{made.id}/artifacts"
        site.now += 1
        changed = await site.tracking.change_logged(made.id, lambda each: replace(each, status="LOGGED_MODEL_READY"))
        assert (changed.created, changed.updated, changed.status) == (1_000_000, 1_001_000, "LOGGED_MODEL_READY")
        assert await site.tracking.all_logged([DEFAULT]) == [changed]
        unnamed = await site.tracking.create_logged(DEFAULT, name="", kind="", run="", params={}, tags={})
        assert unnamed.name == unnamed.id

    run(body)


def test_a_deleted_logged_model_is_gone() -> None:
    """But for who asks for deleted ones."""

    async def body() -> None:
        site = Site()
        made = await site.logged()
        await site.tracking.change_logged(made.id, lambda each: replace(each, deleted=True))
        assert (await site.tracking.logged(made.id, deleted=True)).deleted
        assert await site.tracking.all_logged([DEFAULT]) == []
        for doing in (
            site.tracking.logged(made.id),
            site.tracking.location(made.id),
            site.tracking.change_logged(made.id, lambda each: each),
        ):
            with pytest.raises(ServingError) as caught:
                await doing
            assert refusal(caught) == (Kind.NOT_FOUND, "logged model")

    run(body)
