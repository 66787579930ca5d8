"""The bounds and times of asynchronous predictions, and the parts of the server that they use. Made by the worker, from settings."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from uuid import uuid4

from dragoman.core.predictions import Progress
from dragoman.core.tensors import Signature, Value
from dragoman.serving.gateway import Gateway
from dragoman.serving.late_store import LateStore
from dragoman.serving.webhooks import Webhooks

Resolve: TypeAlias = Callable[[Sequence[Value], Signature], Awaitable[list[Value]]]
"""Rows with every file in them as a Blob: files are decoded, fetched or found among the uploads. Raises ServingError."""


Admit: TypeAlias = Callable[[Sequence[Value], Signature], None]
"""Raises TOO_LARGE for rows whose files can be refused at once."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`waiting` counts the predictions of one model that have not started, in one worker; all models together may have four times as many."""

    waiting: int = 1000
    held: int = 1000
    """Predictions that one worker has in memory; more than that wait in the store."""
    held_bytes: int = 512 << 20
    """Their inputs, about."""
    expiration_s: float = 3600.0
    """How long results are kept."""
    run_timeout_s: float = 7200.0
    """How long one row may run."""
    model_wait_s: float = 300.0
    """How long a prediction waits for a model that is gone or failed to load; for one that is loading it waits as long as that takes."""
    lease_s: float = 30.0
    attempts: int = 3


def _unheard(_model: str, _how: Progress) -> None:
    return


async def _nothing() -> None:
    return


def _anything(_rows: Sequence[Value], _signature: Signature) -> None:
    return


@dataclass(frozen=True, slots=True)
class Parts:
    """What predictions are made with. `owners` is the folder of the lock files. Clocks and ids are for tests to replace."""

    gateway: Gateway
    store: LateStore
    resolve: Resolve
    webhooks: Webhooks
    owners: Path
    limits: Limits = Limits()
    admit: Admit = _anything
    tidy: Callable[[], Awaitable[None]] = _nothing
    """Whatever else is to be looked after from second to second; raises nothing."""
    ended: Callable[[str, Progress], None] = _unheard
    """Told of each end of a prediction that this worker has stored: its model, and how."""
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    """Between attempts."""
    new_id: Callable[[], str] = lambda: uuid4().hex
