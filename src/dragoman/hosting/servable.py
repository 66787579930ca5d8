"""A loaded model and the three ways to run it: inline on the loop, joined in one pass of the loop, or in its own threads.

A hop to a thread costs some 30 us, more than a whole run of a small model, so runs that are expected to be short happen on the loop and only
the others pay the hop. The expectation is measured, by size of input, from warm-up on. Called by the gateway.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing
from dataclasses import replace
from queue import SimpleQueue

from dragoman.core.errors import Kind, ServingError
from dragoman.core.keys import batch_key
from dragoman.core.model import BatchPolicy, Call, InferRequest, InferResponse, Model, ModelSpec, Timings
from dragoman.core.plugins import find
from dragoman.core.tensors import Rows, Signature, batch_length
from dragoman.hosting.batch import Batch, Outcome, Payload, as_serving_error, check_rows, execute, outcome_of, rows_of
from dragoman.hosting.batcher import ALONE, Batcher
from dragoman.hosting.reshaped import inner_spec, outer_model
from dragoman.hosting.sized import sized
from dragoman.hosting.streaming import Parts, run
from dragoman.hosting.warmup import warm_up

LOOP_BOUND_NS = 300_000
"""A run expected to take longer goes to a thread: ten times the hop, so below it the loop is hardly delayed, above it the hop hardly felt."""
DIRECT_BOUND_NS = 5_000
"""A run expected to be shorter than this is not worth joining: gathering a pass costs half of it."""


class Cost:
    """What a run takes, learned by size: one moving average per power of two of input elements."""

    __slots__ = ("_by_bits",)

    def __init__(self) -> None:
        self._by_bits = [0] * 65

    def record(self, elements: int, took_ns: int) -> None:
        bits = elements.bit_length()
        known = self._by_bits[bits]
        if not known:
            self._by_bits[bits] = took_ns or 1
        elif took_ns > known:
            self._by_bits[bits] = known + (took_ns - known >> 4)  # slowly up: a page fault or a busy neighbour is not the model
        else:
            self._by_bits[bits] = known - (known - took_ns >> 2)

    def expect(self, elements: int) -> int:
        """Nanoseconds; for a size not seen yet, twice as much per doubling from the nearest smaller one. 0 when nothing is known."""
        bits = elements.bit_length()
        known = self._by_bits[bits]
        if known:
            return known
        for smaller in range(bits - 1, -1, -1):
            if self._by_bits[smaller]:
                return self._by_bits[smaller] << (bits - smaller)
        for larger in range(bits + 1, 65):
            if self._by_bits[larger]:
                return self._by_bits[larger]
        return LOOP_BOUND_NS  # nothing is known, not even from warm-up: a thread is the safe place


def with_batch_size(spec: ModelSpec, model: Model) -> ModelSpec:
    """The spec with the batch size that the model itself says, where it says one (`Model.batch_size`)."""
    size = getattr(model, "batch_size", 0)
    return replace(spec, batch=replace(spec.batch, max_size=size)) if size else spec


class LocalServable:
    """Serves one model of this process. Make it with `load` (blocking, any thread), then call everything else on one event loop."""

    def __init__(self, spec: ModelSpec, models: Sequence[Model], cost: Cost) -> None:
        spec = with_batch_size(spec, models[0])
        self._spec = spec
        self._models = list(models)
        self._free: SimpleQueue[Model] = SimpleQueue()
        for model in models:
            self._free.put(model)
        self.signatures: Mapping[str, Signature] = models[0].signatures
        self.operations = models[0].operations
        self.platform = spec.platform or models[0].platform
        self._cost = cost
        self._joins = spec.batch.max_size > 1
        self._threads: ThreadPoolExecutor | None = None
        self._in_threads = 0
        self._batcher: Batcher | None = None

    @staticmethod
    def load(spec: ModelSpec) -> "LocalServable":
        """Load the artifact with its runtime and warm it up. Raises ServingError with the reason when either fails."""
        cost = Cost()
        return LocalServable(spec, load_models(spec, cost.record), cost)

    def trouble(self) -> str:
        return ""

    def pending(self) -> int:
        return self._batcher.waiting if self._batcher is not None else 0

    async def infer(self, request: InferRequest) -> InferResponse:
        inputs = request.inputs
        elements = _elements(inputs)
        expected_ns = self._cost.expect(elements)
        signature = self.signatures[request.signature]
        if (
            expected_ns < LOOP_BOUND_NS
            and request.part is None  # who hands over parts may have to wait, which the loop must not
            and not self._in_threads
            and (expected_ns < DIRECT_BOUND_NS or not self._joins or not signature.batch)
        ):
            return self._run_inline(request, signature, elements)
        key, length = place(request, signature, self._spec.batch)
        if self._batcher is None:
            self._batcher = Batcher(self._spec.name, self._spec.batch, len(self._models), self._start)
        return await self._batcher.submit(request, key, length)

    async def stream(self, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
        """One part, or many of a model that streams."""
        if not getattr(self._models[0], "streams", False):
            yield await self.infer(request)
            return
        parts = Parts(self._spec.name)
        request.part = parts.put
        async with aclosing(parts.read(self.infer, request)) as responses:
            async for response in responses:
                yield response

    async def lost(self) -> str:
        """Never returns: a model of this process cannot die without it."""
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody resolves that future")

    async def drain(self, deadline: float) -> None:
        batcher = self._batcher
        if batcher is None:
            return
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await batcher.idle()
        except TimeoutError:
            batcher.fail_all(
                ServingError(Kind.UNAVAILABLE, f"model '{self._spec.name}' was unloaded while this request waited", what="model")
            )

    async def close(self) -> None:
        """Release the models and their threads; calls that still run end first, off the loop."""
        threads, self._threads = self._threads, None
        models, self._models = self._models, []
        self._free = SimpleQueue()

        def release() -> None:
            if threads is not None:
                threads.shutdown(wait=True)
            _close(models)

        await asyncio.get_running_loop().run_in_executor(None, release)

    def discard(self) -> None:
        """Release the models of a servable that nobody has called; blocking, needs no loop."""
        models, self._models = self._models, []
        _close(models)

    def _run_inline(self, request: InferRequest, signature: Signature, elements: int) -> InferResponse:
        inputs = request.inputs
        given = rows_of(inputs)
        if request.watch is not None:
            request.watch.started()
        begin = time.monotonic_ns()
        try:
            call = Call(inputs, request.operation, request.signature, request.outputs, request.parameters, request.record)
            outputs = self._models[0].predict(call)
        except BaseException as error:
            raise as_serving_error(error, self._spec.name) from error
        took = time.monotonic_ns() - begin
        self._cost.record(elements, took)
        size = batch_length(inputs, signature)
        rows = 1 if size is None else size
        response = InferResponse(outputs, Timings(0, 0, took, 0, rows, True, rows))
        if isinstance(outputs, Rows):
            check_rows(outputs, given, self._spec.name)
            outcome = outcome_of(response, self._spec.name)
            if isinstance(outcome, ServingError):
                raise outcome
        return response

    def _start(self, batch: Batch) -> None:
        elements = sum(_elements(member.request.inputs) for member in batch)
        if self._cost.expect(elements) < LOOP_BOUND_NS and not self._in_threads and batch[0].request.part is None:
            self._finish(batch, elements, self._execute(batch))
            return
        threads = self._executor()
        loop = asyncio.get_running_loop()
        self._in_threads += 1

        def done(outcomes: list[Outcome]) -> None:
            self._in_threads -= 1
            self._finish(batch, elements, outcomes)

        threads.submit(lambda: loop.call_soon_threadsafe(done, self._execute(batch)))

    def _executor(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(len(self._models), thread_name_prefix=f"model-{self._spec.name}")
        return self._threads

    def _execute(self, batch: Batch) -> list[Outcome]:
        """Run a batch with a model that nobody else uses now; there are as many as threads, so one is free when a thread is."""
        free = self._free
        model = free.get()

        def predict(inputs: Payload, request: InferRequest, outputs: tuple[str, ...]) -> Payload:
            return run(model, Call(inputs, request.operation, request.signature, outputs, request.parameters, request.record), request)

        try:
            return execute(batch, predict, self._spec.name)
        finally:
            free.put(model)

    def _finish(self, batch: Batch, elements: int, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, InferResponse):
                self._cost.record(elements, outcome.timings.infer_ns)
                break
        assert self._batcher is not None
        self._batcher.finished(batch, outcomes)


def load_models(spec: ModelSpec, record: Callable[[int, int], None]) -> list[Model]:
    """Load `spec.instances` models and warm them up; blocking. Raises ServingError with the reason when either fails."""
    runtime = find("runtimes", spec.runtime)
    models: list[Model] = []
    try:
        models.append(_made(runtime, spec))
        while len(models) < spec.instances:
            models.append(models[0] if models[0].concurrent else _made(runtime, spec))
        for model in dict.fromkeys(models):
            warm_up(model, spec, record)
    except BaseException:
        _close(models)
        raise
    return models


def _made(runtime: Callable[[ModelSpec], Model], spec: ModelSpec) -> Model:
    return sized(outer_model(runtime(inner_spec(spec)), spec), spec.batch)


def place(request: InferRequest, signature: Signature, policy: BatchPolicy) -> tuple[Hashable, int]:
    """With whom a request may run, and how much of a batch it takes: its batch key, or ALONE, and its length."""
    max_size = policy.max_size
    length = batch_length(request.inputs, signature) if max_size > 1 and request.part is None else None
    if length is None or length >= max_size:
        return ALONE, length or 1
    return batch_key(request, signature, padded=policy.pad), length


def _close(models: Sequence[Model]) -> None:
    """Close each once, also when one of them raises."""
    with ExitStack() as stack:
        for model in dict.fromkeys(models):
            stack.callback(model.close)


def _elements(inputs: Payload) -> int:
    if isinstance(inputs, Rows):
        return len(inputs.items)
    items = inputs.items
    return items[0].array.size if len(items) == 1 else sum(t.array.size for t in items)
