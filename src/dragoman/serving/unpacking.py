"""Unpack a model that came as one archive (.zip, .tar, .tar.gz, .tgz). Called by artifacts.py, in a thread.

Nothing in an archive is believed: only regular files and folders are taken, none may lead out of the folder, and they may not hold more than
the disk has room for.
"""

import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dragoman.core.errors import ServingError, invalid
from dragoman.serving.library.packing import MOST_FILES
from dragoman.serving.paths import confine
from dragoman.serving.settings import quoted

SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")
_CHUNK = 1 << 20
_SHARE = 0.9
"""Of the free disk that one model may take."""


def is_archive(name: str) -> bool:
    """Whether a file of that name is to be unpacked."""
    return name.lower().endswith(SUFFIXES)


def bare(name: str) -> str:
    """The name without what makes it an archive."""
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), name)


def unpack(archive: Path, folder: Path) -> None:
    """Write the files of an archive below a new folder; one folder around everything is left out. Raises INVALID_INPUT naming the member."""
    folder.mkdir(parents=True)
    room = int(shutil.disk_usage(folder).free * _SHARE)
    count = 0
    with _told(archive):
        for name, source in _members(archive):
            count += 1
            if count > MOST_FILES:
                raise invalid(f"the archive '{archive.name}' holds more than {MOST_FILES} files")
            target = confine(folder, name, f"{quoted(name)} in the archive '{archive.name}'")
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as out:
                while piece := source.read(_CHUNK):
                    room -= len(piece)
                    if room < 0:
                        raise invalid(f"the archive '{archive.name}' unpacks to more than the disk has room for")
                    out.write(piece)
    if not count:
        raise invalid(f"the archive '{archive.name}' holds no files")
    _lift(folder)


def _lift(folder: Path) -> None:
    """What lies in the only folder of a folder is moved up."""
    inside = list(folder.iterdir())
    if len(inside) == 1 and inside[0].is_dir():
        wrapped = inside[0].rename(folder.with_name(f"{folder.name}.wrapped"))
        folder.rmdir()
        wrapped.rename(folder)


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    return _zipped(archive) if archive.name.lower().endswith(".zip") else _tarred(archive)


def _zipped(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.is_dir():
                continue
            if kind not in (0, stat.S_IFREG):
                raise invalid(f"the archive '{archive.name}' holds {quoted(member.filename)}, which is no file")
            with packed.open(member) as source:
                yield member.filename, source


def _tarred(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(archive, "r:*", encoding="utf-8", errors="strict") as packed:
        for member in packed:
            if member.isdir():
                continue
            source: Any = packed.extractfile(member) if member.isreg() else None
            if source is None:
                raise invalid(f"the archive '{archive.name}' holds {quoted(member.name)}, which is no file")
            yield member.name.removeprefix("./"), source


@contextmanager
def _told(archive: Path) -> Iterator[None]:
    """What the readers of archives raise, in one sentence."""
    try:
        yield
    except ServingError:
        raise
    except FileExistsError:
        raise invalid(f"the archive '{archive.name}' holds two files of one name") from None
    except Exception as error:  # each reader and each compression has errors of its own
        raise invalid(f"the archive '{archive.name}' cannot be unpacked: {str(error) or type(error).__name__}") from error
