"""Requests of MLflow's REST API as fields with names and types, and its paths. Called by every module of this folder that answers requests.

MLflow's messages are protocol buffers written as JSON: 64-bit numbers may be text, NaN is the text "NaN", null is the same as absent, and
unknown fields are ignored. GET has the same fields in its query. Whatever is wrong is INVALID_INPUT and names the field.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote_to_bytes

import orjson

from dragoman.core.errors import ServingError, invalid
from dragoman.dialects import Access, Answer, Handler, Request
from dragoman.dialects.compression import inflated
from dragoman.dialects.documents import as_object, parsed, shown

NAME = 256
"""Characters of names and keys."""
TEXT = 16_384
"""Characters of descriptions, values of tags and parameters, filters: more than MLflow's own server takes."""
MOST_ITEMS = 10_000
"""Entries of a list in a request."""

_JSON = re.compile(rb"application/(?:[A-Za-z0-9!#$&^_.+-]+\+)?json\s*(?:;|\Z)", re.IGNORECASE)
_LONGEST_BODY = 32 << 20
_LONGEST_QUERY = 64 << 10
_MOST_PARAMETERS = 1000
_WHOLE = re.compile(r"-?[0-9]{1,19}\Z")
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

_VIEWS = {"ACTIVE_ONLY": (False,), "DELETED_ONLY": (True,), "ALL": (False, True)}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row of a table of routes: a path below the prefix, in which "{}" stands for one segment that the handler gets."""

    methods: tuple[str, ...]
    path: str
    handler: Handler
    access: Access


class Fields:
    """The fields of one message. `where` begins the name of a field in messages about it, "" at the top."""

    __slots__ = ("_values", "_where")

    def __init__(self, values: Mapping[str, Any], where: str = "") -> None:
        self._values = values
        self._where = where

    def has(self, name: str) -> bool:
        return self._values.get(name) is not None

    def text(self, name: str, default: str | None = None, *, longest: int = TEXT) -> str:
        """A text; one that is absent is an error unless there is a default. An empty text is one that is absent where one is needed."""
        value = self._one(name)
        if value is None or (default is None and value == ""):
            if default is None:
                raise invalid(f"'{self._where}{name}' is missing: expected text")
            return default
        if not isinstance(value, str):
            raise self._wrong(name, value, "text")
        if len(value) > longest:
            raise invalid(f"'{self._where}{name}' has {len(value)} characters, expected at most {longest}")
        return value

    def maybe(self, name: str, *, longest: int = TEXT) -> str | None:
        """A text that may be absent, and may be empty."""
        return self.text(name, "", longest=longest) if self.has(name) else None

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number of at most 64 bits, as a number or as text."""
        value = self._one(name)
        if value is None:
            if default is None:
                raise invalid(f"'{self._where}{name}' is missing: expected a whole number")
            return default
        if isinstance(value, str) and _WHOLE.match(value):
            value = int(value)
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
            raise self._wrong(name, value, "a whole number")
        return value

    def version(self) -> str:
        """The field `version`, a number as text or as a number. The catalog says which ones there can be."""
        value = self._one("version")
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else self.text("version", longest=NAME)

    def number(self, name: str) -> float:
        """A number, also one that is not finite."""
        value = self._one(name)
        if isinstance(value, str):
            value = _NOT_FINITE.get(value, value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, value, "a number")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false, as a query may write them, too."""
        value = self._one(name)
        if isinstance(value, str) and value.lower() in ("true", "false"):
            value = value.lower() == "true"
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def choice(self, name: str, choices: Sequence[str], default: str | None = None) -> str:
        """One of these words."""
        value = self.text(name, default)
        if value not in choices:
            raise invalid(f"'{self._where}{name}' is '{value[:60]}', expected one of {', '.join(choices)}")
        return value

    def texts(self, name: str, *, longest: int = TEXT) -> list[str]:
        """A list of texts, empty when it is absent."""
        values = self._list(name)
        for value in values:
            if not isinstance(value, str) or len(value) > longest:
                raise self._wrong(name, value, f"a list of texts of at most {longest} characters")
        return values

    def messages(self, name: str) -> list["Fields"]:
        """A list of messages, empty when it is absent."""
        values = self._list(name)
        for index, value in enumerate(values):
            if not isinstance(value, dict):
                raise self._wrong(f"{name}[{index}]", value, "an object")
        return [Fields(value, f"{self._where}{name}[{index}].") for index, value in enumerate(values)]

    def message(self, name: str) -> "Fields":
        """One message, empty when it is absent."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, dict):
            raise self._wrong(name, value, "an object")
        return Fields(value or {}, f"{self._where}{name}.")

    def pairs(self, name: str, *, longest: int = TEXT) -> dict[str, str]:
        """A list of {key, value}; of a key that comes twice the last."""
        return {each.text("key", longest=NAME): each.text("value", "", longest=longest) for each in self.messages(name)}

    def _one(self, name: str) -> Any:
        value = self._values.get(name)
        return value[0] if isinstance(value, _Repeated) else value

    def _list(self, name: str) -> list[Any]:
        value = self._values.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._wrong(name, value, "a list")
        if len(value) > MOST_ITEMS:
            raise invalid(f"'{self._where}{name}' has {len(value)} entries, expected at most {MOST_ITEMS}")
        return list(value)

    def _wrong(self, name: str, value: object, expected: str) -> ServingError:
        return invalid(f"'{self._where}{name}' is {shown(value)}, expected {expected}")


class _Repeated(list[str]):
    """The values of one parameter of a query."""


async def fields(request: Request, max_inflated: int) -> Fields:
    """What a request says: the object in its body, or without a body its query.

    Raises INVALID_INPUT (what="body") for what is no JSON object or is declared to be something else, TOO_LARGE.
    """
    body = b"" if request.method == "GET" else await request.body()
    if not body:
        return Fields(_query(request.query))
    declared = request.header(b"content-type")
    if declared and not _JSON.match(declared.strip()):
        raise invalid(f"Content-Type is '{declared[:100].decode('latin-1')}', expected application/json", "body")
    body = await inflated(body, request.header(b"content-encoding"), min(max_inflated, _LONGEST_BODY))
    if len(body) > _LONGEST_BODY:
        raise invalid(f"the body has {len(body)} bytes, expected at most {_LONGEST_BODY}", "body")
    value = parsed(body)
    return Fields({} if value is None else as_object(value))


def segments(path: bytes) -> list[str]:
    """The segments of a path as it was sent, each decoded by itself. Raises INVALID_INPUT where one hides a slash, or is no text."""
    try:
        found = [unquote_to_bytes(part).decode() for part in path.split(b"/")]
    except UnicodeDecodeError:
        raise invalid("the path is not UTF-8 text") from None
    if any("/" in part or "\\" in part or "\0" in part for part in found):
        raise invalid("the path has a slash, a backslash or a NUL inside of a segment")
    return found


def seen(asked: Fields, name: str) -> tuple[bool, ...]:
    """Which of active (False) and deleted (True) things a view shows."""
    return _VIEWS[asked.choice(name, tuple(_VIEWS), "ACTIVE_ONLY")]


def answer(value: Mapping[str, Any]) -> Answer:
    return Answer(200, orjson.dumps(value))


def _query(query: bytes) -> Mapping[str, Any]:
    if len(query) > _LONGEST_QUERY:
        raise invalid(f"the query has {len(query)} bytes, expected at most {_LONGEST_QUERY}")
    try:
        found = parse_qs(query.decode(), keep_blank_values=True, max_num_fields=_MOST_PARAMETERS, errors="strict")
    except ValueError:  # UnicodeDecodeError is one, too
        raise invalid(f"the query is not UTF-8 text, or has more than {_MOST_PARAMETERS} parameters") from None
    return {name: _Repeated(values) for name, values in found.items()}
