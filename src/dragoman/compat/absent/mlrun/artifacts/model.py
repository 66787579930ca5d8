"""`get_model`: from a model_path to the file of the model on this machine, what `model_spec.yaml` says of it, and its extra data.

Called by V2ModelServer.get_model, thus by the `load` of model files. Blocking; raises ValueError, OSError.
"""

import tempfile
from pathlib import Path
from typing import Any

from ..datastore import DataItem, is_url
from ..features import Feature, Features

SPEC = "model_spec.yaml"
_USUAL = ".pkl"
_SUFFIXES = (".pkl", ".joblib", ".json", ".onnx", ".pt", ".pth", ".h5", ".keras", ".bin", ".bst", ".cbm", ".txt", ".zip")
"""Of paths that are taken for files where no suffix is asked for."""


class ModelArtifact:
    """What is known of a logged model. `inputs` and `outputs` are its features in order."""

    kind = "model"

    def __init__(self, document: dict[str, Any] | None = None) -> None:
        document = document or {}
        spec = document.get("spec") if isinstance(document.get("spec"), dict) else document
        meta = document.get("metadata") if isinstance(document.get("metadata"), dict) else document
        assert isinstance(spec, dict) and isinstance(meta, dict)  # noqa: PT018 # for the type checker: both are what was looked at
        self.key: str = meta.get("key") or meta.get("name") or ""
        self.project: str = meta.get("project") or ""
        self.tag: str = meta.get("tag") or ""
        self.labels: dict[str, Any] = meta.get("labels") or {}
        self.model_file: str = spec.get("model_file") or ""
        self.parameters: dict[str, Any] = spec.get("parameters") or {}
        self.metrics: dict[str, Any] = spec.get("metrics") or {}
        self.inputs = Features(Feature.from_dict(each) for each in spec.get("inputs") or [])
        self.outputs = Features(Feature.from_dict(each) for each in spec.get("outputs") or [])
        self.framework: str = spec.get("framework") or ""
        self.algorithm: str = spec.get("algorithm") or ""
        self.extra_data: dict[str, Any] = spec.get("extra_data") or {}


def get_model(model_dir: Any = None, suffix: str = "") -> tuple[str, ModelArtifact | None, dict[str, DataItem]]:
    """(file on this machine, what its spec says or None, extra data by name).

    `model_dir` is a folder, the model file itself, a spec (`.yaml`), or a URL of one of the latter two. In a folder without a spec the first
    file with the suffix is the model, and every file is extra data; it is the model, too, where the spec in the folder names none. Raises
    ValueError when there is no model file.
    """
    place = str(getattr(model_dir, "artifact_url", model_dir) or "").removeprefix("file://")
    if not place:
        raise ValueError("there is no model_path: give one among the class arguments of the model")
    if place.startswith("store://"):
        raise ValueError(f"the model_path '{place}' is in an MLRun database, which this server does not have: name its folder or file")
    if place.lower().endswith(".yaml"):
        return _described(DataItem(place), place.rpartition("/")[0] or ".")
    if place.endswith(suffix) if suffix else (place.lower().endswith(_SUFFIXES) or Path(place).is_file()):
        return _local(place), None, {}
    if is_url(place):
        raise ValueError(f"the model_path '{place}' is a folder elsewhere: name the model file in it or its {SPEC}")
    folder = Path(place)
    if not folder.is_dir():
        raise ValueError(f"the model_path '{place}' is neither a folder nor a file that ends in '{suffix or _USUAL}'")
    names = sorted(each.name for each in folder.iterdir())
    found = next((name for name in names if name.endswith(suffix or _USUAL)), None)
    if (folder / SPEC).is_file():
        return _described(DataItem(str(folder / SPEC)), place, found or "")
    if found is None:
        raise ValueError(f"the folder '{place}' of the model_path has neither {SPEC} nor a file that ends in '{suffix or _USUAL}'")
    return str(folder / found), None, {name: DataItem(str(folder / name)) for name in names}


def _described(item: DataItem, folder: str, usual: str = "") -> tuple[str, ModelArtifact, dict[str, DataItem]]:
    """`usual` is the model where the spec names none."""
    spec = ModelArtifact(_yaml(item))
    spec.model_file = spec.model_file or usual
    if not spec.model_file:
        raise ValueError(f"{item.url} names no model_file")
    extra = {name: DataItem(_joined(folder, path)) for name, path in spec.extra_data.items() if isinstance(path, str)}
    return _local(_joined(folder, spec.model_file)), spec, extra


def _yaml(item: DataItem) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise RuntimeError(f"reading {SPEC} takes the package pyyaml, which this environment does not have") from error
    try:
        document = yaml.safe_load(item.get())
    except yaml.YAMLError as error:
        raise ValueError(f"{item.url} is no YAML: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{item.url} is no object")  # noqa: TRY004 # a fault of the file, not of the caller
    return document


def _joined(folder: str, path: str) -> str:
    return path if is_url(path) or path.startswith("/") else f"{folder.rstrip('/')}/{path}"


def _local(place: str) -> str:
    """The file itself (a folder, for formats that have one), or a copy of one that lies elsewhere, which stays for the life of the process."""
    if is_url(place):
        name = place.rpartition("/")[2].partition("?")[0]
        target = Path(tempfile.mkdtemp(prefix="dragoman-model-"), name or "model")
        DataItem(place).download(str(target))
        return str(target)
    if not Path(place).exists():
        raise ValueError(f"there is no model file '{place}'")
    return place
