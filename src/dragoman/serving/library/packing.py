"""Copy a project's files into the store, with the hash of each, and check later that they are still the same. Blocks on the disk.

Called by building and transfer. What is copied are regular files only: links are followed when they lead to something inside of the
project, and refused otherwise.
"""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.serving.library.patterns import ALWAYS_EXCLUDED, Patterns
from dragoman.serving.paths import check_relative
from dragoman.serving.settings import quoted

MOST_FILES = 10_000
ONLY = "only"
"""In a manifest: the name of the one file of its folder that is the model, where it was registered without its neighbours."""
LARGEST_MODEL = 1 << 40
_DEEPEST = 32
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class File:
    """One file of a stored model; `path` is relative, with "/"."""

    path: str
    size: int
    sha256: str
    executable: bool = False


def chosen(source: Path, include: Sequence[str], exclude: Sequence[str], always: Sequence[str] = ()) -> dict[str, Path]:
    """The files of a project that its patterns choose, relative path -> where it really lies; `always` are taken in any case.

    Raises INVALID_INPUT for links that lead out and for what is neither file nor folder.
    """
    root = source.resolve()
    taken = Patterns(include)
    left = Patterns([*ALWAYS_EXCLUDED, *exclude])
    found = {path: real for path, real in _walk(root, root, "", left) if taken.match(path) and not left.match(path)}
    for path in always:
        found[path] = _inside(root, root / check_relative(path, "the model"), path)
    return _bounded(found)


def whole(source: Path) -> dict[str, Path]:
    """The files of an artifact that is not a project: the file itself, or a folder without what is hidden."""
    if source.is_file():
        return {source.name: source.resolve()}
    return chosen(source, ["*"], [])


def additions(source: Path, pairs: Sequence[tuple[str, str]]) -> dict[str, Path]:
    """The files of `--copy-files SRC:DEST`: the operator names them, so SRC may lie anywhere; DEST is inside of the model."""
    found: dict[str, Path] = {}
    for given, target in pairs:
        origin = (source / Path(given).expanduser()).resolve()
        into = "" if target in (".", "./") else check_relative(target, "--copy-files").rstrip("/")
        if origin.is_dir():
            for path, real in _walk(origin, origin, "", Patterns(ALWAYS_EXCLUDED)):
                found["/".join(filter(None, (into, path)))] = real
        elif origin.is_file():
            found["/".join(filter(None, (into, origin.name))) if target.endswith("/") or not into else into] = origin
        else:
            raise invalid(f"--copy-files: there is no {given}")
    return _bounded(found)


def copy(files: Mapping[str, Path], folder: Path) -> None:
    """Copy files below a new folder. Raises INVALID_INPUT naming the file that could not be."""
    folder.mkdir(parents=True)
    for path, real in sorted(files.items()):
        target = folder / check_relative(path, "the model")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(real, target)
            target.chmod(0o755 if os.access(real, os.X_OK) else 0o644)
        except (OSError, shutil.SameFileError) as error:
            raise invalid(f"{quoted(path)} cannot be copied: {getattr(error, 'strerror', None) or error}") from error


def recorded(folder: Path) -> tuple[File, ...]:
    """Every file below a folder with its size and hash, in order of paths; caches of Python do not count."""
    return hashed(_bounded(dict(_walk(folder, folder, "", Patterns(["__pycache__/", "*.pyc"])))))


def listed(place: Path, within: Callable[[Path], bool]) -> dict[str, Path]:
    """The files of a model where it lies, those that a build would copy: relative path -> where it really lies. None is opened.

    `place` has its links resolved; links below it must lead to where `within` says yes. Raises INVALID_INPUT like `chosen`.
    """
    if place.is_file():
        return {place.name: place}
    left_out = Patterns([*ALWAYS_EXCLUDED, "!/dragoman.json"])  # unlike for a build, it says what this is
    return _bounded(dict(islice(_walk(place, place, "", left_out, within=within), MOST_FILES + 1)))  # the folder may be somebody's home


def hashed(files: Mapping[str, Path]) -> tuple[File, ...]:
    """These files with their sizes and hashes, in order of paths. Raises INVALID_INPUT for one that is no file, OSError."""
    return tuple(_record(path, real) for path, real in sorted(files.items()))


def digest_of(kind: str, spec: Mapping[str, Any], files: Sequence[File]) -> str:
    """The identity of a model: equal wherever the same files are built with the same declaration."""
    text = json.dumps({"kind": kind, "spec": spec, "files": [asdict(f) for f in sorted(files, key=lambda f: f.path)]}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def manifest(files: Sequence[File]) -> dict[str, Any]:
    return {"files": [asdict(f) for f in files], "size": sum(f.size for f in files)}


def files_of(content: Mapping[str, Any]) -> tuple[File, ...]:
    """The files of a manifest, which may come from anywhere. Raises INVALID_INPUT for what is none."""
    listed = content.get("files")
    if not isinstance(listed, list) or not listed or len(listed) > MOST_FILES:
        raise invalid(f"the manifest lists no files, or more than {MOST_FILES}")
    files = tuple(_file(item) for item in listed)
    if len({f.path for f in files}) != len(files):
        raise invalid("the manifest lists a file twice")
    if sum(f.size for f in files) > LARGEST_MODEL:
        raise invalid(f"the manifest lists more than {LARGEST_MODEL} bytes")
    return files


def verify(folder: Path, files: Sequence[File], name: str, within: Callable[[Path], bool] | None = None) -> None:
    """Raise UNAVAILABLE when a file of a stored model is gone or is not what was stored. Files that came later do not matter.

    With `within`, links are followed that lead to where it says yes; else there must be none.
    """
    for file in files:
        try:
            path = folder / file.path
            if within is not None:
                path = path.resolve(strict=True)
            same = (within is None or within(path)) and stat.S_ISREG(path.lstat().st_mode) and _unchanged(path, file)
        except (OSError, RuntimeError, ServingError):
            same = False
        if not same:
            remedy = "remove it, and build or pull it again" if within is None else "register it again as it is now"
            raise ServingError(
                Kind.UNAVAILABLE,
                f"the stored model '{name}' is damaged: {quoted(file.path)} is missing or has changed; {remedy}",
                what="model",
            )


def _walk(
    root: Path,
    folder: Path,
    prefix: str,
    left_out: Patterns,
    above: tuple[Path, ...] = (),
    within: Callable[[Path], bool] | None = None,
) -> Iterator[tuple[str, Path]]:
    """Every file below a folder, relative path and real place; folders that are left out are not entered."""
    if len(above) > _DEEPEST:
        raise invalid(f"the folder {folder} is more than {_DEEPEST} folders deep")
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise invalid(f"the folder {folder} cannot be read: {error.strerror}") from error
    for entry in entries:
        path = f"{prefix}{entry.name}"
        if entry.is_symlink() and (left_out.match(path) or left_out.match_folder(path)):
            continue
        if entry.is_dir():
            if not left_out.match_folder(path):
                real = _inside(root, entry, path, within)
                if real in above or real == root:
                    raise invalid(f"the link {quoted(path)} leads in a circle")
                yield from _walk(root, entry, f"{path}/", left_out, (*above, real), within)
        elif not left_out.match(path):
            yield path, _inside(root, entry, path, within)


def _inside(root: Path, entry: Path, path: str, within: Callable[[Path], bool] | None = None) -> Path:
    """Where an entry really lies. Raises INVALID_INPUT when that is outside of the project, or neither file nor folder."""
    try:
        real = entry.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError) as error:
        raise invalid(f"{quoted(path)} is not there, or a link that leads nowhere") from error
    if within is not None and not within(real):
        raise invalid(f"the link {quoted(path)} leads out of the model root")
    if within is None and not real.is_relative_to(root):
        raise invalid(f"the link {quoted(path)} leads out of the project; copy what it means with --copy-files SRC:DEST")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise invalid(f"{quoted(path)} is neither a file nor a folder")
    return real


def _bounded(found: dict[str, Path]) -> dict[str, Path]:
    if len(found) > MOST_FILES:
        raise invalid(f"the model has more than {MOST_FILES} files; leave some out with exclude_files")
    for path in found:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise invalid(f"the file name {quoted(path)} is not UTF-8") from None
    return found


def _record(path: str, real: Path) -> File:
    digest = hashlib.sha256()
    size = 0
    # Without O_NONBLOCK, opening a pipe that was put in the place of the file would wait for ever.
    with open(real, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise invalid(f"{quoted(path)} is not a file")
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return File(path, size, digest.hexdigest(), bool(mode & 0o100))


def _file(item: object) -> File:
    match item:
        case {"path": str() as path, "size": int() as size, "sha256": str() as sha256, "executable": bool() as executable} if (
            not isinstance(size, bool) and size >= 0 and len(sha256) == 64 and not set(sha256) - set("0123456789abcdef")
        ):
            normal = "/".join(Path(check_relative(path, "the manifest")).parts)
            if normal == path:
                return File(path, size, sha256, executable)
    raise invalid(f"the manifest lists {quoted(str(item))}, expected a path, a size and a SHA-256")


def _unchanged(path: Path, file: File) -> bool:
    if path.stat().st_size != file.size:
        return False
    found = _record(file.path, path)
    return (found.size, found.sha256) == (file.size, file.sha256)
