"""Message classes of our .proto files, and their text and JSON parsers. The only place that imports protobuf, and only when asked.

They live in a descriptor pool of their own: a client library that a model imports may register the same names in the process-wide one.
Called by serving/triton, and by whatever speaks gRPC or reads TensorFlow's files.
"""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.message import Message

_FILE = "descriptors.binpb"


class TextError(ValueError):
    """Text that the text format does not allow: what, and where (both from 1; None when it is not about one place)."""

    def __init__(self, message: str, line: int | None, column: int | None) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


@cache
def _classes() -> dict[str, type["Message"]]:
    from google.protobuf import descriptor_pb2, message_factory

    described = descriptor_pb2.FileDescriptorSet.FromString(files(__package__).joinpath(_FILE).read_bytes())
    for file in described.file:
        _pool().AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClassesForFiles([file.name for file in described.file], _pool())


@cache
def _pool() -> Any:
    from google.protobuf import descriptor_pool

    return descriptor_pool.DescriptorPool()


def pool() -> Any:
    """The descriptor pool in which all of them are, for reflection."""
    _classes()
    return _pool()


def message_class(full_name: str) -> type["Message"]:
    """The class of a message, by its full name such as "inference.ModelConfig"."""
    return _classes()[full_name]


def new(full_name: str) -> "Message":
    """An empty message, by its full name."""
    return _classes()[full_name]()


def parse(full_name: str, data: bytes) -> "Message":
    """A message from its serialized form. Raises ValueError for bytes that are none."""
    from google.protobuf import message

    try:
        return _classes()[full_name].FromString(data)
    except message.DecodeError:
        raise ValueError(f"{len(data)} bytes that are no {full_name}") from None


def parse_text(text: str, message: "Message") -> None:
    """Fill the message from text format. Raises TextError, also for fields that it does not have."""
    from google.protobuf import text_format

    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        # The library puts "line:column : " before its message, which then says it twice.
        raise TextError(str(error).removeprefix(f"{line}:{column} : "), line, column) from None
    except RecursionError:
        raise TextError("it is nested too deeply", None, None) from None
    except ValueError as error:  # UnicodeError for lone surrogates is one too
        raise TextError(str(error), None, None) from None


def parse_json(value: Mapping[str, Any], message: "Message", depth: int) -> None:
    """Fill the message from its JSON form, nested at most `depth` deep. Raises ValueError, also for fields that it does not have."""
    from google.protobuf import json_format

    try:
        json_format.ParseDict(dict(value), message, max_recursion_depth=depth)
    except (json_format.ParseError, TypeError, AttributeError, KeyError, OverflowError, RecursionError) as error:
        # The library checks the types of what it expects, and stumbles over some that it does not.
        raise ValueError(str(error) or type(error).__name__) from None
