"""What changes on disk while the server runs: versions that come, grow, change, fail and go, and folders that vanish for a while."""

import asyncio
import logging
import shutil
from pathlib import Path

import pytest

from dragoman.core.errors import ServingError
from dragoman.core.lifecycle import Policy, PolicyKind, State
from dragoman.serving.model_config import policy_of
from dragoman.serving.reading import Defaults
from tests.followers import Follower, put, same_times, until, with_follower

READY, FAILED, GONE, LOADING = State.READY, State.FAILED, State.GONE, State.LOADING


def states(worker: Follower, name: str = "m") -> dict[str, State]:
    return {status.version: status.state for status in worker.gateway.statuses(name)}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The base path of a model with version 1."""
    put(tmp_path / "m" / "1" / "model.onnx")
    return tmp_path / "m"


def test_a_new_version_is_loaded_before_the_old_one_is_unloaded(base: Path) -> None:
    """It counts once it looks the same twice; until it is ready the old one answers."""

    async def test(worker: Follower) -> None:
        assert worker.has() == ["1"]
        put(base / "2" / "model.onnx")
        gate = worker.opener.hold_version("2")
        await worker.polling.look()
        assert worker.opener.running == 0
        await worker.polling.look()
        await until(lambda: worker.opener.running == 1)
        assert worker.has() == ["1"]
        gate.set()
        await worker.settle()
        assert worker.has() == ["2"]
        await until(lambda: states(worker) == {"2": READY, "1": GONE})

    with_follower(test, base)


def test_a_copy_that_goes_on_is_not_loaded(base: Path) -> None:
    """Every look sees another file, so nothing is tried; a folder that is there before its files is no version yet."""

    async def test(worker: Follower) -> None:
        (base / "2").mkdir()
        await worker.look(1)
        for length in range(5):
            put(base / "2" / "model.onnx", "a model"[:length])
            await worker.look(1)
        assert [version for version, _ in worker.opener.begun] == ["1"]
        assert (worker.has(), states(worker)) == (["1"], {"1": READY})
        await worker.look(1)
        assert worker.has() == ["2"]

    with_follower(test, base)


def test_a_version_that_cannot_be_read_fails_and_the_old_one_serves(base: Path) -> None:
    """With the reason in the status; when it is whole it is served."""

    async def test(worker: Follower) -> None:
        put(base / "2" / "notes.txt")
        await worker.look()
        (bad, good) = worker.gateway.statuses("m")
        assert (bad.version, bad.state, good.state) == ("2", FAILED, READY)
        assert "no runtime knows what lies in" in bad.reason
        assert worker.gateway.find("m").version == "1"
        put(base / "2" / "model.onnx")
        await worker.look()
        assert worker.has() == ["2"]

    with_follower(test, base)


def test_a_version_that_does_not_load_leaves_the_old_one(base: Path) -> None:
    """And is forgotten when its folder goes."""

    async def test(worker: Follower) -> None:
        worker.opener.fails["2"] = RuntimeError("not a model")
        put(base / "2" / "model.onnx")
        await worker.look()
        assert states(worker) == {"2": FAILED, "1": READY}
        shutil.rmtree(base / "2")
        await worker.look()
        assert states(worker) == {"1": READY}
        assert [version for version, _ in worker.opener.begun] == ["1", "2"]

    with_follower(test, base)


def test_a_version_that_goes_makes_place_for_the_next_best(base: Path) -> None:
    """And when it comes again it is loaded again."""

    async def test(worker: Follower) -> None:
        put(base / "2" / "model.onnx")
        await worker.look()
        shutil.move(base / "2", base / "away")
        await worker.look()
        assert worker.has() == ["1"]
        shutil.move(base / "away", base / "2")
        await worker.look()
        assert worker.has() == ["2"]
        assert [version for version, _ in worker.opener.begun] == ["1", "2", "1", "2"]

    with_follower(test, base)


def test_a_version_that_changes_in_place_is_loaded_beside_the_old_one(base: Path) -> None:
    """A broken change leaves the old content answering."""

    async def test(worker: Follower) -> None:
        old = worker.gateway.find("m")
        worker.opener.fails["1"] = RuntimeError("cut short")
        put(base / "1" / "model.onnx", "another")
        await worker.look()
        assert worker.gateway.find("m") is old
        del worker.opener.fails["1"]
        put(base / "1" / "model.onnx", "yet another")
        await worker.look()
        assert worker.gateway.find("m") is not old
        await until(lambda: len(worker.opener.open_now()) == 1)

    with_follower(test, base)


def test_a_link_that_is_switched_is_another_model(tmp_path: Path) -> None:
    """Even where the new files have the sizes and times of the old ones."""
    one, two = put(tmp_path / "one" / "1" / "model.onnx", "aaa"), put(tmp_path / "two" / "1" / "model.onnx", "bbb")
    same_times(one, two)
    link = tmp_path / "m"
    link.symlink_to(tmp_path / "one")

    async def test(worker: Follower) -> None:
        old = worker.gateway.find("m")
        link.unlink()
        await worker.look()  # between the two steps of whoever switches it
        assert worker.gateway.find("m") is old
        link.symlink_to(tmp_path / "two")
        await worker.look()
        assert worker.gateway.find("m") is not old

    with_follower(test, link)


def test_a_place_that_is_gone_keeps_what_it_had(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A disk that is away for a while is no reason to unload; a folder without a version is. Both are logged once."""

    async def test(worker: Follower) -> None:
        shutil.move(base, base.with_name("away"))
        await worker.look(4)
        assert worker.has() == ["1"]
        assert caplog.text.count("cannot be read: there is no") == 1
        put(base / "notes.txt")
        await worker.look(4)
        assert worker.has() == []
        assert caplog.text.count("model 'm' is unloaded: ") == 1
        with pytest.raises(ServingError, match="unloaded"):
            worker.gateway.find("m")
        put(base / "7" / "model.onnx")
        await worker.look()
        assert worker.has() == ["7"]

    with caplog.at_level(logging.WARNING, "dragoman.models"):
        with_follower(test, f"m={base}")


def test_a_model_that_is_not_there_yet_is_shown_and_served_later(tmp_path: Path) -> None:
    """The status says that it waits; nobody is told of a failure."""
    (tmp_path / "m").mkdir()

    async def test(worker: Follower) -> None:
        (status,) = worker.gateway.statuses("m")
        assert (status.version, status.state, status.waiting) == ("", LOADING, True)
        assert not worker.gateway.ready()
        put(tmp_path / "m" / "3" / "model.onnx")
        await until(lambda: states(worker) == {"3": READY})

    with_follower(test, tmp_path / "m", every_s=0.002)


def test_looks_are_repeated_until_the_end(base: Path) -> None:
    """Without anybody who asks."""

    async def test(worker: Follower) -> None:
        for version in ("2", "3"):
            put(base / version / "model.onnx")
            await until(lambda version=version: worker.has() == [version])  # type: ignore[misc] # a lambda with a default

    with_follower(test, base, every_s=0.002)


def test_a_look_that_breaks_is_not_the_last(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong is logged; what was served goes on."""

    async def test(worker: Follower) -> None:
        worker.repository.discover = lambda: [][0]  # type: ignore[method-assign] # stands for a bug of ours
        await until(lambda: "the targets could not be looked at" in caplog.text)
        assert worker.has() == ["1"]
        del worker.repository.discover
        put(base / "2" / "model.onnx")
        await until(lambda: worker.has() == ["2"])

    with_follower(test, base, every_s=0.002)


@pytest.mark.parametrize(
    ("policy", "served"),
    [("latest", ["10"]), ("latest:2", ["9", "10"]), ("all", ["1", "9", "10"]), ("1,9", ["1", "9"]), ("1,7", ["1"])],
)
def test_policies(base: Path, policy: str, served: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """Versions compare as numbers; one that is named and is not there is logged and waited for."""
    for version in ("0009", "10"):
        put(base / version / "model.onnx")

    async def test(worker: Follower) -> None:
        assert worker.has() == served
        assert ("no folder of version 7" in caplog.text) == (policy == "1,7")
        if policy == "1,7":
            put(base / "7" / "model.onnx")
            await worker.look()
            assert worker.has() == ["1", "7"]

    with_follower(test, base, defaults=Defaults(policy=policy_of(policy)))


def test_a_policy_that_no_version_fits_waits(base: Path) -> None:
    """The others are not served in its place."""

    async def test(worker: Follower) -> None:
        assert worker.has() == []
        put(base / "4" / "model.onnx")
        await until(lambda: worker.has() == ["4"])

    with_follower(test, base, every_s=0.002, defaults=Defaults(policy=Policy(PolicyKind.SPECIFIC, versions=("4",))))


def test_one_bad_version_does_not_stop_the_others_of_a_policy(base: Path) -> None:
    """It has failed, they serve."""
    (base / "2").mkdir()

    async def test(worker: Follower) -> None:
        assert states(worker) == {"2": FAILED, "1": READY}

    with_follower(test, base, defaults=Defaults(policy=Policy(PolicyKind.ALL)))


def test_a_repository_is_looked_at_as_a_whole(tmp_path: Path) -> None:
    """Triton's poll mode: models that come, go, and have a configuration that is broken for a while."""
    for name in ("a", "b"):
        put(tmp_path / name / "1" / "model.onnx")
    put(tmp_path / "a" / "config.pbtxt", "max_batch_size: 4")

    async def test(worker: Follower) -> None:
        put(tmp_path / "c" / "1" / "model.onnx")
        shutil.rmtree(tmp_path / "b")
        put(tmp_path / "a" / "config.pbtxt", "max_batch_size: {")
        await worker.look()
        assert (worker.has("a"), worker.has("b"), worker.has("c")) == (["1"], [], ["1"])
        put(tmp_path / "a" / "config.pbtxt", "max_batch_size: 8")
        await worker.look()
        assert worker.gateway.find("a").spec.batch.max_size == 8

    with_follower(test, tmp_path)


def test_a_repository_that_is_away_keeps_its_models(tmp_path: Path) -> None:
    """All of them; one that is empty has none."""
    root = tmp_path / "models"
    for name in ("a", "b"):
        put(root / name / "1" / "model.onnx")

    async def test(worker: Follower) -> None:
        shutil.move(root, tmp_path / "away")
        await worker.look(3)
        assert (worker.has("a"), worker.has("b")) == (["1"], ["1"])
        root.mkdir()
        await worker.look(3)
        assert (worker.has("a"), worker.has("b")) == ([], [])

    with_follower(test, root)


def test_a_broken_model_that_goes_is_forgotten(tmp_path: Path) -> None:
    """The server is ready again when its folder has gone."""
    put(tmp_path / "a" / "1" / "model.onnx")
    put(tmp_path / "b" / "config.pbtxt", "max_batch_size: {")

    async def test(worker: Follower) -> None:
        assert [status.state for status in worker.gateway.statuses("b")] == [FAILED]
        shutil.rmtree(tmp_path / "b")
        await worker.look(1)
        assert worker.gateway.statuses("b") == []

    with_follower(test, tmp_path)


def test_what_was_unloaded_by_request_stays_unloaded(base: Path) -> None:
    """Whatever happens on disk, until somebody asks for it again."""

    async def test(worker: Follower) -> None:
        run = worker.registry.run
        await worker.registry.wish("m", lambda _: {}, run=run)
        put(base / "2" / "model.onnx")
        await worker.look()
        assert worker.has() == []
        await worker.registry.wish("m", lambda _: {"fixed": True}, run=run)
        await worker.settle()
        assert worker.has() == ["2"]

    with_follower(test, base)


def test_looks_that_overlap_wait_for_each_other(base: Path) -> None:
    """Two at a time would compare with what the other is about to change."""

    async def test(worker: Follower) -> None:
        put(base / "2" / "model.onnx")
        await asyncio.gather(*(worker.polling.look() for _ in range(5)))
        await worker.settle()
        assert [version for version, _ in worker.opener.begun] == ["1", "2"]

    with_follower(test, base)
