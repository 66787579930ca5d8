"""Files that configurations name: inside the folder or not at all, read within bounds."""

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.engines.removal import remove_tree
from dragoman.serving.paths import check_relative, confine, read_bounded, read_labels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder beside something that is none of its business."""
    (tmp_path / "outside.txt").write_text("secret")
    model = tmp_path / "model"
    (model / "sub").mkdir(parents=True)
    (model / "file.txt").write_text("a\nb\n")
    (model / "sub" / "file.txt").write_text("c")
    return model


@pytest.mark.parametrize(
    "relative", ["file.txt", "./file.txt", "sub/file.txt", "sub//file.txt", "not/there/yet", "..txt", "a..b", "\u00e4 b"]
)
def test_paths_inside_are_resolved(folder: Path, relative: str) -> None:
    """Whether the file exists or not."""
    assert confine(folder, relative, "x") == folder.resolve() / Path(relative)


@pytest.mark.parametrize(
    "relative", ["", ".", "./", "/", "/etc/passwd", "//x", "..", "../outside.txt", "sub/../../outside.txt", "a\\b", "a\0b"]
)
def test_paths_that_are_none_inside_are_refused(folder: Path, relative: str) -> None:
    """Empty, absolute, climbing, or with characters that mean something else elsewhere; the field's name begins the message."""
    with pytest.raises(ServingError, match=r"^field: ") as caught:
        confine(folder, relative, "field")
    assert caught.value.kind is Kind.INVALID_INPUT
    with pytest.raises(ServingError):
        check_relative(relative, "field")


def test_links_may_point_inside_but_not_out(folder: Path) -> None:
    """A link is what it points to, at any place in the path."""
    (folder / "good").symlink_to("sub/file.txt")
    (folder / "bad").symlink_to(folder.parent / "outside.txt")
    (folder / "up").symlink_to("..")
    assert confine(folder, "good", "x") == folder.resolve() / "sub" / "file.txt"
    for relative in ("bad", "up/outside.txt", "up"):
        with pytest.raises(ServingError, match="leads out"):
            confine(folder, relative, "x")


def test_the_folder_itself_may_be_a_link(folder: Path) -> None:
    """Mounted volumes often are; what counts is what it points to."""
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert confine(link, "file.txt", "x") == folder.resolve() / "file.txt"


@pytest.mark.parametrize("name", ["circle", "n" * 5000, "\ud800"])
def test_paths_that_the_system_cannot_resolve(folder: Path, name: str) -> None:
    """Links in a circle, names that are too long or cannot be encoded: refused, or found missing when read; never a crash."""
    (folder / "circle").symlink_to("circle")
    with pytest.raises(ServingError) as caught:
        read_bounded(confine(folder, name, "x"), 10, "x")
    assert caught.value.kind is Kind.INVALID_INPUT
    assert len(caught.value.message) < 6000


def test_reading_is_bounded(folder: Path) -> None:
    """Exactly the bound is fine, one byte more is not."""
    assert read_bounded(folder / "file.txt", 4, "x") == b"a\nb\n"
    with pytest.raises(ServingError, match=r"^x: 'file.txt' has more than 3 bytes$"):
        read_bounded(folder / "file.txt", 3, "x")


def test_only_regular_files_are_read(folder: Path) -> None:
    """A pipe would make the server wait, a folder has no bytes, a device has no end."""
    os.mkfifo(folder / "pipe")
    for path in (folder / "pipe", folder / "sub", Path("/dev/zero"), folder / "missing"):
        with pytest.raises(ServingError) as caught:
            read_bounded(path, 10, "x")
        assert caught.value.kind is Kind.INVALID_INPUT


def test_refusals_leave_no_file_open(folder: Path) -> None:
    """Thousands of bad load requests must not use up the process's descriptors."""
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        descriptors = Path("/dev/fd")
    before = len(list(descriptors.iterdir()))
    for _ in range(20):
        for path in (folder / "sub", Path("/dev/zero"), folder / "missing"):
            with pytest.raises(ServingError):
                read_bounded(path, 10, "x")
    assert len(list(descriptors.iterdir())) <= before


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        (b"", ()),
        (b"\n", ("",)),
        (b"cat", ("cat",)),
        (b"cat\ndog\n", ("cat", "dog")),
        (b"cat\r\ndog\r\n", ("cat", "dog")),
        (b"cat\n\ndog", ("cat", "", "dog")),
        (b"a b\t\n c\x0b\n", ("a b\t", " c\x0b")),
        ("\u732b\u2028\n".encode(), ("\u732b\u2028",)),
    ],
)
def test_labels_are_lines(folder: Path, content: bytes, labels: tuple[str, ...]) -> None:
    """Split at line feeds only, so that the index of a label is its line."""
    (folder / "labels").write_bytes(content)
    assert read_labels(folder / "labels", "x") == labels


def test_labels_must_be_utf8(folder: Path) -> None:
    """They go into JSON answers."""
    (folder / "labels").write_bytes(b"\xe4\n")
    with pytest.raises(ServingError, match="not UTF-8"):
        read_labels(folder / "labels", "x")


@given(st.text(max_size=50))
def test_no_text_leads_out(tmp_path_factory: pytest.TempPathFactory, relative: str) -> None:
    """Whatever the path, it is inside or refused."""
    folder = tmp_path_factory.getbasetemp().resolve()
    with contextlib.suppress(ServingError):
        assert confine(folder, relative, "x").is_relative_to(folder)


def test_removing_what_a_program_left(tmp_path: Path) -> None:
    """Very deep folders, folders that nobody may read, links to elsewhere: all of it goes, and nothing but that."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("x")
    folder = tmp_path / "folder"
    (folder / "closed" / "inner").mkdir(parents=True)
    (folder / "closed" / "inner" / "file").write_text("x")
    (folder / "closed").chmod(0)
    (folder / "link").symlink_to(tmp_path / "kept")
    os.mkfifo(folder / "pipe")
    at = os.open(folder, os.O_RDONLY)
    for index in range(1500):
        os.mkdir("d", dir_fd=at)
        os.symlink(tmp_path / "kept", f"l{index}", dir_fd=at)
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    remove_tree(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept" / "file").read_text() == "x"
    remove_tree(folder)
