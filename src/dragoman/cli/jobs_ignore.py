"""Which files of a folder are a project's code: all but those that .floydignore names. Called by `dragoman run` before anything is sent.

The rules are those of FloydHub's client, so that the same files leave (requirement F4): a line is a glob that is compared with the end of a
path, part by part; a folder that matches is not looked into; `!` takes a file back, `\\` takes a first character as it is, a `/` in front
does nothing. Links to folders are not followed.
"""

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dragoman.core.errors import invalid

IGNORE = ".floydignore"
_LOGIN = ".floydconfig"
"""Keys lie in it, at home; whatever the rules say, it is not code."""

USUAL = """\
# What is not uploaded with the code of a job, one pattern per line.
# A pattern without "/" is compared with names at any depth; "!" in front takes files back.

.git
.eggs
eggs
lib
lib64
parts
sdist
var
*.pyc
*.swp
.DS_Store
"""


@dataclass(frozen=True, slots=True)
class Rules:
    """Patterns of what stays here, and of what goes all the same."""

    ignored: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def stays(self, path: str) -> bool:
        """Whether a path below the folder, with "/", is not uploaded."""
        return _matches(path, self.ignored) and not _matches(path, self.kept)


@dataclass(frozen=True, slots=True)
class Found:
    """A file to send: where it is, its path in the project, bytes."""

    path: Path
    name: str
    size: int


def parse(text: str) -> Rules:
    ignored: list[str] = []
    kept: list[str] = []
    for line in text.splitlines():
        pattern = line.strip()
        target = ignored
        if not pattern or pattern.startswith("#"):
            continue
        if pattern.startswith("!"):
            pattern, target = pattern[1:], kept
        elif pattern.startswith("\\"):
            pattern = pattern[1:]
        pattern = pattern.removeprefix("/")
        if PurePosixPath(pattern).parts:
            target.append(pattern)
    return Rules(tuple(ignored), tuple(kept))


def rules_of(folder: Path) -> Rules:
    """Those of the .floydignore there; nothing is ignored where there is none."""
    try:
        return parse((folder / IGNORE).read_text("utf-8"))
    except FileNotFoundError:
        return Rules()
    except (OSError, UnicodeDecodeError) as error:
        raise invalid(f"{IGNORE} cannot be read: {error}") from None


def code_files(folder: Path) -> list[Found]:
    """The files of the project in a folder, by name. Raises INVALID_INPUT for a name that is no UTF-8 and a file that may not be read."""
    rules = rules_of(folder)
    return sorted(_walk(folder, "", rules), key=lambda each: each.name)


def _walk(folder: Path, below: str, rules: Rules) -> Iterator[Found]:
    try:
        entries = list(os.scandir(folder / below))
    except OSError as error:
        raise invalid(f"the folder '{below or '.'}' cannot be read: {error.strerror}; name it in {IGNORE} to leave it out") from None
    for entry in entries:
        name = f"{below}/{entry.name}" if below else entry.name
        if rules.stays(name) or entry.name == _LOGIN:
            continue
        try:
            name.encode()
        except UnicodeEncodeError:
            raise invalid(f"the name of {name!r} is no UTF-8; rename it, or name it in {IGNORE} to leave it out") from None
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(folder, name, rules)
            continue
        try:
            about = entry.stat()
        except OSError:
            _left(name, "it is a link that leads nowhere")
            continue
        if not stat.S_ISREG(about.st_mode):
            _left(name, "links to folders are not followed" if stat.S_ISDIR(about.st_mode) else "it is no file")
        elif not os.access(entry.path, os.R_OK):
            raise invalid(f"'{name}' cannot be read: Permission denied; name it in {IGNORE} to leave it out")
        else:
            yield Found(Path(entry.path), name, about.st_size)


def _left(name: str, reason: str) -> None:
    print(f"'{name}' is not uploaded: {reason}", file=sys.stderr)


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(PurePosixPath(path).match(pattern) for pattern in patterns)
