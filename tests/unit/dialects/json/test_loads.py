"""Reading documents: what is JSON and what is not, where the error is, tokens for non-finite numbers, and when a list is packed."""

import json
import math
import random
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.tensors import BOOL, BYTES, FP32, FP64, INT8, INT64, UINT64
from dragoman.dialects.json import Fault, JsonSyntaxError, NumberList, NumbersError, array_of, is_list, loads

LONG = list(range(5_000))
LONG_TEXT = orjson.dumps(LONG)


def error_of(body: bytes, **options: bool) -> JsonSyntaxError:
    with pytest.raises(JsonSyntaxError) as caught:
        loads(body, **options)
    return caught.value


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_buffer_is_read(kind: Any) -> None:
    """The server hands over whatever it received the body into, short or long."""
    assert loads(kind(b'{"a":[1,2.0,"x",null,true]}')) == {"a": [1, 2.0, "x", None, True]}
    assert list(loads(kind(b'{"a":' + LONG_TEXT + b"}"))["a"]) == LONG
    assert loads(kind(b'{"a":NaN} x'), nonfinite=True, ignore_rest=True)["a"] != 0


def test_numbers_keep_the_sort_that_they_are_written_in() -> None:
    """1 is an integer; 1.0 and 1e3 are not, and neither is an integer over 64 bits."""
    got = loads(b"[1, 1.0, 1e3, -0, 18446744073709551615, 18446744073709551616]")
    assert [type(item) for item in got] == [int, float, float, int, int, float]


@pytest.mark.parametrize(
    ("body", "offset"),
    [
        (b"", 0),
        (b"[1,2", 4),
        (b'{"a":1} x', 8),
        (b'{"a" 1}', 5),
        (b"[1,]", 3),
        (b"[01]", 1),
        (b"[1e400]", 1),
        (b"[NaN]", 1),
        (b'{"a":[1,nul]}', 8),
        ('{"é":x}'.encode(), 6),
        (b'["a\xff"]', 3),
        (b'["\\ud800"]', 2),
        (b'["a\nb"]', 3),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(body: bytes, offset: int) -> None:
    """Offsets count bytes, also behind characters of several bytes and in text that is not UTF-8."""
    for options in ({}, {"nonfinite": True}, {"ignore_rest": True}):
        if (body, options) in ((b"[NaN]", {"nonfinite": True}), (b'{"a":1} x', {"ignore_rest": True})):
            continue
        error = error_of(body, **options)
        assert abs(error.offset - offset) <= 1  # orjson points at a character or at the one before it
        assert error.reason
        assert str(error.offset) in str(error)


def test_an_empty_document_is_called_so() -> None:
    """TensorFlow Serving has a message of its own for it."""
    assert error_of(b"").reason == "the document is empty"
    assert error_of(b"", nonfinite=True, ignore_rest=True).reason == "the document is empty"


@pytest.mark.parametrize("options", [{}, {"nonfinite": True}, {"nonfinite": True, "ignore_rest": True}])
@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_hostile_depth_is_an_error(opening: bytes, options: dict[str, bool]) -> None:
    """Half a million levels in a key that nobody looks at: no crash of the stack, with or without their ends."""
    deep = opening * 500_000
    closing = {b"[": b"]", b'{"a":': b"}", b'[{"a":': b"}]"}[opening] * 500_000
    for body in (b'{"unused":' + deep, b'{"unused":' + deep + b"1" + closing + b',"inputs":[1]}'):
        assert "depth" in error_of(body, **options).reason


@pytest.mark.parametrize("levels", [10, 32, 33, 65, 100, 1_000, 1_023, 1_024, 2_000])
def test_depth_of_long_lists_is_an_array_or_a_clean_error(levels: int) -> None:
    """Wherever the limit of either reader is met, the answer is one of ours."""
    body = b'{"a":' + b"[" * levels + b"1," * 5_000 + b"1" + b"]" * levels + b"}"
    with pytest.raises((JsonSyntaxError, NumbersError), match=r"depth|deeper") if levels > 32 else nullcontext():
        assert array_of(loads(body)["a"], FP32).size == 5_001


def test_the_last_of_two_equal_keys_wins_short_or_long() -> None:
    """A packed list under a key that comes again is not seen, but must be JSON."""
    assert loads(b'{"a":1,"a":2}') == {"a": 2}
    assert loads(b'{"a":' + LONG_TEXT + b',"a":2}') == {"a": 2}
    assert list(loads(b'{"a":2,"a":' + LONG_TEXT + b"}")["a"]) == LONG
    error_of(b'{"a":' + LONG_TEXT.replace(b"4000", b"4000,,") + b',"a":2}')


def test_tokens_are_numbers_where_asked_for() -> None:
    """All five spellings, anywhere that a value may stand, and not inside strings."""
    body = b'{"a":[NaN, Infinity,-Infinity,Inf,-Inf,1,1.0],"NaN":NaN,"b":{"c":"NaN","d":"\\"NaN","e":[["Inf"],[Inf]]}}'
    got = loads(body, nonfinite=True)
    assert math.isnan(got["a"][0])
    assert got["a"][1:5] == [math.inf, -math.inf, math.inf, -math.inf]
    assert [type(item) for item in got["a"][5:]] == [int, float]
    assert math.isnan(got["NaN"])
    assert got["b"] == {"c": "NaN", "d": '"NaN', "e": [["Inf"], [math.inf]]}
    assert math.isnan(loads(b"NaN", nonfinite=True))
    error_of(body)


@pytest.mark.parametrize(
    "body",
    [
        *(b"[NaN1]", b"[1NaN]", b"[-NaN]", b"[+Infinity]", b"[--Inf]", b"[NaNNaN]", b"[Infinit]", b"[nan]", b"{NaN:1}", b"{NaN :1}"),
        *(
            b"[NaN.5]",
            b"[.NaN]",
            b"[1eNaN]",
            b'["a"NaN]',
            b'[NaN"a"]',
            b'{"a":NaN',
            b"[NaN}",
            b"[1e400,NaN]",
            b'["\\ud800",NaN]',
            b'["NaN]',
        ),
        b"NaN NaN",
    ],
)
def test_words_that_only_resemble_tokens_are_refused(body: bytes) -> None:
    """With tokens allowed, everything else is as strict as without."""
    error_of(body)
    error_of(body, nonfinite=True)


@pytest.mark.parametrize("token", [b"NaN", b"Infinity", b"-Infinity", b"Inf", b"-Inf"])
def test_offsets_behind_tokens_are_those_of_the_text(token: bytes) -> None:
    """Tokens are exchanged while parsing; the client's own text is what the error points into."""
    body = b"[" + b",".join([token] * 20) + b", x, " + token + b"]"
    assert error_of(body, nonfinite=True).offset == body.index(b"x")
    assert error_of(b"[x," + token + b"]", nonfinite=True).offset == 1
    assert error_of(b"[" + token + b"x]", nonfinite=True).offset in (1 + len(token), 2 + len(token))


def test_what_follows_the_document_is_ignored_where_asked_for() -> None:
    """Text, another document, even a wrong one; but the first value must be complete."""
    for rest in (b" x", b"}", b'{"b":', b"NaN", b"\n\n]", b"1"):
        for nonfinite in (False, True):
            assert loads(b'{"a":[1]}' + rest, ignore_rest=True, nonfinite=nonfinite) == {"a": [1]}
            long = loads(b'{"a":' + LONG_TEXT + b"}" + rest, ignore_rest=True, nonfinite=nonfinite)
            assert list(long["a"]) == LONG
    assert math.isnan(loads(b'{"a":NaN} NaN x', ignore_rest=True, nonfinite=True)["a"])
    for body in (b"x", b'{"a":[1', b'{"a" x', b'{"a":x} 1', b""):
        assert error_of(body, ignore_rest=True).offset == error_of(body).offset


def body_with(text: bytes) -> bytes:
    return b'{"id": "a", "inputs": [{"name": "x", "shape": [1], "data": ' + text + b', "datatype": "FP32"}], "n": [1, 2]}'


def test_long_lists_are_packed_and_the_rest_is_plain() -> None:
    """The document around a packed list is as it would be without."""
    got = loads(body_with(LONG_TEXT))
    data = got["inputs"][0].pop("data")
    assert isinstance(data, NumberList)
    assert got == {"id": "a", "inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}], "n": [1, 2]}
    assert len(data) == len(LONG)
    assert data.tolist() == LONG == list(data)
    assert (data[0], data[-1]) == (LONG[0], LONG[-1])
    assert data


def test_lists_are_recognised_packed_or_not() -> None:
    """A codec that must tell lists from objects asks this."""
    assert is_list(loads(body_with(LONG_TEXT))["inputs"][0]["data"])
    assert is_list([])
    others: list[object] = [{}, "[]", None, 1, (1,)]
    assert not any(is_list(value) for value in others)


@pytest.mark.parametrize(
    "text",
    [
        orjson.dumps(np.zeros((7, 5, 300)), option=orjson.OPT_SERIALIZE_NUMPY),
        orjson.dumps(np.zeros((300, 5, 7)), option=orjson.OPT_SERIALIZE_NUMPY),
        orjson.dumps(np.zeros((5_000, 1)), option=orjson.OPT_SERIALIZE_NUMPY),
        json.dumps(np.arange(10_000).reshape(10, 10, 100).tolist(), indent=1).encode(),
        json.dumps(np.arange(10_000).reshape(10, 1_000).tolist(), separators=(" ,\t", ":")).encode(),
    ],
    ids=["long rows", "short rows", "single", "indented", "blanks"],
)
def test_nested_lists_are_packed_whatever_their_layout(text: bytes) -> None:
    """Both proofs of the box, for long and for short rows, agree with the plain reader."""
    data = loads(body_with(text))["inputs"][0]["data"]
    assert isinstance(data, NumberList)
    expected = np.array(json.loads(text))
    assert data.array(FP64) is not None
    assert np.array_equal(array_of(data, FP64), expected)
    assert np.array_equal(array_of(data, FP32), expected.astype("f4"))
    assert array_of(data, FP32).shape == expected.shape


def test_several_packed_lists_keep_their_places() -> None:
    """Rows as objects, columns as objects, and short lists between."""
    row = b'{"a":' + LONG_TEXT + b',"b":[1,2]}'
    got = loads(b'{"instances":[' + b",".join([row] * 3) + b'],"signature_name":"s"}')
    assert [type(item["a"]) for item in got["instances"]] == [NumberList] * 3
    assert array_of([item["a"] for item in got["instances"]], INT64).tolist() == [LONG] * 3
    assert [item["b"] for item in got["instances"]] == [[1, 2]] * 3
    assert got["signature_name"] == "s"


@pytest.mark.parametrize(
    "columns",
    [
        {"a": [[float(n) for n in range(2_000)]] * 5},
        {"a": [list(range(2_000))] * 5, "b": [[0.5] * 2_000] * 5},
        {"a": [[[1.5, 2.5]] * 1_000] * 5, "b": [list(range(2_000))] * 5},
        {"a": [[1] * 2_000, [1] * 2_001, [1] * 2_000]},
        {"a": [[1] * 2_000, [[1] * 2_000], [1] * 2_000]},
        {"a": [[1] * 2_000, [1.5] * 2_000, [2**63] * 2_000]},
        {"a": [[1] * 2_000, [True] * 2_000]},
        {"a": [[1] * 2_000, [math.nan] * 2_000, [math.inf] * 2_000]},
    ],
    ids=lambda columns: f"{len(columns)} columns of {len(columns['a'])}",
)
def test_lists_of_many_objects_are_what_they_are_alone(columns: dict[str, list[Any]]) -> None:
    """Rows whose lists are alike are parsed together; each keeps its own length, items and array."""
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    got = loads(json.dumps({"rows": rows}).encode(), nonfinite=True)["rows"]
    for row, expected in zip(got, rows, strict=True):
        for name, values in expected.items():
            assert len(row[name]) == len(values)
            assert repr(list(row[name])) == repr(values)
            if not isinstance(values[0], bool):
                assert np.array_equal(array_of(row[name], FP64), np.array(values, float), equal_nan=True)
        if "b" in row and isinstance(expected["a"][0], int):
            assert array_of(row["a"], INT64).tolist() == expected["a"]  # decimals beside it do not make decimals of it


@pytest.mark.parametrize("bad", ["[{n}],[{n}]", "[{n}],1]", "[[{n},[1]]", "[{n}]]", "[{n},[1]"])
def test_lists_that_make_up_for_each_other_are_refused(bad: str) -> None:
    """What is no JSON alone is none among others, whatever is on either side of it."""
    numbers = ",".join(["1"] * 3_000)
    for rows in (("[{n}]", bad), (bad, "[{n}]"), (bad, bad), (bad, "[[{n}]]", "[{n}]"), ("[[{n},[1]]", bad, "[{n}],[{n}]")):
        text = '{"rows":[' + ",".join('{"a":' + row.format(n=numbers) + "}" for row in rows) + "]}"
        with pytest.raises(ValueError):
            json.loads(text)
        error_of(text.encode())


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "Inf", "-Inf"])
@pytest.mark.parametrize("count", [1, 3, 99, 100, 101, 5_000])
def test_few_and_many_tokens(token: str, count: int) -> None:
    """A few are looked for one by one, many are replaced at once."""
    words = [token] * count + ["1.5"] * (6_000 - count)
    random.Random(count).shuffle(words)
    got = array_of(loads(f'{{"a":[{",".join(words)}]}}'.encode(), nonfinite=True)["a"], FP64)
    assert got.tolist().count(1.5) == 6_000 - count
    assert int(np.count_nonzero(~np.isfinite(got))) == count
    assert np.array_equal(np.isfinite(got), np.array([word == "1.5" for word in words]))


def test_a_string_cannot_pass_for_a_packed_list() -> None:
    """Text that looks like JSON, braces, quotes and colons inside strings changes nothing."""
    odd = {"a": ": [1,2,3]}", "b": "[" * 5_000, "c": "x" * 10_000, "d": LONG, "e": ", " * 5_000, "f": {"g": LONG}}
    got = loads(orjson.dumps(odd))
    assert list(got["d"]) == LONG == list(got["f"]["g"])
    assert {key: got[key] for key in "abce"} == {key: odd[key] for key in "abce"}


def test_documents_with_many_strings_or_escapes_are_read_plainly() -> None:
    """They are not searched for lists, since the search would cost more than it gains; the content is the same."""
    for document in ({"a\\": LONG, "é\n": 1}, {"words": [str(item) for item in LONG], "data": LONG}):
        assert loads(json.dumps(document).encode()) == document


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *(
            (b",4000,", new)
            for new in (b",4000,,", b",04000,", b",4000 4000,", b",[4000,", b",4000],", b",1e400,", b",NaN,", b",-,", b",{],")
        ),
        *((b"4999]", new) for new in (b"4999]]", b"4999")),
    ],
)
def test_a_fault_inside_a_long_list_is_found_at_its_place(old: bytes, new: bytes) -> None:
    """Also when nobody will look at that list."""
    body = body_with(LONG_TEXT).replace(old, new)
    with pytest.raises(orjson.JSONDecodeError) as caught:
        orjson.loads(body)
    assert error_of(body).offset == caught.value.pos


@pytest.mark.parametrize("word", ["true", "null", "{}", "[]", "[1]", "18446744073709551616", "1e39", "-1"])
def test_long_lists_with_something_else_inside_behave_as_plain_ones(word: str) -> None:
    """Whatever packing makes of them, each datatype gives the same array or the same error."""
    text = LONG_TEXT.replace(b",4000,", f",{word},".encode())
    for datatype in (FP32, FP64, INT8, INT64, UINT64, BOOL, BYTES):
        results = []
        for value in (loads(body_with(text))["inputs"][0]["data"], orjson.loads(text)):
            try:
                results.append(array_of(value, datatype).tobytes())
            except NumbersError as exc:
                results.append(str(exc).encode())
        assert results[0] == results[1]


@pytest.mark.parametrize("shape", [(5_000,), (50, 100), (500, 10)])
def test_long_lists_may_hold_tokens(shape: tuple[int, ...]) -> None:
    """They stay packed, floats get the values, and integers refuse the first token by its place."""
    array = np.arange(5_000, dtype="f8")
    array[[0, 10, 4_999]] = np.nan, np.inf, -np.inf
    text = json.dumps(array.reshape(shape).tolist()).encode()
    data = loads(body_with(text), nonfinite=True)["inputs"][0]["data"]
    assert isinstance(data, NumberList)
    assert np.array_equal(array_of(data, FP64), array.reshape(shape), equal_nan=True)
    assert np.array_equal(array_of(data, FP32), array.reshape(shape).astype("f4"), equal_nan=True)
    assert repr(data.tolist()) == repr(array.reshape(shape).tolist())
    with pytest.raises(NumbersError) as caught:
        array_of(data, INT64)
    assert (caught.value.fault, caught.value.path, caught.value.value) == (Fault.TYPE, (0,) * len(shape), "NaN")
    error_of(body_with(text))


@given(
    st.binary(max_size=60) | st.text(alphabet='[]{},:"\\ 0123456789.eE+-NaInfity\n\t', max_size=60).map(str.encode),
    st.booleans(),
    st.booleans(),
)
def test_no_bytes_raise_anything_else(body: bytes, nonfinite: bool, ignore_rest: bool) -> None:
    """Any text is a document or a JsonSyntaxError inside the text; without options the verdict is orjson's."""
    expected = outcome(orjson.loads, body)
    got = outcome(loads, body, nonfinite=nonfinite, ignore_rest=ignore_rest)
    if isinstance(got, JsonSyntaxError):
        assert 0 <= got.offset <= len(body)
        assert isinstance(expected, orjson.JSONDecodeError)
    elif isinstance(expected, orjson.JSONDecodeError):
        assert nonfinite or ignore_rest
    else:
        assert repr(got) == repr(expected)


def outcome(read: Callable[..., Any], body: bytes, **options: bool) -> Any:
    """The document, or the error of that reader."""
    try:
        return read(body, **options)
    except (JsonSyntaxError, orjson.JSONDecodeError) as exc:
        return exc


@pytest.mark.parametrize("seed", range(3))
def test_truncated_documents_are_refused_at_every_length(seed: int) -> None:
    """A body that ended early never passes for a shorter one."""
    rng = random.Random(seed)
    body = body_with(orjson.dumps(np.arange(6_000.0).reshape(20, 100, 3), option=orjson.OPT_SERIALIZE_NUMPY))
    for _ in range(50):
        cut = rng.randrange(1, len(body))
        assert error_of(body[:cut], nonfinite=seed == 1).offset <= cut
