"""The program that `dragoman convert` runs in its virtualenv: a request (JSON) in, a folder of ONNX graphs and a report (JSON) out.

It needs TensorFlow, tf2onnx, onnxruntime, and nothing of the server's environment but this package.
"""

import json
import logging
import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dragoman.conversion import MARK, comparing, folders
from dragoman.conversion.graphs import Graphs
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import Model, ModelSpec
from dragoman.core.tensors import Signature
from dragoman.runtimes import onnx, savedmodel
from dragoman.runtimes.savedmodel_signatures import DEFAULT


def main(request: str, report: str) -> None:
    """Read the request's file, convert, write the report's: what `convert` returns, or {"error": kind, "message"}."""
    wish = json.loads(Path(request).read_text("utf-8"))
    try:
        answer = convert(wish)
    except ServingError as error:
        answer = {"error": error.kind.value, "message": error.message}
    Path(report).write_text(json.dumps(answer), "utf-8")


def convert(wish: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the SavedModel `source` into the empty folder `target`.

    `name` is for messages; `tags`, `opset`, `tolerance`, `signatures` (all when empty) and `samples` (signature -> inputs) say how. Returns
    {"signatures": {name: differences}, "left_out": {name: reason}, "default", "versions"}. Raises ServingError when nothing can be converted,
    or not what was named.
    """
    spec = ModelSpec(wish["name"], artifact=wish["source"], arguments={"saved_model_tags": wish["tags"], "model_warmup": False})
    original = savedmodel.load(spec)  # refuses graphs that reach out of the model, before any of them runs
    _quiet()
    import tensorflow

    known = {key: signature for key, signature in original.signatures.items() if key}
    named = wish["signatures"] or list(known)
    for key in named:
        if key not in known:
            raise invalid(f"model '{spec.name}' has no signature '{key}'; it has {', '.join(map(repr, known))}", what="signature")
    graphs = Graphs(tensorflow, wish["source"], wish["tags"])
    done: dict[str, folders.Converted] = {}
    found: dict[str, dict[str, float]] = {}
    left_out: dict[str, str] = {}
    for key in named:
        print(f"{MARK}signature '{key}'", flush=True)
        try:
            done[key], found[key] = _one(graphs, original, key, known[key], wish)
        except ServingError as error:
            left_out[key] = error.message
    graphs.close()
    if not done or (wish["signatures"] and left_out):
        raise ServingError(Kind.UNSUPPORTED, f"model '{spec.name}' cannot be converted: {_reasons(left_out)}", what="model")
    versions = {package: version(package) for package in ("tf2onnx", "onnx", "onnxruntime")} | {"tensorflow": tensorflow.__version__}
    default = DEFAULT if DEFAULT in done else min(done)
    folders.write(Path(wish["target"]), done, default, {"made_with": versions, "left_out": left_out})
    onnx.load(ModelSpec(spec.name, artifact=wish["target"])).close()
    return {"signatures": found, "left_out": left_out, "default": default, "versions": versions}


def _one(
    graphs: Graphs, original: Model, key: str, signature: Signature, wish: Mapping[str, Any]
) -> tuple[folders.Converted, dict[str, float]]:
    """One signature, converted, loaded and compared. Raises ServingError with the reason when any of it fails."""
    if any(spec.optional for spec in signature.inputs):
        raise ServingError(Kind.UNSUPPORTED, "it has inputs with default values, which ONNX has not")
    converted = folders.Converted(signature, *graphs.convert(signature, wish["opset"]))
    scratch = Path(tempfile.mkdtemp(dir=Path(wish["target"]).parent))
    try:
        folders.write(scratch, {key: converted}, key, {})
        model = onnx.load(ModelSpec(wish["name"], artifact=str(scratch)))
        _alike(signature, model.signatures[key])
        difference = comparing.compare(original, model, key, wish["samples"].get(key), wish["tolerance"])
        model.close()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return converted, {"absolute": difference.absolute, "relative": difference.relative, "samples": difference.samples}


def _alike(original: Signature, converted: Signature) -> None:
    """Raise UNSUPPORTED unless clients can call the converted signature as the original: ONNX has no counterpart for some types."""
    for kind, ours, theirs in (("input", original.inputs, converted.inputs), ("output", original.outputs, converted.outputs)):
        for one, other in zip(ours, theirs, strict=True):
            if (one.name, one.datatype) != (other.name, other.datatype):
                raise ServingError(
                    Kind.UNSUPPORTED, f"its {kind} '{one.name}' is {one.datatype}, for which tf2onnx writes {other.datatype}"
                )


def _reasons(left_out: Mapping[str, str]) -> str:
    """Each reason once, with the signatures that have it."""
    by_reason: dict[str, list[str]] = {}
    for key, reason in left_out.items():
        by_reason.setdefault(reason, []).append(f"'{key}'")
    return "; ".join(f"signature {', '.join(keys)}: {reason}" for reason, keys in by_reason.items())


def _quiet() -> None:
    """tf2onnx says in its log what the report says better."""
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    tf2onnx.logging.set_level(logging.CRITICAL)
