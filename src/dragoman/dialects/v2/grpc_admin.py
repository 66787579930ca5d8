"""Everything of GRPCInferenceService but inference: health, metadata, repository, statistics and settings, by message classes.

What is said is what REST says (facts.py). Contributes methods to the service in grpc.py.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.dialects import Access, Services
from dragoman.dialects.documents import shown
from dragoman.dialects.rpc import Method, RpcCall
from dragoman.dialects.v2 import facts
from dragoman.dialects.v2.admin import load, overrides, unload_members, version_to_load
from dragoman.dialects.v2.assembly import find
from dragoman.dialects.v2.rest import EXTENSIONS
from dragoman.proto import messages

_DEEPEST = 100
"""Levels of messages in an answer; a model configuration has a dozen."""

Handler = Callable[[Any], Awaitable[dict[str, Any]]]
"""From a request message to the answer's fields in their JSON form."""


class Admin:
    """The handlers; `methods` makes services of bytes of them."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._gateway = services.gateway
        self._extensions = [*dict.fromkeys((*EXTENSIONS, *services.extensions))]

    def methods(self) -> dict[str, Method]:
        """By the names of the calls."""
        public: dict[str, Handler] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._config,
            "ModelStatistics": self._statistics,
            "RepositoryIndex": self._index,
            "SystemSharedMemoryStatus": self._no_shared_memory,
            "CudaSharedMemoryStatus": self._no_shared_memory,
        }
        changing: dict[str, Handler] = {
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
            # One call reads and changes, so it needs what changing needs.
            "TraceSetting": self._tracing,
            "LogSettings": self._logging,
            **{f"{kind}SharedMemory{act}": self._no_shared_memory for kind in ("System", "Cuda") for act in ("Register", "Unregister")},
        }
        return {
            **{name: Method(Access.PUBLIC, unary=_by_messages(name, handler)) for name, handler in public.items()},
            **{name: Method(Access.ADMIN, unary=_by_messages(name, handler)) for name, handler in changing.items()},
        }

    # --- health and metadata ---

    async def _live(self, request: Any) -> dict[str, Any]:
        return {"live": True}

    async def _ready(self, request: Any) -> dict[str, Any]:
        return {"ready": self._gateway.ready()}

    async def _model_ready(self, request: Any) -> dict[str, Any]:
        """Of a model that is not known, too: not ready, as Triton says it (row 43)."""
        try:
            find(self._gateway, request.name, request.version)
        except ServingError as error:
            if error.kind not in (Kind.NOT_FOUND, Kind.NOT_READY, Kind.UNAVAILABLE):
                raise
            return {"ready": False}
        return {"ready": True}

    async def _server_metadata(self, request: Any) -> dict[str, Any]:
        info = self._services.info
        return {"name": info.name, "version": info.version, "extensions": self._extensions}

    async def _model_metadata(self, request: Any) -> dict[str, Any]:
        entry = find(self._gateway, request.name, request.version)
        return facts.model_metadata(self._gateway, entry, only=bool(request.version))

    async def _config(self, request: Any) -> dict[str, Any]:
        return {"config": facts.configuration(find(self._gateway, request.name, request.version))}

    async def _statistics(self, request: Any) -> dict[str, Any]:
        return await facts.statistics(self._services, request.name, request.version)

    # --- repository ---

    async def _index(self, request: Any) -> dict[str, Any]:
        return {"models": await facts.index(self._services, only_ready=request.ready)}

    async def _load(self, request: Any) -> dict[str, Any]:
        parameters = _chosen(request.parameters)
        config, files = overrides(parameters, _file)
        await load(self._services, request.model_name, config, files, version_to_load(parameters))
        return {}

    async def _unload(self, request: Any) -> dict[str, Any]:
        await self._services.operations.unload(request.model_name, members_too=unload_members(_chosen(request.parameters)))
        return {}

    # --- settings ---

    async def _logging(self, request: Any) -> dict[str, Any]:
        values = self._services.log_settings.update(_chosen(request.settings))
        return {"settings": {name: {_LOG_FIELDS[type(value)]: value} for name, value in values.items()}}

    async def _tracing(self, request: Any) -> dict[str, Any]:
        model = request.model_name
        if model:
            self._gateway.find(model)
        given: dict[str, Any] = {}
        for name, setting in request.settings.items():
            listed = list(setting.value)
            given[name] = None if not listed else listed if name == "trace_level" or len(listed) > 1 else listed[0]
        values = self._services.trace_settings.update(given, model) if given else self._services.trace_settings.read(model)
        return {"settings": {name: {"value": value if isinstance(value, list) else [value]} for name, value in values.items()}}

    async def _no_shared_memory(self, request: Any) -> dict[str, Any]:
        raise facts.no_shared_memory()


_LOG_FIELDS = {bool: "bool_param", int: "uint32_param", str: "string_param"}


def _by_messages(name: str, handler: Handler) -> Callable[[bytes, RpcCall], Awaitable[bytes]]:
    """A method of bytes out of one of messages."""

    async def answer(message: bytes, call: RpcCall) -> bytes:
        try:
            given = messages.parse(f"inference.{name}Request", message)
        except ValueError:
            raise invalid(f"the message is no {name}Request", "body") from None
        response = messages.new(f"inference.{name}Response")
        messages.parse_json(await handler(given), response, _DEEPEST)
        return response.SerializeToString()

    return answer


def _chosen(parameters: Any) -> dict[str, Any]:
    """A map of values that are one of several types, by name; None for one that has none."""
    found = {}
    for name, value in parameters.items():
        which = value.WhichOneof("parameter_choice")
        found[name] = None if which is None else getattr(value, which)
    return found


def _file(key: str, value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise invalid(f"the parameter '{key}' is {shown(value)}, expected bytes")
    return value
