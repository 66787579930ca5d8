"""What refusals have in common in every protocol: words that any client can read, and headers that follow from the status."""

import json
from collections.abc import Iterable
from typing import Any

import orjson

from dragoman.core.errors import ServingError

LONGEST = 2_000
"""Characters of a message: one that quotes more is cut."""


def words(error: ServingError, longest: int | None = LONGEST) -> str:
    """The message of an error. What UTF-8 cannot carry (a path, or an error of user code may hold it) is replaced."""
    return error.message[:longest].encode("utf-8", "replace").decode()


def headers(status: int, error: ServingError, allowed: Iterable[str] = ()) -> list[tuple[bytes, bytes]]:
    """What tells a client how to do better: `allowed` are the methods of its path, for one with the wrong method.

    Headers that mean the same for every error (Retry-After, WWW-Authenticate) are the server's to add.
    """
    found: list[tuple[bytes, bytes]] = []
    if status == 405:
        found.append((b"allow", ", ".join(allowed).encode()))
    if status == 415 and error.what == "encoding":
        found.append((b"accept-encoding", b"gzip, deflate"))
    return found


def body_of(content: Any) -> bytes:
    """The JSON of a refusal that holds more than `words`: what JSON or UTF-8 cannot carry is replaced by a text."""
    try:
        return orjson.dumps(content, default=str)
    except TypeError:  # half a surrogate pair, or an integer over 64 bits
        return json.dumps(content, ensure_ascii=False, default=str).encode("utf-8", "replace")
