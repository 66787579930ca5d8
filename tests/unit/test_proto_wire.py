"""Walking and writing messages without message objects, compared with what protobuf itself makes of the same bytes."""

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.proto import messages, wire
from dragoman.proto.wire import FIXED32, FIXED64, LENGTH, VARINT, fields, tag

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
UINT64 = st.integers(0, (1 << 64) - 1)


def walked(message: bytes) -> list[tuple[int, int, int | bytes]]:
    """Number, wire type and value of every field."""
    return [(key >> 3, key & 7, value if isinstance(value, int) else bytes(value)) for key, value in fields(message)]


def test_every_wire_type_is_walked() -> None:
    """Numbers are ints, everything else is the bytes of its value."""
    message = b"\x08\x96\x01" + b"\x12\x03abc" + b"\x1d\x00\x00\x80\x3f" + b"\x21" + bytes(8) + b"\xa2\x06\x00"
    assert walked(message) == [
        (1, VARINT, 150),
        (2, LENGTH, b"abc"),
        (3, FIXED32, b"\0\0\x80\x3f"),
        (4, FIXED64, bytes(8)),
        (100, LENGTH, b""),
    ]
    assert walked(b"") == []


def test_values_are_views_of_the_message() -> None:
    """Nothing is copied: the array that a field becomes lies in the message."""
    message = wire.head(7, 4000) + np.arange(1000, dtype="<f4").tobytes()
    ((key, value),) = fields(message)
    assert key == tag(7, LENGTH)
    array = wire.fixed_numbers([value], "<f4")
    assert array[999] == 999
    assert np.shares_memory(array, np.frombuffer(message, np.uint8))


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"\x0a", id="length missing"),
        pytest.param(b"\x0a\x05abc", id="value too short"),
        pytest.param(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", id="length of 2^64 - 1"),
        pytest.param(b"\x08", id="number missing"),
        pytest.param(b"\x08\x80", id="number cut"),
        pytest.param(b"\x08" + b"\x80" * 10 + b"\x01", id="number of eleven bytes"),
        pytest.param(b"\x08" + b"\xff" * 9 + b"\x02", id="number above 64 bits"),
        pytest.param(b"\x80", id="key cut"),
        pytest.param(b"\x00\x01", id="field 0"),
        pytest.param(b"\x02\x00", id="field 0 with a length"),
        pytest.param(b"\xf8\xff\xff\xff\x7f\x01", id="field above 2^29"),
        pytest.param(b"\x0b\x0c", id="group"),
        pytest.param(b"\x0e", id="wire type 6"),
        pytest.param(b"\x0f", id="wire type 7"),
        pytest.param(b"\x0d\x00", id="fixed value cut"),
        pytest.param(b"\x09" + bytes(7), id="fixed value of 64 bits cut"),
    ],
)
def test_damaged_messages_are_refused(message: bytes) -> None:
    """INVALID_INPUT, and never another exception."""
    with pytest.raises(ServingError) as caught:
        walked(message)
    assert caught.value.kind is Kind.INVALID_INPUT


@given(st.binary(max_size=60))
def test_no_bytes_break_the_walk(message: bytes) -> None:
    """Either fields or INVALID_INPUT, which is the only ServingError that the module raises."""
    with contextlib.suppress(ServingError):
        assert all(key > 0 for key, _, _ in walked(message))


@given(st.lists(INT64), st.lists(st.integers(-(1 << 31), (1 << 31) - 1)), st.text(), st.floats(width=32))
def test_what_protobuf_writes_is_read(shape: list[int], sizes: list[int], name: str, value: float) -> None:
    """Packed numbers of either sign and text come out as they went in."""
    reshape: Any = messages.new("inference.ModelTensorReshape")
    reshape.shape.extend(shape)
    found = wire.varint_numbers([piece for _, piece in fields(reshape.SerializeToString())]).view(np.int64)
    assert found.tolist() == shape
    batching: Any = messages.new("inference.ModelDynamicBatching")
    batching.preferred_batch_size.extend(sizes)
    found = wire.varint_numbers([piece for _, piece in fields(batching.SerializeToString())]).view(np.int64)
    assert found.tolist() == sizes
    config: Any = messages.new("inference.ModelConfig")
    config.name = name
    assert [wire.text(piece, "name") for _, piece in fields(config.SerializeToString())] == ([name] if name else [])


@given(st.lists(UINT64, max_size=40), st.lists(UINT64, max_size=5))
def test_packed_and_single_numbers_mix(packed: list[int], single: list[int]) -> None:
    """A repeated field may come in packed pieces and single numbers by turns, as protobuf demands of every reader."""
    parts: list[wire.Buffer] = []
    wire.put(parts, 1, wire.packed_varints(np.array(packed, np.uint64)))
    for value in single:
        wire.put_varint(parts, 1, value)
    wire.put(parts, 1, wire.packed_varints(np.array(packed, np.uint64)))
    pieces = [piece for _, piece in fields(b"".join(parts))]
    assert wire.varint_numbers(pieces).tolist() == [*packed, *single, *packed]


@given(st.lists(INT64))
def test_what_is_written_is_read_by_protobuf(shape: list[int]) -> None:
    """Packed numbers, numbers, text and messages within messages."""
    parts: list[wire.Buffer] = []
    wire.put(parts, 1, "näme".encode())
    inner: list[wire.Buffer] = []
    wire.put(inner, 1, wire.packed_varints(np.array(shape, np.int64)))
    tensor: list[wire.Buffer] = []
    wire.put(tensor, 1, memoryview(b"x"))
    wire.nest(tensor, 5, inner)
    wire.nest(parts, 5, tensor)
    wire.put_varint(parts, 4, -3)
    config: Any = messages.message_class("inference.ModelConfig").FromString(b"".join(parts))
    assert (config.name, config.max_batch_size) == ("näme", -3)
    assert (config.input[0].name, list(config.input[0].reshape.shape)) == ("x", shape)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, (1 << 63) - 1, -1, -(1 << 63)])
def test_numbers_round_trip(value: int) -> None:
    """A number of a signed field is itself again."""
    ((_, found),) = fields(b"\x08" + wire.varint(value))
    assert wire.signed(found) == value


@pytest.mark.parametrize("packed", [b"\x80", b"\x01\x80", b"\xff" * 10, b"\xff" * 9 + b"\x02", b"\x80" * 11 + b"\x01"])
def test_damaged_packed_numbers_are_refused(packed: bytes) -> None:
    """Cut, too long, or above 64 bits."""
    with pytest.raises(ServingError) as caught:
        wire.varint_numbers([memoryview(packed)])
    assert caught.value.kind is Kind.INVALID_INPUT


def test_fixed_numbers_join_and_must_be_whole() -> None:
    """Several pieces are one array; three bytes are no float."""
    one = np.float32(1.5).tobytes()
    assert wire.fixed_numbers([memoryview(one), memoryview(one * 2)], "<f4").tolist() == [1.5, 1.5, 1.5]
    assert wire.fixed_numbers([], "<f8").tolist() == []
    with pytest.raises(ServingError, match="3 bytes are no whole number of elements of float32"):
        wire.fixed_numbers([memoryview(one[:3])], "<f4")


def test_text_must_be_text() -> None:
    """The error names the field."""
    with pytest.raises(ServingError, match="the name is not valid UTF-8"):
        wire.text(memoryview(b"\xff"), "the name")


def test_endless_little_fields_are_refused() -> None:
    """A message of more fields than any client sends does not keep the server busy."""
    message = b"\x0a\x00" * ((1 << 16) + 1)
    with pytest.raises(ServingError, match="more than 65536 fields"):
        list(fields(message))
    assert len(list(fields(message, wire.ELEMENTS))) == (1 << 16) + 1


@pytest.mark.parametrize(
    ("dtype", "values"), [("?", [True, False]), ("i1", [-1, 5]), ("<u2", [65535]), ("<u8", [(1 << 64) - 1]), ("<i4", [])]
)
def test_arrays_of_any_integer_type_are_packed(dtype: str, values: list[int]) -> None:
    """As protobuf packs them: sign extended to 64 bits, booleans as 0 and 1."""
    found = wire.varint_numbers([memoryview(wire.packed_varints(np.array(values, dtype)))])
    assert found.tolist() == [int(value) % (1 << 64) for value in values]
