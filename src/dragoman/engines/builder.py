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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dragoman.core.errors import Kind, ServingError
from dragoman.engines.interpreters import Interpreter
from dragoman.engines.requirements import Requirement

Log = Callable[[str], None]
Wrap = Callable[[Sequence[str]], Awaitable[Sequence[str]]]
"""Makes a command one that runs confined."""

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
    always: tuple[str, ...] = ("numpy",)
    """Packages that are installed, too, unless they are named."""

    @property
    def lines(self) -> list[str]:
        """What is installed, as a person would write it: without options and hashes."""
        return [r.line for r in (*self.packages, *self.requirements)]


def environment_for_builders(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of the server that a builder gets."""
    kept = {k: v for k, v in environ.items() if _PASSED.fullmatch(k) and not _STEERING.fullmatch(k)}
    return {**kept, "NO_COLOR": "1", "TERM": "dumb", "UV_NO_PROGRESS": "1", "PYTHONUNBUFFERED": "1"}


async def as_it_is(command: Sequence[str]) -> Sequence[str]:
    """The Wrap of a command that may do whatever the server may."""
    return command


async def build(
    recipe: Recipe, directory: Path, uv: str, environ: Mapping[str, str], log: Log, deadline: float, wrap: Wrap = as_it_is
) -> None:
    """Make the virtualenv `directory`, which does not exist yet or is empty; `uv` is empty for venv and pip. `deadline` is on the loop's clock.

    Raises UNAVAILABLE with the reason and the last lines of output. Cancelled or failed, it leaves no process, but the directory as it is.
    """
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    python, base = str(directory / "bin" / "python"), str(recipe.interpreter.path)
    if uv:
        commands = [[uv, "venv", "--no-project", "--python", base, str(directory)]]
        install = [uv, "pip", "install", "--python", python]
        if "--pre" in recipe.options:
            install += ["--prerelease", "allow"]
    else:
        commands = [[base, "-I", "-m", "venv", str(directory)]]
        install = [python, "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    lists = _lists(recipe, pip=not uv)
    commands += [[*install, "-r", str(directory / f"{name}.list")] for name in lists]
    try:
        async with asyncio.timeout_at(deadline):
            for number, command in enumerate(commands):
                if number == 1:
                    _write(directory, lists)
                code = await run(await wrap(command), directory.parent, environ, log, tail)
                if code:
                    raise failure(recipe, list(tail), f"the installer ended with exit code {code}")
    except TimeoutError as exc:
        raise failure(recipe, list(tail), "it was not done in time") from exc
    except OSError as exc:
        raise failure(recipe, list(tail), exc.strerror or type(exc).__name__) from exc


def _lists(recipe: Recipe, *, pip: bool) -> dict[str, str]:
    """Name -> content of the requirement files, in the order in which they are installed.

    Where one requirement has hashes all need them, as pip has it, so the packages of the model file come after the requirements file, and
    what is always there comes with the packages.
    """
    named = {r.name for r in (*recipe.packages, *recipe.requirements)}
    packages = [r.text for r in recipe.packages] + [name for name in recipe.always if name not in named]
    requirements = [r.text for r in recipe.requirements]
    indexes = [o for o in recipe.options if o != "--require-hashes" and (pip or o != "--pre")]
    if requirements and ("--require-hashes" in recipe.options or any(r.hashes for r in recipe.requirements)):
        lists = {"requirements": [*indexes, "--require-hashes", *requirements], "packages": [*indexes, *packages] if packages else []}
    else:
        lists = {"packages": [*indexes, *requirements, *packages] if requirements or packages else []}
    return {name: "\n".join(lines) + "\n" for name, lines in lists.items() if lines}


def _write(directory: Path, lists: Mapping[str, str]) -> None:
    for name, text in lists.items():
        descriptor = os.open(directory / f"{name}.list", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # an index may have a password
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)


async def run(command: Sequence[str], cwd: Path, environ: Mapping[str, str], log: Log, tail: deque[str]) -> int:
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
        r"Cannot install ([A-Za-z0-9][A-Za-z0-9._-]*)",
        r"HASHES FROM THE REQUIREMENTS FILE[^\n]*\n\s*([A-Za-z0-9._-]+)",
        r"[Hh]ash mismatch for `([A-Za-z0-9._-]+)",
    )
]


def failure(recipe: Recipe, tail: Sequence[str], reason: str) -> ServingError:
    """The error of a build: which requirement failed where that can be told, and the lines that say why. `trace` has all of the tail."""
    first = next((i for i, line in enumerate(tail) if _ERROR.match(line)), None)
    requirement = _culprit(recipe, "\n".join(tail), "" if first is None else "\n".join(tail[first:]))
    shown = tail[-3:] if first is None else tail[first : first + _SHOWN_LINES]
    lines = "; ".join(_INTERNAL.sub("...", line.strip()) for line in shown)[:_SHOWN_LENGTH]
    message = f"the environment of {described(recipe)} cannot be built: {f'{requirement} cannot be installed' if requirement else reason}"
    return ServingError(Kind.UNAVAILABLE, f"{message} ({lines})" if lines else message, trace="\n".join(tail))


def _culprit(recipe: Recipe, text: str, errors: str) -> str:
    """The requirement that the installer names in one of its usual sentences, or else the first of ours that its errors speak of."""
    ours = {r.name: r.line for r in (*recipe.requirements, *recipe.packages) if r.name}
    for pattern in _CULPRITS:
        match = pattern.search(text)
        if match:
            return ours.get(_normal(match[1]), match[1])
    spoken = (_normal(word) for word in re.findall(r"[A-Za-z0-9][A-Za-z0-9._-]*", _INTERNAL.sub(" ", errors)))
    return next((ours[name] for name in spoken if name in ours), "")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~]", name)[0]).lower()


def described(recipe: Recipe) -> str:
    """An environment in a few words: what people wrote themselves goes first."""
    lines = [r.line for r in (*recipe.requirements, *recipe.packages)]
    some = ", ".join(lines[:4]) + (f" and {len(lines) - 4} more" if len(lines) > 4 else "")
    return f"Python {recipe.interpreter.version}" + (f" with {some}" if some else "")
