"""The Open Inference Protocol over REST: which path means what, and the handlers in the order of a request. Called by the server's app.

A request reads straight down: route, handler, codec.decode, gateway, codec.encode. The inference route is matched before all others.
"""

from typing import Any, Final

import orjson

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Access, Answer, Request, Route, Services, path_text, rows
from dragoman.dialects.compression import choose_encoding, deflated, inflated
from dragoman.dialects.v2 import admin, codec, facts, generate, mlrun
from dragoman.dialects.v2.admin import Admin
from dragoman.dialects.v2.answers import error_body, refusal
from dragoman.dialects.v2.assembly import find, infer
from dragoman.dialects.v2.binary import LENGTH_HEADER
from dragoman.dialects.v2.mlrun import VOTES, MLRun
from dragoman.dialects.v2.routes import Endpoint, Table

EXTENSIONS: Final = ("binary_tensor_data", "classification", "parameters", "schedule_policy", *admin.EXTENSIONS)
"""What this dialect implements of the extensions that clients may ask /v2 for."""

_READ = frozenset({LENGTH_HEADER, b"content-encoding", b"accept-encoding"})


class V2:
    """The dialect. Handlers are called as `await handler(request, *route.args)`."""

    name = "v2"
    prefixes = ("/v2",)

    def __init__(self, services: Services) -> None:
        self._gateway = services.gateway
        self._info = services.info
        self._max_inflated = services.max_inflated
        # What other parts of the protocol add belongs into these lines: their endpoints, and the extensions that they implement.
        self._mlrun = MLRun(services)
        self._table = Table([*self._inference(), *Admin(services).endpoints(), *self._mlrun.endpoints()])
        self._extensions = [*dict.fromkeys((*EXTENSIONS, *services.extensions))]

    def _inference(self) -> list[Endpoint]:
        return [
            Endpoint("GET", "", self._server_metadata, Access.PUBLIC),
            Endpoint("GET", "health/live", self._live, Access.PUBLIC),
            Endpoint("GET", "health/ready", self._ready, Access.PUBLIC),
            Endpoint("GET", "models/{}[/versions/{}]", self._model_metadata, Access.PUBLIC),
            Endpoint("GET", "models/{}[/versions/{}]/ready", self._model_ready, Access.PUBLIC),
            *(Endpoint(method, "models/{}[/versions/{}]", self._infer, Access.INFER) for method in ("POST", "PUT")),
            Endpoint("POST", "models/{}[/versions/{}]/infer", self._infer, Access.INFER),
            Endpoint("POST", "models/{}[/versions/{}]/generate", self._generate, Access.INFER),
            Endpoint("POST", "models/{}[/versions/{}]/generate_stream", self._generate_stream, Access.INFER),
        ]

    # --- the seam ---

    def route(self, request: Request) -> Route:
        segments = _segments(request)
        if len(segments) == 5 and segments[4] == "infer" and request.method == "POST" and segments[2] == "models" and segments[3]:
            return Route(self._infer, Access.INFER, (segments[3],))
        below = _below(segments)
        if (
            len(below) == 2
            and below[1] in VOTES
            and below[0] == "models"
            and request.method == "POST"
            and not self._gateway.statuses(below[1])
        ):
            return Route(self._mlrun.vote, Access.INFER, (below[1],))
        return self._table.match(request, below)

    def refuse(self, request: Request, error: ServingError) -> Answer:
        return refusal(error, self._table.methods(_below(_segments(request))) if error.what == "method" else ())

    # --- inference ---

    async def _infer(self, request: Request, model: str, version: str = "") -> Answer:
        json_size = encoding = accept = None
        for key, value in request.scope["headers"]:
            if key in _READ:
                if key == LENGTH_HEADER:
                    json_size = value
                elif key == b"accept-encoding":
                    accept = value
                else:
                    encoding = value
        body = await request.body()
        if encoding is not None:
            body = await inflated(body, encoding, self._max_inflated)
        # From here to gateway.infer nothing is awaited, so the entry cannot be drained in between.
        entry = find(self._gateway, model, version)
        if json_size is None:
            try:
                document = codec.parse(body, entry.name)
            except ServingError:
                document = mlrun.document_of(request, body, f"the request to model '{entry.name}'")
            if mlrun.speaks(document, entry):
                answer = await self._mlrun.ask(request, document, model, version, "infer")
                return answer if accept is None else await _compressed(answer, accept)
            asked, plan = codec.requested(entry, document)
        else:
            asked, plan = codec.decode(entry, body, json_size)
        response = await infer(self._gateway, entry, asked)
        answer = codec.encode(entry, asked, response, plan)
        return answer if accept is None else await _compressed(answer, accept)

    async def _generate(self, request: Request, model: str, version: str = "") -> Answer:
        _refuse_encoding(request)
        body = await request.body()
        entry = find(self._gateway, model, version)
        asked = generate.decode(entry, body)
        response = await rows.infer(self._gateway, entry, asked)
        answer = Answer(200, generate.encode(entry, asked, response))
        accept = request.header(b"accept-encoding")
        return answer if accept is None else await _compressed(answer, accept)

    async def _generate_stream(self, request: Request, model: str, version: str = "") -> Answer:
        _refuse_encoding(request)
        body = await request.body()
        entry = find(self._gateway, model, version)
        asked = generate.decode(entry, body)
        events = generate.events(self._gateway, entry, asked)
        return Answer(200, events, b"text/event-stream; charset=utf-8", [(b"cache-control", b"no-cache")])

    # --- health and metadata ---

    async def _live(self, request: Request) -> Answer:
        return _json({"live": True})

    async def _ready(self, request: Request) -> Answer:
        if self._gateway.ready():
            return _json({"ready": True})
        return _json({"ready": False, "error": self._why_not_ready()}, 503)

    def _why_not_ready(self) -> str:
        if self._gateway.draining:
            return "the server is shutting down"
        waiting = self._gateway.unready()
        if not waiting:
            return "the server is starting"
        return "not ready: " + ", ".join(f"model '{s.name}' version {s.version} is {s.state.value}" for s in waiting)

    async def _model_ready(self, request: Request, model: str, version: str = "") -> Answer:
        try:
            entry = find(self._gateway, model, version)
        except ServingError as error:
            if error.kind in (Kind.NOT_READY, Kind.UNAVAILABLE):
                # 408 is MLRun's word for "not yet", a 4xx as in Triton; probes and clients only look whether it is 200.
                return Answer(408, error_body(error))
            raise
        return _json({"name": entry.name, "ready": True})

    async def _server_metadata(self, request: Request) -> Answer:
        return _json({"name": self._info.name, "version": self._info.version, "extensions": self._extensions})

    async def _model_metadata(self, request: Request, model: str, version: str = "") -> Answer:
        try:
            entry = find(self._gateway, model, version)
        except ServingError as error:
            early = mlrun.early_metadata(self._gateway, model, version) if error.kind is Kind.NOT_READY else None
            if early is None:
                raise
            return _json(early)
        named = bool(version) or (entry.name != model and model.endswith(f":{entry.version}"))
        return _json(mlrun.metadata(facts.model_metadata(self._gateway, entry, only=named), entry))


def _segments(request: Request) -> list[str]:
    """The path cut at its slashes, then percent-decoded: an encoded slash belongs to the name it stands in. The first one is empty."""
    if b"%" not in request.raw_path:
        return request.path.split("/")
    return [path_text(segment) for segment in request.raw_path.split(b"/")]


def _below(segments: list[str]) -> list[str]:
    """What follows /v2; a slash at the end changes nothing."""
    return segments[2:-1] if len(segments) > 2 and not segments[-1] else segments[2:]


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(status, orjson.dumps(value))


def _refuse_encoding(request: Request) -> None:
    encoding = request.header(b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
        raise ServingError(
            Kind.UNSUPPORTED, f"generate takes no Content-Encoding, not '{encoding.decode('latin-1')[:40]}'", what="encoding"
        )


async def _compressed(answer: Answer, accept: bytes) -> Answer:
    """The answer as its client asked for it. Like Triton without a least size: whoever asks for compression may test for it."""
    encoding = choose_encoding(accept)
    body = answer.body
    if encoding is None or not isinstance(body, bytes):
        return answer
    answer.body = await deflated(body, encoding)
    answer.headers.append((b"content-encoding", encoding))
    return answer
