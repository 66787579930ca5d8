"""The one guarded client for every URL that a request or a user names; nothing else in the server opens such a URL.

Dialects, predictions and the repository call `fetch` with the server's `FetchPolicy`, webhooks call `post`. Files are read here; http and
https are in `fetch_http.py`, buckets in `fetch_objects.py`, which the first fetch that needs one imports.
"""

import asyncio
import importlib
import mimetypes
import os
import re
import socket
import ssl
import stat
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from dragoman.core.data_uris import OCTETS, bare_name
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import EMPTY
from dragoman.serving.fetch_places import SCHEMES
from dragoman.serving.fetch_policy import FetchPolicy

__all__ = [
    "Downloaded",
    "FetchPolicy",
    "Fetched",
    "Have",
    "Resolver",
    "download",
    "fetch",
    "media_type",
    "post",
    "resolve",
    "shown",
    "too_large",
]

Resolver = Callable[[str, int], Awaitable[list[str]]]
"""Every address of a host and port, as text. Raises OSError where there is none (socket.gaierror with EAI_AGAIN: ask again later)."""

ACCESS = "access"
"""`what` of an error about a server that wants to know who asks."""
_WEB = frozenset({"http", "https"})
_SHOWN_CHARACTERS = 200
_AUTHORITY = re.compile(r"(?:[^:\[\]]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?\Z")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100}\Z")
_TYPES = mimetypes.MimeTypes()
"""The built-in table only: the module's own functions add files of the system, and answers would vary from machine to machine."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a URL held. `media_type` is without parameters; `name` is a bare file name or ""; `url` is the last hop, safe to show."""

    data: bytes
    media_type: str
    name: str
    url: str


@dataclass(slots=True)
class Have:
    """How far a download has come: bytes that are there, and what says that they are still the beginning of the same file ("": nothing)."""

    size: int = 0
    validator: str = ""


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A file that is complete. `validator` is what its server knows it by, "" when it does not say; `url` is the last hop."""

    name: str
    size: int
    validator: str
    url: str


async def resolve(host: str, port: int) -> list[str]:
    """The system's resolver, which also reads addresses in every odd spelling."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def fetch(
    url: str,
    policy: FetchPolicy,
    *,
    headers: Mapping[str, str] = EMPTY,
    resolver: Resolver = resolve,
    trust: ssl.SSLContext | None = None,
) -> Fetched:
    """The bytes behind an http, https, file or bucket's URL, or a ServingError whose text names the URL without its credentials and query.

    INVALID_INPUT: no such URL, host or file, or the other server will not give it. FORBIDDEN: the policy does not open it. TOO_LARGE
    and TIMEOUT: the policy's limits. UNSUPPORTED: a package is not installed. UNAVAILABLE: the other server cannot be reached or failed. Call
    it from a task; cancelling it closes what it opened. `headers` go to http servers, and to no other host than the URL's. `resolver` and
    `trust` replace the system's resolver and its certificate authorities.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        # What cannot be split cannot be shown either: nobody knows which part of it is a password.
        raise invalid("the URL is malformed: its host cannot be read") from None
    try:
        async with asyncio.timeout(policy.timeout_s):
            if parts.scheme == "file":
                return await asyncio.to_thread(_read_file, parts, policy)
            if parts.scheme in _WEB:
                await _import_http()
                from dragoman.serving.fetch_http import fetch_http

                return await fetch_http(url, policy, resolver, trust, headers)
            if parts.scheme in SCHEMES:
                from dragoman.serving.fetch_objects import fetch_object

                return await fetch_object(url, policy)
    except TimeoutError:
        raise ServingError(Kind.TIMEOUT, f"URL {shown(url)} could not be read within {policy.timeout_s:g} s") from None
    known = ["http", "https", *(["file"] if policy.roots else []), *dict.fromkeys(place.scheme for place in policy.places)]
    raise invalid(f"URL {shown(url)}: expected {', '.join(f'{each}://' for each in known[:-1])} or {known[-1]}:// at its start")


async def download(
    url: str,
    target: Path,
    policy: FetchPolicy,
    *,
    have: Have,
    known: str = "",
    headers: Mapping[str, str] = EMPTY,
    progress: Callable[[int, int], None] = lambda done, whole: None,
    resolver: Resolver = resolve,
    trust: ssl.SSLContext | None = None,
) -> Downloaded | None:
    """Write what an http or https URL holds to a file, which may be large. Raises like `fetch`; the time-out is for each pause, not the whole.

    `have` is what of it is in `target` already, and is kept up to date: after an error the caller may call again with it, and only the rest
    is asked for. None: the URL still holds what the validator `known` stands for. `progress` is told bytes so far and all (0: unknown).
    """

    def write(piece: bytes, place: int, whole: int) -> None:
        with target.open("r+b" if target.exists() else "wb") as file:
            file.truncate(place)
            file.seek(place)
            file.write(piece)
        progress(place + len(piece), whole)

    if urlsplit(url).scheme not in _WEB:
        raise invalid(f"URL {shown(url)}: expected http:// or https:// at its start")
    try:
        await _import_http()
        from dragoman.serving.fetch_http import download_http

        return await download_http(url, policy, resolver, trust, headers=headers, have=have, write=write, known=known)
    except TimeoutError:
        raise ServingError(Kind.TIMEOUT, f"URL {shown(url)} sent nothing for {policy.timeout_s:g} s") from None
    except OSError as error:
        raise ServingError(Kind.UNAVAILABLE, f"what URL {shown(url)} holds cannot be written: {error.strerror}") from error


async def post(
    url: str,
    body: bytes,
    policy: FetchPolicy,
    *,
    headers: Mapping[str, str] = EMPTY,
    resolver: Resolver = resolve,
    trust: ssl.SSLContext | None = None,
) -> int:
    """Send JSON to an http or https URL; returns the status of the answer, whatever it is. The answer itself is not read, redirects are
    not followed. Raises like `fetch`.
    """
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        raise invalid("the URL is malformed: its host cannot be read") from None
    if scheme not in _WEB:
        raise invalid(f"URL {shown(url)}: expected http:// or https:// at its start")
    try:
        async with asyncio.timeout(policy.timeout_s):
            await _import_http()
            from dragoman.serving.fetch_http import post_http

            return await post_http(url, body, headers, policy, resolver, trust)
    except TimeoutError:
        raise ServingError(Kind.TIMEOUT, f"URL {shown(url)} did not answer within {policy.timeout_s:g} s") from None


async def _import_http() -> None:
    """httpx takes a tenth of a second to import. The first fetch pays it, in a thread; a server that never fetches never does."""
    await asyncio.to_thread(importlib.import_module, "dragoman.serving.fetch_http")


def shown(url: str) -> str:
    """A URL as texts and logs may show it: no credentials, query or fragment, printable and short."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "..."
    host = parts.netloc.rpartition("@")[2]
    if parts.scheme == "file" and not host:
        text = f"file://{parts.path}"
    elif _AUTHORITY.match(host):
        text = f"{parts.scheme}://{host}{parts.path}"
    else:
        # Without a proper host the rest may well be "user:password@..." with a slash forgotten.
        text = f"{parts.scheme}:..." if parts.netloc else "..."
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def too_large(url: str, policy: FetchPolicy) -> ServingError:
    """The error for more bytes than the policy allows, on the wire or unpacked."""
    return ServingError(Kind.TOO_LARGE, f"URL {shown(url)} holds more than {policy.max_bytes} bytes, the most that is fetched")


def media_type(declared: str, name: str) -> str:
    """The declared type in lower case without parameters; where it is missing or no type at all, a guess by the file's name."""
    plain = declared.partition(";")[0].strip()
    if _MEDIA_TYPE.match(plain):
        return plain.lower()
    guess, packed = _TYPES.guess_type(name)
    return guess if guess and not packed else OCTETS


def _read_file(parts: SplitResult, policy: FetchPolicy) -> Fetched:
    url = parts.geturl()
    path = unquote(parts.path)
    if parts.netloc not in {"", "localhost"}:
        raise invalid("a file URL names a path of this machine as file:///DIR/FILE; files of other hosts are not read")
    if parts.query or parts.fragment or not path.startswith("/") or "\0" in path:
        raise invalid(f"URL {shown(url)}: expected file:///DIR/FILE with an absolute path; write ? and # as %3F and %23")
    place = policy.inside(path)
    if place is None:
        raise ServingError(Kind.FORBIDDEN, f"URL {shown(url)}: no directory that holds it was opened with --allow-fetch file:///DIR")
    try:
        descriptor = _open_below(*place)
    except (FileNotFoundError, NotADirectoryError):
        raise invalid(f"URL {shown(url)}: there is no such file") from None
    except OSError as exc:
        raise ServingError(Kind.FORBIDDEN, f"URL {shown(url)}: the file cannot be opened: {exc.strerror}") from exc
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise invalid(f"URL {shown(url)}: expected a regular file, got a directory or device")
        # One byte more than allowed is asked for: the file may grow after it was measured.
        with open(descriptor, "rb", closefd=False) as file:
            data = b"" if status.st_size > policy.max_bytes else file.read(policy.max_bytes + 1)
    finally:
        os.close(descriptor)
    if max(status.st_size, len(data)) > policy.max_bytes:
        raise too_large(url, policy)
    name = bare_name(path)
    return Fetched(data, media_type("", name), name, shown(url))


def _open_below(root: os.PathLike[str], rest: str) -> int:
    """Opens root/rest one name at a time without following links, so that a link put there after the check leads nowhere."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    names = rest.split("/") if rest else []
    for position, name in enumerate(names, 1):
        # A pipe without a writer would block for ever without O_NONBLOCK.
        kind = os.O_NONBLOCK if position == len(names) else os.O_DIRECTORY
        above = descriptor
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | kind, dir_fd=above)
        finally:
            os.close(above)
    return descriptor
