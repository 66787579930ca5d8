"""Addresses of places for tracking records, and the settings that name them: what is taken, what is refused, who may name what."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.fetch import FetchPolicy
from dragoman.serving.live_settings import LiveSettings
from dragoman.serving.records.places import parse
from dragoman.serving.records.settings import RecordSettings, Wanted
from dragoman.serving.records.sinks import Sinks, check_place


@pytest.mark.parametrize(
    ("url", "kind", "shown"),
    [
        ("http://u:secret@h:1/in?key=secret", "http", "http://h:1/in"),
        ("https://h/in", "http", "https://h/in"),
        ("kafka://u:secret@h:1,i:2/topic?sasl=PLAIN", "kafka", "kafka://h:1,i:2/topic"),
        ("/var/r.jsonl", "jsonl", "/var/r.jsonl"),
        ("file:///var/a%20b.parquet", "parquet", "/var/a b.parquet"),
    ],
)
def test_addresses(url: str, kind: str, shown: str) -> None:
    """Each kind, and how it is shown without its secrets."""
    place = parse(url)
    assert (place.kind, place.shown) == (kind, shown)
    assert "secret" not in repr(place)


def test_options_of_files() -> None:
    """Size and number of the files that are put aside; a relative file is one of this folder."""
    place = parse("r.jsonl?max_mb=2&keep=0")
    assert (place.max_bytes, place.keep, place.path) == (2 << 20, 0, Path.cwd() / "r.jsonl")


@pytest.mark.parametrize(
    "url",
    ["", "r.txt", "ftp://h/x", "kafka://h", "kafka:///t", "kafka://h/a/b", "file://host/r.jsonl", "http://", "http://[", "r.jsonl?max_mb=0",
     "r.jsonl?keep=many", "r.jsonl?what=1", "a\0.jsonl", "http://h/" + "x" * 3000, "r.jsonl?keep=99999999999999999999"],
)  # fmt: skip
def test_what_is_no_address(url: str) -> None:
    """Every one is refused in words."""
    with pytest.raises(ServingError) as caught:
        parse(url)
    assert caught.value.kind is Kind.INVALID_INPUT
    assert len(caught.value.message) < 600


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is named with its extra, at the start."""
    for package in ("aiokafka", "pyarrow"):
        monkeypatch.setitem(sys.modules, package, None)
    for url, extra in (("kafka://h/t", "kafka"), ("r.parquet", "parquet")):
        with pytest.raises(ServingError, match=rf"pip install 'dragoman\[{extra}\]'"):
            check_place(url, {})
    check_place("r.jsonl", {})


@pytest.mark.parametrize("url", ["kafka://h/a,b", "kafka://h/t?out=x", "kafka://h/t?what=1", "kafka://u@h/t", "kafka://h/t%20t"])
def test_addresses_of_kafka_that_cannot_work(url: str) -> None:
    """Are refused before anything is recorded."""
    assert importlib.util.find_spec("aiokafka") is not None
    with pytest.raises(ServingError):
        check_place(url, {})


def test_a_password_from_the_environment() -> None:
    """Where the address has a user and no password."""
    check_place("kafka://u@h/t", {"DRAGOMAN_KAFKA_PASSWORD": "p"})


# --- settings ---


def settings(tmp_path: Path, url: str = "", live: LiveSettings | None = None) -> RecordSettings:
    return RecordSettings(live, url, folder=tmp_path / "records")


def refusal(found: RecordSettings, values: dict[str, Any]) -> ServingError:
    before = found.read()
    with pytest.raises(ServingError) as caught:
        found.update(values)
    assert found.read() == before
    return caught.value


def test_nothing_is_recorded_unless_asked(tmp_path: Path) -> None:
    """Without an address tracking is off, and cannot be turned on without one."""
    found = settings(tmp_path)
    assert found.read() == {"on": False, "url": "", "sample": 1, "batch": 1}
    assert found.wanted() == Wanted()
    assert "without a place" in refusal(found, {"on": True}).message


def test_an_address_at_start_turns_it_on(tmp_path: Path) -> None:
    """Where it said, without any allow-list; what is changed can be taken back with null."""
    found = settings(tmp_path, "http://u:secret@h/x")
    assert found.read() == {"on": True, "url": "http://h/x", "sample": 1, "batch": 1}
    assert found.wanted().trusted
    found.update({"url": "http://other/", "sample": 5, "batch": 7})
    assert not found.wanted().trusted
    assert found.update({"url": None, "sample": None}) == {"on": True, "url": "http://h/x", "sample": 1, "batch": 7}
    assert found.wanted().trusted
    found.update({"url": "http://other/"})
    found.update({"url": "http://h/x"})
    assert found.wanted().trusted, "the address as it is shown is the one of the start"


@pytest.mark.parametrize(
    "values",
    [{"on": "yes"}, {"on": 1}, {"sample": 0}, {"sample": True}, {"sample": 2.5}, {"batch": 10**9}, {"batch": "2"}, {"url": 5}, {"what": 1},
     {"url": "ftp://x"}],
)  # fmt: skip
def test_values_that_cannot_be_had(tmp_path: Path, values: dict[str, Any]) -> None:
    """Are refused, and nothing changes."""
    assert refusal(settings(tmp_path, "http://h/"), values).kind is Kind.INVALID_INPUT


@pytest.mark.parametrize("url", ["/etc/r.jsonl", "file:///etc/r.jsonl", "../r.jsonl", "a/r.jsonl", "r%2Fx.jsonl", "/etc/r.parquet"])
def test_clients_name_no_files_elsewhere(tmp_path: Path, url: str) -> None:
    """Only plain names, which are below the server's own folder."""
    assert refusal(settings(tmp_path), {"url": url}).kind is Kind.FORBIDDEN


def test_clients_name_files_in_the_servers_folder(tmp_path: Path) -> None:
    """With their options; the file that was named at start may be named again, too."""
    start = tmp_path / "start.jsonl"
    found = settings(tmp_path, str(start))
    found.update({"url": "mine.jsonl?max_mb=3"})
    place = found.wanted().place
    assert place is not None
    assert (place.path, place.max_bytes) == (tmp_path / "records" / "mine.jsonl", 3 << 20)
    found.update({"url": str(start)})
    place = found.wanted().place
    assert place is not None
    assert place.path == start


def test_workers_share_them(tmp_path: Path) -> None:
    """A change by one is heard by the other at its next look."""
    one, other = (settings(tmp_path, "http://h/", LiveSettings(tmp_path)) for _ in range(2))
    heard: list[bool] = []
    other.on_change(lambda: heard.append(other.wanted().place is not None))
    one.update({"on": False})
    assert other.read()["on"] is False
    assert heard == [True, False]
    assert json.loads((tmp_path / "settings.json").read_text())["records"]["on"] is False


def test_opening_parquet_checks_it(tmp_path: Path) -> None:
    """Every kind that can be named can be opened."""
    sinks = Sinks(FetchPolicy.parse([]))
    for url in ("http://h/", str(tmp_path / "r.jsonl"), str(tmp_path / "r.parquet"), "kafka://h/t"):
        place = parse(url)
        assert sinks(place, Wanted(place)) is not None
