"""Bare NaN and Infinity, which JSON does not have but TensorFlow Serving and many clients write. Used by reading.py and packed.py."""

import os
import re
from typing import Any

import numpy as np
import orjson

from dragoman.core.tensors import Array
from dragoman.dialects.json.errors import JsonSyntaxError, syntax_error

NAN, INFINITY = float("nan"), float("inf")
_TOKENS = {b"NaN": NAN, b"Infinity": INFINITY, b"Inf": INFINITY, b"-Infinity": -INFINITY, b"-Inf": -INFINITY}

# Strings first, so that what looks like a token inside one is passed over; a token before a colon would be a key, and stays an error.
# Possessive, so that a string which never ends costs one pass and not one per character. Each branch begins with a letter of its own,
# which makes the search five times faster than one that begins with an optional sign.
_STRING_OR_TOKEN = re.compile(
    rb'"(?:[^"\\]++|\\.)*+"?|-(?:NaN|Inf(?:inity)?+)(?!\s*+:)|NaN(?!\s*+:)|Inf(?:inity)?+(?!\s*+:)',
    re.DOTALL,
)

# Numbers to stand for tokens where only numbers are. Each begins with a sign, so that a token behind something else stays an error; a digit
# behind a token makes another number, which is noticed by counting, and so is the same number written by a client.
_FOR_NAN, _FOR_PLUS, _FOR_MINUS = -7e-287, -8e-287, -9e-287
_VALUES = {_FOR_NAN: NAN, _FOR_PLUS: INFINITY, _FOR_MINUS: -INFINITY}
# Longer tokens first; the letter is looked for before the token, since one memchr costs a fiftieth of a search for several letters.
_NUMBERS = (
    (b"-Infinity", b"I", _FOR_MINUS),
    (b"Infinity", b"I", _FOR_PLUS),
    (b"-Inf", b"I", _FOR_MINUS),
    (b"Inf", b"I", _FOR_PLUS),
    (b"NaN", b"N", _FOR_NAN),
)
_FEW_TOKENS = 100


def parse_with_tokens(text: bytes) -> Any:
    """What orjson would parse if the tokens were JSON: all its other rules hold. Raises JsonSyntaxError with offsets in `text`.

    Strings are put in the place of tokens, orjson parses, and floats are put in the place of those strings.
    """
    marker = os.urandom(6).hex()  # made after the text had come, so that no string in it is taken for a token
    stand_ins = {f"{marker}{index}": value for index, value in enumerate(_TOKENS.values())}
    words = {token: f'"{name}"'.encode() for token, name in zip(_TOKENS, stand_ins, strict=True)}
    pieces: list[bytes] = []
    start = 0
    for match in _STRING_OR_TOKEN.finditer(text):
        word = words.get(match[0])
        if word is not None:
            pieces += (text[start : match.start()], word)
            start = match.end()
    replaced = b"".join([*pieces, text[start:]])
    try:
        tree = orjson.loads(replaced)
    except orjson.JSONDecodeError as exc:
        error = syntax_error(exc, replaced)
    else:
        return replace_strings(tree, stand_ins) if pieces else tree
    grown = 0
    for match in _STRING_OR_TOKEN.finditer(text):
        longer = len(words.get(match[0], match[0])) - len(match[0])
        if match.end() + grown + longer > error.offset:
            break
        grown += longer
    raise JsonSyntaxError(error.offset - grown, error.reason)


def without_tokens(text: bytes) -> tuple[bytes, dict[float, int]]:
    """A list of numbers with its tokens written as numbers, and how often each of those was written. For `put_back`."""
    counts: dict[float, int] = {}
    for token, letter, number in _NUMBERS:
        text, found = _replaced(text, token, letter, repr(number).encode())
        if found:
            counts[number] = counts.get(number, 0) + found
    return text, counts


def _replaced(text: bytes, token: bytes, letter: bytes, written: bytes) -> tuple[bytes, int]:
    """`text.replace(token, written)` and how often that was done. A few tokens in a long text are found by their letter, in a tenth of the time."""
    back = token.index(letter)
    pieces: list[bytes] = []
    done, place = 0, text.find(letter)
    for _ in range(_FEW_TOKENS):
        if place < 0:
            break
        start = place - back
        if start >= done and text.startswith(token, start):
            pieces += (text[done:start], written)
            done = start + len(token)
        place = text.find(letter, max(place + 1, done))
    else:
        longer = text.replace(token, written)
        return longer, (len(longer) - len(text)) // (len(written) - len(token))
    return (b"".join([*pieces, text[done:]]), len(pieces) // 2) if pieces else (text, 0)


def put_back(numbers: Array, counts: dict[float, int]) -> bool:
    """Undo `without_tokens` in the parsed numbers, in place. False if their count differs: then they are of no use."""
    for number, count in counts.items():
        places = numbers == number
        if np.count_nonzero(places) != count:
            return False
        numbers[places] = _VALUES[number]
    return True


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
