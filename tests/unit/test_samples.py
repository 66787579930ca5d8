"""Examples and schemas of signatures: what the banner, the start page and OpenAPI show must be requests that the model accepts."""

import io
import wave
from base64 import b64decode
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.checks import check
from dragoman.core.model import InferRequest
from dragoman.core.samples import concrete, example, instances, point_example, row_example, schema, v2_inputs
from dragoman.core.tensors import BF16, BOOL, BYTES, DATATYPES, FP16, FP32, INT64, UINT16, Form, Signature, Tensor, Tensors, TensorSpec

IRIS = Signature(inputs=(TensorSpec("X", FP32, (-1, 4)),), outputs=(TensorSpec("label", INT64, (-1,)),), batch=True)


def takes(*inputs: TensorSpec, batch: bool = True) -> Signature:
    return Signature(inputs=inputs, batch=batch)


def test_an_example_is_one_row_of_the_right_kind() -> None:
    """Variable dimensions are 1, values are of the datatype's own JSON type."""
    signature = takes(TensorSpec("a", FP32, (-1, 2)), TensorSpec("b", BYTES, (-1,)), TensorSpec("c", BOOL, (-1, 1, -1)))
    assert example(signature) == {"a": [[0.0, 0.0]], "b": ["text"], "c": [[[False]]]}


def test_the_forms_of_the_protocols() -> None:
    """The Open Inference Protocol names shape and datatype; TensorFlow Serving has bare rows for one input and objects for several."""
    assert v2_inputs(IRIS) == [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [[0.0] * 4]}]
    assert instances(IRIS) == [[0.0] * 4]
    assert instances(takes(TensorSpec("a", INT64, (-1,)), TensorSpec("b", INT64, (-1,), optional=True))) == [{"a": 0}]
    assert instances(takes(TensorSpec("a", INT64, (-1,)), TensorSpec("b", INT64, (-1, 2)))) == [{"a": 0, "b": [0, 0]}]


def test_scalars_have_examples() -> None:
    """A tensor without dimensions is a list of one, as the protocol wants it; a model that does not batch has no rows."""
    signature = takes(TensorSpec("x", FP32, ()), batch=False)
    assert v2_inputs(signature) == [{"name": "x", "shape": [], "datatype": "FP32", "data": [0.0]}]
    assert instances(signature) is None


def test_optional_inputs_are_left_out() -> None:
    """The shortest request that works is the best example."""
    assert example(takes(TensorSpec("x", FP32, (-1,)), TensorSpec("scale", FP32, (1,), optional=True))) == {"x": [0.0]}


UNSHOWN = {
    "unknown rank": TensorSpec("x", FP32, None),
    "bits": TensorSpec("x", BF16, (-1,)),
    "complex": TensorSpec("x", DATATYPES["COMPLEX64"], (-1,)),
    "an image": TensorSpec("x", FP32, (1, 3, 224, 224)),
    "more than a machine has": TensorSpec("x", FP32, (2**40, 2**40)),
}


@pytest.mark.parametrize("spec", UNSHOWN.values(), ids=UNSHOWN)
def test_what_cannot_be_shown_is_not(spec: TensorSpec) -> None:
    """No example of unknown rank, of datatypes that JSON lacks, or too large to read; and nothing huge is built to find out."""
    assert example(takes(spec)) is None
    assert v2_inputs(takes(spec)) is None
    assert instances(takes(spec)) is None


def test_a_model_without_inputs_has_no_example() -> None:
    """There is nothing to send."""
    assert example(Signature()) is None


def test_an_input_of_any_datatype_is_shown_as_numbers() -> None:
    """A request must name some datatype: FP64 is what JSON's numbers are."""
    assert v2_inputs(takes(TensorSpec("x", None, (-1,)))) == [{"name": "x", "shape": [1], "datatype": "FP64", "data": [0.0]}]


def rows(properties: dict[str, Any], inputs: tuple[TensorSpec, ...], files: dict[str, str] | None = None) -> Signature:
    """A model of rows, all of whose fields are required."""
    described = {"type": "object", "properties": properties, "required": list(properties)}
    return Signature(form=Form.ROWS, inputs=inputs, batch=True, input_schema=described, input_files=files or {})


def test_a_row_is_within_its_limits() -> None:
    """Texts, numbers and choices, the same in each protocol."""
    text = {"type": "string", "minLength": 6}
    number = {"type": "integer", "minimum": 3}
    mood = {"type": "string", "choices": ["calm", "loud"]}
    specs = (TensorSpec("text", BYTES, (-1,)), TensorSpec("number", INT64, (-1,)), TensorSpec("mood", BYTES, (-1,)))
    signature = rows({"text": text, "number": number, "mood": mood}, specs)
    assert row_example(signature) == {"text": "textxx", "number": 3, "mood": "calm"}
    assert instances(signature) == [row_example(signature)]
    assert [each["data"] for each in v2_inputs(signature) or ()] == [["textxx"], [3], ["calm"]]


def test_points_of_whole_requests() -> None:
    """One value per feature of its kind; without a schema anything is a data point."""
    kinds = (FP32, INT64, BYTES, BOOL, None)
    schema = tuple(TensorSpec(f"x{index}", kind, (-1,)) for index, kind in enumerate(kinds))
    assert point_example(Signature(Form.ROWS, schema, whole=True)) == [0.5, 1, "text", True, 0.5]
    assert point_example(Signature(Form.ROWS, schema[1:2], whole=True)) == [1]
    for unknown in ((TensorSpec("inputs", None, None),), ()):
        assert point_example(Signature(Form.ROWS, unknown, whole=True)) == [1, 2]


@pytest.mark.parametrize("kind", ["image", "audio", "video", "binary"])
def test_files_are_files(kind: str) -> None:
    """Small ones of their kind; tensor protocols, which take bytes in other ways, have no sample."""
    uri = {"type": "string", "format": "uri"}
    signature = rows({"file": uri}, (TensorSpec("file", BYTES, (-1,)),), {"file": kind})
    content = b64decode(row_example(signature)["file"].partition(",")[2])  # type: ignore[index]
    if kind == "image":
        assert PIL.Image.open(io.BytesIO(content)).size == (1, 1)
    if kind == "audio":
        with wave.open(io.BytesIO(content)) as sound:
            assert sound.getnframes() == 1
    assert content
    assert (example(signature), v2_inputs(signature), instances(signature)) == (None, None, None)


def test_nested_fields() -> None:
    """Objects and lists are filled in; in the place of tensors they would be JSON in a text, which is no sample."""
    uri = {"type": "string", "format": "uri"}
    masked = {"type": "object", "properties": {"image": uri, "mask": uri}}
    many = {"type": "array", "items": {"type": "array", "items": {"type": "number"}, "minItems": 2}}
    signature = rows(
        {"m": masked, "many": many}, (TensorSpec("m", BYTES, (-1,)), TensorSpec("many", FP32, (-1, -1, 2))), {"m.image": "image"}
    )
    row = row_example(signature)
    assert row is not None
    assert row["many"] == [[0, 0]]
    assert row["m"]["image"].startswith("data:image/png")
    assert v2_inputs(signature) is None
    large = {"many": {**many, "minItems": 10**12}}
    assert row_example(rows(large, (TensorSpec("many", FP32, (-1, 10**12, 2)),))) is None
    assert v2_inputs(rows({"many": many}, (TensorSpec("many", FP32, (-1, -1, 2)),))) is not None


def test_concrete_shapes() -> None:
    """Every variable dimension is 1; unknown rank stays unknown."""
    assert concrete(TensorSpec("x", FP32, (-1, 3, -1))) == (1, 3, 1)
    assert concrete(TensorSpec("x", FP32, None)) is None


def test_schema_of_a_row() -> None:
    """One property per tensor without the batch dimension; fixed dimensions are fixed, optional tensors are not required."""
    described = schema((TensorSpec("x", FP32, (-1, 4)), TensorSpec("n", INT64, (-1,), optional=True)), batch=True)
    assert described == {
        "type": "object",
        "properties": {"x": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}, "n": {"type": "integer"}},
        "required": ["x"],
    }


def test_schema_of_a_whole_request() -> None:
    """A model that does not batch is described with all of its dimensions; nothing is required where nothing is."""
    described = schema((TensorSpec("x", BYTES, (-1,)),), batch=False)
    assert described["properties"]["x"] == {"type": "array", "items": {"type": "string"}}
    assert "required" not in schema((), batch=False)


@given(
    st.lists(
        st.tuples(st.sampled_from([d for d in DATATYPES.values() if d.kind != "complex"]), st.lists(st.integers(-1, 3), max_size=3)),
        min_size=1,
        max_size=3,
    ),
    st.booleans(),
)
def test_the_model_accepts_its_own_example(declared: list[tuple[Any, list[int]]], batch: bool) -> None:
    """Whatever a signature declares, the example that is shown passes its check; there is none for what JSON cannot carry."""
    specs = [TensorSpec(f"t{i}", d, (-1, *dims) if batch else tuple(dims)) for i, (d, dims) in enumerate(declared)]
    signature = Signature(inputs=tuple(specs), batch=batch)
    inputs = v2_inputs(signature)
    datatypes = {spec.datatype for spec in specs}
    if inputs is None:
        assert example(signature) is None or FP16 in datatypes
        return
    tensors = []
    for described in inputs:
        datatype = DATATYPES[described["datatype"]]
        array = np.array(described["data"], datatype.numpy).reshape(described["shape"])
        tensors.append(Tensor(described["name"], datatype, array))
    check(InferRequest(Tensors(tensors)), signature, "m", max_size=8 if batch else 0)
    assert (instances(signature) is None) == (not batch or UINT16 in datatypes)
