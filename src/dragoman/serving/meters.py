"""Counters per model, version and dialect: what statistics and metrics are made of. Written by the gateway only."""

from pathlib import Path

from dragoman.core.errors import Kind
from dragoman.core.model import Timings


class Meter:
    """The counters of one (model, version, dialect)."""

    def __init__(self, model: str, version: str, dialect: str) -> None:
        self.model = model
        self.version = version
        self.dialect = dialect
        self.success = 0

    def succeeded(self, took_ns: int, timings: Timings) -> None:
        self.success += 1

    def failed(self, kind: Kind, took_ns: int) -> None:
        pass


class Meters:
    """All meters of this worker."""

    def __init__(self, directory: Path | None = None, worker: int = 0) -> None:
        self._meters: dict[tuple[str, str, str], Meter] = {}

    def open(self, model: str, version: str, dialect: str) -> Meter:
        key = (model, version, dialect)
        if key not in self._meters:
            self._meters[key] = Meter(*key)
        return self._meters[key]
