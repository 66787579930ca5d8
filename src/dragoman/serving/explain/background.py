"""Background data: data points of the usual kind, in the place of which a feature counts as unknown. Read when a model is loaded; blocking.

A JSON file holds a list of data points (lists or objects) or an object with such `inputs`; a CSV file has a line of names first.
"""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from dragoman.core.bodies import features, requested
from dragoman.core.errors import ServingError, invalid
from dragoman.core.model import ModelSpec
from dragoman.core.tensors import Form, Rows, Signature, Tensors, Value

_LARGEST = 32 << 20
_SUFFIXES = (".json", ".csv")


@dataclass(frozen=True, slots=True)
class Background:
    """`names` are those of the columns, () where the file has none."""

    inputs: Tensors | Rows
    names: tuple[str, ...]


def read_background(spec: ModelSpec, signature: Signature, place: str, rows: int) -> Background:
    """At most `rows` data points, evenly out of the whole file. Raises INVALID_INPUT that names the file and what is wrong with it."""
    path = Path(place) if place else _beside(spec)
    where = f"the background {path.name} of model '{spec.name}'"
    try:
        if path.suffix.lower() not in _SUFFIXES or not path.is_file():
            raise invalid(f"{where} is not there, or no file of {' or '.join(_SUFFIXES)}")
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        raise invalid(f"{where} cannot be read: {getattr(error, 'strerror', None) or 'its path is malformed'}") from error
    if len(data) > _LARGEST:
        raise invalid(f"{where} has more than {_LARGEST} bytes")
    names, points = _csv(data, where) if path.suffix.lower() == ".csv" else _json(data, where)
    if not points:
        raise invalid(f"{where} has no data point")
    chosen = [points[index * len(points) // min(rows, len(points))] for index in range(min(rows, len(points)))]
    names, chosen = _shaped(names, chosen, signature, where)
    try:
        return Background(requested(chosen, signature, spec.name), names)
    except ServingError as error:
        raise invalid(f"{where}: {error.message}") from error


def _beside(spec: ModelSpec) -> Path:
    """FILE.background.csv next to a model's file, or background.csv in its folder; the same with .json."""
    artifact = Path(spec.artifact)
    folder = artifact if artifact.is_dir() else artifact.parent
    names = [f"{artifact.stem}.background{suffix}" for suffix in _SUFFIXES] + [f"background{suffix}" for suffix in _SUFFIXES]
    for name in names if spec.artifact else ():
        if (folder / name).is_file():
            return folder / name
    raise invalid(
        f"model '{spec.name}' cannot be explained without background data: put {names[0]} or background.csv next to it, or say"
        f" --explain {spec.name}=auto:background=FILE"
    )


def _json(data: bytes, where: str) -> tuple[tuple[str, ...], list[Value]]:
    try:
        content: Any = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise invalid(f"{where} is no JSON") from None
    points = content.get("inputs") if isinstance(content, dict) else content
    if not isinstance(points, list) or not all(isinstance(point, list | dict) for point in points):
        raise invalid(f"{where} is no list of data points, each a list or an object")
    return (tuple(points[0]) if points and isinstance(points[0], dict) else ()), points


def _csv(data: bytes, where: str) -> tuple[tuple[str, ...], list[Value]]:
    try:
        lines = [line for line in csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise invalid(f"{where} is no CSV in UTF-8: {error}") from None
    names = tuple(lines[0]) if lines else ()
    if len(set(names)) != len(names):
        raise invalid(f"{where} has a column twice")
    for number, line in enumerate(lines[1:], 1):
        if len(line) != len(names):
            raise invalid(f"{where}: data point {number} has {len(line)} values, expected {len(names)}")
    return names, [dict(zip(names, map(_cell, line), strict=True)) for line in lines[1:]]


def _cell(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def _shaped(names: tuple[str, ...], points: list[Value], signature: Signature, where: str) -> tuple[tuple[str, ...], list[Value]]:
    """Objects without columns that the model does not have; for a model of one tensor, lists in the order of the columns."""
    wanted = features(signature)
    matrix = signature.form is Form.TENSORS and len(wanted) == 1
    if not names or (matrix and set(names) == set(wanted)):
        return (), points
    if not all(isinstance(point, dict) and point.keys() >= set(names) for point in points):
        raise invalid(f"{where}: every data point needs the same keys as the first")
    if matrix:
        return names, [[point[name] for name in names] for point in points]
    return names, [_only(point, wanted) for point in points]


def _only(point: Mapping[str, Value], wanted: list[str]) -> dict[str, Value]:
    return {name: point[name] for name in wanted if name in point}
