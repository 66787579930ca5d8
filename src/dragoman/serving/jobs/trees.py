"""A tree of uploaded code: which files it has, under which paths, and the rules for paths. Pure; called by receiving.py and code.py."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.serving.settings import quoted

_WINDOWS = re.compile(r"\.\\|[A-Za-z]:[\\/]|\\")
_LONGEST_NAME = 255
_LONGEST_PATH = 1024
DEEPEST = 64
"""Folders above a file, of code and of data."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a tree, by the SHA-256 of its content."""

    sha256: str
    size: int
    executable: bool = False


@dataclass(frozen=True, slots=True)
class CodeLimits:
    """Of one upload of code."""

    max_files: int = 50_000
    max_bytes: int = 1 << 30
    max_json: int = 1 << 20
    """Bytes of what is said of it beside the files."""

    @property
    def largest_body(self) -> int:
        """Bytes that a form within these limits may have at most: each file has a head with its name, in which letters may take three."""
        return self.max_bytes + self.max_json + self.max_files * 4096 + (1 << 20)


@dataclass(slots=True)
class Tree:
    """Path -> file, while it is made. Every path is one that `code_path` returned."""

    files: dict[str, File] = field(default_factory=dict)
    _folders: set[str] = field(default_factory=set)

    def claim(self, path: str, limits: CodeLimits) -> None:
        """Say that a file of this path comes. Raises INVALID_INPUT when it cannot be beside those that came, TOO_LARGE for too many."""
        above = folders_of(path)
        if path in self.files:
            raise invalid(f"the upload has the file {quoted(path)} twice", "body")
        if path in self._folders:
            raise invalid(f"the upload has {quoted(path)} as a file and as a folder", "body")
        for folder in above:
            if folder in self.files:
                raise invalid(f"the upload has {quoted(folder)} as a file and as a folder", "body")
        if len(self.files) >= limits.max_files:
            raise ServingError(Kind.TOO_LARGE, f"the upload has more than the limit of {limits.max_files} files", what="body")
        self._folders.update(above)
        self.files[path] = File("", 0)


def code_path(filename: str) -> str:
    """The path that a client's file name means, with "/". Raises INVALID_INPUT (what="body") for one that is not inside of the project.

    Names begin with `./`; a client on Windows writes `.\\` and means folders by it, elsewhere a backslash is a letter of a name.
    """
    path = filename.replace("\\", "/") if _WINDOWS.match(filename) else filename
    if not path or "\0" in path or path.startswith("/") or re.match(r"[A-Za-z]:/", path):
        raise _refused(filename, "a relative path is expected")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _refused(filename, "'..' leads out of the project")
    if not parts or path.endswith("/"):
        raise _refused(filename, "it names no file")
    if len(parts) > DEEPEST:
        raise _refused(filename, f"it is more than {DEEPEST} folders deep")
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        raise _refused(filename, "it is not UTF-8") from None
    if max(sizes) > _LONGEST_NAME or sum(sizes) + len(sizes) > _LONGEST_PATH:
        raise _refused(filename, f"a name may have {_LONGEST_NAME} bytes, a path {_LONGEST_PATH}")
    return "/".join(parts)


def folders_of(path: str) -> list[str]:
    """The folders that a file is in, the outermost first."""
    return [path[:at] for at, letter in enumerate(path) if letter == "/"]


def written(files: Mapping[str, File]) -> bytes:
    """A tree as bytes: the same for the same files."""
    return orjson.dumps([[path, f.sha256, f.size, f.executable] for path, f in sorted(files.items())])


def read(text: bytes) -> dict[str, File]:
    """What `written` wrote."""
    return {path: File(sha256, size, executable) for path, sha256, size, executable in orjson.loads(text)}


def named(text: bytes) -> set[str]:
    """The names of the contents of a tree's files."""
    return {file.sha256 for file in read(text).values()}


def _refused(filename: str, why: str) -> ServingError:
    return invalid(f"the file name {quoted(filename)} is refused: {why}", "body")
