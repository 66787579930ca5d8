"""Find models in the places that a user names: single artifacts, folders, and the layouts of TensorFlow Serving, Triton and MLServer.

Reads disks, never loads a model. Called at start for the targets of the command line, and again for each load request.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dragoman.core.model import EMPTY, BatchPolicy, ModelSpec


@dataclass(frozen=True, slots=True)
class Found:
    """One model as it lies on disk now: the specs of the versions that its policy serves, or why it cannot be read."""

    name: str
    versions: Mapping[str, ModelSpec]
    labels: Mapping[str, str] = EMPTY
    error: str = ""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for every model whose own files do not say otherwise. `name` is for a single target without one."""

    name: str = ""
    batch: BatchPolicy = BatchPolicy()
    instances: int = 1
    arguments: Mapping[str, Any] = EMPTY
    """Passed to every runtime: threads, trust_pickle, device."""


class Repository:
    """The targets of this run: each PATH or NAME=PATH. Blocking: call it off the event loop."""

    def __init__(self, targets: Sequence[str], defaults: Defaults) -> None:
        self._targets = list(targets)
        self._defaults = defaults

    def discover(self) -> list[Found]:
        """Read every target now. A target that cannot be read is a Found with its error; two models of one name are an error of the second."""
        return []

    def find(self, name: str, config: str = "", files: Mapping[str, bytes] = EMPTY) -> Found | None:
        """Read one model from disk again; None when no target has it.

        `config` (JSON of a Triton model configuration) and `files` ("1/model.onnx" -> content) override what lies on disk, for this load.
        """
        return None

    def names(self) -> list[str]:
        """Every model name that the targets have now, loaded or not."""
        return []
