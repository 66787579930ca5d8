"""What the gateway has in its table: one served version each, who uses it now, and what is said to those who ask it for what it has not.

Made by the reconciler when a model is ready; dialects get them from `Gateway.find`.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import ModelSpec, Servable
from dragoman.core.tensors import Signature
from dragoman.serving.meters import Meter


class Entry:
    """One served version. Between `Gateway.find` and `Gateway.infer` there must be no await: then it cannot be drained in between."""

    __slots__ = ("_idle", "in_flight", "max_size", "meters", "name", "servable", "signatures", "spec", "version")

    def __init__(self, spec: ModelSpec, servable: Servable) -> None:
        self.spec = spec
        self.name = spec.name
        self.version = spec.version
        self.servable = servable
        self.signatures: Mapping[str, Signature] = servable.signatures
        self.max_size = spec.batch.max_size if spec.batch.refuse_larger else 0
        self.meters: dict[str, Meter] = {}
        self.in_flight = 0
        self._idle: asyncio.Event | None = None

    def left(self) -> None:
        """One request less."""
        self.in_flight -= 1
        if self._idle is not None and not self.in_flight:
            self._idle.set()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the entry from being drained: for work that asks it several times."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.left()

    async def idle(self, timeout_s: float) -> bool:
        """Wait until no request is in flight. False when that took longer than the time-out."""
        if not self.in_flight:
            return True
        self._idle = self._idle or asyncio.Event()
        self._idle.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True


def unknown_signature(entry: Entry, name: str) -> ServingError:
    """INVALID_INPUT (what="signature"), with the names that there are."""
    names = ", ".join(f"'{s}'" for s in entry.signatures if s) or "none but the default"
    return ServingError(Kind.INVALID_INPUT, f"model '{entry.name}' has no signature '{name}'; it has {names}", what="signature")


def unknown_operation(entry: Entry, name: str) -> ServingError:
    """UNSUPPORTED (what="operation"); of `explain` with the way to get it."""
    if name == "explain":
        whole = entry.signatures[""].whole
        way = (
            "its class has no method explain" if whole else f"start with --explain {entry.name}=METHOD and pip install 'dragoman[explain]'"
        )
        return ServingError(Kind.UNSUPPORTED, f"model '{entry.name}' has no operation 'explain': {way}", what="operation")
    return ServingError(Kind.UNSUPPORTED, f"model '{entry.name}' has no operation '{name}'", what="operation")
