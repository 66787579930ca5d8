"""What the first process of a job is told, and what its program finds around it: the same with and without namespaces, under other paths."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

from dragoman.core.jobs import PORT, Start
from dragoman.engines.jobs.processes import JOB
from dragoman.hosting.jobs import Limits, Orders

SEARCHED = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
PROGRAMS = ("python", "python3")
"""What a job's interpreter is called, whatever its own name is."""
_TAKEN = frozenset(
    ("usr", "bin", "sbin", "etc", "dev", "proc", "sys", "run", "tmp", "var", "floyd", "output", "opt", "root", "home", "nix")
)
_ENTRIES = 500


@dataclass(frozen=True, slots=True)
class View:
    """Where the program finds what is its own."""

    home: str
    tmp: str
    programs: str
    """A folder with links of these names to its interpreter."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """What the shim maps: path that the program uses -> the real one."""
    port: int = PORT
    """0: the shim chooses one."""


def places(name: str) -> tuple[str, ...]:
    """Where a data set of this name is found. At the top only if it hides nothing of the system."""
    below = f"/floyd/input/{name}"
    return (below,) if name in _TAKEN or name.startswith("lib") else (f"/{name}", below)


def mounted(start: Start) -> list[tuple[Path, str]]:
    """What of the job's data is found where.

    What the program runs with may lie below a folder of the same name: a server that keeps its things in /data, and data mounted as `data`.
    Then what is in the data is mounted one by one, beside that: but no links, which would be followed out here, and nothing of a job's folder,
    which its program may exchange for links at any moment. Raises OSError when data is gone.
    """
    found = []
    for name, path in start.mounts.items():
        for at in places(name):
            below = [each.relative_to(at).parts[0] for each in (*start.readable, start.python, start.folder) if Path(at) in each.parents]
            if below:
                with os.scandir(path) as entries:
                    fixed = () if path.parent.parent == start.folder.parent else islice(entries, _ENTRIES)
                    found += [(Path(e.path), f"{at}/{e.name}") for e in fixed if e.name not in below and not e.is_symlink()]
            else:
                found.append((path, at))
    return found


def environment(start: Start, view: View) -> dict[str, str]:
    """All variables of the program, but for those that its first process adds."""
    folder = start.python.parent
    found = [str(folder)] if _same(folder / "python", start.python) else [view.programs]
    virtual = {"VIRTUAL_ENV": str(folder.parent)} if (folder.parent / "pyvenv.cfg").is_file() else {}
    return {
        "FLOYDHUB": "1",
        "PATH": os.pathsep.join([*found, *SEARCHED]),
        "HOME": view.home,
        "USER": "floyd",
        "LOGNAME": "floyd",
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "TMPDIR": view.tmp,
        **virtual,
        **start.environ,
        JOB: start.job,
    }


def orders(start: Start, view: View, isolation: str, *, gate: int, log: int, end: int) -> bytes:
    """The orders, as hosting/jobs reads them. The last three are descriptors, by their numbers inside."""
    limits = Limits(**asdict(start.limits))
    told = Orders(
        mode=start.mode.value,
        argv=start.argv,
        python=str(start.python),
        cwd=view.home,
        environ=environment(start, view),
        gate=gate,
        log=log,
        end=end,
        limits=limits,
        ran_s=start.ran_s,
        port=view.port,
        paths=view.paths,
        isolation=isolation,
    )
    return json.dumps(asdict(told)).encode()


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
