"""The one error type: what it carries, and that every dialect's table answers every kind."""

import pickle
import re

import pytest

from dragoman.core import errors
from dragoman.core.errors import Kind, Problem, ServingError, invalid
from dragoman.dialects import check_table


def test_kinds_are_named_by_their_values() -> None:
    """The value is the name in lower case: what our own API shows and what frames carry."""
    assert {kind.value: kind.name for kind in Kind} == {kind.name.lower(): kind.name for kind in Kind}


def test_the_tree_at_the_top_of_the_module_has_every_kind() -> None:
    """The drawing that readers see first does not forget one."""
    assert set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)*\b", (errors.__doc__ or "").split("There are no")[0])) - {"S", "E"} == {
        kind.name for kind in Kind
    }


def test_an_error_carries_what_dialects_need() -> None:
    """Kind, message and the refinements; the text of the exception is the message."""
    problem = Problem(("inputs", 0), "too_long", "at most 3", {"limit": 3})
    error = ServingError(Kind.OVERLOADED, "full", what="model", problems=(problem,), retry_after_s=2.5, status=418, trace="...")
    assert (error.kind, error.message, error.what, error.retry_after_s, error.status) == (Kind.OVERLOADED, "full", "model", 2.5, 418)
    assert error.problems[0].context["limit"] == 3
    assert str(error) == "full"
    assert repr(error) == "ServingError(OVERLOADED, 'full')"
    assert "trace" not in str(error)


def test_invalid_is_the_short_form() -> None:
    """INVALID_INPUT with a message, and what it is about."""
    assert invalid("no").kind is Kind.INVALID_INPUT
    assert invalid("no", "body").what == "body"


def test_problems_are_independent() -> None:
    """Two problems made without context do not share one."""
    first, second = Problem((), "a", "a"), Problem((), "b", "b")
    first.context["limit"] = 1
    assert second.context == {}


def test_a_table_with_a_gap_is_refused_when_its_module_is_imported() -> None:
    """The message names the kinds that were forgotten."""
    with pytest.raises(TypeError, match="lacks TIMEOUT, INTERNAL"):
        check_table({kind: 400 for kind in Kind if kind not in (Kind.TIMEOUT, Kind.INTERNAL)})
    check_table(dict.fromkeys(Kind, 400))


def test_kinds_survive_pickling_as_themselves() -> None:
    """Kinds are compared with `is`, so there must never be two of one."""
    assert pickle.loads(pickle.dumps(Kind.NOT_FOUND)) is Kind.NOT_FOUND
