"""Long lists are read another way than short ones. The same document is read both ways here, and everything must agree.

A document is made with one mark in each list; the mark becomes nothing (short: plain Python lists) or 5,000 blanks (long: packed).
"""

import json
import random
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.core.tensors import DATATYPES, Datatype
from dragoman.dialects.json import JsonSyntaxError, NumberList, NumbersError, array_of, loads

MARK = "\x00"
INTEGERS = [
    "0",
    "1",
    "-1",
    "7",
    "-0",
    "127",
    "128",
    "-128",
    "-129",
    "255",
    "256",
    "300",
    "65536",
    "2147483648",
    "-2147483649",
    "4294967296",
]
LONG_INTEGERS = ["9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "18446744073709551615"]
TOO_LONG = ["18446744073709551616", "-9223372036854775809", "1" + "0" * 30]
DECIMALS = [
    "0.0",
    "-0.0",
    "1.5",
    "-2.25",
    "1e3",
    "1E+2",
    "12.5e-3",
    "0.1",
    "3.4028236e38",
    "1e39",
    "1e308",
    "5e-324",
    "1e-400",
    "16777217.0",
]
DIGITS = ["0.30000000000000004441", "123456789012345678901234567890.5", "2.2250738585072011e-308"]
TOKENS = ["NaN", "Infinity", "-Infinity", "Inf", "-Inf"]
# The last of these is what packed lists put in the place of NaN while they are parsed.
ODD = ["true", "false", "null", "{}", '"x"', '"NaN"', '{"a":1}', "1e400", "-1e400", "01", "1.", ".5", "-", "+1", "1NaN", "-NaN", "NaN1"]
ODD += ["-7e-287", "-700e-289"]
STRINGS = ['"x"', '"[1,2"', '"]"', '"é"', '"a\\"b"', '"\\\\"', '"NaN"', '"Inf:"', '"\\u00e9"', '""', '": [1, 2"']


def numbers(rng: random.Random) -> list[str]:
    """The pool that one list draws from: mostly of one sort, as lists are."""
    pool = rng.choice([INTEGERS, LONG_INTEGERS, INTEGERS + LONG_INTEGERS, DECIMALS, DECIMALS + DIGITS, INTEGERS + DECIMALS])
    if rng.random() < 0.2:
        pool = pool + TOKENS
    if rng.random() < 0.1:
        pool = [*pool, rng.choice(ODD + TOO_LONG)]
    return pool


def a_list(rng: random.Random, shape: list[int], pool: list[str]) -> str:
    """A list of this shape, now and then with a fault in the nesting."""
    length = shape[0]
    if rng.random() < 0.02:
        length = max(0, length + rng.choice([-1, 1, 2]))
    blank = rng.choice(["", "", "", " ", "\n  "])
    parts = []
    for _ in range(length):
        deeper = len(shape) > 1
        if rng.random() < 0.01:
            deeper = not deeper
        parts.append(a_list(rng, shape[1:] or [rng.randrange(3)], pool) if deeper else rng.choice(pool))
    return "[" + blank + (blank + "," + blank).join(parts) + blank + "]"


def marked(rng: random.Random, text: str) -> str:
    """The text with a mark behind one of its brackets or commas, where blanks may stand."""
    places = [index + 1 for index, letter in enumerate(text) if letter in "[,"]
    place = rng.choice(places)
    return text[:place] + MARK + text[place:]


def document(rng: random.Random) -> str:
    """A document of the kind that clients send, with marks, and often with something wrong. Without the marks it counts as short."""
    while len(text := any_document(rng)) > 4_000:
        pass
    return text


def any_document(rng: random.Random) -> str:
    def value() -> str:
        rank = rng.choice([1, 1, 2, 3, 4])
        shape = [rng.choice([1, 1, 2, 2, 3]) for _ in range(rank)]
        shape[-1] = rng.choice([1, 2, 3, 4, 16, 20])
        return marked(rng, a_list(rng, shape, numbers(rng)))

    string = rng.choice(STRINGS)
    kind = rng.randrange(6)
    if kind == 0:
        text = f'{{"inputs":[{{"name":"a","shape":[1,{rng.randrange(5)}],"datatype":"FP32","data":{value()}}}]}}'
    elif kind == 1:
        text = f'{{"id": {string}, "inputs": [{{"data" : {value()} ,"name":"a"}}, {{"name": {string}, "data":\n{value()}}}]}}'
    elif kind == 2:
        text = f'{{"instances": {value()}}}'
    elif kind == 3:
        text = f'{{"signature_name":{string},"inputs":{{"a":{value()},"b":{value()}}},"n":[1,2,{string}]}}'
    elif kind == 4:
        text = '{"instances":[' + ",".join(f'{{"a":{value()},"b":[{rng.randrange(9)}]}}' for _ in range(rng.randrange(1, 4))) + "]}"
    else:
        text = f'{{"a":{value()},"a":{value()},"c":{{"d":[{string},{value()}],"e":{rng.choice(["1", "null", "NaN"])}}}}}'
    if rng.random() < 0.25:
        # never what stands before a mark: without it, the numbers on both sides might become one
        places = [index for index in range(len(text) - 1) if MARK not in text[index : index + 2]]
        place = rng.choice(places)
        text = text[:place] + rng.choice(["", "", *'[]{},:"0.-eN \\x\t']) + text[place + rng.randrange(2) :]
    if rng.random() < 0.1:
        text += rng.choice(["}", " 1", "]", "NaN", ' "x"', "x", '{"a":[1]}'])
    return text


def both_ways(text: str) -> tuple[bytes, bytes]:
    return text.replace(MARK, "").encode(), text.replace(MARK, " " * 5_000).encode()


def read(body: bytes, **options: bool) -> Any:
    """The document or, for one that is refused, the error."""
    try:
        return loads(body, **options)
    except JsonSyntaxError as exc:
        return exc


def plain(tree: Any, packed: list[NumberList]) -> Any:
    """The document with ordinary lists everywhere; packed ones are gathered on the way."""
    if isinstance(tree, NumberList):
        packed.append(tree)
        return tree.tolist()
    if isinstance(tree, dict):
        return {key: plain(value, packed) for key, value in tree.items()}
    if isinstance(tree, list):
        return [plain(value, packed) for value in tree]
    return tree


def outcome(value: object, datatype: Datatype) -> object:
    """Everything about the array or the error that a codec can see."""
    try:
        array = array_of(value, datatype)
    except NumbersError as exc:
        return exc.fault, exc.datatype, exc.path, exc.value, exc.json_type, exc.expected, exc.got
    assert array.flags.writeable
    assert array.flags.c_contiguous
    assert array.flags.aligned
    return array.dtype, array.shape, array.tolist() if datatype.kind == "bytes" else array.tobytes()


def check(seed: int) -> int:
    """Read one document both ways. Returns how many of its lists were packed."""
    rng = random.Random(seed)
    short, long = both_ways(document(rng))
    found = 0
    for options in ({}, {"nonfinite": True}, {"nonfinite": True, "ignore_rest": True}):
        expected, got = read(short, **options), read(long, **options)
        if isinstance(expected, JsonSyntaxError):
            assert isinstance(got, JsonSyntaxError), long
            assert 0 <= got.offset <= len(long)
            continue
        packed: list[NumberList] = []
        # repr tells 1 from 1.0 and 0.0 from -0.0, and takes one NaN for another
        assert repr(plain(got, packed)) == repr(expected), long
        found += len(packed)
        for item in packed:
            assert len(item) == len(item.tolist())
            for datatype in DATATYPES.values():
                assert outcome(item, datatype) == outcome(item.tolist(), datatype), (item.tolist(), datatype)
    return found


def test_long_and_short_lists_give_the_same_document_arrays_and_errors() -> None:
    """Two thousand documents, a third of them wrong somewhere, read packed and plain; enough of them really were packed."""
    assert sum(check(seed) for seed in range(2_000)) > 2_000


@settings(max_examples=300, deadline=None)
@given(st.integers(min_value=2_000))
def test_long_and_short_lists_agree_for_any_seed(seed: int) -> None:
    """The same for documents that no earlier run has seen."""
    check(seed)


def by_standard_library(text: str) -> Any:
    """An independent reader, told the rules that differ: integers over 64 bits are floats, and there is no float beyond a double."""

    def number(word: str) -> float:
        value = float(word)
        if value in (float("inf"), float("-inf")):
            raise ValueError(word)
        return value

    def integer(word: str) -> int | float:
        value = int(word)
        return value if -(2**63) <= value < 2**64 else number(word)

    return json.loads(text, parse_float=number, parse_int=integer)


@pytest.mark.parametrize("long", [False, True], ids=["plain", "packed"])
def test_documents_with_tokens_agree_with_the_standard_library(long: bool) -> None:
    """NaN and infinities are taken exactly where Python's own reader takes them, and the other values are the same."""
    accepted = 0
    for seed in range(1_500):
        text = document(random.Random(seed))
        if "Inf" in text.replace("Infinity", ""):  # the short spelling is ours alone
            continue
        body = both_ways(text)[long]
        try:
            expected = by_standard_library(body.decode())
        except ValueError:
            assert isinstance(read(body, nonfinite=True), JsonSyntaxError), body
            continue
        assert repr(plain(read(body, nonfinite=True), [])) == repr(expected), body
        accepted += 1
    assert accepted > 500


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=40), st.sampled_from(["FP32", "FP64"]))
def test_every_double_is_read_to_the_last_bit_both_ways(values: list[float], name: str) -> None:
    """A packed list and a plain one give the arrays that numpy makes of the doubles."""
    text = orjson.dumps(values)
    with np.errstate(over="ignore"):
        expected = np.array(values).astype(DATATYPES[name].numpy)
    for value in (NumberList(text), values):
        assert array_of(value, DATATYPES[name]).tobytes() == expected.tobytes()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=20))
def test_every_integer_is_exact_or_refused_both_ways(values: list[int]) -> None:
    """Sixty-four bits come through whole; what an integer type cannot hold is an error and never wraps."""
    text = orjson.dumps(values)
    for datatype in DATATYPES.values():
        if datatype.kind not in ("int", "uint"):
            continue
        limits = np.iinfo(datatype.numpy)
        fits = all(limits.min <= value <= limits.max for value in values)
        for value in (NumberList(text), values):
            if fits:
                assert array_of(value, datatype).tolist() == values
            else:
                with pytest.raises(NumbersError, match="out of range"):
                    array_of(value, datatype)
