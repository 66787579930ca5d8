"""MLflow's search language: conditions joined by AND, the order of the results, and tokens of pages. Pure; called by searching handlers.

    name LIKE 'iris%' AND tags.`team` = 'blue'        version_number >= 2        run_id IN ('a', 'b')

A filter comes from anywhere, so it is bounded, read by a small parser in one pass, and patterns are matched without backtracking.
"""

import base64
import binascii
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import orjson

from dragoman.core.errors import invalid
from dragoman.dialects.mlflow.wire import Fields

T = TypeVar("T")

Value: TypeAlias = str | float | None

PROMPT_TAG = "mlflow.prompt.is_prompt"
"""MLflow keeps prompts among registered models; a model that does not have this tag is none, and counts as having it with "false"."""

_MOST_CONDITIONS = 50
_LONGEST = 16_384
_MOST_IN_LIST = 1000

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*")
    | (?P<quoted>`[^`]*`)
    | (?P<number>[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?)
    | (?P<sign>!=|<>|<=|>=|=|<|>|\(|\)|,|\.)
    | (?P<word>[^\W\d][\w/-]*)
    )""",
    re.VERBOSE | re.DOTALL,
)

_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OF_TEXT = ("=", "!=", "LIKE", "ILIKE")
_LISTED = ("IN", "NOT IN")
_ATTRIBUTE = frozenset({"attribute", "attributes", "attr", "run"})


@dataclass(frozen=True, slots=True)
class Searchable:
    """What can be asked of one kind of thing: attributes that are texts or numbers, and groups of keys ("tag": texts, "metric": numbers)."""

    texts: frozenset[str]
    numbers: frozenset[str] = frozenset()
    groups: Mapping[str, bool] = field(default_factory=lambda: {"tag": False})
    """Name of a group -> whether its values are numbers. It is known under its plural, too."""
    orders: frozenset[str] = frozenset()
    """Attributes by which results may be ordered."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison. `group` is "" for an attribute."""

    group: str
    key: str
    test: Callable[[Any], bool]

    def holds(self, found: Value) -> bool:
        """Whether a thing with this value is meant; one that has none is not, whatever is asked."""
        if found is None and self.key == PROMPT_TAG:
            found = "false"
        return found is not None and self.test(found)


Look: TypeAlias = Callable[[T, str, str], Value]
"""(thing, group, key) -> its value, None where it has none."""


def parse(text: str, searchable: Searchable) -> list[Condition]:
    """The conditions of a filter, all of which must hold. Raises INVALID_INPUT saying what was expected where."""
    if len(text) > _LONGEST:
        raise invalid(f"'filter' has {len(text)} characters, expected at most {_LONGEST}")
    parser = _Parser(text, searchable)
    found: list[Condition] = []
    while parser.more():
        if found:
            parser.word("AND")
        if len(found) == _MOST_CONDITIONS:
            raise invalid(f"'filter' has more than {_MOST_CONDITIONS} conditions")
        found.append(parser.condition())
    return found


def select(things: Iterable[T], conditions: Sequence[Condition], look: Look[T]) -> list[T]:
    """Those for which all conditions hold."""
    return [thing for thing in things if all(c.holds(look(thing, c.group, c.key)) for c in conditions)]


def like(pattern: str, *, any_case: bool = False) -> Callable[[str], bool]:
    """The test of SQL's LIKE: `%` stands for anything, `_` for one character.

    What stands between two `%` has a fixed length and is looked for where it comes first, so nothing is ever tried again.
    """
    flags = re.DOTALL | (re.IGNORECASE if any_case else 0)
    first, *rest = (re.compile("".join("." if c == "_" else re.escape(c) for c in part), flags) for part in pattern.split("%"))
    if not rest:
        return lambda text: first.fullmatch(text) is not None
    *middle, _ = rest
    end = pattern.rpartition("%")[2]
    last = rest[-1]

    def test(text: str) -> bool:
        found = first.match(text)
        for part in middle:
            found = part.search(text, found.end()) if found is not None else None
        tail = len(text) - len(end)
        return found is not None and tail >= found.end() and last.fullmatch(text, tail) is not None

    return test


@dataclass(frozen=True, slots=True)
class Ordering:
    """By which attributes results are sorted, each with whether it ascends; the last ones make every place unique."""

    keys: tuple[tuple[str, bool], ...]

    @classmethod
    def of(cls, orders: Sequence[str], searchable: Searchable, last: Sequence[tuple[str, bool]]) -> "Ordering":
        """From texts such as "name DESC". `last` decides between equals. Raises INVALID_INPUT."""
        keys: dict[str, bool] = {}
        for text in orders:
            words = text.replace("`", "").split()
            name = words[0] if words else ""
            group, _, bare = name.rpartition(".")
            direction = words[1].upper() if len(words) == 2 else "ASC" if len(words) == 1 else ""
            if direction not in ("ASC", "DESC") or (group and group not in _ATTRIBUTE) or bare not in searchable.orders:
                raise invalid(
                    f"'order_by' is '{text[:60]}', expected ATTRIBUTE [ASC|DESC] with one of {', '.join(sorted(searchable.orders))}"
                )
            keys.setdefault(bare, direction == "ASC")
        for name, ascends in last:
            keys.setdefault(name, ascends)
        return cls(tuple(keys.items()))


def page(things: Iterable[T], ordering: Ordering, look: Look[T], fields: Fields, *, usual: int, most: int) -> tuple[list[T], str]:
    """The page that `max_results` and `page_token` ask for, and the token of the next one, "" after the last.

    A token is the place of the last thing of its page in the order, so that pages neither repeat nor skip anything when things come and go
    in between. Raises INVALID_INPUT.
    """
    size = fields.whole("max_results", usual)
    if not 1 <= size <= most:
        raise invalid(f"'max_results' is {size}, expected 1 to {most}")
    names = [name for name, _ in ordering.keys]
    places = [(tuple(look(thing, "", name) for name in names), thing) for thing in things]
    for index, (_, ascends) in reversed(list(enumerate(ordering.keys))):
        places.sort(key=lambda place: _sortable(place[0][index]), reverse=not ascends)
    token = fields.text("page_token", "")
    start = 0
    if token:
        after = _read_token(token, len(names))
        start = next((i for i, (place, _) in enumerate(places) if _comes_after(place, after, ordering)), len(places))
    shown = places[start : start + size]
    following = _written(shown[-1][0]) if shown and start + size < len(places) else ""
    return [thing for _, thing in shown], following


def _sortable(value: Value) -> tuple[int, float, str]:
    """Anything beside anything: what is absent before numbers, numbers before texts."""
    if value is None:
        return (0, 0.0, "")
    return (1, -math.inf if value != value else value, "") if isinstance(value, int | float) else (2, 0.0, value)


def _comes_after(place: Sequence[Value], after: Sequence[Value], ordering: Ordering) -> bool:
    for here, there, (_, ascends) in zip(place, after, ordering.keys, strict=True):
        left, right = _sortable(here), _sortable(there)
        if left != right:
            return (left > right) == ascends
    return False


def _written(place: Sequence[Value]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(place)).decode()


def _read_token(token: str, length: int) -> list[Value]:
    try:
        found = orjson.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        found = None
    if not isinstance(found, list) or len(found) != length or not all(v is None or isinstance(v, str | int | float) for v in found):
        raise invalid("'page_token' is no token of a page of this search")
    return found


class _Parser:
    """One pass over the tokens of a filter."""

    def __init__(self, text: str, searchable: Searchable) -> None:
        self._text = text
        self._searchable = searchable
        self._at = 0
        self._kind, self._word = "", ""
        self._next()

    def more(self) -> bool:
        return self._kind != "end"

    def word(self, wanted: str) -> None:
        """Take this word."""
        if self._kind != "word" or self._word.upper() != wanted:
            raise self._expected(wanted)
        self._next()

    def condition(self) -> Condition:
        group, key, numeric = self._subject()
        sign = self._sign()
        allowed = (*(_ORDERS if numeric else _OF_TEXT), *(() if numeric or group else _LISTED))
        if sign not in allowed:
            raise invalid(f"'filter' compares '{key[:60]}' by {sign}, expected one of {', '.join(allowed)}")
        if sign in _LISTED:
            values = self._values()
            return Condition(group, key, lambda found: (found in values) == (sign == "IN"))
        wanted = self._number() if numeric else self._string()
        if isinstance(wanted, str) and sign not in _ORDERS:
            return Condition(group, key, like(wanted, any_case=sign == "ILIKE"))
        return Condition(group, key, lambda found: bool(_ORDERS[sign](found, wanted)))

    def _subject(self) -> tuple[str, str, bool]:
        """Group ("" for an attribute), key, and whether its values are numbers."""
        first = self._name()
        if self._kind == "sign" and self._word == ".":
            self._next()
            key = self._key()
            group = first.lower()
            singular = group.removesuffix("s")
            if singular in self._searchable.groups:
                return singular, key, self._searchable.groups[singular]
            if group not in _ATTRIBUTE:
                raise invalid(f"'filter' asks for '{first[:60]}', expected an attribute or one of {', '.join(self._searchable.groups)}")
            first = key
        if first in self._searchable.texts or first in self._searchable.numbers:
            return "", first, first in self._searchable.numbers
        known = ", ".join(sorted(self._searchable.texts | self._searchable.numbers))
        raise invalid(f"'filter' asks for the attribute '{first[:60]}', expected one of {known}")

    def _name(self) -> str:
        if self._kind not in ("word", "quoted"):
            raise self._expected("the name of an attribute")
        return self._take()

    def _key(self) -> str:
        """A key, quoted or bare; a bare one may have dots."""
        if self._kind in ("quoted", "text"):
            return self._take()
        parts = [self._name()]
        while self._kind == "sign" and self._word == ".":
            self._next()
            parts.append(self._take() if self._kind == "number" else self._name())
        return ".".join(parts)

    def _sign(self) -> str:
        if self._kind == "sign":
            sign = "!=" if self._word == "<>" else self._word
            if sign in _ORDERS:
                self._next()
                return sign
        if self._kind == "word":
            sign = self._word.upper()
            if sign in ("LIKE", "ILIKE", "IN"):
                self._next()
                return sign
            if sign == "NOT":
                self._next()
                self.word("IN")
                return "NOT IN"
        raise self._expected("=, !=, <, <=, >, >=, LIKE, ILIKE, IN or NOT IN")

    def _string(self) -> str:
        if self._kind != "text":
            raise self._expected("a text in single quotes")
        return self._take()

    def _number(self) -> float:
        text = self._word
        if self._kind not in ("number", "text"):
            raise self._expected("a number")
        self._next()
        try:
            value = int(text) if re.fullmatch(r"[-+]?[0-9]{1,25}", text) else float(text)
        except ValueError:
            raise invalid(f"'filter' has {text[:40]!r}, expected a number") from None
        return value

    def _values(self) -> frozenset[str]:
        self._bracket("(")
        found = [self._string()]
        while self._word == "," and self._kind == "sign":
            self._next()
            if len(found) == _MOST_IN_LIST:
                raise invalid(f"'filter' has a list of more than {_MOST_IN_LIST} values")
            found.append(self._string())
        self._bracket(")")
        return frozenset(found)

    def _bracket(self, wanted: str) -> None:
        if self._kind != "sign" or self._word != wanted:
            raise self._expected(wanted)
        self._next()

    def _take(self) -> str:
        token = self._word
        self._next()
        return token

    def _next(self) -> None:
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            if self._text[self._at :].strip():
                raise self._expected("a name, a value or a comparison")
            self._kind, self._word = "end", ""
            return
        self._at = match.end()
        self._kind = match.lastgroup or ""
        token = match[self._kind]
        if self._kind == "text":
            quote = token[0]
            token = re.sub(rf"\\(.)|{quote}{quote}", lambda m: _unescaped(m[1], quote), token[1:-1], flags=re.DOTALL)
        elif self._kind == "quoted":
            token = token[1:-1]
        self._word = token

    def _expected(self, what: str) -> Exception:
        there = f"'{self._word[:40]}'" if self._kind != "end" else "the end"
        return invalid(f"'filter' has {there} before character {self._at}, expected {what}")


def _unescaped(escaped: str | None, quote: str) -> str:
    """A quote is written twice or after a backslash; any other backslash is itself."""
    if escaped is None or escaped == quote:
        return quote
    return f"\\{escaped}"
