"""Find models in the places that a user names: single artifacts, folders, and the layouts of TensorFlow Serving, Triton and MLServer.

Reads disks, never loads a model; blocking, so call it off the event loop. Called at start for the targets of the command line, again and
again by polling.py, and for each load request, so that what is served is what lies on disk then.
"""

import logging
import shutil
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dragoman.core.errors import ServingError, invalid
from dragoman.core.model import ModelSpec
from dragoman.serving import class_arguments
from dragoman.serving.artifacts import is_remote
from dragoman.serving.model_config import ConfiguredModel
from dragoman.serving.paths import confine
from dragoman.serving.reading import Defaults, Found, Lack, Place, Reader, broken, lack_of, readable
from dragoman.serving.roots import Roots
from dragoman.serving.routers.configured import Routers
from dragoman.serving.targets import Elsewhere, Targets
from dragoman.serving.words import check_name

log = logging.getLogger("dragoman.models")

NOWHERE_ELSE = Elsewhere()


class Repository:
    """The targets of this run: each PATH, URI or NAME=PATH, or a name in the model store where there is no such path.

    `shared` is a folder of all workers of this server, where load requests leave their files; without one this process makes its own.
    `configured` are the models of a model configuration file, `routers` those that are made of others.
    """

    def __init__(
        self,
        targets: Sequence[str],
        defaults: Defaults,
        elsewhere: Elsewhere = NOWHERE_ELSE,
        roots: Roots | None = None,
        *,
        shared: Path | None = None,
        configured: Iterable[ConfiguredModel] = (),
        routers: Sequence[str] = (),
    ) -> None:
        trusting = bool(defaults.arguments.get("trust_pickle"))
        self._targets = Targets(targets, defaults.name, elsewhere, trusting=trusting)
        self.reader = Reader(defaults, roots, elsewhere.fetch)
        self._uploads = _Uploads(shared)
        self._listed = {model.name: model for model in configured}
        self._routers = Routers(routers, defaults.class_args)
        self._replaced: Mapping[str, ConfiguredModel] = {}
        self._unseen = {"class arguments are": defaults.class_args, "an explainer is": defaults.explainers}
        """What is given by model, of which the log has not said yet whether it is for anything."""
        self._kept: dict[str, list[Found]] = {}
        """What was found by targets that lie elsewhere, which are asked for once."""

    def replace(self, models: Mapping[str, ConfiguredModel]) -> None:
        """From now on these take the place of whatever else has their names."""
        self._replaced = models

    def discover(self) -> list[Found]:
        """Read every target now. What cannot be read is a Found with its error; of two models of one name the second is an error."""
        listed = self._configured()
        found = [found for target in self._targets.texts for found in self._targeted(target) if found.name not in self._replaced]
        found += [self.look(model) for model in listed.values()]
        found += [router for router in self._routers.found() if router.name not in self._replaced]
        models = _together(found)
        unseen, self._unseen = self._unseen, {}
        for what, given in unseen.items():
            for key in class_arguments.strays(given, {each.name: each.versions for each in models}):
                log.warning("%s given for '%s', which is none of the targets", what, key)
        return models

    def look(self, model: ConfiguredModel) -> Found:
        """What lies at the base path of a configured model now."""
        source = f"{model.name}={model.base_path}"
        known = self._kept.get(source)
        if known is not None:
            return known[0]
        try:
            place = self._targets.brought(self._configured_place(model))
        except ServingError as error:
            found = broken(model.name, error.message)
        else:
            found = replace(self.reader.read(place), source=source)
        if is_remote(model.base_path):
            self._kept[source] = [found]
        return found

    def _configured(self) -> Mapping[str, ConfiguredModel]:
        return {**self._listed, **self._replaced}

    @staticmethod
    def _configured_place(model: ConfiguredModel) -> Place:
        remote = is_remote(model.base_path)
        path = Path() if remote else Path(model.base_path)
        return Place(model.name, path, named=True, text=model.base_path, remote=remote, policy=model.policy, labels=model.labels)

    def _targeted(self, target: str) -> list[Found]:
        known = self._kept.get(target)
        if known is not None:
            return known
        meant = self._targets.meant(target)
        places: list[Place] = []
        try:
            places = self._targets.places(target)
            found = [replace(self.reader.read(place), source=target) for place in places]
        except ServingError as error:
            found = [replace(broken(meant.name, error.message, lack_of(meant)), source=target, version=meant.version)]
        if meant.remote or any(place.stored is not None for place in places):
            self._kept[target] = found
        return found

    def names(self) -> list[str]:
        """Every model name that the targets have now, loaded or not."""
        names = dict.fromkeys(self._configured())
        for target in self._targets.texts:
            meant = self._targets.meant(target)
            if meant.remote:  # whoever only asks for names need not wait for other places
                names[readable(meant.name)] = None
                continue
            try:
                names.update((readable(p.name), None) for p in self._targets.places(target))
            except ServingError:
                names[readable(meant.name)] = None
        names.update((router.name, None) for router in self._routers.found())
        return list(names)

    def receive(self, name: str, files: Mapping[str, bytes]) -> str:
        """Write what a load request brings ("1/model.onnx" -> content) where every worker reads it; returns the folder, for `find`.

        Raises INVALID_INPUT for a name that cannot be served and for files that cannot be written.
        """
        check_name(name)
        return str(self._uploads.write(name, files))

    def discard(self, folder: str) -> None:
        """Remove what `receive` has written."""
        shutil.rmtree(Path(folder).parent, ignore_errors=True)

    def find(self, name: str, config: str = "", folder: str = "") -> Found | None:
        """Read one model from disk again; None when no target has it and no request has brought it.

        `config` (JSON of a Triton model configuration) and `folder` (see `receive`) stand for what lies on disk, for this load. Raises
        INVALID_INPUT for a name that cannot be served.
        """
        check_name(name)
        if folder:
            return self.reader.read(Place(name, Path(folder), data_only=True), config)
        configured = self._configured().get(name)
        if configured is not None:
            return self.reader.read(self._targets.brought(self._configured_place(configured)), config)
        found: list[Found] = []
        for target in self._targets.texts:
            meant = self._targets.meant(target)
            if meant.remote and meant.name != name:
                continue
            try:
                places = self._targets.places(target)
            except ServingError as error:
                if meant.name == name:
                    found.append(replace(broken(name, error.message), version=meant.version))
                continue
            found += [self.reader.read(place, config) for place in places if place.name == name]
        found += [router for router in self._routers.found() if router.name == name]
        return _together(found)[0] if found else None

    def close(self) -> None:
        """Remove what load requests brought."""
        self._uploads.remove()


class _Uploads:
    """Model files that load requests brought, in a folder that ends with the server. Several threads may write at a time."""

    def __init__(self, shared: Path | None) -> None:
        self._root = shared / "models" if shared is not None else None
        self._own: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()

    def write(self, name: str, files: Mapping[str, bytes]) -> Path:
        """Write the files of one model below a fresh folder of its name. Raises INVALID_INPUT for a path that leaves it or cannot be."""
        with self._lock:
            if self._root is None:
                self._own = tempfile.TemporaryDirectory(prefix="dragoman-models-")
                self._root = Path(self._own.name)
            self._root.mkdir(mode=0o700, exist_ok=True)
            fresh = Path(tempfile.mkdtemp(dir=self._root))
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
        """Only what this process made: a shared folder goes with the server."""
        with self._lock:
            if self._own is not None:
                self._own.cleanup()
                self._own = self._root = None


def _together(found: Sequence[Found]) -> list[Found]:
    """Targets that are versions of one model, as one; of two that are the same one the second is an error."""
    models: dict[str, list[Found]] = {}
    extra: list[Found] = []
    for each in found:
        same = models.setdefault(each.name, [])
        if any(each.version == other.version for other in same):
            key = f"{each.name}:{each.version}" if each.version else each.name
            extra.append(broken(each.name, f"two targets are called '{key}'; name one of them differently with NAME=PATH"))
        else:
            same.append(each)
    return [_joined(same) if len(same) > 1 else same[0] for same in models.values()] + extra


def _joined(found: Sequence[Found]) -> Found:
    versions = {version: spec for each in found for version, spec in each.versions.items()}
    faults = {version: error for each in found for version, error in each.faults.items()}
    for each in found:
        if each.error and not each.faults:
            faults[each.version or ModelSpec("").version] = invalid(each.error)
    notes = tuple(note for each in found for note in each.notes)
    labels = {label: version for each in found for label, version in each.labels.items()}
    error = "" if versions else next(each.error for each in found if each.error)
    return Found(found[0].name, versions, labels, error, faults, found[0].lack if error else Lack.NOTHING, notes, found[0].source)


__all__ = ["Defaults", "Found", "Repository"]
