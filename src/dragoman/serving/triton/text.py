"""Reads a model configuration: config.pbtxt (protobuf text format), or its JSON form as a load request sends it.

The two differ in what an unknown field does: in a file it may belong to a newer Triton, so it is named in a warning; in a request it is
refused, as Triton does, because the caller is there to correct it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import orjson

from dragoman.core.errors import invalid
from dragoman.proto.messages import new, parse_json
from dragoman.serving.outline import Outline
from dragoman.serving.proto_text import DEEPEST, cut, decoded, parsed
from dragoman.serving.settings import quoted

if TYPE_CHECKING:
    from google.protobuf.message import Message

FILE = "config.pbtxt"


@dataclass(frozen=True, slots=True)
class TritonConfig:
    """A parsed configuration that belongs to the model it names. `message` is an inference.ModelConfig; it is not changed afterwards."""

    name: str
    source: str
    """Where it was read, for messages."""
    message: "Message"
    unknown: tuple[str, ...] = ()
    """One warning for each field that the schema does not have."""


def read_config(text: str | bytes, model_name: str) -> TritonConfig:
    """Parse a config.pbtxt. `model_name` is the folder's name, checked by the caller: the file must give the same name, or none.

    Raises INVALID_INPUT with line and column for text that cannot be parsed, TOO_LARGE beyond one MiB, UNSUPPORTED without protobuf.
    """
    source = f"{FILE} of model '{model_name}'"
    message, found = parsed(text, "inference.ModelConfig", source, unknown=True)
    return _named(message, model_name, source, tuple(_unknown(found, source)))


def config_from_json(text: str | bytes, model_name: str) -> TritonConfig:
    """Parse the JSON form of a configuration, as `config_json` writes it and load requests bring it.

    Raises INVALID_INPUT for anything that is not one, unknown fields included, TOO_LARGE beyond one MiB, UNSUPPORTED without protobuf.
    """
    source = f"configuration of model '{model_name}'"
    message = new("inference.ModelConfig")
    try:
        value: Any = orjson.loads(decoded(text, source))
    except orjson.JSONDecodeError as error:
        raise invalid(f"{source}: line {error.lineno}, column {error.colno}: it is not JSON ({error.msg.partition(':')[0]})") from None
    if not isinstance(value, dict):
        raise invalid(f"{source}: expected a JSON object, not {type(value).__name__}")
    try:
        parse_json(value, message, DEEPEST)
    except ValueError as error:
        raise invalid(f"{source}: {cut(str(error))}") from None
    return _named(message, model_name, source, ())


def _unknown(found: Outline, source: str) -> Iterator[str]:
    for field in found.unknown:
        yield f"{source}: line {field.line}, column {field.column}: the field {quoted(field.path)} is not known and has no effect"
    if found.unknown_count > len(found.unknown):
        yield f"{source}: {found.unknown_count - len(found.unknown)} more fields are not known and have no effect"


def _named(message: "Message", model_name: str, source: str, unknown: tuple[str, ...]) -> TritonConfig:
    # The fields of a message that was described at run time are unknown to the type checker.
    config = cast("Any", message)
    if not config.name:
        config.name = model_name
    elif config.name != model_name:
        raise invalid(f"{source}: name is {quoted(config.name)}, but it must equal the model's folder, '{model_name}'")
    return TritonConfig(model_name, source, message, unknown)
