"""The event loop that servers run on: uvloop where it exists."""

import asyncio

try:
    import uvloop
except ImportError:  # no wheel for this platform: the standard loop serves too, at about half the speed
    uvloop = None


def new_event_loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop() if uvloop is None else uvloop.new_event_loop()
