"""Owners: alive as long as their process is, dead at once when it is gone, however it went; and the store that opens late."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.late_store import LateStore
from dragoman.serving.owners import Owner, wake
from dragoman.store import Store
from tests.fakes_store import FakeStore
from tests.servables import run

_HOLD = (
    "import sys; from pathlib import Path; from dragoman.serving.owners import Owner;"
    " owner = Owner(Path(sys.argv[1])); print(owner.name, flush=True); input()"
)


def test_a_living_owner_is_not_dead(tmp_path: Path) -> None:
    """Seen by itself and by another in the same process."""
    one, other = Owner(tmp_path / "o"), Owner(tmp_path / "o")
    assert one.name != other.name
    assert one.dead([one.name, other.name]) == other.dead([one.name, other.name]) == []
    one.close()
    assert other.dead([one.name, other.name]) == [one.name]
    other.close()


def test_a_killed_process_is_dead_at_once(tmp_path: Path) -> None:
    """While it lives it is not; after kill -9 it is, and its lock file is gone."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        mine = Owner(tmp_path)
        try:
            assert mine.dead([name]) == []
            process.send_signal(signal.SIGKILL)
            process.wait(10)
            assert mine.dead([name]) == [name]
            assert mine.dead([name]) == [name]
            assert sorted(p.suffix for p in tmp_path.iterdir()) == ["", ".lock"]
        finally:
            mine.close()


def test_waking_an_owner(tmp_path: Path) -> None:
    """Each call is heard once, however fast they come; owners that are gone, or are none, are no error."""
    one, other = Owner(tmp_path), Owner(tmp_path)
    assert not one.heard()
    for _ in range(3):
        wake(tmp_path, one.name)
        assert one.heard()
        assert not one.heard()
    assert not other.heard()
    other.close()
    for name in (other.name, "", "../x", f"{'0' * 32}.../x"):
        wake(tmp_path, name)
    assert sorted(p.suffix for p in tmp_path.iterdir()) == ["", ".lock"]
    one.close()


def test_children_do_not_keep_an_owner_alive(tmp_path: Path) -> None:
    """A model process that outlives its server does not inherit the lock."""
    one, other = Owner(tmp_path), Owner(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False):
        one.close()
        assert other.dead([one.name]) == [one.name]
    other.close()


def test_owners_of_other_places_are_never_judged(tmp_path: Path) -> None:
    """Another data directory, a name of nobody, a name that would lead elsewhere: for them leases decide."""
    mine, elsewhere = Owner(tmp_path / "a"), Owner(tmp_path / "b")
    names = [elsewhere.name, "", "x", f"{'0' * 32}.{'0' * 32}", f"{mine.name[:32]}.../../b/x", mine.name + "\n"]
    elsewhere.close()
    assert mine.dead(names) == []
    mine.close()


def test_what_the_dead_left_is_cleared(tmp_path: Path) -> None:
    """Lock files of owners without predictions go when the next one starts; a damaged folder is mended."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    (tmp_path / "place").write_text("rubbish")
    mine = Owner(tmp_path)
    assert (tmp_path / "place").read_text() == mine.name[:32]
    assert len(list(tmp_path.glob("*.lock"))) == 1
    mine.close()
    assert not list(tmp_path.glob("*.lock"))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """OSError, for the caller to put into words."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Owner(tmp_path / "file" / "below")


# --- the store that opens late ---


def test_it_is_opened_once_by_whoever_comes_first() -> None:
    """Many at a time share one; asking whether there is one makes none."""

    async def scenario() -> None:
        opened = 0
        there = False

        async def opener() -> Store:
            nonlocal opened
            opened += 1
            await asyncio.sleep(0)
            return FakeStore()

        late = LateStore(opener, lambda: there)
        assert await late.existing() is None
        assert late.opened is None
        stores = await asyncio.gather(*(late.get() for _ in range(10)))
        assert opened == 1
        assert all(store is stores[0] for store in stores)
        assert await late.existing() is stores[0]
        await late.close()
        assert isinstance(stores[0], FakeStore)
        assert stores[0].closed
        with pytest.raises(ServingError, match="its database is closed"):
            await late.get()

    run(scenario)


def test_opening_that_failed_is_tried_again() -> None:
    """A database that cannot be opened now may be later; one who gives up does not spoil it for the next."""

    async def scenario() -> None:
        failures = [ServingError(Kind.UNAVAILABLE, "locked")]

        async def opener() -> Store:
            if failures:
                raise failures.pop()
            return FakeStore()

        late = LateStore(opener, lambda: True)
        with pytest.raises(ServingError, match="locked"):
            await late.existing()
        impatient = asyncio.ensure_future(late.get())
        impatient.cancel()
        await asyncio.gather(impatient, return_exceptions=True)
        assert await late.get() is not None
        await late.close()

    run(scenario)
