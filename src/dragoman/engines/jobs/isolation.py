"""Tries what isolation this machine allows, with the very arguments that jobs get: no version number or setting tells. Called once, at start."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from dragoman.core.errors import Kind, ServingError
from dragoman.engines.jobs import bubble, sandbox
from dragoman.engines.jobs.allowed import Isolation

__all__ = ["Isolation", "find"]

OPTIONAL = frozenset(("--disable-userns", "--size"))
_SAY = "the job isolation is in force"
_SHOWN = 200


async def find(setting: str = "auto", hidden: tuple[Path, ...] = (), path: str | None = None) -> Isolation:
    """What is in force with `--job-isolation` auto, namespaces or shim; programs are looked for on `path`, or that of this process.

    Raises UNSUPPORTED when namespaces are asked for and not to be had.
    """
    hidden = tuple(folder.absolute() for folder in hidden)
    if setting == "shim":
        return Isolation(hidden=hidden, why="as it was set")
    found = await asyncio.to_thread(_find, hidden, path)
    if setting == "namespaces" and not found.bwrap:
        raise ServingError(Kind.UNSUPPORTED, f"--job-isolation namespaces is not possible here: {found.why}")
    return found


def _find(hidden: tuple[Path, ...], path: str | None) -> Isolation:
    bwrap, uplink = shutil.which("bwrap", path=path), shutil.which("slirp4netns", path=path)
    if not bwrap:
        return Isolation(hidden=hidden, why="bubblewrap is not installed")
    files = Isolation(bwrap, options=_options(bwrap), hidden=hidden)
    if wrong := _wrong(files, network=True):
        return Isolation(hidden=hidden, why=f"bubblewrap: {wrong}")
    alone = replace(files, own_network=True)
    if wrong := _wrong(alone, network=False):
        return replace(files, why=f"no network of its own: {wrong}")
    if not uplink:
        return replace(alone, why="slirp4netns is not installed")
    whole = replace(alone, uplink=uplink)
    if wrong := _wrong(whole, network=True):
        return replace(alone, why=wrong)
    return whole


def _options(bwrap: str) -> frozenset[str]:
    try:
        said = subprocess.run([bwrap, "--help"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)  # noqa: S603 # found above
    except OSError:
        return frozenset()
    return OPTIONAL & frozenset((said.stdout + said.stderr).split())


def _wrong(isolation: Isolation, *, network: bool) -> str:
    """Why a command cannot be run so; "" when it can."""
    with tempfile.TemporaryFile() as words:
        described = sandbox.bubble_of(isolation, ("/bin/sh", "-c", f"echo {_SAY}"), network=network)
        try:
            bubble.begin(described, (), words, {"PATH": os.defpath}, waits=True).reap()
            wrong = ""
        except OSError as error:
            wrong = str(error)
        words.seek(0)
        said = words.read().decode("utf-8", "replace").strip()
    if said == _SAY and not wrong:
        return ""
    return (said.splitlines()[-1].removeprefix("bwrap: ") if said and said != _SAY else wrong or "it does not run commands")[:_SHOWN]
