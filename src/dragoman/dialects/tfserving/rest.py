"""TensorFlow Serving's REST protocol under /v1/models/NAME, and Gradient's deployments, the same under /model-serving/ID.

Routes and handlers, for models of every runtime. A deployment's id is the name of the served model. Made by the server, once.
"""

import re
from typing import Any

import orjson

from dragoman.core.convert import output_rows
from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import InferRequest
from dragoman.core.tensors import Form, Rows, Signature, Tensors
from dragoman.dialects import Access, Answer, Request, Route, Services, path_text
from dragoman.dialects.compression import inflated
from dragoman.dialects.rows import infer
from dragoman.dialects.tfserving import answers, decode, encode, finding, messages, rows
from dragoman.serving.gateway import Entry

_PATH = re.compile(
    rb"/(?:v1/models|model-serving)/([^/:]+)(?:/versions/([0-9]+)|/labels/([^/:]+))?(/metadata|:predict|:classify|:regress)?",
    re.IGNORECASE,
)
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

    def route(self, request: Request) -> Route:
        """Match method and path; every pair that this protocol does not have is INVALID_INPUT, not NOT_FOUND."""
        path = request.raw_path
        if request.method == "POST" and path.startswith(_HOT_START) and path.endswith(_HOT_END):
            name = path[len(_HOT_START) : -len(_HOT_END)]
            if name and b"/" not in name and b":" not in name:
                return Route(self._predict, Access.INFER, (path_text(name), "", ""))
        return self._match(request.method, path)

    def refuse(self, request: Request, error: ServingError) -> Answer:
        return messages.refusal(error)

    def _match(self, method: str, path: bytes) -> Route:
        found = _PATH.fullmatch(path)
        if found is None:
            if method == "GET" and _NAMELESS.fullmatch(path):
                raise messages.no_model_name()
            raise messages.malformed(method, path)
        name, version, label, verb = found.groups(b"")
        where = (path_text(name), _version(version.decode()), path_text(label))
        match method, verb.lower():
            case "GET", b"":
                return Route(self._status, Access.PUBLIC, where)
            case "GET", b"/metadata":
                return Route(self._metadata, Access.PUBLIC, where)
            case "POST", b":predict":
                return Route(self._predict, Access.INFER, where)
            case "POST", b":classify" | b":regress" as asked:
                return Route(self._examples, Access.INFER, (*where, asked[1:].decode()))
        raise messages.malformed(method, path)

    # --- handlers ---

    async def _predict(self, request: Request, name: str, version: str, label: str) -> Answer:
        body = await request.body()
        encoding = request.header(b"content-encoding")
        if encoding is not None:
            body = await self._inflated(body, encoding)
        tree = decode.document(body)
        wanted = decode.signature_name(tree, body)
        entry = self._find(name, version, label)
        key, signature = _signature(entry, wanted)
        if signature.form is Form.ROWS:
            return await self._predict_rows(entry, key, rows.asked_rows(tree, body, signature, entry.name))
        asked = decode.asked(tree, body, signature)
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

    async def _examples(self, request: Request, name: str, version: str, label: str, method: str) -> Answer:
        await request.body()
        raise messages.no_method(self._find(name, version, label).name, method)

    async def _status(self, request: Request, name: str, version: str, label: str) -> Answer:
        known = finding.statuses(self._gateway, name, version, label)
        return Answer(body=orjson.dumps(answers.status(known)))

    async def _metadata(self, request: Request, name: str, version: str, label: str) -> Answer:
        return Answer(body=orjson.dumps(answers.metadata(self._find(name, version, label))))

    # --- what they share ---

    async def _inflated(self, body: bytes, encoding: bytes) -> bytes:
        """The body as its sender meant it. Other encodings than gzip are not looked at, as in TensorFlow Serving."""
        if b"gzip" not in encoding.lower():
            return body
        try:
            return await inflated(body, b"gzip", self._max_inflated)
        except ServingError as error:
            if error.kind is Kind.TOO_LARGE:
                raise
            raise messages.empty_document(error.message) from None

    def _find(self, name: str, version: str, label: str) -> Entry:
        return finding.find(self._gateway, name, version, label)


def _signature(entry: Entry, wanted: str) -> tuple[str, Signature]:
    found = finding.signature_of(entry, wanted)
    if found is None:
        raise messages.no_signature(wanted)
    return found


def _version(digits: str) -> str:
    """A version as a number is written. Raises INVALID_INPUT beyond 64 bits, before the digits become a number that costs time."""
    plain = digits.lstrip("0") or digits[:1]
    if len(plain) > 19 or (plain and int(plain) > _INT64):
        raise messages.version_too_large(digits)
    return plain
