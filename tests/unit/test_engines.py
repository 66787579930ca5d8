"""The in-process engine: it loads in a thread, and what nobody waits for any more does not stay open."""

import asyncio
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import ModelSpec
from dragoman.core.plugins import find
from dragoman.engines import Context, Engines, LocalEngine
from dragoman.hosting.servable import Cost, LocalServable
from tests.fakes import FakeModel
from tests.packages import installed
from tests.servables import ask, run

RUNTIME = """
import threading
from tests.fakes import FakeModel

begun, go = threading.Event(), threading.Event()
models = []

def load(spec):
    begun.set()
    assert go.wait(10)
    models.append(FakeModel())
    return models[-1]
"""


class Stubborn(FakeModel):
    """Cannot be closed."""

    def close(self) -> None:
        super().close()
        raise OSError("no")


def test_a_model_is_loaded_without_blocking_the_loop(tmp_path: Path) -> None:
    """While the runtime works in its thread the loop turns; then the model answers, and is closed once however many instances it has."""

    async def test() -> None:
        with installed(tmp_path, "dragoman.runtimes", "held", RUNTIME) as package:
            opening = asyncio.ensure_future(Engines().open(ModelSpec("m", runtime="held", instances=3)))
            assert await asyncio.to_thread(package.begun.wait, 10)
            assert not opening.done()
            package.go.set()
            servable = await opening
            await servable.infer(ask())
            assert not package.models[0].closed
            await servable.close()
            assert [m.closed for m in package.models] == [True]

    run(test)


def test_a_load_that_is_cancelled_leaves_no_model_open(tmp_path: Path) -> None:
    """Its thread cannot be stopped, so what it brings is closed when it comes."""

    async def test() -> None:
        with installed(tmp_path, "dragoman.runtimes", "held", RUNTIME) as package:
            opening = asyncio.ensure_future(LocalEngine(Context()).open(ModelSpec("m", runtime="held")))
            assert await asyncio.to_thread(package.begun.wait, 10)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            package.go.set()
            await asyncio.get_running_loop().shutdown_default_executor()
            await asyncio.sleep(0)
            assert [m.closed for m in package.models] == [True]

    run(test)


def test_an_engine_or_runtime_that_does_not_exist_is_refused() -> None:
    """The reason names what there is."""

    async def test() -> None:
        for spec in (ModelSpec("m", engine="warp"), ModelSpec("m", runtime="caffe")):
            with pytest.raises(ServingError, match=r"is called .(warp|caffe).; there are") as caught:
                await Engines().open(spec)
            assert caught.value.kind is Kind.UNSUPPORTED
        assert find("engines", "local") is LocalEngine

    run(test)


def test_every_model_is_closed_even_if_one_cannot_be() -> None:
    """The error is raised after the last one is closed."""
    models = [Stubborn(), FakeModel(), Stubborn()]
    with pytest.raises(OSError, match="no"):
        LocalServable(ModelSpec("m"), models, Cost()).discard()
    assert all(m.closed for m in models)

    async def test() -> None:
        others = [Stubborn(), FakeModel()]
        with pytest.raises(OSError, match="no"):
            await LocalServable(ModelSpec("m"), others, Cost()).close()
        assert all(m.closed for m in others)

    run(test)
