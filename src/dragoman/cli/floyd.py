"""`dragoman floyd ARGUMENTS`: FloydHub's own client, unchanged, with everything it does going to our server.

Its option --host moves the API alone. The address that data sets are uploaded to and that of its web pages are fixed in it, and when it
crashes it reports to strangers: a few lines that run before it, in its own Python, change that.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dragoman.cli.client import USUAL
from dragoman.core.errors import Kind, ServingError, invalid

CLIENT = "DRAGOMAN_FLOYD"
"""Environment variable: where the client is, when its command `floyd` is not on the path."""
_PINS = "'floyd-cli==0.11.17' 'urllib3<2' 'setuptools<81'"

_PROGRAM = """\
import sys, types, warnings
warnings.simplefilter("ignore")
class Silent(object):
    def __init__(self, *args, **kwargs):
        pass
raven = types.ModuleType("raven")
raven.Client = Silent
sys.modules["raven"] = raven
host = sys.argv[1]
sys.argv[:] = ["floyd", "--host", host] + sys.argv[2:]
import floyd
floyd.floyd_host = floyd.floyd_web_host = host
floyd.tus_server_endpoint = host + "/api/v1/upload/"
from floyd.main import cli
cli(prog_name="floyd")
"""
"""Runs on whatever Python the client does, 2.7 included."""


def main(arguments: Sequence[str]) -> int:
    """Run the client; its exit code. Raises UNAVAILABLE where there is none."""
    host, words = _host(list(arguments))
    python = _python()
    # Its logs and our names may hold any letter, and it reads nothing of ours.
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    environment.setdefault("PYTHONIOENCODING", "utf-8")
    child = subprocess.Popen([python, "-c", _PROGRAM, host, *words], env=environment)  # noqa: S603 # the client that the user named
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:  # it has had the same, and says what it has to
            continue


def _host(words: list[str]) -> tuple[str, list[str]]:
    """The server that is meant: -h or --host in front, as the client takes it, else DRAGOMAN_URL, else the usual address."""
    host = os.environ.get("DRAGOMAN_URL") or USUAL
    kept = []
    while words:
        word = words.pop(0)
        if word in ("-h", "--host") and words:
            host = words.pop(0)
        elif word.startswith("--host="):
            host = word.removeprefix("--host=")
        elif word in ("-v", "--verbose"):
            kept.append(word)
        else:
            kept += [word, *words]
            break
    if not host.startswith(("http://", "https://")):
        raise invalid(f"--host is {host}, expected http://... or https://...")
    return host.rstrip("/"), kept


def _python() -> str:
    """The interpreter of the virtualenv that has the client."""
    named = os.environ.get(CLIENT, "")
    command = Path(named) if named else Path(shutil.which("floyd") or Path(sys.executable).with_name("floyd"))
    if command.is_dir():
        command = command / "bin" / "floyd"
    if not command.is_file():
        raise ServingError(
            Kind.UNAVAILABLE,
            f"there is no command {command if named else 'floyd'} here: install FloydHub's client in a virtualenv of its own"
            f" (python -m venv floyd; floyd/bin/pip install {_PINS}), and say where: {CLIENT}=floyd. dragoman run needs none",
        )
    for python in (command.with_name("python"), command.with_name("python3")):  # a virtualenv has its own beside its commands
        if (command.parent.parent / "pyvenv.cfg").is_file() and python.exists():
            return str(python)
    with command.open("rb") as file:
        first = file.readline(4096).decode("utf-8", "replace").strip()
    words = first.removeprefix("#!").split()
    if not first.startswith("#!") or not words:
        raise ServingError(Kind.UNAVAILABLE, f"{command} is no Python program; say in {CLIENT} in which virtualenv FloydHub's client is")
    return words[1] if Path(words[0]).name == "env" and len(words) > 1 else words[0]
