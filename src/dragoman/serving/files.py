"""Makes every file in a prediction's inputs a Blob: decodes data URIs and base64, finds uploads, fetches URLs with the guarded client.

Called when a prediction runs, after it was accepted: a bad URL is a failed prediction. Models never see a URL, and nothing here reads a path
that a client names. Everything is bounded before it is unpacked: the number of files, their bytes, the pixels of images.
"""

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote, urlsplit

from dragoman.core.data_uris import OCTETS, Encoded, TooLongError, read_data_uri
from dragoman.core.errors import Kind, Problem, ServingError
from dragoman.core.tensors import Blob, Signature, Value
from dragoman.serving.fetch import Fetched, FetchPolicy, fetch
from dragoman.serving.images import size_of
from dragoman.serving.uploads import Uploads

_AT_ONCE = 8
_OFF_LOOP = 512 * 1024
_UPLOAD = re.compile(r"(?:.*/)?files/([0-9a-f]{32}(?:[-._/][^/]*)?)\Z", re.DOTALL)
_ITEM = "$item"
Where = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class FileLimits:
    """Of one call: how many files, bytes of each and of all together, and pixels of an image. 0 pixels: any number."""

    max_files: int = 1000
    max_file: int = 64 << 20
    max_total: int = 256 << 20
    max_pixels: int = 100_000_000


@dataclass(frozen=True, slots=True)
class _Place:
    """One file of one row, and where its Blob goes."""

    holder: dict[str, Value] | list[Value]
    key: str | int
    where: Where
    kind: str

    def put(self, blob: Blob) -> None:
        self.holder[self.key] = blob  # type: ignore[index] # a name for a dict, an index for a list


async def resolve(
    rows: Sequence[Value], signature: Signature, fetching: FetchPolicy, limits: FileLimits, uploads: Uploads | None = None
) -> list[Value]:
    """The rows with every file as a Blob; rows that hold files are copied, the others are as they were.

    Raises ServingError that names the input and the field: INVALID_INPUT, TOO_LARGE, or FORBIDDEN for a URL that is not open.
    """
    if not signature.input_files:
        return list(rows)
    made, places = _found(rows, signature, limits)
    call = _Call(fetching, limits, uploads)
    remote: dict[str, list[_Place]] = {}
    for place in places:
        value = _value(place)
        if isinstance(value, str) and (url := _url(value)) is not None:
            remote.setdefault(url, []).append(place)
        else:
            place.put(await call.local(value, place))
    if remote:
        await _fetch_all(call, remote)
    return made


def admit(rows: Sequence[Value], signature: Signature, limits: FileLimits) -> None:
    """Raise TOO_LARGE for files that came with the call and are too many or too large, as far as that can be told without unpacking them."""
    if not signature.input_files:
        return
    total = 0
    _, places = _found(rows, signature, limits)
    for place in places:
        size = _size(_value(place))
        total += size
        if size > limits.max_file or total > limits.max_total:
            raise _too_large(place, limits)


async def _fetch_all(call: "_Call", remote: dict[str, list[_Place]]) -> None:
    left = list(remote.items())[::-1]

    async def lane() -> None:
        while left:
            url, places = left.pop()
            blob = await call.remote(url, places[0])
            for place in places:
                place.put(call.checked(blob, place))

    if asyncio.current_task() is None:
        await asyncio.sleep(0)  # the HTTP server runs a request's first step without a task; task groups need one
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(_AT_ONCE, len(remote))):
                group.create_task(lane())
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


class _Call:
    """What the files of one call have used up."""

    def __init__(self, fetching: FetchPolicy, limits: FileLimits, uploads: Uploads | None) -> None:
        self._fetching = replace(fetching, max_bytes=limits.max_file, roots=())
        self._limits = limits
        self._uploads = uploads
        self._used = 0

    async def local(self, value: Value, place: _Place) -> Blob:
        """A file that came with the call."""
        if isinstance(value, Blob):
            return self.checked(value, place)
        if isinstance(value, bytes):
            return self.checked(Blob(value), place)
        if not isinstance(value, str):
            raise _refused(place, f"a file must be a data: URI, base64 or an http(s) URL, got {type(value).__name__}")
        try:
            encoded = read_data_uri(value) if value[:5].lower() == "data:" else _bare(value)
            most = min(self._limits.max_file, self._limits.max_total - self._used)
            if encoded.least_bytes > _OFF_LOOP:
                blob = await asyncio.to_thread(encoded.decode, most)
            else:
                blob = encoded.decode(most)
        except TooLongError:
            raise _too_large(place, self._limits) from None
        except ValueError as error:
            raise _refused(place, f"the file cannot be read: {error}") from None
        return self.checked(blob, place)

    async def remote(self, url: str, place: _Place) -> Blob:
        """A file that is here or elsewhere."""
        match = _UPLOAD.match(unquote(urlsplit(url).path)) if self._uploads is not None else None
        if match is not None and self._uploads is not None:
            try:
                return await self._uploads.get(match[1])
            except ServingError as error:
                if url.startswith("/"):
                    raise _refused(place, error.message) from error
        policy = replace(self._fetching, max_bytes=max(1, min(self._fetching.max_bytes, self._limits.max_total - self._used)))
        try:
            fetched: Fetched = await fetch(url, policy)
        except ServingError as error:
            # That another server fails says nothing about this one: the input cannot be used, whatever the reason.
            kind = error.kind if error.kind in (Kind.FORBIDDEN, Kind.TOO_LARGE) else Kind.INVALID_INPUT
            raise _refused(place, error.message, kind) from error
        return Blob(fetched.data, fetched.media_type, fetched.name)

    def checked(self, blob: Blob, place: _Place) -> Blob:
        """Count it in, and look at its size."""
        self._used += len(blob.data)
        if len(blob.data) > self._limits.max_file or self._used > self._limits.max_total:
            raise _too_large(place, self._limits)
        if place.kind == "image" and self._limits.max_pixels:
            size = size_of(blob.data)
            if size is not None and size[0] * size[1] > self._limits.max_pixels:
                most = self._limits.max_pixels
                raise _refused(place, f"the image has {size[0]} x {size[1]} pixels, at most {most} are accepted", Kind.TOO_LARGE)
        return blob


def _size(value: Value) -> int:
    """Bytes of a file that came with the call, at least; 0 for what is elsewhere and for what cannot be read."""
    if isinstance(value, Blob):
        return len(value.data)
    if isinstance(value, bytes):
        return len(value)
    if not isinstance(value, str) or _url(value) is not None:
        return 0
    try:
        return (read_data_uri(value) if value[:5].lower() == "data:" else _bare(value)).least_bytes
    except ValueError:
        return 0  # what is wrong with it is told when it is read


def _too_large(place: _Place, limits: FileLimits) -> ServingError:
    text = f"the file is too large: a file may have {limits.max_file} bytes, all files of a call together {limits.max_total}"
    return _refused(place, text, Kind.TOO_LARGE)


def _bare(text: str) -> Encoded:
    scheme = urlsplit(text[:100]).scheme
    if scheme:
        raise ValueError(f"{scheme}: URLs are not accepted; use data:, http: or https:")
    return Encoded(text, True, OCTETS)


def _url(text: str) -> str | None:
    """What is to be fetched or looked up, None for what holds the file itself."""
    if text[:8].lower().startswith(("http://", "https://")):
        return text
    return text if text.startswith("/") and _UPLOAD.match(unquote(text)) else None


def _found(rows: Sequence[Value], signature: Signature, limits: FileLimits) -> tuple[list[Value], list[_Place]]:
    """The rows, copied, and where their files are. Raises TOO_LARGE when there are too many."""
    deep = frozenset(name.split(".")[0] for name in signature.input_files if "." in name)
    made = [_copied(row, deep) for row in rows]
    places = [place for index in range(len(made)) for place in _places(made, index, signature)]
    if len(places) > limits.max_files:
        raise ServingError(Kind.TOO_LARGE, f"{len(places)} files in one call, at most {limits.max_files} are accepted", what="body")
    return made, places


def _places(rows: list[Value], index: int, signature: Signature) -> Iterator[_Place]:
    for name, kind in signature.input_files.items():
        yield from _below(rows, index, name.split("."), (), kind)


def _below(holder: Value, key: str | int, path: Sequence[str], where: Where, kind: str) -> Iterator[_Place]:
    """The files under holder[key]."""
    where = (*where, key)
    value = holder[key]
    if not path:
        if value is not None:
            yield _Place(holder, key, where, kind)
    elif path[0] == _ITEM:
        if isinstance(value, list):
            for position in range(len(value)):
                yield from _below(value, position, path[1:], where, kind)
    elif isinstance(value, dict) and path[0] in value:
        yield from _below(value, path[0], path[1:], where, kind)


def _copied(row: Value, deep: frozenset[str]) -> Value:
    """A row whose fields can be replaced, those of `deep` at every level, while the caller's stays as it is."""
    return {name: _deep(value) if name in deep else value for name, value in row.items()} if isinstance(row, dict) else row


def _deep(value: Value) -> Value:
    if isinstance(value, dict):
        return {name: _deep(item) for name, item in value.items()}
    return [_deep(item) for item in value] if isinstance(value, list) else value


def _value(place: _Place) -> Value:
    return place.holder[place.key]  # type: ignore[index] # as in put


def _refused(place: _Place, text: str, kind: Kind = Kind.INVALID_INPUT) -> ServingError:
    field = ".".join(str(part) for part in place.where[1:])
    message = f"input {place.where[0]}, field '{field}': {text}"
    return ServingError(kind, message, problems=(Problem(place.where, "value_error", text),))


__all__ = ["FileLimits", "admit", "resolve"]
