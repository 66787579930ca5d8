"""Calls the URL that a client asked to be called when its prediction has ended. At least once, perhaps twice; never through a redirect.

Only hosts that the fetch policy lets pass are called. A refusal is final; a host that cannot be reached or that fails is tried again with
growing pauses, and given up at the end.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from urllib.parse import urlsplit

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.serving.fetch import FetchPolicy, post, shown

log = logging.getLogger("dragoman")

PAUSES_S = (1.0, 5.0, 30.0, 120.0, 600.0)
"""Between attempts: one more attempt than there are pauses."""
_TIMEOUT_S = 15.0
GIVEN_UP_S = sum(PAUSES_S) + (len(PAUSES_S) + 1) * _TIMEOUT_S
"""No delivery takes longer than this."""
_MOST_AT_ONCE = 16
_MOST_URL = 2048
_TRY_AGAIN = frozenset({Kind.UNAVAILABLE, Kind.TIMEOUT})


class Webhooks:
    """`send` and `sleep` are for tests to replace."""

    def __init__(
        self,
        policy: FetchPolicy,
        *,
        send: Callable[..., Awaitable[int]] = post,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._policy = replace(policy, timeout_s=min(policy.timeout_s, _TIMEOUT_S))
        self._send = send
        self._sleep = sleep
        self._room = asyncio.Semaphore(_MOST_AT_ONCE)

    async def deliver(self, url: str, prediction_id: str, body: bytes) -> bool:
        """POST the body until somebody takes it. False when it was given up; cancelled, nothing is known."""
        for attempt in range(len(PAUSES_S) + 1):
            try:
                async with self._room:
                    status = await self._send(url, body, self._policy, headers={"X-Prediction-Id": prediction_id})
            except ServingError as error:
                again, reason = error.kind in _TRY_AGAIN, error.message
            else:
                if 200 <= status < 300:
                    return True
                again, reason = status >= 500 or status in (408, 425, 429), f"it answered {status}"
            if not again or attempt == len(PAUSES_S):
                break
            await self._sleep(PAUSES_S[attempt])
        log.warning("the webhook %s of prediction %s is given up: %s", shown(url), prediction_id, reason)
        return False


def check_url(url: str) -> None:
    """Raise INVALID_INPUT for what is no http or https URL. Whether its host may be called is seen when it is called."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable() and " " not in url
    except ValueError:
        good = False
    if not good or len(url) > _MOST_URL:
        raise invalid(f"the webhook must be an http:// or https:// URL of at most {_MOST_URL} characters, got {shown(url)}")
