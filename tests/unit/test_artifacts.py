"""Which runtime a file is for, and which file of a folder a runtime takes."""

from pathlib import Path

import pytest

from dragoman.core.artifacts import CONVENTIONAL, SUFFIXES, detect, found_in, locate, looks_like_lightgbm, looks_like_xgboost
from dragoman.core.errors import Kind, ServingError
from dragoman.core.plugins import BUILT_IN

XGBOOST_JSON = b'{"learner":{"attributes":{}},"version":[3,2,0]}'
XGBOOST_UBJ = b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner{L\x00\x00"
LIGHTGBM = b"tree\nversion=v4\n"


@pytest.mark.parametrize(
    ("name", "content", "runtime"),
    [
        ("model.onnx", b"x", "onnx"),
        ("MODEL.ONNX", b"x", "onnx"),
        ("model.ort", b"x", "onnx"),
        ("model.tflite", b"x", "litert"),
        ("model.skops", b"x", "sklearn"),
        ("model.joblib", b"x", "sklearn"),
        ("model.pkl", b"x", "sklearn"),
        ("model.pickle", b"x", "sklearn"),
        ("model.ubj", b"x", "xgboost"),
        ("model.json", XGBOOST_JSON, "xgboost"),
        ("model.json", b'{ "version" : [1, 7, 4],\n "learner": {', "xgboost"),
        ("model.json", b'{"name": "iris"}', None),
        ("model.json", b"", None),
        ("signatures.json", b'{"onnx_signatures": 1, "signatures": {', "onnx"),
        ("signatures.json", b'\n{\n  "onnx_signatures" : 2', "onnx"),
        ("signatures.json", b'{"default": "a", "onnx_signatures": 1', None),
        ("model.bst", XGBOOST_UBJ, "xgboost"),
        ("model.bst", XGBOOST_JSON, "xgboost"),
        ("model.bst", LIGHTGBM, "lightgbm"),
        ("model.model", XGBOOST_UBJ, "xgboost"),
        ("model.model", b"sentencepiece", None),
        ("model.txt", LIGHTGBM, "lightgbm"),
        ("model.txt", b"tree\r\nversion=v4\r\n", "lightgbm"),
        ("labels.txt", b"setosa\nversicolor\n", None),
        ("trees.txt", b"trees are green\n", None),
        ("model.pt2", b"x", "torch"),
        ("model.pt", b"x", "torch"),
        ("model.pth", b"x", "torch"),
        ("model.py", b"x", None),
        ("README", b"x", None),
    ],
)
def test_detect(name: str, content: bytes, runtime: str | None, tmp_path: Path) -> None:
    """The suffix decides, without regard to case; where several formats share one, the first bytes do."""
    path = tmp_path / name
    path.write_bytes(content)
    assert detect(path) == runtime


def test_folders_are_no_models(tmp_path: Path) -> None:
    """A folder that is called like a model is none, nor is what does not exist."""
    for suffix in SUFFIXES:
        (tmp_path / f"folder{suffix}").mkdir()
        assert detect(tmp_path / f"folder{suffix}") is None
        assert detect(tmp_path / f"missing{suffix}") is None


def test_the_tables_name_only_runtimes_that_exist() -> None:
    """Every suffix and every conventional name belongs to a built-in runtime, and every runtime of files with a format has both."""
    runtimes = set(BUILT_IN["runtimes"]) - {"python", "mlflow", "savedmodel"}  # folders and code
    assert set(SUFFIXES.values()) == runtimes
    assert set(CONVENTIONAL) == runtimes
    for runtime, names in CONVENTIONAL.items():
        for name in names:
            assert SUFFIXES[Path(name).suffix] in {runtime, "xgboost"}


def test_first_bytes() -> None:
    """What is recognised is the format, not a word in the text."""
    assert looks_like_xgboost(XGBOOST_JSON)
    assert looks_like_xgboost(b"\n  " + XGBOOST_JSON)
    assert looks_like_xgboost(XGBOOST_UBJ)
    assert not looks_like_xgboost(b'{"teacher":{},"learner":{}}')
    assert not looks_like_xgboost(b"learner")
    assert looks_like_lightgbm(LIGHTGBM)
    assert not looks_like_lightgbm(b"tree")
    assert not looks_like_lightgbm(b"")


def test_found_in_leaves_out_the_rest(tmp_path: Path) -> None:
    """Only visible files that some runtime is for, in order of names."""
    for name, content in {"b.onnx": b"x", "a.txt": LIGHTGBM, "labels.txt": b"x", ".hidden.onnx": b"x", "config.pbtxt": b"x"}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "1").mkdir()
    assert [(path.name, runtime) for path, runtime in found_in(tmp_path)] == [("a.txt", "lightgbm"), ("b.onnx", "onnx")]


def test_locate_takes_the_file_itself(tmp_path: Path) -> None:
    """A file is taken whatever it is called."""
    path = tmp_path / "weights.bin"
    path.write_bytes(b"x")
    assert locate(str(path), "onnx", "m") == path


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["model.onnx", "other.onnx"], "model.onnx"),
        (["iris.onnx", "labels.txt"], "iris.onnx"),
        (["model.onnx", "model.pt"], "model.onnx"),
    ],
)
def test_locate_in_a_folder(files: list[str], chosen: str, tmp_path: Path) -> None:
    """The conventional name comes first, then the only candidate; files of other runtimes do not matter."""
    for name in files:
        (tmp_path / name).write_bytes(b"x")
    assert locate(str(tmp_path), "onnx", "m").name == chosen


def test_conventional_names_are_tried_in_order(tmp_path: Path) -> None:
    """Of several conventional names the preferred one is taken."""
    for name in reversed(CONVENTIONAL["sklearn"]):
        (tmp_path / name).write_bytes(b"x")
        assert locate(str(tmp_path), "sklearn", "m").name == name


@pytest.mark.parametrize(
    ("files", "kind", "says"),
    [
        ({"a.onnx": b"x", "b.onnx": b"x"}, Kind.INVALID_INPUT, "several files for the runtime 'onnx', expected one: 'a.onnx', 'b.onnx'"),
        ({"notes.md": b"x"}, Kind.NOT_FOUND, "holds no file for the runtime 'onnx', such as 'model.onnx'"),
        ({}, Kind.NOT_FOUND, "holds no file"),
        ({"model.onnx": b""}, Kind.INVALID_INPUT, "'model.onnx' of model 'm' is empty"),
        ({"model.onnx": b"version https://git-lfs.github.com/spec/v1\n"}, Kind.INVALID_INPUT, "git lfs pull"),
    ],
)
def test_locate_explains(files: dict[str, bytes], kind: Kind, says: str, tmp_path: Path) -> None:
    """What is wrong with a folder is said with the names of its files, not with where it lies."""
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ServingError) as caught:
        locate(str(tmp_path), "onnx", "m")
    assert caught.value.kind is kind
    assert says in caught.value.message
    assert "'m'" in caught.value.message
    assert str(tmp_path) not in caught.value.message


def test_locate_runtimes_from_elsewhere(tmp_path: Path) -> None:
    """A runtime that nobody knows has no conventional names; its folder gives a plain answer."""
    with pytest.raises(ServingError, match="no file for the runtime 'mine', such as a file"):
        locate(str(tmp_path), "mine", "m")
