"""What the store keeps of a model's spec, and the spec that is served of it again. Called by building and by the repository."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dragoman.core.errors import invalid
from dragoman.core.model import ModelSpec
from dragoman.serving.library.library import Stored
from dragoman.serving.paths import check_relative
from dragoman.serving.python_models import ENGINE, RUNTIME, declared, spec_of
from dragoman.serving.settings import quoted

TUNGSTEN = "tungsten"
PYTHON = "python"
"""Kinds of stored models that run as Python code; other kinds are named after their runtime or layout, and their files say what they are."""
_ARGUMENTS = ("module", "class")


def kept(artifact: str, module: str, model_class: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a Python model. `artifact` is relative to the model's folder, "" for the folder; `config` is what it declares."""
    return {
        "runtime": RUNTIME,
        "engine": ENGINE,
        "artifact": artifact,
        "arguments": {"module": module, "class": model_class},
        "declared": dict(config),
    }


def checked(kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """A record that came from another store. Raises INVALID_INPUT for what this one would not have written."""
    if kind not in (TUNGSTEN, PYTHON):
        leaf = spec.get("leaf", "")
        if (
            set(spec) - {"leaf"}
            or not isinstance(leaf, str)
            or (leaf and (check_relative(leaf, "the model's folder") != leaf or "/" in leaf))
        ):
            raise invalid(f"the record of a model of kind {quoted(kind)} is not one")
        return dict(spec)
    match spec:
        case {
            "artifact": str() as artifact,
            "arguments": {"module": str() as module, "class": str() as model_class},
            "declared": dict() as config,
        }:
            if artifact:
                check_relative(artifact, "the model's file")
            if all(part.isidentifier() for part in module.split(".")) and (model_class.isidentifier() or not model_class):
                return kept(artifact, module, model_class, config)
    raise invalid(f"the record of a model of kind {quoted(kind)} is not one")


def restored(stored: Stored, base: ModelSpec, *, batch_size: int, environments: str) -> ModelSpec | None:
    """The spec of a stored Python model; None for other kinds, which are read like any folder."""
    content = stored.version.spec
    if stored.version.kind not in (TUNGSTEN, PYTHON):
        return None
    artifact = stored.folder / content["artifact"] if content["artifact"] else stored.folder
    arguments = {name: content["arguments"][name] for name in _ARGUMENTS}
    if stored.version.kind == PYTHON:
        return spec_of(
            base, artifact, environments=environments, batch_size=batch_size, module=arguments["module"], model_class=arguments["class"]
        )
    spec = replace(base, runtime=RUNTIME, engine=ENGINE, artifact=str(artifact), arguments={**base.arguments, **arguments})
    spec = declared(spec, content["declared"], stored.name, batch_size=batch_size, environments=environments)
    return spec.with_revision(stored.version.digest)
