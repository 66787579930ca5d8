"""Which files of a project are copied, that nothing else can be, and that changes are noticed."""

import os
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import ServingError
from dragoman.serving.library.packing import (
    MOST_FILES,
    File,
    additions,
    chosen,
    copy,
    digest_of,
    files_of,
    manifest,
    recorded,
    verify,
    whole,
)
from tests.unit.library.projects import project, put


def test_what_is_chosen(tmp_path: Path) -> None:
    """Everything but what tools leave; patterns say more; the model's own file is always taken."""
    source = project(tmp_path / "p")
    assert set(chosen(source, ["*"], [])) == {"tungsten_model.py", "helper.py", "weights/w.bin"}
    assert set(chosen(source, ["*.py"], ["tungsten*"], ["tungsten_model.py"])) == {"helper.py", "tungsten_model.py"}
    assert set(chosen(source, ["*"], ["weights/"])) == {"tungsten_model.py", "helper.py"}


def test_links(tmp_path: Path) -> None:
    """Followed inside of the project, to files and folders; refused when they lead out, in a circle or nowhere."""
    source = project(tmp_path / "p")
    (source / "same.bin").symlink_to("weights/w.bin")
    (source / "more").symlink_to("weights")
    found = chosen(source, ["*"], [])
    assert found["same.bin"] == found["more/w.bin"] == (source / "weights" / "w.bin").resolve()
    put(tmp_path / "outside.txt", "x")
    for name, target in (("out", "../outside.txt"), ("up", ".."), ("here", "."), ("nowhere", "gone"), ("round", "round")):
        (source / name).symlink_to(target)
        with pytest.raises(ServingError, match=name):
            chosen(source, ["*"], [])
        (source / name).unlink()
    (source / "out").symlink_to("../outside.txt")
    assert "out" not in chosen(source, ["*"], ["out"])


def test_what_is_no_file(tmp_path: Path) -> None:
    """A pipe would be read for ever."""
    source = project(tmp_path / "p")
    os.mkfifo(source / "pipe")
    with pytest.raises(ServingError, match="'pipe' is neither a file nor a folder"):
        chosen(source, ["*"], [])
    assert "pipe" not in chosen(source, ["*"], ["pipe"])


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """They could be neither listed nor sent."""
    source = project(tmp_path / "p")
    (source / os.fsdecode(b"half\xff")).write_text("x")
    with pytest.raises(ServingError, match="not UTF-8"):
        chosen(source, ["*"], [])


def test_bounds(tmp_path: Path) -> None:
    """Too many files are a mistake; so are folders without end."""
    source = project(tmp_path / "p")
    (source / "many").mkdir()
    for number in range(MOST_FILES):
        (source / "many" / str(number)).touch()
    with pytest.raises(ServingError, match="more than 10000 files"):
        chosen(source, ["*"], [])
    assert len(chosen(source, ["*"], ["many"])) == 3
    put(source.joinpath(*"d" * 40) / "x", "x")
    with pytest.raises(ServingError, match="folders deep"):
        chosen(source, ["*"], ["many"])


def test_files_from_elsewhere(tmp_path: Path) -> None:
    """--copy-files takes files and folders from anywhere, relative to the project, and puts them inside of the model."""
    source = project(tmp_path / "p")
    put(tmp_path / "big" / "a.bin", "a")
    put(tmp_path / "big" / "in" / "b.bin", "b")
    put(tmp_path / "big" / ".git" / "c", "c")
    assert set(additions(source, [("../big", "data")])) == {"data/a.bin", "data/in/b.bin"}
    assert set(additions(source, [("../big", ".")])) == {"a.bin", "in/b.bin"}
    assert set(additions(source, [(str(tmp_path / "big" / "a.bin"), "x/y.bin")])) == {"x/y.bin"}
    assert set(additions(source, [("../big/a.bin", "x/")])) == {"x/a.bin"}
    for target in ("/etc/x", "../x", "a/../../x", ""):
        with pytest.raises(ServingError, match="copy-files"):
            additions(source, [("../big", target)])
    with pytest.raises(ServingError, match="there is no gone"):
        additions(source, [("gone", "x")])


def test_a_copy_and_its_record(tmp_path: Path) -> None:
    """Size, hash and whether it can be run; the digest is the same wherever it was copied."""
    source = project(tmp_path / "p")
    (source / "helper.py").chmod(0o755)
    copy(chosen(source, ["*"], []), tmp_path / "a")
    copy(chosen(source, ["*"], []), tmp_path / "b")
    put(tmp_path / "b" / "__pycache__" / "x.pyc", "x")
    files = recorded(tmp_path / "a")
    assert [(f.path, f.size, f.executable) for f in files] == [
        ("helper.py", 35, True),
        ("tungsten_model.py", (source / "tungsten_model.py").stat().st_size, False),
        ("weights/w.bin", 7, False),
    ]
    assert files == recorded(tmp_path / "b")
    assert files == files_of(manifest(files))
    digest = digest_of("tungsten", {"a": 1}, files)
    assert digest == digest_of("tungsten", {"a": 1}, tuple(reversed(files)))
    others = {digest_of("python", {"a": 1}, files), digest_of("tungsten", {"a": 2}, files), digest_of("tungsten", {"a": 1}, files[1:])}
    assert len(others - {digest}) == 3


def test_damage_is_noticed(tmp_path: Path) -> None:
    """Files that changed, went, or became links; files that came later are the model's own business."""
    copy(chosen(project(tmp_path / "p"), ["*"], []), tmp_path / "a")
    files = recorded(tmp_path / "a")
    put(tmp_path / "a" / "output.png", "new")
    verify(tmp_path / "a", files, "m:1")
    weights = tmp_path / "a" / "weights" / "w.bin"
    for damage in ("weightz", "weights more"):
        weights.write_text(damage)
        with pytest.raises(ServingError, match=r"'m:1' is damaged: 'weights/w\.bin'"):
            verify(tmp_path / "a", files, "m:1")
    weights.unlink()
    weights.symlink_to(put(tmp_path / "w", "weights"))
    with pytest.raises(ServingError, match="damaged"):
        verify(tmp_path / "a", files, "m:1")
    weights.unlink()
    with pytest.raises(ServingError, match="damaged"):
        verify(tmp_path / "a", files, "m:1")


def test_a_lone_file(tmp_path: Path) -> None:
    """Only itself, whatever lies beside it."""
    file = put(tmp_path / "m.onnx", "x")
    put(tmp_path / "other", "x")
    assert whole(file) == {"m.onnx": file.resolve()}


GOOD = {"path": "a/b", "size": 1, "sha256": "0" * 64, "executable": False}


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"files": None},
        {"files": []},
        {"files": ["a"]},
        {"files": [GOOD, GOOD]},
        {"files": [GOOD] * 10_001},
        *({"files": [GOOD | change]} for change in (
            {"path": "/a"}, {"path": "../a"}, {"path": "a/../b"}, {"path": ""}, {"path": "a//b"}, {"path": "./a"}, {"path": "a/"}, {"path": "a\\b"},
            {"path": "a\x00"}, {"path": 3}, {"size": -1}, {"size": True}, {"size": 1.5}, {"size": 1 << 41}, {"sha256": "0"}, {"sha256": "g" * 64},
            {"sha256": None}, {"executable": 1}, {"executable": None},
        )),
    ],
)  # fmt: skip
def test_manifests_from_elsewhere(content: dict[str, Any]) -> None:
    """Only lists of files with sound paths, sizes and hashes are taken."""
    assert files_of({"files": [GOOD]}) == (File("a/b", 1, "0" * 64),)
    with pytest.raises(ServingError):
        files_of(content)
