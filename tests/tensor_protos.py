"""Values of every datatype, and TensorProtos as protobuf writes them: for tests of TensorFlow Serving's gRPC."""

from typing import Any

import numpy as np
import pytest

from dragoman.core import tensors as t
from dragoman.core.tensors import Datatype
from dragoman.dialects.tfserving.tensor_proto import NUMBERS
from dragoman.proto import messages

FIELDS = {
    t.FP32: "float_val",
    t.FP64: "double_val",
    t.INT32: "int_val",
    t.UINT8: "int_val",
    t.INT16: "int_val",
    t.INT8: "int_val",
    t.UINT16: "int_val",
    t.BYTES: "string_val",
    t.INT64: "int64_val",
    t.BOOL: "bool_val",
    t.UINT32: "uint32_val",
    t.UINT64: "uint64_val",
    t.FP16: "half_val",
    t.BF16: "half_val",
    t.COMPLEX64: "scomplex_val",
    t.COMPLEX128: "dcomplex_val",
}
VALUES: dict[Datatype, list[Any]] = {
    t.FP32: [1.5, -2.25, np.inf, 0.0, 3.0, -0.0],
    t.FP64: [0.1, -1e300, np.inf, 0.0, 3.0, -0.0],
    t.INT32: [-(2**31), -1, 0, 1, 300, 2**31 - 1],
    t.UINT8: [0, 1, 127, 128, 200, 255],
    t.INT16: [-(2**15), -1, 0, 1, 300, 2**15 - 1],
    t.INT8: [-128, -1, 0, 1, 100, 127],
    t.UINT16: [0, 1, 127, 128, 300, 65535],
    t.BYTES: [b"", b"a", "gr\u00fcn".encode(), b"\x00\xff", b"x" * 300, b"z"],
    t.INT64: [-(2**63), -1, 0, 1, 300, 2**63 - 1],
    t.BOOL: [True, False, True, True, False, False],
    t.UINT32: [0, 1, 127, 128, 300, 2**32 - 1],
    t.UINT64: [0, 1, 127, 128, 300, 2**64 - 1],
    t.FP16: [1.5, -2.25, np.inf, 0.0, 3.0, -0.0],
    t.BF16: [0x3FC0, 0xC010, 0x7F80, 0, 0x4040, 0x8000],
    t.COMPLEX64: [1 + 2j, -1j, 0, 3, 1.5, 2 - 2j],
    t.COMPLEX128: [1 + 2j, -1j, 0, 3, 1e300, 2 - 2j],
}
ALL = [pytest.param(datatype, id=datatype.name) for datatype in VALUES]


def array_of(datatype: Datatype) -> Any:
    """The values of a datatype, in the shape [2, 3]."""
    array: Any = np.empty(6, datatype.numpy)
    array[:] = VALUES[datatype]
    return array.reshape(2, 3)


def proto(datatype: Datatype | int, shape: tuple[int, ...] = (), **fields: Any) -> Any:
    """A TensorProto as protobuf writes it."""
    message: Any = messages.new("tensorflow.TensorProto")
    message.dtype = datatype if isinstance(datatype, int) else NUMBERS[datatype]
    for size in shape:
        message.tensor_shape.dim.add().size = size
    for name, value in fields.items():
        if name == "tensor_content":
            message.tensor_content = value
        else:
            getattr(message, name).extend(value)
    return message


def typed(datatype: Datatype) -> list[Any]:
    """The values of a datatype as its repeated field takes them."""
    array = array_of(datatype).reshape(-1)
    if datatype.kind == "complex":
        parts: list[Any] = array.view(array.real.dtype).tolist()
        return parts
    numbers: list[Any] = (array.view(np.uint16) if datatype is t.FP16 else array).tolist()
    return numbers
