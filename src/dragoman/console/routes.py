"""The face at `/`, `/docs`, `/openapi.json` and our own API under `/dragoman/v1/`; it answers for the paths that nobody else claims.

`GET /` gives browsers a page. Everybody else gets one JSON object that is MLRun's server information (name, version, extensions) and
Tungsten's description of the default model (input_schema, output_schema, demo_output_schema) at the same time.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import orjson

from dragoman.console.docs_page import docs_page
from dragoman.console.openapi import document
from dragoman.console.page import start_page
from dragoman.console.registry_api import PATHS, RegistryApi
from dragoman.core.errors import Kind, ServingError
from dragoman.core.plugins import find
from dragoman.core.samples import example
from dragoman.core.tensors import TensorSpec
from dragoman.dialects import USUAL_STATUS, Access, Answer, Request, Route, Services, chosen
from dragoman.dialects.addresses import base_url
from dragoman.dialects.documents import json_object
from dragoman.dialects.refusals import words
from dragoman.serving.gateway import VersionStatus
from dragoman.serving.meters import Tally
from dragoman.serving.root_model import default_entry, description

_PAGE_HEADERS = [
    (b"content-security-policy", b"default-src 'none'; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]

_DETAILS = {"path": "Not Found", "method": "Method Not Allowed"}


class Console:
    name = "console"
    prefixes: tuple[str, ...] = ("/dragoman/v1",)

    def __init__(self, services: Services) -> None:
        self._services = services
        self._registry = RegistryApi(services)
        self._root = find("messages", "root")(services)

    def route(self, request: Request) -> Route:
        return chosen(request, self._methods(request))

    def _methods(self, request: Request) -> Mapping[str, Route]:
        """What a path has, by method; nothing for a path that does not exist."""
        path = request.path.rstrip("/")
        parts = path.split("/")
        if path.startswith(PATHS):
            segments = request.raw_path.decode("ascii", "replace").rstrip("/").split("/")[3:]
            return self._registry.methods([unquote(segment) for segment in segments])  # a "/" in a name is escaped
        if path == "/api/tracking":
            return {"GET": Route(self._tracking, Access.ADMIN), "PUT": Route(self._set_tracking, Access.ADMIN)}
        if path == "":
            return {"GET": Route(self._face, Access.PUBLIC), "POST": Route(self._root, Access.INFER)}
        elif path == "/dragoman/v1/status":
            route = Route(self._status, Access.PUBLIC)
        elif path in ("/openapi.json", "/dragoman/v1/openapi.json"):
            route = Route(self._openapi, Access.PUBLIC)
        elif path in ("/docs", "/redoc"):
            route = Route(self._docs, Access.PUBLIC)
        elif path == "/dragoman/v1/streams":
            route = Route(self._streams, Access.ADMIN)
        elif path == "/dragoman/v1/models":
            route = Route(self._models, Access.PUBLIC)
        elif path.startswith("/dragoman/v1/models/") and len(parts) == 5:
            route = Route(self._model, Access.PUBLIC, (parts[4],))
        else:
            return {}
        return {"GET": route}

    def refuse(self, request: Request, error: ServingError) -> Answer:
        status = 405 if error.what == "method" else USUAL_STATUS[error.kind]
        text = words(error, None)
        body = {"error": text, "kind": error.kind.value}
        if not request.path.startswith("/dragoman/"):  # a client of Tungsten looks for these words where nobody else has any
            body["detail"] = _DETAILS.get(error.what, text)
        answer = _json(body, status)
        if status == 405:
            allowed = ", ".join(self._methods(request)).replace("GET", "GET, HEAD")
            answer.headers.append((b"allow", allowed.encode()))
        return answer

    async def _face(self, request: Request) -> Answer:
        accept = request.header(b"accept") or b""
        if b"text/html" in accept:
            page = start_page(self._services, base_url(request, self._services.public_url))
            return Answer(200, page.encode(), b"text/html; charset=utf-8", list(_PAGE_HEADERS))
        return _json(
            {
                "name": self._services.info.name,
                "version": "v2",
                "extensions": list(self._services.extensions),
                **self._description(),
            }
        )

    def _description(self) -> dict[str, Any]:
        """The default model's schemas, empty without any model. Raises NOT_READY or UNAVAILABLE while the default model cannot answer."""
        try:
            return description(default_entry(self._services.gateway).signatures)
        except ServingError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            return {"input_schema": {}, "output_schema": {}, "demo_output_schema": {}}

    async def _docs(self, request: Request) -> Answer:
        page = docs_page(document(self._services), base_url(request, self._services.public_url))
        return Answer(200, page.encode(), b"text/html; charset=utf-8", list(_PAGE_HEADERS))

    async def _status(self, request: Request) -> Answer:
        gateway, info = self._services.gateway, self._services.info
        versions = [self._version(s) for s in gateway.statuses()]
        return _json(
            {"name": info.name, "version": info.version, "ready": gateway.ready(), "draining": gateway.draining, "models": versions}
        )

    async def _models(self, request: Request) -> Answer:
        return _json({"models": [self._version(s) for s in self._services.gateway.statuses()]})

    async def _model(self, request: Request, name: str) -> Answer:
        gateway = self._services.gateway
        statuses = gateway.statuses(name)
        if not statuses:
            raise ServingError(Kind.NOT_FOUND, f"model '{name}' is not known to this server", what="model")
        described: dict[str, Any] = {"name": name, "versions": [self._version(s) for s in statuses], "labels": dict(gateway.labels(name))}
        try:
            entry = gateway.find(name)
        except ServingError:
            return _json(described)
        described["signatures"] = {
            key: {"inputs": _specs(s.inputs), "outputs": _specs(s.outputs), "batch": s.batch, "example": example(s)}
            for key, s in entry.signatures.items()
        }
        return _json(described)

    def _version(self, status: VersionStatus) -> dict[str, Any]:
        row: dict[str, Any] = {
            "name": status.name,
            "version": status.version,
            "state": status.state.value,
            "reason": status.reason,
            "platform": status.platform,
            "since": status.since,
        }
        entry = self._services.gateway.table().get((status.name, status.version))
        desired = self._services.registry.desired(status.name)
        wanted = desired.versions.get(status.version) if desired is not None else None
        spec = entry.spec if entry is not None and wanted is not None else wanted.spec if wanted is not None else None
        if spec is not None:
            row |= {"runtime": spec.runtime or "ensemble", "max_batch_size": spec.batch.max_size, "warnings": list(spec.warnings)}
            if spec.digest:
                row["digest"] = spec.digest
        return row

    async def _tracking(self, request: Request) -> Answer:
        return _json(self._tracking_now(self._services.record_settings.read()))

    async def _set_tracking(self, request: Request) -> Answer:
        values = await json_object(request, self._services.max_inflated)
        return _json(self._tracking_now(self._services.record_settings.update(values)))

    def _tracking_now(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings, and how many records there were and were dropped, in all workers."""
        tallies = self._services.meters.read().tallies.values()
        recorded, dropped = (sum(each.get(tally, 0) for each in tallies) for tally in (Tally.RECORDED, Tally.UNRECORDED))
        return {**settings, "recorded": recorded, "dropped": dropped}

    async def _streams(self, request: Request) -> Answer:
        return _json({"streams": self._services.streams()})

    async def _openapi(self, request: Request) -> Answer:
        return _json(document(self._services))


def _specs(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
    return [
        {"name": s.name, "datatype": s.datatype.name if s.datatype else None, "shape": s.shape, "optional": s.optional, "labels": s.labels}
        for s in specs
    ]


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(status, orjson.dumps(value))
