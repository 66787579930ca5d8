"""The process engine: a model in processes of its own, which live and die without the server, and can be broken off."""

from dataclasses import replace

from dragoman.core.model import ModelSpec, Servable
from dragoman.engines import Context
from dragoman.engines.keeper import Keeper, Keeping
from dragoman.engines.keeping import RemoteKeeper
from dragoman.engines.remote import RemoteServable


class ProcessEngine:
    """Asks the keeper that the context names, or keeps the processes itself."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._keeping: Keeping | None = None

    async def open(self, spec: ModelSpec) -> Servable:
        if self._keeping is None:
            context = self._context
            own = not context.keeper
            keeper = Keeper(environments=context.environments, restarted=context.restarted) if own else RemoteKeeper(context.keeper)
            self._keeping = keeper
        return await RemoteServable.open(replace(spec, readme=""), self._keeping)  # a process has no use for it

    async def close(self) -> None:
        if self._keeping is not None:
            await self._keeping.close()
