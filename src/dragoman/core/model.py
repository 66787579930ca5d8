"""What is served (ModelSpec), what is asked (InferRequest), and the two protocols: Model (blocking, loaded) and Servable (awaited, anywhere).

Made per request and therefore not frozen: InferRequest, InferResponse, Timings, Call (a frozen dataclass costs four times as much to make).
"""

import hashlib
import json
import math
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Protocol

from dragoman.core.tensors import Rows, Shape, Signature, Tensors, Value


class _Empty(Mapping[Any, Any]):
    """An empty, hashable mapping: dataclasses refuse a MappingProxyType default on Python 3.11 because it is unhashable there."""

    def __getitem__(self, key: Any) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __hash__(self) -> int:
        return 0


EMPTY: Mapping[Any, Any] = _Empty()


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """How requests of one model are joined.

    `max_size` bounds a joined batch (rows); 1 never joins. With `refuse_larger` a single request above it is INVALID_INPUT (Triton's
    max_batch_size), otherwise it runs alone. `max_delay_s` is how long the oldest may wait for company while the model is free; 0 never
    waits. `preferred` sizes, when given, end the wait early. `max_queue` bounds waiting requests; one more is OVERLOADED. `levels` > 0
    turns priorities on: 1 is first, a request without one gets `default_level`. `queue_timeout_s` is the deadline of requests that name none;
    with `timeout_delays` an expired request goes behind the others instead of failing (Triton's DELAY).

    `allowed` sizes, ascending and ending with `max_size`, are the only ones that tensors of a batching model are run with (TensorFlow Serving's
    allowed_batch_sizes): what is between them is filled up, and the filling cut off the answers. `cut` runs a request above `max_size` in
    pieces of at most that many rows, as `allowed` does, too. With `pad`, requests whose tensors differ in the sizes that the signature
    leaves open are joined, too, the shorter ones filled up with their first element.
    """

    max_size: int = 32
    refuse_larger: bool = False
    max_delay_s: float = 0.0
    preferred: tuple[int, ...] = ()
    max_queue: int = 4096
    levels: int = 0
    default_level: int = 0
    queue_timeout_s: float = math.inf
    timeout_delays: bool = False
    timeout_override: bool = True
    """Whether a request may shorten or set its own queue time-out."""
    level_max_queue: Mapping[int, int] = EMPTY
    """Per priority level, its own bound on waiting requests."""
    level_timeout_s: Mapping[int, float] = EMPTY
    allowed: tuple[int, ...] = ()
    cut: bool = False
    pad: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a composed model: which member, and how tensor names map. Keys are the member's names, values the ensemble's."""

    model: str
    version: str = ""
    inputs: Mapping[str, str] = EMPTY
    outputs: Mapping[str, str] = EMPTY


@dataclass(frozen=True, slots=True)
class Environment:
    """What a model's own virtualenv holds. Equal environments are one directory: it is named by their hash.

    `python` is "3.11" or "" for the server's own version; `packages` are requirement lines (`name[==version]`); `requirements` is the text
    of a requirements file, hashes and options included. A spec without an environment runs in the server's own.
    """

    python: str = ""
    packages: tuple[str, ...] = ()
    requirements: str = ""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What to serve. Plain values through and through, so that it can be stored, hashed and sent; `artifact` is an absolute path.

    `overrides` holds declared signatures where a configuration file names them (see repository); `arguments` go to the runtime;
    `steps` make it a composed model, which has no artifact. `revision` is the hash of the spec and the artifact's state: loading a changed
    model again is a new revision of the same version.
    """

    name: str
    version: str = "1"
    runtime: str = ""
    artifact: str = ""
    revision: str = ""
    engine: str = "local"
    """Where it lives; "" leaves it to what suits the runtime."""
    instances: int = 1
    batch: BatchPolicy = BatchPolicy()
    arguments: Mapping[str, Any] = EMPTY
    signature: Signature | None = None
    """Declared inputs and outputs; checked against the artifact's own when it has them, otherwise taken as they are."""
    input_reshapes: Mapping[str, Shape] = EMPTY
    """Input name -> the shape in which the model takes what clients send in the declared shape (-1 for the batch)."""
    output_reshapes: Mapping[str, Shape] = EMPTY
    """Output name -> the shape in which the model gives what clients get in the declared shape."""
    steps: tuple[Step, ...] = ()
    warmup: tuple[Mapping[str, Any], ...] = ()
    """Stored requests: {"inputs": {name: nested list or ndarray}}; without any, samples are generated from the signature."""
    run_timeout_s: float = math.inf
    """How long one run may take before it is broken off (process engine)."""
    interrupt_grace_s: float = 10.0
    """How long a run that is broken off may take to end before its process is killed (process engine)."""
    load_timeout_s: float = math.inf
    environment: Environment | None = None
    repeatable: bool = False
    """Whether a run that died with its process may be run once more: the model has no effects that could happen twice."""
    platform: str = ""
    """What metadata reports; the runtime's own name of it when empty."""
    config: Mapping[str, Any] = EMPTY
    """The model configuration as its own layout writes it in JSON (Triton), for the configuration endpoint."""
    readme: str = ""
    """What the model's author says about it, in Markdown, for people. It is shown as it is, and only ever as text."""
    warnings: tuple[str, ...] = ()
    """Settings that were read and have no effect here, each named."""
    digest: str = ""
    """Of the stored version that this is; "" for what was never built."""
    explainer: Mapping[str, Any] = EMPTY
    """How it is explained where it does not do so itself, as --explain says it (serving/explain/options.py); empty: it is not."""
    named_version: bool = False
    """Whether somebody gave the version: the command line, a folder of that name, a configuration, the registry. Else it is the usual "1"."""

    def with_revision(self, artifact_state: str) -> "ModelSpec":
        """This spec with the revision that its fields and the state of its artifact (sizes and times of files) give."""
        text = json.dumps(asdict(replace(self, revision="", signature=None)), sort_keys=True, default=_plain)
        digest = hashlib.sha256(f"{text}\n{self.signature!r}\n{artifact_state}".encode()).hexdigest()
        return replace(self, revision=digest[:16])


class Watch(Protocol):
    """Follows one request from near or far. Called from any thread and must not block; nothing comes after the request has ended."""

    def started(self) -> None:
        """The request is in a batch that runs now. Called again when it runs once more, alone or after a crash."""
        ...

    def log(self, text: str) -> None:
        """What the model printed while the request's batch ran; pieces, not lines."""
        ...


@dataclass(slots=True)
class InferRequest:
    """One call. `deadline` is on the monotonic clock (seconds); `priority` 0 is the model's default level; `outputs` empty means all."""

    inputs: Tensors | Rows
    operation: str = "predict"
    signature: str = ""
    outputs: tuple[str, ...] = ()
    parameters: Mapping[str, Value] = EMPTY
    id: str = ""
    deadline: float = math.inf
    priority: int = 0
    group: str = ""
    """Requests of one group fail together: they are parts of one prediction."""
    caller: str = ""
    strict: bool = True
    """False: shapes are the model's business (TensorFlow Serving feeds [3] to [-1, 1])."""
    dialect: str = ""
    """Who asked, for metering."""
    watch: Watch | None = None
    record: bool = False
    """Whether a model of whole requests is to say in its Reply what it saw and answered, for monitoring."""
    part: Callable[[Tensors | Rows], None] | None = None
    """Takes the parts of a streamed answer but the last, which is the answer itself. Called where the model runs; may block it."""


@dataclass(slots=True)
class Timings:
    """Nanoseconds per stage of one request. `leader` is true for one member of each batch: sums over leaders are executions."""

    queue_ns: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0
    batch_size: int = 1
    leader: bool = True
    rows: int = 1
    """Of this request alone; `batch_size` is everybody's."""


@dataclass(slots=True)
class InferResponse:
    outputs: Tensors | Rows
    timings: Timings
    parameters: Mapping[str, Value] = EMPTY
    more: bool = False
    """Of a stream: whether another part may follow. The end may come as a response without outputs."""


@dataclass(slots=True)
class Call:
    """What a model's predict gets: one argument, so that it can grow."""

    inputs: Tensors | Rows
    operation: str = "predict"
    signature: str = ""
    outputs: tuple[str, ...] = ()
    parameters: Mapping[str, Value] = EMPTY
    record: bool = False


class Model(Protocol):
    """A loaded model. `predict` blocks and owns its inputs; it is called once at a time unless `concurrent`.

    `predict` raises ServingError INVALID_INPUT for input that the framework refuses; any other exception is the model's failure.
    `signatures` has "" as the default and, where the format has several, their names too. Three more attributes are optional: `batch_size`
    (int; more than 0 is what the model's author says of its largest batch, and wins over the spec's), and, where `streams` is true,
    `stream(call) -> Iterator[Tensors | Rows]`, the parts of an answer to one request as they come.
    """

    @property
    def signatures(self) -> Mapping[str, Signature]: ...
    @property
    def operations(self) -> frozenset[str]: ...
    @property
    def platform(self) -> str: ...
    @property
    def concurrent(self) -> bool: ...
    def predict(self, call: Call) -> Tensors | Rows: ...
    def close(self) -> None: ...


class Servable(Protocol):
    """A model ready to be called, wherever it lives. Cancelling the await of `infer` is the cancel."""

    @property
    def signatures(self) -> Mapping[str, Signature]: ...
    @property
    def operations(self) -> frozenset[str]: ...
    @property
    def platform(self) -> str: ...
    async def infer(self, request: InferRequest) -> InferResponse: ...
    def stream(self, request: InferRequest) -> AsyncGenerator[InferResponse, None]: ...
    async def lost(self) -> str:
        """Return the reason when it can no longer answer; never returns while it can."""
        ...

    async def drain(self, deadline: float) -> None:
        """Let running work end until `deadline` (monotonic seconds), then fail what is left. No new work may come."""
        ...

    async def close(self) -> None: ...
    def pending(self) -> int:
        """Requests that wait, for the gauge."""
        ...

    def trouble(self) -> str:
        """Why it cannot answer just now although it is not lost (its process starts again), "" when it can. Requests wait meanwhile."""
        ...


def _plain(value: Any) -> Any:
    """What stands for a value in the text that a revision is made from."""
    if isinstance(value, Mapping):
        return dict(value)
    return value.tolist() if hasattr(value, "tolist") else repr(value)


def frozen(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    """A read-only copy."""
    return MappingProxyType(dict(mapping)) if mapping else EMPTY


__all__ = [
    "EMPTY",
    "BatchPolicy",
    "Call",
    "Environment",
    "InferRequest",
    "InferResponse",
    "Model",
    "ModelSpec",
    "Servable",
    "Step",
    "Timings",
    "Watch",
    "frozen",
]
