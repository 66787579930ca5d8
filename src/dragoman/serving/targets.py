"""What the words of the command line mean: paths, NAME=PATH, NAME:VERSION=PATH, FILE.py:CLASS, folders of models, names in the model store, URIs.

Looks at disks, reads no model; blocking. Called by repository.py.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dragoman.core.artifacts import SUFFIXES
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.serving import layouts
from dragoman.serving.artifacts import is_remote, name_of
from dragoman.serving.library.library import Stored
from dragoman.serving.library.references import parse
from dragoman.serving.library.remotes import without_secrets
from dragoman.serving.mlserver import read_settings
from dragoman.serving.model_uris import is_model_uri
from dragoman.serving.paths import read_bounded
from dragoman.serving.python_models import FILE, SUFFIX
from dragoman.serving.reading import Place
from dragoman.serving.settings import LARGEST_FILE

_WITH_CLASS = re.compile(r"(.+\.py):([^\W\d]\w*)")


def nothing_stored(text: str) -> Stored:
    """The lookup of a server without a model store."""
    raise ServingError(Kind.NOT_FOUND, f"no model '{text}' is stored", what="model")


def nowhere(uri: str) -> Path:
    """The fetching of a server that fetches nothing."""
    raise ServingError(
        Kind.UNSUPPORTED, f"'{without_secrets(uri)}' cannot be fetched here: bring the model to this machine and name its path"
    )


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """How targets that are no path are found: both functions raise ServingError, and may block."""

    stored: Callable[[str], Stored] = nothing_stored
    """A name in the model store, or a `models:/` URI of the server's own registry."""
    fetch: Callable[[str], Path] = nowhere
    """A URI of another place: the file or folder here that holds its content now."""
    registry: bool = False
    """Whether `models:/` URIs belong to somebody else's registry, and are fetched."""


class Targets:
    """`name` is for a single target without one of its own. What is fetched is data, unless `trusting`."""

    def __init__(self, targets: Sequence[str], name: str, elsewhere: Elsewhere, *, trusting: bool = False) -> None:
        self.texts = list(targets)
        self._name = name
        self._elsewhere = elsewhere
        self._trusting = trusting

    def meant(self, target: str) -> Place:
        """The name, version and path that a target means. Looks at the disk only to tell NAME=PATH from a path that has a "=" in it."""
        key, separator, rest = target.partition("=")
        if not separator or not key or "/" in key or _exists(Path(target)):
            return self._place(target)
        name, separator, version = key.partition(":")
        return replace(self._place(rest, name), version=version or separator)  # a colon alone is refused like any other bad version

    def _place(self, text: str, name: str = "") -> Place:
        """What a target without its NAME= means: a URI, a path, a Python file and one of its classes (FILE.py:CLASS), or a name in the store."""
        if is_remote(text):
            own = name or (self._name if len(self.texts) == 1 else "")
            return Place(own or name_of(text), Path(), named=bool(own), text=text, remote=True)
        found = _WITH_CLASS.fullmatch(text)
        if found is not None and not _exists(Path(text)):
            return replace(self._place(found[1], name), model_class=found[2])
        path = Path(text).expanduser().absolute()
        if name:
            return Place(name, path, named=True, text=text)
        if len(self.texts) == 1 and self._name:
            return Place(self._name, path, named=True, text=text)
        if path.name == FILE:
            return Place(path.parent.name, path, text=text)
        return Place(path.stem if path.suffix in SUFFIXES or path.suffix == SUFFIX else path.name, path, text=text)

    def places(self, target: str) -> list[Place]:
        """Where the models of a target lie. Raises INVALID_INPUT when there is none, or the disk does not let itself be read."""
        place = self.brought(self.meant(target))
        if place.stored is not None:
            return [place]
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
                return [replace(place, name=self._own_name(model), path=model) for model in models]
        except OSError as error:
            raise invalid(f"{path} cannot be read: {error.strerror or error}") from error
        if len(models) > 1:
            several = ", ".join(model.name for model in models[:5])
            raise invalid(f"the name '{place.name}' is for one model, but {path} holds several ({several}); leave the name out")
        return [replace(place, path=models[0])]

    def brought(self, place: Place) -> Place:
        """A place on this machine. Raises ServingError when what lies elsewhere cannot be had."""
        if not place.remote:
            return place
        if is_model_uri(place.text) and not self._elsewhere.registry:
            stored = self._elsewhere.stored(place.text)
            return replace(place, path=stored.place, stored=stored)
        # Its name was chosen by whoever gave the URI: what its files call themselves says nothing.
        path = self._elsewhere.fetch(place.text)
        return replace(place, path=path, named=True, data_only=not self._trusting)

    def _in_the_store(self, place: Place) -> Place:
        """A target that is no path. Raises INVALID_INPUT with both readings."""
        try:
            parse(place.text)
        except ServingError:
            raise invalid(f"there is no {place.path}") from None
        try:
            stored = self._elsewhere.stored(place.text)
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


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long, or in a folder that is closed to us: not something that could be told from a name
        return False
