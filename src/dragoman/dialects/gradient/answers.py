"""Deployments and errors as Gradient's clients read them. Called by the other modules of this folder.

Errors are an object with a name, a status and a message below `error`, which is where the original's client looks for its words.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import orjson

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import USUAL_STATUS, Answer, check_table
from dragoman.dialects.refusals import headers, words
from dragoman.serving.gradient.logs import Row
from dragoman.serving.gradient.records import Record, State
from dragoman.serving.gradient.service import Status

STATUS: Mapping[Kind, int] = {**USUAL_STATUS, Kind.UNSUPPORTED: 400}
check_table(STATUS)
_REFINED = {"method": 405, "media": 415, "encoding": 415}
_SHOWN_VARIABLES = ("MODEL_BASE_PATH", "MODEL_NAME")
"""Of `env`; the values of others may be secrets, and are kept to whoever wrote them."""
_HIDDEN = "***"


def json(value: Any, status: int = 200) -> Answer:
    return Answer(status, orjson.dumps(value))


def refusal(error: ServingError, allowed: Iterable[str] = ()) -> Answer:
    """The answer to any error; `allowed` are the methods that the path has, for a wrong one."""
    refined = _REFINED.get(error.what) if error.kind is Kind.UNSUPPORTED else None
    status = error.status if error.status is not None else refined or STATUS[error.kind]
    body = {"error": {"name": "ApplicationError", "status": status, "message": words(error, None)}}
    return Answer(status, orjson.dumps(body), headers=headers(status, error, allowed))


def deployment(record: Record, status: Status, base: str, grpc_port: int) -> dict[str, Any]:
    """All that may be seen of one; what has no value is left out. `base` is the address of this server, `grpc_port` that of gRPC."""
    fields = dict(record.fields)
    if "env" in fields:
        fields["env"] = {name: value if name in _SHOWN_VARIABLES else _HIDDEN for name, value in fields["env"].items()}
    running = status.state is State.RUNNING
    instances = record.instances or 1
    found = {
        "id": record.id,
        "name": record.get("name"),
        "state": status.state.value,
        "reason": status.reason,
        "endpoint": endpoint(record, base, grpc_port),
        **fields,
        "instanceCount": instances,
        "runningCount": instances if running else 0,
        "oauthKey": record.lock.get("user", ""),
        "metricsURL": base.partition("://")[2],
        "dtCreated": moment(record.created),
        "dtModified": moment(record.modified),
        "dtStarted": moment(record.started),
        "dtStopped": moment(record.stopped),
    }
    return {name: value for name, value in found.items() if value not in ("", [], {})}


def endpoint(record: Record, base: str, grpc_port: int) -> str:
    """Where predictions are asked for: with the method that TensorFlow Serving's API wants, unless the deployment names another.

    A gRPC client dials the server itself, and names the deployment as the model.
    """
    if record.grpc:
        host = urlsplit(base).hostname or ""
        return f"[{host}]:{grpc_port}" if ":" in host else f"{host}:{grpc_port}"
    method = record.get("method")
    return f"{base}/model-serving/{record.id}{method if method.startswith(':') and len(method) > 1 else ':predict'}"


def rows(found: Iterable[Row]) -> list[dict[str, Any]]:
    """Lines of a log."""
    return [{"line": row.line, "message": row.message, "timestamp": row.timestamp} for row in found]


def moment(seconds: float) -> str:
    """ISO 8601 in UTC, to the millisecond; "" for never."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if seconds else ""
