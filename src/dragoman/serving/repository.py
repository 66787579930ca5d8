"""Find models in the places that a user names: single artifacts, folders, and the layouts of TensorFlow Serving, Triton and MLServer.

Reads disks, never loads a model; blocking, so call it off the event loop. Called at start for the targets of the command line, and again
for each load request, so that what is served is what lies on disk then.
"""

import math
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dragoman.core.artifacts import SUFFIXES
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.lifecycle import version_order
from dragoman.core.model import EMPTY, BatchPolicy, ModelSpec
from dragoman.serving import layouts
from dragoman.serving.configured import complete, mlserver_model, triton_model
from dragoman.serving.library.library import Stored
from dragoman.serving.library.references import parse
from dragoman.serving.library.specs import read_record, restored
from dragoman.serving.mlserver import read_settings
from dragoman.serving.paths import confine, read_bounded
from dragoman.serving.python_models import FILE, RECORD, SUFFIX, is_project, spec_of, state_of
from dragoman.serving.registry import check_name
from dragoman.serving.settings import LARGEST_FILE

_NO_BATCH_POLICY = BatchPolicy()
_WITH_CLASS = re.compile(r"(.+\.py):([^\W\d]\w*)")


@dataclass(frozen=True, slots=True)
class Found:
    """One model as it lies on disk now: the specs of the versions that its policy serves, or why it cannot be read."""

    name: str
    versions: Mapping[str, ModelSpec] = EMPTY
    labels: Mapping[str, str] = EMPTY
    error: str = ""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for every model whose own files do not say otherwise. `name` is for a single target without one."""

    name: str = ""
    batch: BatchPolicy = _NO_BATCH_POLICY
    instances: int = 1
    engine: str = "local"
    arguments: Mapping[str, Any] = EMPTY
    """Passed to every runtime: threads, trust_pickle, device."""
    batch_size: int = 0
    """The operator's word, which Python models take over what they declare; 0 when there is none."""
    environments: str = "auto"
    """Which Python models get a virtualenv: see python_models."""
    run_timeout_s: float = math.inf
    load_timeout_s: float = math.inf
    repeatable: bool = False


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one model lies."""

    name: str
    path: Path
    named: bool = False
    """Whether the user gave the name."""
    text: str = ""
    """The target without its NAME=, as it was written."""
    data_only: bool = False
    """Whether its files came from elsewhere as data, so that none of them may be run as code."""
    stored: Stored | None = None
    model_class: str = ""
    """Which class of a Python file, where it has several."""


def nothing_stored(text: str) -> Stored:
    """The lookup of a server without a model store."""
    raise ServingError(Kind.NOT_FOUND, f"no model '{text}' is stored", what="model")


class Repository:
    """The targets of this run: each PATH or NAME=PATH, or a name in the model store where there is no such path.

    `stored` looks a name up and raises ServingError where there is none; it may block.
    """

    def __init__(self, targets: Sequence[str], defaults: Defaults, stored: Callable[[str], Stored] = nothing_stored) -> None:
        self._targets = list(targets)
        self._defaults = defaults
        self._lookup = stored
        self._uploads = _Uploads()

    def discover(self) -> list[Found]:
        """Read every target now. What cannot be read is a Found with its error; of two models of one name the second is an error."""
        found: list[Found] = []
        for target in self._targets:
            try:
                places = self._places(target)
            except ServingError as error:
                found.append(_broken(self._target(target).name, error.message))
                continue
            found += [self._read(place) for place in places]
        seen: set[str] = set()
        for index, each in enumerate(found):
            if each.name in seen:
                found[index] = _broken(each.name, f"two targets are called '{each.name}'; name one of them differently with NAME=PATH")
            seen.add(each.name)
        return found

    def names(self) -> list[str]:
        """Every model name that the targets have now, loaded or not."""
        names: dict[str, None] = {}
        for target in self._targets:
            try:
                names.update((_readable(p.name), None) for p in self._places(target))
            except ServingError:
                names[_readable(self._target(target).name)] = None
        return list(names)

    def find(self, name: str, config: str = "", files: Mapping[str, bytes] = EMPTY) -> Found | None:
        """Read one model from disk again; None when no target has it and no files bring it.

        `config` (JSON of a Triton model configuration) and `files` ("1/model.onnx" -> content) stand for what lies on disk, for this load.
        Raises INVALID_INPUT for a name that cannot be served and for files that cannot be written.
        """
        check_name(name)
        if files:
            return self._read(_Place(name, self._uploads.write(name, files), data_only=True), config)
        for target in self._targets:
            try:
                places = self._places(target)
            except ServingError as error:
                if self._target(target).name == name:
                    return _broken(name, error.message)
                continue
            for place in places:
                if place.name == name:
                    return self._read(place, config)
        return None

    def close(self) -> None:
        """Remove what load requests brought."""
        self._uploads.remove()

    # --- from target to places ---

    def _target(self, target: str) -> _Place:
        """The name and the path that a target means. Looks at the disk only to tell NAME=PATH from a path that has a "=" in it."""
        name, separator, rest = target.partition("=")
        if separator and name and "/" not in name and not _exists(Path(target)):
            return self._place(rest, name)
        return self._place(target)

    def _place(self, text: str, name: str = "") -> _Place:
        """What a target without its NAME= means: a path, a Python file and one of its classes (FILE.py:CLASS), or a name in the store."""
        found = _WITH_CLASS.fullmatch(text)
        if found is not None and not _exists(Path(text)):
            return replace(self._place(found[1], name), model_class=found[2])
        path = Path(text).expanduser().absolute()
        if name:
            return _Place(name, path, named=True, text=text)
        if len(self._targets) == 1 and self._defaults.name:
            return _Place(self._defaults.name, path, named=True, text=text)
        if path.name == FILE:
            return _Place(path.parent.name, path, text=text)
        return _Place(path.stem if path.suffix in SUFFIXES or path.suffix == SUFFIX else path.name, path, text=text)

    def _places(self, target: str) -> list[_Place]:
        """Where the models of a target lie. Raises INVALID_INPUT when there is none, or the disk does not let itself be read."""
        place = self._target(target)
        path = place.path
        try:
            if not path.exists():
                return [self._in_the_store(place)]
            if path.is_file() or layouts.is_model(path):
                return [place if place.named else replace(place, name=self._own_name(path))]
            models = list(layouts.models_below(path))
            if not models and layouts.is_plain(path):
                return [place]
            if not models:
                layouts.one_artifact(path)  # says what is wrong with the folder
            if not place.named:
                return [_Place(self._own_name(model), model) for model in models]
        except OSError as error:
            raise invalid(f"{path} cannot be read: {error.strerror or error}") from error
        if len(models) > 1:
            several = ", ".join(model.name for model in models[:5])
            raise invalid(f"the name '{place.name}' is for one model, but {path} holds several ({several}); leave the name out")
        return [_Place(place.name, models[0], named=True)]

    def _in_the_store(self, place: _Place) -> _Place:
        """A target that is no path. Raises INVALID_INPUT with both readings."""
        try:
            parse(place.text)
        except ServingError:
            raise invalid(f"there is no {place.path}") from None
        try:
            stored = self._lookup(place.text)
        except ServingError as error:
            raise invalid(f"there is no {place.path}, and {error.message}") from None
        return replace(place, name=place.name if place.named else stored.served_name, path=stored.folder, stored=stored)

    def _own_name(self, path: Path) -> str:
        """What a model calls itself: MLServer's settings name it, everything else goes by its folder or file."""
        if path.is_file():
            return path.parent.name if path.name == FILE else path.stem
        settings = path / layouts.MLSERVER_SETTINGS
        try:
            if settings.is_file() and not (path / layouts.TRITON_CONFIG).is_file():
                return read_settings(read_bounded(settings, LARGEST_FILE, str(settings)), path).name
        except (ServingError, OSError):
            pass  # reading the model says what is wrong
        return path.name

    # --- from place to specs ---

    def _read(self, place: _Place, config: str = "") -> Found:
        try:
            check_name(place.name)
            return self._layout(place, config) if place.stored is None else self._from_the_store(place, place.stored, config)
        except ServingError as error:
            return _broken(place.name, error.message)
        except OSError as error:
            return _broken(place.name, f"{place.path} cannot be read: {error.strerror or error}")

    def _layout(self, place: _Place, config: str) -> Found:
        path = place.path
        base = self._base(place.name)
        if config and not path.is_dir():
            raise invalid(f"model '{place.name}' is the single file {path.name}, which takes no model configuration")
        if path.is_dir() and (config or (path / layouts.TRITON_CONFIG).is_file()):
            return Found(place.name, triton_model(path, base, config))
        if (path / layouts.MLSERVER_SETTINGS).is_file():
            name, specs = mlserver_model(path, base)
            if place.named:  # the user's name wins over the file's
                name, specs = place.name, {v: replace(s, name=place.name) for v, s in specs.items()}
            return Found(name, specs)
        if is_project(path) or path.suffix == SUFFIX:
            return Found(place.name, {base.version: self._python(base, path, place)})
        if path.is_dir() and (folders := layouts.version_folders(path)):
            # TensorFlow Serving's default policy: the highest version only.
            version = max(folders, key=version_order)
            base, folder = replace(base, version=version), folders[version]
            spec = self._python(base, folder, place) if is_project(folder) else complete(base, layouts.one_artifact(folder))
            return Found(place.name, {version: spec})
        if path.is_dir() and layouts.is_plain(path):
            return Found(place.name, {base.version: self._python(base, path, place)})
        artifact = path if path.is_file() else layouts.one_artifact(path)
        return Found(place.name, {base.version: complete(base, artifact)})

    def _python(self, base: ModelSpec, path: Path, place: _Place) -> ModelSpec:
        if place.data_only:
            reason = "neither a load request nor an artifact from the store can bring that, as it could do anything here"
            raise invalid(f"model '{place.name}' is Python code; {reason}")
        size, environments = self._defaults.batch_size, self._defaults.environments
        if not (path / RECORD).is_file():
            return spec_of(base, path, batch_size=size, environments=environments, model_class=place.model_class)
        kind, content = read_record(path)
        spec = restored(kind, content, path, path.name, base, batch_size=size, environments=environments)
        assert spec is not None
        return spec.with_revision(state_of(path))

    def _from_the_store(self, place: _Place, stored: Stored, config: str) -> Found:
        """One version of a stored model, its tags as labels."""
        stored.check()
        version = stored.version
        base = replace(self._base(place.name), version=version.version, digest=version.digest)
        spec = restored(
            version.kind,
            version.spec,
            stored.folder,
            stored.name,
            base,
            batch_size=self._defaults.batch_size,
            environments=self._defaults.environments,
        )
        if spec is None:
            versions = self._layout(replace(place, stored=None, data_only=True), config).versions
            if len(versions) > 1:  # a model folder with several versions of its own
                return Found(place.name, {v: replace(s, digest=version.digest) for v, s in versions.items()})
            (spec,) = versions.values()
            spec = replace(spec, version=version.version, digest=version.digest)
        return Found(place.name, {version.version: spec.with_revision(version.digest)}, dict.fromkeys(stored.tags, version.version))

    def _base(self, name: str) -> ModelSpec:
        defaults = self._defaults
        return ModelSpec(
            name,
            batch=defaults.batch,
            engine=defaults.engine,
            instances=defaults.instances,
            arguments=dict(defaults.arguments),
            run_timeout_s=defaults.run_timeout_s,
            load_timeout_s=defaults.load_timeout_s,
            repeatable=defaults.repeatable,
        )


class _Uploads:
    """Model files that load requests brought, in a folder of this process that ends with it. Several threads may write at a time."""

    def __init__(self) -> None:
        self._root: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()

    def write(self, name: str, files: Mapping[str, bytes]) -> Path:
        """Write the files of one model below a fresh folder of its name. Raises INVALID_INPUT for a path that leaves it or cannot be."""
        with self._lock:
            if self._root is None:
                self._root = tempfile.TemporaryDirectory(prefix="dragoman-models-")
            fresh = Path(tempfile.mkdtemp(dir=self._root.name))
        what = f"the files of model '{name}'"
        try:
            folder = fresh / name
            folder.mkdir()
            for relative, content in files.items():
                what = f"the file '{relative}' of model '{name}'"
                path = confine(folder, relative, what)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        except OSError as error:
            shutil.rmtree(fresh, ignore_errors=True)
            raise invalid(f"{what} cannot be written: {error.strerror or error}") from error
        except ServingError:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        return folder

    def remove(self) -> None:
        with self._lock:
            if self._root is not None:
                self._root.cleanup()
                self._root = None


def _broken(name: str, error: str) -> Found:
    return Found(_readable(name), error=_readable(error))


def _readable(text: str) -> str:
    """Names on disk need not be UTF-8; what is shown to people and sent to clients must be."""
    return text.encode("utf-8", "backslashreplace").decode()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long, or in a folder that is closed to us: not something that could be told from a name
        return False
