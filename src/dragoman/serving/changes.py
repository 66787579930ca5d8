"""How those who wait for something hear that anything has happened, without a queue each. Made by the registry; awaited by whoever waits for it."""

import asyncio


class Changes:
    """Counts what happens, for those who wait until something is so: look at `count`, look at the world, then wait for more than that."""

    def __init__(self) -> None:
        self.count = 0
        self._event = asyncio.Event()

    def tell(self) -> None:
        self.count += 1
        self._event.set()
        self._event.clear()

    async def after(self, count: int, timeout_s: float | None = None) -> None:
        """Return when something has happened since `count`, or after the time-out."""
        if self.count == count:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._event.wait()
            except TimeoutError:
                pass
