"""Bodies that are one file, for every form of model (MLRun requirements M15 and M16)."""

import pytest

from dragoman.core.binary_bodies import file_inputs, is_binary, media_type_of
from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import BYTES, FP32, Blob, Form, Rows, Signature, Tensors, TensorSpec

PNG = b"\x89PNG\r\n\x1a\n"
WHOLE = Signature(Form.ROWS, whole=True)
FILE = {"type": "string", "format": "uri"}


def rows(files: dict[str, str], required: list[str], **fields: object) -> Signature:
    """A model of rows with files at these places."""
    schema = {"type": "object", "properties": {**fields, **{n.partition(".")[0]: FILE for n in files}}, "required": required}
    return Signature(Form.ROWS, input_schema=schema, input_files=files)


def tensors(*specs: TensorSpec, batch: bool = True) -> Signature:
    return Signature(Form.TENSORS, specs, batch=batch)


@pytest.mark.parametrize(
    ("content_type", "binary"),
    [
        (b"image/png", True),
        (b"IMAGE/JPEG; q=1", True),
        ("audio/wav", True),
        ("video/mp4", True),
        (b"application/octet-stream", True),
        (b"application/pdf", True),
        (b"application/json", False),
        (b"application/x-www-form-urlencoded", False),
        (b"text/plain", False),
        (b"image", False),
        (b"image/", False),
        (b"", False),
        (None, False),
    ],
)
def test_which_bodies_are_files(content_type: bytes | str | None, binary: bool) -> None:
    """By content type alone, whatever its case and parameters."""
    assert is_binary(content_type) is binary


def test_media_type_of() -> None:
    """Without parameters; bytes of any kind do not raise."""
    assert media_type_of(b" Image/PNG ; a=b") == "image/png"
    assert media_type_of(b"\xff\xfe") == "ÿþ"
    assert media_type_of(None) == ""


def test_a_whole_model_gets_the_file() -> None:
    """As its one data point, with exactly those bytes and their type (M15)."""
    assert file_inputs(PNG, b"image/png; x=y", WHOLE, "m") == Rows([Blob(PNG, "image/png")])
    assert file_inputs(b"", None, WHOLE, "m") == Rows([Blob(b"", "application/octet-stream")])


def test_a_whole_model_and_bytes_of_no_kind() -> None:
    """JSON that went wrong is more likely than a file (M16), but where the schema says that the one feature is bytes."""
    for said in (b"application/octet-stream", b"application/pdf"):
        with pytest.raises(ServingError, match="model 'm' is no JSON object") as refused:
            file_inputs(PNG, said, WHOLE, "m")
        assert refused.value.kind is Kind.INVALID_INPUT
        one = Signature(Form.ROWS, (TensorSpec("document", BYTES, (-1,)),), whole=True)
        assert file_inputs(PNG, said, one, "m") == Rows([Blob(PNG, said.decode())])


@pytest.mark.parametrize(
    ("signature", "row"),
    [
        (rows({"photo": "image"}, ["photo"]), {"photo": Blob(PNG, "image/png")}),
        (rows({"photo": "image"}, [], size={"type": "integer"}), {"photo": Blob(PNG, "image/png")}),
        (rows({"photos.$item": "image"}, ["photos"]), {"photos": [Blob(PNG, "image/png")]}),
        (rows({"photo": "image", "mask": "image"}, ["photo"]), {"photo": Blob(PNG, "image/png")}),
    ],
)
def test_a_model_of_rows_gets_the_file(signature: Signature, row: dict[str, object]) -> None:
    """In its one field of files, alone or in a list; other fields may be left out."""
    assert file_inputs(PNG, b"image/png", signature, "m") == Rows([row])


@pytest.mark.parametrize(
    ("spec", "batch", "shape"),
    [
        (TensorSpec("x", BYTES, (-1,)), True, (1,)),
        (TensorSpec("x", BYTES, (-1, 1)), True, (1, 1)),
        (TensorSpec("x", BYTES, None), True, (1,)),
        (TensorSpec("x", BYTES, ()), False, ()),
        (TensorSpec("x", BYTES, (1,)), False, (1,)),
    ],
)
def test_a_model_of_tensors_gets_the_file(spec: TensorSpec, batch: bool, shape: tuple[int, ...]) -> None:
    """As one element of its one input of BYTES."""
    made = file_inputs(PNG, b"image/png", tensors(spec, TensorSpec("k", FP32, (1,), optional=True), batch=batch), "m")
    assert isinstance(made, Tensors)
    (tensor,) = made.items
    assert (tensor.name, tensor.array.shape, tensor.array.ravel().tolist()) == ("x", shape, [PNG])


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        (tensors(TensorSpec("x", FP32, (-1, 4))), "its inputs are 'x' (FP32)"),
        (tensors(TensorSpec("x", BYTES, (-1, 2))), "'x' (BYTES)"),
        (tensors(TensorSpec("a", BYTES, (-1,)), TensorSpec("b", BYTES, (-1,))), "'a' (BYTES), 'b' (BYTES)"),
        (tensors(), "its inputs are none that it names"),
        (rows({}, ["n"], n={"type": "integer"}), "its inputs are 'n'"),
        (rows({"a": "image", "b": "image"}, []), "'a', 'b'"),
        (rows({"a": "image", "b": "image"}, ["a", "b"]), "'a', 'b'"),
        (rows({"a": "image"}, ["a", "n"], n={"type": "integer"}), "'n', 'a'"),
        (rows({"deep.a": "image"}, []), "'deep'"),
    ],
)
def test_models_that_take_no_single_file(signature: Signature, words: str) -> None:
    """A client error that names the model, the type and its inputs (M16)."""
    with pytest.raises(ServingError) as caught:
        file_inputs(PNG, b"image/png", signature, "m")
    assert caught.value.kind is Kind.INVALID_INPUT
    assert "model 'm' does not take one file, so a body of type image/png" in caught.value.message
    assert words in caught.value.message
