"""The stream of a prediction's events, as server-sent events. Called by rest.py.

`event: status` has `{"status", "error_message"}`, `event: log` has `{"text"}`; the last one is the terminal status. In silences a comment is
sent, so that no proxy takes the stream for dead.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import orjson

from dragoman.dialects.tungsten.answers import status_event
from dragoman.serving.predictions import Event, Predictions

_COMMENT = b": keep-alive\n\n"


async def stream(predictions: Predictions, prediction_id: str) -> AsyncGenerator[bytes, None]:
    """Each event as it comes. Ends with the terminal status, or when its consumer closes it."""
    async with aclosing(predictions.events(prediction_id)) as events:
        async for event in events:
            yield _message(event)


def _message(event: Event) -> bytes:
    """One event on the wire. JSON has no line breaks, so it is one line of data."""
    if event.kind == "idle":
        return _COMMENT
    body = {"text": event.text} if event.kind == "log" else status_event(event.view)
    return f"event: {event.kind}\ndata: ".encode() + orjson.dumps(body) + b"\n\n"
