"""MLflow's scoring protocol at the root, for the default model, and below the prefix of a served version. Made by the server, once.

`/invocations`, `/ping`, `/health` and `/version`, for models of every runtime: routes and handlers.
"""

from collections.abc import Mapping
from typing import Any

from dragoman.core.binary_bodies import file_inputs, is_binary
from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import EMPTY, InferRequest
from dragoman.core.tensors import Rows, Tensors
from dragoman.dialects import Access, Answer, Request, Route, Services, method_error, path_error
from dragoman.dialects.compression import inflated
from dragoman.dialects.given import inputs_of
from dragoman.dialects.mlflow import scoring_answers, scoring_reading
from dragoman.dialects.mlflow.scoring_errors import refusal
from dragoman.dialects.rows import infer
from dragoman.serving.gateway import Entry
from dragoman.serving.root_model import default_entry


class MLflowScoring:
    """A Dialect."""

    name = "mlflow"
    prefixes: tuple[str, ...] = ("/invocations", "/ping", "/health", "/version")

    def __init__(self, services: Services) -> None:
        self._gateway = services.gateway
        self._info = services.info
        self._max_inflated = services.max_inflated
        reads = ("GET", "HEAD")
        ping = (reads, Route(self._ping, Access.PUBLIC))
        self._routes: Mapping[str, tuple[tuple[str, ...], Route | None]] = {
            "/invocations": (("POST",), Route(self._invoke, Access.INFER)),
            "/ping": ping,
            "/health": ping,
            "/version": (reads, Route(self._version, Access.PUBLIC)),
        }

    def route(self, request: Request) -> Route:
        methods, route = self._routes.get(request.path, ((), None))
        if route is None:
            raise path_error(request)
        if request.method not in methods:
            raise method_error(request, methods)
        return route

    def refuse(self, request: Request, error: ServingError) -> Answer:
        methods, _ = self._routes.get(request.path, ((), None))
        return refusal(error, methods)

    # --- handlers ---

    async def _invoke(self, request: Request) -> Answer:
        content_type = request.header(b"content-type")
        file = is_binary(content_type)
        said = None if file else scoring_reading.media(content_type)
        body = await request.body()
        encoding = request.header(b"content-encoding")
        if encoding is not None:
            body = await inflated(body, encoding, self._max_inflated)
        document = None if said is None else scoring_reading.document(body, said)
        entry = self._find(request)  # from here to gateway.infer nothing is awaited, so the entry cannot be drained in between
        signature = entry.signatures[""]
        params: Mapping[str, Any] = EMPTY
        if document is None:
            inputs = _file(body, content_type, entry)
        else:
            inputs = inputs_of(document.given(signature), signature, entry.name)
            if document.params:
                params = {name: value for name, value in document.params.items() if name in signature.reads}
        asked = InferRequest(inputs, parameters=params, caller=request.caller, dialect=self.name)
        response = await infer(self._gateway, entry, asked)
        shape = scoring_answers.shape_of(entry.spec, signature, table=document is not None and document.table)
        return Answer(body=scoring_answers.predictions(response.outputs, entry.name, shape))

    async def _ping(self, request: Request) -> Answer:
        """A newline, as the original: probes look at the status."""
        entry = self._find(request)
        if self._gateway.draining:
            raise ServingError(Kind.UNAVAILABLE, "the server is shutting down")
        trouble = entry.servable.trouble()
        if trouble:
            raise ServingError(Kind.NOT_READY, f"model '{entry.name}' cannot answer: {trouble}", what="model", retry_after_s=1.0)
        return Answer(body=b"\n")

    async def _version(self, request: Request) -> Answer:
        """The version of MLflow that the model was logged with, which is what clients compare; of other models this server's own."""
        version = f"{self._info.name} {self._info.version}"
        try:
            logged = self._find(request).spec.arguments.get("mlflow")
        except ServingError:
            if request.pinned is not None:
                raise
        else:
            version = (isinstance(logged, Mapping) and logged.get("mlflow_version")) or version
        return Answer(body=str(version).encode(), media_type=b"text/plain; charset=utf-8")

    def _find(self, request: Request) -> Entry:
        pinned = request.pinned
        return default_entry(self._gateway) if pinned is None else self._gateway.find(*pinned)


def _file(body: bytes, content_type: bytes | None, entry: Entry) -> Tensors | Rows:
    """The input of a model that takes a file. Raises as MLflow does for a content type that is not read (415), for other models."""
    try:
        return file_inputs(body, content_type, entry.signatures[""], entry.name)
    except ServingError as error:
        raise ServingError(Kind.UNSUPPORTED, error.message, what="media") from None
