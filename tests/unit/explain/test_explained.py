"""A model that is explained: right numbers for every form, limits, cancelling, and what happens without the extra."""

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import BatchPolicy, InferRequest, InferResponse, ModelSpec, Timings
from dragoman.core.tensors import BF16, BYTES, FP32, FP64, INT64, Array, Blob, Form, Rows, Signature, Tensor, Tensors, TensorSpec, Value
from dragoman.serving.explain.explained import explained
from tests.servables import FakeServable, run, settle

Work = Callable[[Tensors | Rows], Tensors | Rows]
MATRIX = Signature(inputs=(TensorSpec("X", FP32, (-1, 3)),), outputs=(TensorSpec("y", FP64, (-1,)),), batch=True)
WEIGHTS = np.array([1.0, -2.0, 0.5])
BACKGROUND = np.array([[0, 0, 0], [2, 2, 2], [1, 4, 1]])
USUAL = BACKGROUND.mean(axis=0)


class Inner(FakeServable):
    """Answers by a function; remembers how many data points it was asked at once."""

    def __init__(self, work: Work, signature: Signature = MATRIX, spec: ModelSpec | None = None, gate: asyncio.Event | None = None) -> None:
        super().__init__(spec or ModelSpec("m"), None, {"": signature})
        self.operations = frozenset({"predict"})
        self.work = work
        self.sizes: list[int] = []
        self.shut: asyncio.Event | None = gate

    async def infer(self, request: InferRequest) -> InferResponse:
        if self.shut is not None:
            await self.shut.wait()
        await asyncio.sleep(0)
        inputs = request.inputs
        self.sizes.append(len(inputs.items[0].array) if isinstance(inputs, Tensors) else len(inputs.items))
        return InferResponse(self.work(inputs), Timings())

    def pending(self) -> int:
        return 0


def linear(inputs: Tensors | Rows) -> Tensors:
    assert isinstance(inputs, Tensors)
    return Tensors([Tensor("y", FP64, inputs.items[0].array @ WEIGHTS)])


def spec_of(tmp_path: Path, background: Any = None, **fields: Any) -> ModelSpec:
    """A spec whose background is in a file; its method is exact unless `explainer` says otherwise."""
    path = tmp_path / "b.json"
    path.write_text(str(BACKGROUND.tolist()) if background is None else background)
    explainer = {"method": "exact", "background": str(path), **fields.pop("explainer", {})}
    return ModelSpec("m", explainer=explainer, **fields)


def point(*values: float) -> Tensors:
    return Tensors([Tensor("X", FP32, np.array(values, "f4").reshape(-1, 3))])


async def ask(servable: Any, inputs: Tensors | Rows, **fields: Any) -> list[Any]:
    response = await servable.infer(InferRequest(inputs, "explain", **fields))
    assert isinstance(response.outputs, Rows)
    assert response.timings.rows == len(response.outputs.items)
    return response.outputs.items


def refusal(tmp_path: Path, work: Work, signature: Signature = MATRIX, background: Any = None, **fields: Any) -> ServingError:
    """How a model is refused when it is loaded."""
    caught: list[ServingError] = []

    async def scenario() -> None:
        spec = spec_of(tmp_path, background, **fields)
        with pytest.raises(ServingError) as error:
            await explained(spec, Inner(work, signature, spec))
        caught.append(error.value)

    run(scenario)
    return caught[0]


@pytest.mark.parametrize("method", ["exact", "permutation", "auto"])
def test_a_linear_model(tmp_path: Path, method: str) -> None:
    """Each feature's share is its weight times its distance from what is usual; with the base they add up to the prediction."""

    async def scenario() -> None:
        inner = Inner(linear)
        servable = await explained(spec_of(tmp_path, explainer={"method": method}), inner)
        assert servable.operations == {"predict", "explain"}
        points = np.array([[1, 2, 3], [4, 0, -1]], float)
        answers = await ask(servable, point(*points.ravel()))
        for answer, given in zip(answers, points, strict=True):
            np.testing.assert_allclose(answer["values"], WEIGHTS * (given - USUAL), atol=1e-5)
            np.testing.assert_allclose(answer["base_values"], WEIGHTS @ USUAL, atol=1e-5)
            np.testing.assert_allclose(answer["prediction"], WEIGHTS @ given, atol=1e-5)
            assert (answer["features"], answer["output"]) == (["X[0]", "X[1]", "X[2]"], "y")
        await servable.close()
        assert inner.closed == 1

    run(scenario)


def test_probabilities_of_classes(tmp_path: Path) -> None:
    """One share per class; fractions are explained rather than labels, unless an option names these. A column of one is a number."""
    outputs = (TensorSpec("label", INT64, (-1,)), TensorSpec("p", FP32, (-1, 2)))

    def work(inputs: Tensors | Rows) -> Tensors:
        assert isinstance(inputs, Tensors)
        x = inputs.items[0].array
        return Tensors([Tensor("label", INT64, x[:, :1].astype("i8")), Tensor("p", FP32, x[:, :2] * [1, 10])])

    async def scenario() -> None:
        signature = Signature(inputs=MATRIX.inputs, outputs=outputs, batch=True)
        servable = await explained(spec_of(tmp_path), Inner(work, signature))
        (answer,) = await ask(servable, point(5, 7, 9))
        assert answer["output"] == "p"
        np.testing.assert_allclose(answer["values"], [[4, 0], [0, 50], [0, 0]], atol=1e-5)
        np.testing.assert_allclose(answer["base_values"], [1, 20], atol=1e-5)
        await servable.close()
        servable = await explained(spec_of(tmp_path, explainer={"output": "label"}), Inner(work, signature))
        (answer,) = await ask(servable, point(5, 7, 9))
        np.testing.assert_allclose(answer["values"], [4, 0, 0], atol=1e-5)
        await servable.close()

    run(scenario)


def test_columns_of_numbers_and_texts(tmp_path: Path) -> None:
    """A feature may be of any type: what matters is which value it has, and the names are those of the model."""
    signature = Signature(inputs=(TensorSpec("age", FP64, (-1, 1)), TensorSpec("city", BYTES, (-1,))), batch=True)

    def work(inputs: Tensors | Rows) -> Tensors:
        assert isinstance(inputs, Tensors)
        age, city = (t.array for t in inputs.items)
        assert (age.ndim, city.ndim, city.dtype.kind) == (2, 1, "O")
        return Tensors([Tensor("y", FP64, age[:, 0] + np.array([100.0 * (each == b"Rome") for each in city]))])

    async def scenario() -> None:
        servable = await explained(spec_of(tmp_path, '[[30, "Oslo"], [50, "Rome"]]'), Inner(work, signature))
        cities: Array = np.array([b"Rome"], object)
        inputs = Tensors([Tensor("city", BYTES, cities), Tensor("age", FP64, np.array([[44.5]]))])
        (answer,) = await ask(servable, inputs)
        assert answer["features"] == ["age", "city"]
        np.testing.assert_allclose(answer["values"], [4.5, 50])
        np.testing.assert_allclose(answer["base_values"], 90)
        await servable.close()

    run(scenario)


def test_a_model_of_rows(tmp_path: Path) -> None:
    """Asked row by row as its batching wants it; fields that are left out stay so. Answers may be objects."""
    fields = {"n": {"type": "number"}, "t": {"type": "string"}}
    signature = Signature(Form.ROWS, input_schema={"type": "object", "properties": fields, "required": ["n"]})

    def work(inputs: Tensors | Rows) -> Rows:
        assert isinstance(inputs, Rows)
        return Rows([{"name": "x", "score": row["n"] + (10 if "t" in row else 0)} for row in inputs.items])

    async def scenario() -> None:
        inner = Inner(work, signature)
        servable = await explained(spec_of(tmp_path, '[{"n": 1}, {"n": 3}]'), inner)
        (answer,) = await ask(servable, Rows([{"n": 7, "t": "x"}]))
        assert answer == {
            "values": [5.0, 10.0],
            "base_values": 2.0,
            "prediction": 17.0,
            "features": ["n", "t"],
            "output": "score",
        }
        assert set(inner.sizes) == {1}
        await servable.close()

    run(scenario)


def test_names_of_a_table(tmp_path: Path) -> None:
    """The columns of the background name the features of a matrix."""

    async def scenario() -> None:
        servable = await explained(spec_of(tmp_path, '[{"a": 1, "b": 2, "c": 3}]'), Inner(linear))
        (answer,) = await ask(servable, point(1, 2, 3))
        assert answer["features"] == ["a", "b", "c"]
        assert answer["values"] == [0, 0, 0]
        await servable.close()

    run(scenario)


def test_brain_floats(tmp_path: Path) -> None:
    """BF16 is bits: mixed as they are, and read as what they mean."""
    signature = Signature(inputs=(TensorSpec("X", FP32, (-1, 1)),), batch=True)

    def work(inputs: Tensors | Rows) -> Tensors:
        assert isinstance(inputs, Tensors)
        bits = (inputs.items[0].array[:, 0].astype("f4").view("u4") >> 16).astype("u2")
        return Tensors([Tensor("y", BF16, bits)])

    async def scenario() -> None:
        servable = await explained(spec_of(tmp_path, "[[1.0]]"), Inner(work, signature))
        (answer,) = await ask(servable, Tensors([Tensor("X", FP32, np.array([[4.0]], "f4"))]))
        assert (answer["values"], answer["base_values"]) == ([3.0], 1.0)
        await servable.close()

    run(scenario)


def test_other_operations_go_to_the_model(tmp_path: Path) -> None:
    """Also while an explanation is under way; everything else is the model's, too."""

    async def scenario() -> None:
        inner = Inner(linear)
        servable = await explained(spec_of(tmp_path), inner)
        inner.shut = asyncio.Event()
        explaining = asyncio.ensure_future(ask(servable, point(1, 2, 3)))
        await settle_slowly(lambda: servable.pending() == 1)
        inner.shut.set()
        response = await servable.infer(InferRequest(point(1, 2, 3)))
        assert isinstance(response.outputs, Tensors)
        assert response.outputs.items[0].array.tolist() == [-1.5]
        assert len(await explaining) == 1
        parts = [part async for part in servable.stream(InferRequest(point(1, 2, 3), "explain"))]
        assert len(parts) == 1
        assert servable.pending() == 0
        assert (servable.trouble(), servable.platform) == ("", "fake")
        await servable.drain(0)
        await servable.close()

    run(scenario)


async def settle_slowly(condition: Callable[[], bool]) -> None:
    """Wait for what a thread does."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def test_pieces_of_a_batch(tmp_path: Path) -> None:
    """A model is never asked more at once than it takes."""

    async def scenario() -> None:
        spec = spec_of(tmp_path, batch=BatchPolicy(max_size=4, refuse_larger=True))
        inner = Inner(linear, spec=spec)
        servable = await explained(spec, inner)
        await ask(servable, point(1, 2, 3))
        assert max(inner.sizes) == 4
        await servable.close()

    run(scenario)


def test_a_caller_that_goes_away(tmp_path: Path) -> None:
    """The thread is free for the next, and the model is not asked any more."""

    async def scenario() -> None:
        inner = Inner(linear)
        servable = await explained(spec_of(tmp_path), inner)
        inner.shut = asyncio.Event()
        asking = asyncio.ensure_future(ask(servable, point(*range(30))))
        waiting = asyncio.ensure_future(ask(servable, point(1, 2, 3)))
        await settle_slowly(lambda: servable.pending() == 2)
        waiting.cancel()
        asking.cancel()
        await asyncio.wait([asking, waiting])
        assert asking.cancelled()
        assert waiting.cancelled()
        inner.shut.set()
        before = len(inner.sizes)
        assert len(await ask(servable, point(1, 2, 3))) == 1
        assert len(inner.sizes) - before < 10
        await servable.close()

    run(scenario)


def test_a_deadline(tmp_path: Path) -> None:
    """Holds for the whole of it."""

    async def scenario() -> None:
        inner = Inner(linear)
        servable = await explained(spec_of(tmp_path), inner)
        inner.shut = asyncio.Event()
        with pytest.raises(ServingError) as caught:
            await ask(servable, point(1, 2, 3), deadline=time.monotonic() + 0.05)
        assert caught.value.kind is Kind.TIMEOUT
        inner.shut.set()
        assert len(await ask(servable, point(1, 2, 3), deadline=time.monotonic() + 60)) == 1
        await servable.close()

    run(scenario)


def test_limits(tmp_path: Path) -> None:
    """Data points of one call, and calls that wait."""

    async def scenario() -> None:
        inner = Inner(linear)
        servable = await explained(spec_of(tmp_path, batch=BatchPolicy(max_queue=32)), inner)
        with pytest.raises(ServingError, match="at most 83333 are accepted") as caught:
            await ask(servable, Tensors([Tensor("X", FP32, np.zeros((90_000, 3), "f4"))]))
        assert caught.value.kind is Kind.TOO_LARGE
        inner.shut = asyncio.Event()
        asking = [asyncio.ensure_future(ask(servable, point(1, 2, 3))) for _ in range(32)]
        await settle(lambda: servable.pending() == 32)
        with pytest.raises(ServingError) as caught:
            await ask(servable, point(1, 2, 3))
        assert caught.value.kind is Kind.OVERLOADED
        inner.shut.set()
        await asyncio.gather(*asking)
        assert await ask(servable, Tensors([Tensor("X", FP32, np.zeros((0, 3), "f4"))])) == []
        await servable.close()

    run(scenario)


def test_models_that_fail(tmp_path: Path) -> None:
    """Their own error is answered; the next call works."""

    async def scenario() -> None:
        def broken(inputs: Tensors | Rows) -> Tensors:
            raise ServingError(Kind.MODEL_FAILED, "it broke")

        inner = Inner(linear)
        servable = await explained(spec_of(tmp_path), inner)
        inner.work = broken
        with pytest.raises(ServingError, match="it broke"):
            await ask(servable, point(1, 2, 3))
        inner.work = lambda inputs: Tensors([Tensor("y", FP64, np.zeros(1))])
        with pytest.raises(ServingError, match="output 'y' of model 'm' cannot be explained"):
            await ask(servable, point(1, 2, 3))
        inner.work = linear
        assert len(await ask(servable, point(1, 2, 3))) == 1
        await servable.close()

    run(scenario)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (Tensors([Tensor("Y", FP32, np.zeros((1, 3), "f4"))]), "its input 'X' is needed"),
        (Tensors([Tensor("X", FP32, np.zeros((1, 4), "f4"))]), "has shape [1, 4] of FP32, which does not fit"),
        (Tensors([Tensor("X", BYTES, np.full((1, 3), b"x", object))]), "has shape [1, 3] of BYTES"),
        (Rows([{"X": [1, 2, 3]}]), "its input 'X' is needed"),
    ],
)
def test_requests_that_do_not_fit(tmp_path: Path, inputs: Tensors | Rows, words: str) -> None:
    """The background has other features than the request."""

    async def scenario() -> None:
        servable = await explained(spec_of(tmp_path), Inner(linear))
        with pytest.raises(ServingError) as caught:
            await ask(servable, inputs)
        assert caught.value.kind is Kind.INVALID_INPUT
        assert words in caught.value.message
        await servable.close()

    run(scenario)


def constant(value: Array) -> Work:
    def work(inputs: Tensors | Rows) -> Tensors:
        return Tensors([Tensor("y", BYTES if value.dtype.kind == "O" else FP64, value)])

    return work


def test_models_that_cannot_be_explained(tmp_path: Path) -> None:
    """Are refused when they are loaded, with the reason."""
    texts = refusal(tmp_path, constant(np.array([b"a"], object)))
    assert "none of its outputs y is a number" in texts.message
    assert "expected a number or a list" in refusal(tmp_path, constant(np.zeros((1, 2, 2)))).message
    assert "expected a number or a list" in refusal(tmp_path, constant(np.zeros((1, 1001)))).message
    assert "has no output 'p' to be explained; it answers y" in refusal(tmp_path, linear, explainer={"output": "p"}).message
    images = Signature(inputs=(TensorSpec("X", FP32, (-1, 2, 2)),), batch=True)
    assert "only tabular models can" in refusal(tmp_path, linear, images, "[[[1, 2], [3, 4]]]").message
    alone = Signature(inputs=(TensorSpec("X", FP32, (3,)),))
    assert refusal(tmp_path, linear, alone, "[[1, 2, 3]]").kind is Kind.INVALID_INPUT
    file = {"type": "object", "properties": {"f": {"type": "string", "format": "uri"}}, "required": ["f"]}
    files = Signature(Form.ROWS, input_schema=file, input_files={"f": "image"})
    assert "only tabular models can" in refusal(tmp_path, linear, files, '[{"f": "data:,x"}]').message
    whole = Signature(Form.ROWS, whole=True)
    assert "give its class a method explain" in refusal(tmp_path, linear, whole).message
    wide = Signature(inputs=(TensorSpec("X", FP32, (-1, -1)),), batch=True)
    assert "exact takes at most 12 features, and it has 13" in refusal(tmp_path, linear, wide, str([[0] * 13])).message
    assert "expected 1 to 500" in refusal(tmp_path, linear, wide, str([[0] * 501])).message
    assert "there is no option 'speed'" in refusal(tmp_path, linear, explainer={"speed": "1"}).message


def test_a_model_that_explains_itself(tmp_path: Path) -> None:
    """Keeps its own explanations, and the operator is told."""

    async def scenario() -> None:
        inner = Inner(linear)
        inner.operations = frozenset({"predict", "explain"})
        with pytest.raises(ServingError, match="the model explains itself"):
            await explained(spec_of(tmp_path), inner)

    run(scenario)


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model serves; only explaining is refused, naming extra and setting."""
    for name in [each for each in sys.modules if each.split(".")[0] == "shap"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "shap", None)  # as if it were not installed

    async def scenario() -> None:
        servable = await explained(spec_of(tmp_path), Inner(linear))
        assert isinstance((await servable.infer(InferRequest(point(1, 2, 3)))).outputs, Tensors)
        with pytest.raises(ServingError) as caught:
            await ask(servable, point(1, 2, 3))
        assert (caught.value.kind, caught.value.what) == (Kind.UNSUPPORTED, "operation")
        assert "pip install 'dragoman[explain]'" in caught.value.message
        assert "--explain" in caught.value.message
        await servable.close()

    run(scenario)


def test_broken_answers_of_rows(tmp_path: Path) -> None:
    """Lists of different lengths, files, nothing: none of these is a number."""
    fields = {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]}
    signature = Signature(Form.ROWS, input_schema=fields)
    answers: list[Value] = ["text", [[1], [1, 2]], Blob(b"x"), None, {}]
    for answer in answers:
        error = refusal(tmp_path, lambda inputs, value=answer: Rows([value] * len(inputs.items)), signature, '[{"n": 1}]')  # type: ignore[misc] # a default that binds
        assert error.kind in (Kind.INVALID_INPUT, Kind.MODEL_FAILED), answer
