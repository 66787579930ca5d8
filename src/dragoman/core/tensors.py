"""Datatypes, tensors, rows and signatures: what a request carries and what a model declares.

Arrays are native little-endian, C order, aligned and writable. BYTES is an object array of `bytes` only; BF16 is uint16 holding the bits,
so a datatype is carried with its array and never derived from it. Checking lives in checks.py.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Shape: TypeAlias = tuple[int, ...]
JsonSchema: TypeAlias = Mapping[str, Any]


class Form(Enum):
    """What a model's predict takes."""

    TENSORS = "tensors"
    ROWS = "rows"


@dataclass(frozen=True, slots=True, eq=False)
class Datatype:
    """One element type; there is one object per type, compared by identity. `size` is bytes per element, 0 when it varies (BYTES)."""

    name: str
    numpy: np.dtype[Any]
    size: int
    kind: str
    """bool, uint, int, float, bits (BF16: opaque), complex or bytes."""

    def __repr__(self) -> str:
        return self.name


def _datatype(name: str, code: str, kind: str) -> Datatype:
    dtype: np.dtype[Any] = np.dtype(code)
    return Datatype(name, dtype, 0 if code == "O" else dtype.itemsize, kind)


BOOL = _datatype("BOOL", "?", "bool")
UINT8 = _datatype("UINT8", "u1", "uint")
UINT16 = _datatype("UINT16", "<u2", "uint")
UINT32 = _datatype("UINT32", "<u4", "uint")
UINT64 = _datatype("UINT64", "<u8", "uint")
INT8 = _datatype("INT8", "i1", "int")
INT16 = _datatype("INT16", "<i2", "int")
INT32 = _datatype("INT32", "<i4", "int")
INT64 = _datatype("INT64", "<i8", "int")
FP16 = _datatype("FP16", "<f2", "float")
BF16 = _datatype("BF16", "<u2", "bits")
FP32 = _datatype("FP32", "<f4", "float")
FP64 = _datatype("FP64", "<f8", "float")
BYTES = _datatype("BYTES", "O", "bytes")
COMPLEX64 = _datatype("COMPLEX64", "<c8", "complex")
COMPLEX128 = _datatype("COMPLEX128", "<c16", "complex")

DATATYPES: Mapping[str, Datatype] = {
    d.name: d
    for d in (BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, BF16, FP32, FP64, BYTES, COMPLEX64, COMPLEX128)
}
"""Every datatype by its Open Inference Protocol name (the complex ones exist only in TensorFlow's world)."""

_BY_NUMPY: Mapping[np.dtype[Any], Datatype] = {d.numpy: d for d in DATATYPES.values() if d is not BF16}


def widened(bits: Array) -> Array:
    """BF16 as FP32, whose upper half it is."""
    wide: Array = (bits.astype(np.uint32) << 16).view(np.float32)
    return wide


def datatype_of(dtype: np.dtype[Any]) -> Datatype | None:
    """The datatype of a numpy dtype, or None. Never BF16 (numpy has none); any text or object dtype is BYTES."""
    if dtype.kind in "SUO":
        return BYTES
    return _BY_NUMPY.get(dtype.newbyteorder("<") if dtype.byteorder == ">" else dtype)


@dataclass(slots=True)
class Tensor:
    name: str
    datatype: Datatype
    array: Array


@dataclass(slots=True)
class Tensors:
    """Named tensors in order. Two of one name are never built: codecs refuse them."""

    items: list[Tensor]

    def get(self, name: str) -> Tensor | None:
        for tensor in self.items:
            if tensor.name == name:
                return tensor
        return None


@dataclass(frozen=True, slots=True)
class Blob:
    """A file inside a row."""

    data: bytes
    media_type: str = "application/octet-stream"
    name: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Stands in the place of one output row: that row's request failed, its neighbours did not."""

    message: str
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model of whole requests answers (Signature.whole).

    `status` is 200 unless user code chose one; `content_type` "" leaves the form to the protocol. `record` is what the model says of this
    request for monitoring, where the request asked for it (InferRequest.record).
    """

    body: "Value"
    status: int = 200
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    record: "Mapping[str, Value] | None" = None


Value: TypeAlias = Any
"""None, bool, int, float, str, bytes, Blob, ndarray, or list or dict[str, ...] of these: what a row or a parameter may hold."""


@dataclass(slots=True)
class Rows:
    """A batch of plain values, for models that are not tensor-shaped. Failures appear in outputs only."""

    items: list[Value]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Declares one tensor. A dimension of -1 varies; shape None is unknown rank; datatype None takes any."""

    name: str
    datatype: Datatype | None
    shape: Shape | None
    optional: bool = False
    labels: tuple[str, ...] = ()
    """Class names by index, for the classification extension."""
    native: str = ""
    """The runtime's own name of it, such as TensorFlow's "x:0"."""


class _All(frozenset[str]):
    """A signature's `reads` when the model may look at any request parameter. It has no members to list, and is not the empty set."""

    def __contains__(self, item: object) -> bool:
        return True

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


ALL_PARAMETERS: frozenset[str] = _All()


@dataclass(frozen=True, slots=True)
class Signature:
    """What one entry point of a model takes and gives. Built once, when the model loads."""

    form: Form = Form.TENSORS
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    batch: bool = False
    """Axis 0 of every tensor is the batch, so requests may be joined along it; otherwise a request runs alone."""
    options: tuple[str, ...] = ()
    """ROWS: fields that must be equal within one batch."""
    reads: frozenset[str] = frozenset()
    """Request parameters that this model looks at; only these take part in the batch key."""
    input_schema: JsonSchema | None = None
    """ROWS: the schema of one row, an object by input name, without $ref. `inputs` then says how the same fields look as tensors."""
    output_schema: JsonSchema | None = None
    input_files: Mapping[str, str] = field(default_factory=dict, hash=False)
    """ROWS: which places hold files and of what kind: "image" -> image, "files.$item" -> audio, "inner.pic" -> video, binary."""
    output_files: Mapping[str, str] = field(default_factory=dict, hash=False)
    method: str = ""
    """TensorFlow Serving's method_name, for metadata."""
    any_name: bool = False
    """The format has no name for its one input, so that its name here is ours, and requests may call it differently."""
    whole: bool = False
    """ROWS: the model itself takes one row, the whole request as an event (see bodies.py), and answers one Reply; it is never batched. The
    schemas describe a data point."""
    input_by_name: Mapping[str, TensorSpec] = field(init=False, repr=False, compare=False, hash=False)
    output_by_name: Mapping[str, TensorSpec] = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_by_name", {s.name: s for s in self.inputs})
        object.__setattr__(self, "output_by_name", {s.name: s for s in self.outputs})


def element_count(shape: Iterable[int]) -> int:
    """Product of dimensions as an exact Python integer, so that hostile shapes cannot overflow."""
    return math.prod(shape)


def batch_length(payload: Tensors | Rows, signature: Signature) -> int | None:
    """Items along the batch axis, or None when the payload must run alone: not a batching signature, a scalar, or unequal first dimensions."""
    if isinstance(payload, Rows):
        return len(payload.items)
    if not signature.batch or not payload.items:
        return None
    length: int | None = None
    for tensor in payload.items:
        shape = tensor.array.shape
        if not shape or (length is not None and shape[0] != length):
            return None
        length = shape[0]
    return length


def concat(payloads: Sequence[Tensors | Rows]) -> Tensors | Rows:
    """Join payloads of one batch key along the batch axis, in order. The result shares no memory with its parts when there are several.

    Where a policy joins tensors of different trailing sizes (BatchPolicy.pad), the shorter ones are filled up with their first element.
    """
    first = payloads[0]
    if len(payloads) == 1:
        return first
    if isinstance(first, Rows):
        return Rows([item for rows in payloads if isinstance(rows, Rows) for item in rows.items])
    parts = [p.items for p in payloads if isinstance(p, Tensors)]
    joined = []
    for index, tensor in enumerate(first.items):
        # Members of one key have the same names; their order may differ between clients.
        arrays = [
            items[index].array if items[index].name == tensor.name else next(t.array for t in items if t.name == tensor.name)
            for items in parts
        ]
        trailing = arrays[0].shape[1:]
        alike = all(array.shape[1:] == trailing for array in arrays)
        joined.append(Tensor(tensor.name, tensor.datatype, np.concatenate(arrays) if alike else _filled_up(arrays)))
    return Tensors(joined)


def _filled_up(arrays: Sequence[Array]) -> Array:
    """Arrays of one rank, none of them empty, joined along axis 0, each filled up to the largest size of every other axis."""
    longest = [max(sizes) for sizes in zip(*(array.shape[1:] for array in arrays), strict=True)]
    joined: Array = np.empty((sum(len(array) for array in arrays), *longest), arrays[0].dtype)
    start = 0
    for array in arrays:
        share = joined[start : start + len(array)]
        share[...] = array.flat[0]
        share[tuple(slice(size) for size in array.shape)] = array
        start += len(array)
    return joined


def split(payload: Tensors | Rows, lengths: Sequence[int]) -> list[Tensors | Rows]:
    """Cut a batch's outputs back into its members' shares, in order.

    Raises ValueError when an output does not have exactly the sum of lengths along axis 0: the model broke its signature.
    """
    total = sum(lengths)
    shares: list[Tensors | Rows] = []
    start = 0
    if isinstance(payload, Rows):
        if len(payload.items) != total:
            raise ValueError(f"{len(payload.items)} outputs for {total} inputs")
        for length in lengths:
            shares.append(Rows(payload.items[start : start + length]))
            start += length
        return shares
    for tensor in payload.items:
        shape = tensor.array.shape
        if not shape or shape[0] != total:
            raise ValueError(f"output {tensor.name!r} has shape {list(shape)} for a batch of {total}")
    for length in lengths:
        shares.append(Tensors([Tensor(t.name, t.datatype, t.array[start : start + length]) for t in payload.items]))
        start += length
    return shares


def pack_bytes(array: Array) -> bytes:
    """BYTES elements in C order, each as a uint32 little-endian length and that many bytes (Open Inference Protocol, binary tensors)."""
    parts: list[bytes] = []
    for element in array.ravel():
        parts.append(len(element).to_bytes(4, "little"))
        parts.append(element)
    return b"".join(parts)


def unpack_bytes(buffer: memoryview | bytes, count: int) -> Array:
    """The inverse of pack_bytes: a flat object array of exactly `count` elements. Raises ValueError unless the prefixes end at the last byte."""
    offset, end = 0, len(buffer)
    if count * 4 > end:  # before allocating: the count is the client's word
        raise ValueError(f"{end} bytes cannot hold {count} length-prefixed elements")
    array: Array = np.empty(count, dtype=object)
    for index in range(count):
        if offset + 4 > end:
            raise ValueError(f"data ends inside the length of element {index}")
        length = int.from_bytes(buffer[offset : offset + 4], "little")
        offset += 4
        if offset + length > end:
            raise ValueError(f"element {index} claims {length} bytes but {end - offset} are left")
        array[index] = bytes(buffer[offset : offset + length])
        offset += length
    if offset != end:
        raise ValueError(f"{end - offset} bytes are left over after {count} elements")
    return array
