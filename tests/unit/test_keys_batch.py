"""The batch key: what may run together and what may not."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.keys import batch_key, canonical_json
from dragoman.core.model import InferRequest
from dragoman.core.tensors import ALL_PARAMETERS, BF16, BYTES, FP32, UINT16, Blob, Datatype, Form, Rows, Signature, Tensor, Tensors

PLAIN = Signature(batch=True)
READS = Signature(batch=True, reads=frozenset({"temperature"}))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def typed(value: Any) -> Any:
    """A form in which 1, 1.0 and True differ, as they do in JSON, and the order of keys does not matter."""
    if isinstance(value, dict):
        return ("dict", sorted((k, typed(v)) for k, v in value.items()))
    if isinstance(value, list):
        return ("list", [typed(v) for v in value])
    return (type(value).__name__, repr(value))


def request(*tensors: tuple[str, Datatype, tuple[int, ...]], **fields: Any) -> InferRequest:
    return InferRequest(Tensors([Tensor(name, d, np.zeros(shape, d.numpy)) for name, d, shape in tensors]), **fields)


def key(*tensors: tuple[str, Datatype, tuple[int, ...]], signature: Signature = PLAIN, **fields: Any) -> object:
    return batch_key(request(*tensors, **fields), signature)


# --- canonical JSON ---


@given(json_values, json_values)
def test_texts_are_equal_exactly_for_equal_values(a: Any, b: Any) -> None:
    """Two values have one text if and only if JSON would not tell them apart."""
    assert (canonical_json(a) == canonical_json(b)) == (repr(typed(a)) == repr(typed(b)))


def test_python_equality_does_not_count() -> None:
    """1, 1.0, true and "1" are four values; so are they inside lists and objects."""
    for wrap in (lambda v: v, lambda v: [v], lambda v: {"k": v}):
        assert len({canonical_json(wrap(v)) for v in (1, 1.0, True, "1")}) == 4


def test_the_order_of_keys_does_not_count() -> None:
    """Two clients may write the same object in different order."""
    assert canonical_json({"a": 1, "b": {"c": 2, "d": 3}}) == canonical_json({"b": {"d": 3, "c": 2}, "a": 1})


def test_values_that_json_lacks_have_texts_of_their_own() -> None:
    """Bytes, files and arrays are never taken for each other, nor for lists and texts that look like them."""
    array = np.array([1, 2], "i8")
    values: list[Any] = [
        b"ab",
        "ab",
        ["bytes", "6162"],
        Blob(b"ab"),
        Blob(b"ab", "text/plain"),
        Blob(b"ab", name="other.txt"),
        Blob(b"abc"),
        array,
        array.astype("i4"),
        array.reshape(1, 2),
        [1, 2],
    ]
    assert len({canonical_json(v) for v in values}) == len(values)
    assert canonical_json(Blob(b"ab")) == canonical_json(Blob(b"ab"))


def test_what_cannot_be_compared_is_refused() -> None:
    """An object of some class has no text, and says which class it is of."""
    with pytest.raises(TypeError, match="set cannot be part of a batch key"):
        canonical_json({"k": {1, 2}})


# --- tensors ---


def test_the_batch_dimension_does_not_count() -> None:
    """Requests of different length join; an empty one too."""
    assert key(("x", FP32, (1, 4))) == key(("x", FP32, (7, 4))) == key(("x", FP32, (0, 4)))


def test_the_order_of_tensors_does_not_count() -> None:
    """Clients name their inputs in any order."""
    a, b = ("a", FP32, (1, 2)), ("b", BYTES, (1,))
    assert key(a, b) == key(b, a)


@pytest.mark.parametrize(
    "other",
    [
        [("y", FP32, (1, 4))],
        [("x", UINT16, (1, 4))],
        [("x", FP32, (1, 5))],
        [("x", FP32, (1, 4, 1))],
        [("x", FP32, (1,))],
        [("x", FP32, (1, 4)), ("y", FP32, (1, 4))],
        [],
    ],
    ids=["name", "datatype", "width", "rank", "lower rank", "one more", "none"],
)
def test_what_keeps_tensors_apart(other: list[tuple[str, Datatype, tuple[int, ...]]]) -> None:
    """Names, datatypes and trailing shapes must agree."""
    assert key(("x", FP32, (1, 4))) != key(*other)


def test_datatypes_of_one_layout_are_kept_apart() -> None:
    """BF16 and UINT16 share a dtype and must not share a batch."""
    assert key(("x", BF16, (1, 4))) != key(("x", UINT16, (1, 4)))


def test_operation_and_signature_count() -> None:
    """Another entry point of the model is another run."""
    asked = request(("x", FP32, (1, 4)))
    explain, named = InferRequest(asked.inputs, operation="explain"), InferRequest(asked.inputs, signature="other")
    assert len({batch_key(each, PLAIN) for each in (asked, explain, named)}) == 3


def test_who_asks_and_what_for_does_not_count() -> None:
    """Ids, wanted outputs, priority, caller and dialect of the members of a batch may differ."""
    tensor = ("x", FP32, (1, 4))
    assert key(tensor) == key(tensor, id="7", outputs=("y",), priority=2, caller="me", dialect="v2", deadline=5.0)


# --- parameters ---


def test_only_parameters_that_the_model_reads_count() -> None:
    """An unknown parameter does not keep requests apart; one that the model reads does, by JSON equality."""
    tensor = ("x", FP32, (1, 4))

    def with_parameters(**parameters: Any) -> object:
        return key(tensor, signature=READS, parameters=parameters)

    assert with_parameters(trace=1) == with_parameters(trace=2) == with_parameters()
    assert with_parameters(temperature=1) != with_parameters()
    assert len({with_parameters(temperature=t) for t in (1, 1.0, True, "1", None)}) == 5
    assert key(tensor, parameters={"temperature": 1}) == key(tensor, parameters={"temperature": 2})


def test_a_model_that_reads_everything_is_joined_with_equal_parameters_only() -> None:
    """With ALL_PARAMETERS any difference keeps requests apart."""
    tensor, signature = ("x", FP32, (1, 4)), Signature(batch=True, reads=ALL_PARAMETERS)
    assert key(tensor, signature=signature, parameters={"a": 1}) != key(tensor, signature=signature, parameters={"a": 2})
    assert key(tensor, signature=signature, parameters={"a": 1}) != key(tensor, signature=signature)


def test_keys_can_be_used_as_keys() -> None:
    """Whatever the parameters are, the key is hashable."""
    found = key(("x", FP32, (1, 4)), signature=READS, parameters={"temperature": [1, {"a": None}]})
    assert {found: 1}[found] == 1


# --- rows ---


def rows(*items: Any, options: tuple[str, ...] = ()) -> object:
    return batch_key(InferRequest(Rows(list(items))), Signature(form=Form.ROWS, options=options))


def test_rows_join_unless_their_options_differ() -> None:
    """Plain rows always join; those with options only when the options agree, by JSON equality."""
    assert rows(1, "a") == rows({"any": "thing"})
    assert rows({"text": "a", "size": 1}, options=("size",)) == rows({"text": "b", "size": 1}, options=("size",))
    assert rows({"size": 1}, options=("size",)) != rows({"size": True}, options=("size",))
    assert rows({"size": 1}, options=("size",)) != rows({}, options=("size",))


def test_files_among_the_options_count_by_content() -> None:
    """Equal files are equal options, whichever object holds them."""
    mask = {"mask": Blob(b"1")}
    assert rows(mask, options=("mask",)) == rows({"mask": Blob(b"1")}, options=("mask",))
    assert rows(mask, options=("mask",)) != rows({"mask": Blob(b"2")}, options=("mask",))


def test_no_rows_at_all_have_a_key() -> None:
    """An empty request of a model with options does not fail here."""
    assert rows(options=("size",)) == rows(options=("size",))
