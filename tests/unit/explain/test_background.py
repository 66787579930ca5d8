"""Background data: which file, what is in it, and how it fits the model."""

from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import ModelSpec
from dragoman.core.tensors import BYTES, FP32, FP64, Form, Rows, Signature, Tensors, TensorSpec
from dragoman.serving.explain.background import Background, read_background

MATRIX = Signature(inputs=(TensorSpec("X", FP32, (-1, 2)),), batch=True)
COLUMNS = Signature(inputs=(TensorSpec("age", FP64, (-1,)), TensorSpec("city", BYTES, (-1,))), batch=True)
ROWS = Signature(
    Form.ROWS, input_schema={"type": "object", "properties": {"n": {"type": "number"}, "t": {"type": "string"}}, "required": ["n"]}
)


def read(folder: Path, name: str, content: str | bytes, signature: Signature = MATRIX, rows: int = 50) -> Background:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_background(ModelSpec("m"), signature, str(path), rows)


def lists(background: Background) -> Any:
    assert isinstance(background.inputs, Tensors)
    return [t.array.tolist() for t in background.inputs.items]


@pytest.mark.parametrize(
    ("name", "content", "names"),
    [
        ("b.json", "[[1, 2], [3, 4]]", ()),
        ("b.JSON", '{"inputs": [[1, 2], [3, 4]]}', ()),
        ("b.json", '[{"u": 1, "v": 2}, {"v": 4, "u": 3}]', ("u", "v")),
        ("b.json", '[{"X": [1, 2]}, {"X": [3, 4]}]', ()),
        ("b.csv", "u,v\n1,2\n3,4\n", ("u", "v")),
        ("b.csv", "\ufeffu,v\r\n1,2.0\r\n\r\n3,4\r\n", ("u", "v")),
    ],
)
def test_a_matrix(tmp_path: Path, name: str, content: str, names: tuple[str, ...]) -> None:
    """Lists, objects and tables; columns of a table name the features."""
    background = read(tmp_path, name, content)
    assert lists(background) == [[[1, 2], [3, 4]]]
    assert background.names == names


def test_columns(tmp_path: Path) -> None:
    """By name, whatever else is in the table; numbers are numbers and texts texts."""
    assert lists(read(tmp_path, "b.csv", "label,city,age\n0,Rome,30\n1,Oslo,40.5\n", COLUMNS)) == [[30, 40.5], [b"Rome", b"Oslo"]]
    assert lists(read(tmp_path, "b.json", '[[30, "Rome"]]', COLUMNS)) == [[30], [b"Rome"]]


def test_rows(tmp_path: Path) -> None:
    """Objects, checked against the schema."""
    background = read(tmp_path, "b.csv", "n,t,other\n1,x,2\n", ROWS)
    assert background.inputs == Rows([{"n": 1, "t": "x"}])


def test_few_out_of_many(tmp_path: Path) -> None:
    """Evenly out of the whole file."""
    assert lists(read(tmp_path, "b.json", str([[i, 0] for i in range(100)]), rows=4)) == [[[0, 0], [25, 0], [50, 0], [75, 0]]]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("b.json", "[1, 2", "is no JSON"),
        ("b.json", "7", "is no list of data points"),
        ("b.json", "[7]", "is no list of data points"),
        ("b.json", "{}", "is no list of data points"),
        ("b.json", "[]", "has no data point"),
        ("b.csv", "", "has no data point"),
        ("b.csv", "u,v\n", "has no data point"),
        ("b.csv", "u,v\n1\n", "data point 1 has 1 values, expected 2"),
        ("b.csv", "u,u\n1,2\n", "has a column twice"),
        ("b.csv", b"u,v\n\xff,2\n", "is no CSV in UTF-8"),
        ("b.csv", 'u,v\n"1,2\n', "is no CSV in UTF-8"),
        ("b.csv", "u,v\nRome,2\n", "input 'X' of model 'm'"),
        ("b.json", '[{"u": 1, "v": 2}, {"u": 3}]', "the same keys as the first"),
        ("b.json", '[{"u": 1, "v": 2}, [3, 4]]', "the same keys as the first"),
        ("b.json", "[[1, 2], [3]]", "input 'X' of model 'm'"),
        ("b.txt", "1", "is not there, or no file of .json or .csv"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, name: str, content: str | bytes, words: str) -> None:
    """The text names the file and the model, but no place of this machine."""
    with pytest.raises(ServingError) as caught:
        read(tmp_path, name, content)
    assert caught.value.kind is Kind.INVALID_INPUT
    assert f"the background {name} of model 'm'" in caught.value.message
    assert words in caught.value.message
    assert str(tmp_path) not in caught.value.message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Folders, what is not there, names that no file has."""
    (tmp_path / "folder.csv").mkdir()
    for place in (tmp_path / "folder.csv", tmp_path / "none.csv", "a\0.csv"):
        with pytest.raises(ServingError, match=r"the background .* of model 'm'"):
            read_background(ModelSpec("m"), MATRIX, str(place), 1)


def test_too_large_a_file(tmp_path: Path) -> None:
    """Is not read whole."""
    path = tmp_path / "b.csv"
    with path.open("wb") as file:
        file.truncate((32 << 20) + 1)
    with pytest.raises(ServingError, match="has more than 33554432 bytes"):
        read_background(ModelSpec("m"), MATRIX, str(path), 1)


def test_next_to_the_model(tmp_path: Path) -> None:
    """By the name of its file first, then by that of its folder; without any the text says what to do."""
    model = tmp_path / "iris.onnx"
    model.write_bytes(b"x")
    spec = ModelSpec("m", artifact=str(model))
    with pytest.raises(
        ServingError, match=r"put iris\.background\.json or background\.csv next to it, or say --explain m=auto:background=FILE"
    ):
        read_background(spec, MATRIX, "", 1)
    (tmp_path / "background.json").write_text("[[1, 2]]")
    assert lists(read_background(spec, MATRIX, "", 1)) == [[[1, 2]]]
    assert lists(read_background(ModelSpec("m", artifact=str(tmp_path)), MATRIX, "", 1)) == [[[1, 2]]]
    (tmp_path / "iris.background.csv").write_text("u,v\n3,4\n")
    assert lists(read_background(spec, MATRIX, "", 1)) == [[[3, 4]]]
    with pytest.raises(ServingError, match="cannot be explained without background data"):
        read_background(ModelSpec("m"), MATRIX, "", 1)
