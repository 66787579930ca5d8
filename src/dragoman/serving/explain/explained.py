"""The servable around a model that is explained: everything but `explain` goes straight to the model. Made by server/loading.py.

SHAP works in a thread of its own, one request after the other, and asks the model through its own servable, in batches between which other
requests get their turn: so it explains models of every runtime, wherever they live, and predict never waits for a whole explanation.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Coroutine, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.model import InferRequest, InferResponse, ModelSpec, Servable, Timings
from dragoman.core.plugins import missing
from dragoman.core.tensors import Array, Rows, Signature, Tensors
from dragoman.serving.explain.answers import chosen_output, numbers
from dragoman.serving.explain.background import read_background
from dragoman.serving.explain.options import MOST_EXACT, Explainer, of_spec
from dragoman.serving.explain.table import Table, table_of
from dragoman.serving.fanout import fan_out, new_group

log = logging.getLogger("dragoman.explain")

EXPLAIN = "explain"
_CHUNK = 1024
"""Data points that a model is asked at once."""
_MOST_ASKED = 2_000_000
"""Data points that one request may make the model answer."""


async def explained(spec: ModelSpec, inner: Servable) -> Servable:
    """The servable that also explains; its model is loaded. Raises ServingError when it cannot be explained, and leaves it to the caller.

    Without the package of the extra it is served all the same, and says so when it is asked to explain.
    """
    where = f"the explainer of model '{spec.name}'"
    explainer = of_spec(spec.explainer, where)
    if EXPLAIN in inner.operations:
        raise invalid(f"{where} has nothing to do: the model explains itself; leave out --explain {spec.name}=...")
    signature = inner.signatures[""]
    if signature.whole:
        raise invalid(f"{where} cannot be used: the model takes whole requests; give its class a method explain")
    background = await asyncio.to_thread(read_background, spec, signature, explainer.background, explainer.rows)
    table = table_of(background, signature, spec.name)
    features = len(table.names)
    if explainer.method == "exact" and features > MOST_EXACT:
        raise invalid(f"{where}: exact takes at most {MOST_EXACT} features, and it has {features}; use permutation")
    made = Explained(spec, inner, table, explainer)
    try:
        await made.prepare(background.inputs)
    except BaseException:
        made.release()
        raise
    return made


@dataclass(slots=True)
class _Job:
    """One request in the thread. `stopped` is set when nobody waits for it any more."""

    request: InferRequest
    count: int
    loop: asyncio.AbstractEventLoop
    stopped: threading.Event
    asked: "Future[Array] | None" = None


class Explained:
    """Delegates to `inner`; owns the thread and the explainer."""

    def __init__(self, spec: ModelSpec, inner: Servable, table: Table, explainer: Explainer) -> None:
        self._spec = spec
        self._inner = inner
        self._table = table
        self._explainer = explainer
        self._shap: Any = None
        self._missing: ImportError | None = None
        self._output = explainer.output
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1, f"explain-{spec.name}")
        self._now: tuple[_Job, int] | None = None
        """What the thread explains: a request and the index of a data point."""
        self.signatures: Mapping[str, Signature] = inner.signatures
        self.operations = inner.operations | {EXPLAIN}
        self.platform = inner.platform

    async def prepare(self, background: Tensors | Rows) -> None:
        """Import SHAP, and ask the model once what it answers, so that what cannot be explained is told when it is loaded."""
        try:
            self._shap = await asyncio.get_running_loop().run_in_executor(self._thread, self._build)
        except ImportError as error:
            self._missing = error
            log.warning("%s", self._lack(error).message)
            return
        last = np.full((1, len(self._table.names)), self._table.size)
        answer = await self._answer(self._table.mixed(background, 0, last), InferRequest(background))
        self._output = chosen_output(answer, self._output, self._spec.name)
        numbers(answer, self._output, 1, self._spec.name)

    def infer(self, request: InferRequest) -> Coroutine[Any, Any, InferResponse]:
        return self._explain(request) if request.operation == EXPLAIN else self._inner.infer(request)

    async def stream(self, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
        if request.operation == EXPLAIN:
            yield await self._explain(request)
            return
        async for response in self._inner.stream(request):
            yield response

    async def lost(self) -> str:
        return await self._inner.lost()

    async def drain(self, deadline: float) -> None:
        await self._inner.drain(deadline)

    async def close(self) -> None:
        self.release()
        await self._inner.close()

    def release(self) -> None:
        """Give the thread back; what still runs in it ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def pending(self) -> int:
        return self._inner.pending() + self._waiting

    def trouble(self) -> str:
        return self._inner.trouble()

    # --- one request, on the loop ---

    async def _explain(self, request: InferRequest) -> InferResponse:
        name = self._spec.name
        if self._missing is not None:
            raise self._lack(self._missing) from self._missing
        count = self._table.count(request.inputs)
        asked = count * self._explainer.masks(len(self._table.names)) * self._table.size
        if asked > _MOST_ASKED:
            most = max(1, _MOST_ASKED // (asked // count))
            raise ServingError(
                Kind.TOO_LARGE, f"{count} data points to explain for model '{name}' in one call, at most {most} are accepted"
            )
        if self._waiting >= (self._spec.batch.max_queue or self._waiting + 1):
            raise ServingError(Kind.OVERLOADED, f"model '{name}' has {self._waiting} requests for explanations already", retry_after_s=1.0)
        if asyncio.current_task() is None:
            await asyncio.sleep(0)  # the HTTP server runs a request's first step without a task; a time-out needs one
        loop = asyncio.get_running_loop()
        job = _Job(request, count, loop, threading.Event())
        begin = time.monotonic_ns()
        self._waiting += 1
        try:
            async with asyncio.timeout(None if request.deadline == float("inf") else request.deadline - time.monotonic()):
                rows = await loop.run_in_executor(self._thread, self._work, job)
        except TimeoutError:
            raise ServingError(Kind.TIMEOUT, f"model '{name}' was not explained within the request's time-out") from None
        finally:
            self._waiting -= 1
            job.stopped.set()
            if job.asked is not None:
                job.asked.cancel()
        return InferResponse(Rows(rows), Timings(0, 0, time.monotonic_ns() - begin, 0, count, True, count))

    async def _answer(self, inputs: Tensors | Rows, template: InferRequest) -> Tensors | Rows:
        """What the model says of some data points."""
        spec, signature = self._spec, self.signatures[""]
        part = InferRequest(
            inputs,
            parameters=template.parameters,
            id=template.id,
            deadline=template.deadline,
            priority=template.priority,
            group=new_group(),
            caller=template.caller,
            dialect=EXPLAIN,
        )
        if isinstance(inputs, Tensors):
            return (await self._inner.infer(part)).outputs
        return Rows(await fan_out(self._inner.infer, spec, signature, inputs.items, part, patient=True))

    async def _numbers(self, job: _Job, index: int, places: Array) -> Array:
        """The output that is explained for each line of places."""
        chunk = min(_CHUNK, self._spec.batch.max_size) if self._spec.batch.refuse_larger else _CHUNK
        found = []
        for start in range(0, len(places), chunk):
            piece = places[start : start + chunk]
            answer = await self._answer(self._table.mixed(job.request.inputs, index, piece), job.request)
            found.append(numbers(answer, self._output, len(piece), self._spec.name))
        return np.concatenate(found)

    def _lack(self, error: ImportError) -> ServingError:
        lack = missing("explain", "shap", error)
        return ServingError(
            Kind.UNSUPPORTED, f"model '{self._spec.name}' is not explained although --explain asks for it: {lack.message}", what="operation"
        )

    # --- in the thread ---

    def _build(self) -> Any:
        import numba

        # What SHAP would compile takes ten seconds of each worker, and is a few loops over features that are quick as they are. numba decides
        # when a function is defined, so other packages that use it are compiled as ever.
        before, numba.config.DISABLE_JIT = numba.config.DISABLE_JIT, True
        try:
            import shap
        finally:
            numba.config.DISABLE_JIT = before
        size, features = self._table.size, len(self._table.names)
        places = np.repeat(np.arange(size, dtype=np.float64)[:, np.newaxis], features, axis=1)
        masker = shap.maskers.Independent(places, max_samples=size)
        exact = self._explainer.method_for(features) == "exact"
        return (shap.explainers.Exact if exact else shap.explainers.Permutation)(self._ask, masker)

    def _ask(self, places: Array) -> Array:
        """What SHAP takes for the model."""
        assert self._now is not None
        job, index = self._now
        if job.stopped.is_set():
            raise CancelledError
        job.asked = asyncio.run_coroutine_threadsafe(self._numbers(job, index, np.asarray(places).astype(np.intp)), job.loop)
        if job.stopped.is_set():
            job.asked.cancel()
        return job.asked.result()

    def _work(self, job: _Job) -> list[dict[str, Any]]:
        return [self._one(job, index) for index in range(job.count)]

    def _one(self, job: _Job, index: int) -> dict[str, Any]:
        features = len(self._table.names)
        self._now = job, index
        try:
            made = self._shap(
                np.full((1, features), float(self._table.size)), max_evals=self._explainer.masks(features), silent=True, batch_size="auto"
            )
        except ServingError:
            raise
        except CancelledError:  # by whoever asked, who does not listen any more, or by the model's end
            raise ServingError(Kind.CANCELLED, f"the explanation by model '{self._spec.name}' was given up") from None
        except Exception as error:
            log.exception("model '%s' could not be explained", self._spec.name)
            raise ServingError(Kind.MODEL_FAILED, f"model '{self._spec.name}' could not be explained; the server's log says why") from error
        finally:
            self._now = None
        values, base = np.asarray(made.values)[0], np.asarray(made.base_values)[0]
        return {
            "values": values.tolist(),
            "base_values": base.tolist(),
            "prediction": (values.sum(axis=0) + base).tolist(),
            "features": list(self._table.names),
            "output": self._output,
        }
