"""The frame codec: whatever a row may hold comes back as it was; whatever else comes is refused, with no memory set aside for its claims."""

import contextlib
import math
import struct
import tracemalloc
from enum import IntEnum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dragoman.core.tensors import Blob, Failure
from dragoman.hosting.frames import Frame, FrameError, FrameReader, Kind, encode, pack_rows, unpack_rows
from dragoman.hosting.packing import HEADER_LIMIT, MAX_DEPTH

TAG = "0123456789abcdef"
TEXTS = (
    st.text(st.characters(), max_size=20)
    | st.text("a\ud83d\ude00\0é", max_size=8)
    | st.just(TAG)
    | st.sampled_from(["x" * 2000, "é\ud800" * 800])
)
NUMBERS = st.integers() | st.integers(-(2**80), 2**80) | st.just(3**9000) | st.floats()
ARRAYS = hnp.arrays(
    st.sampled_from(["?", "u1", "<u2", "<i8", ">i4", "<f2", "<f4", ">f8", "<c8", "<c16"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
LEAVES = (
    st.none() | st.booleans() | NUMBERS | TEXTS | st.binary(max_size=70) | ARRAYS
    | st.builds(Blob, st.binary(max_size=70), TEXTS, TEXTS)
    | st.lists(st.floats(), min_size=8, max_size=12) | st.lists(st.integers(-(2**63), 2**64), min_size=8, max_size=12)
)  # fmt: skip
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=10) | st.dictionaries(TEXTS, inner, max_size=5), max_leaves=20)


def same(a: Any, b: Any) -> bool:
    """Equality that tells 1, 1.0 and True apart, holds NaN equal to itself, and looks at the type of arrays."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return (a.dtype.newbyteorder("=") == b.dtype.newbyteorder("=") and a.shape == b.shape and a.tolist() == b.tolist()) or (
            a.dtype.kind in "fc" and bool(np.array_equal(a, b, equal_nan=True))
        )  # fmt: skip
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return bool(a == b)


def frames_of(data: bytes, sizes: list[int] | None = None) -> list[Frame]:
    """What a reader makes of these bytes, when they come in pieces of these sizes, again and again."""
    reader = FrameReader()
    found: list[Frame] = []
    begin, turn = 0, 0
    while begin < len(data):
        room = reader.room()
        size = min(len(room), len(data) - begin, sizes[turn % len(sizes)] if sizes else len(data))
        room[:size] = data[begin : begin + size]
        begin += size
        turn += 1
        found += reader.received(size)
    return found


def as_bytes(header: dict[str, Any], kind: Kind = Kind.INFER, tag: str = TAG) -> bytes:
    return b"".join(bytes(part) for part in encode(kind, header, tag))


def raw(header: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    """A frame with any header and body at all."""
    prefix = struct.pack("<4sHHIIQ", b"DRGM", 1, 5, 0, len(header), len(body) if length is None else length)
    return prefix + header + (bytes(-len(header) % 64) + body if body else b"")


@given(st.dictionaries(TEXTS, VALUES, max_size=5))
def test_a_header_comes_back_as_it_was(header: dict[str, Any]) -> None:
    """NaN, big integers, half surrogate pairs, files, arrays, and dicts that hold the tag."""
    (frame,) = frames_of(as_bytes(header))
    assert frame.kind == Kind.INFER
    assert same(frame.read(TAG), header)


@given(st.lists(VALUES, max_size=5))
def test_rows_come_back_as_they_were(rows: list[Any]) -> None:
    """For the store, which knows no tag."""
    assert same(unpack_rows(pack_rows(rows)), rows)


@given(
    st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=3), min_size=1, max_size=5), st.lists(st.integers(1, 300), min_size=1)
)
def test_a_stream_is_cut_wherever_it_was_cut_before(headers: list[dict[str, Any]], sizes: list[int]) -> None:
    """Frames of any size, in pieces of any size."""
    data = b"".join(as_bytes(header) for header in headers)
    found = [frame.read(TAG) for frame in frames_of(data, sizes)]
    assert all(map(same, found, headers))
    assert len(found) == len(headers)


def test_a_large_tensor_stays_where_it_was_received() -> None:
    """It is aligned and writable, a view of the frame's own memory."""
    array = np.arange(5_000_000, dtype="f4").reshape(1000, -1)
    (frame,) = frames_of(as_bytes({"x": array, "small": np.arange(3)}), [60_000, 1 << 20])
    found = frame.read(TAG)
    assert np.array_equal(found["x"], array)
    assert found["x"].flags.aligned
    assert found["x"].flags.writeable
    assert np.shares_memory(found["x"], frame.payload)
    found["small"] += 1


def test_arrays_in_any_order_of_memory_are_sent_in_c_order() -> None:
    """Slices and transposed arrays too."""
    array = np.arange(24, dtype=">i4").reshape(4, 6)
    (frame,) = frames_of(as_bytes({"t": array.T, "s": array[::2, 1::3], "z": np.float64(2.5), "e": np.zeros((3, 0), "f4")}))
    found = frame.read(TAG)
    assert found["t"].tolist() == array.T.tolist()
    assert found["s"].tolist() == array[::2, 1::3].tolist()
    assert found["e"].shape == (3, 0)
    assert same(found["z"], 2.5)


def test_bytes_arrays_keep_every_byte() -> None:
    """Trailing zeros, empty elements, any shape."""
    array = np.array([[b"a\0", b""], [b"\xff" * 70, b"c"]], dtype=object)
    (frame,) = frames_of(as_bytes({"x": array}))
    assert frame.read(TAG)["x"].tolist() == array.tolist()


class Colour(IntEnum):
    RED = 1


def test_relatives_of_plain_values_become_these() -> None:
    """Tuples, members of enumerations, byte arrays; a failure among output rows stays one."""
    assert unpack_rows(pack_rows([(1, 2), Colour.RED, bytearray(b"x"), Failure("why", "trace")])) == [
        [1, 2],
        1,
        b"x",
        Failure("why", "trace"),
    ]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), "type object"),
        ({1: 2}, "a key of type int"),
        ({"a": {1, 2}}, "type set"),
        (np.array(["2020-01-01"], "M8[D]"), "datetime64"),
        (np.array(["x"]), "<U1"),
        (np.array([b"x", "y"], dtype=object), "something else than bytes"),
    ],
)
def test_what_no_row_may_hold_is_refused(value: Any, words: str) -> None:
    """By whoever would send it, naming the type."""
    with pytest.raises(FrameError, match=words):
        pack_rows([value])


@pytest.mark.parametrize("make", [lambda inner: [inner], lambda inner: {"a": inner}, lambda inner: {"\ud800": inner}])
def test_nesting_is_bounded(make: Any) -> None:
    """At a depth that both ends can take; deeper, even without end, is refused in words."""
    value: Any = 1
    for _ in range(MAX_DEPTH - 1):
        value = make(value)
    assert same(unpack_rows(pack_rows([value])), [value])
    with pytest.raises(FrameError, match="nests deeper"):
        pack_rows([make(value)])
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(FrameError, match="nests deeper"):
        pack_rows(endless)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        struct.pack("<4sHHIIQ", b"DRGM", 2, 5, 0, 2, 0) + b"{}",
        struct.pack("<4sHHIIQ", b"DRGM", 1, 5, 0, HEADER_LIMIT + 1, 0),
        struct.pack("<4sHHIIQ", b"DRGM", 1, 5, 0, 2, 1 << 40),
        struct.pack("<4sHHIIQ", b"DRGM", 1, 5, 0, 2, 63),
    ],
)
def test_what_is_no_frame_is_refused_by_its_prefix(data: bytes) -> None:
    """Another protocol, another version, sizes beyond the bounds."""
    with pytest.raises(FrameError):
        frames_of(data)


def tagged(*what: object) -> bytes:
    import json

    return json.dumps({"x": {TAG: list(what)}}).encode()


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (b"", b""),
        (b"[]", b""),
        (b"nonsense", b""),
        (b'{"a":"\xff"}', b""),
        (b"[" * 100_000, b""),
        (b'{"a":' * 100_000, b""),
        (b"{}", bytes(64)),
        (tagged(4, "bytes"), b""),
        (tagged(-4, "bytes"), bytes(64)),
        (tagged(1.5, "bytes"), bytes(64)),
        (tagged(True, "bytes"), bytes(64)),
        (tagged(65, "bytes"), bytes(64)),
        (tagged(1 << 70, "bytes"), bytes(64)),
        (tagged(4, "bytes", 1), bytes(64)),
        (tagged(4), bytes(64)),
        (tagged(), bytes(64)),
        (tagged(4, ["bytes"]), bytes(64)),
        (tagged(4, "pickle"), bytes(64)),
        (tagged(8, "array", "<f4", [3]), bytes(64)),
        (tagged(8, "array", "<f4", [-1]), bytes(64)),
        (tagged(8, "array", "<f4", "2"), bytes(64)),
        (tagged(8, "array", "<f4", [2.0]), bytes(64)),
        (tagged(0, "array", "<f4", [0, 1 << 70]), b""),
        (tagged(8, "array", "O", [1]), bytes(64)),
        (tagged(8, "array", "<b7", [1]), bytes(64)),
        (tagged(8, "array", 5, [1]), bytes(64)),
        (tagged(8, "objects", [1 << 60]), bytes(64)),
        (tagged(8, "objects", [1]), b"\xff" * 64),
        (tagged(3, "f"), bytes(64)),
        (tagged(2, "text"), b"\xff" * 64),
        (tagged(2, "file", 1, "x"), bytes(64)),
        (tagged(0, "failure", 1, "x"), b""),
        (tagged(0, "pairs", [[1, 2]]), b""),
        (tagged(0, "pairs", [[[1], 2]]), b""),
        (tagged(0, "pairs", 5), b""),
    ],
)
def test_a_header_that_lies_is_refused(header: bytes, body: bytes) -> None:
    """Each with a FrameError, never another exception."""
    (frame,) = frames_of(raw(header, body))
    with pytest.raises(FrameError):
        frame.read(TAG)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """As a stream, as a header, as stored rows: FrameError is all that can come of it."""
    for read in (
        lambda: [frame.read(TAG) for frame in frames_of(data)],
        lambda: [frame.read(TAG) for frame in frames_of(raw(data, bytes(64)))],
        lambda: unpack_rows(data),
        lambda: unpack_rows(b"DRGR" + TAG.encode() + data),
    ):
        with contextlib.suppress(FrameError):
            read()


@given(st.integers(0, 5000), st.integers(0, 255))
def test_a_damaged_frame_is_read_or_refused(place: int, byte: int) -> None:
    """One byte of a real frame changed."""
    data = bytearray(as_bytes({"a": [1.5] * 9, "b": b"xyz", "c": np.arange(5.0), "d": Blob(b"1", "a/b", "c"), "e": "\ud800"}))
    data[place % len(data)] = byte
    try:
        for frame in frames_of(bytes(data)):
            frame.read(TAG)
    except FrameError:
        pass


def test_claims_cost_nothing_until_bytes_come() -> None:
    """A prefix that promises gigabytes gets room for a few megabytes; a buffer cannot be named twice to multiply it."""
    prefix = struct.pack("<4sHHIIQ", b"DRGM", 1, 5, 0, 64, 3 << 30)
    tracemalloc.start()
    try:
        reader = FrameReader()
        reader.room()[: len(prefix)] = prefix
        assert list(reader.received(len(prefix))) == []
        assert len(reader.room()) <= 16 << 20
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    header = b'{"x":[' + b",".join([b'{"%s":[64,"bytes"]}' % TAG.encode()] * 2) + b"]}"
    (frame,) = frames_of(raw(header, bytes(64)))
    with pytest.raises(FrameError, match="not there"):
        frame.read(TAG)


def test_a_client_cannot_forge_a_value() -> None:
    """A dict that looks like a tagged value, with the very tag, stays a dict."""
    forged = {TAG: [4, "bytes"]}
    (frame,) = frames_of(as_bytes({"row": forged, TAG: 1}))
    assert frame.read(TAG) == {"row": forged, TAG: 1}


@pytest.mark.parametrize("cut", [0, 3, 10, 23, 24, 60])
def test_stored_rows_that_were_cut_off_are_refused(cut: int) -> None:
    """Wherever that happened."""
    data = pack_rows([{"a": b"some bytes"}])
    with pytest.raises(FrameError):
        unpack_rows(data[: len(data) - 65 if cut == 60 else cut])
