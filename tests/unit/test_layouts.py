"""What a folder is, when its state changes, and folders that lead elsewhere or cannot be read."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving import layouts
from dragoman.serving.layouts import is_model, models_below, one_artifact, state_of, version_folders
from dragoman.serving.repository import Defaults, Found, Repository

NOBODY = 65534


def put(path: Path, content: str = "a model") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, "utf-8")
    return path


@contextmanager
def without_privileges() -> Iterator[None]:
    """Act as a user for whom closed folders are closed; tests may run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can read, with one inside that nobody can."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        put(root / "closed" / "model.onnx")
        put(root / "good" / "model.onnx")
        (root / "closed").chmod(0)
        yield root
        (root / "closed").chmod(0o700)


# --- versions ---


@pytest.mark.parametrize(("leading_zeros", "expected"), [(True, {"0", "1", "7", "10"}), (False, {"1", "10"})])
def test_which_folders_are_versions(tmp_path: Path, leading_zeros: bool, expected: set[str]) -> None:
    """Numbers only; TensorFlow Serving reads 007 as 7, Triton ignores whatever begins with 0."""
    for name in ("0", "1", "007", "10", "1a", "v2", "+3", "٣", "1.0", "-1", str(1 << 63)):
        (tmp_path / name).mkdir()
    put(tmp_path / "5")
    assert set(version_folders(tmp_path, leading_zeros=leading_zeros)) == expected


def test_a_file_has_no_versions(tmp_path: Path) -> None:
    """Nor has what does not exist."""
    assert version_folders(put(tmp_path / "f")) == {}
    assert version_folders(tmp_path / "none") == {}


# --- one model or many ---


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["config.pbtxt"], True),
        (["model-settings.json"], True),
        (["1/anything"], True),
        (["model.onnx"], True),
        (["a.onnx", "b.onnx"], False),
        (["README.md"], False),
        (["iris/model.onnx"], False),
        ([".hidden.onnx"], False),
    ],
)
def test_what_is_one_model(tmp_path: Path, files: list[str], expected: bool) -> None:
    """A configuration, a version or a single artifact make a folder a model."""
    for file in files:
        put(tmp_path / file)
    assert is_model(tmp_path) is expected


def test_models_below_are_found_in_order(tmp_path: Path) -> None:
    """Alphabetically; files beside the folders do not matter."""
    for name in ("b", "a", "c/d"):
        put(tmp_path / name / "model.onnx")
    put(tmp_path / "README.md")
    assert [p.name for p in models_below(tmp_path)] == ["a", "b", "d"]


def test_folders_in_a_circle_end(tmp_path: Path) -> None:
    """A link to a folder above is followed a few levels deep only."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    assert list(models_below(tmp_path)) == []
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert list(models_below(tmp_path)) == []


# --- the artifact ---


def test_the_file_that_is_named(tmp_path: Path) -> None:
    """A file or a folder inside; what is missing is said."""
    put(tmp_path / "a.onnx")
    named = put(tmp_path / "b.onnx")
    inner = put(tmp_path / "folder" / "c.onnx")
    assert one_artifact(tmp_path, "b.onnx") == named
    assert one_artifact(tmp_path, "folder") == inner
    with pytest.raises(ServingError, match=r"there is no d\.onnx"):
        one_artifact(tmp_path, "d.onnx")


def test_links_must_not_lead_out(tmp_path: Path) -> None:
    """A name from a configuration file opens nothing outside of the folder, by dots, as an absolute path or by a link."""
    secret = put(tmp_path / "secret.onnx")
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "link.onnx").symlink_to(secret)
    (folder / "inside.onnx").symlink_to(put(folder / "real.onnx"))
    for hostile in ("../secret.onnx", str(secret), "link.onnx", "x/../../secret.onnx"):
        with pytest.raises(ServingError) as caught:
            one_artifact(folder, hostile)
        assert caught.value.kind is Kind.INVALID_INPUT
    assert one_artifact(folder, "inside.onnx") == folder / "real.onnx"


@pytest.mark.parametrize("name", ["saved_model.pb", "saved_model.pbtxt"])
def test_a_saved_model_is_its_folder(tmp_path: Path, name: str) -> None:
    """Whatever else lies in it; and in a version folder of Triton it has a name of its own."""
    put(tmp_path / "a" / name)
    put(tmp_path / "a" / "assets" / "model.onnx")
    assert one_artifact(tmp_path / "a") == tmp_path / "a"
    assert is_model(tmp_path / "a")
    put(tmp_path / "b" / "1" / "model.savedmodel" / name)
    assert one_artifact(tmp_path / "b" / "1") == tmp_path / "b" / "1" / "model.savedmodel"
    assert one_artifact(tmp_path / "b" / "1", "model.savedmodel") == tmp_path / "b" / "1" / "model.savedmodel"
    assert list(models_below(tmp_path)) == [tmp_path / "a", tmp_path / "b"]


# --- state and revision ---


def revision(path: Path) -> str:
    """The revision of the one model there."""
    (found,) = Repository([str(path)], Defaults()).discover()
    (spec,) = found.versions.values()
    return spec.revision


def test_a_revision_changes_with_its_file_and_only_then(tmp_path: Path) -> None:
    """Reading again changes nothing; another size or another time does, a neighbour does not."""
    path = put(tmp_path / "m.onnx")
    first = revision(path)
    put(tmp_path / "n.onnx")
    assert revision(path) == first
    put(path, "another model")
    second = revision(path)
    assert second != first
    os.utime(path, ns=(1, 1))
    assert revision(path) not in (first, second)


@pytest.mark.parametrize("folder", ["1", "0001"])
def test_what_lies_beside_the_artifact_of_a_version_counts(tmp_path: Path, folder: str) -> None:
    """Weights in a file of their own change the revision too, however the folder writes its number."""
    put(tmp_path / "m" / folder / "model.onnx")
    weights = put(tmp_path / "m" / folder / "weights" / "data.bin")
    first = revision(tmp_path / "m")
    put(weights, "other weights")
    second = revision(tmp_path / "m")
    weights.unlink()
    assert len({first, second, revision(tmp_path / "m")}) == 3


def test_settings_count_too(tmp_path: Path) -> None:
    """Another batch size is another revision; the same settings are the same."""
    path = str(put(tmp_path / "m.onnx"))

    def of(defaults: Defaults) -> str:
        return Repository([path], defaults).discover()[0].versions["1"].revision

    assert of(Defaults()) == of(Defaults())
    assert of(Defaults()) != of(Defaults(instances=2)) != of(Defaults(arguments={"threads": 1}))


def test_the_state_of_a_folder_is_of_all_its_files(tmp_path: Path) -> None:
    """In a steady order, whatever order the disk lists them in."""
    for name in ("b", "a/c", "a/b"):
        put(tmp_path / name)
    state = state_of(tmp_path)
    assert [line.rsplit(":", 3)[0].removeprefix(f"{tmp_path}/") for line in state.splitlines()] == ["b", "a/b", "a/c"]
    assert state_of(tmp_path) == state


def test_a_folder_of_countless_files_is_no_model(tmp_path: Path) -> None:
    """Somebody's home folder is not read to its end."""
    for number in range(10_001):
        (tmp_path / str(number)).touch()
    with pytest.raises(ServingError, match="more than 10000 files"):
        state_of(tmp_path)


# --- folders that cannot be read ---


def found_in(path: Path) -> dict[str, Found]:
    with without_privileges():
        return {f.name: f for f in Repository([str(path)], Defaults()).discover()}


def test_a_closed_folder_is_an_error_with_its_reason(public: Path) -> None:
    """As a target of its own."""
    assert "cannot be read: Permission denied" in found_in(public / "closed")["closed"].error


def test_a_closed_folder_does_not_hide_its_neighbours(public: Path) -> None:
    """In a repository it is one bad model."""
    found = found_in(public)
    assert "Permission denied" in found["closed"].error
    assert list(found["good"].versions) == ["1"]


def test_what_lies_in_a_closed_folder_cannot_be_asked_for(public: Path) -> None:
    """Neither as a path nor by name, at the start or later."""
    target = public / "closed" / "model.onnx"
    assert "Permission denied" in found_in(target)["model"].error
    with without_privileges():
        repository = Repository([f"m={target}"], Defaults())
        found = repository.find("m")
        assert found is not None
        assert "Permission denied" in found.error
        assert repository.names() == ["m"]


def test_a_closed_file_is_found_and_its_loading_says_why(public: Path) -> None:
    """A suffix that says enough is not opened; one that says too little is, and that fails."""
    put(public / "a" / "model.onnx").chmod(0)
    put(public / "b" / "model.json").chmod(0)
    found = found_in(public)
    assert not found["a"].error
    assert "Permission denied" in found["b"].error


def test_layout_questions_name_what_cannot_be_read(public: Path) -> None:
    """The message has the folder and the reason."""
    with without_privileges(), pytest.raises(ServingError, match="closed cannot be read: Permission denied"):
        layouts.visible(public / "closed")
