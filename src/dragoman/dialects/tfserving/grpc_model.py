"""TensorFlow Serving's ModelService over gRPC: the states of versions, and another list of models. Made by the server, once."""

from collections.abc import Mapping
from typing import Any

from dragoman.core.errors import ServingError
from dragoman.dialects import Access, Services
from dragoman.dialects.rpc import Code, Method, RpcCall
from dragoman.dialects.tfserving import answers, calls, finding
from dragoman.proto.messages import new, parse_json

_DEPTH = 32


class ModelService:
    """An RpcService."""

    name = f"{calls.PACKAGE}.ModelService"

    def __init__(self, services: Services) -> None:
        self._gateway = services.gateway
        self._operations = services.operations
        self.methods: Mapping[str, Method] = {
            "GetModelStatus": Method(Access.PUBLIC, self._status),
            "HandleReloadConfigRequest": Method(Access.ADMIN, self._reload),
        }

    def refuse(self, error: ServingError) -> tuple[Code, str]:
        return calls.refuse(error)

    async def _status(self, message: bytes, call: RpcCall) -> bytes:
        spec = calls.read("GetModelStatusRequest", message).model_spec
        calls.check_name(spec)
        known = finding.statuses(self._gateway, spec.name, calls.version_of(spec), spec.version_label)
        described = answers.status(known)
        for version in described["model_version_status"]:
            if calls.number(version["version"]) is None:  # a name of our own, which a number cannot carry
                del version["version"]
        answer = new(f"{calls.PACKAGE}.GetModelStatusResponse")
        parse_json(described, answer, _DEPTH)
        return answer.SerializeToString()

    async def _reload(self, message: bytes, call: RpcCall) -> bytes:
        """Returns when what the configuration names is served. Metrics that a request names are not counted here: none come back."""
        await self._operations.reload_config(calls.read("ReloadConfigRequest", message).config)
        answer: Any = new(f"{calls.PACKAGE}.ReloadConfigResponse")
        answer.status.error_code = int(Code.OK)
        serialized: bytes = answer.SerializeToString()
        return serialized
