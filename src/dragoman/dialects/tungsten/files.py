"""Uploads: how files are answered, and URLs in rows that mean a file of this server. Called by rest.py and demo.py.

A URL of an upload never leaves the server to be fetched: its file takes the place of the URL in the row.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote, unquote

from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import Blob, Signature
from dragoman.dialects import Answer, Request
from dragoman.dialects.addresses import base_url

_OWN = re.compile(r"(?:https?://([A-Za-z0-9.:_\[\]-]{1,260}))?((?:/demo)?/files/)([^/?#]{1,400})\Z")
_HARMLESS = re.compile(r"(?:image/(?!svg)|audio/|video/)", re.IGNORECASE)
"""What a page may show; everything else a browser saves."""

Get = Callable[[str], Awaitable[Blob]]

_SAFE = [
    (b"content-security-policy", b"default-src 'none'; sandbox; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"private, max-age=600"),
]
"""What somebody uploaded may be a page: it runs nothing, and belongs to no origin."""


def serve(blob: Blob) -> Answer:
    """A file as an answer that no browser runs."""
    media_type = blob.media_type if re.fullmatch(r"[\x21-\x7e]+/[\x21-\x7e ]+", blob.media_type) else "application/octet-stream"
    shown = b"inline" if _HARMLESS.match(media_type) else b"attachment"
    return Answer(200, blob.data, media_type.encode(), [*_SAFE, (b"content-disposition", shown)])


def file_url(request: Request, folder: str, name: str) -> str:
    """The URL of a file below /files/ or /demo/files/."""
    return f"{base_url(request)}{folder}{quote(name, safe='')}"


def own_name(url: Any, request: Request) -> str:
    """The name of the upload that a value means, "" for any other value: a URL with this server's address, or a path without any."""
    found = _OWN.match(url) if isinstance(url, str) and "/files/" in url[:300] else None
    if found is None or (found[1] is not None and found[1].lower() != (request.header(b"host") or b"").decode("latin-1").lower()):
        return ""
    return unquote(found[3])


async def with_uploads(rows: Any, signature: Signature, request: Request, get: Get) -> Any:
    """The rows with uploads in the place of their URLs; rows that have none are returned as they are. `get` raises NOT_FOUND."""
    if not signature.input_files or not isinstance(rows, list):
        return rows
    places = [place.split(".") for place in signature.input_files]
    for index, row in enumerate(rows):
        if isinstance(row, dict):
            for place in places:
                row = await _replaced(row, place, request, get)
            rows[index] = row
    return rows


async def _replaced(value: Any, place: list[str], request: Request, get: Get) -> Any:
    if not place:
        name = own_name(value, request)
        return await get(name) if name else value
    key, *rest = place
    if isinstance(value, dict) and key in value:
        return {**value, key: await _replaced(value[key], rest, request, get)}
    if key == "$item" and isinstance(value, list):
        return [await _replaced(each, rest, request, get) for each in value]
    return value


def not_found() -> ServingError:
    return ServingError(Kind.NOT_FOUND, "File not found", what="file")
