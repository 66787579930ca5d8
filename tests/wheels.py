"""Wheels that exist for one test: what an installer installs without a network. A wheel is a zip file with a list of what is in it."""

import base64
import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy


def write(
    folder: Path,
    name: str,
    version: str = "1.0",
    source: str = "",
    requires: Sequence[str] = (),
    more: Mapping[str, str] | None = None,
    module: str = "",
) -> Path:
    """A pure Python package: one module, called like the package or `module`, whose text is `source`, and `more` files.

    Of these, `entry_points.txt` is put where it belongs.

    Equal arguments give equal bytes.
    """
    plain = name.replace("-", "_")
    information = f"{plain}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + "".join(f"Requires-Dist: {r}\n" for r in requires)
    files = {
        f"{module or plain}.py": source or f"VERSION = {version!r}\n",
        f"{information}/METADATA": metadata,
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    for path, text in (more or {}).items():
        files[f"{information}/{path}" if path == "entry_points.txt" else path] = text
    files[f"{information}/RECORD"] = (
        "".join(f"{path},{_digest(text)},{len(text)}\n" for path, text in files.items()) + f"{information}/RECORD,,\n"
    )
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{plain}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return wheel


def borrow_numpy(folder: Path) -> Path:
    """The numpy of this process as a wheel, so that real code runs in an environment that was made without a network."""
    borrowed = folder / "borrowed"
    borrowed.mkdir(parents=True)
    for part in Path(numpy.__file__).parents[1].glob("numpy*"):
        (borrowed / part.name).symlink_to(part)
    return write(folder, "numpy", numpy.__version__, more={"borrowed_numpy.pth": f"{borrowed}\n"}, module="borrowed_numpy")


def settings(folder: Path, cache: Path) -> Mapping[str, str]:
    """The variables that make pip and uv install from this folder and from nowhere else."""
    return {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_NO_CACHE_DIR": "1",
        "UV_NO_CONFIG": "1",
        "UV_OFFLINE": "1",
        "UV_FIND_LINKS": str(folder),
        "UV_CACHE_DIR": str(cache),
    }


def sha256(wheel: Path) -> str:
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def _digest(text: str) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
