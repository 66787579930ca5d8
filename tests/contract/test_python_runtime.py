"""Python models as they are served: in this process and in one of their own, our own API and Tungstenkit's, with the same results."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import BatchPolicy, InferRequest, ModelSpec, Servable
from dragoman.core.rows import checked
from dragoman.core.tensors import Blob, Rows
from dragoman.engines import Engines
from dragoman.server.eager import Stepped
from dragoman.serving.gateway import Entry, Gateway
from dragoman.serving.meters import Meters
from tests.models.snippets import same_process, write

OURS = """
import os, time
from pathlib import Path
from typing import Iterator, TypedDict
import dragoman
from beside import suffix

WORD = Path("word.txt").read_text()

class Out(TypedDict):
    text: str
    batch: list[str]
    copy: bytes

class Model:
    def setup(self):
        print("setting up")
        Path("setups.txt").open("a").close()

    @dragoman.batched(max_size=4)
    def predict(self, text: list[str], file: list[bytes], times: int = 2) -> list[Out]:
        while "wait" in text and not Path("go").exists():
            time.sleep(0.005)
        if "boom" in text:
            raise ValueError("boom happened")
        if "exit" in text:
            raise SystemExit(3)
        if "few" in text:
            return []
        return [{"text": WORD + t * times + suffix(), "batch": text, "copy": f} for t, f in zip(text, file)]
"""
TUNGSTEN = """
import time
from pathlib import Path
from typing import List
from tungstenkit import BaseIO, Binary, Field, Option, define_model
from beside import suffix

WORD = Path("word.txt").read_text()

class In(BaseIO):
    text: str = Field(max_length=9)
    file: Binary
    times: int = Option(2, ge=1)

class Out(BaseIO):
    text: str
    batch: List[str]
    copy_: Binary

class Shown(BaseIO):
    size: int

@define_model(input=In, output=Out, demo_output=Shown, batch_size=4)
class Model:
    def setup(self):
        print("setting up")

    def predict(self, inputs):
        text = [i.text for i in inputs]
        while "wait" in text and not Path("go").exists():
            time.sleep(0.005)
        if "boom" in text:
            raise ValueError("boom happened")
        if "exit" in text:
            raise SystemExit(3)
        if "few" in text:
            return []
        outputs = []
        for i in inputs:
            content = i.file.path.read_bytes()
            i.file.path.unlink()
            Path(f"out{len(outputs)}.bin").write_bytes(content)
            outputs.append(Out(text=WORD + i.text * i.times + suffix(), batch=text, copy_=Binary.from_path(f"out{len(outputs)}.bin")))
        return outputs

    def predict_demo(self, inputs):
        outputs = self.predict(inputs)
        return outputs, [{"size": len(o.text)} for o in outputs]
"""
STREAM = """
import time
from pathlib import Path
from typing import Iterator

def predict(n: int, hold: bool = False) -> Iterator[str]:
    try:
        for index in range(n):
            if index == 2:
                while hold:
                    time.sleep(0.005)
                if n == 13:
                    raise ValueError("boom happened")
            yield str(index)
    finally:
        Path("ended").touch()
"""


class Place:
    """A model's folder and how it is served."""

    def __init__(self, folder: Path, engine: str) -> None:
        self.folder = folder
        self.engine = engine

    def write(self, source: str, name: str) -> None:
        write(self.folder, source, name)
        write(self.folder, "def suffix():\n    return '.'\n", "beside.py")
        (self.folder / "word.txt").write_text("w:")

    @asynccontextmanager
    async def serving(self, **fields: Any) -> AsyncIterator[Servable]:
        engines = Engines()
        try:
            servable = await engines.open(ModelSpec("m", runtime="python", artifact=str(self.folder), engine=self.engine, **fields))
            try:
                yield servable
            finally:
                await servable.close()
        finally:
            await engines.close()


@pytest.fixture(params=["local", "process"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with same_process():
        yield Place(tmp_path / "model", request.param)


@pytest.fixture(params=["ours", "tungsten"])
def model(request: pytest.FixtureRequest, place: Place) -> Place:
    """The same model, written twice."""
    if request.param == "ours":
        place.write(OURS, "model.py")
    else:
        place.write(TUNGSTEN, "tungsten_model.py")
    return place


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(whole())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def asking(servable: Servable, *rows: dict[str, Any], operation: str = "predict", **fields: Any) -> InferRequest:
    signature = "@demo" if operation == "demo" else ""
    given = [{"file": Blob(b"f"), **row} for row in rows]
    return InferRequest(Rows(checked(given, servable.signatures[signature], "m")), operation, signature, **fields)


async def ask(servable: Servable, *rows: dict[str, Any], **fields: Any) -> list[Any]:
    response = await servable.infer(asking(servable, *rows, **fields))
    assert isinstance(response.outputs, Rows)
    return response.outputs.items


def test_the_models_folder_is_where_it_runs(model: Place) -> None:
    """Tungsten requirement T17: files and modules beside it are found, at import and later. T8: fields by their declared names."""

    async def test() -> None:
        async with model.serving() as servable:
            (row,) = await ask(servable, {"text": "a", "times": "3", "file": Blob(b"content", "text/csv")})
            assert row["text"] == "w:aaa."
            copy = row.get("copy") or row["copy_"]
            assert copy.data == b"content"

    run(test)


def test_requests_that_wait_share_batches(model: Place) -> None:
    """As many as the author allows, with equal options only, whatever the server's own batch size: Tungsten requirements T3, T20 and T21."""

    async def burst(servable: Servable) -> list[Any]:
        """One request that keeps the model busy while eight others come; their rows, in the order in which they were sent."""
        (model.folder / "go").unlink(missing_ok=True)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(ask(servable, {"text": "wait"}))
            others = [group.create_task(ask(servable, {"text": f"t{i}", "times": 3 if i == 1 else 2})) for i in range(8)]
            await asyncio.sleep(0)  # all are sent
            (model.folder / "go").touch()
        return [task.result()[0] for task in (first, *others)]

    async def test() -> None:
        async with model.serving(batch=BatchPolicy(max_size=32)) as servable:
            sizes = {0}
            while max(sizes) < 4:  # the model may be quicker than the way to it
                rows = await burst(servable)
                sizes = {len(row["batch"]) for row in rows}
                assert [row["text"] for row in rows[1:]] == [f"w:{f't{i}' * (3 if i == 1 else 2)}." for i in range(8)]
                assert rows[2]["batch"] == ["t1"]
                assert max(sizes) <= 4

    run(test)


def test_a_long_call_is_cut(model: Place) -> None:
    """Rows of one call, with mixed options, come back in order: through the gateway, and from a model that is handed them all."""

    async def test() -> None:
        async with model.serving() as servable:
            rows = checked([{"text": str(i), "file": Blob(b"f"), "times": 1 + i % 2} for i in range(10)], servable.signatures[""], "m")
            direct = await ask(servable, *rows)
            gateway = Gateway(Meters())
            fanned = await gateway.infer_rows(Entry(ModelSpec("m"), servable), rows)
            for answered in (direct, fanned):
                assert [row["text"] for row in answered] == [f"w:{str(i) * (1 + i % 2)}." for i in range(10)]
                assert all(len(row["batch"]) <= 4 for row in answered)

    run(test)


def test_a_long_call_needs_no_task(model: Place) -> None:
    """The HTTP server runs the first step of a request outside of any task; rows go apart all the same."""

    async def test() -> None:
        async with model.serving() as servable:
            rows = checked([{"text": str(i), "file": Blob(b"f")} for i in range(3)], servable.signatures[""], "m")
            entry, gateway = Entry(ModelSpec("m"), servable), Gateway(Meters())
            answered: list[Any] = []

            async def ask_all() -> None:
                answered.extend(await gateway.infer_rows(entry, rows))

            loop = asyncio.get_running_loop()
            ended: asyncio.Future[BaseException | None] = loop.create_future()
            stepped = Stepped(ask_all(), ended.set_result, loop)
            loop.call_soon(stepped.go_on)  # from a callback of the loop there is no current task
            assert await ended is None
            assert [row["text"] for row in answered] == ["w:00.", "w:11.", "w:22."]

    run(test)


WRONG = [("boom", "ValueError: boom happened"), ("exit", "SystemExit: 3"), ("few", "0 outputs for 1 input")]


@pytest.mark.parametrize(("text", "words"), WRONG)
def test_a_failure_is_told_and_forgotten(text: str, words: str, model: Place) -> None:
    """Tungsten requirements T22 and T32: type and message at once, and the model goes on."""

    async def test() -> None:
        async with model.serving() as servable:
            with pytest.raises(ServingError) as caught:
                await ask(servable, {"text": text})
            assert caught.value.kind is Kind.MODEL_FAILED
            assert words in caught.value.message
            assert "Traceback" not in caught.value.message
            assert (await ask(servable, {"text": "a"}))[0]["text"] == "w:aa."

    run(test)


MISSING = [
    "import no_such_package\n",
    "class Model:\n    def setup(self): import no_such_package\n    def predict(self, x: int) -> int: ...\n",
]


@pytest.mark.parametrize("source", MISSING, ids=["imported by the file", "imported by setup"])
@pytest.mark.parametrize("listed", ["requirements.txt", ""])
def test_a_missing_package_that_is_listed(source: str, listed: str, place: Place) -> None:
    """The reason says how the list beside the model comes to count; without a list there is nothing to say."""
    place.write(source, "tungsten_model.py")
    if listed:
        (place.folder / listed).write_text("no_such_package\n")

    async def test() -> None:
        with pytest.raises(ServingError, match="ModuleNotFoundError: No module named 'no_such_package'") as caught:
            async with place.serving():
                pass
        assert ("--environments always" in caught.value.message) is bool(listed)
        assert ("python_packages" in caught.value.message) is bool(listed)

    run(test)


def test_demo(place: Place) -> None:
    """Tungsten requirement T26: outputs and demo outputs side by side, described by a signature of its own."""
    place.write(TUNGSTEN, "tungsten_model.py")

    async def test() -> None:
        async with place.serving() as servable:
            assert set(servable.operations) == {"predict", "demo"}
            schema = servable.signatures["@demo"].output_schema
            assert schema is not None
            assert schema["properties"]["demo_output"]["properties"] == {"size": {"type": "integer"}}
            assert dict(servable.signatures["@demo"].output_files) == {"output.copy_": "binary"}
            (row,) = await ask(servable, {"text": "a"}, operation="demo")
            assert (row["output"]["text"], row["demo_output"]) == ("w:aa.", {"size": 5})

    run(test)


def test_described_by_its_classes(place: Place) -> None:
    """Tungsten requirement T29: schemas without references; the same fields as tensors, and where files are."""
    place.write(TUNGSTEN, "tungsten_model.py")

    async def test() -> None:
        async with place.serving() as servable:
            signature = servable.signatures[""]
            assert signature.input_schema is not None
            assert signature.input_schema["properties"]["text"] == {"type": "string", "maxLength": 9, "description": "Text"}
            assert signature.input_schema["properties"]["file"]["format"] == "uri"
            assert signature.options == ("times",)
            assert [(s.name, s.datatype and s.datatype.name, s.optional) for s in signature.inputs] == [
                ("text", "BYTES", False), ("file", "BYTES", False), ("times", "INT64", True),
            ]  # fmt: skip
            assert dict(signature.input_files) == {"file": "binary"}
            assert dict(signature.output_files) == {"copy_": "binary"}

    run(test)


def test_a_setup_that_fails(place: Place) -> None:
    """Tungsten requirement T28: the model does not load, and the reason is its own."""
    place.write("class M:\n    def setup(self):\n        raise OSError('no weights')\n    def predict(self, x): ...", "model.py")

    async def test() -> None:
        with pytest.raises(ServingError, match="OSError: no weights") as caught:
            async with place.serving():
                raise AssertionError
        assert caught.value.kind is Kind.MODEL_FAILED

    run(test)


async def parts_of(servable: Servable, row: dict[str, Any]) -> list[str]:
    request = InferRequest(Rows(checked([row], servable.signatures[""], "m")))
    outputs = [part.outputs async for part in servable.stream(request)]
    return [row["output"] for rows in outputs if isinstance(rows, Rows) for row in rows.items]


def test_parts_come_as_they_are_made(place: Place) -> None:
    """The first ones while the model still works on the rest; who leaves ends the generator; the model is free then."""
    place.write(STREAM, "model.py")

    async def test() -> None:
        async with place.serving() as servable:
            assert await parts_of(servable, {"n": 100}) == [str(i) for i in range(100)]
            assert await parts_of(servable, {"n": 0}) == [""]
            (place.folder / "ended").unlink()
            async with aclosing(servable.stream(InferRequest(Rows([{"n": 5000, "hold": False}])))) as parts:
                assert isinstance((first := await anext(parts)).outputs, Rows)
                assert first.outputs.items == [{"output": "0"}]
            await until((place.folder / "ended").exists)
            assert await parts_of(servable, {"n": 2}) == ["0", "1"]

    run(test)


def test_a_stream_that_fails(place: Place) -> None:
    """Raises at the place where the model did, after the parts that had come."""
    place.write(STREAM, "model.py")

    async def test() -> None:
        async with place.serving() as servable:
            async with aclosing(servable.stream(InferRequest(Rows([{"n": 13, "hold": False}])))) as parts:
                assert (await anext(parts)).outputs == Rows([{"output": "0"}])
                assert (await anext(parts)).outputs == Rows([{"output": "1"}])
                with pytest.raises(ServingError, match="ValueError: boom happened") as caught:
                    await anext(parts)
            assert caught.value.kind is Kind.MODEL_FAILED
            assert await parts_of(servable, {"n": 2}) == ["0", "1"]

    run(test)


def test_a_stream_is_broken_off(tmp_path: Path) -> None:
    """In a process of its own, also between two parts, when its reader leaves."""
    place = Place(tmp_path / "model", "process")
    place.write(STREAM, "model.py")

    async def test() -> None:
        async with place.serving() as servable:
            async with aclosing(servable.stream(InferRequest(Rows([{"n": 9, "hold": True}])))) as parts:
                for number in ("0", "1"):  # the second one, too, while the model has not come to the third
                    assert (await anext(parts)).outputs == Rows([{"output": number}])
            await until((place.folder / "ended").exists)
            assert await parts_of(servable, {"n": 2}) == ["0", "1"]

    run(test)
