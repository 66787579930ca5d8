"""Reads a model configuration: config.pbtxt (protobuf text format), or its JSON form as a load request sends it.

The two differ in what an unknown field does: in a file it may belong to a newer Triton, so it is named in a warning; in a request it is
refused, as Triton does, because the caller is there to correct it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import orjson

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.proto.messages import TextError, new, parse_json, parse_text
from dragoman.serving.settings import LARGEST_FILE, quoted
from dragoman.serving.triton.outline import Outline, outline

if TYPE_CHECKING:
    from google.protobuf.message import Message

FILE = "config.pbtxt"
_DEEPEST = 32
"""Nested messages; Triton's own schema needs eight."""
_LONGEST_REASON = 300


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
    content = _text(text, source)
    message = new("inference.ModelConfig")
    try:
        found = outline(content, message.DESCRIPTOR, _DEEPEST)
        parse_text(found.known, message)
    except TextError as error:
        raise invalid(f"{source}: {_explain(error, content)}") from None
    return _named(message, model_name, source, tuple(_unknown(found, source)))


def config_from_json(text: str | bytes, model_name: str) -> TritonConfig:
    """Parse the JSON form of a configuration, as `config_json` writes it and load requests bring it.

    Raises INVALID_INPUT for anything that is not one, unknown fields included, TOO_LARGE beyond one MiB, UNSUPPORTED without protobuf.
    """
    source = f"configuration of model '{model_name}'"
    message = new("inference.ModelConfig")
    try:
        value: Any = orjson.loads(_text(text, source))
    except orjson.JSONDecodeError as error:
        raise invalid(f"{source}: line {error.lineno}, column {error.colno}: it is not JSON ({error.msg.partition(':')[0]})") from None
    if not isinstance(value, dict):
        raise invalid(f"{source}: expected a JSON object, not {type(value).__name__}")
    try:
        parse_json(value, message, _DEEPEST)
    except ValueError as error:
        raise invalid(f"{source}: {_cut(str(error))}") from None
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


def _text(text: str | bytes, source: str) -> str:
    if len(text) > LARGEST_FILE:
        raise ServingError(Kind.TOO_LARGE, f"{source}: it has more than {LARGEST_FILE} bytes", what="body")
    try:
        decoded = text if isinstance(text, str) else text.decode()
        decoded.encode()  # a str may hold halves of surrogate pairs, over which the parsers stumble
    except UnicodeError:
        raise invalid(f"{source}: it is not UTF-8 text") from None
    return decoded.removeprefix("\ufeff")  # some editors begin a file with a byte order mark


def _explain(error: TextError, text: str) -> str:
    if error.line is None:
        return _cut(error.message)
    lines = text.split("\n")
    line = lines[error.line - 1] if error.line <= len(lines) else ""
    # The parser quotes the whole line first, which may be the whole file.
    reason = error.message.removeprefix(f"'{line}': ").removeprefix("'': ")
    return f"line {error.line}, column {error.column}: {_cut(reason)}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."
