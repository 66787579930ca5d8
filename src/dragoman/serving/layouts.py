"""What a folder is: one artifact, a model with numeric versions, a Triton, MLServer or MLflow model, or a repository of any of these.

Pure questions about a directory, asked by repository.py and configured.py.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from dragoman.core.artifacts import detect, is_saved_model
from dragoman.core.errors import ServingError, invalid
from dragoman.serving.mlflow_models import is_mlflow
from dragoman.serving.paths import confine
from dragoman.serving.python_models import PLAIN, SUFFIX, is_project

TRITON_CONFIG = "config.pbtxt"
MLSERVER_SETTINGS = "model-settings.json"
SAVED_MODEL_SUFFIX = ".savedmodel"
_MAX_DEPTH = 4
"""How far below a repository's root models are looked for."""
_MAX_FILES = 10_000
_INT64_MAX = (1 << 63) - 1


def is_model(path: Path) -> bool:
    """Whether a folder is one model rather than a folder of models."""
    return (
        (path / TRITON_CONFIG).is_file()
        or (path / MLSERVER_SETTINGS).is_file()
        or is_mlflow(path)
        or is_project(path)
        or is_saved_model(path)
        or bool(version_folders(path))
        or len(artifacts(path)) == 1
    )


def is_plain(folder: Path) -> bool:
    """Whether a folder that is no model by `is_model` is a plain Python model all the same, when somebody names it: it has a model.py.

    One that belongs to Triton, or to versions of which others are artifacts, is not ours to run.
    """
    if not (folder / f"{PLAIN}{SUFFIX}").is_file() or is_model(folder) or artifacts(folder):
        return False
    if (folder.parent / TRITON_CONFIG).is_file():
        return False
    versions = version_folders(folder.parent)
    return folder not in versions.values() or not any(artifacts(each) for each in versions.values())


def models_below(root: Path, depth: int = _MAX_DEPTH) -> Iterator[Path]:
    """Every model folder below a root, in alphabetical order; folders inside a model are its own business.

    A folder that cannot be read counts as a model: reading it says what is wrong, and its neighbours are served.
    """
    for child in sorted(visible(root)):
        if not child.is_dir():
            continue
        try:
            found = is_model(child)
        except (ServingError, OSError):
            found = True
        if found:
            yield child
        elif depth > 1:
            yield from models_below(child, depth - 1)


def visible(folder: Path) -> list[Path]:
    """The entries of a folder that are not hidden. Raises INVALID_INPUT when it cannot be read."""
    try:
        return [p for p in folder.iterdir() if not p.name.startswith((".", "__"))]
    except OSError as error:
        raise invalid(f"the folder {folder} cannot be read: {error.strerror}") from error


def version_folders(folder: Path, *, leading_zeros: bool = True) -> dict[str, Path]:
    """Version -> folder. TensorFlow Serving reads 00000123 as 123; Triton ignores such names. Anything that is not a number is ignored."""
    found: dict[str, Path] = {}
    for child in sorted(visible(folder)) if folder.is_dir() else []:
        name = child.name
        if not (name.isascii() and name.isdigit() and child.is_dir()) or int(name) > _INT64_MAX:
            continue
        if name.startswith("0") and not leading_zeros:
            continue
        found.setdefault(str(int(name)), child)
    return found


def artifacts(folder: Path) -> list[Path]:
    """What lies in a folder that some runtime can load: files, and SavedModels under the name that Triton asks of them."""
    found = sorted(visible(folder)) if folder.is_dir() else []
    return [p for p in found if (p.is_file() or p.suffix == SAVED_MODEL_SUFFIX) and detect(p)]


def one_artifact(folder: Path, wanted: str = "") -> Path:
    """The artifact of a model or version folder: what its configuration names, else the SavedModel that it is, else model.*, else the only one
    there is."""
    if wanted:
        path = confine(folder, wanted, f"the model in {folder}")
        if not path.exists():
            raise invalid(f"there is no {wanted} in {folder}")
        return path if path.is_file() else one_artifact(path)
    if is_saved_model(folder):
        return folder
    found = artifacts(folder)
    if len(found) > 1:
        found = [p for p in found if p.name.split(".")[0] == "model"] or found
    if len(found) > 1:
        raise invalid(f"{folder} holds several models ({', '.join(p.name for p in found)}); name the file")
    if found:
        return found[0]
    names = ", ".join(p.name for p in sorted(visible(folder))[:5]) or "nothing"
    raise invalid(f"no runtime knows what lies in {folder}: it holds {names}")


def state_of(path: Path) -> str:
    """Names, sizes, times and inodes of everything under an artifact: when this text changes, the artifact has.

    Inodes, because builds that set all times to one (layers of images, caches) make files of one size that differ in nothing else.
    """
    if path.is_file():
        stat = path.stat()
        return f"{path}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ino}"
    lines = []
    for base, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            stat = os.stat(os.path.join(base, name))
            lines.append(f"{base}/{name}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ino}")
            if len(lines) > _MAX_FILES:
                raise invalid(f"{path} holds more than {_MAX_FILES} files; is it a model?")
    return "\n".join(lines)
