"""What this dialect needs of the prediction service and of the uploads, as types: serving/predictions.py and serving/files.py have them."""

from collections.abc import AsyncGenerator
from typing import Any, Protocol

from dragoman.core.predictions import Progress
from dragoman.core.tensors import Blob
from dragoman.serving.gateway import Entry


class View(Protocol):
    id: str
    model: str
    version: str
    operation: str
    progress: Progress
    outputs: list[Any] | None
    error: str
    error_kind: str
    logs: str
    created: float
    started: float | None
    finished: float | None


class Event(Protocol):
    kind: str
    """status, log or idle."""
    view: View
    text: str


class Predictions(Protocol):
    async def submit(self, entry: Entry, rows: list[Any], *, operation: str = "predict", webhook: str = "", caller: str = "") -> str: ...
    async def get(self, prediction_id: str) -> View: ...
    async def inputs(self, prediction_id: str) -> list[Any]: ...
    async def wait(self, prediction_id: str, timeout_s: float) -> View: ...
    def events(self, prediction_id: str) -> AsyncGenerator[Event, None]: ...
    async def cancel(self, prediction_id: str) -> View: ...
    async def run(self, entry: Entry, rows: list[Any], *, operation: str = "predict", caller: str = "") -> View: ...


class Uploads(Protocol):
    async def put(self, data: bytes, name: str, media_type: str) -> str: ...
    async def get(self, name: str) -> Blob: ...
