"""Engines decide where a model lives and how a call gets there. Here: the protocol, all engines of one server, and the in-process engine."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from dragoman.core.errors import ServingError
from dragoman.core.model import ModelSpec, Servable
from dragoman.core.plugins import find
from dragoman.engines.environment import Environments
from dragoman.hosting.servable import LocalServable

log = logging.getLogger("dragoman.models")


_SUITABLE: Mapping[str, str] = {"savedmodel": "process"}
"""Runtime -> the engine for specs that name none, where it is not "local". TensorFlow takes seconds and half a gigabyte, once for all workers."""


@dataclass(frozen=True, slots=True)
class Context:
    """What engines get to know of the server that they work for."""

    keeper: str = ""
    """Unix socket of the keeper of model processes; "" when this process keeps its own."""
    environments: Environments | None = None
    """The virtualenvs of models, where this process keeps its own model processes."""
    restarted: Callable[[str], None] = lambda model: None
    """Told when a process of a model was started in the place of one that died."""


class Engine(Protocol):
    """Made once per process, with its Context. `open` returns a servable that has loaded and is warm, or raises ServingError with the reason.

    Neither blocks the loop. `close` comes when every servable is closed.
    """

    async def open(self, spec: ModelSpec) -> Servable: ...
    async def close(self) -> None: ...


class Engines:
    """The engines of one server process, each made when a spec first names it."""

    def __init__(self, context: Context | None = None) -> None:
        self._context = context or Context()
        self._engines: dict[str, Engine] = {}

    async def open(self, spec: ModelSpec) -> Servable:
        """Load a spec with the engine that it names, else the one that suits its runtime. Raises ServingError with the reason when that fails."""
        name = spec.engine or _SUITABLE.get(spec.runtime, "local")
        engine = self._engines.get(name)
        if engine is None:
            engine = self._engines[name] = find("engines", name)(self._context)
        return await engine.open(spec)

    async def close(self) -> None:
        """To be called when every servable is closed."""
        engines, self._engines = self._engines, {}
        for engine in engines.values():
            await engine.close()


class LocalEngine:
    """The model in this process: loaded in a thread, called inline or in threads of its own."""

    def __init__(self, _context: Context) -> None:
        pass

    async def open(self, spec: ModelSpec) -> Servable:
        loading = asyncio.get_running_loop().run_in_executor(None, LocalServable.load, spec)
        try:
            return await asyncio.shield(loading)
        except ServingError as error:
            if error.trace:
                log.error("model '%s':\n%s", spec.name, error.trace)  # noqa: TRY400 # the model's traceback, not ours
            raise
        except asyncio.CancelledError:
            loading.add_done_callback(_discard)  # the thread cannot be stopped; what it brings must not stay
            raise

    async def close(self) -> None:
        """Nothing is left when the servables are closed."""


def _discard(loading: "asyncio.Future[LocalServable]") -> None:
    if not loading.cancelled() and loading.exception() is None:
        loading.result().discard()
