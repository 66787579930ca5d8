"""Makes records of what the recorder saw: plain JSON in MLRun's form, single or in batches. Pure; runs in a thread, a few records at a time."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dragoman.core.bodies import features, plain_outputs, points_of, stamp
from dragoman.core.errors import ServingError
from dragoman.core.model import EMPTY
from dragoman.core.tensors import BF16, BYTES, Failure, Reply, Rows, Signature, Tensor, Tensors, Value, widened
from dragoman.core.values import jsonable
from dragoman.serving.records import Record

HEADERS = ("request", "op", "resp", "when", "microsec", "metrics")
"""Columns of a batch."""
_BATCH_BYTES = 256 << 10
"""Of requests and answers in one batch, before they are JSON: a batch of large ones is sent before it has all its rows."""
_OF_MODELS = ("class", "labels", "request", "op", "resp", "metrics")
"""What a model of whole requests may say of itself."""


@dataclass(slots=True)
class Seen:
    """One request and how it ended. Times are since 1970, in seconds. Nobody changes it once it is queued.

    `request` and `answer` are copies (or the size of what was too large to be copied); `said` is what the model says of itself.
    """

    model: str
    version: str
    runtime: str
    signature: Signature | None
    operation: str
    id: str
    parameters: Mapping[str, Value]
    when_s: float
    request: Tensors | Rows | int
    answer: "Tensors | Rows | list[Tensors | Rows] | int | None" = None
    said: Mapping[str, Value] = EMPTY
    microsec: int = 0
    error: str = ""
    size: int = 0
    named_version: bool = False
    """Whether somebody gave the version; answers in MLRun's form have it only then."""


@dataclass(frozen=True, slots=True)
class Source:
    """What all records of this worker have in common."""

    worker: str = "0"
    host: str = ""
    function_uri: str = ""


def record_of(seen: Seen, source: Source) -> dict[str, Any]:
    """One record (sheet: class, worker, model, version, host, function_uri, request, op, resp or error, when, microsec). Never raises."""
    record: dict[str, Any] = {
        "class": seen.runtime,
        "worker": source.worker,
        "model": seen.model,
        "version": seen.version,
        "host": source.host,
        "function_uri": source.function_uri,
    }
    said = {name: seen.said[name] for name in _OF_MODELS if name in seen.said}
    if said.get("labels"):
        record["labels"] = _json(said["labels"])
    if "class" in said:
        record["class"] = str(said["class"])
    record["request"] = _json(said["request"]) if "request" in said else _request(seen)
    record["op"] = str(said.get("op") or seen.operation)
    if not seen.error:
        record["resp"] = _json(said["resp"]) if "resp" in said else _response(seen)
    record["when"] = stamp(seen.when_s)
    if seen.error:
        record["error"] = seen.error
    record["microsec"] = seen.microsec
    if said.get("metrics"):
        record["metrics"] = _json(said["metrics"])
    return record


def _request(seen: Seen) -> Any:
    if isinstance(seen.request, int):
        return _left_out(seen.id, seen.request)
    if isinstance(seen.request, Rows) and len(seen.request.items) == 1 and _is_event(seen.request.items[0], seen.signature):
        event = seen.request.items[0]
        body = event["body"]
        request = dict(body) if isinstance(body, dict) else {"inputs": [body]}
        request.setdefault("id", event.get("id"))
        return _json(request)
    try:
        inputs = _json(_points(seen.request, seen.signature or Signature()))
    except Exception:  # whatever a client sent: the record says how it ended all the same
        inputs = _by_name(seen.request)
    request = {"id": seen.id, "inputs": inputs}
    if seen.parameters:
        request["parameters"] = _json(dict(seen.parameters))
    return request


def _points(payload: Tensors | Rows, signature: Signature) -> Value:
    """Lists in the order of the features; of one feature its value, as MLRun's clients write it. BF16 holds bits, which nobody can read."""
    if isinstance(payload, Tensors) and any(tensor.datatype is BF16 for tensor in payload.items):
        return _by_name(payload)
    points, names = points_of(payload, signature), features(signature)
    if isinstance(payload, Rows) and len(names) == 1:
        return [row[names[0]] if isinstance(row, dict) and names[0] in row else row for row in payload.items]
    return points


def _is_event(row: Value, signature: Signature | None) -> bool:
    return signature is not None and signature.whole and isinstance(row, dict) and "body" in row


def _response(seen: Seen) -> Any:
    answer = seen.answer
    if isinstance(answer, int):
        return _left_out(seen.id, answer)
    if isinstance(answer, Rows) and len(answer.items) == 1 and isinstance(answer.items[0], Reply):
        return _json(answer.items[0].body)
    outputs = [_outputs(part, seen) for part in answer] if isinstance(answer, list) else _outputs(answer, seen) if answer else None
    response = {"id": seen.id, "model_name": seen.model, "outputs": outputs}
    return {**response, "model_version": seen.version} if seen.named_version else response


def _outputs(answer: Tensors | Rows, seen: Seen) -> Any:
    try:
        if isinstance(answer, Rows):
            return [_row(row) for row in answer.items]
        if any(tensor.datatype is BF16 for tensor in answer.items):
            return _by_name(answer)
        return plain_outputs(answer, seen.signature or Signature(), seen.model)
    except Exception:  # tensors that are no rows: they are named instead
        return _by_name(answer)


def _row(row: Value) -> Any:
    if isinstance(row, Failure):
        return {"error": row.message}
    return _json(next(iter(row.values())) if isinstance(row, dict) and len(row) == 1 else row)


def _by_name(payload: Tensors | Rows) -> Any:
    if isinstance(payload, Rows):
        return [_row(row) for row in payload.items]
    return {tensor.name: _json(_plain(tensor)) for tensor in payload.items}


def _plain(tensor: Tensor) -> Value:
    array = tensor.array
    if tensor.datatype is BF16:
        return widened(array).tolist()
    if tensor.datatype is BYTES:
        return _texts(array.tolist())
    return [[float(v.real), float(v.imag)] for v in array.ravel()] if array.dtype.kind == "c" else array.tolist()


def _texts(value: Any) -> Value:
    if isinstance(value, list):
        return [_texts(each) for each in value]
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


def _json(value: Value) -> Any:
    try:
        return jsonable(value)
    except (RecursionError, TypeError, ValueError):
        return str(type(value).__name__)


def _left_out(request_id: str, size: int) -> dict[str, Any]:
    return {"id": request_id, "left_out": f"{size} bytes or more"}


def words(error: BaseException) -> str:
    """What a record says of a failure."""
    if isinstance(error, ServingError):
        return error.message
    return "the caller has gone" if isinstance(error, asyncio.CancelledError | GeneratorExit) else type(error).__name__


def slim(record: Record, size: int) -> dict[str, Any]:
    """A record, or a batch, without what was asked and answered: for places that would not take its `size`."""
    left_out = {"left_out": f"{size} bytes"}
    if "values" not in record:
        return {name: left_out if name in ("request", "resp") else value for name, value in record.items()}
    columns = [left_out if name in ("request", "resp") else None for name in record["headers"]]
    values = [[value if column is None else column for column, value in zip(columns, each, strict=True)] for each in record["values"]]
    return {**record, "values": values}


@dataclass(slots=True)
class _Batch:
    common: dict[str, Any]
    begun_s: float
    values: list[list[Any]] = field(default_factory=list)
    bytes: int = 0

    def whole(self) -> Record:
        return {**self.common, "headers": list(HEADERS), "values": self.values}


class Batches:
    """Gathers records by model and version into MLRun's batches: what is common once, and `headers` with one list of `values` per request.

    Records with an error are never held back: a batch has no column for them.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], _Batch] = {}

    def __len__(self) -> int:
        return sum(len(batch.values) for batch in self._open.values())

    def add(self, records: Sequence[Record], sizes: Sequence[int], most: int, now_s: float) -> list[Record]:
        """What is to be sent now: records as they are where a batch is of one, else batches that are full, by number or in bytes (`sizes`)."""
        ready: list[Record] = [] if most > 1 else self.take()
        for record, size in zip(records, sizes, strict=True):
            if most <= 1 or "error" in record:
                ready.append(record)
                continue
            key = (record["model"], record["version"])
            batch = self._open.get(key)
            if batch is None:
                batch = self._open[key] = _Batch({name: value for name, value in record.items() if name not in HEADERS}, now_s)
            batch.values.append([record.get(name) for name in HEADERS])
            batch.bytes += size
            if len(batch.values) >= most or batch.bytes >= _BATCH_BYTES:
                ready.append(self._open.pop(key).whole())
        return ready

    def take(self, until_s: float = float("inf")) -> list[Record]:
        """The batches that were begun before this moment, full or not."""
        due = [key for key, batch in self._open.items() if batch.begun_s <= until_s]
        return [self._open.pop(key).whole() for key in due]
