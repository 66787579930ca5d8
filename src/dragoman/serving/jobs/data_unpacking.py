"""Unpack a data set that came as a tar file, compressed or not. Called by data_uploads.py, in a thread.

Nothing in the archive is believed. Folders, files and links are taken; no link may lead out, nothing else is taken, and neither the number of
files nor their bytes pass the limits, whatever the archive claims. What is refused is told by the name of its member.
"""

import bz2
import errno
import gzip
import lzma
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from dragoman.core.errors import ServingError, invalid
from dragoman.serving.jobs.trees import DEEPEST
from dragoman.serving.settings import quoted

_PIECE = 1 << 20
_LARGEST_HEADER = 1 << 16
_MOST_FOR_ALL = 100
"""Names in headers that are for all members: archives that tools make have one, or none."""
_LARGEST_END = 16 << 20
"""Bytes behind the last file: tape blocks are filled up with zeros."""
_Content = BinaryIO | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile
_HEADERS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


@dataclass(frozen=True, slots=True)
class DataLimits:
    """Of one version of a data set. 0: what the disk has room for."""

    max_upload: int = 100 << 30
    """Bytes of the archive."""
    max_bytes: int = 0
    """Bytes of the files in it."""
    max_files: int = 1_000_000
    """Files, folders and links."""


class _Member(tarfile.TarInfo):
    """Its reader takes the content of special headers into memory, however long they say they are."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str | None, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)  # type: ignore[arg-type] # no encoding is None there, too
        if found.type in _HEADERS and found.size > _LARGEST_HEADER:
            raise invalid(f"the archive has a header of {found.size} bytes, at most {_LARGEST_HEADER} are read")
        return found


def unpack(archive: Path, folder: Path, limits: DataLimits, stopped: Callable[[], bool] = lambda: False) -> tuple[int, int] | None:
    """Write what the archive holds below the new folder; returns how many files that are and their bytes, None when it was `stopped`.

    Raises INVALID_INPUT with the reason, OSError when the disk refuses. The folder is the caller's to remove then.
    """
    folder.mkdir(mode=0o755)
    room = int(shutil.disk_usage(folder).free * 0.9)
    unpacked = _Unpacked(folder.resolve(), min(room, limits.max_bytes or room), limits.max_files)
    try:
        # Not tarfile's own reader of compressed streams, which compares no checksum.
        with _opened(archive) as content:
            with tarfile.open(
                fileobj=content, mode="r|", bufsize=_PIECE, tarinfo=_Member, encoding="utf-8", errors="surrogateescape"
            ) as tar:
                while (member := tar.next()) is not None:
                    if stopped():
                        return None
                    if len(tar.pax_headers) > _MOST_FOR_ALL:  # its reader copies them to each member
                        raise invalid(f"the archive says more than {_MOST_FOR_ALL} things of all its members")
                    unpacked.take(member, tar)
                    tar.members.clear()  # type: ignore[attr-defined] # it would keep every header of the archive until the end
            _drain(content)
        unpacked.link()
    except (ServingError, OSError) as error:
        if isinstance(error, ServingError) or error.errno is not None:
            raise
        raise _broken(error) from error  # what gzip raises is an OSError without a number
    except Exception as error:  # each compression has errors of its own
        raise _broken(error) from error
    return unpacked.files, unpacked.size


class _Unpacked:
    """What has been written. Links are made when everything else is there, so that nothing is ever written through one."""

    def __init__(self, folder: Path, room: int, max_files: int) -> None:
        self._folder = folder
        self._room = room
        self._max_files = max_files
        self._seen = 0
        self._links: list[tuple[Path, str, str]] = []
        self.files = 0
        self.size = 0

    def take(self, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        self._seen += 1
        if self._seen > self._max_files:
            raise invalid(f"the archive holds more than the limit of {self._max_files} files")
        target = self._inside(member.name)
        try:
            if member.isdir():
                target.mkdir(mode=0o755, parents=True, exist_ok=True)
                return
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            if member.issym():
                self._links.append((target, member.linkname, member.name))
            elif member.islnk():
                self._same(target, member)
            elif member.isreg():
                self._write(target, member, tar.extractfile(member))
            else:
                raise invalid(f"the archive holds {quoted(member.name)}, which is neither file, folder nor link")
        except (FileExistsError, NotADirectoryError):
            raise invalid(f"the archive holds {quoted(member.name)} twice, or below a file") from None
        except OSError as error:
            if error.errno not in (errno.ENAMETOOLONG, errno.EISDIR, errno.EINVAL):
                raise
            raise invalid(f"the archive holds {quoted(member.name)}, which cannot be a file here: {error.strerror}") from None

    def link(self) -> None:
        """Make the links. One that leads out is only seen when all are there: they may lead over each other."""
        for target, text, name in self._links:
            try:
                target.symlink_to(text)
            except FileExistsError:
                raise invalid(f"the archive holds {quoted(name)} twice") from None
        for target, text, name in self._links:
            if text.startswith("/") or not self._stays(target):
                raise invalid(f"the archive holds the link {quoted(name)}, which leads out of it to {quoted(text)}")

    def _stays(self, link: Path) -> bool:
        try:
            return Path(os.path.realpath(link)).is_relative_to(self._folder)
        except (OSError, RuntimeError, ValueError):
            return False

    def _same(self, target: Path, member: tarfile.TarInfo) -> None:
        """A hard link: another name of a file that came before."""
        source = self._inside(member.linkname)
        if source.is_symlink() or not source.is_file():
            raise invalid(f"the archive holds {quoted(member.name)}, a link to {quoted(member.linkname)}, which is no file in it")
        os.link(source, target, follow_symlinks=False)
        self.files += 1

    def _write(self, target: Path, member: tarfile.TarInfo, source: Any) -> None:
        with open(target, "xb") as out:
            while piece := source.read(_PIECE):
                self.size += len(piece)
                if self.size > self._room:
                    raise invalid(f"the archive unpacks to more than {self._room} bytes, for which there is room")
                out.write(piece)
        target.chmod(0o755 if member.mode & 0o100 else 0o644)
        self.files += 1

    def _inside(self, name: str) -> Path:
        """Where a member goes. Its name is only text: no part of it leads anywhere, as there are no links yet."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or "\0" in name or len(parts) > DEEPEST:
            raise invalid(f"the archive holds {quoted(name)}, expected paths inside of it, without '..' and at most {DEEPEST} folders deep")
        return self._folder.joinpath(*parts)


def _opened(archive: Path) -> _Content:
    """The content of an archive that may be compressed. Reading raises for a part of one, and at its end where it is damaged."""
    with open(archive, "rb") as file:
        begins = file.read(6)
    if begins.startswith(b"\x1f\x8b"):
        return gzip.open(archive)
    if begins.startswith(b"BZh"):
        return bz2.open(archive)
    return lzma.open(archive) if begins == b"\xfd7zXZ\0" else open(archive, "rb")


def _drain(content: _Content) -> None:
    """Read what is behind the last member: the checksum comes at the very end."""
    left = _LARGEST_END
    while piece := content.read(_PIECE):
        left -= len(piece)
        if left < 0:
            raise invalid(f"the archive has more than {_LARGEST_END} bytes behind its last file")


def _broken(error: Exception) -> ServingError:
    return invalid(f"the archive cannot be unpacked, expected a tar file: {str(error) or type(error).__name__}")
