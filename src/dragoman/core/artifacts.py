"""Which runtime a file is for, by suffix and, where a suffix says too little, by its first bytes. Nothing heavy is imported.

Called by the repository, to find models in folders, and by runtimes, to find their file in a version's folder.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from dragoman.core.errors import Kind, ServingError, invalid

SUFFIXES: Mapping[str, str] = {
    ".onnx": "onnx",
    ".ort": "onnx",
    ".tflite": "litert",
    ".skops": "sklearn",
    ".joblib": "sklearn",
    ".pkl": "sklearn",
    ".pickle": "sklearn",
    ".ubj": "xgboost",
    ".json": "xgboost",
    ".bst": "xgboost",
    ".model": "xgboost",
    ".txt": "lightgbm",
    ".pt2": "torch",
    ".pt": "torch",
    ".pth": "torch",
}
"""Suffix -> runtime. Use `detect`: files of some of these suffixes are usually something else."""

SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")
"""One of these makes a folder a TensorFlow SavedModel: an artifact that is a folder, for the runtime "savedmodel"."""

CONVENTIONAL: Mapping[str, tuple[str, ...]] = {
    "onnx": ("model.onnx",),
    "sklearn": ("model.skops", "model.joblib", "model.pkl", "model.pickle"),
    "xgboost": ("model.ubj", "model.json", "xgboost.json", "model.bst"),
    "lightgbm": ("model.txt", "model.bst"),
    "torch": ("model.pt2", "model.pt"),
    "litert": ("model.tflite",),
}
"""Runtime -> the file names that model repositories of other servers use, the preferred one first."""

TRUST = (
    "if you trust its author, start the server with --trust-pickle or put it below a folder of --trusted-root; otherwise ask for a format that"
    " holds no code: skops, ONNX, safetensors or UBJSON"
)
"""The ways out of a refusal of pickles and code, for messages."""

SIGNATURES_KEY = "onnx_signatures"
"""The first key of the file that describes a folder of ONNX graphs, one per signature (runtimes/onnx_signatures.py)."""

_AMBIGUOUS = frozenset({".json", ".bst", ".model", ".txt"})
_HEAD = 4096
_LFS = b"version https://git-lfs"
_SIGNATURES = re.compile(rb'\s*\{\s*"%b"\s*:' % SIGNATURES_KEY.encode())
# JSON, or UBJSON where a key is a length (type and big-endian number) and its characters
_XGBOOST = re.compile(rb'\s*\{\s*("version"\s*:\s*\[[\d\s,]*\]\s*,\s*)?"learner"\s*:|\{[iUIlL][\x00-\x07]{1,8}learner\{')


def detect(path: Path) -> str | None:
    """The name of the runtime for a file or SavedModel, or None. Reads at most a few kilobytes; raises OSError when that fails."""
    if is_saved_model(path):
        return "savedmodel"
    suffix = path.suffix.lower()
    runtime = SUFFIXES.get(suffix)
    if runtime is None or not path.is_file():
        return None
    if suffix in _AMBIGUOUS:
        head = read_head(path)
        if looks_like_xgboost(head):
            return "xgboost"
        if _SIGNATURES.match(head) is not None:
            return "onnx"
        return "lightgbm" if looks_like_lightgbm(head) else None
    return runtime


def is_saved_model(path: Path) -> bool:
    """Whether a folder is a TensorFlow SavedModel."""
    return any((path / name).is_file() for name in SAVED_MODEL)


def looks_like_xgboost(head: bytes) -> bool:
    """Whether a file's first bytes are those of an XGBoost model, JSON or UBJSON."""
    return _XGBOOST.match(head) is not None


def looks_like_lightgbm(head: bytes) -> bool:
    """Whether a file's first bytes are those of a LightGBM text model."""
    return head.startswith((b"tree\n", b"tree\r\n"))


def read_head(path: Path, size: int = _HEAD) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def found_in(folder: Path) -> list[tuple[Path, str]]:
    """The files directly inside a folder that some runtime is for, with its name, in order of names. Hidden files are left out."""
    found = []
    for path in sorted(folder.iterdir()):
        if not path.name.startswith("."):
            runtime = detect(path)
            if runtime is not None:
                found.append((path, runtime))
    return found


def locate(artifact: str, runtime: str, model: str) -> Path:
    """The one file that `runtime` is to load: the artifact itself, or the conventional or only candidate of the folder that it names.

    Raises ServingError, naming the model and the file but not where it lies, when there is none, several, or one that is no model at all.
    """
    path = Path(artifact)
    try:
        if path.is_dir():
            path = _inside(path, runtime, model)
        elif not path.exists():
            raise ServingError(Kind.NOT_FOUND, f"the file '{path.name}' of model '{model}' does not exist", what="model")
        elif not path.is_file():
            raise invalid(f"'{path.name}' of model '{model}' is neither a file nor a folder", what="model")
        head = read_head(path, 64)
    except OSError as error:
        raise invalid(f"the file '{path.name}' of model '{model}' cannot be read: {error.strerror or error}", what="model") from error
    if not head:
        raise invalid(f"the file '{path.name}' of model '{model}' is empty", what="model")
    if head.startswith(_LFS):
        raise invalid(
            f"the file '{path.name}' of model '{model}' is a Git LFS pointer: fetch the model itself with 'git lfs pull'", what="model"
        )
    return path


def _inside(folder: Path, runtime: str, model: str) -> Path:
    for name in CONVENTIONAL.get(runtime, ()):
        if (folder / name).is_file():
            return folder / name
    candidates = [path for path, name in found_in(folder) if name == runtime]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = ", ".join(f"'{path.name}'" for path in candidates[:10])
        raise invalid(f"the folder of model '{model}' holds several files for the runtime '{runtime}', expected one: {names}", what="model")
    expected = " or ".join(f"'{name}'" for name in CONVENTIONAL.get(runtime, ())) or "a file"
    raise ServingError(
        Kind.NOT_FOUND, f"the folder of model '{model}' holds no file for the runtime '{runtime}', such as {expected}", what="model"
    )
