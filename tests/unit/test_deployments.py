"""Registered models: served and stopped version by version, by policy, after changes of the catalog, and what failures leave behind."""

import asyncio
from dataclasses import replace

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import Policy, PolicyKind, State
from dragoman.serving.deployments import Deployment
from dragoman.store import StoredVersion
from tests.fakes_store import FakeStore
from tests.servables import ask, run, settle, spec
from tests.workers import FakeWorker, reason_of, register, stages, until, with_worker

LATEST, ALL = Policy(PolicyKind.LATEST), Policy(PolicyKind.ALL)


def shown(worker: FakeWorker) -> list[tuple[str, str, str]]:
    return [(d.version, d.state.value, d.reason) for d in worker.deployments.deployed()]


async def generation(worker: FakeWorker) -> int:
    return (await worker.store.wishes())[-1].generation


# --- one version ---


def test_serve_and_stop() -> None:
    """Versions stand side by side, each is served when the call returns, and gone when the other returns; stages go with them."""

    async def test(worker: FakeWorker) -> None:
        await register(worker.store, "1", "2", "3")
        await worker.deployments.serve("iris", "1")
        assert worker.serves() == ["1"]
        await worker.deployments.serve("iris", "3")
        assert worker.serves() == ["1", "3"]
        assert await stages(worker.store) == {"1": "Production", "2": "", "3": "Production"}
        assert worker.deployments.deployed() == [
            Deployment("iris", "3", State.READY, "", "Production"),
            Deployment("iris", "1", State.READY, "", "Production"),
        ]
        assert worker.deployments.serving("iris", "3")
        assert not worker.deployments.serving("iris", "2")
        await worker.deployments.stop("iris", "3")
        assert worker.serves() == ["1"]
        assert await stages(worker.store) == {"1": "Production", "2": "", "3": "None"}
        await until(lambda: not worker.deployments.serving("iris", "3"))

    with_worker(test)


def test_asking_again_changes_nothing() -> None:
    """Neither a second load nor a new generation, and stopping what is idle only sets the stage."""

    async def test(worker: FakeWorker) -> None:
        await register(worker.store, "1", "2")
        await worker.deployments.serve("iris", "1")
        before = await generation(worker)
        await worker.deployments.serve("iris", "1")
        assert await generation(worker) == before
        await worker.deployments.stop("iris", "2")
        assert (await stages(worker.store))["2"] == "None"
        assert worker.opener.begun == [("1", worker.opener.begun[0][1])]
        before = await generation(worker)
        await worker.deployments.stop("iris", "2")
        assert await generation(worker) == before

    with_worker(test)


def test_a_stage_may_be_left_as_it_is() -> None:
    """A load through another protocol says nothing about it; what was changed meanwhile is put right by the next serve."""

    async def test(worker: FakeWorker) -> None:
        await register(worker.store, "1", stage="Staging")
        await worker.deployments.serve("iris", "1", stage=None)
        assert await stages(worker.store) == {"1": "Staging"}
        assert worker.deployments.deployed()[0].stage == "Staging"
        await worker.deployments.serve("iris", "1")
        assert await stages(worker.store) == {"1": "Production"}
        assert worker.gateway.labels("iris") == {"Production": "1"}

    with_worker(test)


@pytest.mark.parametrize("call", ["serve", "stop"])
def test_what_is_not_registered_is_refused(call: str) -> None:
    """The message says whether the model or the version is missing, and which there are."""

    async def test(worker: FakeWorker) -> None:
        await register(worker.store, "1", "2")
        ask_for = getattr(worker.deployments, call)
        assert await reason_of(ask_for("iris", "7")) == ("NOT_FOUND", "version", "model 'iris' has no version '7'; it has 1, 2")
        assert await reason_of(ask_for("rose", "1")) == ("NOT_FOUND", "model", "there is no model 'rose' in the registry")
        assert worker.registry.names() == []

    with_worker(test)


def test_versions_of_the_command_line_are_not_the_registrys() -> None:
    """Others of that name are served beside them."""

    async def test(worker: FakeWorker) -> None:
        await register(worker.store, "1", "2")
        worker.registry.fix("iris", {"1": spec(name="iris", revision="file")})
        kind, what, message = await reason_of(worker.deployments.serve("iris", "1"))
        assert (kind, what) == ("CONFLICT", "version")
        assert "target of this server's command line" in message
        assert (await reason_of(worker.deployments.stop("iris", "1")))[0] == "CONFLICT"
        await worker.deployments.serve("iris", "2")
        assert worker.serves() == ["1", "2"]
        assert [d.version for d in worker.deployments.deployed()] == ["2"]

    with_worker(test)


# --- failures ---


def test_a_version_that_does_not_load_is_withdrawn() -> None:
    """The caller hears why, the status keeps it, the others serve on, the stage is what it was, and the server is ready."""

    async def test(worker: FakeWorker) -> None:
        await register(worker.store, "1", "2", stage="Staging")
        await worker.deployments.serve("iris", "1")
        worker.opener.fails["2"] = ServingError(Kind.INVALID_INPUT, "the file is empty")
        answer = ("UNAVAILABLE", "load", "model 'iris' version 2 failed to load: the file is empty")
        assert await reason_of(worker.deployments.serve("iris", "2")) == answer
        assert worker.serves() == ["1"]
        assert shown(worker) == [("2", "failed", "the file is empty"), ("1", "ready", "")]
        assert await stages(worker.store) == {"1": "Production", "2": "Staging"}
        assert not worker.deployments.serving("iris", "2")
        assert worker.gateway.ready()
        with pytest.raises(ServingError, match="model 'iris' is not loaded: the file is empty"):
            worker.gateway.find("iris", "2")

    with_worker(test)


def test_what_failed_is_not_tried_again_by_a_restart_but_by_whoever_asks() -> None:
    """The reason is still there; once it loads, the reason is gone."""

    async def test() -> None:
        store = FakeStore()
        await register(store, "1")
        worker = FakeWorker(store)
        worker.opener.fails["1"] = RuntimeError("no memory")
        await reason_of(worker.deployments.serve("iris", "1"))
        await worker.close()
        again = FakeWorker(store)
        await again.start()
        assert again.opener.begun == []
        assert shown(again) == [("1", "failed", "RuntimeError: no memory")]
        await again.deployments.serve("iris", "1")
        assert shown(again) == [("1", "ready", "")]
        await again.close()

    run(test)


def test_stopping_what_failed_forgets_its_reason() -> None:
    """The model is as if nobody had ever asked."""

    async def test(worker: FakeWorker) -> None:
        await register(worker.store, "1")
        worker.opener.fails["1"] = RuntimeError("no")
        await reason_of(worker.deployments.serve("iris", "1"))
        await worker.deployments.stop("iris", "1")
        assert shown(worker) == []
        assert worker.gateway.statuses() == []

    with_worker(test)


def test_everything_is_deployed_again_after_a_restart() -> None:
    """All versions of all models, with labels; one whose files are gone fails alone, is tried again when it is asked for, and stays wanted."""

    async def test() -> None:
        store = FakeStore()
        await register(store, "1", "2")
        await register(store, "5", model="rose")
        first = FakeWorker(store)
        for model, version in (("iris", "1"), ("iris", "2"), ("rose", "5")):
            await first.deployments.serve(model, version)
        await first.close()
        second = FakeWorker(store)
        second.opener.fails["2"] = ServingError(Kind.UNAVAILABLE, "its folder is gone")
        await second.start()
        assert second.serves() == ["1"]
        assert second.serves("rose") == ["5"]
        assert second.gateway.labels("rose") == {"Production": "5"}
        assert ("2", "failed", "its folder is gone") in shown(second)
        assert await reason_of(second.deployments.serve("iris", "2")) == (
            "UNAVAILABLE",
            "load",
            "model 'iris' version 2 failed to load: its folder is gone",
        )
        assert second.deployments.serving("iris", "2")
        second.opener.fails.clear()
        await second.deployments.serve("iris", "2")
        assert second.serves() == ["1", "2"]
        await second.close()

    run(test)


def test_two_that_serve_beside_each_other_of_which_one_fails() -> None:
    """The other is served, and what failed is taken out of the wish that has grown meanwhile."""

    async def test(worker: FakeWorker) -> None:
        await register(worker.store, "1", "2", "3")
        worker.opener.fails["3"] = RuntimeError("no")
        gate = worker.opener.hold_version("3")
        bad = asyncio.ensure_future(worker.deployments.serve("iris", "3"))
        await settle(lambda: worker.opener.running == 1)
        good = asyncio.ensure_future(worker.deployments.serve("iris", "2"))
        await settle(lambda: "2" in worker.registry.document("iris")["versions"])
        gate.set()
        assert (await reason_of(bad))[0] == "UNAVAILABLE"
        await good
        assert worker.serves() == ["2"]
        assert shown(worker) == [("3", "failed", "RuntimeError: no"), ("2", "ready", "")]

    with_worker(test)


def test_all_who_ask_for_what_fails_hear_it() -> None:
    """Whoever of them withdraws it; it is tried once for all of them, and once more for who asks afterwards."""

    async def test(worker: FakeWorker) -> None:
        await register(worker.store, "1", "2", stage="Staging")
        await worker.deployments.serve("iris", "1")
        worker.opener.fails["2"] = RuntimeError("no")
        gate = worker.opener.hold_version("2")
        calls = [asyncio.ensure_future(worker.deployments.serve("iris", "2")) for _ in range(5)]
        await settle(lambda: worker.opener.running == 1)
        calls += [asyncio.ensure_future(worker.deployments.serve("iris", "2")) for _ in range(5)]
        await settle(lambda: worker.opener.running == 1)
        gate.set()
        answer = ("UNAVAILABLE", "load", "model 'iris' version 2 failed to load: RuntimeError: no")
        assert [await reason_of(call) for call in calls] == [answer] * 10
        assert [version for version, _ in worker.opener.begun] == ["1", "2"]
        assert await reason_of(worker.deployments.serve("iris", "2")) == answer
        assert [version for version, _ in worker.opener.begun] == ["1", "2", "2"]
        assert shown(worker) == [("2", "failed", "RuntimeError: no"), ("1", "ready", "")]
        assert await stages(worker.store) == {"1": "Production", "2": "Staging"}

    with_worker(test)


class Slow(FakeStore):
    """A store that tells about versions how they were when its gate was shut, once it is open again."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = 0

    async def versions(self, model: str = "") -> list[StoredVersion]:
        found = await super().versions(model)
        self.waiting += 1
        await self.gate.wait()
        self.waiting -= 1
        return found


def test_the_stage_of_what_fails_is_the_one_before_all_who_asked() -> None:
    """Also for who saw it while another one's create, which failed meanwhile, had changed it."""

    async def whole() -> None:
        store = Slow()
        worker = FakeWorker(store)
        await worker.start()
        try:
            await register(store, "1", stage="Staging")
            worker.opener.fails["1"] = RuntimeError("no")
            held = worker.opener.hold_version("1")
            first = asyncio.ensure_future(worker.deployments.serve("iris", "1"))
            await settle(lambda: worker.opener.running == 1)
            assert await stages(store) == {"1": "Production"}
            store.gate.clear()
            second = asyncio.ensure_future(worker.deployments.serve("iris", "1"))
            await settle(lambda: store.waiting == 1)
            store.gate.set()  # it knows that there is such a version, and looks once more before it wishes
            store.gate.clear()
            await settle(lambda: store.waiting == 1)
            held.set()
            assert (await reason_of(first))[1] == "load"
            store.gate.set()
            assert (await reason_of(second))[1] == "load"
            assert await stages(store) == {"1": "Staging"}
        finally:
            await worker.close()

    run(whole)


def test_a_stop_while_the_version_loads_ends_both_calls() -> None:
    """What a later wish takes away is no error; nothing of it is served or left open."""

    async def test(worker: FakeWorker) -> None:
        await register(worker.store, "1")
        gate = worker.opener.hold_version("1")
        serving = asyncio.ensure_future(worker.deployments.serve("iris", "1"))
        await settle(lambda: worker.opener.running == 1)
        await worker.deployments.stop("iris", "1")
        gate.set()
        await serving
        await until(lambda: not worker.opener.open_now())
        assert worker.serves() == []
        assert worker.opener.begun == worker.opener.begun[:1]

    with_worker(test)


def test_a_caller_who_leaves_takes_nothing_back() -> None:
    """The wish stands, as the load goes on."""

    async def test(worker: FakeWorker) -> None:
        await register(worker.store, "1")
        gate = worker.opener.hold_version("1")
        serving = asyncio.ensure_future(worker.deployments.serve("iris", "1"))
        await settle(lambda: worker.opener.running == 1)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        gate.set()
        await until(lambda: worker.serves() == ["1"])

    with_worker(test)


def test_the_end_of_the_server_withdraws_nothing() -> None:
    """Whoever waits hears it; the next server goes on with the wish."""

    async def test() -> None:
        store = FakeStore()
        await register(store, "1")
        worker = FakeWorker(store)
        worker.opener.hold_version("1")
        serving = asyncio.ensure_future(worker.deployments.serve("iris", "1"))
        await settle(lambda: worker.opener.running == 1)
        await worker.close()
        assert "shutting down" in (await reason_of(serving))[2]
        again = FakeWorker(store)
        await again.start()
        assert again.serves() == ["1"]
        await again.close()

    run(test)


def test_with_the_store_down_serving_goes_on() -> None:
    """Deploys answer UNAVAILABLE and change nothing; later they work again."""

    async def test(worker: FakeWorker) -> None:
        store = worker.store
        assert isinstance(store, FakeStore)
        await register(store, "1", "2")
        await worker.deployments.serve("iris", "1")
        store.failure = ServingError(Kind.UNAVAILABLE, "the server's database is locked")
        for call in (worker.deployments.serve("iris", "2"), worker.deployments.stop("iris", "1"), worker.deployments.deploy("iris", ALL)):
            assert (await reason_of(call))[::2] == ("UNAVAILABLE", "the server's database is locked")
        assert worker.serves() == ["1"]
        store.failure = None
        await worker.deployments.serve("iris", "2")
        assert worker.serves() == ["1", "2"]

    with_worker(test)


# --- policies, and what follows the catalog ---


def test_a_whole_model_by_policy() -> None:
    """The latest two, all, those that are named; each replaces the one before, and undeploying ends them all."""

    async def test(worker: FakeWorker) -> None:
        await register(worker.store, "1", "2", "10")
        await worker.deployments.deploy("iris", Policy(PolicyKind.LATEST, 2))
        assert worker.serves() == ["2", "10"]
        await worker.deployments.deploy("iris", ALL)
        assert worker.serves() == ["1", "2", "10"]
        await worker.deployments.deploy("iris", Policy(versions=("1",)))
        assert worker.serves() == ["1"]
        await worker.deployments.undeploy("iris")
        assert worker.serves() == []
        assert worker.registry.document("iris") == {}
        await worker.deployments.undeploy("iris")

    with_worker(test)


def test_a_policy_without_versions_is_refused() -> None:
    """Unknown models, versions that do not exist, and models that have none."""

    async def test(worker: FakeWorker) -> None:
        await register(worker.store, "1")
        await register(worker.store, model="empty")
        assert (await reason_of(worker.deployments.deploy("rose", ALL)))[:2] == ("NOT_FOUND", "model")
        assert (await reason_of(worker.deployments.deploy("empty", ALL)))[:2] == ("NOT_FOUND", "version")
        assert (await reason_of(worker.deployments.deploy("iris", Policy(versions=("2",)))))[:2] == ("NOT_FOUND", "version")
        assert (await reason_of(worker.deployments.undeploy("rose")))[:2] == ("NOT_FOUND", "model")

    with_worker(test)


def test_the_latest_version_takes_over_without_a_gap() -> None:
    """The old one answers until the new one is ready, and what it has begun it finishes."""

    async def test(worker: FakeWorker) -> None:
        worker.opener.gate = asyncio.Event()
        await register(worker.store, "1")
        await worker.deployments.deploy("iris", LATEST)
        old = worker.gateway.find("iris")
        call = asyncio.ensure_future(worker.gateway.infer(old, ask()))
        await settle(lambda: old.in_flight == 1)
        await register(worker.store, "2")
        gate = worker.opener.hold_version("2")
        await worker.deployments.follow("iris")
        await settle(lambda: worker.opener.running == 1)
        assert worker.gateway.find("iris") is old
        gate.set()
        await settle(lambda: worker.gateway.find("iris").version == "2")
        worker.opener.gate.set()
        assert (await call).outputs
        await until(lambda: worker.serves() == ["2"])

    with_worker(test)


def test_a_latest_version_that_fails_leaves_the_one_before() -> None:
    """It is not tried again with each change of the catalog; a newer one is."""

    async def test(worker: FakeWorker) -> None:
        await register(worker.store, "1")
        await worker.deployments.deploy("iris", LATEST)
        worker.opener.fails["2"] = RuntimeError("no")
        await register(worker.store, "2")
        await worker.deployments.follow("iris")
        await until(lambda: ("2", "failed", "RuntimeError: no") in shown(worker))
        assert worker.serves() == ["1"]
        begun = len(worker.opener.begun)
        await worker.store.set_alias("iris", "champion", "1")
        await worker.deployments.follow("iris")
        await until(lambda: worker.gateway.labels("iris") == {"champion": "1"})
        assert (worker.serves(), len(worker.opener.begun)) == (["1"], begun)
        await register(worker.store, "3")
        await worker.deployments.follow("iris")
        await until(lambda: worker.serves() == ["3"])

    with_worker(test)


def test_labels_follow_aliases_and_stages() -> None:
    """An alias goes before a stage of its name; of several versions in a stage the highest has the label; idle versions have none."""

    async def test(worker: FakeWorker) -> None:
        await register(worker.store, "1", "2", "3")
        await worker.store.set_alias("iris", "champion", "1")
        await worker.store.set_alias("iris", "next", "3")
        for version in "12":
            await worker.deployments.serve("iris", version)
        assert worker.gateway.labels("iris") == {"Production": "2", "champion": "1"}
        await worker.store.change_version("iris", "1", updated=5.0, stage="Staging")
        await worker.store.set_alias("iris", "champion", "2")
        await worker.deployments.follow("iris")
        await until(lambda: worker.gateway.labels("iris") == {"Production": "2", "Staging": "1", "champion": "2"})
        assert [d.stage for d in worker.deployments.deployed()] == ["Production", "Staging"]

    with_worker(test)


def test_a_version_that_is_named_stays_beside_the_latest() -> None:
    """And one that is stopped by hand ends the policy: whoever chooses by hand chooses."""

    async def test(worker: FakeWorker) -> None:
        await register(worker.store, "1", "2")
        await worker.deployments.deploy("iris", LATEST)
        await worker.deployments.serve("iris", "1")
        await register(worker.store, "3")
        await worker.deployments.follow("iris")
        await until(lambda: worker.serves() == ["1", "3"])
        await worker.deployments.stop("iris", "3")
        await register(worker.store, "4")
        await worker.deployments.follow("iris")
        assert worker.serves() == ["1"]

    with_worker(test)


def test_what_the_catalog_has_no_more_is_served_no_more() -> None:
    """A version, then the model with the rest."""

    async def test(worker: FakeWorker) -> None:
        await register(worker.store, "1", "2")
        await worker.deployments.deploy("iris", ALL)
        await worker.store.remove_version("iris", "2")
        await worker.deployments.follow("iris")
        await until(lambda: worker.serves() == ["1"])
        await worker.store.remove_model("iris")
        await worker.deployments.follow("iris")
        await until(lambda: worker.serves() == [])
        assert worker.registry.document("iris") == {}

    with_worker(test)


def test_a_version_that_is_made_anew_under_its_number_is_loaded_anew() -> None:
    """Its revision is that of its content."""

    async def test(worker: FakeWorker) -> None:
        await register(worker.store, "1")
        await worker.deployments.serve("iris", "1")
        old = (await worker.store.versions("iris"))[0]
        await worker.store.add_version(replace(old, digest="another"), replace=True)
        await worker.deployments.serve("iris", "1")
        assert len({revision for _, revision in worker.opener.begun}) == 2

    with_worker(test)


def test_following_what_is_not_deployed_wishes_for_nothing() -> None:
    """Most changes of a catalog are of models that nobody serves."""

    async def test(worker: FakeWorker) -> None:
        await register(worker.store, "1")
        await worker.deployments.follow("iris")
        await worker.deployments.follow("rose")
        assert await worker.store.wishes() == []

    with_worker(test)


def test_a_catalog_that_changes_while_a_version_is_deployed() -> None:
    """An alias that is set in between has its label in the end, whoever was first."""

    async def test(worker: FakeWorker) -> None:
        await register(worker.store, "1")
        gate = worker.opener.hold_version("1")
        serving = asyncio.ensure_future(worker.deployments.serve("iris", "1"))
        await settle(lambda: worker.opener.running == 1)
        await worker.store.set_alias("iris", "champion", "1")
        gate.set()
        await serving
        assert worker.gateway.labels("iris") == {"Production": "1", "champion": "1"}

    with_worker(test)


def test_names_of_versions() -> None:
    """A number, an alias, a stage, or nothing for the highest."""

    async def test(worker: FakeWorker) -> None:
        await register(worker.store, "1", "2", "10")
        await worker.store.set_alias("iris", "champion", "2")
        await worker.store.change_version("iris", "1", updated=5.0, stage="Staging")
        named = [await worker.deployments.version_of("iris", text) for text in ("", "2", "champion", "Staging")]
        assert named == ["10", "2", "2", "1"]
        assert await worker.deployments.version_of("rose") is None
        assert (await reason_of(worker.deployments.version_of("iris", "nobody")))[:2] == ("NOT_FOUND", "version")
        assert await worker.deployments.registered(5) == ["iris"]

    with_worker(test)
