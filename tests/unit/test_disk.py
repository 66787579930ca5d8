"""Files that are written in one step: whole, private, and nothing left beside them."""

import stat
from pathlib import Path

import pytest

from dragoman.core.disk import write_whole


@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("content", [b"\x00\xff", "gr\u00f6\u00dfer", b""])
def test_a_file_is_made_and_replaced(tmp_path: Path, content: bytes | str, flush: bool) -> None:
    """Bytes as they are, text as UTF-8; for this user alone, and with no other file in the folder."""
    path = tmp_path / "file"
    for before in (None, "longer than what comes after it"):
        if before is not None:
            path.write_text(before)
        write_whole(path, content, flush=flush)
        assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    """And no draft of it."""
    path = tmp_path / "file"
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(path, "text")
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "absent" / "file", "text")


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """What it leads to stays as it was."""
    (tmp_path / "other").write_text("kept")
    (tmp_path / "file").symlink_to("other")
    write_whole(tmp_path / "file", "new")
    assert (tmp_path / "other").read_text() == "kept"
    assert not (tmp_path / "file").is_symlink()


def test_the_mode_and_the_time_can_be_given(tmp_path: Path) -> None:
    """A file that others may read; a time of change that is later than the last one."""
    path = tmp_path / "file"
    write_whole(path, "text", mode=0o640, changed_ns=1_000_000_007)
    assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_mtime_ns) == (0o640, 1_000_000_007)
