"""Find models in the places that a user names: single artifacts, folders, and the layouts of TensorFlow Serving, Triton and MLServer.

Reads disks, never loads a model. Called at start for the targets of the command line, and again for each load request.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from dragoman.core.model import EMPTY, ModelSpec


@dataclass(frozen=True, slots=True)
class Found:
    """One model as it lies on disk now: the specs of the versions that its policy serves, or why it cannot be read."""

    name: str
    versions: Mapping[str, ModelSpec]
    labels: Mapping[str, str] = EMPTY
    error: str = ""


class Repository:
    """The targets of this run."""

    def find(self, name: str) -> Found | None:
        """Read one model from disk again; None when no target has it."""
        return None
