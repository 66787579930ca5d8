"""A bell that nobody rings: whoever waits for it looks again soon. Made by stores that have nothing better."""

import asyncio

_SOON_S = 0.2


class PollingBell:
    """Implements `dragoman.store.Bell`."""

    async def rung(self, timeout_s: float) -> None:
        await asyncio.sleep(min(max(timeout_s, 0.0), _SOON_S))

    async def close(self) -> None:
        pass
