"""The addresses that a file value may have: data, file, http and https URIs. Reading and writing them; nothing here knows the classes of files."""

import base64
import binascii
import mimetypes
import re
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from .exceptions import DownloadError

SCHEMES = ("http", "https", "data", "file")
OCTETS = "application/octet-stream"
DOWNLOAD_LIMIT = 1 << 30
"""Bytes. A model may fetch more with its own means; an address in a field is not the way to fill a disk."""
DOWNLOAD_TIMEOUT_S = 60.0
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_SUFFIXES = {
    "audio/wav": ".wav",
    "audio/x-wav": ".wav",
    "audio/mp3": ".mp3",
    "audio/mpeg": ".mp3",
    "audio/flac": ".flac",
    "image/webp": ".webp",
}
"""What the tables of some systems lack."""


def scheme_of(uri: str) -> str:
    """The scheme in lower case, or "" for what is a path."""
    found = _SCHEME.match(uri)
    return found[1].lower() if found else ""


def checked(value: object) -> str:
    """The URI that a file field's value means; a text without a scheme is a local path. Raises ValueError for what no file can be."""
    if not isinstance(value, str):
        raise ValueError(f"a file is given as a path or a URI, not as {type(value).__name__}")  # noqa: TRY004 # a fault of the value
    scheme = scheme_of(value)
    if not scheme:
        return Path(value).resolve().as_uri()
    if scheme not in SCHEMES:
        raise ValueError(f"Unsupported URI scheme: '{scheme}'. Supported schemes: {', '.join(SCHEMES)}")
    if scheme == "file" and urlsplit(value).netloc:
        raise ValueError("Remote files are not supported")
    return str(value)


def path_of(uri: str) -> Path:
    """Of a file URI."""
    return Path(unquote(urlsplit(uri).path))


def data_uri(data: bytes, media_type: str = OCTETS) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def parse_data_uri(uri: str) -> tuple[bytes, str]:
    """Content and media type. Raises ValueError; its text has nothing of the content."""
    head, comma, body = uri.partition(",")
    if not comma:
        raise ValueError("a data URI has a comma before its content")
    media_type, *parameters = (part.strip() for part in head[len("data:") :].split(";"))
    raw = unquote_to_bytes(body)
    if "base64" in (p.lower() for p in parameters):
        try:
            raw = base64.b64decode(b"".join(raw.split()), validate=True)
        except binascii.Error as error:
            raise ValueError(f"the content of a data URI is not base64: {error}") from None
    return raw, media_type.lower() or "text/plain"


def suffix_of(media_type: str) -> str:
    """ ".png" for "image/png", "" for a type that nobody knows."""
    return _SUFFIXES.get(media_type) or mimetypes.guess_extension(media_type, strict=False) or ""


def media_type_of(name: str, data: bytes) -> str:
    """By the file's name, else text or not by its content."""
    return mimetypes.guess_type(name, strict=False)[0] or ("text/plain" if _is_text(data) else OCTETS)


def _is_text(data: bytes) -> bool:
    if b"\0" in data:
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def download(uri: str, into: IO[bytes]) -> str:
    """Fetch an http(s) URI and return its media type. Only the model's own code gets here: inputs arrive with their content.

    Raises DownloadError: no answer, another status than success, more than DOWNLOAD_LIMIT bytes.
    """
    opener = urllib.request.OpenerDirector()  # only these: build_opener's would follow a redirect to ftp, and open files
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    try:
        with opener.open(uri, timeout=DOWNLOAD_TIMEOUT_S) as answer:
            copy_bounded(answer, into, DOWNLOAD_LIMIT)
            return str(answer.headers.get_content_type())
    except urllib.error.HTTPError as error:
        error.close()
        raise DownloadError(f"cannot fetch {_shown(uri)}: status {error.code}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise DownloadError(f"cannot fetch {_shown(uri)}: {error}") from error


def copy_bounded(source: IO[bytes], into: IO[bytes], limit: int) -> None:
    """Copy to the end. Raises ValueError as soon as there is more than `limit` bytes."""
    left = limit
    while piece := source.read(min(left + 1, 1 << 16)):
        left -= len(piece)
        if left < 0:
            raise ValueError(f"more than {limit} bytes")
        into.write(piece)


def _shown(uri: str) -> str:
    """An address for a message: no user, password or query, which may be secrets."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
