"""Engines decide where a model lives and how a call gets there. Here: the protocol and the in-process engine."""

import asyncio
from typing import Protocol

from dragoman.core.model import ModelSpec, Servable
from dragoman.hosting.servable import LocalServable


class Engine(Protocol):
    """`open` returns a servable that has loaded and is warm, or raises ServingError with the reason. It never blocks the loop."""

    async def open(self, spec: ModelSpec) -> Servable: ...


class LocalEngine:
    """The model in this process: loaded in a thread, called inline or in threads of its own."""

    async def open(self, spec: ModelSpec) -> Servable:
        loading = asyncio.get_running_loop().run_in_executor(None, LocalServable.load, spec)
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            loading.add_done_callback(_discard)  # the thread cannot be stopped; what it brings must not stay
            raise


def _discard(loading: "asyncio.Future[LocalServable]") -> None:
    if not loading.cancelled() and loading.exception() is None:
        loading.result().discard()
