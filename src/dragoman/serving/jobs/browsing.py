"""Folders shown to clients: what is in them, one file, or all as a tar file that is made while it is sent. Called by code.py and data_sets.py.

Jobs write into their folders while somebody looks, so no link is ever followed on the way to a file: a program that puts a link to another job's
files, or to the server's, in the place of its own shows nothing of them.
"""

import heapq
import itertools
import os
import stat
import tarfile
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.serving.jobs.trees import DEEPEST, File
from dragoman.serving.settings import quoted
from dragoman.serving.threads import to_the_end

MOST_SHOWN = 10_000
"""Entries of one listing; the client shows how many were left out."""
_PIECE = 256 << 10
_BLOCK = 512
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Entry:
    name: str
    is_folder: bool
    size: int = 0


@dataclass(frozen=True, slots=True)
class Listing:
    """One folder, by name. `skipped`: how many entries more it has."""

    entries: tuple[Entry, ...]
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Content:
    """One file. Take all of `chunks` or close them; they are `size` bytes."""

    name: str
    size: int
    chunks: AsyncGenerator[bytes, None]


@dataclass(frozen=True, slots=True)
class Download:
    """A tar file. `size` is about what it will have: the files of a job may change while it is made. Take all of `chunks` or close them."""

    size: int
    chunks: AsyncGenerator[bytes, None]


def split(path: str) -> tuple[str, ...]:
    """The parts of a path inside of a folder, () for the folder itself. Raises INVALID_INPUT (what="path")."""
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if ".." in parts or "\0" in path or len(path) > 4096 or len(parts) > DEEPEST or any(0xD800 <= ord(c) < 0xE000 for c in path):
        raise invalid(f"the path {quoted(path)} is refused, expected one inside of the folder, without '..'", "path")
    return parts


# --- code, which is a list of files that are kept elsewhere ---


async def browse_tree(tree: Mapping[str, File], where: Callable[[str], Path], path: str) -> Listing | Content:
    """Raises NOT_FOUND (what="file"), INVALID_INPUT (what="path")."""
    inside = "/".join(split(path))
    file = tree.get(inside)
    if file is not None:
        size, place = file.size, where(file.sha256)
        return Content(inside.rpartition("/")[2], size, _sent(_later(lambda: _read(os.open(place, _FILE), size))))
    prefix = f"{inside}/" if inside else ""
    below = {name[len(prefix) :].split("/")[0]: name for name in tree if name.startswith(prefix)}
    if not below and inside:
        raise no_file(path)
    entries = [Entry(name, full != prefix + name, 0 if full != prefix + name else tree[full].size) for name, full in below.items()]
    return _listing(entries)


def download_tree(tree: Mapping[str, File], where: Callable[[str], Path], path: str, modified: float) -> Download:
    """Raises NOT_FOUND (what="file"), INVALID_INPUT (what="path")."""
    inside = "/".join(split(path))
    prefix = f"{inside}/" if inside else ""
    chosen = {name[len(prefix) :]: file for name, file in tree.items() if name.startswith(prefix)}
    if inside in tree:
        chosen = {inside.rpartition("/")[2]: tree[inside]}
    if not chosen and inside:
        raise no_file(path)

    def made() -> Iterator[bytes]:
        for name, file in chosen.items():
            yield _head(name, file.size, 0o755 if file.executable else 0o644, modified)
            yield from _read(os.open(where(file.sha256), _FILE), file.size, pad=True)

    return Download(_about(file.size for file in chosen.values()), _sent(_tarred(made())))


# --- folders ---


def browse_folder(folder: Path, path: str) -> Listing | Content:
    """Blocks. Raises NOT_FOUND (what="file"), INVALID_INPUT (what="path")."""
    at, name = _reach(folder, split(path), path)
    if name is None:
        try:
            return _listing(Entry(n, stat.S_ISDIR(s.st_mode), s.st_size * stat.S_ISREG(s.st_mode)) for n, s in _entries(at))
        finally:
            os.close(at)
    file, size = _opened(at, name, path)
    os.close(file)

    def made() -> Iterator[bytes]:
        again, same = _reach(folder, split(path), path)
        return _read(_opened(again, same or "", path)[0], size)

    return Content(name, size, _sent(_later(made)))


def download_folder(folder: Path, path: str = "") -> Download:
    """Blocks while it counts. What is neither file, folder nor a link inside is left out.

    Raises NOT_FOUND (what="file"), INVALID_INPUT (what="path").
    """
    parts = split(path)
    at, single = _reach(folder, parts, path)
    try:
        about = _about(s.st_size for _, name, s in _walk(at) if stat.S_ISREG(s.st_mode) and (single is None or name == single))
    finally:
        os.close(at)

    def made() -> Iterator[bytes]:
        again, only = _reach(folder, parts, path)
        try:
            for holder, name, found in _walk(again, single=only):
                yield from _packed(holder, name, found)
        finally:
            os.close(again)

    return Download(about, _sent(_tarred(made())))


def measure(folder: Path) -> tuple[int, int]:
    """How many files, and their bytes. Blocks."""
    at = os.open(folder, _FOLDER)
    try:
        files = size = 0
        for _, _, found in _walk(at):
            if stat.S_ISREG(found.st_mode):
                files += 1
                size += found.st_size
    finally:
        os.close(at)
    return files, size


def no_file(path: str) -> ServingError:
    return ServingError(Kind.NOT_FOUND, f"there is no file or folder {quoted(path)}", what="file")


# --- inside ---


def _reach(folder: Path, parts: tuple[str, ...], path: str) -> tuple[int, str | None]:
    """An open folder, and the name of a file in it when the path means one. Links that stay inside are followed by their text."""
    left, walked, hops = list(parts), list[str](), 0
    try:
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        raise no_file(path) from None
    try:
        while left:
            name = left.pop(0)
            found = os.stat(name, dir_fd=at, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                hops += 1
                target = os.path.normpath("/".join([*walked, os.readlink(name, dir_fd=at)]))
                if hops > 8 or target.startswith(("/", "..")):
                    raise no_file(path)
                left, walked = [*(part for part in target.split("/") if part != "."), *left], []
                os.close(at)
                at = -1
                at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            elif stat.S_ISDIR(found.st_mode):
                inner = os.open(name, _FOLDER, dir_fd=at)
                os.close(at)
                at = inner
                walked.append(name)
            elif left:
                raise no_file(path)
            else:
                return at, name
    except (OSError, ServingError) as error:
        if at >= 0:
            os.close(at)
        if isinstance(error, ServingError):
            raise
        raise no_file(path) from None
    return at, None


def _opened(folder: int, name: str, path: str) -> tuple[int, int]:
    """A file and its size; the folder is closed. Raises NOT_FOUND for what is no regular file."""
    try:
        file = os.open(name, _FILE, dir_fd=folder)
    except OSError:
        raise no_file(path) from None
    finally:
        os.close(folder)
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode):
        os.close(file)
        raise no_file(path)
    return file, found.st_size


def _entries(folder: int) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError, UnicodeEncodeError):  # gone meanwhile; or a name that no client could ask for
                entry.name.encode()
                yield entry.name, entry.stat(follow_symlinks=False)


def _walk(folder: int, prefix: str = "", *, single: str | None = None, depth: int = 0) -> Iterator[tuple[int, str, os.stat_result]]:
    """(open folder, path below the first one, stat) of everything below; folders before what is in them. The first folder stays open."""
    for name, found in _entries(folder):  # as they come: there may be more than memory holds
        if single is not None and name != single:
            continue
        yield folder, prefix + name, found
        if stat.S_ISDIR(found.st_mode) and depth < DEEPEST:
            try:
                inner = os.open(name, _FOLDER, dir_fd=folder)
            except OSError:
                continue
            try:
                yield from _walk(inner, f"{prefix}{name}/", depth=depth + 1)
            finally:
                os.close(inner)


def _packed(holder: int, path: str, found: os.stat_result) -> Iterator[bytes]:
    """One entry of a tar file."""
    name = path.rpartition("/")[2]
    try:
        if stat.S_ISDIR(found.st_mode):
            yield _head(path, 0, 0o755, found.st_mtime, tarfile.DIRTYPE)
        elif stat.S_ISLNK(found.st_mode):
            target = os.readlink(name, dir_fd=holder)
            meant = os.path.normpath(os.path.join(os.path.dirname(path), target))
            if not target.startswith("/") and not meant.startswith(".."):
                yield _head(path, 0, 0o777, found.st_mtime, tarfile.SYMTYPE, target)
        elif stat.S_ISREG(found.st_mode):
            file = os.open(name, _FILE, dir_fd=holder)
            now = os.fstat(file)
            if not stat.S_ISREG(now.st_mode):
                os.close(file)
                return
            yield _head(path, now.st_size, now.st_mode & 0o755 | 0o600, now.st_mtime)
            yield from _read(file, now.st_size, pad=True)
    except OSError:  # gone, or closed to us, before its first byte
        return


def _head(path: str, size: int, mode: int, modified: float, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    member = tarfile.TarInfo(path)
    member.size, member.mode, member.mtime, member.type, member.linkname = size, mode, int(modified), kind, link
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _read(file: int, size: int, *, pad: bool = False) -> Iterator[bytes]:
    """So many bytes of a file, then close it: no more if it has grown, zeros if it has shrunk. With `pad` up to a whole block of a tar file."""
    try:
        left = size
        while left:
            piece = os.read(file, min(_PIECE, left)) or bytes(min(_PIECE, left))
            left -= len(piece)
            yield piece
        if pad and size % _BLOCK:
            yield bytes(_BLOCK - size % _BLOCK)
    finally:
        os.close(file)


def _tarred(pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield from pieces
    yield bytes(2 * _BLOCK)


def _about(sizes: Iterable[int]) -> int:
    return sum(_BLOCK + size + -size % _BLOCK for size in sizes) + 2 * _BLOCK


def _later(made: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
    """Opened when the first piece is asked for: what is never asked for stays closed."""
    yield from made()


async def _sent(pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """What a blocking iterator gives, taken in threads, small pieces joined."""
    try:
        while joined := await to_the_end(partial(_joined, pieces)):
            yield joined
    finally:
        await to_the_end(partial(_closed, pieces))


def _joined(pieces: Iterator[bytes]) -> bytes:
    joined = bytearray()
    for piece in pieces:
        joined += piece
        if len(joined) >= _PIECE:
            break
    return bytes(joined)


def _closed(pieces: Iterator[bytes]) -> None:
    close = getattr(pieces, "close", None)
    if close is not None:
        close()


def _listing(entries: Iterable[Entry]) -> Listing:
    """The first by name, however many there are."""
    count = itertools.count()
    shown = heapq.nsmallest(MOST_SHOWN, (entry for entry, _ in zip(entries, count, strict=False)), key=lambda entry: entry.name)
    return Listing(tuple(shown), max(0, next(count) - MOST_SHOWN))
