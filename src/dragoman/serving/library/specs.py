"""What the store keeps of a model's spec, and the spec that is served of it again. Called by building and by the repository.

A folder with such a record in it (dragoman.json) is a model, too: that is how images and extracted models know what they are."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dragoman.core.errors import invalid
from dragoman.core.model import ModelSpec
from dragoman.serving.paths import check_relative, read_bounded
from dragoman.serving.python_models import ENGINE, RECORD, RUNTIME, declared, spec_of
from dragoman.serving.settings import LARGEST_FILE, quoted

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


def restored(
    kind: str, content: Mapping[str, Any], folder: Path, name: str, base: ModelSpec, *, batch_size: int, environments: str
) -> ModelSpec | None:
    """The spec of a recorded Python model, without a revision; None for other kinds, which are read like any folder."""
    if kind not in (TUNGSTEN, PYTHON):
        return None
    artifact = folder / content["artifact"] if content["artifact"] else folder
    arguments = {name: content["arguments"][name] for name in _ARGUMENTS}
    if kind == PYTHON:
        module, chosen = arguments["module"], arguments["class"]
        return spec_of(base, artifact, environments=environments, batch_size=batch_size, module=module, model_class=chosen)
    spec = replace(base, runtime=RUNTIME, engine=ENGINE, artifact=str(artifact), arguments={**base.arguments, **arguments})
    return declared(spec, content["declared"], name, batch_size=batch_size, environments=environments)


def write_record(folder: Path, kind: str, content: Mapping[str, Any]) -> None:
    """Put the record of a Python model beside its files, so that the folder can be served as it is."""
    if kind in (TUNGSTEN, PYTHON):
        (folder / RECORD).write_text(json.dumps({"kind": kind, "spec": dict(content)}, indent=1, sort_keys=True), "utf-8")


def read_record(folder: Path) -> tuple[str, dict[str, Any]]:
    """The record in a folder. Raises INVALID_INPUT for one that this server would not have written."""
    try:
        content = json.loads(read_bounded(folder / RECORD, LARGEST_FILE, f"{RECORD} of {folder.name}"))
    except (ValueError, RecursionError) as error:
        raise invalid(f"{RECORD} of {folder.name} is not JSON") from error
    match content:
        case {"kind": str() as kind, "spec": dict() as spec} if kind in (TUNGSTEN, PYTHON):
            return kind, checked(kind, spec)
    raise invalid(f"{RECORD} of {folder.name} is not the record of a model")
