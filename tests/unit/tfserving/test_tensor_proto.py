"""TensorProto to tensors and back: against protobuf's own messages, over every datatype, and with what strangers may send."""

from typing import Any

import numpy as np
import pytest

from dragoman.core import tensors as t
from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import Datatype, Tensor
from dragoman.dialects.tfserving.room import Room
from dragoman.dialects.tfserving.tensor_proto import decode, encode
from tests.tensor_protos import ALL, FIELDS, VALUES, array_of, proto, typed


def read(message: Any, limit: int = 1 << 20) -> Tensor:
    return decode("x", message.SerializeToString(), Room(limit))


def refusal(message: Any, limit: int = 1 << 20) -> ServingError:
    with pytest.raises(ServingError) as caught:
        read(message, limit)
    return caught.value


def same(tensor: Tensor, datatype: Datatype) -> None:
    """The tensor has the values of its datatype, and is the caller's own."""
    array = tensor.array
    assert (tensor.name, tensor.datatype, array.shape, array.dtype) == ("x", datatype, (2, 3), datatype.numpy)
    assert array.tolist() == array_of(datatype).tolist()
    assert array.flags.writeable
    assert array.flags.aligned


@pytest.mark.parametrize("datatype", ALL)
def test_repeated_fields_are_read(datatype: Datatype) -> None:
    """Every datatype from the field that TensorFlow's own helper fills."""
    same(read(proto(datatype, (2, 3), **{FIELDS[datatype]: typed(datatype)})), datatype)


@pytest.mark.parametrize("datatype", [each for each in ALL if each.values[0] is not t.BYTES])
def test_contents_are_read(datatype: Datatype) -> None:
    """Every datatype of fixed size from tensor_content, little-endian."""
    same(read(proto(datatype, (2, 3), tensor_content=array_of(datatype).tobytes())), datatype)


def test_texts_are_read_from_contents() -> None:
    """Lengths first, then all the texts: how TensorFlow packs them."""
    values = VALUES[t.BYTES]
    lengths = b"".join(bytes([n & 0x7F | 0x80, n >> 7]) if n > 127 else bytes([n]) for n in map(len, values))
    same(read(proto(t.BYTES, (2, 3), tensor_content=lengths + b"".join(values))), t.BYTES)


@pytest.mark.parametrize("datatype", ALL)
def test_answers_are_what_protobuf_writes(datatype: Datatype) -> None:
    """Clients find shape, datatype and elements where they look for them, and the bytes are protobuf's own."""
    written = b"".join(encode(Tensor("x", datatype, array_of(datatype))))
    assert written == proto(datatype, (2, 3), **{FIELDS[datatype]: typed(datatype)}).SerializeToString()


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1, 1)])
@pytest.mark.parametrize("datatype", [t.FP32, t.INT64, t.BYTES])
def test_shapes_survive(datatype: Datatype, shape: tuple[int, ...]) -> None:
    """Scalars, and tensors without elements, come back as they went."""
    array: Any = np.full(shape, b"a" if datatype is t.BYTES else 7, datatype.numpy)
    back = decode("x", b"".join(encode(Tensor("x", datatype, array))), Room(0))
    assert back.array.shape == shape
    assert back.array.tolist() == array.tolist()


def test_arrays_that_are_laid_out_otherwise_are_written() -> None:
    """A transposed view goes out in C order."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert b"".join(encode(Tensor("x", t.FP32, array))) == proto(t.FP32, (3, 2), float_val=[0, 3, 1, 4, 2, 5]).SerializeToString()


@pytest.mark.parametrize(
    ("datatype", "given", "expected"),
    [
        pytest.param(t.FP32, [2.5], [2.5] * 4, id="one for all"),
        pytest.param(t.INT64, [1, 2], [1, 2, 2, 2], id="the last for the rest"),
        pytest.param(t.BYTES, [b"a", b"b"], [b"a", b"b", b"b", b"b"], id="texts"),
        pytest.param(t.COMPLEX64, [1.0, 2.0], [1 + 2j] * 4, id="a pair of floats"),
        pytest.param(t.INT32, [], [0] * 4, id="none is zero"),
        pytest.param(t.BYTES, [], [b""] * 4, id="no text is empty text"),
    ],
)
def test_the_last_element_stands_for_the_missing(datatype: Datatype, given: list[Any], expected: list[Any]) -> None:
    """As TensorFlow reads them: a constant tensor is sent as one value."""
    assert read(proto(datatype, (4,), **{FIELDS[datatype]: given})).array.tolist() == expected


def test_numbers_may_come_unpacked_and_in_pieces() -> None:
    """Old writers send one field per number, and a message may be the sum of two."""
    packed = proto(t.INT32, (4,), int_val=[1, -2]).SerializeToString()
    single = b"\x38\x03\x38\x04"  # field 7, twice
    assert decode("x", packed + single, Room(0)).array.tolist() == [1, -2, 3, 4]
    floats = proto(t.FP32, (2,), float_val=[1.0]).SerializeToString() + b"\x2d" + np.float32(2).tobytes()
    assert decode("x", floats, Room(0)).array.tolist() == [1.0, 2.0]


def test_unknown_fields_are_left_unread() -> None:
    """Fields of later versions, and of another wire type than they should have, are not this server's business."""
    written = proto(t.FP32, (1,), float_val=[1.0]).SerializeToString() + b"\xfa\x3f\x01a" + b"\x28\x07"
    assert decode("x", written, Room(0)).array.tolist() == [1.0]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        pytest.param(proto(0, (1,)), "its data type is number 0", id="no data type"),
        pytest.param(proto(20, (1,)), "its data type is number 20", id="a resource"),
        pytest.param(proto(t.FP32, (3,), float_val=[1, 2, 3, 4]), "float_val has 4 elements, expected 3", id="too many elements"),
        pytest.param(proto(t.FP32, (3,), tensor_content=b"1234"), "tensor_content has 4 bytes, expected 12", id="content too short"),
        pytest.param(proto(t.FP32, (), tensor_content=b"12345678"), "tensor_content has 8 bytes, expected 4", id="content too long"),
        pytest.param(
            proto(t.FP32, (1 << 62, 1 << 62, 16), tensor_content=b"1234"), "more elements than 64 bits can count", id="an overflowing shape"
        ),
        pytest.param(proto(t.FP32, (1 << 32, 1 << 32), float_val=[1]), "more elements than", id="one value for an overflowing shape"),
        pytest.param(proto(t.FP32, (1 << 40,), tensor_content=b"1234"), "tensor_content has 4 bytes", id="content for a giant"),
        pytest.param(proto(t.FP32, (1 << 62, 0, 1 << 62)), "shape [", id="no elements, and no array could be so"),
        pytest.param(proto(t.FP32, (2, -1), float_val=[1]), "dimension 1 of its shape is -1", id="an unknown size"),
        pytest.param(proto(t.FP32, (1,) * 33, float_val=[1]), "dimension 32 of its shape", id="too many dimensions"),
        pytest.param(proto(t.FP32, (2,), double_val=[1, 2]), "its elements are in double_val, expected in float_val", id="the wrong field"),
        pytest.param(proto(t.UINT8, (1,), int_val=[300]), "300 does not fit", id="a number too large"),
        pytest.param(proto(t.INT8, (2,), int_val=[1, -129]), "-129 does not fit", id="a number too small"),
        pytest.param(proto(t.UINT16, (1,), int_val=[-1]), "-1 does not fit", id="a negative number"),
        pytest.param(proto(t.FP16, (1,), half_val=[65536]), "65536 does not fit", id="more than 16 bits"),
        pytest.param(proto(t.COMPLEX64, (1,), scomplex_val=[1, 2, 3]), "no whole number of elements", id="half a complex number"),
        pytest.param(proto(t.BYTES, (2,), tensor_content=b"\x05"), "do not hold 2 lengths", id="texts without lengths"),
        pytest.param(proto(t.BYTES, (1,), tensor_content=b"\x05abc"), "expected 6 as its lengths say", id="a text cut short"),
        pytest.param(proto(t.BYTES, (0,), tensor_content=b"abc"), "expected 0 as its lengths say", id="texts for no element"),
    ],
)
def test_what_does_not_add_up_is_refused(message: Any, text: str) -> None:
    """INVALID_INPUT that names the input, what came and what was expected."""
    error = refusal(message)
    assert error.kind is Kind.INVALID_INPUT
    assert error.message.startswith("tensor parsing error: x: ")
    assert text in error.message


def test_a_rank_must_be_known() -> None:
    """A tensor has a shape; only signatures may leave it open."""
    message = proto(t.FP32, (), float_val=[1.0])
    message.tensor_shape.unknown_rank = True
    assert "unknown rank" in refusal(message).message


def test_one_value_does_not_fill_the_memory() -> None:
    """What one value stands for counts against a limit, over all inputs of a request."""
    assert refusal(proto(t.FP32, (1 << 40,), float_val=[1.0])).kind is Kind.TOO_LARGE
    assert refusal(proto(t.BYTES, (1 << 20,)), limit=1 << 22).kind is Kind.TOO_LARGE
    room = Room(30)
    one = proto(t.FP32, (5,), float_val=[1.0]).SerializeToString()
    assert decode("a", one, room).array.size == 5
    with pytest.raises(ServingError, match="fill more than 30 bytes"):
        decode("b", one, room)


WHOLE = proto(t.FP32, (2, 3), float_val=typed(t.FP32)).SerializeToString()


@pytest.mark.parametrize("end", [end for end in range(len(WHOLE)) if end not in (2, 12)])
def test_messages_cut_short_are_refused(end: int) -> None:
    """Wherever a message ends inside a field: INVALID_INPUT. (After 2 and 12 bytes a field is complete, and so is the message.)"""
    with pytest.raises(ServingError) as caught:
        decode("x", WHOLE[:end], Room(1 << 10))
    assert caught.value.kind is Kind.INVALID_INPUT
