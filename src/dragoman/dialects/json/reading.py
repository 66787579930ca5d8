"""JSON text to Python objects: orjson, a packed form for long number lists, and bare NaN and Infinity where a protocol allows them.

Called by the codecs through `dragoman.dialects.json`.
"""

import os
import re
from typing import Any

import orjson

from dragoman.dialects.json.errors import JsonSyntaxError, syntax_error
from dragoman.dialects.json.packed import MAX_DEPTH, NumberList
from dragoman.dialects.json.tokens import parse_with_tokens, replace_strings

_PACK_FROM = 8_192
"""Bytes of a text from which packing is tried, and below which orjson and Python lists are as fast (benchmarks/json_decode.py)."""
_LONG = 4_096
"""Bytes of a list that is worth packing, and least bytes per string in a text that is worth searching for such lists."""
_FEW_STRINGS = 64
"""Strings beside those that any envelope may have."""
_MAX_BRACKETS = 900
"""Together with the levels of a packed list this stays below the nesting that orjson would refuse."""

# What stands between a key and the first number of its list, and what may stand behind the last one until the next string.
_LIST_OPENS = re.compile(rb"\s*+:\s*+(\[[\[\s]*+)[-0-9NI]")
_BEHIND_LISTS = b"[]{},: \t\r\n"


def loads(body: bytes | bytearray | memoryview, *, nonfinite: bool = False, ignore_rest: bool = False) -> Any:
    """Parse JSON in UTF-8: no number beyond a double, at most some 1,024 levels, of duplicate keys the last wins. Raises JsonSyntaxError.

    A list that is long and holds no strings may come back as NumberList. Integers over 64 bits come back as floats.
    `nonfinite`: NaN, Infinity, -Infinity, Inf and -Inf are numbers too. `ignore_rest`: what follows the first complete value is ignored.
    """
    if len(body) >= _PACK_FROM:
        body = bytes(body)
        packed = _packed(body, nonfinite)
        if packed is not None:
            return packed
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        fault = exc
    text = bytes(body)
    try:
        if nonfinite:
            return parse_with_tokens(text)
        raise syntax_error(fault, text)
    except JsonSyntaxError as exc:
        if not ignore_rest:
            raise
        error = exc
    try:  # what stands before an error is a complete value only when the error is that the text goes on
        return parse_with_tokens(text[: error.offset]) if nonfinite else orjson.loads(text[: error.offset])
    except ValueError:
        raise error from None


def _packed(text: bytes, nonfinite: bool) -> Any:
    """Parse with long number lists cut out: the rest by orjson with a string in the place of each, each list by itself.

    The text is valid exactly if the rest and every list are, since a value was exchanged for a value. Returns None when there is no such
    list or anything is odd, and so leaves the verdict to orjson.
    """
    columns: dict[bytes, dict[str, bytes]] = {}
    marker = os.urandom(6).hex()  # made after the text had come, so that no string in it is taken for a list
    pieces: list[bytes] = []
    done = 0
    for key, start, end in _long_gaps(text):
        opening = _LIST_OPENS.match(text, start, end)
        if opening is None:
            continue
        first, levels = opening.start(1), opening[1].count(b"[")
        if levels > MAX_DEPTH:
            continue
        window = max(first, end - _LONG)
        last = window + len(text[window:end].rstrip(_BEHIND_LISTS))  # behind the last number; its list ends as deep as it began
        for _ in range(levels):
            last = text.find(b"]", last, end) + 1 or end
        name = f"{marker}{first}"
        columns.setdefault(key, {})[name] = text[first:last]
        pieces += (text[done:first], f'"{name}"'.encode())
        done = last
    pieces.append(text[done:])
    rest = b"".join(pieces)
    if not columns or rest.count(b"[") + rest.count(b"{") > _MAX_BRACKETS:
        return None
    try:
        tree = parse_with_tokens(rest) if nonfinite else orjson.loads(rest)
        lists: dict[str, Any] = {}
        for column in columns.values():
            lists.update(zip(column, NumberList.of_each(list(column.values()), nonfinite), strict=True))
        return replace_strings(tree, lists)
    except (ValueError, RuntimeError):
        return None


def _long_gaps(text: bytes) -> list[tuple[bytes, int, int]]:
    """Stretches of at least _LONG bytes outside strings, each with the string before it. None at all for a text with escapes or many strings."""
    gaps: list[tuple[bytes, int, int]] = []
    if b"\\" in text:
        return gaps
    opening = text.find(b'"')
    for _ in range(_FEW_STRINGS + len(text) // _LONG):
        close = text.find(b'"', opening + 1)
        if opening < 0 or close < 0:
            return gaps
        key = text[opening + 1 : close]
        opening = text.find(b'"', close + 1)
        end = opening if opening >= 0 else len(text)
        if end - close > _LONG:
            gaps.append((key, close + 1, end))
    return gaps if opening < 0 else []
