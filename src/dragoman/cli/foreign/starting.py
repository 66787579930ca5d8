"""What the start commands of other servers have in common: our own flags beside theirs, and the start itself."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dragoman import __version__
from dragoman.cli import serve
from dragoman.cli.foreign.flags import Flag, Given, parse, usage
from dragoman.core.disk import write_whole
from dragoman.core.errors import invalid
from dragoman.server.configuration import as_toml, read
from dragoman.server.settings import Settings

OWN = (
    Flag("data-dir", text="where the server keeps its own files (default: a folder per command and port in the user's data directory)"),
    Flag("config", text="TOML file with settings of `dragoman serve`, over which the flags win"),
    Flag("print-config", bool, "print the settings that result, and exit", default=False),
    Flag("help", bool, "print this, and exit", default=False),
)
"""Beside a server's own flags, in all of its commands."""
LOCAL = "127.0.0.1"
"""Where they listen unless told otherwise. The originals listen everywhere, and let everybody load and unload."""


@dataclass(slots=True)
class Start:
    """What a command line comes to: settings by name, and what to tell the operator."""

    settings: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    """Settings that name files, by name, with what is to be in them: PEM texts that a configuration holds itself."""


@dataclass(frozen=True, slots=True)
class Command:
    """`start` reads flags (and their files and variables) and raises INVALID_INPUT for what makes no sense."""

    name: str
    help: str
    description: str
    flags: tuple[Flag, ...]
    start: Callable[[Given], Start]

    arguments: str = "[--flag=value ...]"

    def settings(self, arguments: Sequence[str]) -> tuple[Settings, list[str], Given]:
        """The settings of a command line, what to warn of, and the flags as they were given (those of help and version come to nothing else)."""
        given = parse(f"dragoman {self.name}", (*self.flags, *OWN), arguments)
        if given.get("help") or given.get("version"):
            return Settings(), [], given
        start = self.start(given)
        if given.idle:
            what = "this flag has" if len(given.idle) == 1 else "these flags have"
            start.warnings.append(f"{what} no effect here: {', '.join(given.idle)} (dragoman {self.name} --help says why)")
        wanted = {"data_dir": given.get("data-dir"), **start.settings}
        settings = read(wanted, given.get("config", ""))
        if not settings.data_dir:
            # Of its own, so that such servers run side by side as the originals do, and none serves what was deployed to another.
            wanted["data_dir"] = str(settings.data_path / f"{self.name}-{(*settings.port, *settings.grpc_port)[0]}")
            settings = replace(settings, data_dir=wanted["data_dir"])
        if start.files:
            folder = settings.data_path / "tls"
            settings = read({**wanted, **{name: _kept(folder, name, text) for name, text in start.files.items()}}, given.get("config", ""))
        return settings, start.warnings, given

    def main(self, arguments: Sequence[str]) -> int:
        """Run the command; returns the exit code. Raises ServingError as `dragoman serve` does."""
        settings, warnings, given = self.settings(arguments)
        if given.get("help"):
            print(usage(f"dragoman {self.name} {self.arguments}", self.description, (*self.flags, *OWN)))
            return 0
        if given.get("version"):
            print(f"dragoman {__version__}, as {self.name}")
            return 0
        if given.get("print-config"):
            print(as_toml(settings), end="")
            return 0
        return serve.start(settings, warnings)


def _kept(folder: Path, name: str, text: str) -> str:
    """A file that holds this text and that only we can read, for libraries that take keys from files; "" for no text."""
    if not text:
        return ""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.pem"
        write_whole(path, text)
    except OSError as error:
        raise invalid(f"the folder {folder} cannot be written: {error.strerror or error}") from error
    return str(path)
