"""The same model in the server's process and in one of its own: what the way there costs, for a small tensor and for a large one.

Both engines are called as the gateway calls them, without HTTP, in turns within one run.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.models import Models
from benchmarks.options import Options
from benchmarks.processes import BenchmarkError
from benchmarks.results import Section, Table
from dragoman.core.model import InferRequest, ModelSpec, Servable
from dragoman.core.tensors import FP32, Tensor, Tensors
from dragoman.engines import Engines
from dragoman.server.loop import new_event_loop

CLIENTS = 32
ENGINES = ("local", "process")


def run(models: Models, options: Options) -> Section:
    cases = (
        ("4 floats", models.iris, lambda: np.array([[5.0, 3.4, 1.5, 0.2]], np.float32), "X"),
        ("600 kB", models.image_mean, lambda: np.ones((1, 3, 224, 224), np.float32), "image"),
    )
    rows = []
    for what, path, make, name in cases:
        for clients in (1, CLIENTS):
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                taken = runner.run(_compare(path, name, make, clients, options))
            local_us, process_us = (median(taken[engine]) for engine in ENGINES)
            print(f"  {what}, {clients} at a time: {local_us:.0f} and {process_us:.0f} us", flush=True)
            extra_us = process_us - local_us
            rows.append([what, str(clients), f"{local_us:.0f}", f"{process_us:.0f}", f"{extra_us:.0f}", f"**{process_us / local_us:.1f}**"])
    head = ("input", "at a time", "in the server us", "own process us", "more us", "ratio")
    return Section("engines", "engines: one call in the server's process and in a process of its own", [Table(head, rows)])


async def _compare(
    path: Path, name: str, make: Callable[[], "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"], clients: int, options: Options
) -> dict[str, list[float]]:
    """Microseconds per call with each engine, in turns."""
    engines = Engines()
    opened: dict[str, Servable] = {}
    try:
        for engine in ENGINES:
            opened[engine] = await engines.open(ModelSpec("m", runtime="onnx", artifact=str(path), engine=engine, arguments={"threads": 1}))
        taken: dict[str, list[float]] = {engine: [] for engine in ENGINES}
        for _ in range(options.pairs):
            for engine, servable in opened.items():
                taken[engine].append(await _call(servable, name, make, clients, options.seconds / 2))
        return taken
    finally:
        for servable in opened.values():
            await servable.close()
        await engines.close()


async def _call(
    servable: Servable, name: str, make: Callable[[], "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"], clients: int, seconds: float
) -> float:
    """Call for some seconds; microseconds per call."""
    until = time.perf_counter() + seconds
    calls = 0

    async def client() -> None:
        nonlocal calls
        array = make()
        while time.perf_counter() < until:
            response = await servable.infer(InferRequest(Tensors([Tensor(name, FP32, array)])))
            if not isinstance(response.outputs, Tensors) or not np.isfinite(response.outputs.items[-1].array).all():
                raise BenchmarkError("the model answered nonsense")
            calls += 1

    begin = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return (time.perf_counter() - begin) / calls * 1e6
