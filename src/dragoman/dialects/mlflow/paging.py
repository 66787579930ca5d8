"""Pages of search results, and their tokens. Pure; called by searching handlers.

A token is the place of the last thing of its page in the order, so that pages neither repeat nor skip anything when things come and go in
between, and so that every worker can go on.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from typing import TypeVar

from dragoman.core.errors import invalid
from dragoman.dialects.mlflow.filters import By, Look, Value
from dragoman.dialects.mlflow.wire import Fields

T = TypeVar("T")


def page(things: Iterable[T], order: Sequence[By], look: Look[T], fields: Fields, *, usual: int, most: int) -> tuple[list[T], str]:
    """The page that `max_results` and `page_token` ask for, and the token of the next one, "" after the last.

    The places of `things` in the order are unique. Raises INVALID_INPUT.
    """
    size = fields.whole("max_results", usual)
    if not 1 <= size <= most:
        raise invalid(f"'max_results' is {size}, expected 1 to {most}")
    token = fields.text("page_token", "")
    places = [([_comparable(look(thing, by.group, by.key)) for by in order], thing) for thing in things]
    for index, by in reversed(list(enumerate(order))):
        places.sort(key=lambda place, at=index: _rank(place[0][at]), reverse=not by.ascends)  # type: ignore[misc] # a default in a lambda
        # What has no value comes last, whichever way.
        places.sort(key=lambda place, at=index: place[0][at] is None)  # type: ignore[misc] # the same
    start = 0
    if token:
        after = _read_token(token, len(order))
        start = next((i for i, (place, _) in enumerate(places) if _comes_after(place, after, order)), len(places))
    shown = places[start : start + size]
    following = _written(shown[-1][0]) if shown and start + size < len(places) else ""
    return [thing for _, thing in shown], following


def _comparable(value: Value) -> Value:
    return None if value != value else value  # NaN is before and after nothing


def _rank(value: Value) -> tuple[bool, float, str]:
    """Anything beside anything: numbers before texts."""
    return (True, 0.0, value) if isinstance(value, str) else (False, value or 0.0, "")


def _comes_after(place: Sequence[Value], after: Sequence[Value], order: Sequence[By]) -> bool:
    for here, there, by in zip(place, after, order, strict=True):
        if here is None or there is None:
            if here is not there:
                return here is None
        elif _rank(here) != _rank(there):
            return (_rank(here) > _rank(there)) == by.ascends
    return False


def _written(place: Sequence[Value]) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def _read_token(token: str, length: int) -> list[Value]:
    """By the standard library: places may be numbers that are not finite."""
    try:
        found = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or len(found) != length or not all(v is None or isinstance(v, str | int | float) for v in found):
        raise invalid("'page_token' is no token of a page of this search")
    return found
