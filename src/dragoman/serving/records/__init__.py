"""Tracking records: what models were asked and what they answered, written elsewhere for monitoring (MLRun requirement M32).

The gateway tells the recorder (recorder.py), which hands what it saw to a bounded queue (writer.py); a task makes records of it (forms.py) and
gives them to a sink. Nothing here is about MLflow's runs, which are serving/tracking.py. This module has what sinks are made of.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

Record: TypeAlias = Mapping[str, Any]
"""One record, or one batch of records of a model, of JSON types only."""


class Sink(Protocol):
    """Where records go. Belongs to one task."""

    async def send(self, records: Sequence[Record]) -> Sequence[Record]:
        """Deliver these, in order; returns those that were refused for good.

        Raises ServingError: of kind UNAVAILABLE, TIMEOUT or OVERLOADED when the very same records may be sent again.
        """
        ...

    async def flush(self) -> None:
        """Deliver what it still holds. Called now and then, and before `close`. Raises as `send`."""
        ...

    async def close(self) -> None:
        """Never raises."""
        ...
