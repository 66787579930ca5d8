"""TensorFlow Serving's REST protocol under /v1/models/NAME, and Gradient's deployments, the same under /model-serving/ID.

Routes and handlers, for models of every runtime. A deployment's id is the name of the served model. Made by the server, once.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import orjson

from dragoman.core.convert import output_rows
from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import InferRequest
from dragoman.core.tensors import Form, Rows, Tensors
from dragoman.dialects import SHARED, Access, Answer, Handler, Request, Route, Services, path_text
from dragoman.dialects.compression import inflated
from dragoman.dialects.rows import infer
from dragoman.dialects.tfserving import answers, classified, decode, encode, examples, finding, messages, rows
from dragoman.dialects.tfserving.classified import Terms
from dragoman.dialects.tfserving.room import Room
from dragoman.serving.gateway import Entry

_PATH = re.compile(
    rb"/(?:v1/models/([^/:]+)|model-serving/([^/:]+)(?:/v1/models/[^/:]+)?)"
    rb"(?:/versions/([0-9]+)|/labels/([^/:]+))?(/metadata|:predict|:classify|:regress)?",
    re.IGNORECASE,
)
"""Below a deployment's id whatever the model was called in its container is that deployment's."""
_NAMELESS = re.compile(rb"/(?:v1/models|model-serving)", re.IGNORECASE)
_HOT_START, _HOT_END = b"/v1/models/", b":predict"
_INT64 = 2**63 - 1


class TFServing:
    """A Dialect."""

    name = "tfserving"
    prefixes: tuple[str, ...] = ("/v1", "/model-serving")

    def __init__(self, services: Services) -> None:
        self._gateway = services.gateway
        self._max_inflated = services.max_inflated
        self._check_methods = services.check_methods
        self._handlers: Mapping[tuple[str, bytes], tuple[Handler, Access]] = {
            ("GET", b""): (self._status, Access.PUBLIC),
            ("GET", b"/metadata"): (self._metadata, Access.PUBLIC),
            ("POST", b":predict"): (self._predict, Access.INFER),
            ("POST", b":classify"): (self._classify, Access.INFER),
            ("POST", b":regress"): (self._regress, Access.INFER),
        }

    def route(self, request: Request) -> Route:
        """Match method and path; every pair that this protocol does not have is INVALID_INPUT, not NOT_FOUND."""
        path = request.raw_path
        if request.method == "POST" and path.startswith(_HOT_START) and path.endswith(_HOT_END):
            name = path[len(_HOT_START) : -len(_HOT_END)]
            if name and b"/" not in name and b":" not in name:
                return Route(self._predict, Access.INFER, (path_text(name), "", ""))
        request.scope[SHARED] = True  # status and metadata too, as in TensorFlow Serving
        return self._match(request.method, path)

    def refuse(self, request: Request, error: ServingError) -> Answer:
        return messages.refusal(error)

    def _match(self, method: str, path: bytes) -> Route:
        found = _PATH.fullmatch(path)
        if found is None:
            if method == "GET" and _NAMELESS.fullmatch(path):
                raise messages.no_model_name()
            raise messages.malformed(method, path)
        name, deployment, version, label, verb = found.groups(b"")
        where = (path_text(name or deployment), _version(version.decode()), path_text(label))
        known = self._handlers.get((method, verb.lower()))
        if known is None:
            raise messages.malformed(method, path)
        handler, access = known
        return Route(partial(self._deployed, handler) if deployment else handler, access, where)

    # --- handlers ---

    async def _deployed(self, handler: Handler, request: Request, name: str, version: str, label: str) -> Answer:
        """Below its own address even to look at a deployment takes its password, where it has one."""
        self._gateway.refuse_locked(name)
        return await handler(request, name, version, label)

    async def _predict(self, request: Request, name: str, version: str, label: str) -> Answer:
        body = await self._body(request)
        tree = decode.document(body)
        wanted = decode.signature_name(tree, body)
        entry = finding.find(self._gateway, name, version, label)
        found = finding.signature_of(entry, wanted)
        if found is None:
            raise messages.no_signature(wanted or answers.DEFAULT_SIGNATURE)
        key, signature = found
        if self._check_methods:
            classified.check_predict(signature)
        if signature.form is Form.ROWS:
            return await self._predict_rows(entry, key, rows.asked_rows(tree, body, signature, entry.name))
        asked = decode.asked(tree, body, signature, entry.servable.platform)
        response = await self._gateway.infer(entry, InferRequest(Tensors(asked.tensors), signature=key, strict=False, dialect=self.name))
        outputs = response.outputs
        if not isinstance(outputs, Tensors):
            raise ServingError(Kind.MODEL_FAILED, f"model '{name}' answered rows, but its signature declares tensors", what="model")
        if asked.widened:
            encode.narrow(outputs.items, signature, asked.widened)
        return Answer(body=encode.predictions(outputs.items) if asked.rows else encode.columns(outputs.items))

    async def _predict_rows(self, entry: Entry, key: str, asked: tuple[list[Any], bool]) -> Answer:
        items, in_rows = asked
        response = await infer(self._gateway, entry, InferRequest(Rows(items), signature=key, dialect=self.name))
        answered = output_rows(response.outputs, entry.signatures[key], entry.name)
        return Answer(body=rows.predictions(answered, entry.name) if in_rows else rows.columns(answered, entry.name))

    async def _classify(self, request: Request, name: str, version: str, label: str) -> Answer:
        entry, key, asked = await self._examples(request, name, version, label)
        terms = Terms(request.caller, dialect="tfserving-classify", check_method=self._check_methods)
        found = await classified.classify(self._gateway, entry, key, asked, terms)
        return _results(request, encode.classes(found))

    async def _regress(self, request: Request, name: str, version: str, label: str) -> Answer:
        entry, key, asked = await self._examples(request, name, version, label)
        terms = Terms(request.caller, dialect="tfserving-regress", check_method=self._check_methods)
        found = await classified.regress(self._gateway, entry, key, asked, terms)
        return _results(request, encode.numbers(found))

    async def _examples(self, request: Request, name: str, version: str, label: str) -> tuple[Entry, str, list[bytes]]:
        """Who answers a :classify or :regress request, by which signature, and its Examples. The entry is found last: nothing is awaited after."""
        body = await self._body(request)
        tree = decode.document(body)
        wanted = decode.signature_name(tree, body)
        asked = examples.asked(tree, body, Room(self._max_inflated))
        entry = finding.find(self._gateway, name, version, label)
        found = finding.signature_of(entry, wanted)
        if found is None:
            raise messages.no_signature_found(wanted or answers.DEFAULT_SIGNATURE)
        return entry, found[0], asked

    async def _status(self, request: Request, name: str, version: str, label: str) -> Answer:
        known = finding.statuses(self._gateway, name, version, label)
        return Answer(body=orjson.dumps(answers.status(known)))

    async def _metadata(self, request: Request, name: str, version: str, label: str) -> Answer:
        return Answer(body=orjson.dumps(answers.metadata(finding.find(self._gateway, name, version, label))))

    # --- what they share ---

    async def _body(self, request: Request) -> bytes:
        """The body as its sender meant it. Other encodings than gzip are not looked at, as in TensorFlow Serving."""
        body = await request.body()
        encoding = request.header(b"content-encoding")
        if encoding is None or b"gzip" not in encoding.lower():
            return body
        try:
            return await inflated(body, b"gzip", self._max_inflated)
        except ServingError as error:
            if error.kind is Kind.TOO_LARGE:
                raise
            raise messages.empty_document(error.message) from None


def _results(request: Request, results: bytes) -> Answer:
    """The answer of :classify and :regress. Gradient's documentation calls the key `result`, so that its clients may look there."""
    again = b',"result":' + results if request.raw_path[:15].lower() == b"/model-serving/" else b""
    return Answer(body=b'{"results":' + results + again + b"}")


def _version(digits: str) -> str:
    """A version as a number is written. Raises INVALID_INPUT beyond 64 bits, before the digits become a number that costs time."""
    plain = digits.lstrip("0") or digits[:1]
    if len(plain) > 19 or (plain and int(plain) > _INT64):
        raise messages.version_too_large(digits)
    return plain
