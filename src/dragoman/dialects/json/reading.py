"""JSON text to Python objects: orjson, a packed form for long number lists, and bare NaN and Infinity where a protocol allows them.

Called by the codecs through `dragoman.dialects.json`.
"""

import os
import re
from typing import Any

import orjson

from dragoman.dialects.json.errors import JsonSyntaxError

_TOKENS = {b"NaN": float("nan"), b"Infinity": float("inf"), b"Inf": float("inf"), b"-Infinity": float("-inf"), b"-Inf": float("-inf")}

# Strings first, so that what looks like a token inside one is passed over; a token before a colon would be a key, and stays an error.
# Possessive, so that a string which never ends costs one pass and not one per character.
_STRING_OR_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|(?<![\w.+-])-?(?:NaN|Infinity|Inf)(?![\w.+-])(?!\s*+:)', re.DOTALL)


def loads(body: bytes | bytearray | memoryview, *, nonfinite: bool = False, ignore_rest: bool = False) -> Any:
    """Parse JSON in UTF-8: no number beyond a double, at most 1,024 levels, of duplicate keys the last wins. Raises JsonSyntaxError.

    Long lists of nothing but numbers may come back as NumberList. Integers over 64 bits come back as floats.
    `nonfinite`: NaN, Infinity, -Infinity, Inf and -Inf are numbers too; a text that holds any is read some four times slower.
    `ignore_rest`: what follows the first complete value is ignored, as TensorFlow Serving does.
    """
    try:
        return _complete(body, ignore_rest)
    except JsonSyntaxError:
        if not nonfinite:
            raise
    return _with_tokens(bytes(body), ignore_rest)


def _complete(body: bytes | bytearray | memoryview, ignore_rest: bool) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        error = _syntax_error(exc, body)
    if ignore_rest and error.offset:
        # What stands before an error is a complete value only when the error is that the text goes on.
        try:
            return orjson.loads(memoryview(body)[: error.offset])
        except orjson.JSONDecodeError:
            pass
    raise error


def _syntax_error(exc: orjson.JSONDecodeError, body: bytes | bytearray | memoryview) -> JsonSyntaxError:
    """orjson counts characters, and does not say where invalid UTF-8 is."""
    if len(body) == 0:
        return JsonSyntaxError(0, "the document is empty")
    if exc.doc:
        return JsonSyntaxError(len(exc.doc[: exc.pos].encode()), exc.msg)
    try:
        bytes(body).decode()
    except UnicodeDecodeError as fault:
        return JsonSyntaxError(fault.start, "invalid UTF-8")
    return JsonSyntaxError(exc.pos, exc.msg)


def _with_tokens(text: bytes, ignore_rest: bool) -> Any:
    """Put strings in the place of the tokens, let orjson parse (so that its rules hold), and floats in the place of those strings."""
    marker = os.urandom(16).hex()  # made after the text had come, so no string in it can equal a stand-in
    stand_ins = {f"{marker}{index}": value for index, value in enumerate(_TOKENS.values())}
    words = {token: f'"{name}"'.encode() for token, name in zip(_TOKENS, stand_ins, strict=True)}
    pieces: list[bytes] = []
    shifts: list[tuple[int, int]] = []  # offset behind a stand-in, and how much longer the text has become by then
    start = grown = 0
    for match in _STRING_OR_TOKEN.finditer(text):
        word = words.get(match[0])
        if word is not None:
            pieces += (text[start : match.start()], word)
            start = match.end()
            grown += len(word) - len(match[0])
            shifts.append((start + grown, grown))
    pieces.append(text[start:])
    try:
        tree = _complete(b"".join(pieces), ignore_rest)
    except JsonSyntaxError as exc:
        shift = max((grown for end, grown in shifts if end <= exc.offset), default=0)
        raise JsonSyntaxError(exc.offset - shift, exc.reason) from None
    return replace_strings(tree, stand_ins)


def replace_strings(tree: Any, replacements: dict[str, Any]) -> Any:
    """`tree` with every string value that is a key of `replacements` replaced, in place. Not recursive: depth costs no stack."""
    holder = [tree]
    waiting: list[Any] = [holder]
    while waiting:
        node = waiting.pop()
        if type(node) is dict:
            for key, value in node.items():
                if type(value) is str:
                    if value in replacements:
                        node[key] = replacements[value]
                elif type(value) is dict or type(value) is list:
                    waiting.append(value)
            continue
        types = set(map(type, node))
        if str in types:
            node[:] = [replacements.get(item, item) if type(item) is str else item for item in node]
        if list in types or dict in types:
            waiting.extend(item for item in node if type(item) is list or type(item) is dict)
    return holder[0]
