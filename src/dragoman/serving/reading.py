"""From the place of one model to the specs of its versions: whichever layout lies there, under the settings of now.

Reads disks, never loads a model; blocking. Called for the targets of the command line (repository.py) and for what is in the registry
(origins.py).
"""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, unique
from functools import cache
from pathlib import Path
from typing import Any

from dragoman.core.artifacts import TRUST
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.lifecycle import Policy, choose, version_order
from dragoman.core.model import EMPTY, BatchPolicy, ModelSpec
from dragoman.serving import class_arguments, layouts, mlflow_specs
from dragoman.serving.class_arguments import Arguments, nothing_fetched
from dragoman.serving.configured import complete, mlserver_model, triton_model
from dragoman.serving.library.library import Stored
from dragoman.serving.library.packing import listed
from dragoman.serving.library.specs import read_record, restored
from dragoman.serving.mlflow_models import is_mlflow
from dragoman.serving.python_models import RECORD, SUFFIX, is_project, spec_of, state_of
from dragoman.serving.roots import Roots
from dragoman.serving.settings import LATEST
from dragoman.serving.tfserving_files import own_batching
from dragoman.serving.words import check_name, check_version_name

_NO_BATCH_POLICY = BatchPolicy()


@unique
class Lack(Enum):
    """What is missing of a model that cannot be read."""

    NOTHING = "nothing"
    """It is there, and something is wrong with it."""
    VERSIONS = "versions"
    """Its folder is there, and has no version that is served."""
    PLACE = "place"
    """Its folder or file is not there, or does not let itself be read."""


@dataclass(frozen=True, slots=True)
class Found:
    """One model as it lies on disk now: the specs of the versions that its policy serves, or why it cannot be read."""

    name: str
    versions: Mapping[str, ModelSpec] = EMPTY
    labels: Mapping[str, str] = EMPTY
    error: str = ""
    faults: Mapping[str, ServingError] = EMPTY
    """Version -> reason, of those that the policy serves and that cannot be read. With no other, `error` is one of them."""
    lack: Lack = Lack.NOTHING
    notes: tuple[str, ...] = ()
    """What the log should say of it."""
    source: str = ""
    """The target that it was found by."""
    version: str = ""
    """The one version that this target is, where the user said it."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for every model whose own files do not say otherwise. `name` is for a single target without one."""

    name: str = ""
    batch: BatchPolicy = _NO_BATCH_POLICY
    instances: int = 1
    engine: str = ""
    """The operator's word; without one a model's runtime chooses."""
    arguments: Mapping[str, Any] = EMPTY
    """Passed to every runtime: threads, trust_pickle, device."""
    batch_size: int = 0
    """The operator's word, which Python models take over what they declare; 0 when there is none."""
    environments: str = "auto"
    """Which Python models get a virtualenv: see python_models."""
    batch_files: bool = False
    """Whether versions say in TensorFlow Serving's file how their requests are joined, and those without it are not batched."""
    policy: Policy = LATEST
    """Which numeric folders are served where a model's own files do not say."""
    run_timeout_s: float = math.inf
    load_timeout_s: float = math.inf
    repeatable: bool = False
    explainers: Mapping[str, Mapping[str, Any]] = EMPTY
    """Model -> how it is explained."""
    class_args: Arguments = EMPTY
    """Of MLRun models, by name or name:version."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one model lies."""

    name: str
    path: Path
    named: bool = False
    """Whether the user gave the name."""
    text: str = ""
    """The target without its NAME=, as it was written."""
    data_only: bool = False
    """Whether its files came from elsewhere as data, so that none of them may be run as code."""
    trusted: bool = False
    """Whether the operator answers for its files where they lie, whatever --trust-pickle says."""
    remote: bool = False
    """Whether `text` is a URI."""
    stored: Stored | None = None
    model_class: str = ""
    """Which class of a Python file, where it has several."""
    version: str = ""
    """Which version of the model this is, where the user said it."""
    policy: Policy | None = None
    """Which numeric folders are served, where somebody says so for this model alone."""
    labels: Mapping[str, str] = EMPTY
    """Label -> version, the same."""


class Reader:
    """Makes specs that hold what the model's own files say, and `defaults` where they say nothing. Without `roots` nothing is registered.

    `fetch` brings what lies elsewhere and is named by class arguments, which are the operator's words.
    """

    def __init__(self, defaults: Defaults, roots: Roots | None = None, fetch: Callable[[str], Path] = nothing_fetched) -> None:
        self._defaults = defaults
        self._roots = roots
        self._fetch = cache(fetch)  # asked for once: whoever polls looks again and again

    def read(self, place: Place, config: str = "") -> Found:
        """One model as it lies there now; what cannot be read is a Found with its error. `config` (JSON) stands for a Triton configuration."""
        try:
            check_name(place.name)
            check_version_name(place.name, place.version)
            found = self._layout(place, config) if place.stored is None else self.stored(place, place.stored, config)
            found = named(found, place) if place.version else found
            return replace(found, labels=place.labels) if place.labels else found
        except ServingError as error:
            return replace(broken(place.name, error.message, lack_of(place)), version=place.version)
        except OSError as error:
            reason = f"{place.path} cannot be read: {error.strerror or error}"
            return replace(broken(place.name, reason, lack_of(place)), version=place.version)

    def below_a_root(self, name: str, path: Path) -> Place:
        """A model in a folder that clients may name, links resolved. Its code and pickles are for those that the operator trusts."""
        own = self._roots is not None and self._roots.trusted(path)
        trusted = own or bool(self._defaults.arguments.get("trust_pickle"))
        return Place(name, path, named=True, data_only=not trusted, trusted=own)

    def layout(self, place: Place, config: str = "") -> Found:
        """As `read`, for what is not in the store. Raises ServingError, OSError, and when there is no version that can be read."""
        return self._layout(place, config, strict=True)

    def _layout(self, place: Place, config: str, *, strict: bool = False) -> Found:
        path = place.path
        base = self._base(place)
        if config and not path.is_dir():
            raise invalid(f"model '{place.name}' is the single file {path.name}, which takes no model configuration")
        if path.is_dir() and (config or (path / layouts.TRITON_CONFIG).is_file()):
            return Found(place.name, triton_model(path, base, config))
        if (path / layouts.MLSERVER_SETTINGS).is_file():
            name, specs = mlserver_model(path, base, lambda spec, folder: self._mlflow(spec, folder, place))
            if place.named:  # the user's name wins over the file's
                name, specs = place.name, {v: replace(s, name=place.name) for v, s in specs.items()}
            return Found(name, specs)
        if is_mlflow(path):
            return Found(place.name, {base.version: self._mlflow(base, path, place)})
        if is_project(path) or path.suffix == SUFFIX:
            return Found(place.name, {base.version: self._python(base, path, place)})
        if path.is_dir() and (folders := layouts.version_folders(path)):
            return self._versions(place, base, folders, strict=strict)
        if path.is_dir() and layouts.is_plain(path):
            return Found(place.name, {base.version: self._python(base, path, place)})
        artifact = path if path.is_file() else layouts.one_artifact(path)
        return Found(place.name, {base.version: complete(base, artifact)})

    def _versions(self, place: Place, base: ModelSpec, folders: Mapping[str, Path], *, strict: bool) -> Found:
        """TensorFlow Serving's layout: the numeric folders that the policy serves, each on its own. With `strict`, raises for the last bad one."""
        policy = place.policy or self._defaults.policy
        chosen = choose(policy, folders)
        lost = [version for version in policy.versions if version not in folders]
        notes = (f"there is no folder of version {', '.join(lost)}, which its policy names",) if lost else ()
        if not chosen:
            missing = f"{place.path} has no version {', '.join(lost)}"
            if strict:
                raise invalid(missing)
            return replace(broken(place.name, missing, Lack.VERSIONS), notes=notes)
        specs: dict[str, ModelSpec] = {}
        faults: dict[str, ServingError] = {}
        for version in chosen:
            try:
                specs[version] = self._version(place, replace(base, version=version, named_version=True), folders[version])
            except ServingError as error:
                if strict and version == chosen[-1] and not specs:
                    raise
                faults[version] = ServingError(error.kind, readable(error.message), what=error.what)
            except OSError as error:
                if strict and version == chosen[-1] and not specs:
                    raise
                faults[version] = invalid(readable(f"{folders[version]} cannot be read: {error.strerror or error}"))
        first = "" if specs else next(iter(faults.values())).message
        return Found(place.name, specs, error=first, faults=faults, notes=notes)

    def _version(self, place: Place, base: ModelSpec, folder: Path) -> ModelSpec:
        if self._defaults.batch_files:
            base = replace(base, batch=own_batching(folder, base.batch))
        if is_mlflow(folder):
            return self._mlflow(base, folder, place)
        return self._python(base, folder, place) if is_project(folder) else complete(base, layouts.one_artifact(folder))

    def _mlflow(self, base: ModelSpec, path: Path, place: Place) -> ModelSpec:
        size, environments = self._defaults.batch_size, self._defaults.environments
        return mlflow_specs.spec_of(base, path, batch_size=size, environments=environments, code=not place.data_only)

    def _python(self, base: ModelSpec, path: Path, place: Place) -> ModelSpec:
        if place.data_only:
            reason = "neither a load request nor the registry can bring that, as it could do anything here"
            raise ServingError(Kind.UNSUPPORTED, f"model '{place.name}' is Python code ({path.name}); {reason}; {TRUST}", what="model")
        size, environments = self._defaults.batch_size, self._defaults.environments
        base = class_arguments.applied(base, self._defaults.class_args, self._fetch)
        if not (path / RECORD).is_file():
            more = class_arguments.state_of(base)
            return spec_of(base, path, batch_size=size, environments=environments, model_class=place.model_class, state=more)
        kind, content = read_record(path)
        spec = restored(kind, content, path, path.name, base, batch_size=size, environments=environments)
        assert spec is not None
        return spec.with_revision(state_of(path) + class_arguments.state_of(spec))

    def stored(self, place: Place, stored: Stored, config: str = "") -> Found:
        """One version of the registry, its tags as labels. Raises ServingError, OSError."""
        version = stored.version
        if not stored.built:
            versions = self.layout(self._registered(place, stored), config).versions
            newest = versions[max(versions, key=version_order)]
            own = replace(newest, version=version.version, digest=version.digest, named_version=True)
            return Found(place.name, {version.version: own.with_revision(version.digest)}, dict.fromkeys(stored.tags, version.version))
        stored.check()
        base = replace(self._base(place), version=version.version, digest=version.digest, named_version=True)
        base = class_arguments.applied(base, self._defaults.class_args, self._fetch)
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
            versions = self.layout(replace(place, stored=None, data_only=True, policy=LATEST), config).versions
            if len(versions) > 1:  # a model folder with several versions of its own
                return Found(place.name, {v: replace(s, digest=version.digest) for v, s in versions.items()})
            (spec,) = versions.values()
            spec = replace(spec, version=version.version, digest=version.digest, named_version=True)
        return Found(place.name, {version.version: spec.with_revision(version.digest)}, dict.fromkeys(stored.tags, version.version))

    def _registered(self, place: Place, stored: Stored) -> Place:
        """Where the files of a registered version lie, looked at again: what was a model in a root when it was registered may have moved.

        Raises UNAVAILABLE for what has changed since.
        """
        roots, path = self._roots, stored.place
        if roots is None or os.path.realpath(path) != str(path) or not roots.open_to(path):
            reason = "is no longer in a folder of --model-root or --trusted-root"
            raise ServingError(Kind.UNAVAILABLE, f"version {stored.version.version} of model '{stored.repository}' {reason}", what="model")
        stored.check(lambda real: roots.same(real, path))
        listed(path, lambda real: roots.same(real, path))  # what came later must not lead out either
        return replace(self.below_a_root(place.name, path), policy=LATEST)

    def _base(self, place: Place) -> ModelSpec:
        defaults = self._defaults
        return ModelSpec(
            place.name,
            place.version or ModelSpec("").version,
            named_version=bool(place.version),
            batch=defaults.batch,
            engine=defaults.engine,
            instances=defaults.instances,
            arguments={**defaults.arguments, **({"trust_pickle": True} if place.trusted else {})},
            run_timeout_s=defaults.run_timeout_s,
            load_timeout_s=defaults.load_timeout_s,
            repeatable=defaults.repeatable,
            explainer=defaults.explainers.get(place.name, EMPTY),
        )


def named(found: Found, place: Place) -> Found:
    """What was found, as the version that the user said it is. Raises INVALID_INPUT when it has several of its own."""
    if len(found.versions) + len(found.faults) > 1:
        several = ", ".join(sorted({*found.versions, *found.faults}, key=version_order)[:5])
        raise invalid(f"'{place.name}:{place.version}' is for one version, but {place.path} holds several ({several})")
    version = place.version
    versions = dict(zip([version], (replace(s, version=version, named_version=True) for s in found.versions.values()), strict=False))
    return replace(found, versions=versions, faults=dict(zip([version], found.faults.values(), strict=False)), version=version)


def broken(name: str, error: str, lack: Lack = Lack.NOTHING) -> Found:
    """A model that cannot be read, and why."""
    return Found(readable(name), error=readable(error), lack=lack)


def lack_of(place: Place) -> Lack:
    """What is missing of a model that could not be read: where its files are the fault, nothing is."""
    if place.remote or place.stored is not None:
        return Lack.NOTHING
    try:
        if place.path.is_dir():
            empty = not layouts.version_folders(place.path) and not layouts.is_model(place.path) and not layouts.artifacts(place.path)
            return Lack.VERSIONS if empty else Lack.NOTHING
        return Lack.NOTHING if place.path.exists() else Lack.PLACE
    except (OSError, ServingError):
        return Lack.PLACE


def readable(text: str) -> str:
    """Names on disk need not be UTF-8; what is shown to people and sent to clients must be."""
    return text.encode("utf-8", "backslashreplace").decode()
