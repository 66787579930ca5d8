"""What a source holds: which kinds of model are recognised, and what is refused before any of it is opened."""

import json
import os
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.library.specs import TUNGSTEN, checked, kept, write_record
from dragoman.serving.roots import Roots
from dragoman.serving.sources import Model, examine

ID = "0123456789abcdef0123456789abcdef"
MLMODEL = (
    "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n  sklearn:\n    pickled_model: model.pkl\nrun_id: r1\nmodel_id: m-1\n"
)


def put(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def seen(root: Path, source: str = ".") -> Model:
    subject = Roots.of([str(root)], [], root.parent / "data")
    return examine(subject.resolve(source), source, subject)


def refused(root: Path, source: str = ".") -> str:
    with pytest.raises(ServingError) as caught:
        seen(root, source)
    assert caught.value.what == "source"
    assert str(root) not in caught.value.message
    return caught.value.message


def description(kind: object = "pytorch", **fields: object) -> str:
    return json.dumps({"id": ID, "model_type": kind, **fields})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return (tmp_path / "root").resolve()


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"MLmodel": MLMODEL, "model.pkl": "x"}, "sklearn"),
        ({"MLmodel": "flavors:\n  python_function:\n    loader_module: a.b\n"}, "python_function"),
        ({"description.json": description(), "model.pt": "x"}, "pytorch"),
        ({"description.json": description(), "1/model.pt": "x"}, "pytorch"),
        ({"description.json": description("tensorflow"), "saved_model.pb": "x"}, "tensorflow"),
        ({"saved_model.pb": "x", "variables/variables.index": "x"}, "tensorflow"),
        ({"1/saved_model.pb": "x"}, "tensorflow"),
        ({"model.onnx": "x"}, "onnx"),
        ({"1/model.onnx": "x", "2/model.onnx": "x"}, "onnx"),
        ({"model.skops": "x"}, "sklearn"),
        ({"model.pkl": "x"}, "sklearn"),
        ({"model.ubj": "x"}, "xgboost"),
        ({"model.txt": "tree\nversion=v4\n"}, "lightgbm"),
        ({"model-settings.json": '{"name": "m", "implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": "m.skops"}}',
          "m.skops": "x"}, "sklearn"),
        ({"config.pbtxt": 'name: "root"\nbackend: "onnxruntime"\n', "1/model.onnx": "x"}, "triton"),
        ({"tungsten_model.py": "x = 1\n"}, "python"),
        ({"model.py": "class Model:\n    pass\n"}, "python"),
    ],
)  # fmt: skip
def test_what_is_recognised(root: Path, files: dict[str, str], kind: str) -> None:
    """By MLmodel, by description.json, and by whatever `serve` takes."""
    found = seen(put(root, files))
    assert (found.kind, found.place, found.folder) == (kind, root, root)
    assert {file.path for file in found.files} == set(files)
    assert found.facts["model_type"] == ("onnx" if kind == "triton" else kind)
    assert len(found.digest) == 64


def test_a_single_file(root: Path) -> None:
    """A file is a model without its neighbours."""
    found = seen(put(root, {"a.onnx": "x", "b.onnx": "y"}), "a.onnx")
    assert (found.place, found.folder, found.kind) == (root / "a.onnx", root, "onnx")
    assert [file.path for file in found.files] == ["a.onnx"]


@pytest.mark.parametrize("name", ["MLmodel", "description.json"])
def test_the_file_that_says_what_a_folder_is(root: Path, name: str) -> None:
    """Naming it means its folder."""
    files = {"MLmodel": MLMODEL, "m.pkl": "x"} if name == "MLmodel" else {"description.json": description(), "model.pt": "x"}
    assert seen(put(root, files), name).place == root


def test_code_has_the_record_of_a_build(root: Path) -> None:
    """So that it can be pushed, pulled and extracted like a model that was built."""
    put(root, {"a/tungsten_model.py": "x = 1\n", "b/code.py": "x = 1\n", "c/1/tungsten_model.py": "x = 1\n"})
    for source, artifact, module in (("a", "", "tungsten_model"), ("b/code.py", "code.py", "code"), ("c", "1", "tungsten_model")):
        found = seen(root, source)
        assert checked(found.kind, found.spec) == dict(found.spec)
        assert (found.spec["artifact"], found.spec["arguments"]["module"]) == (artifact, module)
    record = kept("", "tungsten_model", "Shout", {"batch_size": 2})
    write_record(root / "a", TUNGSTEN, record)
    found = seen(root, "a")
    assert (found.kind, dict(found.spec)) == (TUNGSTEN, record)
    assert "dragoman.json" in {file.path for file in found.files}


def test_the_facts_of_its_files(root: Path) -> None:
    """Ids that MLflow or Submarine gave it are kept."""
    assert seen(put(root / "a", {"MLmodel": MLMODEL, "m.pkl": "x"})).facts == {"model_type": "sklearn", "run_id": "r1", "model_id": "m-1"}
    assert seen(put(root / "b", {"description.json": description(), "model.pt": "x"})).facts == {"model_type": "pytorch", "id": ID}
    assert seen(put(root / "c", {"description.json": description(id=5), "model.pt": "x"})).facts == {"model_type": "pytorch"}


def test_submarines_own_layout(root: Path) -> None:
    """baseDir may be the folder above {name}/{version}; the model is where its description is."""
    put(root, {"iris/3/description.json": description(), "iris/3/model.pt": "x", "iris/config.pbtxt": "name: 'iris'"})
    found = seen(root)
    assert found.place == root / "iris" / "3"
    assert {file.path for file in found.files} == {"description.json", "model.pt"}
    put(root, {"iris/4/description.json": description(), "iris/4/model.pt": "x"})
    assert "it holds several models (iris/3/description.json, iris/4/description.json)" in refused(root)
    assert seen(root, "iris/4").place == root / "iris" / "4"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "it holds nothing; expected a model: MLmodel"),
        ({"readme.md": "x"}, "it holds readme.md; expected a model"),
        ({"a.onnx": "x", "b.onnx": "y"}, "holds several models (a.onnx, b.onnx)"),
        ({"one/model.onnx": "x", "two/model.onnx": "y"}, "expected a model"),
        ({"MLmodel": "flavors: {}\n"}, "'flavors'"),
        ({"MLmodel": "[" * 100_000}, "MLmodel"),
        ({"description.json": "{"}, "description.json is not JSON"),
        ({"description.json": "[" * 100_000}, "description.json is not JSON"),
        ({"description.json": "[]"}, "description.json has the model_type 'None', expected pytorch or tensorflow"),
        ({"description.json": description("caffe"), "model.pt": "x"}, "has the model_type 'caffe'"),
        ({"description.json": description([1])}, "has the model_type"),
        ({"description.json": "x" * (1 << 20) + "x"}, "has more than"),
        ({"description.json": description()}, "says pytorch, but there is not TorchScript (model.pt) beside it"),
        ({"description.json": description("tensorflow")}, "says tensorflow, but there is not a SavedModel"),
        ({"description.json": description("tensorflow"), "model.pt": "x"}, "says tensorflow, but there is not a SavedModel"),
        ({"description.json": description(), "saved_model.pb": "x"}, "says pytorch, but there is not TorchScript"),
        ({"config.pbtxt": "name: 'root'", "1/x": "x"}, "cannot be registered"),
        ({"dragoman.json": "{}"}, "dragoman.json"),
        ({"tungsten_model.py": "def"}, "cannot be registered"),
    ],
)
def test_what_is_no_model(root: Path, files: dict[str, str], told: str) -> None:
    """Each is refused with what was found and what was expected (requirement R11)."""
    assert told in refused(put(root, files))


def test_pipes_and_devices(root: Path) -> None:
    """Whatever could wait for ever is refused without being opened, wherever it lies and whatever it is called."""
    for name in ("model.onnx", "MLmodel", "description.json", "config.pbtxt", "sub/tungsten_model.py"):
        folder = root / name.replace("/", "-")
        (folder / name).parent.mkdir(parents=True)
        os.mkfifo(folder / name)
        assert "is neither a file nor a folder" in refused(root, folder.name)
    (root / "null").mkdir()
    (root / "null" / "model.onnx").symlink_to("/dev/null")
    assert "leads out of the model root" in refused(root, "null")


def test_links_inside_of_a_model(root: Path) -> None:
    """They may lead anywhere in the same root, as download caches have them, but not out of it, to nothing, or in a circle."""
    put(root, {"blobs/abc": "x"})
    put(root.parent, {"secret.onnx": "x"})
    for name, target in (("good", "../blobs/abc"), ("out", "../../secret.onnx"), ("nowhere", "nothing"), ("self", "model.onnx")):
        (root / name).mkdir()
        (root / name / "model.onnx").symlink_to(target)
    (root / "round").mkdir()
    (root / "round" / "again").symlink_to(".")
    found = seen(root, "good")
    assert [(file.path, file.size) for file in found.files] == [("model.onnx", 1)]
    assert "leads out of the model root" in refused(root, "out")
    assert "leads nowhere" in refused(root, "nowhere")
    assert "leads nowhere" in refused(root, "self")
    assert "in a circle" in refused(root, "round")


def test_links_between_roots_of_different_trust(root: Path) -> None:
    """What is trusted must not come out of a folder that is not."""
    put(root, {"open/model.pkl": "x"})
    (root / "safe").mkdir()
    (root / "safe" / "model.pkl").symlink_to("../open/model.pkl")
    subject = Roots.of([str(root / "open")], [str(root)], root.parent / "data")
    with pytest.raises(ServingError, match="leads out of the model root"):
        examine(subject.resolve(str(root / "safe")), "safe", subject)


def test_bounds(root: Path) -> None:
    """What is too deep, or has a name that is no text, is not registered."""
    put(root, {f"deep/{'d/' * 40}model.onnx": "x"})
    assert "folders deep" in refused(root, "deep")
    strange = Path(os.fsdecode(bytes(root) + b"/\xff"))
    strange.mkdir()
    (strange / "model.onnx").touch()
    (root / "link").symlink_to(strange)
    assert "name that is no text" in refused(root, "link")


def test_the_digest_is_of_the_content(root: Path) -> None:
    """The same files elsewhere have the same; another byte or another name has another. What tools leave behind does not count."""
    first = seen(put(root, {"a/model.onnx": "x", "b/model.onnx": "x", "c/model.onnx": "y", "d/m.onnx": "x"}), "a").digest
    put(root, {"b/.git/HEAD": "x", "b/__pycache__/x.pyc": "x"})
    assert seen(root, "b").digest == first
    assert len({first, seen(root, "c").digest, seen(root, "d").digest}) == 3


def test_files_that_vanish(root: Path) -> None:
    """A model that is removed while it is looked at is bad input, not a failure of the server."""
    put(root, {"m/model.onnx": "x"})
    subject = Roots.of([str(root)], [], root.parent / "data")
    place = subject.resolve("m")
    (place / "model.onnx").unlink()
    place.rmdir()
    with pytest.raises(ServingError) as caught:
        examine(place, "m", subject)
    assert (caught.value.kind, caught.value.what) == (Kind.INVALID_INPUT, "source")
