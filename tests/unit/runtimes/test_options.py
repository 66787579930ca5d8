"""Reading runtime options out of whatever a configuration holds."""

from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import ModelSpec
from dragoman.runtimes.options import Options, processors


def options(**arguments: Any) -> Options:
    return Options(ModelSpec("m", arguments=arguments))


@pytest.mark.parametrize("value", [4, "4", " 4 "])
def test_integer(value: object) -> None:
    """Numbers, also as text."""
    assert options(threads=value).integer("threads", low=0, high=8) == 4


@pytest.mark.parametrize("arguments", [{}, {"threads": None}, {"threads": ""}, {"other": 3}])
def test_absent_integer(arguments: dict[str, Any]) -> None:
    """What is not given, or given empty, is None."""
    assert options(**arguments).integer("threads", low=0, high=8) is None


def test_names_are_alternatives_without_case() -> None:
    """The first name that is there wins; Triton writes some of them in capitals."""
    assert options(INTRA_OP_THREAD_COUNT="2").integer("threads", "intra_op_thread_count", low=0, high=8) == 2
    assert options(threads=1, intra_op_thread_count=2).integer("threads", "intra_op_thread_count", low=0, high=8) == 1


@pytest.mark.parametrize("value", ["two", "1.5", 1.5, True, [1], {}, -1, 9, "9" * 30, "1" * 5000, "0x2"])
def test_wrong_integers(value: object) -> None:
    """Anything else is refused, naming model, argument, value and what was expected, in bounded length."""
    with pytest.raises(ServingError) as caught:
        options(threads=value).integer("threads", low=0, high=8)
    assert caught.value.kind is Kind.INVALID_INPUT
    assert "'threads'" in caught.value.message
    assert "'m'" in caught.value.message
    assert "from 0 to 8" in caught.value.message
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        (True, True),
        (False, False),
        ("true", True),
        ("TRUE", True),
        ("1", True),
        ("on", True),
        ("no", False),
        ("0", False),
        (1, True),
        (0, False),
    ],
)
def test_boolean(value: object, meant: bool) -> None:
    """The words that configuration files use."""
    assert options(spinning=value).boolean("spinning") is meant


def test_wrong_and_absent_booleans() -> None:
    """Nothing is guessed from other words; what is not given is None."""
    assert options().boolean("spinning") is None
    values: list[object] = ["maybe", 2, [], 0.5]
    for value in values:
        with pytest.raises(ServingError, match="expected true or false"):
            options(spinning=value).boolean("spinning")


def test_text() -> None:
    """Texts are trimmed, numbers are taken, other things refused."""
    assert options(device=" cuda:1 ").text("device") == "cuda:1"
    assert options(level=99).text("level") == "99"
    assert options().text("device") == ""
    values: list[object] = [True, ["cuda"], {}]
    for value in values:
        with pytest.raises(ServingError, match="expected a text"):
            options(device=value).text("device")


def test_items() -> None:
    """A list, or a text with commas."""
    assert options(providers=["a", ["b", {}]]).items("providers") == ["a", ["b", {}]]
    assert options(providers=("a",)).items("providers") == ["a"]
    assert options(providers="a, b,,c ").items("providers") == ["a", "b", "c"]
    assert options().items("providers") == []
    with pytest.raises(ServingError, match="expected a list"):
        options(providers={"a": 1}).items("providers")


def test_processors() -> None:
    """There is at least one."""
    assert processors() >= 1
