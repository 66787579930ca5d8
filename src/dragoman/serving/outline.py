"""Walks the text form of a message before it is parsed: bounds its nesting, and takes out the fields that the message does not have.

The parser could skip unknown fields itself, but says nothing about them, and needs minutes for a long line full of them; it also recurses as
deep as the text does. This walk is a loop over tokens with its own stack. It is no validator: what it does not understand, it leaves for the
parser to refuse. Called by proto_text.py.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, TypeAlias

from dragoman.proto.messages import TextError

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
_ESCAPED = re.compile(r"""(?:[^\\]++|\\(?:[abfnrtvxuU\\'"]|[0-3][0-7]{0,2}|[4-7][0-7]?(?![0-7])))*+""")
"""A string up to the first escape sequence that is none. The parser would only complain of those to the developer, as Python does."""
_NOT_LINE_FEED = re.compile(r"[^\n]")
_MOST = 100


@dataclass(frozen=True, slots=True)
class Unknown:
    """A field that its message does not have, by path and by where it stands (from 1)."""

    path: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Outline:
    """`known` is the text with blanks in place of unknown fields: what is left stands where it stood."""

    known: str
    unknown: tuple[Unknown, ...]
    """In order, a hundred at most."""
    unknown_count: int


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
    unknown_from: int = -1
    """Where the unknown field begins that has not ended yet."""


class _Walk:
    """The state of one walk: open messages, and what was found so far."""

    def __init__(self, text: str, root: _Descriptor) -> None:
        self.text = text
        self.levels = [_Level(root, "")]
        self.lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self.unknown: list[Unknown] = []
        self.count = 0
        self.kept: list[str] = []
        self.kept_until = 0

    def name(self, level: _Level, name: str, start: int) -> None:
        """A field begins here, and with it ends the one before."""
        self.end_unknown(level, start)
        level.field = name
        if level.descriptor is None or name in level.descriptor.fields_by_name:
            return
        level.unknown_from = start
        self.count += 1
        if self.count <= _MOST:
            line = self.line(start)
            self.unknown.append(Unknown(_join(level.path, name), line, start - self.lines[line - 1] + 1))

    def end_unknown(self, level: _Level, end: int) -> None:
        """Put blanks over the unknown field that this level is in, if any."""
        if level.unknown_from >= 0:
            self.kept.append(self.text[self.kept_until : level.unknown_from])
            self.kept.append(_NOT_LINE_FEED.sub(" ", self.text[level.unknown_from : end]))
            self.kept_until, level.unknown_from = end, -1

    def check_escapes(self, string: str, start: int) -> None:
        """Raise TextError for a backslash that begins no escape sequence; one at the very end is an open string, which the parser refuses."""
        match = _ESCAPED.match(string)
        good = match.end() if match else 0
        if good < len(string) - 1:
            raise self.error(f"{string[good : good + 2]!r} is not an escape sequence", start + good)

    def error(self, message: str, position: int) -> TextError:
        line = self.line(position)
        return TextError(message, line, position - self.lines[line - 1] + 1)

    def line(self, position: int) -> int:
        return bisect_right(self.lines, position)


def outline(text: str, root: _Descriptor, depth: int) -> Outline:
    """Find and take out the fields that `root` does not have.

    Raises TextError beyond `depth` nested messages, and for escape sequences that do not exist.
    """
    walk = _Walk(text, root)
    levels = walk.levels
    for token in _TOKEN.finditer(text):
        kind, level = token.lastgroup, levels[-1]
        if kind == "space":
            continue
        if kind in {"string", "number"}:
            level.value = False
            if kind == "string":
                walk.check_escapes(token.group(), token.start())
        elif kind == "name":
            if level.value or level.items:
                level.value = False
            else:
                walk.name(level, token.group(), token.start())
        elif token.group() in "{<":
            level.value = False
            levels.append(_Level(_inner(level), _join(level.path, level.field)))
            if len(levels) > depth:
                raise walk.error(f"more than {depth} messages are nested into each other", token.start())
        elif token.group() in "}>":
            if len(levels) > 1:
                walk.end_unknown(levels.pop(), token.start())
        else:
            _sign(level, token.group())
    for level in levels:
        walk.end_unknown(level, len(text))
    return Outline("".join([*walk.kept, text[walk.kept_until :]]), tuple(walk.unknown), walk.count)


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
