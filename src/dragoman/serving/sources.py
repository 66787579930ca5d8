"""From a source to what the registry keeps of it: which model lies there, of which type, its files and their digest.

Nothing is loaded and no code is run; what a model holds is looked at before any of its files is opened. Blocking. Called by catalog.py.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dragoman.core.artifacts import is_saved_model
from dragoman.core.errors import ServingError, invalid
from dragoman.core.lifecycle import version_order
from dragoman.core.model import EMPTY, ModelSpec
from dragoman.serving import layouts, mlflow_models
from dragoman.serving.library.packing import ONLY, File, digest_of, hashed, listed, manifest
from dragoman.serving.library.specs import PYTHON, kept, read_record
from dragoman.serving.paths import read_bounded
from dragoman.serving.python_models import RECORD, RUNTIME
from dragoman.serving.reading import Defaults, Place, Reader
from dragoman.serving.roots import Roots
from dragoman.serving.settings import LARGEST_FILE, quoted
from dragoman.serving.words import storable

DESCRIPTION = "description.json"
"""What Submarine writes beside a model that it saves."""
_SAVED_MODEL = "tensorflow"
_TYPES: Mapping[str, str] = {"pytorch": "TorchScript (model.pt)", _SAVED_MODEL: "a SavedModel (saved_model.pb)"}
"""Submarine's model types, and what their folders hold."""
_DEPTH = 2
"""How far below a source description.json may lie: `{name}/{version}/description.json`."""
_EXPECTED = "expected a model: MLmodel, description.json, or a file or folder that `dragoman serve` takes"


@dataclass(frozen=True, slots=True)
class Model:
    """A model where it lies, `place` a file or a folder with its links resolved."""

    place: Path
    kind: str
    """The native flavor of an MLflow model, the model type that Submarine wrote, else the runtime or layout."""
    spec: Mapping[str, Any] = EMPTY
    """What a build would record of it, so that it can be pushed and extracted like one that was built."""
    files: tuple[File, ...] = ()
    facts: Mapping[str, str] = EMPTY
    """What its own files say and the registry shows: model_type, and the id, run_id and model_id where they have one."""

    @property
    def folder(self) -> Path:
        return self.place if self.place.is_dir() else self.place.parent

    @property
    def digest(self) -> str:
        return digest_of(self.kind, dict(self.spec), self.files)

    @property
    def manifest(self) -> dict[str, Any]:
        return manifest(self.files) | ({ONLY: self.place.name} if self.place != self.folder else {})


def examine(path: Path, source: str, roots: Roots) -> Model:
    """The model at a resolved path inside of a root. `source` is what the client wrote, for messages.

    Raises INVALID_INPUT (what="source") when no model lies there, it holds more than files and folders, or it leads out of its root.
    """
    try:
        place = path.parent if path.is_file() and path.name in (mlflow_models.FILE, DESCRIPTION) else path
        files = _listed(place, roots)
        found = _recognised(place, files)
        if found.place != place:
            files = _listed(found.place, roots)
        return replace(found, files=hashed(files), facts={"model_type": found.kind, **found.facts})
    except ServingError as error:
        message = error.message.replace(str(path), quoted(source))
        raise ServingError(error.kind, f"the source {quoted(source)} cannot be registered: {message}", what="source") from error
    except OSError as error:
        raise invalid(f"the source {quoted(source)} cannot be read: {error.strerror or 'it has changed meanwhile'}", "source") from error


def described(folder: Path) -> tuple[str, dict[str, Any]]:
    """The model type and the content of a folder's description.json. Raises INVALID_INPUT for what Submarine would not have written."""
    try:
        content = json.loads(read_bounded(folder / DESCRIPTION, LARGEST_FILE, DESCRIPTION))
    except (ValueError, RecursionError) as error:
        raise invalid(f"{DESCRIPTION} is not JSON") from error
    kind = content.get("model_type") if isinstance(content, dict) else None
    if not isinstance(kind, str) or kind not in _TYPES:
        raise invalid(f"{DESCRIPTION} has the model_type {quoted(str(kind))}, expected {' or '.join(_TYPES)}")
    return kind, content


def _listed(place: Path, roots: Roots) -> dict[str, Path]:
    return listed(place, lambda real: roots.same(real, place))


def _recognised(place: Path, files: Mapping[str, Path]) -> Model:
    """Which model is at a place or in a folder of it, without its files."""
    if not storable(str(place)):  # a source is text, but a link may lead anywhere
        raise invalid("its folder has a name that is no text")
    if mlflow_models.FILE in files and place.is_dir():
        model = mlflow_models.describe(place)
        return Model(place, model.flavor, facts=_said(run_id=model.run_id, model_id=model.model_id))
    descriptions = [path for path in files if path.rpartition("/")[2] == DESCRIPTION and path.count("/") <= _DEPTH]
    if descriptions and place.is_dir():
        if len(descriptions) > 1:
            raise invalid(f"it holds several models ({', '.join(sorted(descriptions)[:5])}); name the folder of one")
        folder = (place / descriptions[0]).parent
        kind, content = described(folder)
        _check_described(folder, kind)
        identity = content.get("id")
        return Model(folder, kind, facts=_said(id=identity if isinstance(identity, str) else ""))
    return _of_our_own(place)


def _check_described(folder: Path, kind: str) -> None:
    """Raise INVALID_INPUT when the files of a Submarine model are not there, in its folder or in that of its highest version."""
    wrong = invalid(f"{DESCRIPTION} says {kind}, but there is not {_TYPES[kind]} beside it")
    try:
        versions = layouts.version_folders(folder)
        artifact = layouts.one_artifact(versions[max(versions, key=version_order)] if versions else folder)
    except ServingError as error:
        raise wrong from error
    if is_saved_model(artifact) != (kind == _SAVED_MODEL):
        raise wrong


def _of_our_own(place: Path) -> Model:
    """Whatever `dragoman serve` takes."""
    found = Reader(Defaults()).read(Place("source", place, named=True))
    if found.error:
        raise invalid(f"{found.error}; {_EXPECTED}")
    spec = found.versions[max(found.versions, key=version_order)]
    if spec.runtime == RUNTIME:
        return _python(place, spec)
    if place.is_dir() and (place / layouts.TRITON_CONFIG).is_file():
        return Model(place, "triton", {"leaf": place.name}, facts=_said(model_type=spec.runtime))
    if spec.runtime == "savedmodel":
        return Model(place, _SAVED_MODEL)
    return Model(place, spec.runtime)


def _python(place: Path, spec: ModelSpec) -> Model:
    artifact = Path(spec.artifact)
    if (place / RECORD).is_file():
        return Model(place, *read_record(place))
    inside = artifact.relative_to(place if place.is_dir() else place.parent).as_posix()
    return Model(place, PYTHON, kept(inside if inside != "." else "", spec.arguments["module"], spec.arguments["class"], {}))


def _said(**facts: str) -> dict[str, str]:
    return {name: value for name, value in facts.items() if value}
