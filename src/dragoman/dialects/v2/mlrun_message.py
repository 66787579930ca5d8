"""One request of MLRun's dialect, whatever brought it: the JSON of a body or a message in, the answer out. Knows no HTTP.

Called by the routes in mlrun.py, by the console for `POST /` and, through core.plugins ("messages"), by streams for each message. Works for
models of every form: those of whole requests get the event as it came, all others through the plain lists of mlrun_values.py.
"""

import json
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

from dragoman.core.binary_bodies import file_inputs
from dragoman.core.bodies import BY_NAME, INFER, by_name, event, features, reply_of, stamp
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import InferRequest
from dragoman.core.tensors import Blob, Reply, Rows, Signature, Value
from dragoman.core.values import jsonable
from dragoman.dialects import rows
from dragoman.dialects.refusals import words
from dragoman.dialects.v2.answers import status_of
from dragoman.dialects.v2.assembly import default_signature, find
from dragoman.dialects.v2.mlrun_values import is_file, plain_inputs, written_outputs
from dragoman.dialects.v2.parameters import kind, parsed, text
from dragoman.serving.fanout import signature_of
from dragoman.serving.gateway import Entry, Gateway
from dragoman.serving.root_model import default_entry

DIALECT = "mlrun"

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATACLASS
"""A Blob is a dataclass, and no object of JSON."""

Load: TypeAlias = Callable[[str], Awaitable[Value]]
"""Gives the inputs that a data_url names. Raises INVALID_INPUT for what it may not or cannot fetch."""


@dataclass(slots=True)
class Answered:
    """An answer. `document` is what `written` makes bytes of; its `outputs` may be an orjson.Fragment, so read it from those.

    `status` and `headers` are 200 and empty unless user code chose others; `content_type` "" means what `written` says.
    """

    document: Value
    id: Value = None
    """What the request was called, or the name that it got."""
    model: str = ""
    version: str = ""
    operation: str = ""
    status: int = 200
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    error: ServingError | None = None
    """Of `outcome`: why there is no answer."""

    def written(self) -> tuple[bytes, str]:
        """The bytes that go out, and their media type. Raises MODEL_FAILED for what JSON cannot carry."""
        body = self.document
        if isinstance(body, str):
            return body.encode("utf-8", "replace"), self.content_type or "text/plain; charset=utf-8"
        if isinstance(body, bytes):
            return body, self.content_type or "application/octet-stream"
        if isinstance(body, Blob):
            return body.data, self.content_type or body.media_type
        return _json(body, self.model), self.content_type or "application/json"


async def answer(
    gateway: Gateway,
    body: bytes | dict[str, Any],
    *,
    model: str = "",
    version: str = "",
    operation: str = "",
    id: Value = None,  # noqa: A002 # the name in the event
    path: str = "",
    method: str = "POST",
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    content_type: str = "",
    trigger: str = "http",
    caller: str = "",
    load: Load | None = None,
) -> Answered:
    """Run one request: a JSON object as text, or parsed by dialects.json or any other reader.

    `model` ("name" or "name:version") wins over the body's own `model`; without either it is the server's default one. The body's `operation`
    wins over the argument; without either it is infer. `id` is what the transport calls it, for a body without one; else it gets a fresh name.
    Raises ServingError for every refusal, with the status that user code named, if it did; never anything else for a bad message.
    """
    document = parsed(body, "the request") if isinstance(body, bytes) else body
    wanted = _text(document, "operation") or operation or "infer"
    name = model or _text(document, "model")
    given = document["id"] if "id" in document else id if id is not None else os.urandom(16).hex()
    url = _text(document, "data_url")
    if url:
        document = {**document, "inputs": await _loaded(url, load)}
    entry = find(gateway, name, version) if name else default_entry(gateway)
    if wanted not in INFER and wanted != "explain" and wanted not in entry.servable.operations:
        raise unknown_operation(entry, wanted)
    signature = default_signature(entry)
    if signature.whole:
        if not url and is_file(document.get("inputs")):  # the body; not every type is one that this model may have meant
            file_inputs(document["inputs"][0].data, document["inputs"][0].media_type, signature, entry.name)
        return await _whole(gateway, entry, document, given, wanted, caller, (path, method, headers, content_type, trigger))
    given = rows.plain(given)
    request = _request(document, signature, entry, wanted)
    request.caller = caller
    request.id = given if isinstance(given, str) else ""
    response = await rows.infer(gateway, entry, request)
    made = {"id": given, "model_name": entry.name, "outputs": written_outputs(response.outputs, signature, entry.name)}
    if wanted in INFER:
        made["timestamp"] = stamp(time.time())
    if entry.spec.named_version:
        made["model_version"] = entry.version
    return Answered(made, given, entry.name, entry.version, wanted)


async def outcome(gateway: Gateway, body: bytes | dict[str, Any], **options: Any) -> Answered:
    """`answer` for those who have nobody to raise an error to: a refusal is the document {"id", "error"} with the status of the protocol."""
    try:
        body = parsed(body, "the message") if isinstance(body, bytes) else body
        return await answer(gateway, body, **options)
    except ServingError as error:
        given = body.get("id", options.get("id")) if isinstance(body, dict) else options.get("id")
        try:
            given = rows.plain(given)
        except ServingError:  # nested without end
            given = None
        return Answered({"id": given, "error": words(error)}, given, status=error.status or status_of(error), error=error)


def unknown_operation(entry: Entry, operation: str) -> ServingError:
    have = sorted({*entry.servable.operations, *INFER})
    return ServingError(
        Kind.NOT_FOUND, f"model '{entry.name}' has no operation {text(operation)}; it has {', '.join(have)}", what="operation"
    )


# --- below the surface ---


async def _whole(
    gateway: Gateway,
    entry: Entry,
    document: dict[str, Any],
    given: Value,
    operation: str,
    caller: str,
    sent: tuple[str, str, Mapping[str, str] | Iterable[tuple[str, str]], str, str],
) -> Answered:
    path, method, headers, content_type, trigger = sent
    body = rows.plain(document)
    given = body.get("id", given)
    row = event(body, id=given, path=path, method=method, headers=dict(headers), content_type=content_type, trigger=trigger)
    called = given if isinstance(given, str) else ""
    response = await gateway.infer(entry, InferRequest(Rows([row]), operation, id=called, caller=caller, dialect=DIALECT))
    return of_reply(reply_of(response.outputs, entry.name), entry, given, operation)


def of_reply(reply: Reply, entry: Entry, given: Value, operation: str) -> Answered:
    """The answer that a model of whole requests gave."""
    return Answered(reply.body, given, entry.name, entry.version, operation, reply.status, reply.content_type, reply.headers)


def _request(document: dict[str, Any], signature: Signature, entry: Entry, operation: str) -> InferRequest:
    if "inputs" not in document:
        raise invalid(f"the request to model '{entry.name}' needs a list 'inputs'")
    inputs = document["inputs"]
    if operation in BY_NAME:
        inputs = by_name(rows.plain(inputs), features(signature), entry.name)
    run = "predict" if operation in INFER else operation
    name = signature_of(entry.signatures, run)
    request = InferRequest(plain_inputs(inputs, entry.signatures[name], entry.name), run, name, dialect=DIALECT)
    parameters = document.get("parameters")
    if parameters is not None:
        if type(parameters) is not dict:
            raise invalid(f"the parameters of the request to model '{entry.name}' must be an object, not {kind(parameters)}")
        request.parameters = rows.plain(parameters)
    return request


async def _loaded(url: str, load: Load | None) -> Value:
    if load is None:
        raise invalid("data_url cannot be used here: this server fetches nothing", "body")
    return await load(url)


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    if value is None:
        return ""
    if type(value) is not str:
        raise invalid(f"the field '{key}' of the request must be a string, not {kind(value)}", "body")
    return value


def _json(body: Value, model: str) -> bytes:
    with suppress(TypeError):
        return orjson.dumps(body, default=_stand_in, option=_OPTIONS)
    try:  # integers over 64 bits, half a surrogate pair, more levels than orjson writes
        return json.dumps(jsonable(body)).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ServingError(Kind.MODEL_FAILED, f"model '{model}' answered what JSON cannot carry: {error}") from error


def _stand_in(value: Any) -> Any:
    """What JSON has for what a row may hold besides its own types."""
    return jsonable(value)
