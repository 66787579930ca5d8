"""A folder and a PATH in which the documents' commands mean what they say: model files, and stand-ins for what a test must not do for ever.

`dragoman serve` ends as soon as it listens (see dragoman_of_docs.py); `make` only says what it would do; `curl` fails for 4xx and 5xx. Everything
else is the real thing. Used by the tests of docs and examples.
"""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.e2e.running import environment
from tests.models import build, learned

ROOT = Path(__file__).parents[2]
READING = str(ROOT / "examples" / "python" / "reading.py")
"""The Python model that `make serve` serves beside them."""


def example_models(factory: pytest.TempPathFactory) -> Path:
    """The folder that `make serve` serves: the one that make has prepared, else one that is prepared now."""
    made = ROOT / "examples" / "models" / ".made"
    script = ROOT / "examples" / "prepare.py"
    if made.exists() and made.stat().st_mtime >= script.stat().st_mtime:
        return made.parent
    folder = factory.mktemp("examples") / "models"
    subprocess.run([sys.executable, str(script), str(folder)], check=True, timeout=110, stdout=subprocess.DEVNULL)
    return folder


def populate(folder: Path, models: Path) -> None:
    """Put the files there that documents speak of; `models` are the prepared example models."""
    build.iris(folder / "model.onnx")
    learned.write(folder / "iris.skops", learned.skops_of(learned.classifier()))
    build.add_sub(folder / "models" / "sums" / "1" / "model.onnx")
    (folder / "cat.jpg").write_text("not really a picture")
    (folder / "examples").mkdir()
    for path in (ROOT / "examples").iterdir():
        if path.name != "models":
            (folder / "examples" / path.name).symlink_to(path)
    (folder / "examples" / "models").symlink_to(models)
    commands = folder / "bin"
    commands.mkdir()
    for name, line in {
        "python": sys.executable,
        "python3": sys.executable,
        "dragoman": f"{sys.executable} {Path(__file__).with_name('dragoman_of_docs.py')}",
        "make": f"{shutil.which('make')} --dry-run --directory {ROOT}",
        "curl": f"{shutil.which('curl')} --silent --show-error --fail-with-body",
    }.items():
        script = commands / name
        script.write_text(f'#!/bin/sh\nexec {line} "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)


def run(
    folder: Path, url: str, *command: str, timeout_s: float = 110.0, extra: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """A command in such a folder; commands and examples that name no server find this one."""
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    env = environment(folder / "data", {"PATH": path, "DRAGOMAN_URL": url, **(extra or {})})
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=timeout_s, check=False)
