"""A prediction service and uploads in memory, which do what a test tells them; and a client of the Tungsten dialect without sockets."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any

from dragoman.core.data_uris import bare_name
from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State
from dragoman.core.model import InferRequest, InferResponse, ModelSpec
from dragoman.core.predictions import Progress
from dragoman.core.tensors import BYTES, FP64, INT64, Blob, Form, Signature, TensorSpec
from dragoman.dialects import CALLER, Request
from dragoman.dialects.tungsten.rest import Tungsten
from dragoman.serving.fetch import media_type
from dragoman.serving.gateway import Entry, Gateway, VersionStatus
from dragoman.serving.meters import Meters
from dragoman.serving.predictions import Event, View
from dragoman.serving.uploads import Upload
from tests.asgi import Reply
from tests.services import services

Rows = list[Any]


def view(prediction_id: str = "", **fields: Any) -> View:
    """A prediction that has just been accepted, but for these fields."""
    waiting = View(prediction_id, "m", "1", "predict", Progress.PENDING, None, "", "", "", 100.0, None, None)
    return replace(waiting, **fields)


class FakePredictions:
    """Ids are 32 digits that count up. `work`, where it is set, makes the outputs at once; else a test calls `change`."""

    def __init__(self) -> None:
        self.views: dict[str, View] = {}
        self.given: dict[str, Rows] = {}
        self.webhooks: dict[str, str] = {}
        self.callers: dict[str, str] = {}
        self.cancelled: list[str] = []
        self.waits: list[float] = []
        self.work: Callable[[Rows], Rows] | None = None
        self.error: ServingError | None = None
        self.run_view = view(progress=Progress.SUCCEEDED, outputs=[])
        self.scripts: dict[str, list[Event]] = {}
        self.ended_streams = 0

    def write_webhooks(self, body: Callable[[View], bytes]) -> None:
        self.webhook_body = body

    def change(self, prediction_id: str, **fields: Any) -> None:
        self.views[prediction_id] = replace(self.views[prediction_id], **fields)

    def succeed(self, prediction_id: str, *outputs: Any) -> None:
        self.change(prediction_id, progress=Progress.SUCCEEDED, outputs=list(outputs), finished=102.0)

    async def submit(
        self, entry: Entry, rows: Rows, *, operation: str = "predict", webhook: str = "", caller: str = "", dialect: str = ""
    ) -> str:
        if self.error is not None:
            raise self.error
        prediction_id = f"{len(self.views) + 1:032x}"
        self.views[prediction_id] = view(prediction_id, model=entry.name, version=entry.version, operation=operation)
        self.given[prediction_id] = rows
        self.webhooks[prediction_id] = webhook
        self.callers[prediction_id] = caller
        if self.work is not None:
            self.succeed(prediction_id, *self.work(rows))
        return prediction_id

    async def get(self, prediction_id: str) -> View:
        if prediction_id not in self.views:
            raise ServingError(Kind.NOT_FOUND, "there is no such prediction", what="prediction")
        return self.views[prediction_id]

    async def inputs(self, prediction_id: str) -> Rows:
        return self.given[prediction_id]

    async def wait(self, prediction_id: str, timeout_s: float) -> View:
        self.waits.append(timeout_s)
        self.succeed(prediction_id, {"text": "waited for"})
        return self.views[prediction_id]

    async def events(self, prediction_id: str) -> AsyncGenerator[Event, None]:
        try:
            for event in self.scripts.get(prediction_id, []):
                yield event
        finally:
            self.ended_streams += 1

    async def cancel(self, prediction_id: str) -> View:
        self.cancelled.append(prediction_id)
        if not self.views[prediction_id].progress.terminal:
            self.change(prediction_id, progress=Progress.CANCELLED)
        return self.views[prediction_id]

    async def run(self, entry: Entry, rows: Rows, *, operation: str = "predict", caller: str = "", dialect: str = "") -> View:
        if self.error is not None:
            raise self.error
        return replace(self.run_view, outputs=self.work(rows)) if self.work is not None else self.run_view


class FakeUploads:
    """Ids are 32 digits that count up."""

    def __init__(self) -> None:
        self.files: dict[str, Blob] = {}

    async def add(self, chunks: AsyncIterator[bytes], name: str = "", declared_type: str = "") -> Upload:
        data = b"".join([chunk async for chunk in chunks])
        upload = Upload(f"{len(self.files):032x}", bare_name(name), media_type(declared_type, name), len(data))
        self.files[upload.id] = Blob(data, upload.media_type, upload.name)
        return upload

    async def get(self, key: str) -> Blob:
        if key[:32] not in self.files:
            raise ServingError(Kind.NOT_FOUND, "there is no such file", what="file")
        return self.files[key[:32]]


class Unasked:
    """A servable that has signatures and is never called: the service is a fake."""

    platform = "unasked"

    def __init__(self, signatures: Mapping[str, Signature], operations: frozenset[str]) -> None:
        self.signatures = signatures
        self.operations = operations

    async def infer(self, request: InferRequest) -> InferResponse:
        raise AssertionError("nobody asks")

    async def stream(self, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
        yield await self.infer(request)

    async def lost(self) -> str:
        return "never"

    async def drain(self, deadline: float) -> None: ...

    async def close(self) -> None: ...

    def trouble(self) -> str:
        return ""

    def pending(self) -> int:
        return 0


_TEXT_IN = {
    "type": "object",
    "properties": {
        "prompt": {"type": "string", "minLength": 2, "maxLength": 20, "description": "Prompt"},
        "seed": {"type": "integer", "minimum": 0, "maximum": 99, "default": 7, "description": "Seed"},
        "style": {"type": "string", "choices": ["plain", "bold"], "default": "plain", "description": "Style"},
    },
    "required": ["prompt"],
}
_TEXT_OUT = {"type": "object", "properties": {"text": {"type": "string"}, "score": {"type": "number"}}, "required": ["text"]}
_SHOWN = {"type": "object", "properties": {"page": {"type": "string"}}, "required": ["page"]}
_PICTURE = {
    "type": "object",
    "properties": {"image": {"type": "string", "format": "uri"}, "strength": {"type": "number", "default": 0.5}},
    "required": ["image"],
}

TEXT: Mapping[str, Signature] = {
    "": Signature(
        form=Form.ROWS,
        inputs=(TensorSpec("prompt", BYTES, (-1,)), TensorSpec("seed", INT64, (-1,), True), TensorSpec("style", BYTES, (-1,), True)),
        outputs=(TensorSpec("text", BYTES, (-1,)), TensorSpec("score", FP64, (-1,))),
        batch=True,
        options=("seed", "style"),
        input_schema=_TEXT_IN,
        output_schema=_TEXT_OUT,
    ),
    "@demo": Signature(
        form=Form.ROWS,
        batch=True,
        options=("seed", "style"),
        input_schema=_TEXT_IN,
        output_schema={"type": "object", "properties": {"output": _TEXT_OUT, "demo_output": _SHOWN}},
    ),
}
"""A model that makes text of text, with two options and a demo."""

PICTURES: Mapping[str, Signature] = {
    "": Signature(
        form=Form.ROWS,
        batch=True,
        options=("strength",),
        input_schema=_PICTURE,
        output_schema={"type": "object", "properties": {"image": {"type": "string", "format": "uri"}}, "required": ["image"]},
        input_files={"image": "image"},
        output_files={"image": "image"},
    )
}

NUMBERS: Mapping[str, Signature] = {
    "": Signature(inputs=(TensorSpec("x", FP64, (-1, 2)),), outputs=(TensorSpec("y", FP64, (-1,)),), batch=True)
}
"""A model of tensors."""

DEMOS = frozenset({"predict", "demo"})


class Client:
    """The dialect over models that only have signatures; what is asked of them ends in the fake service."""

    def __init__(self, **models: Mapping[str, Signature]) -> None:
        meters = Meters()
        self.gateway = Gateway(meters)
        self.predictions = FakePredictions()
        self.uploads = FakeUploads()
        for name, signatures in (models or {"m": TEXT}).items():
            self.serve(name, signatures)
        self.gateway.named = tuple(models or ("m",))
        self.dialect = Tungsten(services(self.gateway, meters, predictions=self.predictions, uploads=self.uploads))

    def serve(self, name: str, signatures: Mapping[str, Signature], version: str = "1", label: str = "", **fields: Any) -> None:
        """One ready version; the last one is the default of its name."""
        operations = DEMOS if "@demo" in signatures else frozenset({"predict"})
        entry = Entry(ModelSpec(name, version, **fields), Unasked(signatures, operations))
        labelled = {(name, f"@{label}"): entry} if label else {}
        self.gateway.swap({**self.gateway.table(), (name, version): entry, (name, ""): entry, **labelled})
        statuses = [*self.gateway.statuses(name), VersionStatus(name, version, State.READY, "")]
        self.gateway.publish(name, statuses, {**self.gateway.labels(name), **({label: version} if label else {})})

    def request(
        self, method: str, path: str, body: Any = b"", headers: Mapping[str, str] | None = None, query: str = "", caller: str = ""
    ) -> Request:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(k.lower().encode(), v.encode()) for k, v in {"host": "models.example:3000", **(headers or {})}.items()],
        }
        if caller:
            scope[CALLER] = caller

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": content, "more_body": False}

        return Request(scope, receive, 1 << 26)

    async def ask(self, request: Request) -> Reply:
        """The answer as the application would send it, streams included."""
        try:
            route = self.dialect.route(request)
            answer = await route.handler(request, *route.args)
            parts = [answer.body] if isinstance(answer.body, bytes) else [part async for part in answer.body]
        except ServingError as error:
            answer = self.dialect.refuse(request, error)
            assert isinstance(answer.body, bytes)
            parts = [answer.body]
        start = {"status": answer.status, "headers": [(b"content-type", answer.media_type), *answer.headers]}
        return Reply([start, *({"body": part} for part in parts)])

    def send(self, method: str, path: str, body: Any = b"", headers: Mapping[str, str] | None = None, **more: Any) -> Reply:
        return asyncio.run(self.ask(self.request(method, path, body, headers, **more)))

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None, **more: Any) -> Any:
        """The JSON of an answer that must be 200."""
        reply = self.send("POST", path, body, headers, **more)
        assert reply.status == 200, reply.body
        return json.loads(reply.body)

    def get(self, path: str, **more: Any) -> Any:
        """The same of a GET."""
        reply = self.send("GET", path, **more)
        assert reply.status == 200, reply.body
        return json.loads(reply.body)

    def refused(self, status: int, method: str, path: str, body: Any = b"", headers: Mapping[str, str] | None = None, **more: Any) -> Any:
        """The JSON of an answer that must be this error."""
        reply = self.send(method, path, body, headers, **more)
        assert reply.status == status, (reply.status, reply.body)
        assert reply.headers[b"content-type"] == b"application/json"
        return json.loads(reply.body)
