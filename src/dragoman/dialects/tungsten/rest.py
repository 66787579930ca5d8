"""Tungsten's REST API: routes and handlers, for models of every runtime. Made by the server, once.

The same routes are at the root, for the default model, and below /models/NAME or /models/NAME:TAG, where TAG is a version or a label. Ids of
predictions and demos share one space. What the demo server of the original answers is below /demo, in demo.py.
"""

import re
from contextlib import aclosing

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Access, Answer, Handler, Request, Route, Services, path_text
from dragoman.dialects.tungsten import answers, errors, files, reading
from dragoman.dialects.tungsten.calls import DIALECT, Calls, find
from dragoman.dialects.tungsten.demo import Demo
from dragoman.dialects.tungsten.events import stream
from dragoman.dialects.tungsten.forms import file_of
from dragoman.serving.root_model import description

_EVENT_HEADERS = [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
_UNDONE = frozenset({Kind.OVERLOADED, Kind.NOT_READY, Kind.UNAVAILABLE, Kind.TIMEOUT})

Methods = dict[str, Route]


_POLL = re.compile(rb"/predictions/([0-9a-f]{32})\Z")


class Tungsten:
    """A Dialect."""

    name = DIALECT
    prefixes: tuple[str, ...] = ("/predictions", "/predict", "/demo", "/models", "/files")

    def __init__(self, services: Services) -> None:
        self._gateway = services.gateway
        self._predictions = services.predictions
        self._uploads = services.uploads
        self._calls = Calls(self._gateway, self._predictions, self._uploads, services.max_inflated)
        self._demo = Demo(self._calls)
        self._predictions.write_webhooks(answers.webhook_body)
        self._often = {b"/predictions": _post(self._create, "", "", "predictions"), b"/predict": _post(self._predict, "", "")}

    # --- routing ---

    def route(self, request: Request) -> Route:
        path = request.raw_path
        if request.method == "GET" and (poll := _POLL.match(path)) is not None:
            return Route(self._show, Access.INFER, ("", poll[1].decode(), "predictions"))
        methods = self._often.get(path) or self._methods(request)
        if not methods:
            raise ServingError(Kind.NOT_FOUND, "Not Found", what="path")
        route = methods.get(request.method)
        if route is None:
            raise ServingError(Kind.UNSUPPORTED, "Method Not Allowed", what="method")
        return route

    def refuse(self, request: Request, error: ServingError) -> Answer:
        if error.what == "method":
            return errors.wrong_method(error, self._methods(request))
        return errors.refusal(error)

    def _methods(self, request: Request) -> Methods:
        """What a path has, by method; nothing for a path that does not exist."""
        parts = request.raw_path.split(b"/")[1:]
        if len(parts) > 1 and not parts[-1]:  # one slash at the end changes nothing
            parts.pop()
        if not all(parts):
            return {}
        if path_text(parts[0]) != "models":
            return self._below("", "", [path_text(part) for part in parts])
        if len(parts) < 2:
            return {}
        name, _, tag = parts[1].partition(b":")  # an escaped colon would belong to a name
        if not name or parts[1].endswith(b":"):
            return {}
        where = path_text(name), path_text(tag)
        rest = [path_text(part) for part in parts[2:]]
        if not rest:
            return {"GET": Route(self._describe, Access.PUBLIC, where)}
        return {} if rest[0] == "files" else self._below(*where, rest)

    def _below(self, name: str, tag: str, rest: list[str]) -> Methods:
        demo = self._demo
        match rest:
            case ["predictions" | "demo" as kind]:
                return _post(self._create, name, tag, kind)
            case ["predict"]:
                return _post(self._predict, name, tag)
            case ["demo", "metadata"]:
                return {"GET": Route(demo.metadata, Access.PUBLIC, (name, tag))}
            case ["demo", "predictions"]:
                return _post(demo.create, name, tag)
            case ["demo", "predictions", prediction_id]:
                return _get(demo.show, name, prediction_id)
            case ["demo", "predictions", prediction_id, "cancel"]:
                return _get(demo.cancel, name, prediction_id) | _post(demo.cancel, name, prediction_id)
            case ["files"] | ["demo", "files"]:
                return _post(self._upload, "/".join(["", *rest, ""]))
            case ["files", file] | ["demo", "files", file]:
                return _get(demo.file, file)
            case ["predictions" | "demo" as kind, prediction_id]:
                return _get(self._show, name, prediction_id, kind)
            case ["predictions" | "demo", prediction_id, "cancel"]:
                return _get(self._cancel, name, prediction_id) | _post(self._cancel, name, prediction_id)
            case ["predictions" | "demo", prediction_id, "events"]:
                return _get(self._events, name, prediction_id)
        return {}

    # --- handlers ---

    async def _create(self, request: Request, name: str, tag: str, kind: str) -> Answer:
        webhook = (request.header(b"x-webhook-url") or b"").decode("latin-1") or reading.query(request).get("webhook", "")
        entry, rows = await self._calls.rows(request, name, tag)
        operation = "demo" if kind == "demo" else "predict"
        prediction_id = await self._calls.submit(entry, rows, operation, request, webhook)
        return Answer(body=answers.encode({"demo_id" if kind == "demo" else "prediction_id": prediction_id}))

    async def _predict(self, request: Request, name: str, tag: str) -> Answer:
        """Waits for the outputs. A failed prediction is an answer like any other; one that never ran, or ran out of time, is not."""
        entry, rows = await self._calls.rows(request, name, tag)
        view = await self._predictions.run(entry, rows, caller=request.caller, dialect=self.name)
        kind = next((kind for kind in _UNDONE if view.error_kind == kind.value), None)
        if kind is Kind.TIMEOUT or (kind is not None and view.started is None):
            raise ServingError(kind, view.error, retry_after_s=1.0 if kind is Kind.OVERLOADED else None)
        return Answer(body=await answers.encoded(answers.prediction(view)))

    async def _show(self, request: Request, name: str, prediction_id: str, kind: str) -> Answer:
        if not request.query and kind == "predictions":
            return Answer(body=await answers.encoded(answers.prediction(await self._calls.view(name, prediction_id))))
        parameters = reading.query(request)
        seconds = reading.wait_s(parameters)
        view = await self._calls.view(name, prediction_id)
        if seconds and not view.progress.terminal:
            view = await self._predictions.wait(prediction_id, seconds)
        body = answers.demo(view) if kind == "demo" else answers.prediction(view)
        if reading.flag(parameters, "verbose"):
            body = {**answers.details(view), **body}
        return Answer(body=await answers.encoded(body))

    async def _cancel(self, request: Request, name: str, prediction_id: str) -> Answer:
        await self._calls.view(name, prediction_id)
        await self._predictions.cancel(prediction_id)
        return Answer(200, b"", b"")

    async def _events(self, request: Request, name: str, prediction_id: str) -> Answer:
        await self._calls.view(name, prediction_id)
        return Answer(200, stream(self._predictions, prediction_id), b"text/event-stream; charset=utf-8", list(_EVENT_HEADERS))

    async def _describe(self, request: Request, name: str, tag: str) -> Answer:
        return Answer(body=answers.encode(description(find(self._gateway, name, tag).signatures)))

    async def _upload(self, request: Request, folder: str) -> Answer:
        file = await file_of(request.read, request.header(b"content-type"))
        async with aclosing(file.content) as content:
            upload = await self._uploads.add(content, file.name, file.media_type)
        return Answer(body=answers.encode({"serving_url": files.file_url(request, folder, upload.key)}))


def _get(handler: Handler, *args: str) -> Methods:
    return {"GET": Route(handler, Access.INFER, args)}


def _post(handler: Handler, *args: str) -> Methods:
    return {"POST": Route(handler, Access.INFER, args)}
