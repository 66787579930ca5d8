"""The logs of deployments: lines, counting, bounds, and what of the server's log goes into them."""

import logging
from pathlib import Path

import pytest

from dragoman.serving.gradient.logs import Logs, attach, detach

ID, OTHER = "desaaaaaaaaaaaa", "desbbbbbbbbbbbb"


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    made = Logs(tmp_path)
    made.begin(ID)
    return made


def test_lines_are_counted_from_one(logs: Logs) -> None:
    """Each with its moment; a message of several lines is several."""
    logs.say(ID, "one\r\ntwo\u2028three")
    logs.say(ID, "")
    rows = logs.read(ID)
    assert [(row.line, row.message) for row in rows] == [(1, "one"), (2, "two"), (3, "three"), (4, "")]
    assert rows[0].timestamp.endswith("Z")
    assert [row.message for row in logs.read(ID, 1, 2)] == ["two", "three"]
    assert logs.read(ID, 9) == []


def test_only_what_was_begun_is_written(logs: Logs, tmp_path: Path) -> None:
    """No file appears for a name that merely looks like an id, and none of a deployment that is gone."""
    logs.say(OTHER, "hello")
    logs.remove(ID)
    logs.say(ID, "hello")
    assert list((tmp_path / "deployments").iterdir()) == []
    assert logs.read(ID) == []


def test_a_log_does_not_grow_for_ever(logs: Logs, tmp_path: Path) -> None:
    """The older half is dropped."""
    for number in range(1500):
        logs.say(ID, f"{number} " + "x" * 8000)
    size = sum(path.stat().st_size for path in (tmp_path / "deployments").iterdir())
    assert size < 9 << 20
    rows = logs.read(ID)
    assert rows[0].line == 1
    assert rows[-1].message.startswith("1499 ")
    logs.remove(ID)
    assert list((tmp_path / "deployments").iterdir()) == []


def test_what_the_server_logs_of_its_model(logs: Logs) -> None:
    """Prints of its process, and warnings that name it; nothing of others."""
    logs.begin(OTHER)
    models = logging.getLogger("dragoman.models")
    before = models.level
    models.setLevel(logging.INFO)
    handler = attach(logs)
    try:
        logging.getLogger(f"dragoman.models.{ID}").info("printed %d", 1)
        logging.getLogger("dragoman.models.iris").info("printed elsewhere")
        models.error("model '%s' version 1 failed to load: %s", ID, "it is spoilt")
        models.info("model '%s' version 1 is ready", ID)
        models.error("model 'iris' has stopped")
    finally:
        detach(handler)
        models.setLevel(before)
    logging.getLogger(f"dragoman.models.{ID}").error("after the end")
    assert [row.message for row in logs.read(ID)] == ["printed 1", f"model '{ID}' version 1 failed to load: it is spoilt"]
    assert logs.read(OTHER) == []
