"""Walks the text form of a message before it is parsed: bounds its nesting, and finds the fields that the message does not have.

The parser skips unknown fields without a word, and recurses as deep as the text does. This walk is neither: a loop over tokens with its own
stack. It is no validator: what it does not understand, it leaves for the parser to refuse. Called by serving/triton/text.py.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, TypeAlias

_Descriptor: TypeAlias = Any
"""Of a message; protobuf has two classes for it, one of them private."""

_TOKEN = re.compile(
    r"(?P<space>\s++|\#[^\n]*+)"
    r"|(?P<name>[A-Za-z_][\w.+-]*+)"
    r"|(?P<number>[\d.][\w.+-]*+)"
    # The closing quote is optional and nothing can be given back, so that a text full of lone quotes is read once only.
    r"""|(?P<string>"(?:[^"\\\n]++|\\.)*+"?|'(?:[^'\\\n]++|\\.)*+'?)"""
    r"|(?P<sign>.)"
)
_MOST = 100


class TooDeepError(ValueError):
    """The text nests more messages into each other than allowed; `line` counts from 1."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


@dataclass(frozen=True, slots=True)
class Unknown:
    """A field that its message does not have, by path and by where it stands (from 1)."""

    path: str
    line: int
    column: int


@dataclass(slots=True)
class _Level:
    """One message that is open. `descriptor` is None inside a field that is itself unknown or no message."""

    descriptor: _Descriptor | None
    path: str
    field: str = ""
    value: bool = False
    """A colon was read, so a word is a value and not the name of a field."""
    items: bool = False
    """Between [ and ]."""


def unknown_fields(text: str, root: _Descriptor, depth: int) -> list[Unknown]:
    """The fields that `root` does not have, in order, a hundred at most. Raises TooDeepError beyond `depth` nested messages."""
    found: list[Unknown] = []
    lines = [0, *(match.end() for match in re.finditer("\n", text))]
    levels = [_Level(root, "")]
    for token in _TOKEN.finditer(text):
        kind, level = token.lastgroup, levels[-1]
        if kind == "space":
            continue
        if kind in {"string", "number"}:
            level.value = False
        elif kind == "name":
            if level.value or level.items:
                level.value = False
            else:
                level.field = token.group()
                if level.descriptor is not None and level.field not in level.descriptor.fields_by_name and len(found) < _MOST:
                    line = bisect_right(lines, token.start())
                    found.append(Unknown(_join(level.path, level.field), line, token.start() - lines[line - 1] + 1))
        elif token.group() in "{<":
            level.value = False
            levels.append(_Level(_inner(level), _join(level.path, level.field)))
            if len(levels) > depth:
                raise TooDeepError(bisect_right(lines, token.start()))
        elif token.group() in "}>":
            if len(levels) > 1:
                levels.pop()
        else:
            _sign(level, token.group())
    return found


def _sign(level: _Level, sign: str) -> None:
    if sign == ":":
        level.value = True
    elif sign == "[":
        level.items, level.value = True, False
    elif sign == "]":
        level.items = False
    elif sign != "-":  # "- inf" is one value
        level.value = False


def _inner(level: _Level) -> _Descriptor | None:
    field = level.descriptor.fields_by_name.get(level.field) if level.descriptor is not None else None
    return field.message_type if field is not None else None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
