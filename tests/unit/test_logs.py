"""The log of the server process: readable or JSON, with ids, safe against what clients send, and changeable while it runs."""

import io
import json
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import ServingError
from dragoman.server.logs import AccessLog, configure_logging, log_settings
from dragoman.server.trace import CURRENT, IDS_KEY, Ids

log = logging.getLogger("dragoman.models")


class Terminal(io.StringIO):
    """A stream that says that people read it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Tests share one process: whatever they set up goes."""
    root, ours, access = logging.getLogger(), logging.getLogger("dragoman"), logging.getLogger("dragoman.access")
    before = (list(root.handlers), root.level, ours.level, access.level)
    yield
    root.handlers[:], levels = before[0], before[1:]
    for logger, level in zip((root, ours, access), levels, strict=True):
        logger.setLevel(level)


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(stream)]


def test_pretty_records() -> None:
    """Time, level, part of the server and message on one line; without colours where nobody sees them."""
    stream = io.StringIO()
    configure_logging("info", "pretty", stream)
    log.warning("model '%s' is slow", "iris")
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d\d\d WARNING models: model 'iris' is slow\n", stream.getvalue())


def test_structured_records() -> None:
    """One JSON object per line, with the time in UTC."""
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    before = time.time()
    log.info("model '%s' is ready", "iris")
    (record,) = records(stream)
    assert {k: v for k, v in record.items() if k != "time"} == {
        "level": "info", "logger": "dragoman.models", "message": "model 'iris' is ready",
    }  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["time"])
    assert record["time"][:4] == time.strftime("%Y", time.gmtime(before))


@pytest.mark.parametrize(
    ("stream", "form", "structured"), [(io.StringIO, "auto", True), (Terminal, "auto", False), (Terminal, "json", True)]
)
def test_the_form_suits_who_reads(stream: type[io.StringIO], form: str, structured: bool) -> None:
    """`auto` is pretty on a terminal and JSON elsewhere."""
    target = stream()
    configure_logging("info", form, target)
    log.info("text")
    assert target.getvalue().startswith("{") is structured


@pytest.mark.parametrize(("no_colour", "coloured"), [(None, True), ("", True), ("1", False)])
def test_colours(monkeypatch: pytest.MonkeyPatch, no_colour: str | None, coloured: bool) -> None:
    """On a terminal, unless NO_COLOR says no."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_colour is not None:
        monkeypatch.setenv("NO_COLOR", no_colour)
    stream = Terminal()
    configure_logging("info", "pretty", stream)
    log.error("text")
    assert ("\x1b[" in stream.getvalue()) is coloured


@pytest.mark.parametrize(
    ("level", "expected"), [("debug", "dbg inf wrn err"), ("info", "inf wrn err"), ("warning", "wrn err"), ("error", "err")]
)
def test_levels(level: str, expected: str) -> None:
    """Ours from the level on; those of other packages from warnings on, as far as the level lets them."""
    stream = io.StringIO()
    configure_logging(level, "json", stream)
    for number, name in ((10, "dbg"), (20, "inf"), (30, "wrn"), (40, "err")):
        log.log(number, name)
        logging.getLogger("somebody.else").log(number, name)
    found = records(stream)
    assert " ".join(r["message"] for r in found if r["logger"] == "dragoman.models") == expected
    assert [r["message"] for r in found if r["logger"] == "somebody.else"] == [m for m in expected.split() if m in ("wrn", "err")]


def test_setting_up_again_replaces() -> None:
    """Not every record twice."""
    old, new = io.StringIO(), io.StringIO()
    configure_logging("debug", "json", old)
    configure_logging("info", "json", new)
    log.info("once")
    log.debug("never")
    assert (len(records(old)), len(records(new))) == (0, 1)


def test_records_know_the_request() -> None:
    """What is logged while a request is answered has its ids, in both forms."""
    structured, pretty = io.StringIO(), io.StringIO()
    token = CURRENT.set(Ids("abc", "0af7", "b7ad"))
    try:
        configure_logging("info", "json", structured)
        log.info("one")
        configure_logging("info", "pretty", pretty)
        log.info("two")
    finally:
        CURRENT.reset(token)
    log.info("three")
    (record,) = records(structured)
    assert (record["request_id"], record["trace_id"]) == ("abc", "0af7")
    first, second = lines(pretty)
    assert first.endswith(" INFO    models: two request_id=abc trace_id=0af7")
    assert second.endswith(" models: three")


def failing() -> None:
    raise ValueError("first line\nsecond \x1b[31m line")


@pytest.mark.parametrize("form", ["json", "pretty"])
def test_tracebacks(form: str) -> None:
    """Are in the log whole, and cannot steer a terminal."""
    stream = io.StringIO()
    configure_logging("info", form, stream)
    try:
        failing()
    except ValueError:
        log.exception("it failed")
    assert "\x1b" not in stream.getvalue()
    text = records(stream)[0]["exception"] if form == "json" else stream.getvalue()
    assert "Traceback (most recent call last):\n" in text
    assert "in failing\n" in text
    assert "second" in text


@given(st.text(max_size=40))
def test_no_message_makes_a_second_line(text: str) -> None:
    """Names and values that clients send are in messages: they stay within their record, in both forms."""
    for form in ("json", "pretty"):
        stream = io.StringIO()
        configure_logging("info", form, stream)
        log.warning("model '%s'", text)
        written = stream.getvalue()
        assert written.count("\n") == 1
        assert all(c.isprintable() or ord(c) >= 160 for c in written[:-1])
    configure_logging("info", "json", stream := io.StringIO())
    log.warning("%s", text)
    assert json.loads(stream.getvalue())["message"] == text


def test_settings_take_effect() -> None:
    """A level that is switched off is not written, and written again when it is on."""
    stream = io.StringIO()
    settings = configure_logging("info", "json", stream)
    assert log_settings() is settings
    log.info("1")
    settings.update({"log_info": False})
    log.info("2")
    settings.update({"log_info": True, "log_error": False})
    log.info("3")
    log.error("4")
    settings.update({"log_verbose_level": 1})
    log.debug("5")
    assert [r["message"] for r in records(stream)] == ["1", "3", "5"]


def test_the_format_of_times_can_be_switched() -> None:
    """ISO8601 and back."""
    stream = io.StringIO()
    settings = configure_logging("info", "pretty", stream)
    settings.update({"log_format": "ISO8601"})
    log.info("one")
    settings.update({"log_format": "default"})
    log.info("two")
    first, second = lines(stream)
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO", first)
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} INFO", second)


def test_in_a_program_with_its_own_log_settings_are_fixed() -> None:
    """Where nobody called `configure_logging`, the settings say so."""
    root = logging.getLogger()
    root.handlers[:] = []
    with pytest.raises(ServingError, match="inside a program"):
        log_settings().update({"log_info": False})


def access(form: str, scope: dict[str, Any] | None, status: int = 200) -> io.StringIO:
    stream = io.StringIO()
    configure_logging("error", form, stream)
    AccessLog()(scope, status, 215, time.perf_counter_ns())
    return stream


def test_one_access_record_per_request() -> None:
    """Whatever the level: who asked for what, and what came of it."""
    scope = {
        "type": "http", "method": "POST", "path": "/v2/models/my iris/infer", "raw_path": b"/v2/models/my%20iris/infer",
        "query_string": b"api_key=secret", "client": ("10.0.0.7", 5000), IDS_KEY: Ids("abc", "0af7", "b7ad"),
    }  # fmt: skip
    (record,) = records(access("json", scope))
    assert record.pop("ms") >= 0
    assert record.pop("time")
    assert record.pop("message").startswith("10.0.0.7 POST /v2/models/my%20iris/infer 200 215 B ")
    assert record == {
        "level": "info", "logger": "dragoman.access", "client": "10.0.0.7", "method": "POST", "path": "/v2/models/my%20iris/infer",
        "status": 200, "bytes": 215, "request_id": "abc", "trace_id": "0af7", "model": "my iris",
    }  # fmt: skip
    (line,) = lines(access("pretty", scope))
    assert re.search(
        r" INFO    access: 10.0.0.7 POST /v2/models/my%20iris/infer 200 215 B [0-9.]+ ms request_id=abc trace_id=0af7 model=my iris$", line
    )
    assert "secret" not in line


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/models/iris:predict", "iris"),
        ("/v1/models/iris/versions/2:predict", "iris"),
        ("/v2/models/iris/versions/1/infer", "iris"),
        ("/v2/repository/models/iris/load", "iris"),
        ("/v2/health/live", None),
        ("/metrics", None),
    ],
)
def test_the_model_is_in_the_record(path: str, model: str | None) -> None:
    """As far as the path names one."""
    scope = {"type": "http", "method": "GET", "path": path, "client": None}
    (record,) = records(access("json", scope))
    assert record.get("model") == model
    assert (record["client"], record["path"]) == ("-", path)


def test_a_request_that_could_not_be_read_is_in_the_log() -> None:
    """With what is known of it: the answer."""
    (record,) = records(access("json", None, 400))
    assert (record["status"], record["method"], record["path"], record["client"]) == (400, "-", "-", "-")


@given(st.text(max_size=60), st.binary(max_size=60))
def test_no_path_makes_a_second_line(path: str, raw: bytes) -> None:
    """Paths are what clients like to play with."""
    scope = {"type": "http", "method": "GET", "path": f"/models/{path}", "raw_path": b"/" + raw, "client": ("::1", 1)}
    for form in ("json", "pretty"):
        assert access(form, scope).getvalue().count("\n") == 1
        (line,) = access(form, scope).getvalue()[:-1].split("\n")
        assert "\x1b" not in line


def test_the_access_log_can_be_silenced_by_nobody() -> None:
    """Clients that change levels do not switch off the record of who changed them."""
    stream = io.StringIO()
    settings = configure_logging("info", "json", stream)
    settings.update({"log_info": False, "log_warning": False, "log_error": False})
    AccessLog()(None, 200, 0, time.perf_counter_ns())
    assert len(records(stream)) == 1
