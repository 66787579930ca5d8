"""The predictions of a whole worker: settings reach them, models of every format answer them, and a server that keeps nothing writes nothing."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.predictions import Progress
from dragoman.server.configuration import read
from dragoman.server.worker import Worker
from tests.models import build
from tests.servables import run
from tests.uploading import put

IRIS = {"X": [5.1, 3.5, 1.4, 0.2]}


@asynccontextmanager
async def worker(folder: Path, **settings: Any) -> AsyncGenerator[Worker, None]:
    """A worker with the iris model, without a port."""
    build.iris(folder / "iris.onnx")
    flags = {"targets": [str(folder / "iris.onnx")], "data_dir": str(folder / "data"), **settings}
    made = Worker(read(flags, environ={}))
    try:
        await made.load()
        yield made
    finally:
        await made.close()


def test_any_model_answers_predictions(tmp_path: Path) -> None:
    """An ONNX model: rows in, rows out, stored across a restart, uploads beside."""

    async def scenario() -> None:
        async with worker(tmp_path) as it:
            entry = it.gateway.find("iris")
            key = await it.predictions.submit(entry, [IRIS] * 50)
            view = await it.predictions.wait(key, 20)
            assert view.progress is Progress.SUCCEEDED, view.error
            assert view.outputs is not None
            assert len(view.outputs) == 50
            assert "label" in view.outputs[0]
            upload = await put(it.uploads, b"x", "a.txt")
            assert it.services.predictions is it.predictions
        async with worker(tmp_path) as it:
            again = (await it.predictions.get(key)).outputs
            assert again is not None
            assert [row["label"] for row in again] == [row["label"] for row in view.outputs]
            assert (await it.services.uploads.get(upload)).data == b"x"

    run(scenario)


def test_a_server_that_keeps_nothing_writes_nothing(tmp_path: Path) -> None:
    """Start, look after predictions, run one while the client waits, stop: the data directory is not even made."""

    async def scenario() -> None:
        async with worker(tmp_path) as it:
            await it.predictions.beat()
            view = await it.predictions.run(it.gateway.find("iris"), [IRIS])
            assert view.progress is Progress.SUCCEEDED
            with pytest.raises(ServingError, match="there is no prediction"):
                await it.predictions.get("0" * 32)
        assert not (tmp_path / "data").exists()

    run(scenario)


def test_settings_reach_the_predictions(tmp_path: Path) -> None:
    """Bounds on inputs and on waiting, and how long results are kept."""

    async def scenario() -> None:
        async with worker(tmp_path, max_inputs=2, max_file=10, result_expiration=0.1, upload_expiration=0.1) as it:
            entry = it.gateway.find("iris")
            with pytest.raises(ServingError, match="3 inputs for model 'iris' in one call, at most 2 are accepted"):
                await it.predictions.submit(entry, [IRIS] * 3)
            with pytest.raises(ServingError) as caught:
                await put(it.uploads, b"x" * 11, "a")
            assert caught.value.kind is Kind.TOO_LARGE
            key = await it.predictions.submit(entry, [IRIS])
            await it.predictions.wait(key, 20)
            with pytest.raises(ServingError, match="there is no prediction"):
                await _until_unknown(it, key)

    run(scenario)


def test_a_bad_input_is_a_failed_prediction(tmp_path: Path) -> None:
    """What does not fit the tensors of the model."""

    async def scenario() -> None:
        async with worker(tmp_path) as it:
            view = await it.predictions.run(it.gateway.find("iris"), [{"X": ["a", "b", "c", "d"]}])
            assert (view.progress, view.error_kind) == (Progress.FAILED, "invalid_input")

    run(scenario)


async def _until_unknown(it: Worker, key: str) -> None:
    async with asyncio.timeout(10):
        while True:
            await it.predictions.get(key)
            await asyncio.sleep(0.01)
