"""Triton's logging settings: what is accepted takes effect, in every worker, and the rest is refused with a reason."""

import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.live_settings import LiveSettings
from dragoman.serving.log_settings import ACCESS, LogSettings

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR, "critical": logging.CRITICAL}
START = {
    "log_file": "", "log_info": True, "log_warning": True, "log_error": True, "log_verbose_level": 0, "log_format": "default",
}  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=3,
)


def passes(settings: LogSettings, level: str, name: str = "dragoman.models") -> bool:
    record = logging.LogRecord(name, LEVELS[level], "", 0, "text", None, None)
    return settings.filter(record) and LEVELS[level] >= settings.lowest


def passing(settings: LogSettings) -> list[str]:
    return [level for level in LEVELS if passes(settings, level)]


def refused(settings: LogSettings, values: dict[str, Any]) -> str:
    """The reason why these values are refused; that nothing changed is checked."""
    before = settings.read()
    with pytest.raises(ServingError) as caught:
        settings.update(values)
    assert caught.value.kind is Kind.INVALID_INPUT
    assert settings.read() == before
    return caught.value.message


def test_the_settings_at_start() -> None:
    """All of Triton's, by its names."""
    assert LogSettings().read() == START


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error", "critical"]),
        ("info", ["info", "warning", "error", "critical"]),
        ("warning", ["warning", "error", "critical"]),
        ("error", ["error", "critical"]),
    ],
)
def test_the_level_at_start_is_what_they_say(level: str, expected: list[str]) -> None:
    """`--log-level` and the settings agree, and null brings them back to it."""
    settings = LogSettings(level)
    assert passing(settings) == expected
    settings.update({"log_info": False, "log_warning": False, "log_error": False, "log_verbose_level": 0})
    assert passing(settings) == []
    settings.update(dict.fromkeys(START))
    assert passing(settings) == expected


@pytest.mark.parametrize("switch", ["log_info", "log_warning", "log_error"])
def test_each_switch_is_for_its_level(switch: str) -> None:
    """One level goes, the others stay."""
    settings = LogSettings()
    assert settings.update({switch: False}) == {**START, switch: False}
    gone = {"error", "critical"} if switch == "log_error" else {switch.removeprefix("log_")}
    assert passing(settings) == [level for level in ("info", "warning", "error", "critical") if level not in gone]
    settings.update({switch: True})
    assert passing(settings) == ["info", "warning", "error", "critical"]


def test_verbose_is_debug() -> None:
    """Any level above 0 shows debug records, and is reported as it was set."""
    settings = LogSettings()
    assert settings.update({"log_verbose_level": 3})["log_verbose_level"] == 3
    assert passes(settings, "debug")
    settings.update({"log_verbose_level": 0})
    assert not passes(settings, "debug")


def test_the_access_log_is_no_matter_of_levels() -> None:
    """It is switched on at start, and stays on."""
    settings = LogSettings("error")
    record = logging.LogRecord(ACCESS, logging.INFO, "", 0, "text", None, None)
    assert settings.filter(record)


def test_the_format_is_switched() -> None:
    """What the formatter asks follows the setting."""
    settings = LogSettings()
    assert not settings.iso_times
    settings.update({"log_format": "ISO8601"})
    assert settings.iso_times


def test_changes_are_told() -> None:
    """Whoever sets levels is told at once and after each change."""
    settings = LogSettings()
    told: list[int] = []
    settings.on_change(lambda: told.append(settings.lowest))
    settings.update({"log_verbose_level": 1})
    settings.update({"log_verbose_level": None, "log_info": False})
    assert told == [logging.INFO, logging.DEBUG, logging.WARNING]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"log_info": "true"}, "'log_info' must be true or false, not 'true'"),
        ({"log_warning": 1}, "'log_warning' must be true or false, not 1"),
        ({"log_verbose_level": -1}, "'log_verbose_level' must be a whole number from 0 to 4294967295, not -1"),
        ({"log_verbose_level": 2**32}, "not 4294967296"),
        ({"log_verbose_level": True}, "not True"),
        ({"log_verbose_level": "1"}, "not '1'"),
        ({"log_verbose_level": 1.5}, "not 1.5"),
        ({"log_format": "json"}, "'log_format' must be one of default, ISO8601, not 'json'"),
        ({"log_format": ["default"]}, "not ['default']"),
        ({"log_file": "/etc/passwd"}, "'log_file' cannot be changed"),
        ({"log_file": 1}, "'log_file' cannot be changed"),
        ({"log_level": "info"}, "there is no log setting 'log_level'"),
        ({"log_info": False, "log_format": "xml"}, "not 'xml'"),
        ({"log_verbose_level": 10**5000}, "not a very large int"),
        ({"log_info": "x" * 1000}, "not 'xxx"),
        ({"x" * 1000: 1}, "there is no log setting 'xxx"),
    ],
)
def test_what_cannot_be_had_is_refused(values: dict[str, Any], reason: str) -> None:
    """With the name of the setting, what is expected and what came; nothing is changed, not even what was right."""
    message = refused(LogSettings(), values)
    assert reason in message
    assert len(message) < 400


def test_the_file_may_be_set_to_what_it_is() -> None:
    """Clients send back what they have read."""
    settings = LogSettings()
    assert settings.update(settings.read()) == START


def test_structured_logs_have_one_format() -> None:
    """JSON says ISO8601, and another format would have no effect."""
    settings = LogSettings(structured=True)
    assert settings.read()["log_format"] == "ISO8601"
    assert "JSON" in refused(settings, {"log_format": "default"})
    assert settings.update({"log_format": "ISO8601", "log_info": False})["log_info"] is False


def test_in_a_program_with_its_own_log_nothing_changes() -> None:
    """The reason is told; reading, and setting what is set, are fine."""
    settings = LogSettings(fixed="the program does that")
    assert refused(settings, {"log_info": False}) == "the program does that"
    assert refused(settings, {"unknown": 1}) == "the program does that"
    assert settings.update({"log_info": True, "log_file": None}) == START


def test_workers_agree(tmp_path: Path) -> None:
    """What one worker is told, another obeys once it has looked, and reports at once."""
    one, other = LogSettings(), LogSettings()
    lives = [LiveSettings(tmp_path), LiveSettings(tmp_path)]
    one.share(lives[0])
    other.share(lives[1])
    one.update({"log_info": False})
    lives[1].refresh()
    assert not passes(other, "info")
    other.update({"log_warning": False})
    assert one.read() == other.read() == {**START, "log_info": False, "log_warning": False}


def test_a_worker_that_joins_late_obeys(tmp_path: Path) -> None:
    """A restarted worker logs as the others do."""
    one = LogSettings()
    one.share(LiveSettings(tmp_path))
    one.update({"log_verbose_level": 1})
    late = LogSettings()
    late.share(LiveSettings(tmp_path))
    assert passes(late, "debug")


@given(st.dictionaries(st.sampled_from(list(START)) | st.text(max_size=10), JSON, max_size=4))
def test_any_values_are_taken_or_refused(values: dict[str, Any]) -> None:
    """Nothing but a ServingError comes of hostile values, and what is accepted is what is reported."""
    settings = LogSettings()
    try:
        expected = settings.update(values) and {**START, **{name: value for name, value in values.items() if value is not None}}
    except ServingError:
        expected = START
    assert settings.read() == expected
