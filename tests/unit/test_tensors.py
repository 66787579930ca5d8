"""Datatypes, batches of tensors and rows, and the packed form of BYTES: exact in both directions, for every datatype and odd shape."""

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.tensors import (
    ALL_PARAMETERS,
    BF16,
    BYTES,
    DATATYPES,
    FP32,
    INT64,
    UINT16,
    Array,
    Datatype,
    Failure,
    Rows,
    Signature,
    Tensor,
    Tensors,
    TensorSpec,
    batch_length,
    concat,
    datatype_of,
    element_count,
    pack_bytes,
    split,
    unpack_bytes,
)

BATCHING = Signature(inputs=(TensorSpec("x", FP32, (-1, 2)),), batch=True)
WIRE_NAMES = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64", "BYTES")
SIZES = {"BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8}
SIZES |= {"FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8, "BYTES": 0, "COMPLEX64": 8, "COMPLEX128": 16}


def array_of(datatype: Datatype, shape: tuple[int, ...], seed: int = 0) -> Array:
    """Any bit patterns, NaN and infinities included."""
    count = element_count(shape)
    numbers = np.random.default_rng(seed)
    if datatype is BYTES:
        array: Array = np.empty(count, dtype=object)
        for index in range(count):
            array[index] = numbers.bytes(int(numbers.integers(0, 5)))
        return array.reshape(shape)
    if datatype.kind == "bool":
        return numbers.integers(0, 2, shape).astype("?")
    return np.frombuffer(bytearray(numbers.bytes(count * datatype.size)), datatype.numpy).reshape(shape)


def bits(array: Array) -> Any:
    """What an array holds, such that a NaN equals itself."""
    return (array.shape, array.tolist() if array.dtype == object else array.tobytes())


def one(array: Array, name: str = "x", datatype: Datatype = FP32) -> Tensors:
    return Tensors([Tensor(name, datatype, array)])


# --- datatypes ---


def test_every_datatype_of_the_protocol_has_one_object() -> None:
    """The table has the protocol's names, the two complex ones, and the sizes that the wire uses; each object shows its name."""
    assert set(DATATYPES) == {*WIRE_NAMES, "COMPLEX64", "COMPLEX128"}
    assert {name: d.size for name, d in DATATYPES.items()} == SIZES
    assert [repr(d) for d in DATATYPES.values()] == list(DATATYPES)


@pytest.mark.parametrize("datatype", DATATYPES.values(), ids=str)
def test_the_datatype_of_an_array_is_found_by_its_dtype(datatype: Datatype) -> None:
    """Each dtype leads to its datatype; uint16 is UINT16 and never BF16, which numpy does not have."""
    assert datatype_of(datatype.numpy) is (UINT16 if datatype is BF16 else datatype)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(">f4", "FP32"), (">i8", "INT64"), ("S3", "BYTES"), ("U7", "BYTES"), ("O", "BYTES"), ("M8[s]", None), ("V4", None), ("f4,i4", None)],
)
def test_foreign_dtypes(dtype: str, expected: str | None) -> None:
    """Byte order does not matter, any text is BYTES, and what no datatype holds is None."""
    found = datatype_of(np.dtype(dtype))
    assert (found.name if found else None) == expected


def test_datatypes_are_compared_by_identity() -> None:
    """BF16 and UINT16 have the same layout and are still two things."""
    assert BF16 != UINT16
    assert BF16.numpy == UINT16.numpy


def test_shapes_from_strangers_cannot_overflow() -> None:
    """The count of elements is exact beyond 64 bits, 1 for a scalar and 0 when any dimension is."""
    assert element_count((2**40, 2**40)) == 2**80
    assert element_count(()) == 1
    assert element_count((2**63, 0)) == 0


def test_a_tensor_is_found_by_name() -> None:
    """`get` returns the tensor itself, or None."""
    tensors = Tensors([Tensor("a", FP32, np.zeros(1)), Tensor("b", INT64, np.ones(1))])
    assert tensors.get("b") is tensors.items[1]
    assert tensors.get("c") is None


def test_signatures_are_values() -> None:
    """Equal declarations are equal and hash alike; specs are found by name."""
    again = Signature(inputs=(TensorSpec("x", FP32, (-1, 2)),), batch=True)
    assert again == BATCHING
    assert hash(again) == hash(BATCHING)
    assert again.input_by_name["x"].shape == (-1, 2)
    assert again.output_by_name == {}


def test_all_parameters_contains_whatever_is_asked_for() -> None:
    """A model that may look at any parameter reads them all: the set has every name and counts as not empty."""
    assert "anything" in ALL_PARAMETERS
    assert bool(ALL_PARAMETERS)


# --- the length of a batch ---


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(3, 2)], 3),
        ([(0, 2)], 0),
        ([(3, 2), (3,)], 3),
        ([()], None),
        ([(3, 2), (2, 2)], None),
        ([(3, 2), ()], None),
        ([(), (3, 2)], None),
        ([], None),
    ],
)
def test_length_of_a_batch(shapes: list[tuple[int, ...]], expected: int | None) -> None:
    """The common first dimension; scalars, unequal first dimensions and no tensors at all run alone."""
    payload = Tensors([Tensor(str(i), FP32, np.zeros(shape, "f4")) for i, shape in enumerate(shapes)])
    assert batch_length(payload, BATCHING) == expected


def test_length_without_a_batch_axis() -> None:
    """Tensors of a model that does not batch have no length; rows always have one."""
    assert batch_length(one(np.zeros((3, 2))), Signature()) is None
    assert batch_length(Rows([1, 2, 3]), Signature()) == 3


# --- concat and split ---


@st.composite
def batches(draw: st.DrawFn) -> list[Tensors]:
    """Members of one batch: the same names, datatypes and trailing shapes, first dimensions from 0, names in any order."""
    specs = [
        (name, draw(st.sampled_from(list(DATATYPES.values()))), draw(st.lists(st.integers(0, 3), max_size=2)))
        for name in draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True))
    ]
    members = []
    for seed, length in enumerate(draw(st.lists(st.integers(0, 4), min_size=1, max_size=5))):
        order = draw(st.permutations(specs))
        members.append(Tensors([Tensor(n, d, array_of(d, (length, *tail), seed)) for n, d, tail in order]))
    return members


@given(batches())
def test_split_undoes_concat(members: list[Tensors]) -> None:
    """Every member gets its own numbers back, bit by bit, in every datatype and for empty members too."""
    lengths = [m.items[0].array.shape[0] for m in members]
    joined = concat(members)
    assert isinstance(joined, Tensors)
    for share, member in zip(split(joined, lengths), members, strict=True):
        assert isinstance(share, Tensors)
        assert {t.name for t in share.items} == {t.name for t in member.items}
        for tensor in share.items:
            original = member.get(tensor.name)
            assert original is not None
            assert tensor.datatype is original.datatype
            assert tensor.array.dtype == original.array.dtype
            assert bits(tensor.array) == bits(original.array)


@given(st.lists(st.lists(st.none() | st.integers() | st.text(), max_size=4), min_size=1, max_size=5))
def test_split_undoes_concat_of_rows(members: list[list[Any]]) -> None:
    """The same for plain values."""
    shares = split(concat([Rows(m) for m in members]), [len(m) for m in members])
    assert [s.items for s in shares] == members


def test_one_member_is_not_copied() -> None:
    """A batch of one is the member itself."""
    only = one(np.zeros((2, 2), "f4"))
    assert concat([only]) is only


def test_a_joined_batch_shares_no_memory() -> None:
    """A model may write into a joined batch without a member noticing: the re-run after a failure starts from the members."""
    first, second = one(np.ones((1, 2), "f4")), one(np.ones((2, 2), "f4"))
    joined = concat([first, second])
    assert isinstance(joined, Tensors)
    joined.items[0].array[:] = 7
    assert first.items[0].array.tolist() == [[1, 1]]
    assert second.items[0].array.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(("shape", "shown"), [((2, 3), r"\[2, 3\]"), ((), r"\[\]"), ((4,), r"\[4\]")])
def test_outputs_of_another_length_break_the_signature(shape: tuple[int, ...], shown: str) -> None:
    """The message names the output, its shape and the batch."""
    with pytest.raises(ValueError, match=f"output 'y' has shape {shown} for a batch of 3"):
        split(one(np.zeros(shape, "f4"), "y"), [1, 2])


def test_every_output_is_looked_at() -> None:
    """A second output of the wrong length is refused like the first."""
    outputs = Tensors([Tensor("y", FP32, np.zeros(3)), Tensor("z", FP32, np.zeros(2))])
    with pytest.raises(ValueError, match="'z'"):
        split(outputs, [2, 1])


def test_rows_of_another_length_break_the_signature() -> None:
    """A model that returns too few rows is caught, also when the rows are failures."""
    with pytest.raises(ValueError, match="1 outputs for 2 inputs"):
        split(Rows([Failure("no")]), [1, 1])


def test_an_empty_batch_is_split_into_empty_shares() -> None:
    """Two requests of no rows each get no rows of the right width."""
    shares = split(one(np.zeros((0, 5), "f4")), [0, 0])
    assert [s.items[0].array.shape for s in shares if isinstance(s, Tensors)] == [(0, 5), (0, 5)]


# --- BYTES on the wire ---


@given(st.lists(st.binary(max_size=20), max_size=12))
def test_packed_bytes_come_back(elements: list[bytes]) -> None:
    """Any bytes, NULs and empty elements included, from bytes and from a view of a larger buffer."""
    array: Array = np.empty(len(elements), dtype=object)
    array[:] = elements
    packed = pack_bytes(array)
    assert unpack_bytes(packed, len(elements)).tolist() == elements
    assert unpack_bytes(memoryview(b"?" + packed)[1:], len(elements)).tolist() == elements


def test_packing_goes_in_c_order() -> None:
    """A transposed array is packed as it reads, not as it lies in memory."""
    array: Array = np.array([[b"a", b"b"], [b"c", b"d"]], dtype=object).T
    assert unpack_bytes(pack_bytes(array), 4).tolist() == [b"a", b"c", b"b", b"d"]


@pytest.mark.parametrize(
    ("data", "count", "message"),
    [
        (b"", 1, "0 bytes cannot hold 1"),
        (b"\0\0\0", 1, "3 bytes cannot hold 1"),
        (struct.pack("<I", 5) + b"abc", 1, "element 0 claims 5 bytes but 3 are left"),
        (struct.pack("<I", 2**32 - 1), 1, "element 0 claims 4294967295 bytes but 0 are left"),
        (struct.pack("<I", 1) + b"abc" + b"d", 2, "ends inside the length of element 1|element 1 claims"),
        (struct.pack("<I", 4) + b"abcd", 2, "ends inside the length of element 1"),
        (struct.pack("<I", 1) + b"ab", 1, "1 bytes are left over after 1 elements"),
        (b"ab", 0, "2 bytes are left over after 0 elements"),
    ],
)
def test_damaged_packed_bytes_are_refused(data: bytes, count: int, message: str) -> None:
    """Too short, too long, and lengths that lie: each says which element."""
    with pytest.raises(ValueError, match=message):
        unpack_bytes(data, count)


def test_a_huge_count_allocates_nothing() -> None:
    """The count is the client's word: it is checked against the data before an array of it is made."""
    with pytest.raises(ValueError, match="cannot hold"):
        unpack_bytes(b"\0" * 400, 2**62)


@given(st.binary(max_size=60), st.integers(0, 20))
def test_no_bytes_crash_the_reader(data: bytes, count: int) -> None:
    """Whatever comes is read exactly or refused with ValueError."""
    try:
        array = unpack_bytes(data, count)
    except ValueError:
        return
    assert len(array) == count
    assert pack_bytes(array) == data
