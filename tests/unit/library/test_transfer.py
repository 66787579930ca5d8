"""Models on their way: pushed to places, pulled from them, and what hostile places cannot do."""

import asyncio
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.library.archives import pack, unpack
from dragoman.serving.library.library import Library, Prepared, Stored
from dragoman.serving.library.packing import File, recorded
from dragoman.serving.library.references import Reference, parse
from dragoman.serving.library.specs import kept
from dragoman.serving.library.transfer import pull, push
from tests.fakes_store import FakeStore
from tests.unit.library.projects import put

SPEC = kept("", "tungsten_model", "Echo", {"batch_size": 4})


def library(root: Path) -> Library:
    return Library(FakeStore(), root / "models")


async def added(into: Library, content: str = "x", tag: str = "1", name: str = "team/m") -> Stored:
    place = into.stage()
    put(place / "model" / "tungsten_model.py", content)
    put(place / "model" / "w" / ("long" * 60), "weights").chmod(0o755)
    return await into.add(Prepared(place / "model", "tungsten", SPEC), name, tag)


def kind_of(work: Callable[[], Any]) -> tuple[Kind, str]:
    with pytest.raises(ServingError) as caught:
        asyncio.run(work())
    return caught.value.kind, caught.value.message


def test_there_and_back(tmp_path: Path) -> None:
    """The same files, the same declaration, the same digest; a second time nothing happens in either direction."""

    async def work() -> None:
        here, there = library(tmp_path / "a"), library(tmp_path / "b")
        stored = await added(here)
        url = (tmp_path / "shared place").as_uri()
        assert await push(here, stored, parse("team/m:1"), url)
        assert not await push(here, stored, parse("team/m:1"), url)
        pulled, new = await pull(there, parse("team/m:1"), url)
        assert (new, pulled.name, pulled.version.digest) == (True, "team/m:1", stored.version.digest)
        assert pulled.version.spec == stored.version.spec
        assert recorded(pulled.folder) == recorded(stored.folder)
        assert not (await pull(there, parse("team/m"), url))[1]
        assert list((there.root / ".staging").iterdir()) == []

    asyncio.run(work())


def test_other_names(tmp_path: Path) -> None:
    """There and here; without a tag the model that was built last is meant."""

    async def work() -> None:
        here, there = library(tmp_path / "a"), library(tmp_path / "b")
        url = str(tmp_path / "place")
        for content, tag in (("1", "one"), ("2", "two")):
            await push(here, await added(here, content, tag), Reference("x", tag), url)
            await asyncio.sleep(0.002)
        pulled, _ = await pull(there, parse("x"), url, parse("mine"))
        assert pulled.name == "mine:two"
        assert (pulled.folder / "tungsten_model.py").read_text() == "2"

    asyncio.run(work())


def test_conflicts(tmp_path: Path) -> None:
    """A tag never changes what it means, there or here, unless somebody removes it first."""
    here, there, url = library(tmp_path / "a"), library(tmp_path / "b"), str(tmp_path / "place")

    async def setup() -> Stored:
        await push(here, await added(here, "1", "t"), parse("team/m:t"), url)
        await added(there, "other", "t")
        return await added(here, "2", "u")

    second = asyncio.run(setup())
    assert kind_of(lambda: push(here, second, parse("team/m:t"), url))[0] is Kind.CONFLICT
    assert kind_of(lambda: pull(there, parse("team/m:t"), url))[0] is Kind.CONFLICT

    async def after() -> None:
        await there.remove("team/m:t")
        assert (await pull(there, parse("team/m:t"), url))[1]

    asyncio.run(after())


@pytest.mark.parametrize("name", ["team/m:2", "nobody", "nobody:1"])
def test_what_is_not_there(tmp_path: Path, name: str) -> None:
    """NOT_FOUND, with the name and the place, without its secrets."""
    here = library(tmp_path / "a")
    asyncio.run(push(here, asyncio.run(added(here)), parse("team/m:1"), str(tmp_path / "place")))
    kind, message = kind_of(lambda: pull(here, parse(name), str(tmp_path / "place")))
    assert kind is Kind.NOT_FOUND
    assert name in message


def test_a_damaged_model_is_not_pushed(tmp_path: Path) -> None:
    """Nobody else should get it."""
    here = library(tmp_path / "a")
    stored = asyncio.run(added(here))
    (stored.folder / "tungsten_model.py").write_text("changed")
    assert "damaged" in kind_of(lambda: push(here, stored, parse("m:1"), str(tmp_path / "place")))[1]
    assert not (tmp_path / "place").exists()


# --- places that lie ---


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder of one repository at a place, with one model."""
    here = library(tmp_path / "a")
    asyncio.run(push(here, asyncio.run(added(here)), parse("m:1"), str(tmp_path / "place")))
    return tmp_path / "place" / "m"


def pulled(place: Path) -> tuple[Kind, str]:
    """The error of pulling from it; nothing of it may stay."""
    there = library(place.parent.parent / "b")
    error = kind_of(lambda: pull(there, parse("m:1"), str(place.parent)))
    assert asyncio.run(there.all()) == []
    assert [p.name for p in there.root.iterdir()] == [".staging"]
    assert list((there.root / ".staging").iterdir()) == []
    return error


def manifest(place: Path, **changes: Any) -> None:
    path = place / "1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def archive(place: Path) -> Path:
    (found,) = place.glob("*.tar")
    return found


def test_an_archive_that_was_changed(place: Path) -> None:
    """The checksum says so before anything is unpacked."""
    content = bytearray(archive(place).read_bytes())
    content[600] ^= 1
    archive(place).write_bytes(content)
    assert pulled(place) == (Kind.INVALID_INPUT, "the archive of 'm:1' is not what its manifest says: the checksum differs")


def test_an_archive_that_is_longer_or_gone(place: Path) -> None:
    """Not a byte more than announced is read."""
    with archive(place).open("ab") as file:
        file.write(b"x" * 4096)
    assert pulled(place)[0] is Kind.TOO_LARGE
    archive(place).unlink()
    assert pulled(place)[0] is Kind.NOT_FOUND


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": "0" * 64},
        {"kind": "onnx"},
        {"kind": "x" * 100},
        {"kind": 3},
        {"spec": {}},
        {"spec": SPEC | {"artifact": "../../x"}},
        {"spec": SPEC | {"arguments": {"module": "os; import x", "class": ""}}},
        {"spec": SPEC | {"arguments": {"module": "m", "class": "a.b"}}},
        {"spec": SPEC | {"declared": []}},
        {"files": []},
        {"files": [{"path": "../x", "size": 1, "sha256": "0" * 64, "executable": False}]},
        {"size": "1"},
        {"created": None},
        {"format": 2},
        {"format": "1"},
    ],
)
def test_manifests_that_are_none(place: Path, changes: dict[str, Any]) -> None:
    """Every field is checked, and the digest holds them together."""
    manifest(place, **changes)
    assert pulled(place)[0] in (Kind.INVALID_INPUT, Kind.UNSUPPORTED)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"[" * 100_000, b"\xff", b'"x"', b"null"])
def test_manifests_that_are_no_json(place: Path, content: bytes) -> None:
    """Neither is a crash."""
    (place / "1.json").write_bytes(content)
    assert pulled(place)[0] is Kind.INVALID_INPUT


def test_a_manifest_without_end(place: Path) -> None:
    """It is not read."""
    with (place / "1.json").open("wb") as file:
        file.truncate((16 << 20) + 1)
    assert pulled(place)[0] is Kind.TOO_LARGE


# --- archives by themselves ---

FILE = File("a/b.txt", 3, hashlib.sha256(b"abc").hexdigest())


def entry(name: str = "a/b.txt", content: bytes = b"abc", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    for field, value in fields.items():
        setattr(header, field, value)
    return header, content


def tar(path: Path, *entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as out:
        for header, content in entries:
            out.addfile(header, io.BytesIO(content))
    return path


def test_an_archive_is_always_the_same(tmp_path: Path) -> None:
    """Whoever packs it, and when; and it comes out as it went in."""
    names = ["z", "a/b", "ü" * 100, "x" * 200, "d/" + "y" * 150]
    for name in names:
        put(tmp_path / "in" / name, name)
    (tmp_path / "in" / "z").chmod(0o755)
    files = recorded(tmp_path / "in")
    first = pack(tmp_path / "in", files, tmp_path / "1.tar")
    os.utime(tmp_path / "in" / "z", (1, 1))
    assert pack(tmp_path / "in", tuple(reversed(files)), tmp_path / "2.tar") == first
    unpack(tmp_path / "1.tar", files, tmp_path / "out")
    assert recorded(tmp_path / "out") == files


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [entry("a/c.txt")],
        [entry("../a/b.txt")],
        [entry("/a/b.txt")],
        [entry("./a/b.txt")],
        [entry(), entry()],
        [entry(), entry("more", b"")],
        [entry(content=b"abd")],
        [entry(content=b"abcd")],
        [entry(content=b"")],
        [entry(content=b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
        [entry(content=b"", type=tarfile.LNKTYPE, linkname="/etc/passwd")],
        [entry("a", b"", type=tarfile.SYMTYPE, linkname="/tmp"), entry()],
        [entry("a", b"", type=tarfile.DIRTYPE), entry()],
        [entry(content=b"", type=tarfile.FIFOTYPE)],
        [entry(content=b"", type=tarfile.CHRTYPE)],
        [entry(type=tarfile.CONTTYPE)],
        [entry(type=tarfile.GNUTYPE_SPARSE)],
        [entry(pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a/b.txt", "GNU.sparse.realsize": "3"})],
        [entry(pax_headers={"size": "99999999999"})],
        [entry(pax_headers={"path": "../x"})],
        [entry(pax_headers={"comment": "x" * 100_000})],
    ],
)
def test_archives_that_are_not_as_listed(tmp_path: Path, entries: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    """Links, other paths, other content, other kinds of entries, too much, too little: refused, and nothing lies outside."""
    path = tar(tmp_path / "x.tar", *entries)
    with pytest.raises(ServingError) as caught:
        unpack(path, [FILE], tmp_path / "deep" / "out")
    assert caught.value.kind is Kind.INVALID_INPUT
    left = [p for p in tmp_path.rglob("*") if p.is_file() and p != path]
    assert all(p.is_relative_to(tmp_path / "deep" / "out") for p in left)


@pytest.mark.parametrize("content", [b"", b"x" * 512, b"\x1f\x8b" + b"x" * 1000, b"\0" * 10_240])
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    """Compressed ones included: they could grow without end."""
    with pytest.raises(ServingError):
        unpack(put(tmp_path / "x.tar", content), [FILE], tmp_path / "out")


def test_a_global_header_is_refused(tmp_path: Path) -> None:
    """It would say something about every entry."""
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT, pax_headers={"path": "y"}) as out:
        out.addfile(entry()[0], io.BytesIO(b"abc"))
    with pytest.raises(ServingError):
        unpack(tmp_path / "x.tar", [FILE], tmp_path / "out")
