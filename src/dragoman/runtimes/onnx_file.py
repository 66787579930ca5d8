"""Reads the few facts of an ONNX file that onnxruntime does not tell, without the onnx package. Called by the ONNX runtime.

Walks the protobuf wire format: of each message only the fields of interest are entered, everything else, weights above all, is skipped.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_MOST_FIELDS = 2_000_000
"""A hostile file of nothing but empty fields must not keep the server busy."""


@dataclass(slots=True)
class OnnxFile:
    """What the file says. Fields stay empty where it says nothing."""

    ir_version: int = 0
    opsets: dict[str, int] = field(default_factory=dict)
    """Domain -> version; the standard domain is ""."""
    zipmaps: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Output of a ZipMap node -> its class labels."""
    shapeless: set[str] = field(default_factory=set)
    """Inputs and outputs of the graph that declare no shape, not even an empty one."""


def read(path: Path) -> OnnxFile | None:
    """The facts of a file, or None when it is not readable as ONNX."""
    facts = OnnxFile()
    try:
        with path.open("rb") as file:
            # not closed by hand: slices of it live on in the frames of an exception, and the last one to go unmaps it
            _model(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), facts)
    except (OSError, ValueError):
        return None
    return facts


def _model(data: memoryview, facts: OnnxFile) -> None:
    for number, value in _fields(data):
        if number == 1 and isinstance(value, int):
            facts.ir_version = value
        elif number == 7 and not isinstance(value, int):
            _graph(value, facts)
        elif number == 8 and not isinstance(value, int):
            _opset(value, facts)


def _opset(data: memoryview, facts: OnnxFile) -> None:
    domain, version = "", 0
    for number, value in _fields(data):
        if number == 1 and not isinstance(value, int):
            domain = _text(value)
        elif number == 2 and isinstance(value, int):
            version = value
    facts.opsets["" if domain == "ai.onnx" else domain] = version


def _graph(data: memoryview, facts: OnnxFile) -> None:
    for number, value in _fields(data):
        if isinstance(value, int):
            continue
        if number == 1:
            _node(value, facts)
        elif number in (11, 12):
            name, shaped = _value_info(value)
            if not shaped:
                facts.shapeless.add(name)


def _node(data: memoryview, facts: OnnxFile) -> None:
    outputs: list[str] = []
    attributes: list[memoryview] = []
    kind = ""
    for number, value in _fields(data):
        if isinstance(value, int):
            continue
        if number == 2:
            outputs.append(_text(value))
        elif number == 4:
            kind = _text(value)
        elif number == 5:
            attributes.append(value)
    if kind != "ZipMap":
        return
    for attribute in attributes:
        name = ""
        labels: list[int | str] = []
        for number, value in _fields(attribute):
            if number == 1 and not isinstance(value, int):
                name = _text(value)
            elif number == 8:
                labels += [value] if isinstance(value, int) else _packed(value)
            elif number == 9 and not isinstance(value, int):
                labels.append(_text(value))
        if name.startswith("classlabels"):
            facts.zipmaps.update(dict.fromkeys(outputs, tuple(str(label) for label in labels)))


def _value_info(data: memoryview) -> tuple[str, bool]:
    """(name, whether a tensor shape is given)."""
    name, shaped = "", False
    for number, value in _fields(data):
        if isinstance(value, int):
            continue
        if number == 1:
            name = _text(value)
        elif number == 2:
            for kind, tensor in _fields(value):
                if kind == 1 and not isinstance(tensor, int):
                    shaped = any(part == 2 for part, _ in _fields(tensor))
    return name, shaped


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, integer or bytes) of one message. Raises ValueError for what is no protobuf."""
    position, end = 0, len(data)
    for _ in range(_MOST_FIELDS):
        if position == end:
            return
        tag, position = _varint(data, position)
        kind = tag & 7
        if kind == 0:
            value, position = _varint(data, position)
            yield tag >> 3, value - (1 << 64) if value >> 63 else value
            continue
        if kind == 2:
            size, position = _varint(data, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if size > end - position:
            raise ValueError("a field is longer than its message")
        yield tag >> 3, data[position : position + size]
        position += size
    raise ValueError("too many fields")


def _packed(data: memoryview) -> list[int]:
    values, position = [], 0
    while position < len(data):
        value, position = _varint(data, position)
        values.append(value - (1 << 64) if value >> 63 else value)
    return values


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position == len(data):
            raise ValueError("the file ends inside a number")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position
    raise ValueError("a number is longer than 64 bits")


def _text(data: memoryview) -> str:
    return bytes(data).decode("utf-8", "replace")
