"""Dragoman: one model server, any model, every client's protocol.

with dragoman.serve("iris=iris.skops", port=3000) as server: ...
with dragoman.TestClient("iris=iris.skops") as client: client.get("/v2/models/iris")
"""

from typing import TYPE_CHECKING, Any

from dragoman.core.authoring import batched
from dragoman.core.errors import ServingError
from dragoman.core.model import Model, ModelSpec
from dragoman.core.tensors import Blob, Signature, TensorSpec

if TYPE_CHECKING:
    from dragoman.embed import TestClient, serve

__version__ = "0.1.0"
__all__ = ["Blob", "Model", "ModelSpec", "ServingError", "Signature", "TensorSpec", "TestClient", "__version__", "batched", "serve"]


def __getattr__(name: str) -> Any:
    # The server is imported when it is asked for: model processes import this package too, and see only standard library and numpy.
    if name in ("TestClient", "serve"):
        from dragoman import embed

        return getattr(embed, name)
    raise AttributeError(f"module 'dragoman' has no attribute '{name}'")
