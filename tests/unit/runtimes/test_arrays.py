"""Tensors as frameworks want them."""

import numpy as np
import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import BF16, BYTES, COMPLEX64, FP32, INT8, Rows, Tensor, Tensors
from dragoman.runtimes import arrays
from tests.models.calls import tensor


def refusal(error: pytest.ExceptionInfo[ServingError]) -> str:
    assert error.value.kind is Kind.INVALID_INPUT
    assert "'m'" in error.value.message
    return error.value.message


def test_the_one_input() -> None:
    """A model without names takes one tensor, called X."""
    x = tensor("X", np.zeros((1, 2), np.float32))
    assert arrays.only_input(Tensors([x]), "m") is x
    y = tensor("y", np.zeros(1))
    wrong: list[tuple[Tensors | Rows, str]] = [
        (Tensors([]), "none"),
        (Tensors([y]), "'y'"),
        (Tensors([x, y]), "'X', 'y'"),
        (Rows([1]), "rows"),
    ]
    for inputs, got in wrong:
        with pytest.raises(ServingError) as caught:
            arrays.only_input(inputs, "m")
        assert f"got {got}" in refusal(caught)


def test_numbers() -> None:
    """Numbers come as they are, BF16 as FP32, everything else not at all."""
    array = np.array([[1, -2]], np.int8)
    assert arrays.numbers(Tensor("X", INT8, array), "m") is array
    wide = arrays.numbers(Tensor("X", BF16, np.array([[0x3F80, 0xC000, 0x7F80]], np.uint16)), "m")
    assert wide.dtype == np.float32
    assert wide.tolist() == [[1.0, -2.0, float("inf")]]
    for wrong in (tensor("X", [b"a"]), Tensor("X", COMPLEX64, np.zeros(1, np.complex64))):
        with pytest.raises(ServingError) as caught:
            arrays.numbers(wrong, "m")
        assert f"datatype {wrong.datatype}, expected a numeric one" in refusal(caught)


@pytest.mark.parametrize("shape", [(3,), (), (1, 2), (1, 4), (1, 3, 1), (3, 0)])
def test_tables_have_rows_of_one_width(shape: tuple[int, ...]) -> None:
    """Any other shape is refused with both shapes."""
    with pytest.raises(ServingError) as caught:
        arrays.table(Tensor("X", FP32, np.zeros(shape, np.float32)), 3, "m")
    assert f"has shape {list(shape)}, expected [-1, 3]" in refusal(caught)


def test_empty_tables() -> None:
    """No rows are rows too."""
    assert arrays.table(Tensor("X", FP32, np.zeros((0, 3), np.float32)), 3, "m").shape == (0, 3)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (3, 1), (1, 3)])
def test_text_there_and_back(shape: tuple[int, ...]) -> None:
    """Text keeps its shape and every character, NUL included."""
    words = [b"", "größe".encode(), b"a\x00b"]
    data = np.empty(shape, dtype=object)
    data.reshape(-1)[:] = words[: data.size]
    decoded = arrays.text(Tensor("X", BYTES, data), "m")
    assert decoded.shape == shape
    assert all(type(element) is str for element in decoded.ravel())
    back = arrays.encoded(decoded)
    assert back.shape == shape
    assert back.tolist() == data.tolist()


def test_text_that_is_none() -> None:
    """The element that is not UTF-8 is named."""
    with pytest.raises(ServingError) as caught:
        arrays.text(tensor("X", [b"a", b"b", b"\xc3"]), "m")
    assert "input 'X' of model 'm' must be UTF-8 text; element 2 is not" in refusal(caught)


def test_anything_has_a_text() -> None:
    """Classes that are neither text nor bytes are written as Python does."""
    assert arrays.encoded(np.array(["a", b"b", 3, None, 2.5], dtype=object)).tolist() == [b"a", b"b", b"3", b"None", b"2.5"]
    assert arrays.encoded(np.array(["x", "yy"])).tolist() == [b"x", b"yy"]
