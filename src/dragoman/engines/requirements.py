"""What a model may ask to have installed: requirement lines are checked and brought into one form before a builder sees them.

Called by environment.py for every build and by whoever reads a model's declaration (`environment_of`). Lines of a model file are hostile
until checked: what pip would read as an option, an address or a path is refused. A requirements file may hold some of these; see `from_file`.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dragoman.core.errors import ServingError, invalid
from dragoman.core.model import Environment

OLDEST = (3, 11)
"""The oldest Python that can run a model process."""

_MAX_LINES = 1000
_MAX_LINE = 1000
_MAX_FILE_BYTES = 1 << 20

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_CLAUSE = r"(?:===|~=|==|!=|<=|>=|<|>)\s*[A-Za-z0-9][A-Za-z0-9.*+!_-]*"
_CLAUSES = rf"{_CLAUSE}(?:\s*,\s*{_CLAUSE})*"
_REQUIREMENT = re.compile(
    rf"(?P<name>{_NAME})\s*(?:\[(?P<extras>[A-Za-z0-9._,\s-]*)\])?\s*(?:\(\s*(?P<inner>{_CLAUSES})\s*\)|(?P<clauses>{_CLAUSES}))?"
    r"\s*(?:;(?P<marker>[A-Za-z0-9_.,'\"()<>=!~\s*+-]+))?"
)
_ADDRESS = r"(?:git\+)?https://[^\s$'\"\\`]+"
_AT_ADDRESS = re.compile(rf"(?P<name>{_NAME})\s*(?:\[(?P<extras>[A-Za-z0-9._,\s-]*)\])?\s*@\s*(?P<address>{_ADDRESS})")
_HASH = re.compile(r"\s--hash(?:=|\s+)(sha256|sha384|sha512):([0-9a-fA-F]{64,128})(?=\s|\Z)")
_OPTION = re.compile(
    r"(?P<index>-i|--index-url|--extra-index-url)(?:=|\s+)(?P<url>https://[^\s$'\"\\`]+|http://(?:localhost|127\.0\.0\.1)[:/][^\s$'\"\\`]*)"
    r"|(?P<kinds>--only-binary|--no-binary)(?:=|\s+)(?P<names>:all:|:none:|[A-Za-z0-9._,-]+)"
    r"|(?P<flag>--require-hashes|--pre)"
)
_COMMENT = re.compile(r"(?:^|\s+)#.*$")
_ARCHIVE = re.compile(r"\.(?:whl|zip|tar|tgz|tbz|txz|gz|bz2|xz)\Z", re.IGNORECASE)
_PYTHON = re.compile(r"(\d{1,2})\.(\d{1,3})(?:\.\d{1,3})?\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One thing to install. `name` is normalised and empty for a bare address; `line` is what the builder gets."""

    name: str
    line: str
    hashes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return self.line + "".join(f" --hash={digest}" for digest in self.hashes)


def from_model(lines: Iterable[object], where: str = "packages") -> tuple[Requirement, ...]:
    """The requirements that a model file names: `name[extras] versions; marker` and nothing else. Sorted, each once.

    Raises INVALID_INPUT with `where` and the line.
    """
    found = {}
    for number, line in enumerate(lines):
        if number >= _MAX_LINES:
            raise invalid(f"{where}: more than {_MAX_LINES} packages")
        if not isinstance(line, str):
            raise invalid(f"{where}: expected texts such as 'pillow==11.0', got {type(line).__name__}")
        requirement = _plain(_spaced(line))
        if requirement is None:
            raise _refused(line, where, "a model may name packages and their versions only; a requirements file beside it may hold more")
        found[requirement.line] = requirement
    return tuple(found[line] for line in sorted(found))


def from_file(text: str, where: str = "requirements.txt") -> tuple[tuple[str, ...], tuple[Requirement, ...]]:
    """The options and the requirements of a requirements file, in its order.

    Beyond names and versions it may hold `--hash`, addresses (`https://`, `git+https://`), `--index-url`, `--extra-index-url`,
    `--only-binary`, `--no-binary`, `--require-hashes` and `--pre`. Other files (`-r`, `-c`, `-e`, paths, `file:`) are refused: the text
    is built away from its folder and stands alone, so that its hash says what is installed. So are variables (`${...}`).
    """
    options: dict[str, None] = {}
    requirements: dict[str, Requirement] = {}
    for number, line in enumerate(_logical(text)):
        if number >= _MAX_LINES:
            raise invalid(f"{where}: more than {_MAX_LINES} lines")
        option = _OPTION.fullmatch(line)
        if option is not None:
            options[_option(option)] = None
            continue
        hashes = tuple(f"{algorithm}:{digest.lower()}" for algorithm, digest in _HASH.findall(line))
        rest = _HASH.sub("", line).strip()
        requirement = _plain(rest) or _addressed(rest)
        if requirement is None:
            raise _refused(
                line, where, "expected name[extras] versions; marker, an https:// address, or one of the options that are allowed"
            )
        found = Requirement(requirement.name, requirement.line, tuple(sorted(set(hashes))))
        requirements[found.line] = found
    return tuple(options), tuple(requirements.values())


def environment_of(
    packages: Sequence[object] | None = None, python_version: str | None = None, requirements_file: Path | None = None
) -> Environment | None:
    """The environment that a model's declaration asks for; None where the server's own does: nothing to install, and no other Python.

    `requirements_file` may be missing. Raises INVALID_INPUT for whatever a builder would refuse, so that a bad line is known before a build.
    """
    python = (python_version or "").strip()
    if python:
        minor_of(python)
    lines = tuple(r.line for r in from_model(packages or ()))
    text = _read(requirements_file) if requirements_file is not None else ""
    named = any(from_file(text)) if text else False
    if not lines and not named and not _another(python):
        return None
    return Environment(python, lines, text if named else "")


def minor_of(python: str) -> tuple[int, int]:
    """(3, 12) of "3.12" or "3.12.4"; INVALID_INPUT for anything else."""
    match = _PYTHON.match(python)
    if match is None:
        raise invalid(f"the Python version is {python[:40]!r}, expected one such as '3.12'")
    return int(match[1]), int(match[2])


def _another(python: str) -> bool:
    """Whether a version is one that the server does not have and could use."""
    return bool(python) and OLDEST <= minor_of(python) != sys.version_info[:2]


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise invalid(f"{path.name} is larger than {_MAX_FILE_BYTES} bytes")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        return ""
    except OSError as exc:
        raise invalid(f"{path.name} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise invalid(f"{path.name} is not UTF-8 text") from exc


def _logical(text: str) -> Iterable[str]:
    """The lines as pip sees them: continued ones joined, without comments and empty ones, white space made single."""
    pending = ""
    for physical in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if physical.endswith("\\") and not physical.lstrip().startswith("#"):
            pending += physical[:-1] + " "
            continue
        line = _spaced(_COMMENT.sub("", pending + physical))
        pending = ""
        if line:
            yield line
    if pending.strip():
        yield _spaced(_COMMENT.sub("", pending))


def _spaced(line: str) -> str:
    """ASCII white space made single. A line break within a model's line stays, and so is refused."""
    return re.sub(r"[ \t]+", " ", line.strip(" \t"))


def _plain(line: str) -> Requirement | None:
    """A requirement by name, in its one form; None for whatever else this is."""
    match = _REQUIREMENT.fullmatch(line) if len(line) <= _MAX_LINE and "\n" not in line and "\r" not in line else None
    if match is None or _ARCHIVE.search(match["name"]):
        return None
    marker = (match["marker"] or "").strip()
    if marker.startswith("-") or " -" in marker:  # pip would take it, and all behind it, for options
        return None
    clauses = match["clauses"] or match["inner"] or ""
    versions = ",".join(sorted({re.sub(r"\s", "", c) for c in clauses.split(",") if c.strip()}))
    name = _normal(match["name"])
    return Requirement(name, name + _extras(match["extras"]) + versions + (f"; {marker}" if marker else ""))


def _addressed(line: str) -> Requirement | None:
    match = _AT_ADDRESS.fullmatch(line) if len(line) <= _MAX_LINE else None
    if match is not None:
        name = _normal(match["name"])
        return Requirement(name, f"{name}{_extras(match['extras'])} @ {match['address']}")
    return Requirement("", line) if len(line) <= _MAX_LINE and re.fullmatch(_ADDRESS, line) else None


def _option(match: "re.Match[str]") -> str:
    if match["index"]:
        return f"{'--index-url' if match['index'] == '-i' else match['index']} {match['url']}"
    return f"{match['kinds']} {match['names']}" if match["kinds"] else match["flag"]


def _extras(text: str | None) -> str:
    names = sorted({_normal(extra.strip()) for extra in (text or "").split(",") if extra.strip()})
    return f"[{','.join(names)}]" if names else ""


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _refused(line: str, where: str, expected: str) -> ServingError:
    text = line.strip()
    if text.startswith("-"):
        reason = f"the option {text.split()[0].split('=')[0][:40]!r} is not allowed"
    elif "$" in text:
        reason = "variables are not allowed"
    elif "://" in text or " @ " in text:
        reason = "this address is not allowed"
    elif text.startswith((".", "/", "~", "file:")) or "/" in text or "\\" in text or _ARCHIVE.search(text):
        reason = "files and paths are not allowed"
    else:
        reason = "this is no requirement"
    return invalid(f"{where}: {text[:120]!r}: {reason}; {expected}")
