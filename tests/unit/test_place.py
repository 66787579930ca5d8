"""The names of folders that records of jobs and predictions hold."""

from pathlib import Path

import pytest

from dragoman.serving.place import FILE, make_place, read_place


def test_a_place_keeps_its_name(tmp_path: Path) -> None:
    """It has none at first, then always the same; another folder has another."""
    here, there = tmp_path / "here", tmp_path / "there"
    assert read_place(here) == ""
    name = make_place(here)
    assert name
    assert read_place(here) == make_place(here) == name
    assert make_place(there) != name
    assert [path.name for path in here.iterdir()] == [FILE]


@pytest.mark.parametrize("damaged", [b"", b"not a name", b"\xff" * 32])
def test_a_damaged_name_is_replaced(tmp_path: Path, damaged: bytes) -> None:
    """What a failure of the machine has left is no name that two folders might share."""
    (tmp_path / FILE).write_bytes(damaged)
    assert read_place(tmp_path) == ""
    assert read_place(tmp_path) == "" != make_place(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
