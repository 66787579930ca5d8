"""Reads model-settings.json of MLServer repositories into ModelSettings. Called by serving/repository.

Only what a served model needs is taken: the implementation, which stands for one of our runtimes, where the artifact lies, declared inputs
and outputs, and adaptive batching. Environment variables and settings.json of MLServer itself are not read.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote

import orjson

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import BatchPolicy
from dragoman.core.tensors import DATATYPES, Shape, TensorSpec
from dragoman.serving.paths import confine
from dragoman.serving.settings import LARGEST_FILE, ModelSettings, limited, quoted

FILE = "model-settings.json"

MLFLOW = "mlflow"
"""The runtime of folders with an MLmodel, which say themselves what loads them."""
_RUNTIMES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "mlserver_sklearn.SKLearnModel": ("sklearn", ("model.joblib", "model.pickle", "model.pkl", "model.skops")),
    "mlserver_xgboost.XGBoostModel": ("xgboost", ("model.bst", "model.json", "model.ubj")),
    "mlserver_lightgbm.LightGBMModel": ("lightgbm", ("model.bst", "model.txt")),
    "mlserver_mlflow.MLflowRuntime": (MLFLOW, ()),
}
"""Implementation -> our runtime, and the files that it looks for in a folder."""
_ONNX = ("onnx", ("model.onnx",))
"""MLServer has no ONNX runtime of its own; several packages do, all with the word in their name."""
_TENSOR_KEYS = frozenset({"name", "datatype", "shape", "parameters"})
_TAKEN = frozenset({"name", "implementation", "platform", "inputs", "outputs", "max_batch_size", "max_batch_time", "parameters"})
_TAKEN_PARAMETERS = frozenset({"uri", "version", "extra"})
_ARRAYS = {"content_type": "np"}
"""Asks for what is done anyway: numbers as they are."""
_MOST_DIMENSIONS = 32
_LONGEST_DELAY_S = 3600.0
_LONGEST_VERSION = 255
_LARGEST_BATCH = (1 << 31) - 1

_T = TypeVar("_T")


def read_settings(text: str | bytes, folder: Path) -> ModelSettings:
    """What the file asks for. `folder` is where it lies; a relative `uri` must stay inside it.

    Blocks on the disk. Raises INVALID_INPUT for what is not a settings file, names no implementation or an artifact that is not there,
    UNSUPPORTED for an implementation that there is no runtime for, TOO_LARGE beyond one MiB.
    """
    folder = folder.absolute()
    source = f"{FILE} in '{folder.name}'"
    written = _object(_parse(text, source), "the file", source)
    name = _value(written, "name", str, "", source) or folder.name
    source = f"{FILE} of model {quoted(name)}"
    parameters = _object(written.get("parameters") or {}, "parameters", source)
    runtime, files = _runtime(written, source)
    version = _value(parameters, "version", str, "", source)
    if "/" in version or not version.isprintable() or len(version) > _LONGEST_VERSION:
        raise invalid(f"{source}: parameters.version: {quoted(version)} cannot stand in a URL", what="version")
    batch = _batch(written, source)
    return ModelSettings(
        name=name,
        source=source,
        runtime=runtime,
        platform=_value(written, "platform", str, "", source),
        artifact=_artifact(_value(parameters, "uri", str, "", source), files, folder, source),
        version=version,
        batch=batch,
        joins=batch is not None,
        inputs=tuple(_tensors(written, "inputs", source)),
        outputs=tuple(_tensors(written, "outputs", source)),
        arguments=_object(parameters.get("extra") or {}, "parameters.extra", source),
        warnings=limited(_warnings(written, parameters, batch, name, folder, source), source),
    )


def _parse(text: str | bytes, source: str) -> Any:
    if len(text) > LARGEST_FILE:
        raise ServingError(Kind.TOO_LARGE, f"{source}: it has more than {LARGEST_FILE} bytes", what="body")
    try:
        return orjson.loads(text.removeprefix("\ufeff") if isinstance(text, str) else text.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise invalid(f"{source}: line {error.lineno}, column {error.colno}: it is not JSON ({error.msg.partition(':')[0]})") from None


def _object(value: Any, where: str, source: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise invalid(f"{source}: {where}: expected a JSON object, not {_kind(value)}")
    return value


def _value(written: Mapping[str, Any], key: str, kind: type[_T], default: _T, source: str) -> _T:
    """The value of a key that is there with the right type, or not at all (null is not at all)."""
    value = written.get(key)
    if value is None:
        return default
    if not isinstance(value, kind) or isinstance(value, bool):
        raise invalid(f"{source}: {key}: expected {_NAMES[kind]}, not {_kind(value)}")
    return value


_NAMES: Mapping[type, str] = {
    str: "text",
    int: "a whole number",
    list: "a list",
    dict: "an object",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _kind(value: object) -> str:
    return _NAMES[type(value)]


def _runtime(written: Mapping[str, Any], source: str) -> tuple[str, tuple[str, ...]]:
    path = _value(written, "implementation", str, "", source)
    if not path:
        raise invalid(f"{source}: expected implementation, such as {next(iter(_RUNTIMES))}")
    package, _, rest = path.partition(".")
    # Classes are exported by the package and may be named by the module that defines them, too.
    known = _RUNTIMES.get(f"{package}.{rest.rpartition('.')[2]}")
    if known is None and "onnx" in path.lower():
        known = _ONNX
    if known is None:
        served = ", ".join(_RUNTIMES)
        raise ServingError(
            Kind.UNSUPPORTED,
            f"{source}: implementation {quoted(path)} cannot be served; expected one of {served}, or an ONNX one",
            what="model",
        )
    return known


def _artifact(uri: str, files: tuple[str, ...], folder: Path, source: str) -> Path:
    """The file that the runtime opens, or its folder when that has none of the names that the implementation looks for."""
    where = f"{source}: parameters.uri"
    path = _located(uri, folder, where)
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except OSError as error:
        raise invalid(f"{where}: {quoted(uri)} cannot be looked at ({error.strerror})") from None
    if is_file:
        return path
    if not is_folder:
        raise invalid(f"{where}: there is no file or folder {quoted(uri)}")
    for name in files:
        candidate = confine(path, name, where)
        if candidate.is_file():
            return candidate
    return path


def _located(uri: str, folder: Path, where: str) -> Path:
    scheme, colon, rest = uri.partition(":")
    path = uri
    if colon and scheme == "file":
        # file:///absolute, file:/absolute or file:relative; a host between the slashes is passed over, as MLServer does.
        path = unquote("/" + rest[2:].partition("/")[2] if rest.startswith("//") else rest)
    elif colon and rest.startswith("//"):
        raise ServingError(Kind.UNSUPPORTED, f"{where}: {quoted(uri)} is an address, and only files can be read", what="model")
    if path.startswith("/"):
        return Path(path)  # whoever wrote an absolute path meant that file
    # A relative one must not climb out of the folder that it came with.
    return confine(folder, path, where) if PurePosixPath(path).parts else folder.resolve()


def _batch(written: Mapping[str, Any], source: str) -> BatchPolicy | None:
    """Adaptive batching needs both a size and a time, as in MLServer; without, the server's own policy holds."""
    size = _value(written, "max_batch_size", int, 0, source)
    time = written.get("max_batch_time", 0.0)
    if not 0 <= size <= _LARGEST_BATCH:
        raise invalid(f"{source}: max_batch_size is {size}, expected 0 or more")
    if isinstance(time, bool) or not isinstance(time, int | float) or not 0 <= time <= _LONGEST_DELAY_S:
        raise invalid(f"{source}: max_batch_time: expected seconds from 0 to {_LONGEST_DELAY_S:.0f}, not {quoted(str(time))}")
    return BatchPolicy(max_size=size, max_delay_s=float(time)) if size > 1 and time > 0 else None


def _tensors(written: Mapping[str, Any], key: str, source: str) -> Iterator[TensorSpec]:
    names: set[str] = set()
    for index, item in enumerate(_value(written, key, list, [], source)):
        where = f"{source}: {key}[{index}]"
        tensor = _object(item, f"{key}[{index}]", source)
        name, datatype = _value(tensor, "name", str, "", where), _value(tensor, "datatype", str, "", where)
        if not name:
            raise invalid(f"{where}: expected a name")
        if name in names:
            raise invalid(f"{where}: {quoted(name)} is listed twice")
        names.add(name)
        known = DATATYPES.get(datatype)
        if known is None or known.kind == "complex":
            raise invalid(f"{where}: datatype {quoted(datatype)} is not one of the Open Inference Protocol's")
        yield TensorSpec(name, known, _shape(tensor, where))


def _shape(tensor: Mapping[str, Any], where: str) -> Shape:
    shape = tensor.get("shape")
    if not isinstance(shape, list) or len(shape) > _MOST_DIMENSIONS or any(type(d) is not int or d < -1 for d in shape):
        raise invalid(f"{where}: shape: expected a list of whole numbers, each 0 or more, or -1 for one that varies")
    # MLServer publishes shapes and never checks them: people write [1, 4] for a model that takes any number of rows of 4.
    return (-1, *shape[1:]) if shape else ()


def _warnings(
    written: Mapping[str, Any], parameters: Mapping[str, Any], batch: BatchPolicy | None, name: str, folder: Path, source: str
) -> Iterator[str]:
    for key, value in written.items():
        if key not in _TAKEN and value not in (None, "", [], {}, False):
            yield f"{source}: {quoted(key)} has no effect here"
    for key, value in parameters.items():
        if key not in _TAKEN_PARAMETERS and value not in (None, "", [], {}, False) and {key: value} != _ARRAYS:
            yield f"{source}: parameters.{quoted(key)} has no effect here"
    for kind in ("inputs", "outputs"):
        for index, tensor in enumerate(written.get(kind) or ()):
            for key in tensor:
                if key not in _TENSOR_KEYS or (key == "parameters" and tensor[key] not in (None, {}, _ARRAYS)):
                    yield f"{source}: {kind}[{index}].{quoted(key)} has no effect here"
    if batch is None and (written.get("max_batch_size") or written.get("max_batch_time")):
        yield f"{source}: max_batch_size and max_batch_time have no effect here unless both are given, the first above 1"
    if folder.name not in {name, parameters.get("version")}:
        yield f"{source}: the model's name differs from its folder's, '{folder.name}'"
