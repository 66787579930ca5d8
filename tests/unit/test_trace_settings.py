"""Triton's trace settings: general ones and those of models, common to all workers; the rest is refused with a reason."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.live_settings import LiveSettings
from dragoman.serving.trace_settings import TraceSettings

START = {
    "trace_level": ["OFF"], "trace_rate": "1000", "trace_count": "-1", "log_frequency": "0",
    "trace_file": "trace.json", "trace_mode": "triton",
}  # fmt: skip
NESTED: list[Any] = []
for _ in range(100_000):
    NESTED = [NESTED]
SIMPLE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.lists(st.text(max_size=5), max_size=2)


def test_the_settings_at_start() -> None:
    """All of Triton's, by its names, as text: in general and for any model."""
    settings = TraceSettings()
    assert settings.read() == settings.read("iris") == START


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("trace_level", ["TIMESTAMPS"], ["TIMESTAMPS"]),
        ("trace_level", "TIMESTAMPS", ["TIMESTAMPS"]),
        ("trace_level", ["OFF"], ["OFF"]),
        ("trace_level", ["TIMESTAMPS", "TIMESTAMPS"], ["TIMESTAMPS"]),
        ("trace_rate", "1", "1"),
        ("trace_rate", 7, "7"),
        ("trace_rate", "0010", "10"),
        ("trace_count", "-1", "-1"),
        ("trace_count", "0", "0"),
        ("trace_count", "2147483647", "2147483647"),
        ("log_frequency", "10000", "10000"),
        ("trace_file", "my-trace_1.json", "my-trace_1.json"),
        ("trace_mode", "triton", "triton"),
    ],
)
def test_what_is_accepted_is_shown(name: str, value: Any, shown: Any) -> None:
    """One setting changes, the others stay; null takes it back."""
    settings = TraceSettings()
    assert settings.update({name: value}) == {**START, name: shown}
    assert settings.update({name: None}) == START


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"trace_level": ["TENSORS"]}, "'trace_level' must be OFF or TIMESTAMPS; tensors are not traced, not ['TENSORS']"),
        ({"trace_level": ["TIMESTAMPS", "TENSORS"]}, "tensors are not traced"),
        ({"trace_level": ["OFF", "TIMESTAMPS"]}, "either OFF or TIMESTAMPS"),
        ({"trace_level": []}, "must be OFF or TIMESTAMPS"),
        ({"trace_level": "timestamps"}, "must be OFF or TIMESTAMPS"),
        ({"trace_level": {"OFF": 1}}, "must be OFF or TIMESTAMPS"),
        ({"trace_level": [["OFF"]]}, "must be OFF or TIMESTAMPS"),
        ({"trace_rate": "0"}, "'trace_rate' must be a whole number from 1 to 4294967295, as text, not '0'"),
        ({"trace_rate": "-1"}, "from 1 to"),
        ({"trace_rate": "1.5"}, "a whole number"),
        ({"trace_rate": "\u0661"}, "a whole number"),
        ({"trace_rate": "9" * 5000}, "a whole number"),
        ({"trace_rate": 10**5000}, "not a very large int"),
        ({"trace_file": NESTED}, "not a very large list"),
        ({"trace_mode": 5}, "must be 'triton'"),
        ({"trace_rate": True}, "a whole number from 1 to 4294967295, as text, not True"),
        ({"trace_rate": 1.5}, "not 1.5"),
        ({"trace_count": "-2"}, "from -1 to 2147483647"),
        ({"log_frequency": "10001"}, "from 0 to 10000"),
        ({"trace_file": "../secret"}, "plain name of a file"),
        ({"trace_file": "/etc/passwd"}, "plain name of a file"),
        ({"trace_file": ".hidden"}, "plain name of a file"),
        ({"trace_file": ""}, "plain name of a file"),
        ({"trace_file": "a/b"}, "plain name of a file"),
        ({"trace_file": "a\\b"}, "plain name of a file"),
        ({"trace_file": "a\nb"}, "plain name of a file"),
        ({"trace_file": "a\n"}, "plain name of a file"),
        ({"trace_file": "x" * 101}, "plain name of a file"),
        ({"trace_mode": "opentelemetry"}, "'trace_mode' must be 'triton'"),
        ({"trace_speed": "1"}, "there is no trace setting 'trace_speed'"),
        ({"trace_rate": "5", "trace_mode": "x"}, "'trace_mode' must be"),
    ],
)
def test_what_cannot_be_had_is_refused(values: dict[str, Any], reason: str) -> None:
    """With the name, what is expected and what came; nothing is changed, in general or for a model."""
    settings = TraceSettings()
    for model in ("", "iris"):
        with pytest.raises(ServingError) as caught:
            settings.update(values, model)
        assert caught.value.kind is Kind.INVALID_INPUT
        assert reason in caught.value.message
        assert len(caught.value.message) < 400
        assert settings.read(model) == START


def test_a_models_settings_come_before_the_general_ones() -> None:
    """Setting by setting: what a model has not of its own follows what holds in general."""
    settings = TraceSettings()
    settings.update({"trace_rate": "5"}, "iris")
    settings.update({"trace_level": "TIMESTAMPS", "trace_rate": "9"})
    assert settings.read("iris") == {**START, "trace_level": ["TIMESTAMPS"], "trace_rate": "5"}
    assert settings.read("other") == settings.read() == {**START, "trace_level": ["TIMESTAMPS"], "trace_rate": "9"}
    assert settings.update({"trace_rate": None}, "iris") == settings.read()


def test_scopes_say_what_holds() -> None:
    """One for all models, and one for each with settings of its own."""
    settings = TraceSettings()
    assert list(settings.scopes()) == [""]
    assert not settings.scopes()[""].active
    settings.update({"trace_level": ["TIMESTAMPS"], "trace_rate": "3", "trace_file": "a.json", "log_frequency": "4"}, "iris")
    scopes = settings.scopes()
    assert (scopes[""].active, scopes["iris"].active) == (False, True)
    assert (scopes["iris"].rate, scopes["iris"].file, scopes["iris"].frequency, scopes["iris"].left) == (3, "a.json", 4, -1)
    settings.update(dict.fromkeys(START), "iris")
    assert list(settings.scopes()) == [""]


def test_no_trace_is_left_after_the_last() -> None:
    """Each claim takes one; after the last the scope is off and shows 0."""
    settings = TraceSettings()
    settings.update({"trace_level": "TIMESTAMPS", "trace_count": "2"})
    assert [settings.claim("") for _ in range(4)] == [True, True, False, False]
    assert settings.read()["trace_count"] == "0"
    assert not settings.scopes()[""].active
    settings.update({"trace_count": "1"})
    assert settings.scopes()[""].active
    assert settings.claim("")


def test_without_a_count_there_is_no_end() -> None:
    """-1 stays -1."""
    settings = TraceSettings()
    settings.update({"trace_level": "TIMESTAMPS"})
    assert all(settings.claim("") for _ in range(10))
    assert settings.read()["trace_count"] == "-1"


def test_a_model_takes_from_its_own_count_or_the_general_one() -> None:
    """A model with a count of its own leaves the general one alone; any other takes from that."""
    settings = TraceSettings()
    settings.update({"trace_level": "TIMESTAMPS", "trace_count": "3"})
    settings.update({"trace_count": "1"}, "own")
    settings.update({"trace_rate": "1"}, "rate")
    assert [settings.claim("own"), settings.claim("own")] == [True, False]
    assert settings.claim("rate")
    assert settings.read()["trace_count"] == settings.read("rate")["trace_count"] == "2"
    assert settings.read("own")["trace_count"] == "0"


def test_workers_agree_and_share_the_count(tmp_path: Path) -> None:
    """What one is told, the other shows at once; five traces are five for both together."""
    one, other = TraceSettings(LiveSettings(tmp_path)), TraceSettings(LiveSettings(tmp_path))
    one.update({"trace_level": ["TIMESTAMPS"], "trace_count": "5"})
    assert other.read() == one.read() == {**START, "trace_level": ["TIMESTAMPS"], "trace_count": "5"}
    assert sum(settings.claim("") for _ in range(5) for settings in (one, other)) == 5
    assert other.read()["trace_count"] == one.read()["trace_count"] == "0"


def test_changes_are_told(tmp_path: Path) -> None:
    """At once, after a change of one's own, and after a look at what another worker changed."""
    lives = [LiveSettings(tmp_path), LiveSettings(tmp_path)]
    one, other = map(TraceSettings, lives)
    told: list[bool] = []
    other.on_change(lambda: told.append(other.scopes()[""].active))
    one.update({"trace_level": "TIMESTAMPS"})
    lives[1].refresh()
    other.update({"trace_level": "OFF"})
    assert told == [False, True, False]


@given(st.dictionaries(st.sampled_from(list(START)) | st.text(max_size=8), SIMPLE, max_size=4), st.sampled_from(["", "iris"]))
def test_any_values_are_taken_or_refused(values: dict[str, Any], model: str) -> None:
    """Nothing but a ServingError comes of hostile values, and refused ones change nothing."""
    settings = TraceSettings()
    try:
        settings.update(values, model)
    except ServingError:
        assert settings.read(model) == START
    assert set(settings.read(model)) == set(START)
