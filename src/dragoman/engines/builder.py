"""Makes one virtualenv with uv, or with venv and pip where there is no uv. Called by environment.py, which owns the directory and the locks.

The commands run in a process group of their own, which is killed when the build is cancelled or takes too long; they get the few environment
variables that installers need, and none of the server's other ones.
"""

import asyncio
import codecs
import contextlib
import os
import re
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dragoman.core.errors import Kind, ServingError
from dragoman.engines.interpreters import Interpreter
from dragoman.engines.requirements import Requirement

Log = Callable[[str], None]

_TAIL_LINES = 60
_SHOWN_LINES = 6
_SHOWN_LENGTH = 800
_MAX_LINE = 500

_PASSED = re.compile(
    r"(PIP|UV)_.+|PATH|HOME|USER|LOGNAME|LANG|LC_ALL|LC_CTYPE|TMPDIR|TZ|NETRC|XDG_(CACHE_HOME|CONFIG_HOME|CONFIG_DIRS|DATA_HOME|BIN_HOME)"
    r"|(HTTP|HTTPS|ALL|NO)_PROXY|(http|https|all|no)_proxy|SSL_(CERT_FILE|CERT_DIR|CLIENT_CERT)|(REQUESTS|CURL)_CA_BUNDLE"
    r"|CC|CXX|AR|LD|(C|CXX|CPP|LD)FLAGS|MAKEFLAGS|PKG_CONFIG_PATH|LD_LIBRARY_PATH|CUDA_(HOME|PATH)|CARGO_HOME|RUSTUP_HOME"
)
"""What installers and compilers look at. PIP_ and UV_ variables say which index, cache and certificates to use."""

_STEERING = re.compile(
    r"PIP_(TARGET|PREFIX|ROOT|USER|PYTHON|REQUIREMENT|EDITABLE|LOG|QUIET|DRY_RUN|REPORT)"
    r"|UV_(TARGET|PREFIX|PYTHON|SYSTEM_PYTHON|BREAK_SYSTEM_PACKAGES|WORKING_DIRECTORY|PROJECT|PROJECT_ENVIRONMENT|VENV_.+|QUIET)"
)
"""Of those the ones that would install elsewhere or something else, or say nothing."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides what is in an environment."""

    interpreter: Interpreter
    packages: tuple[Requirement, ...]
    options: tuple[str, ...] = ()
    requirements: tuple[Requirement, ...] = ()

    @property
    def lines(self) -> list[str]:
        """What is installed, as a person would write it: without options and hashes."""
        return [r.line for r in (*self.packages, *self.requirements)]


def environment_for_builders(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of the server that a builder gets."""
    kept = {k: v for k, v in environ.items() if _PASSED.fullmatch(k) and not _STEERING.fullmatch(k)}
    return {**kept, "NO_COLOR": "1", "TERM": "dumb", "UV_NO_PROGRESS": "1", "PYTHONUNBUFFERED": "1"}


async def build(recipe: Recipe, directory: Path, uv: str, environ: Mapping[str, str], log: Log, deadline: float) -> None:
    """Make the virtualenv `directory`, which does not exist yet; `uv` is empty for venv and pip. `deadline` is on the loop's clock.

    Raises UNAVAILABLE with the reason and the last lines of output. Cancelled or failed, it leaves no process, but the directory as it is.
    """
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    python = directory / "bin" / "python"
    base = str(recipe.interpreter.path)
    if uv:
        commands = [[uv, "venv", "--no-project", "--python", base, str(directory)]]
        install = [uv, "pip", "install", "--python", str(python)]
    else:
        commands = [[base, "-I", "-m", "venv", str(directory)]]
        install = [str(python), "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    commands += [[*install, *arguments] for arguments in _installs(recipe, directory, hashed_only=bool(uv))]
    try:
        async with asyncio.timeout_at(deadline):
            for number, command in enumerate(commands):
                if number == 1:
                    _write_lists(recipe, directory)
                code = await _run(command, directory.parent, environ, log, tail)
                if code:
                    raise failure(recipe, list(tail), f"the installer ended with exit code {code}")
    except TimeoutError as exc:
        raise failure(recipe, list(tail), "it takes too long") from exc
    except OSError as exc:
        raise failure(recipe, list(tail), f"{exc.strerror or type(exc).__name__}") from exc


def _installs(recipe: Recipe, directory: Path, *, hashed_only: bool) -> list[list[str]]:
    """The arguments of each install. Whatever has hashes is installed alone: then pip wants one of everything, and uv is told to as well."""
    files = _lists(recipe)
    return [
        [
            *(["--require-hashes"] if hashed_only and "--hash=" in text and name == "requirements" else []),
            "-r",
            str(directory / f"{name}.list"),
        ]
        for name, text in files.items()
    ]


def _lists(recipe: Recipe) -> dict[str, str]:
    """Name -> content of the requirement files. numpy, which a model process needs, comes with the packages unless it is named."""
    named = {r.name for r in (*recipe.packages, *recipe.requirements)}
    packages = [r.text for r in recipe.packages] + ([] if "numpy" in named else ["numpy"])
    rest = [*recipe.options, *(r.text for r in recipe.requirements)]
    if any(r.hashes for r in recipe.requirements) or "--require-hashes" in recipe.options:
        lists = {"requirements": rest, "packages": [o for o in recipe.options if o != "--require-hashes"] + packages if packages else []}
    else:
        lists = {"packages": [*rest, *packages]}
    return {name: "\n".join(lines) + "\n" for name, lines in lists.items() if lines}


def _write_lists(recipe: Recipe, directory: Path) -> None:
    for name, text in _lists(recipe).items():
        descriptor = os.open(directory / f"{name}.list", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # an index may have a password
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)


async def _run(command: Sequence[str], cwd: Path, environ: Mapping[str, str], log: Log, tail: deque[str]) -> int:
    """One command; its lines go to the log while it runs. Its whole process group is gone when this is left by an exception."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=cwd,
        env=dict(environ),
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        await _follow(process.stdout, log, tail)
        return await process.wait()
    except BaseException:
        # With the leader reaped, something else of the group still holds the pipe, so the number is not anybody else's.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise


async def _follow(stream: asyncio.StreamReader, log: Log, tail: deque[str]) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pending = ""
    while chunk := await stream.read(1 << 14):
        *lines, pending = re.split(r"[\r\n]+", pending + decoder.decode(chunk))
        pending = pending[: 4 * _MAX_LINE]
        for line in lines:
            _tell(line, log, tail)
    _tell(pending, log, tail)


def _tell(line: str, log: Log, tail: deque[str]) -> None:
    """Pass one line on, without what could steer a terminal and without passwords of an index."""
    text = re.sub(r"://[^/\s@]*@", "://***@", "".join(c if c.isprintable() else " " for c in line)).rstrip()[:_MAX_LINE]
    if text.strip():
        tail.append(text)
        log(text)


_ERROR = re.compile(r"\s*(?:error\b|×)", re.IGNORECASE)
_INTERNAL = re.compile(r"[a-z+]+://\S+|(?<![\w.])/[\w.@+-]+/\S*")
"""Addresses of indexes and paths of this machine, which are in the log but not for strangers."""

_CULPRITS = [
    re.compile(pattern)
    for pattern in (
        r"No matching distribution found for ([^\s(;]+)",
        r"satisfies the requirement ([^\s(;]+)",
        r"Because (?:there (?:is|are) no versions? of )?(?:only )?([A-Za-z0-9._-]+)\S* (?:was not found|has no|and you require|is available)",
        r"[Ff]ailed (?:to build|building wheel for|to download|to fetch):? `?([A-Za-z0-9._-]+)",
        r"Cannot install ([A-Za-z0-9._-]+)",
        r"HASHES FROM THE REQUIREMENTS FILE[^\n]*\n\s*([A-Za-z0-9._-]+)",
        r"[Hh]ash mismatch for `([A-Za-z0-9._-]+)",
    )
]


def failure(recipe: Recipe, tail: Sequence[str], reason: str) -> ServingError:
    """The error of a build: which requirement failed where that can be told, and the lines that say why. `trace` has all of the tail."""
    text = "\n".join(tail)
    requirement = _culprit(recipe, text)
    first = next((i for i, line in enumerate(tail) if _ERROR.match(line)), len(tail) - 3)
    shown = [_INTERNAL.sub("...", line.strip()) for line in tail[max(0, first) :][:_SHOWN_LINES]]
    message = f"the environment of {described(recipe)} cannot be built: {f'{requirement} cannot be installed' if requirement else reason}"
    return ServingError(Kind.UNAVAILABLE, f"{message} ({'; '.join(shown)[:_SHOWN_LENGTH]})" if shown else message, trace=text)


def _culprit(recipe: Recipe, text: str) -> str:
    for pattern in _CULPRITS:
        match = pattern.search(text)
        if match:
            name = re.split(r"[\[<>=!~]", re.sub(r"[-_.]+", "-", match[1]).lower())[0]
            return next((r.line for r in (*recipe.packages, *recipe.requirements) if r.name == name), match[1])
    return ""


def described(recipe: Recipe) -> str:
    """An environment in a few words."""
    lines = recipe.lines
    some = ", ".join(lines[:4]) + (f" and {len(lines) - 4} more" if len(lines) > 4 else "")
    return f"Python {recipe.interpreter.version}" + (f" with {some}" if some else "")
