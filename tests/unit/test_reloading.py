"""Another list of models while the server runs, by request and from its file: in every worker, as a whole, with TensorFlow Serving's rules."""

import asyncio
import logging
import shutil
from pathlib import Path

import pytest

from dragoman.core.lifecycle import Policy, PolicyKind
from dragoman.core.model import EMPTY
from dragoman.serving.model_config import ConfiguredModel, read_models
from dragoman.serving.settings import LATEST
from tests.followers import Follower, put, until, with_follower, with_followers
from tests.workers import reason_of

ALL = Policy(PolicyKind.ALL)


def configured(base: Path, name: str = "m", policy: Policy = LATEST, **labels: str) -> ConfiguredModel:
    return ConfiguredModel(name, str(base), policy, labels)


def only(*versions: str) -> Policy:
    return Policy(PolicyKind.SPECIFIC, versions=versions)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base path with the versions 1 and 2."""
    for version in ("1", "2"):
        put(tmp_path / "m" / version / "model.onnx")
    return tmp_path / "m"


@pytest.mark.parametrize("count", [1, 2])
def test_a_list_is_the_whole_truth_in_every_worker(base: Path, tmp_path: Path, count: int) -> None:
    """Targets that it does not name are unloaded, what it names is served, and the call returns when all of that is so."""
    put(tmp_path / "other" / "1" / "model.onnx")

    async def test(workers: list[Follower]) -> None:
        assert [worker.has() for worker in workers] == [["2"]] * count
        gates = [worker.opener.hold_version("1") for worker in workers]
        reloading = asyncio.ensure_future(workers[0].reloading.reload((configured(tmp_path / "other", "n"), configured(base, policy=ALL))))
        await until(lambda: all(worker.opener.running for worker in workers))
        assert not reloading.done()
        for gate in gates:
            gate.set()
        await reloading
        assert [(worker.has("m"), worker.has("n")) for worker in workers] == [(["1", "2"], ["1"])] * count
        await workers[-1].reloading.reload((configured(tmp_path / "other", "n"),))
        assert [(worker.has("m"), worker.has("n")) for worker in workers] == [([], ["1"])] * count
        await workers[0].reloading.reload(())
        assert [worker.has("n") for worker in workers] == [[]] * count

    place = None
    if count > 1:
        place = tmp_path / "place"
        place.mkdir()
    with_followers(place, count, test, base)


def test_the_same_list_again_loads_nothing(base: Path) -> None:
    """Models that are as they were go on as they are."""

    async def test(worker: Follower) -> None:
        await worker.reloading.reload((configured(base),))
        entry = worker.gateway.find("m")
        await worker.reloading.reload((configured(base),))
        assert worker.gateway.find("m") is entry
        assert len(worker.opener.begun) == 1

    with_follower(test, base)


def test_another_policy_moves_versions_without_a_gap(base: Path) -> None:
    """The version that is wanted is loaded before the one that is not is unloaded."""

    async def test(worker: Follower) -> None:
        gate = worker.opener.hold_version("1")
        reloading = asyncio.ensure_future(worker.reloading.reload((configured(base, policy=only("1")),)))
        await until(lambda: worker.opener.running == 1)
        assert worker.has() == ["2"]
        gate.set()
        await reloading
        assert worker.has() == ["1"]

    with_follower(test, base)


def test_what_a_list_names_is_looked_at_again(base: Path) -> None:
    """New versions of its models are served like those of targets."""

    async def test(worker: Follower) -> None:
        await worker.reloading.reload((configured(base, "listed"),))
        put(base / "3" / "model.onnx")
        await until(lambda: worker.has("listed") == ["3"])
        assert worker.has() == []

    with_follower(test, base, every_s=0.002)


def test_a_base_path_that_is_not_there_is_not_waited_for(base: Path, tmp_path: Path) -> None:
    """It is served once it is there."""

    async def test(worker: Follower) -> None:
        await worker.reloading.reload((configured(base), configured(tmp_path / "later", "later")))
        assert (worker.has(), worker.has("later")) == (["2"], [])
        put(tmp_path / "later" / "5" / "model.onnx")
        await until(lambda: worker.has("later") == ["5"])

    with_follower(test, base, every_s=0.002)


def test_a_model_that_cannot_be_read_changes_nothing(base: Path, tmp_path: Path) -> None:
    """The whole list is refused before anything has happened."""
    put(tmp_path / "bad" / "config.pbtxt", "max_batch_size: {")

    async def test(worker: Follower) -> None:
        answer = await reason_of(worker.reloading.reload((configured(tmp_path / "bad", "bad"),)))
        assert answer[:2] == ("INVALID_INPUT", "model")
        assert "model 'bad' cannot be loaded: config.pbtxt" in answer[2]
        assert (worker.has(), worker.registry.models()) == (["2"], {})

    with_follower(test, base)


@pytest.mark.parametrize("failing", [0, 1])
def test_a_version_that_does_not_load_is_told_and_the_old_one_serves(base: Path, tmp_path: Path, failing: int) -> None:
    """Whichever worker could not load it."""
    place = tmp_path / "place"
    place.mkdir()

    async def test(workers: list[Follower]) -> None:
        workers[failing].opener.fails["1"] = RuntimeError("no memory")
        answer = await reason_of(workers[0].reloading.reload((configured(base, policy=only("1")),)))
        assert answer == ("UNAVAILABLE", "load", "model 'm' version 1 failed to load: RuntimeError: no memory")
        assert (workers[failing].has(), workers[1 - failing].has()) == (["2"], ["1"])

    with_followers(place, 2, test, base)


def test_a_worker_that_comes_later_knows_the_list(base: Path, tmp_path: Path) -> None:
    """It replaces one that died, long after the call."""
    place = tmp_path / "place"
    place.mkdir()

    async def test(workers: list[Follower]) -> None:
        await workers[0].reloading.reload((configured(base, "listed", only("1"), stable="1"),))
        late = Follower(workers[0].store, [base], place)
        try:
            await late.start()
            await until(lambda: late.has("listed") == ["1"])
            assert late.has() == []
            assert late.gateway.labels("listed") == {"stable": "1"}
        finally:
            await late.close()

    with_followers(place, 2, test, base)


# --- labels ---


def refusal(version: str, name: str = "m") -> tuple[str, str, str]:
    text = f"Request to assign label to version {version} of model {name}, which is not currently available for inference"
    return ("CONFLICT", "label", text)


def test_labels_lead_to_versions_that_the_same_list_brings(base: Path) -> None:
    """The canary recipe: both versions, then the labels move, then the old one goes."""

    async def test(worker: Follower) -> None:
        await worker.reloading.reload((configured(base, policy=ALL, stable="1", canary="2"),))
        assert worker.gateway.find("m", label="stable").version == "1"
        assert worker.gateway.find("m", label="canary").version == "2"
        await worker.reloading.reload((configured(base, policy=ALL, stable="2"),))
        assert worker.gateway.labels("m") == {"stable": "2"}
        await worker.reloading.reload((configured(base, stable="2"),))
        assert worker.has() == ["2"]

    with_follower(test, base)


def test_a_label_of_a_version_that_is_not_served_changes_nothing(base: Path) -> None:
    """Neither that label nor anything else of the list."""

    async def test(worker: Follower) -> None:
        await worker.reloading.reload((configured(base, policy=ALL, stable="1"),))
        answer = await reason_of(worker.reloading.reload((configured(base, policy=only("1"), stable="2"),)))
        assert answer == refusal("2")
        assert (worker.has(), worker.gateway.labels("m")) == (["1", "2"], {"stable": "1"})

    with_follower(test, base)


def test_a_label_of_a_version_that_fails_stays_where_it_was(base: Path) -> None:
    """A label that is new does not come into being, also not when the version loads in the end."""

    async def test(worker: Follower) -> None:
        await worker.reloading.reload((configured(base, policy=only("2"), stable="2"),))
        worker.opener.fails["1"] = RuntimeError("broken")
        answer = await reason_of(worker.reloading.reload((configured(base, policy=ALL, stable="1", canary="1"),)))
        assert answer == refusal("1")
        assert worker.gateway.labels("m") == {"stable": "2"}
        worker.opener.fails.clear()
        await worker.reloading.reload((configured(base, policy=ALL, stable="2"),))
        assert (worker.has(), worker.gateway.labels("m")) == (["1", "2"], {"stable": "2"})

    with_follower(test, base)


def test_early_labels_come_when_their_version_does(base: Path) -> None:
    """With the flag, and never where the label already leads somewhere."""

    async def test(worker: Follower) -> None:
        await worker.reloading.reload((configured(base, stable="2", canary="3"),))
        assert worker.gateway.labels("m") == {"stable": "2"}
        assert await reason_of(worker.reloading.reload((configured(base, stable="3"),))) == refusal("3")
        assert worker.gateway.labels("m") == {"stable": "2"}
        put(base / "3" / "model.onnx")
        await until(lambda: worker.gateway.labels("m").get("canary") == "3")

    with_follower(test, base, every_s=0.002, early_labels=True)


def test_a_label_goes_with_its_version(base: Path) -> None:
    """And comes again with it."""

    async def test(worker: Follower) -> None:
        await worker.reloading.reload((configured(base, policy=ALL, canary="2"),))
        shutil.move(base / "2", base.parent / "away")
        await until(lambda: worker.gateway.labels("m") == EMPTY)
        shutil.move(base.parent / "away", base / "2")
        await until(lambda: worker.gateway.labels("m") == {"canary": "2"})

    with_follower(test, base, every_s=0.002)


# --- the file ---


def write(file: Path, *models: str) -> Path:
    """A list of models as a file, complete at once."""
    new = file.with_suffix(".new")
    new.write_text(f"model_config_list {{ {' '.join(f'config {{ {model} }}' for model in models)} }}", "utf-8")
    return new.replace(file)


def test_a_file_that_changes_is_applied(base: Path, tmp_path: Path) -> None:
    """It is the whole truth about its own models; targets beside it stay."""
    put(tmp_path / "beside" / "1" / "model.onnx")
    file = write(tmp_path / "models.config", f'name: "a" base_path: "{base}"')

    async def test(worker: Follower) -> None:
        assert (worker.has("a"), worker.has("beside")) == (["2"], ["1"])
        write(file, f'name: "b" base_path: "{base}" model_version_policy {{ all {{}} }} version_labels {{ key: "old" value: 1 }}')
        await until(lambda: worker.has("a") == [] and worker.has("b") == ["1", "2"])
        await until(lambda: worker.gateway.labels("b") == {"old": "1"})
        write(file, f'name: "a" base_path: "{base}"')
        await until(lambda: worker.has("a") == ["2"] and worker.has("b") == [])
        assert worker.has("beside") == ["1"]

    with_follower(test, tmp_path / "beside", file=str(file), listed=read_models(str(file)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model_config_list {", "Error parsing text-format"),
        ('model_config_list { config { name: "a" base_path: "a" } }', "to have an absolute path or URI"),
        ("", "no such"),
    ],
)
def test_a_bad_file_leaves_what_is_served(base: Path, tmp_path: Path, content: str, message: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once, and read again until it is good. A file that is away is bad, too."""
    file = write(tmp_path / "models.config", f'name: "a" base_path: "{base}"')

    async def test(worker: Follower) -> None:
        if content:
            put(file, content)
        else:
            shutil.move(file, tmp_path / "away")
        await until(lambda: "the list of models is not applied" in caplog.text)
        await asyncio.sleep(0.02)
        assert caplog.text.lower().count(message.lower()) == 1
        assert worker.has("a") == ["2"]
        write(file, f'name: "b" base_path: "{base}"')
        await until(lambda: worker.has("b") == ["2"] and worker.has("a") == [])

    with caplog.at_level(logging.INFO, "dragoman.models"):
        with_follower(test, file=str(file), listed=read_models(str(file)))


def test_a_file_whose_label_cannot_be_given_yet_is_applied_later(base: Path, tmp_path: Path) -> None:
    """Once the version is there."""
    file = write(tmp_path / "models.config", f'name: "a" base_path: "{base}"')

    async def test(worker: Follower) -> None:
        write(file, f'name: "a" base_path: "{base}" version_labels {{ key: "next" value: 3 }}')
        put(base / "3" / "model.onnx")
        await until(lambda: worker.gateway.labels("a") == {"next": "3"})

    with_follower(test, file=str(file), listed=read_models(str(file)), every_s=0.002)


def test_workers_that_read_the_same_file_agree(base: Path, tmp_path: Path) -> None:
    """Each reads for itself; the first to see a change tells the others."""
    place = tmp_path / "place"
    place.mkdir()
    file = write(tmp_path / "models.config", f'name: "a" base_path: "{base}"')

    async def test(workers: list[Follower]) -> None:
        for version in ("1", "2", "1"):
            write(file, f'name: "a" base_path: "{base}" model_version_policy {{ specific {{ versions: {version} }} }}')
            await until(lambda version=version: [worker.has("a") for worker in workers] == [[version]] * 2)  # type: ignore[misc] # a default

    with_followers(place, 2, test, file=str(file), listed=read_models(str(file)))
