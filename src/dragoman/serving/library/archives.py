"""One model as one archive: a tar file that is the same, byte by byte, for the same files. Called by transfer; blocks on the disk.

Reading trusts nothing but the manifest: every member must be a regular file that it lists, with that size and hash, and none may be
missing. So there are no links, no paths that lead out, and no more bytes than were announced.
"""

import hashlib
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from dragoman.core.errors import invalid
from dragoman.serving.library.packing import File
from dragoman.serving.settings import quoted

_CHUNK = 1 << 20
_LARGEST_HEADER = 1 << 16


class _Member(tarfile.TarInfo):
    """A header that may be nothing but a file's, or the one with its long name: others make the reader take memory, or worse."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str | None, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)  # type: ignore[arg-type] # no encoding is None there, too
        if found.type == tarfile.XHDTYPE and found.size <= _LARGEST_HEADER:
            return found
        if found.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise invalid(f"the archive holds {quoted(found.name)}, which is no file")
        return found


def pack(folder: Path, files: Sequence[File], archive: Path) -> tuple[int, str]:
    """Write the archive of a stored model; returns its size and SHA-256."""
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for file in sorted(files, key=lambda f: f.path):
            header = tarfile.TarInfo(file.path)
            header.size = file.size
            header.mode = 0o755 if file.executable else 0o644
            with (folder / file.path).open("rb") as content:
                tar.addfile(header, content)
    return archive.stat().st_size, digest_of_file(archive)


def unpack(archive: Path, files: Sequence[File], folder: Path) -> None:
    """Write the files of an archive below a new folder. Raises INVALID_INPUT when it is not exactly what the manifest lists."""
    expected = {file.path: file for file in files}
    folder.mkdir(parents=True)
    try:
        with tarfile.open(archive, "r:", tarinfo=_Member, encoding="utf-8", errors="strict") as tar:
            for member in tar:
                file = expected.pop(member.name, None)
                if file is None or member.size != file.size or member.issparse():
                    raise invalid(f"the archive holds {quoted(member.name)}, which its manifest does not list like that")
                _extract(tar, member, file, folder)
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise invalid(f"the archive cannot be unpacked: {error}") from error
    if expected:
        raise invalid(f"the archive lacks {quoted(min(expected))}")


def digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, file: File, folder: Path) -> None:
    source: Any = tar.extractfile(member)
    target = folder / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with target.open("xb") as out:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            out.write(chunk)
    if digest.hexdigest() != file.sha256:
        raise invalid(f"{quoted(file.path)} in the archive is not what its manifest says: the checksum differs")
    target.chmod(0o755 if file.executable else 0o644)
