"""What a repository layout's configuration file asks for, in our own terms: the one type that Triton's and MLServer's readers both return.

Made by serving/triton and serving/mlserver, turned into ModelSpecs by serving/repository. Everything in it has been checked; what was
written and has no effect here is in `warnings`, each message naming its field.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, unique
from pathlib import Path
from typing import Any

from dragoman.core.lifecycle import Policy, PolicyKind
from dragoman.core.model import EMPTY, BatchPolicy, Step
from dragoman.core.tensors import Shape, TensorSpec

LARGEST_FILE = 1 << 20
"""A configuration file above this many bytes is refused: real ones have a few kilobytes."""
_MOST_WARNINGS = 100
LATEST = Policy(PolicyKind.LATEST)
"""The highest version: what is served where a file says nothing."""


@unique
class Device(Enum):
    AUTO = "auto"
    CPU = "cpu"
    GPU = "gpu"
    MODEL = "model"
    """The model places itself."""


@dataclass(frozen=True, slots=True)
class InstanceGroup:
    """`count` parallel instances (per listed GPU, or in all)."""

    count: int = 1
    device: Device = Device.AUTO
    gpus: tuple[int, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """One model as its file describes it.

    Shapes are complete: the batch dimension, where the layout leaves it out, is there as -1. A TensorSpec whose datatype or shape is None
    was named without it; an empty `inputs` or `outputs` was not given at all; both mean: take it from the artifact.
    """

    name: str
    source: str
    """Where it was read, for messages: "config.pbtxt of model 'iris'"."""
    runtime: str = ""
    """A runtime's name; "" for composed models, and where the files decide."""
    platform: str = ""
    """As written; what metadata reports. Empty: the runtime's own."""
    artifact: Path | None = None
    """The model's file or folder, where the file names it outright (MLServer)."""
    filename: str = ""
    """What to open inside a version folder; relative, without "..". Resolve it with serving.paths.confine (Triton)."""
    version: str = ""
    """The version's own name, where the file gives it (MLServer)."""
    version_policy: Policy = LATEST
    max_batch_size: int = 0
    """> 0: axis 0 of every tensor is the batch and larger requests are refused. 0: no batch dimension is promised."""
    batch: BatchPolicy | None = None
    """None: the file leaves it to the server (and, for Triton, to what the artifact's shapes allow)."""
    joins: bool = False
    """The file asks for requests to be joined (Triton's dynamic_batching, MLServer's adaptive batching)."""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    input_reshapes: Mapping[str, Shape] = EMPTY
    """Input name -> the shape in which the model gets what clients send in the declared shape."""
    output_reshapes: Mapping[str, Shape] = EMPTY
    """Output name -> the shape in which the model gives what clients get in the declared shape."""
    instances: tuple[InstanceGroup, ...] = ()
    """Empty: not said."""
    arguments: Mapping[str, Any] = EMPTY
    """For the runtime, as written: Triton's are texts, MLServer's any JSON."""
    warmup: tuple[Mapping[str, Any], ...] = ()
    """Stored requests in ModelSpec's form {"inputs": {name: ndarray}}, with "name" and "count" (how often to run it)."""
    steps: tuple[Step, ...] = ()
    """Members of a composed model, in an order in which the inputs of each step exist when its turn comes."""
    sequences: bool = False
    response_cache: bool = False
    decoupled: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def instance_count(self) -> int:
        """Parallel instances in all; 1 when nothing is said."""
        return sum(group.count * max(1, len(group.gpus)) for group in self.instances) or 1


def limited(warnings: Iterable[str], source: str) -> tuple[str, ...]:
    """The warnings without repetitions, cut where a hostile file would make thousands."""
    kept = tuple(dict.fromkeys(warnings))
    if len(kept) <= _MOST_WARNINGS:
        return kept
    return (*kept[:_MOST_WARNINGS], f"{source}: {len(kept) - _MOST_WARNINGS} more fields have no effect")


def quoted(text: str, longest: int = 100) -> str:
    """Foreign text for a message: in quotes, control characters escaped, cut when it is long."""
    return repr(text if len(text) <= longest else f"{text[:longest]}...")
