"""Which packages a project's files import, as far as their lines tell: so that a job's log can say what is missing before the program does.

Nothing is run and nothing is parsed as a program, as the files are strangers' (a parser can be made to exhaust its stack), and may be Python 2.
Called by environments.py.
"""

import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_MOST_FILES = 200
_LARGEST = 1 << 20
_LONGEST_LINE = 1000

_IMPORT = re.compile(r"(?P<indent>[ \t]*)(?:import[ \t]+(?P<names>[\w., \t]+)|from[ \t]+(?P<origin>[A-Za-z_][\w.]*)[ \t]+import\b)")
_TRIAL = re.compile(r"(?P<indent>[ \t]*)(?:try|except\b.*)[ \t]*:[ \t]*(?:#.*)?\Z")
_OLD = re.compile(r"[ \t]*(?:print[ \t]+[\"'\w%]|except[ \t]+[\w.]+[ \t]*,[ \t]*\w+[ \t]*:|exec[ \t]+[\"'])")

PACKAGES = {
    "flask": "flask",
    "werkzeug": "flask",
    "numpy": "numpy",
    "scipy": "scipy",
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "pandas": "pandas",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "matplotlib": "matplotlib",
    "h5py": "h5py",
    "requests": "requests",
    "tqdm": "tqdm",
    "six": "six",
    "yaml": "pyyaml",
    "IPython": "ipython",
    "tflearn": "tflearn",
    "keras": "keras",
    "tensorflow": "tensorflow",
    "torch": "torch",
    "torchvision": "torchvision",
}
"""Module -> package, of what programs on FloydHub found in its images."""

_ELSEWHERE = {
    "bs4": "beautifulsoup4",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "flask_cors": "flask-cors",
    "flask_restful": "flask-restful",
    "google": "protobuf",
    "jwt": "pyjwt",
    "lmdb": "lmdb",
    "magic": "python-magic",
    "multipart": "python-multipart",
    "OpenSSL": "pyopenssl",
    "psycopg2": "psycopg2-binary",
    "pytz": "pytz",
    "redis": "redis",
    "serial": "pyserial",
    "socks": "pysocks",
    "zmq": "pyzmq",
}

_STANDARD = sys.stdlib_module_names | {"asyncore", "asynchat", "distutils", "imp", "smtpd", "urllib2", "urlparse", "StringIO", "cStringIO"}


@dataclass(frozen=True, slots=True)
class Imports:
    """What was seen. `modules`: names that are neither the project's own nor of a standard library, sorted."""

    modules: tuple[str, ...] = ()
    old: str = ""
    """A place that only Python 2 can read: "app.py, line 7"; "" where none was seen."""


def package_of(module: str) -> str:
    """What to install for a module: often it is called the same."""
    return PACKAGES.get(module) or _ELSEWHERE.get(module) or module.replace("_", "-")


def imports_of(home: Path, starts: Iterable[str]) -> Imports:
    """What these files of the folder and the project's own modules that they import need. Blocks; files that cannot be read are left out."""
    pending, seen, modules, old = list(starts), set[str](), set[str](), ""
    while pending and len(seen) < _MOST_FILES:
        name = pending.pop(0)
        if name in seen:
            continue
        seen.add(name)
        lines = [line for line in bytes_of(home / name).decode("utf-8-sig", "replace").splitlines() if len(line) <= _LONGEST_LINE]
        old = old or next((f"{name}, line {number}" for number, line in enumerate(lines, 1) if _OLD.match(line)), "")
        for module in _imported(lines):
            own = _own(home, module)
            pending += own
            if not own and module not in _STANDARD:
                modules.add(module)
    return Imports(tuple(sorted(modules)), old)


def bytes_of(path: Path, largest: int = _LARGEST) -> bytes:
    """A file of a job; b"" when it is missing, a link, no regular file or too large: a program that ran may have left anything there."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOFOLLOW)) as file:
            content = file.read(largest + 1) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
    except OSError:
        return b""
    return content if len(content) <= largest else b""


def _imported(lines: Iterable[str]) -> Iterator[str]:
    """First names of absolute imports. What is tried, and done without when it is missing, does not count."""
    trial = ""
    inside = False
    for line in lines:
        tried = _TRIAL.match(line)
        if tried:
            trial, inside = tried["indent"], True
            continue
        match = _IMPORT.match(line)
        if inside and line.strip() and len(line) - len(line.lstrip()) <= len(trial):
            inside = False
        if match is None or inside:
            continue
        for part in [match["origin"]] if match["origin"] else match["names"].split(","):
            if part.strip():
                yield part.split()[0].split(".")[0]


def _own(home: Path, module: str) -> list[str]:
    """The files of a module of the project; empty for others."""
    if (home / f"{module}.py").is_file():
        return [f"{module}.py"]
    folder = home / module
    if not folder.is_dir() or folder.is_symlink():
        return []
    return [f"{module}/{name}" for name in sorted(os.listdir(folder))[:_MOST_FILES] if name.endswith(".py")] or [f"{module}/"]
