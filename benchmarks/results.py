"""Tables and targets as Markdown, in the terminal and in RESULTS.md, where each section replaces only its own part."""

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from dragoman import __version__

_TITLE = """\
# Results

Written by `python -m benchmarks`; what each number means is in [README.md](README.md). Ratios were measured within one run, in turns, and
are the ones to believe; absolute figures belong to the machine.
"""


@dataclass(frozen=True, slots=True)
class Table:
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Target:
    """What we want, what was measured, and whether that is enough; `met` is None when it could not be measured."""

    text: str
    measured: str
    met: bool | None


@dataclass(slots=True)
class Section:
    name: str
    title: str
    parts: list[Table | str] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)


def markdown(section: Section) -> str:
    """The section with its heading, without what was measured where."""
    parts = [_table(part) if isinstance(part, Table) else part for part in section.parts]
    if section.targets:
        words = {True: "met", False: "**short**", None: "-"}
        rows = [(target.text, target.measured, words[target.met]) for target in section.targets]
        parts.append(_table(Table(("target", "measured", ""), rows)))
    return f"## {section.title}\n\n" + "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    lines = [table.head, ["---"] * len(table.head), *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def circumstances(command: str, load: float) -> str:
    """When, where, with what, how. `load` is the machine's load average before the run: near 0 on a machine that did nothing else."""
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    cores = len(os.sched_getaffinity(0))
    machine = f"{cores} cores ({_processor()}), {platform.system()} {platform.release().split('-')[0]}, load before {load:.2f}"
    packages = [
        f"Dragoman {__version__}",
        *(f"{name} {version(name)}" for name in ("onnxruntime", "numpy", "uvloop", "httptools", "uvicorn")),
    ]
    return f"{when}; {machine}; Python {platform.python_version()}; {', '.join(packages)}; `{command}`"


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def write(path: Path, name: str, text: str) -> None:
    """Put the text of one section into the file, in place of what it held for that section, else at the end."""
    content = path.read_text("utf-8") if path.exists() else _TITLE
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    part = f"{begin}\n{text.strip()}\n{end}"
    before, found, rest = content.partition(begin)
    after = rest.partition(end)[2] if found else "\n"
    path.write_text((before if found else f"{content.rstrip()}\n\n") + part + after, "utf-8")
