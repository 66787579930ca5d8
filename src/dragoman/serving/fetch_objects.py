"""Objects in buckets and file systems for `fetch.py`, its only caller: s3, gs, az through obstore, v3io through its fsspec driver.

The libraries block and cannot be interrupted, so they run in a thread that looks between two pieces whether anybody still waits.
"""

import asyncio
import logging
import threading

from dragoman.core.data_uris import bare_name
from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.serving.fetch import Fetched, media_type, shown, too_large
from dragoman.serving.fetch_places import Place, read_place
from dragoman.serving.fetch_policy import FetchPolicy
from dragoman.serving.library.remotes import object_in, told

log = logging.getLogger("dragoman.fetch")


async def fetch_object(url: str, policy: FetchPolicy) -> Fetched:
    """See `fetch`, which also holds the deadline. FORBIDDEN for what no entry opens, before anything is imported or asked."""
    try:
        place = read_place(url)
    except ValueError as error:
        raise invalid(f"URL {shown(url)}: {error}") from None
    if not place.segments:
        raise invalid(f"URL {shown(url)} names no object")
    if not any(each.holds(place) for each in policy.places):
        example = f"{place.root}/{place.segments[0]}" if not place.authority else place.root
        raise ServingError(Kind.FORBIDDEN, f"URL {shown(url)}: nothing that holds it was opened with --allow-fetch {example}")
    stopped = threading.Event()
    try:
        return await asyncio.to_thread(_read, url, place, policy, stopped)
    except ServingError as error:
        if error.__cause__ is None or error.kind is not Kind.UNAVAILABLE:
            raise
        # The library's words name endpoints and roles, which are nothing for whoever sent a URL.
        log.warning("%s", error.message)
        raise ServingError(Kind.UNAVAILABLE, f"URL {shown(url)} cannot be read; the server's log says why") from error
    finally:
        stopped.set()


def _read(url: str, place: Place, policy: FetchPolicy, stopped: threading.Event) -> Fetched:
    body = bytearray()
    try:
        with told(shown(url)):
            for piece in object_in(place.root, place.key, policy.timeout_s):
                body += piece
                if len(body) > policy.max_bytes or stopped.is_set():
                    break
    except ServingError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise invalid(f"URL {shown(url)}: there is no such object") from None
        raise
    if len(body) > policy.max_bytes:
        raise too_large(url, policy)
    name = bare_name(place.key)
    return Fetched(bytes(body), media_type("", name), name, shown(url))
