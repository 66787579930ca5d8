"""The Open Inference Protocol's extensions around models: repository, configuration, statistics, logging and trace settings.

Contributes endpoints to the router in rest.py; how the parameters of load requests are read serves grpc_admin.py, too. Shared memory is
answered with a plain refusal and not listed as an extension.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.dialects import Access, Answer, Request, Services
from dragoman.dialects.documents import json_object, shown
from dragoman.dialects.v2 import facts
from dragoman.dialects.v2.assembly import find
from dragoman.dialects.v2.routes import Endpoint

EXTENSIONS: Final = ("model_repository", "model_repository(unload_dependents)", "model_configuration", "statistics", "trace", "logging")
"""What this module implements of the extensions that clients may ask /v2 for."""

_FILE = "file:"


class Admin:
    """The handlers. Each is called as `await handler(request, *segments)`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._gateway = services.gateway

    def endpoints(self) -> list[Endpoint]:
        """What this module adds to the routes of the dialect."""
        refused = [
            Endpoint(method, f"{kind}sharedmemory{path}", self._no_shared_memory, access)
            for kind in ("system", "cuda")
            for method, path, access in (
                ("GET", "/status", Access.PUBLIC),
                ("GET", "/region/{}/status", Access.PUBLIC),
                ("POST", "/region/{}/register", Access.ADMIN),
                ("POST", "/region/{}/unregister", Access.ADMIN),
                ("POST", "/unregister", Access.ADMIN),
            )
        ]
        return [
            Endpoint("POST", "repository/index", self._index, Access.PUBLIC),
            Endpoint("POST", "repository/models/{}/load", self._load, Access.ADMIN),
            Endpoint("POST", "repository/models/{}/unload", self._unload, Access.ADMIN),
            Endpoint("GET", "models/{}[/versions/{}]/config", self._config, Access.PUBLIC),
            Endpoint("GET", "models/{}[/versions/{}]/stats", self._statistics, Access.PUBLIC),
            Endpoint("GET", "models/stats", self._statistics, Access.PUBLIC),
            Endpoint("GET", "logging", self._logging, Access.PUBLIC),
            Endpoint("POST", "logging", self._set_logging, Access.ADMIN),
            Endpoint("GET", "trace/setting", self._tracing, Access.PUBLIC),
            Endpoint("POST", "trace/setting", self._set_tracing, Access.ADMIN),
            Endpoint("GET", "models/{}/trace/setting", self._tracing, Access.PUBLIC),
            Endpoint("POST", "models/{}/trace/setting", self._set_tracing, Access.ADMIN),
            *refused,
        ]

    # --- repository ---

    async def _index(self, request: Request) -> Answer:
        body = await self._object(request)
        only_ready = body.get("ready", False)
        if not isinstance(only_ready, bool):
            raise invalid(f"'ready' is {shown(only_ready)}, expected true or false")
        return _json(await facts.index(self._services, only_ready=only_ready))

    async def _load(self, request: Request, name: str) -> Answer:
        body = await self._object(request)
        parameters = body.get("parameters", {})
        config, files = overrides(parameters, _decoded)
        await load(self._services, name, config, files, version_to_load(parameters))
        return _json({"name": name, "load": True})

    async def _unload(self, request: Request, name: str) -> Answer:
        body = await self._object(request)
        parameters = body.get("parameters", {})
        if not isinstance(parameters, dict):
            raise invalid(f"'parameters' is {shown(parameters)}, expected an object")
        await self._services.operations.unload(name, members_too=unload_members(parameters))
        return _json({"name": name, "unload": True})

    # --- facts about models ---

    async def _config(self, request: Request, name: str, version: str = "") -> Answer:
        return _json(facts.configuration(find(self._gateway, name, version)))

    async def _statistics(self, request: Request, name: str = "", version: str = "") -> Answer:
        return _json(await facts.statistics(self._services, name, version))

    # --- settings ---

    async def _logging(self, request: Request) -> Answer:
        return _json(self._services.log_settings.read())

    async def _set_logging(self, request: Request) -> Answer:
        return _json(self._services.log_settings.update(await self._object(request)))

    async def _tracing(self, request: Request, name: str = "") -> Answer:
        if name:
            self._gateway.find(name)
        return _json(self._services.trace_settings.read(name))

    async def _set_tracing(self, request: Request, name: str = "") -> Answer:
        if name:
            self._gateway.find(name)
        return _json(self._services.trace_settings.update(await self._object(request), name))

    async def _no_shared_memory(self, request: Request, region: str = "") -> Answer:
        raise facts.no_shared_memory()

    async def _object(self, request: Request) -> dict[str, Any]:
        return await json_object(request, self._services.max_inflated)


async def load(services: Services, name: str, config: str, files: Mapping[str, bytes], version: str) -> None:
    """Load a model, as a request of either transport asks. Raises INVALID_INPUT with the reason for files that cannot be loaded."""
    try:
        await services.operations.load(name, config, files, version)
    except ServingError as error:
        if error.what == "load" and error.kind is Kind.UNAVAILABLE:
            raise invalid(error.message, error.what) from error
        raise


def overrides(parameters: object, decoded: Callable[[str, Any], bytes]) -> tuple[str, dict[str, bytes]]:
    """The configuration and the files of a load request: `config` is JSON text, `file:1/model.onnx` what `decoded` makes bytes of."""
    if not isinstance(parameters, dict):
        raise invalid(f"'parameters' is {shown(parameters)}, expected an object")
    config = parameters.get("config", "")
    if not isinstance(config, str):
        raise invalid(f"the parameter 'config' is {shown(config)}, expected the JSON text of a model configuration")
    files = {key.removeprefix(_FILE): decoded(key, value) for key, value in parameters.items() if key.startswith(_FILE)}
    if files and not config:
        raise invalid("a load request with files needs the parameter 'config' too")
    return config, files


def version_to_load(parameters: Mapping[str, Any]) -> str:
    """The version of a registered model that a load request names, "" for none. Raises INVALID_INPUT."""
    version = parameters.get("version", "")
    if isinstance(version, bool) or not isinstance(version, str | int):
        raise invalid(f"the parameter 'version' is {shown(version)}, expected a version, an alias or a stage of a registered model")
    return str(version)


def unload_members(parameters: Mapping[str, Any]) -> bool:
    """Whether an unload request is for the members of a composed model, too. Raises INVALID_INPUT."""
    members_too = parameters.get("unload_dependents", False)
    if not isinstance(members_too, bool):
        raise invalid(f"'unload_dependents' is {shown(members_too)}, expected true or false")
    return members_too


def _decoded(key: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise invalid(f"the parameter '{key}' is {shown(value)}, expected base64 text")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise invalid(f"the parameter '{key}' is not valid base64") from None


def _json(value: Any) -> Answer:
    return Answer(200, orjson.dumps(value))
