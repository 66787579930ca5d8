"""What clients of TensorFlow Serving read when something is wrong: texts, the answer to every kind of error, and TensorFlow's type names.

Users and their tests match on these texts, so they are the protocol's and not ours. Called by the other modules of this folder.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from dragoman.core import tensors
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.tensors import Datatype, Shape
from dragoman.dialects import Answer, check_table
from dragoman.dialects.json import Fault, JsonSyntaxError, NumbersError
from dragoman.dialects.refusals import words

QUOTE_BYTES = 256
"""JSON values, keys and names that a message quotes are cut to this many bytes."""

ANSWERS: Mapping[Kind, tuple[str, int]] = {
    Kind.INVALID_INPUT: ("INVALID_ARGUMENT", 400),
    Kind.NOT_FOUND: ("NOT_FOUND", 404),
    Kind.NOT_READY: ("UNAVAILABLE", 503),
    Kind.CONFLICT: ("ABORTED", 409),
    Kind.OVERLOADED: ("UNAVAILABLE", 503),  # what TensorFlow Serving says when its batching queue is full
    Kind.TIMEOUT: ("DEADLINE_EXCEEDED", 504),
    Kind.CANCELLED: ("CANCELLED", 499),
    Kind.MODEL_FAILED: ("INTERNAL", 500),
    Kind.UNSUPPORTED: ("UNIMPLEMENTED", 501),
    Kind.UNAVAILABLE: ("UNAVAILABLE", 503),
    Kind.TOO_LARGE: ("RESOURCE_EXHAUSTED", 413),
    Kind.UNAUTHENTICATED: ("UNAUTHENTICATED", 401),
    Kind.FORBIDDEN: ("PERMISSION_DENIED", 403),
    Kind.INTERNAL: ("INTERNAL", 500),
}
"""Kind -> canonical status name and HTTP status."""
check_table(ANSWERS)

TYPE_NAMES: Mapping[Datatype, str] = {
    tensors.BOOL: "bool",
    tensors.UINT8: "uint8",
    tensors.UINT16: "uint16",
    tensors.UINT32: "uint32",
    tensors.UINT64: "uint64",
    tensors.INT8: "int8",
    tensors.INT16: "int16",
    tensors.INT32: "int32",
    tensors.INT64: "int64",
    tensors.FP16: "half",
    tensors.BF16: "bfloat16",
    tensors.FP32: "float",
    tensors.FP64: "double",
    tensors.BYTES: "string",
    tensors.COMPLEX64: "complex64",
    tensors.COMPLEX128: "complex128",
}
"""TensorFlow's names, as its messages write them; metadata writes them in capitals behind DT_."""

_PARSE_ERRORS = (
    (r"unexpected character, expected (a JSON value|a valid root value)|invalid literal|no digit after sign|.*BOM", "Invalid value"),
    (r"trailing comma", "Invalid value"),
    (r".*expected a string key", "Missing a name for object member"),
    (r".*expected ':'", "Missing a colon after a name of object member"),
    (r".*expected ',' or '}'", "Missing a comma or } after an object member"),
    (r"number is infinity", "Number too big to be stored in double"),
    (r".*expected ',' or ']'", "Missing a comma or ] after an array element"),
)
"""How the reason of a JsonSyntaxError begins -> what TensorFlow Serving's parser calls it; other reasons are told as they are."""


def refusal(error: ServingError) -> Answer:
    """The answer to any error: {"error": text} and the status of its kind. A wrong method is 400, for this protocol has no 405."""
    status = 400 if error.what == "method" else ANSWERS[error.kind][1]
    return Answer(status, orjson.dumps({"error": words(error, None)}))


# --- paths, models, signatures ---


def malformed(method: str, path: bytes) -> ServingError:
    return invalid(f"Malformed request: {method} {cut(path.decode('utf-8', 'replace'))}", "path")


def no_model_name() -> ServingError:
    return invalid("Missing model name in request.", "path")


def version_too_large(version: str) -> ServingError:
    return invalid(f"Failed to convert version: {cut(version)} to numeric.", "version")


def no_servable(name: str, version: str) -> ServingError:
    which = f"Specific({name}, {version})" if version else f"Latest({name})"
    return ServingError(Kind.NOT_FOUND, f"Servable not found for request: {which}", what="version" if version else "model")


def no_label(label: str) -> ServingError:
    return invalid(f"Unrecognized servable version label: {label}", "label")


def no_status(name: str, version: str) -> ServingError:
    text = f"Could not find version {version} of model {name}" if version else f"Could not find any versions of model {name}"
    return ServingError(Kind.NOT_FOUND, text, what="version" if version else "model")


def no_signature(name: str) -> ServingError:
    return invalid(f'Serving signature name: "{cut(name)}" not found in signature def', "signature")


def no_signature_found(name: str) -> ServingError:
    """Of classify and regress, which have other words for it than predict."""
    return invalid(f"No signature was found with the name: {cut(name)}", "signature")


# --- the request as a whole ---


def not_json(error: JsonSyntaxError) -> ServingError:
    if "empty" in error.reason:
        return empty_document()
    known = (text for pattern, text in _PARSE_ERRORS if re.match(pattern, error.reason))
    reason = next(known, error.reason[:1].upper() + error.reason[1:])
    return invalid(f"JSON Parse error: {reason}. at offset: {error.offset}", "body")


def empty_document(why: str = "") -> ServingError:
    return invalid("JSON Parse error: The document is empty" + (f" ({why})" if why else ""), "body")


def document_error(body: bytes, text: str) -> ServingError:
    """An error about the document as a whole, which is quoted as it was sent."""
    return invalid(f"JSON Value: {_start(body)} {text}", "body")


# --- rows and values ---


def in_row(row: int, key: str, text: str, canonical: str = "INVALID_ARGUMENT") -> ServingError:
    """An error of one value of row format; `key` is "" for a row that is a plain value."""
    return invalid(f"Failed to process element: {row}{f' key: {cut(key)}' if key else ''} of 'instances' list. Error: {canonical}: {text}")


def row_keys(row: int, value: object, names: Iterable[str]) -> ServingError:
    return invalid(
        f"Failed to process element: {row} of 'instances' list. JSON object: {quoted(value)} keys must be equal to: {','.join(sorted(names))}"
    )


def other_shape(first: Shape, other: Shape) -> str:
    """Why a row's value does not go with that of the first row."""
    want, got = tensors.element_count(first), tensors.element_count(other)
    if want != got:
        return f"Expecting tensor size: {want} but got: {got}"
    return f"Expecting shape {shape_text(first)} but got: {shape_text(other)}"


def value_fault(error: NumbersError, offender: object) -> str:
    """Why a JSON value is not a tensor. `offender` is what stands at the error's path."""
    match error.fault:
        case Fault.LENGTH:
            return f"Encountered list at unexpected size: {error.got} at level: {error.level} expected size: {error.expected}"
        case Fault.LIST:
            return f"Encountered list at unexpected level: {error.level} expected < {error.expected}"
        case Fault.ELEMENT:
            return (
                f"JSON Value: {quoted(offender)} found at incorrect level: {error.level + 1} in the JSON DOM. "
                f"Expected at level: {error.expected}"
            )
        case Fault.DATATYPE:
            return f"Conversion of JSON Value: {quoted(offender)} to type: {TYPE_NAMES[error.datatype]}"
        case Fault.DEPTH:
            return f"Encountered lists nested deeper than {error.expected} levels"
    if error.datatype is tensors.BYTES and type(offender) is dict:
        if is_b64(offender):
            return "Unable to base64 decode"
        return f"JSON Value: {quoted(offender)} not formatted correctly for base64 data"
    return f"JSON Value: {quoted(offender)} Type: {error.json_type} is not of expected type: {TYPE_NAMES[error.datatype]}"


def is_b64(value: object) -> bool:
    """Whether a JSON value is an object with the one key "b64" and a string under it: binary data, well-formed or not."""
    return type(value) is dict and len(value) == 1 and type(value.get("b64")) is str


def quoted(value: object) -> str:
    """JSON text of a value, cut."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    try:
        return cut(orjson.dumps(value, default=_stand_in).decode())
    except (TypeError, ValueError):  # nested deeper than orjson writes
        return type(value).__name__


def cut(text: str) -> str:
    """At most QUOTE_BYTES of a text, and no half characters."""
    if len(text) * 4 <= QUOTE_BYTES:
        return text
    return _start(text.encode("utf-8", "replace"))


def _start(text: bytes) -> str:
    return text[:QUOTE_BYTES].decode("utf-8", "ignore")


def _stand_in(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value.tolist()


def shape_text(shape: Shape) -> str:
    return f"[{','.join(map(str, shape))}]"
