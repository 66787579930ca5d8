"""Calls gRPC services as the listener does, without gRPC: for tests of services."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dragoman.core.errors import ServingError
from dragoman.dialects.rpc import Code, RpcCall, RpcService
from dragoman.proto.messages import message_class, new


@dataclass(frozen=True, slots=True)
class Refused:
    """What a client gets in the place of an answer."""

    code: Code
    text: str


class Rpc:
    """Holds a service. Messages are described as nested dicts and lists, or are given as bytes."""

    def __init__(self, service: RpcService, package: str, answers: Mapping[str, tuple[str, str]]) -> None:
        self._service = service
        self._answers = {method: (f"{package}.{request}", f"{package}.{answer}") for method, (request, answer) in answers.items()}

    def message(self, method: str, **fields: Any) -> Any:
        """The request of a method, filled."""
        made = new(self._answers[method][0])
        fill(made, fields)
        return made

    async def ask(self, method: str, message: Any, call: RpcCall | None = None) -> Any:
        """The answer, or Refused."""
        content = message if isinstance(message, bytes) else message.SerializeToString()
        unary = self._service.methods[method].unary
        assert unary is not None
        try:
            answered = await unary(content, call or RpcCall())
        except ServingError as error:
            return Refused(*self._service.refuse(error))
        parsed: Any = message_class(self._answers[method][1]).FromString(answered)
        return parsed

    def send(self, method: str, message: Any = None, *, call: RpcCall | None = None, **fields: Any) -> Any:
        return asyncio.run(self.ask(method, self.message(method, **fields) if message is None else message, call))


def fill(message: Any, fields: Mapping[str, Any]) -> None:
    """Set the fields of a message: dicts fill messages and maps, lists repeated fields, messages of the right type are copied."""
    for name, value in fields.items():
        into = getattr(message, name)
        if isinstance(value, Mapping) and hasattr(into, "GetEntryClass"):
            for key, each in value.items():
                if isinstance(each, Mapping):
                    fill(into[key], each)
                else:
                    into[key].CopyFrom(each)
        elif isinstance(value, Mapping):
            into.SetInParent()
            fill(into, value)
        elif isinstance(value, list) and hasattr(into, "add"):
            for each in value:
                if isinstance(each, Mapping):
                    fill(into.add(), each)
                else:
                    into.append(each)
        elif isinstance(value, list):
            into.extend(value)
        elif hasattr(value, "SerializeToString"):
            into.CopyFrom(value)
        else:
            setattr(message, name, value)
