"""Told by the gateway of every request while tracking is on; decides which are recorded and hands them to the writer.

A request that is not recorded costs one look at `Recorder.active` while tracking is off, and a small object while it is on. Nothing here waits
or raises: what cannot be queued is dropped and counted.
"""

import time
from collections.abc import Callable, Mapping
from uuid import uuid4

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import EMPTY, InferRequest, ModelSpec
from dragoman.core.tensors import Reply, Rows, Signature, Tensors, Value
from dragoman.serving.records.forms import Seen, words
from dragoman.serving.records.settings import RecordSettings
from dragoman.serving.records.snapshot import MOST_BYTES, Copy, TooLargeError

_UNSEEN = frozenset({Kind.UNAUTHENTICATED, Kind.FORBIDDEN})
"""Failures of callers who may not use the model: what they sent is none of its requests."""


class Recorder:
    """`put` queues one finished request and says whether there was room. Belongs to the event loop's thread."""

    def __init__(self, settings: RecordSettings, put: Callable[[Seen], bool]) -> None:
        self.active = False
        """Whether anything is recorded: the only thing that the gateway looks at while nothing is."""
        self._settings = settings
        self._put = put
        self._sample = 1
        self._counts: dict[tuple[str, str], int] = {}
        settings.on_change(self._obey)

    def begin(
        self, spec: ModelSpec, signature: Signature | None, request: InferRequest, inputs: Tensors | Rows | None = None
    ) -> "Recording":
        """A request that is about to run. Its turn comes every sample-th time for each model and version (MLRun).

        A model of whole requests is told to say in its Reply what it saw. `inputs` are the request's own, unless given.
        """
        key = (spec.name, spec.version)
        count = self._counts.get(key, 0) + 1
        turn = count >= self._sample
        self._counts[key] = 0 if turn else count
        if turn and signature is not None and signature.whole:
            request.record = True
        return Recording(self._put, spec, signature, request, request.inputs if inputs is None else inputs, turn)

    def _obey(self) -> None:
        wanted = self._settings.wanted()
        self._sample = wanted.sample
        self.active = wanted.place is not None


class Recording:
    """One request on its way. At most one of `answered` and `failed` is called, once."""

    __slots__ = (
        "_answer",
        "_inputs",
        "_kept",
        "_parameters",
        "_parts",
        "_put",
        "_reply",
        "_request",
        "_signature",
        "_size",
        "_spec",
        "_turn",
        "_when_s",
    )

    def __init__(
        self,
        put: Callable[[Seen], bool],
        spec: ModelSpec,
        signature: Signature | None,
        request: InferRequest,
        inputs: Tensors | Rows,
        turn: bool,
    ) -> None:
        self._put = put
        self._spec = spec
        self._signature = signature
        self._request = request
        self._turn = turn
        self._when_s = time.time()
        self._inputs: Tensors | Rows | int = inputs
        if turn:
            self._answer = Copy()
            self._size = 0
            """Of an answer that was too large to be kept; 0 while it is not."""
            self._parts: list[Tensors | Rows] = []
            self._reply: Reply | None = None
            self._keep(inputs)  # models own their inputs and may change them

    def part(self, outputs: Tensors | Rows) -> None:
        """A part of the answer, or what the model itself answered where the protocol gets something else."""
        if not self._turn or self._size:
            return
        if len(outputs.items) == 1 and isinstance(outputs.items[0], Reply):
            self._reply = outputs.items[0]
            return
        try:
            self._parts.append(self._answer.payload(outputs))
        except TooLargeError as error:
            self._size = error.size
            self._parts = []

    def answered(self, begin_ns: int, end_ns: int, outputs: Tensors | Rows | None = None) -> None:
        """It has ended well; without `outputs` the parts are the answer. A Reply whose status is 4xx or 5xx is a failure of the model's."""
        if not self._turn:
            return
        if outputs is not None and self._reply is None:
            self.part(outputs)
        seen, reply = self._seen(begin_ns, end_ns), self._reply
        if reply is not None:
            if reply.status >= 400:
                seen.error = f"{reply.status}: {str(reply.body)[:1000]}"
            self._say(seen, reply)
        else:
            seen.answer = self._size or (self._parts[0] if len(self._parts) == 1 else self._parts)
        seen.size += self._answer.size
        self._put(seen)

    def failed(self, begin_ns: int, end_ns: int, error: BaseException) -> None:
        """It has failed, or its caller has gone. Recorded also when it was not its turn; its inputs are then as the model left them."""
        if isinstance(error, ServingError) and error.kind in _UNSEEN:
            return
        if not self._turn and not isinstance(self._inputs, int):
            self._keep(self._inputs)
        seen = self._seen(begin_ns, end_ns)
        seen.error = words(error)
        self._put(seen)

    def _seen(self, begin_ns: int, end_ns: int) -> Seen:
        spec, request = self._spec, self._request
        return Seen(
            spec.name,
            spec.version,
            spec.runtime or spec.platform or "ensemble",
            self._signature,
            request.operation,
            request.id or uuid4().hex,
            self._parameters,
            self._when_s,
            self._inputs,
            microsec=max(0, end_ns - begin_ns) // 1000,
            size=self._kept,
            named_version=spec.named_version,
        )

    def _keep(self, inputs: Tensors | Rows) -> None:
        """Copy what was asked; of what is too large its size is kept."""
        copy, parameters = Copy(), self._request.parameters
        self._parameters: Mapping[str, Value] = EMPTY
        try:
            self._inputs = copy.payload(inputs)
            if parameters:
                self._parameters = copy.value(dict(parameters))
        except TooLargeError as error:
            self._inputs = error.size
        self._kept = min(copy.size, MOST_BYTES)

    def _say(self, seen: Seen, reply: Reply) -> None:
        try:
            if reply.record is not None:
                seen.said = self._answer.value(dict(reply.record))
            if not seen.error and "resp" not in seen.said:
                seen.answer = self._answer.payload(Rows([reply]))
        except TooLargeError as error:
            seen.answer = error.size
