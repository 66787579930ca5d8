"""Which files are a project's code (requirement F4: ignored files never leave)."""

import os
from pathlib import Path

import pytest

from dragoman.cli.jobs_ignore import USUAL, code_files, parse
from dragoman.core.errors import ServingError


def made(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def names(folder: Path) -> list[str]:
    return [each.name for each in code_files(folder)]


def test_everything_without_rules(tmp_path: Path) -> None:
    """Sub-folders, hidden files and the client's own ones too; the size is that of the file."""
    made(tmp_path, "app.py", ".floydexpt", "a/b/c.bin", "ü/é.txt", "a/empty")
    (tmp_path / "a/empty").write_bytes(b"")
    assert names(tmp_path) == [".floydexpt", "a/b/c.bin", "a/empty", "app.py", "ü/é.txt"]
    assert {each.name: each.size for each in code_files(tmp_path)}["a/empty"] == 0


def test_the_usual_rules(tmp_path: Path) -> None:
    """What `init` writes leaves out histories, libraries and compiled files, wherever they lie."""
    made(tmp_path, "app.py", ".git/config", "sub/.git/x", "lib/x.py", "sub/lib64/y", "x.pyc", "sub/x.pyc", ".DS_Store", "library/z.py")
    (tmp_path / ".floydignore").write_text(USUAL)
    assert names(tmp_path) == [".floydignore", "app.py", "library/z.py"]


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        ("*.txt\n!keep.txt", ["keep.txt", "sub/data.bin", "sub/keep.txt"]),
        ("/sub", ["a.txt", "b.txt", "keep.txt"]),
        ("sub/", ["a.txt", "b.txt", "keep.txt"]),
        ("sub\n!sub/data.bin", ["a.txt", "b.txt", "keep.txt"]),
        ("sub/*.bin\n# a.txt\n\n  b.txt  ", ["a.txt", "keep.txt", "sub/keep.txt"]),
        ("*\n!a.txt", ["a.txt"]),
        ("[ab].txt\n/\n.", ["keep.txt", "sub/data.bin", "sub/keep.txt"]),
    ],
)
def test_rules(tmp_path: Path, rules: str, left: list[str]) -> None:
    """Globs from the end of a path; a folder that stays keeps all that is in it."""
    made(tmp_path, "a.txt", "b.txt", "keep.txt", "sub/data.bin", "sub/keep.txt")
    (tmp_path / ".floydignore").write_text(f"{rules}\n.floydignore\n")
    assert names(tmp_path) == left


def test_escapes() -> None:
    """Names that begin with the signs of rules."""
    rules = parse("\\!loud\n\\#1\n")
    assert rules.stays("!loud")
    assert rules.stays("a/#1")
    assert not rules.stays("loud")


def test_links_and_what_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A link to a file is that file; what else lies there is left out, and named."""
    made(tmp_path, "app.py", "real/x")
    (tmp_path / "same.py").symlink_to("app.py")
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "gone").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    assert names(tmp_path) == ["app.py", "real/x", "same.py"]
    told = capsys.readouterr().err
    assert all(f"'{name}' is not uploaded" in told for name in ("folder", "gone", "pipe"))


def test_keys_never_leave(tmp_path: Path) -> None:
    """The file with the keys is no code, also for who makes a project of their home."""
    made(tmp_path, "app.py", ".floydconfig", "sub/.floydconfig")
    assert names(tmp_path) == ["app.py"]


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    """It is refused by name, unless a rule leaves it out."""
    (tmp_path / os.fsdecode(b"\xff.py")).write_text("")
    with pytest.raises(ServingError, match="UTF-8"):
        names(tmp_path)
    (tmp_path / ".floydignore").write_text("?.py")
    assert names(tmp_path) == [".floydignore"]


def test_rules_that_are_no_text(tmp_path: Path) -> None:
    """Nothing is uploaded by guesses."""
    (tmp_path / ".floydignore").write_bytes(b"\xff")
    with pytest.raises(ServingError, match="cannot be read"):
        names(tmp_path)
