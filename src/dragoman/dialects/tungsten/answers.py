"""Predictions as Tungsten's JSON, outputs included. Called by rest.py and demo.py.

Files are `data:<mime>;base64,` wherever they stand. NaN and infinities are null: JSON has no words for them. Bytes that no schema calls a file
are text where they are UTF-8, else a data URI.
"""

import asyncio
import base64
import json
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

from dragoman.core.errors import Kind, ServingError
from dragoman.core.predictions import Progress
from dragoman.core.tensors import Blob, Value
from dragoman.serving.predictions import View

STATUS = {
    Progress.PENDING: "pending",
    Progress.CLAIMED: "pending",
    Progress.RUNNING: "running",
    Progress.SUCCEEDED: "success",
    Progress.FAILED: "failed",
    Progress.CANCELLED: "failed",
}
_OFF_LOOP_FROM = 64 << 10
"""Bytes from which outputs are written in a thread: base64 and JSON of a megabyte take a millisecond."""
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}(;[A-Za-z0-9=_.+ -]{1,100})?\Z")
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATACLASS
_DEEPEST = 200

OfFile = Callable[[Blob], str]
"""What stands in JSON for a file."""


def prediction(view: View) -> dict[str, Any]:
    """Always these three keys."""
    return {"outputs": _outputs(view, "output"), "status": STATUS[view.progress], "error_message": _error(view)}


def demo(view: View) -> dict[str, Any]:
    """A prediction with what its demo shows, and what the model printed."""
    return {**prediction(view), "demo_outputs": _outputs(view, "demo_output"), "logs": view.logs or None}


def details(view: View) -> dict[str, Any]:
    """What `?verbose=1` adds. Times are seconds since the epoch."""
    return {
        "id": view.id,
        "model": view.model,
        "version": view.version,
        "operation": view.operation,
        "error_kind": view.error_kind or None,
        "logs": view.logs or None,
        "created": view.created,
        "started": view.started,
        "finished": view.finished,
    }


def webhook_body(view: View) -> bytes:
    """What a webhook carries: everything that is known of a prediction that has ended."""
    return encode({**details(view), **(demo(view) if view.operation == "demo" else prediction(view))})


def status_event(view: View) -> dict[str, Any]:
    """The state of a prediction as an event of its stream."""
    return {"status": STATUS[view.progress], "error_message": _error(view)}


def _outputs(view: View, part: str) -> list[Value] | None:
    if view.progress is not Progress.SUCCEEDED or view.outputs is None:
        return None
    if view.operation != "demo":  # a model without a demo of its own shows its outputs
        return view.outputs
    return [row[part] for row in view.outputs]


def _error(view: View) -> str | None:
    if view.progress is Progress.CANCELLED:
        return view.error or "Canceled"
    return (view.error or "the model failed") if view.progress is Progress.FAILED else None


async def encoded(value: Any, of_file: OfFile | None = None) -> bytes:
    """JSON, made in a thread when it is long. Raises MODEL_FAILED for an output that is nested too deeply to be written."""
    if _weight(value, 0) < _OFF_LOOP_FROM:
        return encode(value, of_file)
    return await asyncio.to_thread(encode, value, of_file)


def encode(value: Any, of_file: OfFile | None = None) -> bytes:
    """JSON of what a row may hold."""
    try:
        return orjson.dumps(
            value, default=_plain if of_file is None else lambda v: of_file(v) if isinstance(v, Blob) else _plain(v), option=_OPTIONS
        )
    except TypeError:  # an integer over 64 bits, a lone surrogate, deep nesting
        return json.dumps(_walked(value, of_file or data_uri, 0), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def data_uri(blob: Blob) -> str:
    """A file as text."""
    media_type = blob.media_type if _MEDIA_TYPE.match(blob.media_type) else "application/octet-stream"
    return f"data:{media_type};base64,{base64.b64encode(blob.data).decode()}"


def _plain(value: Any) -> Any:
    if isinstance(value, Blob):
        return data_uri(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return data_uri(Blob(value))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):  # of objects, or not in C order
        return value.tolist() if value.dtype.kind == "O" or not value.ndim else np.ascontiguousarray(value)
    raise TypeError(f"{type(value).__name__} cannot be written in JSON")


def _walked(value: Any, of_file: OfFile, depth: int) -> Any:
    """The same value of what `json` can write."""
    if depth > _DEEPEST:
        raise ServingError(Kind.MODEL_FAILED, f"the model's output is nested deeper than {_DEEPEST} levels")
    if isinstance(value, dict):
        return {key: _walked(each, of_file, depth + 1) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_walked(each, of_file, depth + 1) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Blob):
        return of_file(value)
    return _walked(value.tolist() if isinstance(value, np.ndarray) else _plain(value), of_file, depth + 1)


def _weight(value: Any, depth: int) -> int:
    """About how many bytes there are to write; counting stops where it is known to be many."""
    if isinstance(value, Blob):
        return len(value.data)
    if isinstance(value, np.ndarray):
        return value.size * 12
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict | list):
        if depth > _DEEPEST:
            return 0
        total = 8 * len(value)
        for each in value.values() if isinstance(value, dict) else value:
            total += _weight(each, depth + 1)
            if total > _OFF_LOOP_FROM:
                break
        return total
    return 8
