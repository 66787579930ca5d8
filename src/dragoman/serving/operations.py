"""Load and unload a model of the repository by name: what every dialect's load and unload calls do. Called by the dialects."""

import asyncio
from collections.abc import Mapping

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import EMPTY
from dragoman.serving.gateway import Gateway
from dragoman.serving.registry import Registry
from dragoman.serving.repository import Repository

_DEEPEST = 16
"""Composed models inside composed models."""


class Operations:
    """`fixed` is why this server's models cannot be changed while it runs; "" when they can."""

    def __init__(self, registry: Registry, repository: Repository, gateway: Gateway, fixed: str = "") -> None:
        self._registry = registry
        self._repository = repository
        self._gateway = gateway
        self._fixed = fixed

    async def load(self, name: str, config: str = "", files: Mapping[str, bytes] = EMPTY, depth: int = 0) -> None:
        """Read the model from disk (or from `files`) and serve what is there now; the old version serves until the new one is ready.

        Raises NOT_FOUND for a name that no target has, INVALID_INPUT for files that cannot be read as a model, UNAVAILABLE with the reason
        when loading failed; then what was served before goes on.
        """
        self._refuse_when_fixed()
        found = await asyncio.to_thread(self._repository.find, name, config, files)
        if found is None:
            raise ServingError(Kind.NOT_FOUND, f"model '{name}' is not in any of this server's repositories", what="model")
        if found.error:
            raise invalid(f"model '{name}' cannot be loaded: {found.error}", "model")
        members = {step.model for spec in found.versions.values() for step in spec.steps}
        for member in sorted(members):
            if depth >= _DEEPEST:
                raise invalid(f"model '{name}' is composed of models more than {_DEEPEST} deep", "model")
            if not self._served(member):
                await self.load(member, depth=depth + 1)
        await self._registry.deploy(found.name, found.versions, found.labels)

    def unload(self, name: str, *, members_too: bool = False) -> None:
        """Stop serving a model; requests in flight finish. Returns at once. Raises NOT_FOUND for a name that was never served or known."""
        self._refuse_when_fixed()
        desired = self._registry.desired(name)
        if desired is None and not self._gateway.statuses(name):
            raise ServingError(Kind.NOT_FOUND, f"model '{name}' is not known to this server", what="model")
        members = {step.model for spec in desired.versions.values() for step in spec.steps} if desired is not None else set()
        self._registry.wish(name, {})
        if members_too:
            for member in members:
                if self._registry.desired(member) is not None:
                    self._registry.wish(member, {})

    def _served(self, name: str) -> bool:
        try:
            self._gateway.find(name)
        except ServingError:
            return False
        return True

    def _refuse_when_fixed(self) -> None:
        if self._fixed:
            raise ServingError(Kind.UNSUPPORTED, self._fixed, what="operation")
