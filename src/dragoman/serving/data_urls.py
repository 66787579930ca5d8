"""MLRun's `data_url`: the inputs of a request that lie elsewhere (MLRun requirement M13). Called by its dialect and by streams.

Fetching is that of fetch.py, under the same policy as every file of a request; here is only what its content means, and whose fault it is
when it cannot be had.
"""

import asyncio
import re
from urllib.parse import quote

import orjson

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.tensors import Blob, Value
from dragoman.serving.fetch import Fetched, FetchPolicy, fetch

_OFF_LOOP = 512 * 1024
_KEPT = frozenset({Kind.FORBIDDEN, Kind.TOO_LARGE, Kind.UNSUPPORTED})
_JSON_TYPE = re.compile(r"application/(?:[a-z0-9.-]+\+)?json\Z|text/json\Z")


async def fetched(url: Value, policy: FetchPolicy) -> Fetched:
    """What a `data_url` holds: an http, https, file or bucket URL, or the absolute path of a file, as the policy opens them.

    Every failure is a client error, as M13 has it: FORBIDDEN, TOO_LARGE, UNSUPPORTED with status 400 for a package that is not installed, and
    INVALID_INPUT for the rest, also where another server fails or takes too long, which says nothing of this one.
    """
    if not isinstance(url, str) or not url:
        raise invalid("data_url must be a text that is not empty: the URL of the inputs")
    if asyncio.current_task() is None:
        await asyncio.sleep(0)  # the HTTP server runs a request's first step without a task; a time-out needs one
    try:
        return await fetch(f"file://{quote(url, errors='replace')}" if url.startswith("/") else url, policy)
    except ServingError as error:
        kind = error.kind if error.kind in _KEPT else Kind.INVALID_INPUT
        status = 400 if kind is Kind.UNSUPPORTED else None
        raise ServingError(kind, f"data_url: {error.message}", status=status) from error


def inputs_of(found: Fetched) -> Value:
    """The `inputs` that a fetched content stands for: a JSON list, the `inputs` of a JSON object that has some, else one file in a list.

    Raises INVALID_INPUT for content that is called JSON and is none.
    """
    said = _JSON_TYPE.match(found.media_type) is not None
    if said or found.data[:64].lstrip()[:1] in (b"[", b"{"):
        try:
            content = orjson.loads(found.data)
        except orjson.JSONDecodeError:
            if said:
                raise invalid(f"data_url: URL {found.url} is called {found.media_type} and holds no valid JSON") from None
            content = None
        if isinstance(content, list):
            return content
        if isinstance(content, dict) and "inputs" in content:
            return content["inputs"]
    return [Blob(found.data, found.media_type, found.name)]


async def inputs_at(url: Value, policy: FetchPolicy) -> Value:
    """`inputs_of` what is at a `data_url`, without holding up the loop for a large one. Raises as both do."""
    found = await fetched(url, policy)
    return await asyncio.to_thread(inputs_of, found) if len(found.data) > _OFF_LOOP else inputs_of(found)
