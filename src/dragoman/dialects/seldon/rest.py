"""Seldon's predictions at the root, for the default model, and below the prefix of a served version. Made by the server, once.

`/api/v1.0/predictions` and its older name `/api/v0.1/predictions`, for models of every runtime.
"""

import re

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import InferRequest
from dragoman.dialects import Access, Answer, Request, Route, Services, method_error, path_error
from dragoman.dialects.compression import inflated
from dragoman.dialects.given import inputs_of
from dragoman.dialects.rows import infer
from dragoman.dialects.seldon import answers, reading
from dragoman.dialects.seldon.errors import refusal
from dragoman.serving.root_model import default_entry

_PATHS = ("/api/v1.0/predictions", "/api/v0.1/predictions")
_NOT_JSON = re.compile(rb"multipart/|text/csv|image/|application/octet-stream", re.IGNORECASE)


class Seldon:
    """A Dialect."""

    name = "seldon"
    prefixes: tuple[str, ...] = ("/api/v1.0", "/api/v0.1")

    def __init__(self, services: Services) -> None:
        self._gateway = services.gateway
        self._max_inflated = services.max_inflated

    def route(self, request: Request) -> Route:
        if request.path not in _PATHS:
            raise path_error(request)
        if request.method != "POST":
            raise method_error(request, ("POST",))
        return Route(self._predict, Access.INFER)

    def refuse(self, request: Request, error: ServingError) -> Answer:
        return refusal(error)

    async def _predict(self, request: Request) -> Answer:
        declared = request.header(b"content-type")
        if declared and _NOT_JSON.match(declared.strip()):
            raise ServingError(Kind.UNSUPPORTED, "send the message as application/json", what="media")
        body = await request.body()
        encoding = request.header(b"content-encoding")
        if encoding is not None:
            body = await inflated(body, encoding, self._max_inflated)
        asked = reading.asked(body)
        pinned = request.pinned
        entry = default_entry(self._gateway) if pinned is None else self._gateway.find(*pinned)
        signature = entry.signatures[""]
        inputs = inputs_of(asked.given, signature, entry.name, by_place=True)
        response = await infer(self._gateway, entry, InferRequest(inputs, caller=request.caller, dialect=self.name))
        return Answer(body=answers.body(response.outputs, asked, signature, entry.name))
