"""Settings that workers share: what one changes all have, whole and in order, and a broken file breaks nobody."""

import json
import multiprocessing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dragoman.serving.live_settings import LiveSettings, Section


class Heard:
    """Joins a section and remembers what it was told."""

    def __init__(self, live: LiveSettings, section: str = "log") -> None:
        self.told: list[Mapping[str, Any]] = []
        live.join(section, self.told.append)


def put(live: LiveSettings, section: str = "log", **values: Any) -> None:
    live.update(section, lambda before: {**before, **values})


def test_a_section_begins_empty() -> None:
    """Whoever joins is told at once what there is."""
    assert Heard(LiveSettings()).told == [{}]


@pytest.mark.parametrize("shared", [False, True])
def test_a_change_is_told_at_once(tmp_path: Path, shared: bool) -> None:
    """In the worker that changes, its own section hears of it and no other does."""
    live = LiveSettings(tmp_path if shared else None)
    log, trace = Heard(live), Heard(live, "trace")
    put(live, a=1)
    put(live, b=2)
    assert log.told == [{}, {"a": 1}, {"a": 1, "b": 2}]
    assert trace.told == [{}]


def test_another_worker_hears_of_it_when_it_looks(tmp_path: Path) -> None:
    """Once each, and not again when nothing changed."""
    one, other = LiveSettings(tmp_path), LiveSettings(tmp_path)
    heard = Heard(other)
    put(one, a=1)
    other.refresh()
    other.refresh()
    assert heard.told == [{}, {"a": 1}]


def test_changes_in_quick_succession_are_all_seen(tmp_path: Path) -> None:
    """Also within one tick of the file system's clock a look after a change finds it."""
    one, other = LiveSettings(tmp_path), LiveSettings(tmp_path)
    heard = Heard(other)
    for value in range(50):
        put(one, a=value)
        other.refresh()
        assert heard.told[-1] == {"a": value}


def test_a_worker_that_starts_later_has_what_was_set(tmp_path: Path) -> None:
    """A restarted worker begins with what was changed before it started."""
    put(LiveSettings(tmp_path), a=1)
    assert Heard(LiveSettings(tmp_path)).told[-1] == {"a": 1}


def test_a_change_is_made_to_what_others_made_of_it(tmp_path: Path) -> None:
    """No worker overwrites what it has not seen yet."""
    one, other = LiveSettings(tmp_path), LiveSettings(tmp_path)
    heard = Heard(one)
    put(other, b=2)
    put(one, a=1)
    assert heard.told[-1] == {"a": 1, "b": 2}


def test_a_change_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    """When `change` raises, everything stays, and the next change goes through."""
    live = LiveSettings(tmp_path)
    heard = Heard(live)

    def refuse(before: Section) -> Section:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        live.update("log", refuse)
    put(live, a=1)
    assert heard.told == [{}, {"a": 1}]


def test_no_change_is_no_news() -> None:
    """Setting what is set tells nobody."""
    live = LiveSettings()
    heard = Heard(live)
    put(live, a=1)
    put(live, a=1)
    assert heard.told == [{}, {"a": 1}]


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '{"log": 5}', '{"log": [1], "trace": {}}', "\x00\x00"])
def test_a_broken_file_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    """Whatever is in it, a look at it raises nothing, and the next change repairs it."""
    (tmp_path / "settings.json").write_text(content)
    live = LiveSettings(tmp_path)
    heard = Heard(live)
    assert heard.told == [{}]
    put(live, a=1)
    assert heard.told[-1] == {"a": 1}
    assert json.loads((tmp_path / "settings.json").read_text())["log"] == {"a": 1}


def count(directory: Path, times: int) -> None:
    live = LiveSettings(directory)
    for _ in range(times):
        live.update("count", lambda before: {"n": before.get("n", 0) + 1})


def test_workers_that_change_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    """Four processes add one fifty times each: two hundred."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=count, args=(tmp_path, 50)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert Heard(LiveSettings(tmp_path), "count").told[-1] == {"n": 200}
