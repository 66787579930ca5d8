"""The binary tensor data extension (requirements O8 and O9): raw bytes in and out, mixed with JSON, and raw binary requests."""

import struct
from typing import Any

import numpy as np
import pytest

from dragoman.core.tensors import BOOL, BYTES, FP32, INT64, Signature, Tensor, Tensors, TensorSpec
from tests.unit.v2.client import FLOWER, Client, entry, identity, iris, one_input, tensor, with_binary

RAW = [(b"inference-header-content-length", b"0")]
ALL = {"binary_data_output": True}


def binary_input(name: str, datatype: str, shape: list[int], size: int) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}


def echo(server: Client, datatype: str, shape: list[int], data: bytes) -> tuple[Any, bytes]:
    """Send one binary tensor through its identity model and have it back as binary."""
    document = {"inputs": [binary_input("x", datatype, shape, len(data))], "parameters": ALL}
    reply = server.infer(f"identity_{datatype.lower()}", *with_binary(document, data))
    assert reply.status == 200, reply.body
    assert reply.media_type == b"application/octet-stream"
    head, rest = reply.split()
    return head["outputs"][0], rest


def test_reply_to_the_byte(server: Client) -> None:
    """Label as JSON and probabilities as binary: the header gives the length of the JSON, the bytes follow without padding."""
    outputs = [{"name": "label", "parameters": {"binary_data": False}}, {"name": "probabilities", "parameters": {"binary_data": True}}]
    reply = server.infer("iris", one_input(FLOWER, outputs=outputs))
    json_part = (
        b'{"model_name":"iris","model_version":"2","outputs":[{"name":"label","shape":[1],"datatype":"INT64","data":[1]},'
        b'{"name":"probabilities","shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":12}}]}'
    )
    assert reply.body == json_part + np.array([10.2, 20.4, 5.1], "f4").tobytes()
    assert reply.headers[b"inference-header-content-length"] == str(len(json_part)).encode()


PATTERNS = {
    "BOOL": np.array([1, 0, 1], "?"),
    "UINT8": np.array([0, 255, 7], "u1"),
    "UINT16": np.array([0, 65535, 7], "<u2"),
    "UINT32": np.array([0, (1 << 32) - 1, 7], "<u4"),
    "UINT64": np.array([0, (1 << 64) - 1, 7], "<u8"),
    "INT8": np.array([-128, 127, 7], "i1"),
    "INT16": np.array([-32768, 32767, 7], "<i2"),
    "INT32": np.array([-(1 << 31), (1 << 31) - 1, 7], "<i4"),
    "INT64": np.array([-(1 << 63), (1 << 63) - 1, 7], "<i8"),
    "FP16": np.array([1.5, np.nan, -np.inf], "<f2"),
    "BF16": np.array([0x3FC0, 0x7FC0, 0xFF80], "<u2"),
    "FP32": np.array([1.5, np.nan, -np.inf], "<f4"),
    "FP64": np.array([1.5, np.nan, np.inf], "<f8"),
}


@pytest.mark.parametrize("datatype", PATTERNS)
def test_every_datatype_survives(server: Client, datatype: str) -> None:
    """Bits in are bits out, NaN and infinities too (requirement O10)."""
    data = PATTERNS[datatype].tobytes()
    described, rest = echo(server, datatype, [3], data)
    assert rest == data
    assert described == {"name": "y", "shape": [3], "datatype": datatype, "parameters": {"binary_data_size": len(data)}}


def pack(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(e)) + e for e in elements)


@pytest.mark.parametrize(
    "elements", [(b"",), (b"a\0b\0", b"\0\0"), ("é€😀".encode(), b"x"), (b"\xff\xfe", b""), (b"x" * 100_000,)], ids=range(5)
)
def test_bytes_survive(server: Client, elements: tuple[bytes, ...]) -> None:
    """Empty elements, NULs, multi-byte text and what is no text at all."""
    described, rest = echo(server, "BYTES", [len(elements)], pack(*elements))
    assert rest == pack(*elements)
    assert described["shape"] == [len(elements)]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (pack(b"ab", b"c")[:-1], "element 1"),
        (pack(b"ab"), "hold 2"),
        (pack(b"ab", b"c", b"d"), "left over"),
        (b"\xff\xff\xff\xff1234567", "claims"),
        (pack(b"abcdefgh") + b"\x01\x00", "length of element 1"),
        (b"", "hold 2"),
    ],
    ids=["truncated", "one missing", "one too many", "huge length", "half a length", "nothing"],
)
def test_malformed_prefixes(server: Client, data: bytes, word: str) -> None:
    """The lengths must walk to exactly the last byte with exactly the right number of elements."""
    reply = server.infer("identity_bytes", *with_binary({"inputs": [binary_input("x", "BYTES", [2], len(data))]}, data))
    assert reply.status == 400
    assert word in reply.error
    assert "'x'" in reply.error


def test_a_huge_count_of_bytes_elements_allocates_nothing(server: Client) -> None:
    """The number of elements is compared with the bytes that came before an array of that size is made."""
    reply = server.infer("identity_bytes", *with_binary({"inputs": [binary_input("x", "BYTES", [1 << 50], 4)]}, b"\0\0\0\0"))
    assert reply.status == 400


def test_zero_sizes(server: Client) -> None:
    """An empty tensor has no bytes; it is binary all the same."""
    assert echo(server, "FP32", [0, 3], b"")[1] == b""
    assert echo(server, "BYTES", [0], b"")[0]["parameters"] == {"binary_data_size": 0}
    assert echo(server, "INT8", [], b"\x05")[1] == b"\x05"


def test_any_byte_but_zero_is_true(server: Client) -> None:
    """What leaves is 0 or 1 only."""
    assert echo(server, "BOOL", [4], b"\x00\x01\x02\xff")[1] == b"\x00\x01\x01\x01"


def test_mixed_inputs(server: Client) -> None:
    """One input in JSON, one binary, in any order; the binary parts follow in the order of the inputs."""
    as_json = {"name": "a", "shape": [2], "datatype": "FP32", "data": [1, 2]}
    as_bytes = binary_input("b", "FP32", [2], 8)
    for inputs in ([as_json, as_bytes], [as_bytes, as_json]):
        body, headers = with_binary({"inputs": inputs}, np.array([10, 20], "f4").tobytes())
        assert server.infer("adder", body, headers).outputs["c"]["data"] == [11.0, 22.0]
    both = {"inputs": [binary_input("b", "FP32", [2], 8), binary_input("a", "FP32", [2], 8)]}
    body, headers = with_binary(both, np.array([1, 2], "f4").tobytes(), np.array([5, 7], "f4").tobytes())
    assert server.infer("adder", body, headers).outputs["c"]["data"] == [6.0, 9.0]


def test_binary_in_json_out(server: Client) -> None:
    """JSON is what comes back unless binary is asked for, and the content type says which it is."""
    document = {"inputs": [binary_input("input", "FP32", [1, 4], 16)]}
    reply = server.infer("iris", *with_binary(document, np.array(FLOWER, "f4").tobytes()))
    assert reply.media_type == b"application/json"
    assert b"inference-header-content-length" not in reply.headers
    assert reply.outputs["label"]["data"] == [1]


def test_an_output_may_leave_the_default(server: Client) -> None:
    """binary_data_output with all outputs; an output's own binary_data wins."""
    head, data = server.infer("iris", one_input(FLOWER, parameters=ALL)).split()
    assert [o["name"] for o in head["outputs"]] == ["label", "probabilities"]
    assert data == np.int64(1).tobytes() + np.array([10.2, 20.4, 5.1], "f4").tobytes()
    false = one_input(FLOWER, parameters=ALL, outputs=[{"name": "label", "parameters": {"binary_data": False}}])
    assert server.infer("iris", false).outputs["label"]["data"] == [1]
    true = one_input(FLOWER, parameters={"binary_data_output": False}, outputs=[{"name": "label", "parameters": {"binary_data": True}}])
    assert server.infer("iris", true).split()[1] == np.int64(1).tobytes()


@pytest.mark.parametrize(
    ("place", "value"), [("binary_data", "yes"), ("binary_data", 1), ("binary_data_output", "true"), ("binary_data_output", 0)]
)
def test_flags_are_booleans(server: Client, place: str, value: Any) -> None:
    """Text and numbers are no flags."""
    if place == "binary_data":
        document = one_input(FLOWER, outputs=[{"name": "label", "parameters": {place: value}}])
    else:
        document = one_input(FLOWER, parameters={place: value})
    assert place in server.infer("iris", document).error


@pytest.mark.parametrize("size", [1, 3, 999, 1_000, 5_000, 150_000])
@pytest.mark.parametrize("odd", [0, 1, 3])
def test_the_model_owns_its_inputs(size: int, odd: int) -> None:
    """Wherever the bytes lie in the body, the array is aligned, writable, native and its own; large ones start on a cache line."""
    seen: list[Any] = []

    def run(call: Any) -> Tensors:
        array = call.inputs.items[0].array
        address = array.__array_interface__["data"][0]
        seen.append(
            (array.dtype, array.flags.writeable, array.flags.c_contiguous, address % 8, address % 64 if array.nbytes >= 4096 else 0)
        )
        array += 1
        return Tensors([Tensor("y", INT64, array)])

    values = np.arange(size, dtype="i8")
    with Client([entry("own", Signature(inputs=(TensorSpec("x", INT64, None),)), run)]) as server:
        document = {"inputs": [binary_input("x", "INT64", [size], size * 8)], "parameters": ALL, "id": "i" * (odd + 1)}
        body, headers = with_binary(document, values.tobytes())
        _, data = server.infer("own", body, headers).split()
        assert np.frombuffer(data, "i8").tolist() == (values + 1).tolist()
        assert server.infer("own", body, headers).split()[1] == data
    assert seen == [(np.dtype("i8"), True, True, 0, 0)] * 2


# --- raw binary requests ---


def test_raw_binary_request() -> None:
    """Length 0: the body is the model's only input, batch 1, and everything comes back binary."""
    with Client([iris()]) as server:
        head, data = server.infer("iris", np.array(FLOWER, "f4").tobytes(), RAW).split()
    assert [o["shape"] for o in head["outputs"]] == [[1], [1, 3]]
    assert all(o["parameters"] for o in head["outputs"])
    assert data == np.int64(1).tobytes() + np.array([10.2, 20.4, 5.1], "f4").tobytes()


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [((2, -1), 24, [2, 3]), ((-1, 2), 16, [2, 2]), ((3,), 12, [3]), ((-1,), 4, [1]), ((), 4, []), ((-1, 4), 0, [0, 4])],
    ids=str,
)
def test_raw_binary_shapes(shape: tuple[int, ...], size: int, expected: list[int]) -> None:
    """One variable dimension follows from the size of the body."""
    with Client([identity(FP32, shape, "raw")]) as server:
        head, data = server.infer("raw", bytes(size), RAW).split()
    assert head["outputs"][0]["shape"] == expected
    assert len(data) == size


@pytest.mark.parametrize(
    ("shape", "size", "word"),
    [
        ((3,), 8, "12"),
        ((3,), 16, "12"),
        ((-1, -1), 16, "one variable"),
        ((2, -1), 12, "multiple"),
        ((-1, 0), 4, "multiple"),
        (None, 4, "rank"),
    ],
    ids=str,
)
def test_raw_binary_that_does_not_fit(shape: tuple[int, ...] | None, size: int, word: str) -> None:
    """The size must be that of the shape, and no more than one dimension may be unknown."""
    with Client([identity(FP32, shape, "raw")]) as server:
        reply = server.infer("raw", bytes(size), RAW)
    assert reply.status == 400
    assert word in reply.error


def test_raw_binary_bytes() -> None:
    """A BYTES body is the one element, without its length, whatever it holds."""
    with Client([identity(BYTES, (1,), "one"), identity(BYTES, (-1, 1), "column"), identity(BYTES, (2,), "two")]) as server:
        for name, shape in (("one", [1]), ("column", [1, 1])):
            head, data = server.infer(name, b"\x00\xffabc", RAW).split()
            assert head["outputs"][0]["shape"] == shape
            assert data == pack(b"\x00\xffabc")
        assert server.infer("one", b"", RAW).split()[1] == pack(b"")
        assert "single" in server.infer("two", b"abc", RAW).error


def test_raw_binary_needs_one_input(server: Client) -> None:
    """A model of two inputs cannot tell which one the body is."""
    assert "one input, 'adder' has 2" in server.infer("adder", bytes(8), RAW).error


def test_raw_binary_datatype_must_be_known() -> None:
    """A model that takes any datatype does not say what the bytes are."""
    signature = Signature(inputs=(TensorSpec("x", None, (1,)),))
    with Client([entry("any", signature, lambda _: Tensors([tensor("y", BOOL, [True])]))]) as server:
        assert server.infer("any", bytes(4), RAW).status == 400
