"""A stand-in for uv that installs nothing at once: a shell script that writes down how it was called and waits or fails on command."""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

_SCRIPT = """\
#!/bin/sh
cd {control} || exit 9
echo "$*" >> calls
env > environment
if [ "$1" = python ]; then
  cat python 2> /dev/null
elif [ "$1" = venv ]; then
  mkdir -p "$5/bin" && ln -s "$4" "$5/bin/python" && echo "Creating virtual environment"
else
  shift 5
  for list in "$@"; do case $list in *.list) cp "$list" . ;; esac; done
  if [ -e hold ]; then
    echo $$ > builder.new && mv builder.new builder
    while [ ! -e go ]; do sleep 0.02; done
  fi
  if [ -e output ]; then cat output; fi
  if [ -e error ]; then cat error >&2; exit 1; fi
fi
"""


class FakeUv:
    """`path` is what Environments takes. Files of the folder steer it: `hold` waits for `go`, `error` is printed and fails, `output` is printed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.path = str(folder / "uv")
        script = folder / "uv"
        script.write_text(_SCRIPT.format(control=folder))
        script.chmod(0o755)

    def set(self, name: str, text: str = "") -> None:
        (self.folder / name).write_text(text)

    def unset(self, name: str) -> None:
        (self.folder / name).unlink()

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    @property
    def calls(self) -> list[str]:
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def builds(self) -> int:
        """How many virtualenvs it made."""
        return sum(call.startswith("venv ") for call in self.calls)

    @property
    def builder(self) -> int:
        """The process that waits, 0 without one."""
        file = self.folder / "builder"
        return int(file.read_text()) if file.exists() else 0


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie (one that nobody has waited for)."""
    if sys.platform != "linux":
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.01)
