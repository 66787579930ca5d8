"""tungstenkit.models.get: a stored model as something to call. For programs; a model file has no use for it."""

import weakref
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

from ._client import Inputs, Line, Outputs, StrPath, predicted
from .exceptions import ModelNotFound

__all__ = ["get"]


class _Answer(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...


class _Server(Protocol):
    """What of dragoman.TestClient is used."""

    def request(
        self, method: str, path: str, *, json: object = None, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> _Answer: ...
    def close(self) -> None: ...


class LocalModel:
    """A model that was loaded for this program. `close`, leaving a `with` block or dropping the object unloads it."""

    def __init__(self, name: str, server: _Server) -> None:
        self.name = name
        self._unload = weakref.finalize(self, server.close)  # Tungstenkit's has no `close`, so nobody may call it
        self._unload.atexit = False  # too late then: the server's threads have been told to end
        # Not a method of this object: in a cycle of references it could be dropped by the server's own thread, which cannot stop itself.
        self._line = Line(f"model {name}", name, partial(_call, server))

    def predict(self, inputs: Inputs, output_file_dir: StrPath | None = None) -> Outputs:
        """As ModelServer.predict, of which it has the rules for files and errors."""
        return predicted(self._line, inputs, output_file_dir)

    def close(self) -> None:
        self._unload()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _call(server: _Server, method: str, path: str, payload: Any) -> tuple[int, bytes]:
    answer = server.request(method, path or "/", json=payload)
    return answer.status, answer.body


def get(name: str) -> LocalModel:
    """Load a stored model, NAME[:TAG]. Raises ModelNotFound with the reason when there is none or it does not load."""
    import dragoman

    try:
        server = dragoman.TestClient(name)
    except dragoman.ServingError as error:
        raise ModelNotFound(f"'{name}': {error.message}") from error
    if not server.loaded.ready:
        reasons = "; ".join(reason for _, reason in server.loaded.failed)
        server.close()
        raise ModelNotFound(f"'{name}': {reasons or 'nothing was loaded'}")
    return LocalModel(name, server)
