"""Model status and model metadata, as the JSON forms of TensorFlow Serving's messages. Called by rest.py."""

from collections.abc import Iterable, Mapping
from typing import Any

from dragoman.core.lifecycle import State
from dragoman.core.tensors import Signature, TensorSpec
from dragoman.dialects.tfserving.messages import ANSWERS, TYPE_NAMES
from dragoman.serving.gateway import Entry, VersionStatus

DEFAULT_SIGNATURE = "serving_default"
_PREDICT_METHOD = "tensorflow/serving/predict"

STATES: Mapping[State, str] = {
    State.LOADING: "LOADING",
    State.READY: "AVAILABLE",
    State.DRAINING: "UNLOADING",
    State.FAILED: "END",
    State.GONE: "END",
}
if len(STATES) != len(State):
    raise TypeError("every state of a version has a name in TensorFlow Serving's terms")


def status(versions: Iterable[VersionStatus]) -> dict[str, Any]:
    """GetModelStatusResponse."""
    return {"model_version_status": [_version(each) for each in versions]}


def metadata(entry: Entry) -> dict[str, Any]:
    """GetModelMetadataResponse. The doubled key is the protocol's: a map inside a message of that name."""
    return {
        "model_spec": {"name": entry.name, "signature_name": "", "version": entry.version},
        "metadata": {"signature_def": {"signature_def": {name: _signature(each) for name, each in _named(entry.signatures)}}},
    }


def _version(each: VersionStatus) -> dict[str, Any]:
    failed = each.state is State.FAILED or each.kind is not None
    code = ANSWERS[each.kind][0] if each.kind is not None else "UNKNOWN"
    return {
        "version": each.version,
        "state": "START" if each.waiting else STATES[each.state],
        "status": {"error_code": code if failed else "OK", "error_message": each.reason if failed else ""},
    }


def _named(signatures: Mapping[str, Signature]) -> list[tuple[str, Signature]]:
    """Signatures under the names by which a request can ask for them; the schemas of other operations ("@...") are not among those."""
    named = {DEFAULT_SIGNATURE: signatures[""]} if "" in signatures else {}
    named.update((name, each) for name, each in signatures.items() if name and not name.startswith("@"))
    return list(named.items())


def _signature(signature: Signature) -> dict[str, Any]:
    return {
        "inputs": {spec.name: _tensor(spec, signature) for spec in signature.inputs},
        "outputs": {spec.name: _tensor(spec, signature) for spec in signature.outputs},
        "method_name": signature.method or _PREDICT_METHOD,
        "defaults": {},
    }


def _tensor(spec: TensorSpec, signature: Signature) -> dict[str, Any]:
    dimensions = [{"size": str(size), "name": ""} for size in spec.shape or ()]
    return {
        # Whoever takes any number (datatype None) is told as the type that numbers with a point arrive in.
        "dtype": f"DT_{TYPE_NAMES[spec.datatype].upper()}" if spec.datatype is not None else "DT_DOUBLE",
        "name": (not signature.whole and spec.native) or f"{spec.name}:0",  # of a whole request it is a type
        "tensor_shape": {"dim": dimensions, "unknown_rank": spec.shape is None},
    }
