"""MLRun's dialect over HTTP, on the paths of the Open Inference Protocol: which of both a request speaks, and the handlers of its own routes.

`speaks` decides per request, without guessing (sheet of requirements, section 13): tensors are objects with name, shape and datatype, all
else is MLRun's. Called by rest.py; `Root` by the console, which owns the path "/".
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from dragoman.core.binary_bodies import is_binary, media_type_of
from dragoman.core.bodies import INFER, features
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.lifecycle import State, version_order
from dragoman.core.tensors import Blob, Signature, TensorSpec, Value
from dragoman.dialects import Access, Answer, Request, Services, path_error
from dragoman.dialects.compression import inflated
from dragoman.dialects.json import NumberList
from dragoman.dialects.v2.answers import error_body
from dragoman.dialects.v2.assembly import NAMES, find
from dragoman.dialects.v2.mlrun_message import Answered, answer, unknown_operation
from dragoman.dialects.v2.parameters import parsed
from dragoman.dialects.v2.routes import Endpoint
from dragoman.serving.data_urls import inputs_at
from dragoman.serving.gateway import Entry, Gateway
from dragoman.serving.routers.options import VOTING
from dragoman.serving.routers.router import Router

_OF_TENSORS = frozenset({"name", "shape", "datatype", "data", "parameters"})
_ELSEWHERE = frozenset({"binary_data_size", "shared_memory_region"})
_KEPT_BACK = frozenset({b"authorization", b"cookie", b"x-api-key", b"proxy-authorization"})
"""Headers that open this server, and are none of a model's business."""
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")
_OURS = frozenset({"content-length", "content-type", "transfer-encoding", "connection", "date", "keep-alive", "upgrade"})
VOTES = frozenset({"infer", "predict", "explain"})
"""What may stand in the place of a model's name, for an ensemble."""
_NO_BODY = frozenset({204, 205, 304})

_VALUE_TYPES = {
    "BOOL": "bool",
    "INT64": "int",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float",
    "BF16": "bfloat16",
    "BYTES": "str",
}
"""MLRun's names of datatypes where they are not ours in small letters."""


def speaks(document: Mapping[str, Any], entry: Entry) -> bool:
    """Whether the body of an inference request is MLRun's. For models of tensors and rows whatever resembles a tensor is not, so that what is
    wrong with it is said in the Open Inference Protocol's words."""
    inputs = document.get("inputs")
    signature = entry.signatures.get("")
    if signature is None:
        return False
    if document.get("data_url") is not None or document.get("operation", "infer") not in (None, "infer"):
        return True
    if type(inputs) is not list:
        return signature.whole or type(inputs) is NumberList
    if signature.whole:
        return not inputs or not all(_is_tensor(item) for item in inputs)
    if not inputs:
        return False
    first = inputs[0]
    if type(first) is not dict:
        return True
    return not ("datatype" in first and "name" in first) and _is_row(first, signature)


def _is_tensor(item: Any) -> bool:
    if type(item) is not dict or type(item.get("name")) is not str or type(item.get("shape")) is not list:
        return False
    if type(item.get("datatype")) is not str or item["datatype"] not in NAMES:
        return False
    parameters = item.get("parameters")
    return "data" in item or (type(parameters) is dict and not _ELSEWHERE.isdisjoint(parameters))


def _is_row(item: dict[str, Any], signature: Signature) -> bool:
    return bool(item) and (_OF_TENSORS.isdisjoint(item) or item.keys() <= set(features(signature)))


# --- what a model says of itself ---


def value_type(spec: TensorSpec, signature: Signature) -> str:
    """MLRun's name of a tensor's datatype; "" where any is taken."""
    if signature.whole and spec.native:
        return spec.native
    return _VALUE_TYPES.get(spec.datatype.name, spec.datatype.name.lower()) if spec.datatype is not None else ""


def metadata(described: dict[str, Any], entry: Entry) -> dict[str, Any]:
    """The metadata of the Open Inference Protocol with what MLRun's has on top: `version`, and of each tensor its `value_type` (M4).

    A model of whole requests without a schema has no inputs and outputs to list.
    """
    signature = entry.signatures.get("")
    made = {**described, "version": entry.version if entry.spec.named_version else ""}
    if signature is None:
        return made
    for key, specs in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        listed = zip(described[key], specs, strict=True)
        made[key] = [{**tensor, "value_type": value_type(spec, signature)} for tensor, spec in listed]
    if signature.whole and not features(signature):
        made["inputs"] = []
    return made


def early_metadata(gateway: Gateway, model: str, version: str) -> dict[str, Any] | None:
    """What can be said of a model while it is being loaded, in which time MLRun's metadata is there, too; None in any other state."""
    name, _, tail = (model, "", version) if version or gateway.statuses(model) else model.partition(":")
    known = [s for s in gateway.statuses(name) if s.state is State.LOADING and tail in ("", s.version)]
    if not known:
        return None
    first = known[0]
    versions = [s.version for s in reversed(known)]
    shown = first.version if first.named else ""
    return {"name": first.name, "versions": versions, "platform": "", "inputs": [], "outputs": [], "version": shown}


def listed(gateway: Gateway) -> list[str]:
    """Every model that should be served, ready or not, as MLRun names it: those of the command line first and in their order, "name:version"
    where a version has a name (M6)."""
    known = {(e.name, e.version): e.spec.named_version for e in gateway.entries()}
    for status in gateway.statuses():
        if status.state in (State.LOADING, State.FAILED):
            known.setdefault((status.name, status.version), status.named)
    order = {name: index for index, name in enumerate(gateway.named)}
    keys = sorted(known, key=lambda key: (order.get(key[0], len(order)), key[0], version_order(key[1])))
    return list(dict.fromkeys(f"{name}:{version}" if known[name, version] else name for name, version in keys))


# --- routes ---


class MLRun:
    """The handlers. Each is called as `await handler(request, *segments)`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._gateway = services.gateway

    def endpoints(self) -> list[Endpoint]:
        """What this module adds to the routes of the dialect: /v2/health, and every operation that is not the protocol's own."""
        return [
            Endpoint("GET", "health", self.server, Access.PUBLIC),
            *(Endpoint(method, "models", self.models, Access.PUBLIC) for method in ("GET", "POST")),
            *(Endpoint(method, "models/{}[/versions/{}]/{}", self._operate, Access.INFER) for method in ("POST", "PUT", "GET")),
        ]

    async def server(self, request: Request) -> Answer:
        """M5: answers whatever the models' state."""
        info = self._services.info
        return _json({"name": info.name, "version": "v2", "extensions": list(self._services.extensions)})

    async def models(self, request: Request) -> Answer:
        """M6; of the first VotingEnsemble the weights, too (M31)."""
        ensembles = self._ensembles()
        weights = {"weights": dict(next(iter(ensembles.values())).weights)} if ensembles else {}
        return _json({"models": listed(self._gateway), **weights})

    async def vote(self, request: Request, operation: str) -> Answer:
        """`POST /v2/models/infer`, predict or explain, where no model is called so: the VotingEnsemble is asked, if there is one (M31)."""
        body = await inflated(await request.body(), request.header(b"content-encoding"), self._services.max_inflated)
        ensembles = self._ensembles()
        if len(ensembles) > 1:
            raise invalid(f"there are several ensembles, so the path must name one: {', '.join(map(repr, ensembles))}", "model")
        name = next(iter(ensembles), "") or find(self._gateway, operation, "").name
        return await self.ask(request, document_of(request, body, f"the request to model '{name}'"), name, "", operation)

    def _ensembles(self) -> dict[str, Router]:
        """Every VotingEnsemble that answers, by name."""
        servables = {entry.name: entry.servable for entry in self._gateway.entries()}
        return {name: each for name, each in servables.items() if isinstance(each, Router) and each.kind == VOTING}

    async def _operate(self, request: Request, model: str, *below: str) -> Answer:
        version, operation = below if len(below) == 2 else ("", below[0])
        entry = find(self._gateway, model, version)
        if operation not in INFER and operation != "explain" and operation not in entry.servable.operations:
            error = path_error(request)
            raise ServingError(error.kind, f"{error.message}: {unknown_operation(entry, operation).message}", what="operation")
        body = await inflated(await request.body(), request.header(b"content-encoding"), self._services.max_inflated)
        own = operation not in INFER and operation != "explain"
        # An operation of the class's own may need nothing, and be asked by a browser.
        document = {} if own and not body else document_of(request, body, f"the request to model '{entry.name}'")
        return await self.ask(request, document, model, version, operation)

    async def ask(self, request: Request, document: dict[str, Any], model: str, version: str, operation: str) -> Answer:
        """The answer to a parsed body. Statuses that user code chose are kept."""
        try:
            answered = await answer(
                self._gateway,
                document,
                model=model,
                version=version,
                operation=operation,
                id=_header(request, b"mlrun-event-id") or None,
                path=_header(request, b"mlrun-event-path") or request.path,
                method=request.method,
                headers=((k.decode("latin-1"), v.decode("latin-1")) for k, v in request.scope["headers"] if k not in _KEPT_BACK),
                content_type=_header(request, b"content-type"),
                caller=request.caller,
                load=self._load,
            )
        except ServingError as error:
            if error.status is None or not 400 <= error.status <= 599:
                raise
            return Answer(error.status, error_body(error))
        return _answer(answered)

    async def _load(self, url: str) -> Value:
        return await inputs_at(url, self._services.fetching)


class Root:
    """`POST /`: model and operation are in the body (M18). Called by the console as a handler."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._mlrun = MLRun(services)

    async def __call__(self, request: Request) -> Answer:
        body = await inflated(await request.body(), request.header(b"content-encoding"), self._services.max_inflated)
        return await self._mlrun.ask(request, document_of(request, body, "the request"), "", "", "")


def document_of(request: Request, body: bytes, called: str) -> dict[str, Any]:
    """The JSON object that a body is, whatever it is called (M17), or one input that is a file (M15). Raises INVALID_INPUT."""
    try:
        return parsed(body, called)
    except ServingError:
        content_type = request.header(b"content-type")
        if not body or not is_binary(content_type):
            raise
        return {"inputs": [Blob(body, media_type_of(content_type))]}


def _answer(answered: Answered) -> Answer:
    if not 200 <= answered.status <= 599:
        raise ServingError(Kind.MODEL_FAILED, f"model '{answered.model}' answered the status {answered.status}, which is none")
    body, media_type = answered.written()
    if answered.status in _NO_BODY:
        body = b""
    headers = [
        (name.lower().encode(), value.encode("latin-1"))
        for name, value in answered.headers.items()
        if _HEADER_NAME.match(name) and _HEADER_VALUE.match(value) and name.lower() not in _OURS
    ]
    if not _HEADER_VALUE.match(media_type):
        media_type = "application/octet-stream"
    return Answer(answered.status, body, media_type.encode("latin-1"), headers)


def _header(request: Request, name: bytes) -> str:
    return (request.header(name) or b"").decode("latin-1")


def _json(value: Any) -> Answer:
    return Answer(200, orjson.dumps(value))
