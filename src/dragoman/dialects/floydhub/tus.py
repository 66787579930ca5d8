"""Uploads of data by tus 1.0.0 at /api/v1/upload (core, creation, expiration, termination): in pieces, and resumable, over a restart too.

Whoever uploads has a name and a password for this one upload (modules/ID/upload_v2_credentials), by Basic authorization; no key is asked for.
"""

import binascii
from base64 import b64decode
from email.utils import formatdate

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.dialects import Answer, Request
from dragoman.dialects.addresses import base_url
from dragoman.serving.jobs.data_sets import DataSets
from dragoman.serving.jobs.data_uploads import Upload

VERSION = (b"tus-resumable", b"1.0.0")
_PIECE = "application/offset+octet-stream"


class Tus:
    def __init__(self, data: DataSets, public_url: str) -> None:
        self._uploads = data.uploads
        self._public_url = public_url

    async def options(self, request: Request, upload_id: str = "") -> Answer:
        most = str(self._uploads.limits.max_upload).encode()
        said = [(b"tus-version", VERSION[1]), (b"tus-extension", b"creation,expiration,termination"), (b"tus-max-size", most)]
        return Answer(204, b"", b"", [VERSION, *said])

    async def begin(self, request: Request) -> Answer:
        _check_version(request)
        length = _number(request, b"upload-length")
        upload = await self._uploads.begin(*_credentials(request), length)
        place = f"{base_url(request, self._public_url)}/api/v1/upload/{upload.id}".encode()
        return _answer(201, upload, (b"location", place))

    async def look(self, request: Request, upload_id: str) -> Answer:
        _check_version(request)
        upload = await self._uploads.look(*_credentials(request, upload_id))
        return _answer(200, upload, (b"upload-length", str(upload.length).encode()), (b"cache-control", b"no-store"))

    async def append(self, request: Request, upload_id: str) -> Answer:
        _check_version(request)
        if (request.header(b"content-type") or b"").decode("latin-1").strip().lower() != _PIECE:
            raise ServingError(Kind.UNSUPPORTED, f"a piece of an upload has the Content-Type {_PIECE}", what="media")
        offset = _number(request, b"upload-offset")
        length = request.header(b"content-length")
        size = int(length) if length is not None and length.isdigit() else None
        upload = await self._uploads.append(
            *_credentials(request, upload_id), offset, request.pieces(self._uploads.limits.max_upload), length=size
        )
        return _answer(204, upload)

    async def discard(self, request: Request, upload_id: str) -> Answer:
        _check_version(request)
        await self._uploads.discard(*_credentials(request, upload_id))
        return Answer(204, b"", b"", [VERSION])


def _answer(status: int, upload: Upload, *headers: tuple[bytes, bytes]) -> Answer:
    expires = [(b"upload-expires", formatdate(upload.expires, usegmt=True).encode())] if upload.expires else []
    return Answer(status, b"", b"", [VERSION, (b"upload-offset", str(upload.offset).encode()), *expires, *headers])


def _check_version(request: Request) -> None:
    if (request.header(b"tus-resumable") or b"").strip() != VERSION[1]:
        raise ServingError(Kind.INVALID_INPUT, "uploads are by tus 1.0.0: send Tus-Resumable: 1.0.0", what="tus", status=412)


def _number(request: Request, header: bytes) -> int:
    value = (request.header(header) or b"").strip()
    if not value.isdigit() or len(value) > 18:
        raise invalid(f"the header {header.decode().title()} is missing or no number of bytes", "header")
    return int(value)


def _credentials(request: Request, upload_id: str | None = None) -> tuple[str, str]:
    """Name and password of the upload. Raises UNAUTHENTICATED without them, or where they are of another upload."""
    scheme, _, rest = (request.header(b"authorization") or b"").strip().partition(b" ")
    try:
        name, _, token = b64decode(rest, validate=True).decode("utf-8", "replace").partition(":")
    except binascii.Error:
        name = token = ""
    if scheme.lower() != b"basic" or not name or not token or (upload_id is not None and name != upload_id):
        raise ServingError(
            Kind.UNAUTHENTICATED, "an upload is called with its own name and password, by Basic authorization", what="upload"
        )
    return name, token
