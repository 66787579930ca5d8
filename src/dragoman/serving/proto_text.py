"""Configuration files in protobuf's text format: checked for size and nesting, parsed, and every error with its line and column.

Called by serving/triton/text.py for config.pbtxt, and by whatever reads the files that TensorFlow Serving's flags name.
"""

from pathlib import Path
from typing import Any

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.proto.messages import TextError, new, parse_text
from dragoman.serving.outline import Outline, outline
from dragoman.serving.paths import read_bounded
from dragoman.serving.settings import LARGEST_FILE, quoted

DEEPEST = 32
"""Nested messages; Triton's schema, the deepest of all, needs eight."""
_LONGEST_REASON = 300


def read_file(path: Path, message: str, source: str = "") -> Any:
    """The message in a file; blocking. `source` is what errors call the file, its path where nothing else is said.

    Raises INVALID_INPUT for a file that cannot be read or parsed, TOO_LARGE beyond one MiB.
    """
    source = source or str(path)
    found = parsed(read_bounded(path, LARGEST_FILE, source), message, source)
    return found[0]


def parsed(text: str | bytes, message: str, source: str, *, unknown: bool = False) -> tuple[Any, Outline]:
    """The message that a text is, and what was found in it. Fields that the message lacks are refused unless `unknown` fields may be there.

    Raises INVALID_INPUT with line and column for text that cannot be parsed, TOO_LARGE beyond one MiB.
    """
    content = decoded(text, source)
    result = new(message)
    try:
        found = outline(content, result.DESCRIPTOR, DEEPEST)
        if found.unknown and not unknown:
            first = found.unknown[0]
            raise invalid(f"{source}: line {first.line}, column {first.column}: there is no field {quoted(first.path)}")
        parse_text(found.known, result)
    except TextError as error:
        raise invalid(f"{source}: {_explain(error, content)}") from None
    return result, found


def decoded(text: str | bytes, source: str) -> str:
    """The text, as parsers take it. Raises INVALID_INPUT for what is no UTF-8, TOO_LARGE beyond one MiB."""
    if len(text) > LARGEST_FILE:
        raise ServingError(Kind.TOO_LARGE, f"{source}: it has more than {LARGEST_FILE} bytes", what="body")
    try:
        content = text if isinstance(text, str) else text.decode()
        content.encode()  # a str may hold halves of surrogate pairs, over which the parsers stumble
    except UnicodeError:
        raise invalid(f"{source}: it is not UTF-8 text") from None
    return content.removeprefix("\ufeff")  # some editors begin a file with a byte order mark


def cut(text: str) -> str:
    """A parser's reason, which may quote the whole file."""
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


def _explain(error: TextError, text: str) -> str:
    if error.line is None:
        return cut(error.message)
    lines = text.split("\n")
    line = lines[error.line - 1] if error.line <= len(lines) else ""
    # The parser quotes the whole line first, which may be the whole file.
    reason = error.message.removeprefix(f"'{line}': ").removeprefix("'': ")
    return f"line {error.line}, column {error.column}: {cut(reason)}"
