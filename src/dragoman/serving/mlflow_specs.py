"""The spec that an MLflow model folder makes: which runtime loads it, its signature in our terms, and the environment of its own code.

Called by repository.py. Nothing of the model is run; what a folder declares about itself is never a reason to trust it.
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dragoman.core.artifacts import TRUST, is_saved_model, looks_like_lightgbm, read_head
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import EMPTY, Environment, ModelSpec
from dragoman.core.tensors import BOOL, BYTES, FP32, FP64, INT32, INT64, Datatype, Form, Signature, TensorSpec, datatype_of
from dragoman.engines.requirements import from_file
from dragoman.serving.installed import unmet
from dragoman.serving.layouts import state_of
from dragoman.serving.mlflow_models import PYTHON_FUNCTION, REQUIREMENTS, SCALARS, Field, MlflowModel, describe, file_of
from dragoman.serving.python_models import ENGINE, python_of
from dragoman.serving.settings import quoted

RUNTIME = "mlflow"
INPUT = "input-0"
OUTPUT = "predict"
"""What a single input and output of the model's own code are called where its signature gives no names."""

_DATATYPES: Mapping[str, Datatype] = {
    "boolean": BOOL, "integer": INT32, "long": INT64, "float": FP32, "double": FP64,
    "string": BYTES, "binary": BYTES, "datetime": BYTES,
}  # fmt: skip
_JSON: Mapping[str, Mapping[str, Any]] = {
    "boolean": {"type": "boolean"}, "integer": {"type": "integer"}, "long": {"type": "integer"}, "float": {"type": "number"},
    "double": {"type": "number"}, "string": {"type": "string"}, "binary": {"type": "string"}, "datetime": {"type": "string"},
}  # fmt: skip
_NATIVE: Mapping[str, tuple[str, ...]] = {
    "sklearn": ("pickled_model",),
    "xgboost": ("data",),
    "lightgbm": ("data",),
    "onnx": ("data",),
    "pytorch": ("model_data",),
    "tensorflow": ("saved_model_dir", "data"),
}
"""Native flavor -> the entries that name its file."""
_RUNTIMES = {"pytorch": "torch", "tensorflow": "savedmodel"}
_PICKLES = frozenset({".pkl", ".pickle", ".joblib", ".skops"})
_KERAS = "it is in Keras's own format, not a SavedModel"
_MISSING = {"tensorflow": _KERAS, "keras": _KERAS}
_DEEPEST = 16


def spec_of(base: ModelSpec, folder: Path, *, batch_size: int = 0, environments: str = "auto", code: bool = True) -> ModelSpec:
    """The spec of an MLflow folder over the defaults in `base`. `batch_size` and `environments`: see python_models.

    Without `code` the folder came as data, and none of its own code may be run, trusted or not.

    Raises INVALID_INPUT for a folder that is damaged, UNSUPPORTED for one that would run code and is not trusted.
    """
    model = describe(folder)
    native = _native(folder, model)
    signature = _signature(model, native[0] if native else "")
    parameters = [_parameter(field) for field in model.params]
    facts = {"params": parameters, "columns": model.columns, "mlflow_version": model.mlflow_version}
    if native is not None:
        runtime, artifact = native
        function = model.flavors.get(PYTHON_FUNCTION, EMPTY)
        facts |= {
            "runtime": runtime,
            "predict_fn": str(function.get("predict_fn") or OUTPUT),
            "model_class": str(model.flavors[model.flavor].get("model_class") or ""),
        }
        # TensorFlow has a process of its own unless the operator says otherwise
        spec = replace(base, artifact=str(artifact), engine=base.engine or (ENGINE if runtime == "savedmodel" else ""))
    else:
        _refuse_code(base, model, code=code)
        spec = _python(base, folder, model, batch_size, environments)
        facts |= _loader(folder, model)
    spec = replace(spec, runtime=RUNTIME, signature=signature, arguments={**spec.arguments, RUNTIME: facts})
    return spec.with_revision(state_of(folder))


def _native(folder: Path, model: MlflowModel) -> tuple[str, Path] | None:
    """The runtime of our own that loads the folder, and its file; None where only the model's own code can."""
    flavor = model.flavor
    path = file_of(folder, model, flavor, *_NATIVE[flavor]) if flavor in _NATIVE else None
    if path is None:
        return None
    if flavor == "tensorflow":
        path = next((each for each in (path, path / "model") if is_saved_model(each)), None)
        return None if path is None else (_RUNTIMES[flavor], path)
    if flavor == "pytorch" and path.is_dir():
        inside = [path / name for name in ("model.pt2", "model.pth", "model.pt") if (path / name).is_file()]
        path = inside[0] if inside else path
        if path.suffix != ".pt2" and model.flavors[flavor].get("serialization_format", "pickle") == "pickle" and not _is_script(path):
            return None
    if flavor == "lightgbm" and path.is_file() and not looks_like_lightgbm(read_head(path)):
        return "sklearn", path
    if flavor == "xgboost" and path.suffix in _PICKLES:
        return "sklearn", path
    return _RUNTIMES.get(flavor, flavor), path


def _is_script(path: Path) -> bool:
    """Whether a file of PyTorch is TorchScript, whose archive has its code beside the pickles; a pickled module has none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist()[:10_000])
    except (OSError, zipfile.BadZipFile):
        return False


# --- the model's own code ---


def _refuse_code(base: ModelSpec, model: MlflowModel, *, code: bool) -> None:
    if PYTHON_FUNCTION not in model.flavors:
        raise ServingError(
            Kind.UNSUPPORTED,
            f"model '{base.name}' has the MLflow flavor {quoted(model.flavor)} only, for which there is no runtime",
            what="model",
        )
    if not code or base.arguments.get("trust_pickle") is not True:
        what = _MISSING.get(model.flavor, "no runtime of this server reads it")
        raise ServingError(
            Kind.UNSUPPORTED,
            f"model '{base.name}' is an MLflow {model.flavor} model: {what}, and MLflow's python_function, which can load it in a process of "
            f"its own, runs its author's code; {TRUST}",
            what="model",
        )


def _python(base: ModelSpec, folder: Path, model: MlflowModel, batch_size: int, environments: str) -> ModelSpec:
    """A model that MLflow's python_function loads: in a process of its own, with the packages that the folder asks for."""
    environment, notes = environment_of(model, environments)
    # Nothing says that rows of different callers may be joined, so only the operator may.
    return replace(
        base,
        engine=ENGINE,
        artifact=str(folder),
        environment=environment,
        batch=replace(base.batch, max_size=batch_size or 1),
        warnings=(*base.warnings, *notes),
    )


def environment_of(model: MlflowModel, environments: str) -> tuple[Environment | None, list[str]]:
    """The virtualenv that a folder's requirements.txt asks for, None when this Python will do, and what there is to say about it.

    Raises INVALID_INPUT for a requirements.txt that may not be installed.
    """
    if environments == "never":
        return None, []
    python, note = python_of(model.python_version or None)
    options, requirements = from_file(model.requirements, REQUIREMENTS) if model.requirements else ((), ())
    lines = [requirement.line for requirement in requirements]
    wanted = bool(unmet(lines)) or bool(python) or environments == "always"
    if not wanted or not (lines or options or python):
        return None, [note] if note else []
    return Environment(python, (), model.requirements if lines else ""), [note] if note else []


def _loader(folder: Path, model: MlflowModel) -> dict[str, Any]:
    """What python_function needs where MLflow is not in the environment: the module, the code beside the model, and its data."""
    function = model.flavors[PYTHON_FUNCTION]
    places = {}
    for key in ("code", "data"):
        path = file_of(folder, model, PYTHON_FUNCTION, key)
        places[key] = str(path) if path is not None else ""
    listed = model.type_hints and len(model.inputs or ()) == 1
    return {"loader_module": str(function.get("loader_module") or ""), "flavor": model.flavor, "listed": listed, **places}


# --- the signature ---


def _signature(model: MlflowModel, runtime: str) -> Signature | None:
    """The signature in our terms; None where the runtime's own says more."""
    inputs = model.inputs
    reads = frozenset(field.name for field in model.params)
    if runtime and not model.columns and runtime != "torch":
        named = tuple(_tensor(field, "") for field in inputs or () if field.name and field.type == "tensor")
        return Signature(inputs=named, outputs=_outputs(model), reads=reads) if named or model.outputs else None
    if inputs is None:
        return Signature(outputs=_outputs(model), batch=True, reads=reads) if model.outputs or reads else None
    nested = next((field for field in inputs if field.type not in SCALARS and field.type != "tensor"), None)
    if nested is not None and not runtime:
        return _rows(model, inputs, reads)
    if nested is not None:
        raise ServingError(Kind.UNSUPPORTED, f"the column {quoted(nested.name)} is of MLflow's type {quoted(nested.type)}", what="model")
    specs = tuple(_tensor(field, INPUT if len(inputs) == 1 else f"input-{index}") for index, field in enumerate(inputs))
    outputs = _outputs(model)
    if not runtime and len(inputs) > 1 and not any(field.name or field.type == "tensor" for field in inputs):
        specs = (_table(inputs),)
    batch = all(spec.shape is None or spec.shape[:1] == (-1,) for spec in (*specs, *outputs))
    return Signature(inputs=specs, outputs=outputs, batch=batch, reads=reads)


def _outputs(model: MlflowModel) -> tuple[TensorSpec, ...]:
    fields = model.outputs or ()
    if any(field.type not in SCALARS and field.type != "tensor" for field in fields):
        return ()  # nested answers are what they are
    if len(fields) > 1 and not fields[0].name and fields[0].type != "tensor":
        return (_table(fields, OUTPUT),)
    return tuple(_tensor(field, OUTPUT if len(fields) == 1 else f"{OUTPUT}-{index}") for index, field in enumerate(fields))


def _table(fields: Sequence[Field], name: str = INPUT) -> TensorSpec:
    """Columns without names, side by side."""
    types = {_DATATYPES[field.type] for field in fields}
    datatype = types.pop() if len(types) == 1 else BYTES if BYTES in types else FP64
    return TensorSpec(name, datatype, (-1, len(fields)))


def _tensor(field: Field, name: str) -> TensorSpec:
    if field.type == "tensor":
        return TensorSpec(field.name or name, _datatype(field.dtype), field.shape, not field.required, native=field.type)
    return TensorSpec(field.name or name, _DATATYPES[field.type], (-1,), not field.required, native=field.type)


def _datatype(dtype: str) -> Datatype | None:
    """Of a numpy name; None for one that no tensor has here."""
    if dtype in ("str", "object", "bytes", "string"):
        return BYTES
    try:
        return datatype_of(np.dtype(dtype))
    except TypeError:
        return None


def _rows(model: MlflowModel, inputs: Sequence[Field], reads: frozenset[str]) -> Signature:
    """Nested columns: a row is an object, whose fields are what JSON makes of them."""
    properties = {field.name or INPUT: _schema(field.described or {"type": field.type}) for field in inputs}
    required = [field.name or INPUT for field in inputs if field.required]
    return Signature(
        Form.ROWS,
        tuple(
            TensorSpec(field.name or INPUT, _DATATYPES.get(field.type, BYTES), (-1,), not field.required, native=field.type)
            for field in inputs
        ),
        _outputs(model),
        batch=True,
        reads=reads,
        input_schema={"type": "object", "properties": properties, "required": required},
    )


def _schema(described: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """JSON Schema of a column type as MLflow writes it. Raises INVALID_INPUT when it is nested too deep."""
    kind = described.get("type")
    if depth > _DEEPEST:
        raise invalid(f"a column's type is nested deeper than {_DEEPEST} levels")
    if kind == "array" and isinstance(described.get("items"), Mapping):
        return {"type": "array", "items": _schema(described["items"], depth + 1)}
    if kind == "object" and isinstance(described.get("properties"), Mapping):
        fields = {str(name): each for name, each in described["properties"].items() if isinstance(each, Mapping)}
        needed = [name for name, each in fields.items() if each.get("required", True)]
        return {"type": "object", "properties": {name: _schema(each, depth + 1) for name, each in fields.items()}, "required": needed}
    if kind == "map" and isinstance(described.get("values"), Mapping):
        return {"type": "object", "additionalProperties": _schema(described["values"], depth + 1)}
    return dict(_JSON.get(str(kind), {}))


def _parameter(field: Field) -> dict[str, Any]:
    return {"name": field.name, "type": field.type, "list": field.shape is not None}
