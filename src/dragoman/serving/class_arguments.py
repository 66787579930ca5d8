"""Class arguments of MLRun models: NAME[:VERSION]=JSON as operators write them, what one version of a model gets, and its model_path here.

Read by the settings (server/configuration.py), applied by reading.py to the specs of Python models.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import ModelSpec
from dragoman.serving import layouts
from dragoman.serving.artifacts import is_remote
from dragoman.serving.python_models import CLASS_ARGUMENTS
from dragoman.serving.settings import quoted
from dragoman.serving.words import check_model_key

MODEL_PATH = "model_path"
Arguments = Mapping[str, Mapping[str, Any]]
"""By "name" or "name:version"."""


def parse(texts: Iterable[str]) -> Arguments:
    """NAME[:VERSION]={...}, each once. Raises INVALID_INPUT with what is wrong."""
    made: dict[str, Mapping[str, Any]] = {}
    for text in texts:
        key, separator, written = text.partition("=")
        if not separator:
            raise invalid(f"class arguments are NAME=JSON or NAME:VERSION=JSON, this is {quoted(text)}")
        check_model_key(key)
        try:
            values = json.loads(written)
        except (ValueError, RecursionError) as error:
            raise invalid(f"the class arguments of '{key}' are no JSON: {error}") from None
        if not isinstance(values, dict):
            raise invalid(f"the class arguments of '{key}' must be a JSON object, not {quoted(written)}")
        if key in made:
            raise invalid(f"the class arguments of '{key}' are given twice")
        made[key] = values
    return made


def of(arguments: Arguments, name: str, version: str) -> dict[str, Any]:
    """What one version of a model gets: what is said of its name, and over that what is said of the version."""
    return {**arguments.get(name, {}), **arguments.get(f"{name}:{version}", {})}


def strays(arguments: Arguments, models: Mapping[str, Collection[str]]) -> list[str]:
    """The keys that are for none of these models, by name with their versions; no versions: they are not known."""
    found = []
    for key in arguments:
        name, _, version = key.partition(":")
        versions = models.get(name)
        if versions is None or (version and versions and version not in versions):
            found.append(key)
    return found


def applied(spec: ModelSpec, arguments: Arguments, fetch: Callable[[str], Path]) -> ModelSpec:
    """The spec with its class arguments. A model file elsewhere is fetched; a path here, which may be relative to the server's folder, is absolute.

    Raises what `fetch` raises.
    """
    given = of(arguments, spec.name, spec.version)
    path = given.get(MODEL_PATH)
    if isinstance(path, str) and path:
        # A specification elsewhere names files that lie beside it, which only the model's own process asks for.
        fetched = is_remote(path) and not path.lower().endswith(".yaml")
        given[MODEL_PATH] = str(fetch(path)) if fetched else _here(path)
    return replace(spec, arguments={**spec.arguments, CLASS_ARGUMENTS: given}) if given else spec


def state_of(spec: ModelSpec) -> str:
    """Sizes and times of what lies at the model_path, so that a change of it is a change of the model; "" where there is none."""
    path = spec.arguments.get(CLASS_ARGUMENTS, {}).get(MODEL_PATH)
    if not isinstance(path, str) or not path.startswith("/"):
        return ""
    try:
        return layouts.state_of(Path(path)) if Path(path).exists() else ""
    except OSError:
        return ""


def _here(path: str) -> str:
    local = Path(path.removeprefix("file://")).expanduser()
    try:
        return str(local.absolute()) if local.exists() else path
    except OSError:
        return path


def nothing_fetched(uri: str) -> Path:
    """The fetching of a reader that fetches nothing."""
    raise ServingError(Kind.UNSUPPORTED, f"the model_path {quoted(uri)} cannot be fetched here: name a path of this machine")
