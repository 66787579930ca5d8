"""Archives of data sets, written by anybody (serving/jobs/data_unpacking.py)."""

import gzip
import io
import os
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.jobs.data_unpacking import DataLimits, unpack
from tests.jobs_files import archive, contents, special

LIMITS = DataLimits(max_bytes=1 << 20, max_files=100)
Member = tarfile.TarInfo | tuple[str, bytes]


def unpacked(folder: Path, content: bytes, limits: DataLimits = LIMITS) -> tuple[int, int] | None:
    (folder / "archive").write_bytes(content)
    return unpack(folder / "archive", folder / "out", limits)


def refused(folder: Path, content: bytes, limits: DataLimits = LIMITS) -> str:
    """Why; nothing may have been written outside."""
    before = {path.name for path in folder.iterdir()} | {"archive", "out"}
    with pytest.raises(ServingError) as caught:
        unpacked(folder, content, limits)
    assert caught.value.kind is Kind.INVALID_INPUT
    assert {path.name for path in folder.iterdir()} <= before
    return caught.value.message


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_what_the_client_makes(mode: str, tmp_path: Path) -> None:
    """A folder with files, folders (empty ones too), links inside, and a file with two names, as tar's own names have them."""
    content = archive(
        special(".", tarfile.DIRTYPE),
        ("./a.txt", b"hello"),
        special("./empty", tarfile.DIRTYPE),
        ("./sub/ü.txt", b"x" * 100),
        special("./sub/link", tarfile.SYMTYPE, "../a.txt"),
        special("./hard.txt", tarfile.LNKTYPE, "./a.txt"),
        ("./" + "long/" * 30 + "name" * 30, b"deep"),
        mode=mode,
    )
    assert unpacked(tmp_path, content) == (4, 109)
    assert contents(tmp_path / "out") == {
        "a.txt": b"hello",
        "hard.txt": b"hello",
        "sub/link": b"-> ../a.txt",
        "sub/ü.txt": b"x" * 100,
        "long/" * 30 + "name" * 30: b"deep",
    }
    assert (tmp_path / "out" / "empty").is_dir()


def test_modes(tmp_path: Path) -> None:
    """Programs stay programs; nothing else of a mode is taken: no set-user-id, nothing that the server could not read."""
    members = [special(f"m{mode:o}", tarfile.REGTYPE, mode=mode) for mode in (0o644, 0o755, 0o4777, 0o000, 0o600)]
    unpacked(tmp_path, archive(*members, special("d", tarfile.DIRTYPE, mode=0)))
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (tmp_path / "out").iterdir()}
    assert modes == {"m644": 0o644, "m755": 0o755, "m4777": 0o755, "m0": 0o644, "m600": 0o644, "d": modes["d"]}
    assert modes["d"] & 0o700 == 0o700


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    """They arrive byte for byte: data sets are older than UTF-8."""
    content = archive((os.fsdecode(b"caf\xe9"), b"x"), mode="w")
    assert unpacked(tmp_path, content) == (1, 1)
    assert os.listdir(os.fsencode(tmp_path / "out")) == [b"caf\xe9"]


def test_nothing(tmp_path: Path) -> None:
    """An empty folder is a data set, too."""
    assert unpacked(tmp_path, archive(special(".", tarfile.DIRTYPE))) == (0, 0)


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ([("../x", b"1")], "'..'"),
        ([("a/../../x", b"1")], "'..'"),
        ([("/etc/x", b"1")], "'/etc/x'"),
        ([special("..", tarfile.DIRTYPE)], "'..'"),
        ([special("d/" * 70, tarfile.DIRTYPE)], "64 folders"),
        ([("n" * 300, b"1")], "cannot be a file"),
        ([special("dev", tarfile.CHRTYPE)], "neither file, folder nor link"),
        ([special("pipe", tarfile.FIFOTYPE)], "neither file, folder nor link"),
        ([("a", b"1"), ("a", b"2")], "'a' twice"),
        ([("a", b"1"), ("a/b", b"2")], "'a/b' twice, or below a file"),
        ([("a", b"1"), ("a/b/c", b"2")], "below a file"),
        ([("a/b", b"1"), ("a", b"2")], "'a' twice"),
        ([("a/b", b"1"), special("a", tarfile.SYMTYPE, "/etc")], "'a' twice"),
        ([special("a", tarfile.DIRTYPE), special("a", tarfile.SYMTYPE, ".")], "'a' twice"),
        ([(".", b"1")], "twice"),
        ([special("h", tarfile.LNKTYPE, "../archive")], "'..'"),
        ([special("h", tarfile.LNKTYPE, "/etc/passwd")], "'/etc/passwd'"),
        ([special("h", tarfile.LNKTYPE, "nothing")], "no file in it"),
        ([special("d", tarfile.DIRTYPE), special("h", tarfile.LNKTYPE, "d")], "no file in it"),
    ],
)
def test_what_is_refused(members: list[Member], word: str, tmp_path: Path) -> None:
    """The member is named."""
    assert word in refused(tmp_path, archive(*members))


@pytest.mark.parametrize(
    "links",
    [
        [("l", "/etc/passwd")],
        [("l", "/")],
        [("l", "..")],
        [("d/l", "../../archive")],
        [("l", "missing/../../archive")],
        [("d/up", ".."), ("l", "d/up/../archive")],
        [("d/e/top", "../.."), ("l", "d/e/top/../archive")],
        [("a", "b"), ("b", "../archive")],
    ],
)
def test_links_that_lead_out(links: list[tuple[str, str]], tmp_path: Path) -> None:
    """Also over each other, and although every text by itself looks as if it stayed inside."""
    members = [special("d/e", tarfile.DIRTYPE), *(special(name, tarfile.SYMTYPE, target) for name, target in links)]
    assert "leads out" in refused(tmp_path, archive(*members))


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    """A link, and a file below it: the file is in the way of the link then, and nothing comes to be where it leads."""
    (tmp_path / "other").mkdir()
    content = archive(special("l", tarfile.SYMTYPE, "../other"), ("l/x", b"1"))
    assert "twice" in refused(tmp_path, content)
    assert not any((tmp_path / "other").iterdir())


def test_links_in_a_circle_and_to_nothing(tmp_path: Path) -> None:
    """They lead nowhere, so not out."""
    content = archive(special("a", tarfile.SYMTYPE, "b"), special("b", tarfile.SYMTYPE, "a"), special("c", tarfile.SYMTYPE, "gone"))
    assert unpacked(tmp_path, content) == (0, 0)


def test_a_bomb(tmp_path: Path) -> None:
    """A hundred megabytes out of a hundred kilobytes: it stops at the limit, which is told."""
    content = gzip.compress(archive(("zeros", bytes(100 << 20)), mode="w"))
    assert len(content) < 1 << 20
    assert "more than 1048576 bytes" in refused(tmp_path, content)
    assert sum(path.stat().st_size for path in (tmp_path / "out").iterdir()) <= 1 << 20


def test_many_files(tmp_path: Path) -> None:
    """Folders and links count, too."""
    content = archive(*(special(f"d{index}", tarfile.DIRTYPE) for index in range(101)))
    assert "limit of 100 files" in refused(tmp_path, content)


def test_many_headers_for_all_members(tmp_path: Path) -> None:
    """Their sum would be in memory, once more with each member: a megabyte that was packed well became hundreds."""
    packed = b""
    for number in range(101):
        one = io.BytesIO()
        with tarfile.open(fileobj=one, mode="w", format=tarfile.PAX_FORMAT, pax_headers={f"key{number}": "x"}) as tar:
            tar.addfile(tarfile.TarInfo(f"file{number % 9}-{number}"))
            packed += one.getvalue()
    assert "more than 100 things" in refused(tmp_path, packed + bytes(1024), DataLimits())


def test_a_header_that_is_too_large(tmp_path: Path) -> None:
    """What would be read into memory at once is bounded, whatever the header says."""
    member = special("x", tarfile.XHDTYPE, size=1 << 30)
    assert "header of 1073741824 bytes" in refused(tmp_path, gzip.compress(member.tobuf() + bytes(1 << 16)))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        b"PK\x03\x04zip",
        gzip.compress(b"text"),
        archive(("a", bytes(5000)))[:-20],
        archive(("a", b"1"))[:-1],
        archive(("a", bytes(5000)), mode="w")[:3000],
    ],
    ids=[
        "empty",
        "text",
        "zip",
        "gzip of text",
        "cut early",
        "cut late",
        "tar cut",
    ],  # archives hold the time, and so would names made of them
)
def test_what_is_no_archive(content: bytes, tmp_path: Path) -> None:
    """Text, another format, a part of one: refused in words."""
    assert "cannot be unpacked" in refused(tmp_path, content)


@given(data=st.data())
def test_no_bytes_crash_it(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Damage anywhere is refused in words, or means something else."""
    content = bytearray(archive(("a", b"x" * 700), special("l", tarfile.SYMTYPE, "a"), special("h", tarfile.LNKTYPE, "a"), mode="w"))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, 2559))] = data.draw(st.integers(0, 255))
    with suppress(ServingError):
        unpacked(tmp_path_factory.mktemp("damaged"), bytes(content))


def test_a_checksum_that_is_wrong(tmp_path: Path) -> None:
    """A flipped bit anywhere, also where it is the checksum itself, is damage."""
    content = bytearray(archive(("a", os.urandom(5000))))
    content[2500] ^= 1
    assert "cannot be unpacked" in refused(tmp_path, bytes(content))


def test_more_behind_the_last_file(tmp_path: Path) -> None:
    """Some zeros are usual; gigabytes of them are another bomb."""
    plain = archive(("a", b"1"), mode="w")
    assert unpacked(tmp_path, gzip.compress(plain + bytes(1 << 20))) == (1, 1)
    (tmp_path / "more").mkdir()
    assert "behind its last file" in refused(tmp_path / "more", gzip.compress(plain + bytes(40 << 20)))


def test_it_stops_when_it_is_told(tmp_path: Path) -> None:
    """A server that ends does not wait for a large archive."""
    (tmp_path / "archive").write_bytes(archive(("a", b"1"), ("b", b"2")))
    assert unpack(tmp_path / "archive", tmp_path / "out", LIMITS, lambda: True) is None


def test_without_a_limit_the_disk_decides(tmp_path: Path) -> None:
    """0 is what there is room for."""
    assert unpacked(tmp_path, archive(("a", b"1")), DataLimits()) == (1, 1)
