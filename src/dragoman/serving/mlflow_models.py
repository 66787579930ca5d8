"""MLflow model folders on disk: what their `MLmodel` file says, read without MLflow and without running anything.

`describe` is for whoever wants to know what a folder is (the catalog, the scoring dialect, layouts.py). The specs that are made of one come
from mlflow_specs.py. Format facts: Submarine sheet section 6, "Model directory".
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dragoman.core.errors import invalid
from dragoman.core.model import EMPTY
from dragoman.serving import yaml_text
from dragoman.serving.paths import confine, read_bounded
from dragoman.serving.settings import quoted

FILE = "MLmodel"
PYTHON_FUNCTION = "python_function"
REQUIREMENTS = "requirements.txt"
PYTHON_ENV = "python_env.yaml"

_LARGEST = 2 << 20
_MOST_FIELDS = 10_000
_MOST_DIMENSIONS = 32
_NOT_NATIVE = frozenset({PYTHON_FUNCTION, "openai", "langchain", "spark"})
_PREFERRED = ("sklearn", "onnx", "xgboost", "lightgbm", "pytorch", "tensorflow", "keras")
"""Of several native flavors in one file the first of these names the model."""
_VERSION = re.compile(r"\d{1,2}\.\d{1,3}(\.\d{1,3})?", re.ASCII)
SCALARS = frozenset({"boolean", "integer", "long", "float", "double", "string", "binary", "datetime"})


@dataclass(frozen=True, slots=True)
class Field:
    """One column, tensor or parameter of a signature, in MLflow's own words."""

    name: str
    """Empty where MLflow gives none: for a single tensor or value, or for all columns of a table."""
    type: str
    """One of SCALARS, "tensor", or a nested type: "array", "object", "map", "any"."""
    required: bool = True
    dtype: str = ""
    """Of a tensor: its numpy name, such as "float64" or "str"."""
    shape: tuple[int, ...] | None = None
    """Of a tensor; of a parameter (-1,) for a list. None otherwise."""
    default: Any = None
    """Of a parameter."""
    described: Mapping[str, Any] = EMPTY
    """Of a nested type: the column as it is written."""


@dataclass(frozen=True, slots=True)
class MlflowModel:
    """What an `MLmodel` file says. `inputs` and `outputs` are None where the signature does not declare them."""

    flavor: str
    """The native flavor ("sklearn", "xgboost", ...), which is the model's type; "python_function" where there is no other."""
    flavors: Mapping[str, Mapping[str, Any]]
    inputs: tuple[Field, ...] | None = None
    outputs: tuple[Field, ...] | None = None
    params: tuple[Field, ...] = ()
    mlflow_version: str = ""
    run_id: str = ""
    model_uuid: str = ""
    model_id: str = ""
    requirements: str = ""
    """The text of requirements.txt; "" where there is none."""
    python_version: str = ""
    """The Python that the model was made with, "3.11.7"; "" where it is not said."""
    serving_input_example: str = ""
    """A file of the folder that holds a ready body for /invocations, or ""."""

    type_hints: bool = False
    """Whether the signature is made from type hints, so that the model takes a plain list instead of a table."""

    @property
    def columns(self) -> bool:
        """Whether the input is declared as a table with named columns."""
        return bool(self.inputs) and all(field.name and field.type != "tensor" for field in self.inputs or ())


def is_mlflow(folder: Path) -> bool:
    """Whether a folder is an MLflow model."""
    return (folder / FILE).is_file()


def describe(folder: Path) -> MlflowModel:
    """Read a model folder's `MLmodel`, blocking. Raises INVALID_INPUT for a file that is missing, damaged or hostile."""
    document = yaml_text.mapping(read_bounded(folder / FILE, _LARGEST, FILE), FILE)
    flavors = _flavors(document.get("flavors"))
    signature = document.get("signature")
    if not isinstance(signature, Mapping | None):
        raise invalid(f"{FILE}: the signature is {_kind(signature)}, expected an object")
    signature = signature or {}
    function = flavors.get(PYTHON_FUNCTION, {})
    example = document.get("saved_input_example_info")
    return MlflowModel(
        flavor=_native(flavors),
        flavors=flavors,
        inputs=_fields(signature, "inputs"),
        outputs=_fields(signature, "outputs"),
        params=_fields(signature, "params") or (),
        mlflow_version=_text(document, "mlflow_version"),
        run_id=_text(document, "run_id"),
        model_uuid=_text(document, "model_uuid"),
        model_id=_text(document, "model_id"),
        requirements=_requirements(folder),
        python_version=_python(folder, _text(function, "python_version")),
        serving_input_example=_text(example, "serving_input_path") if isinstance(example, Mapping) else "",
        type_hints=document.get("is_signature_from_type_hint") is True,
    )


def file_of(folder: Path, model: MlflowModel, flavor: str, *keys: str) -> Path | None:
    """The file or folder that one of a flavor's entries names, kept inside the model's folder; None when it names none.

    Raises INVALID_INPUT when it leads out.
    """
    for key in keys:
        if relative := _text(model.flavors.get(flavor, {}), key):
            return confine(folder, relative, f"{FILE}: {flavor}.{key}")
    return None


# --- the document ---


def _flavors(written: object) -> dict[str, Mapping[str, Any]]:
    if not isinstance(written, Mapping) or not written:
        raise invalid(f"{FILE}: 'flavors' is {_kind(written)}, expected an object with at least one flavor")
    flavors: dict[str, Mapping[str, Any]] = {}
    for name, entries in written.items():
        if not isinstance(name, str) or not isinstance(entries, Mapping | None):
            raise invalid(f"{FILE}: flavors.{quoted(str(name))} is {_kind(entries)}, expected an object")
        flavors[name] = entries or {}
    return flavors


def _native(flavors: Mapping[str, Mapping[str, Any]]) -> str:
    for name in (*_PREFERRED, *(name for name in flavors if name not in _NOT_NATIVE)):
        if name in flavors:
            return name
    return next((name for name in flavors if name != PYTHON_FUNCTION), PYTHON_FUNCTION)


def _text(entries: Mapping[str, Any], key: str) -> str:
    """A text; numbers that YAML saw in one are written again, whatever else there is counts as none."""
    value = entries.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    text = str(value)
    return text if len(text) <= 4096 and text.isprintable() else ""


# --- the signature ---


def _fields(signature: Mapping[str, Any], side: str) -> tuple[Field, ...] | None:
    """One side of a signature: a JSON list inside of a YAML text."""
    written = signature.get(side)
    if written is None:
        return None
    if isinstance(written, str):
        try:
            written = json.loads(written)
        except (ValueError, RecursionError):
            raise invalid(f"{FILE}: signature.{side} is no JSON") from None
    if not isinstance(written, list) or len(written) > _MOST_FIELDS:
        raise invalid(f"{FILE}: signature.{side} is {_kind(written)}, expected a list of at most {_MOST_FIELDS} columns or tensors")
    fields = tuple(_field(each, f"{FILE}: signature.{side}[{index}]") for index, each in enumerate(written))
    seen: set[str] = set()
    for name in filter(None, (field.name for field in fields)):  # a table may also have nothing but columns without names
        if name in seen:
            raise invalid(f"{FILE}: signature.{side} has two columns {quoted(name)}")
        seen.add(name)
    if seen and len(seen) < len(fields):
        raise invalid(f"{FILE}: signature.{side} has columns with names and columns without")
    return fields


def _field(written: object, where: str) -> Field:
    if not isinstance(written, Mapping):
        raise invalid(f"{where} is {_kind(written)}, expected an object")
    name = written.get("name")
    kind = written.get("type")
    required = written.get("required", not written.get("optional", False))
    if not isinstance(name, str | int | None) or not isinstance(kind, str) or not isinstance(required, bool):
        raise invalid(f"{where}: expected a 'name', a 'type' and 'required', of which one is of another kind")
    name = "" if name is None else str(name)
    try:
        name.encode()
    except UnicodeEncodeError:
        raise invalid(f"{where}: the name has half a surrogate pair") from None
    if kind == "tensor":
        return _tensor(name, required, written.get("tensor-spec"), where)
    if "default" in written:
        return Field(
            name, kind, required=False, shape=_shape(written["shape"], where) if written.get("shape") else None, default=written["default"]
        )
    return Field(name, kind, required) if kind in SCALARS else Field(name, kind, required, described=written)


def _tensor(name: str, required: bool, spec: object, where: str) -> Field:
    dtype = spec.get("dtype") if isinstance(spec, Mapping) else None
    if not isinstance(spec, Mapping) or not isinstance(dtype, str):
        raise invalid(f"{where}: a tensor needs a 'tensor-spec' with a dtype and a shape")
    return Field(name, "tensor", required, dtype, _shape(spec.get("shape"), where))


def _shape(written: object, where: str) -> tuple[int, ...]:
    if (
        not isinstance(written, Sequence)
        or isinstance(written, str)
        or len(written) > _MOST_DIMENSIONS
        or not all(type(size) is int and -1 <= size < 1 << 31 for size in written)
    ):
        raise invalid(f"{where}: the shape is no list of at most {_MOST_DIMENSIONS} integers from -1")
    return tuple(written)


# --- beside it ---


def _requirements(folder: Path) -> str:
    if not (folder / REQUIREMENTS).is_file():
        return ""
    try:
        return read_bounded(folder / REQUIREMENTS, _LARGEST, REQUIREMENTS).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise invalid(f"{REQUIREMENTS} is not UTF-8 text") from None


def _python(folder: Path, declared: str) -> str:
    """What the python_function flavor says, or python_env.yaml."""
    if not declared and (folder / PYTHON_ENV).is_file():
        declared = _text(yaml_text.mapping(read_bounded(folder / PYTHON_ENV, _LARGEST, PYTHON_ENV), PYTHON_ENV), "python")
    return declared if _VERSION.fullmatch(declared) else ""


def _kind(value: object) -> str:
    names = {type(None): "missing", str: "a text", list: "a list", dict: "an object", bool: "a boolean"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
