"""MLflow's search language: conditions joined by AND, and the order of the results. Pure; called by searching handlers.

    name LIKE 'iris%' AND tags.`team` = 'blue'        version_number >= 2        run_id IN ('a', 'b')

A filter comes from anywhere, so it is bounded, read by a small parser in one pass, and patterns are matched without backtracking.
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from dragoman.core.errors import invalid

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
class By:
    """One thing to sort by. What has no value comes last, whichever way."""

    group: str
    key: str
    ascends: bool = True


def ordering(orders: Sequence[str], searchable: Searchable, last: Sequence[By]) -> list[By]:
    """How results are sorted, from texts such as "name DESC". `last` decides between equals, and makes each place unique.

    Raises INVALID_INPUT.
    """
    keys: dict[tuple[str, str], By] = {}
    for text in orders[:_MOST_CONDITIONS]:
        by = _Parser(text[:_LONGEST], searchable, "order_by").by()
        keys.setdefault((by.group, by.key), by)
    for by in last:
        keys.setdefault((by.group, by.key), by)
    return list(keys.values())


class _Parser:
    """One pass over the tokens of a filter."""

    def __init__(self, text: str, searchable: Searchable, what: str = "filter") -> None:
        self._text = text
        self._searchable = searchable
        self._what = what
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

    def by(self) -> By:
        """All of an `order_by`."""
        group, key, _ = self._subject()
        ascends = True
        if self.more():
            ascends = self._kind == "word" and self._word.upper() == "ASC"
            if not ascends:
                self.word("DESC")
            else:
                self._next()
        if self.more():
            raise self._expected("the end")
        return By(group, key, ascends)

    def condition(self) -> Condition:
        group, key, numeric = self._subject()
        sign = self._sign()
        allowed = (*(_ORDERS if numeric else _OF_TEXT), *(() if numeric or group else _LISTED))
        if sign not in allowed:
            raise invalid(f"'{self._what}' compares '{key[:60]}' by {sign}, expected one of {', '.join(allowed)}")
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
                raise invalid(
                    f"'{self._what}' asks for '{first[:60]}', expected an attribute or one of {', '.join(self._searchable.groups)}"
                )
            first = key
        if first in self._searchable.texts or first in self._searchable.numbers:
            return "", first, first in self._searchable.numbers
        known = ", ".join(sorted(self._searchable.texts | self._searchable.numbers))
        raise invalid(f"'{self._what}' asks for the attribute '{first[:60]}', expected one of {known}")

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
        return invalid(f"'{self._what}' has {there} before character {self._at}, expected {what}")


def _unescaped(escaped: str | None, quote: str) -> str:
    """A quote is written twice or after a backslash; any other backslash is itself."""
    if escaped is None or escaped == quote:
        return quote
    return f"\\{escaped}"
