"""The server's own lines in the log of a job."""

import re
from pathlib import Path

from dragoman.core.jobs import ENDED
from dragoman.serving.jobs import log


def test_lines_have_the_time_and_stand_alone(tmp_path: Path) -> None:
    """Also after a program that ended in the middle of a line; a text of several lines is several lines."""
    log.say(tmp_path, "one\ntwo")
    with (tmp_path / log.LOG).open("a") as file:
        file.write("no end")
    log.say(tmp_path, "")
    log.say(tmp_path, "\udcff three")
    lines = log.read(tmp_path).split("\n")
    assert [line.partition(" UTC  ")[2] or line for line in lines[:2]] == ["one", "two"]
    assert lines[2] == "no end"
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC  ", line) for line in (*lines[:2], *lines[3:5]))
    assert lines[5:] == [""]


def test_a_log_is_read_whatever_it_holds(tmp_path: Path) -> None:
    """Before there is one it is empty; bytes that are no text are replaced."""
    assert log.read(tmp_path) == ""
    (tmp_path / log.LOG).write_bytes(b"\xff\xfe ok\n")
    assert log.read(tmp_path).endswith(" ok\n")


def test_a_log_is_for_this_user_alone(tmp_path: Path) -> None:
    """It may hold anything."""
    log.say(tmp_path, "x")
    assert (tmp_path / log.LOG).stat().st_mode & 0o777 == 0o600


def test_every_end_has_its_last_line() -> None:
    """The client follows a log until one of them comes."""
    assert log.LAST_LINES.keys() == ENDED
