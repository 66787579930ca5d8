"""LiteRT models: datatypes, signatures, batches, quantised tensors, options, and what is refused."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Call, InferRequest, Model, ModelSpec
from dragoman.core.tensors import BF16, BYTES, DATATYPES, FP32, INT8, Rows, Signature, Tensor, Tensors, TensorSpec
from dragoman.hosting.servable import LocalServable
from dragoman.runtimes import litert_errors
from tests.models import lite
from tests.models.build import IRIS_CENTRES
from tests.models.calls import call, load, tensor

X = IRIS_CENTRES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a test writes its models."""
    return tmp_path


def made(folder: Path, content: bytes, **arguments: Any) -> Model:
    path = folder / "model.tflite"
    path.write_bytes(content)
    return load("litert", path, **arguments)


def ask(model: Model, signature: str = "", outputs: tuple[str, ...] = (), **arrays: Any) -> dict[str, Tensor]:
    tensors = Tensors([each if isinstance(each, Tensor) else tensor(name, each) for name, each in arrays.items()])
    answer = model.predict(Call(tensors, signature=signature, outputs=outputs))
    assert isinstance(answer, Tensors)
    return {t.name: t for t in answer.items}


def refusal(model: Model, **arrays: Any) -> ServingError:
    with pytest.raises(ServingError) as caught:
        ask(model, **arrays)
    assert "'m'" in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value


def broken(folder: Path, content: bytes, **arguments: Any) -> ServingError:
    with pytest.raises(ServingError) as caught:
        made(folder, content, **arguments)
    assert "'m'" in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("name", lite.TYPES)
def test_every_datatype_goes_through(name: str, folder: Path) -> None:
    """Each datatype keeps its values, extremes and bits; no rows are answered with none."""
    datatype = DATATYPES[name]
    values: dict[str, list[Any]] = {
        "bytes": [b"", "déjà".encode(), b"a\x00\xff"],
        "bits": [0x3F80, 0xFF80, 0x7FC1],
        "bool": [True, False, True],
        "float": [-1.5, float("inf"), 0.0],
        "complex": [1 + 2j, -1j, 0],
    }
    if datatype.kind in ("int", "uint"):
        limits = np.iinfo(datatype.numpy)
        values[datatype.kind] = [limits.min, 1, limits.max]
    model = made(folder, lite.write(lite.reshape(name)))
    assert model.signatures[""].inputs == (TensorSpec("x", datatype, (-1,), native="x:0"),)
    assert model.signatures[""].outputs == (TensorSpec("y", datatype, (-1, 1), native="y:0"),)
    for count in (3, 1, 0, 2):
        array = np.array(values[datatype.kind], datatype.numpy)[:count]
        output = ask(model, x=Tensor("x", datatype, array.copy()))["y"]
        assert output.datatype is datatype
        assert output.array.dtype == datatype.numpy
        assert output.array.tolist() == array.reshape(count, 1).tolist()
        assert output.array.flags.writeable


def test_several_signatures(folder: Path) -> None:
    """Each has its own graph and names; the default is serving_default, wherever it stands."""
    model = made(folder, lite.write(lite.reshape("FP32", key="tall"), lite.add()))
    assert list(model.signatures) == ["", "tall", "serving_default"]
    assert model.signatures[""] is model.signatures["serving_default"]
    a, b = X[:, :2].copy(), X[:, 2:].copy()
    for signature in ("", "serving_default"):
        assert ask(model, signature, a=a, b=b)["sum"].array.tolist() == (a + b).tolist()
    assert ask(model, "tall", x=X[0])["y"].array.tolist() == X[:1].T.tolist()
    with pytest.raises(ServingError, match="'regress'") as caught:
        ask(model, "regress", x=X[0])
    assert (caught.value.kind, caught.value.what) == (Kind.INVALID_INPUT, "signature")


def test_the_first_signature_is_the_default_without_serving_default(folder: Path) -> None:
    """And it keeps its own name, too."""
    model = made(folder, lite.write(lite.add("sum"), lite.reshape("FP32", key="tall")))
    assert list(model.signatures) == ["", "sum", "tall"]
    assert model.signatures[""] is model.signatures["sum"]


def test_files_without_signatures(folder: Path) -> None:
    """The tensors' own names are the inputs and outputs, as in files of the first years; shapes vary as they say."""
    model = made(folder, lite.iris(""))
    assert [t.name for t in model.signatures[""].inputs] == ["features:0"]
    assert model.signatures[""].batch
    for rows in (X, X[:1], X[:0], X):
        answer = model.predict(call(tensor("features:0", rows.copy())))
        assert isinstance(answer, Tensors)
        assert answer.items[0].array.tolist() == list(range(len(rows)))
    wanted = model.predict(call(tensor("features:0", X.copy()), outputs=("Partitioned:1",)))
    assert isinstance(wanted, Tensors)
    assert [t.name for t in wanted.items] == ["Partitioned:1"]


def test_names_that_are_missing_or_double(folder: Path) -> None:
    """Tensors without a name of their own get one."""
    graph = lite.add("")
    graph.tensors = {"": graph.tensors["a:0"], "b:0": graph.tensors["b:0"], "sum:0": graph.tensors["sum:0"]}
    graph.inputs = {"a": "", "b": "b:0"}
    graph.nodes = [lite.Node(schema.BuiltinOperator.ADD, ["", "b:0"], ["sum:0"], schema.AddOptionsT(), schema.BuiltinOptions.AddOptions)]
    assert [t.name for t in made(folder, lite.write(graph)).signatures[""].inputs] == ["input_0", "b:0"]


def test_what_comes_must_be_as_declared(folder: Path) -> None:
    """Shapes and datatypes are compared here as well, because some protocols leave shapes to the model; and it still answers."""
    model = made(folder, lite.iris())
    for wrong, words in (
        (X[0], "[4]"),
        (X[None], "[1, 3, 4]"),
        (X[:, :3], "[3, 3]"),
        (X.astype(np.float64), "FP64"),
        (Tensor("X", BYTES, np.full((1, 4), b"a", dtype=object)), "BYTES"),
    ):
        assert words in refusal(model, X=wrong).message
    assert ask(model, X=X.copy())["label"].array.tolist() == [0, 1, 2]
    pair = made(folder, lite.write(lite.add(shape=(-1, -1))))
    error = refusal(pair, a=np.ones((2, 3), np.float32), b=np.ones((2, 2), np.float32))
    assert error.kind is Kind.INVALID_INPUT
    assert ask(pair, a=np.ones((2, 3), np.float32), b=np.ones((2, 3), np.float32))["sum"].array.tolist() == [[2.0] * 3] * 2


def test_an_index_out_of_range_is_the_callers_fault(folder: Path) -> None:
    """LiteRT's words say so, in one line; the model answers on."""
    model = made(folder, lite.looks_up())
    for index in (99, -1):
        assert "GATHER" in refusal(model, x=np.array([index], np.int32)).message
    assert ask(model, x=np.array([3], np.int32))["square"].array.tolist() == [9.0]


def test_quantised_tensors_are_as_in_the_file(folder: Path) -> None:
    """INT8 in and out, as every client of such a model sends it."""
    model = made(folder, lite.quantised())
    assert model.signatures[""].inputs == (TensorSpec("x", INT8, (-1, 4), native="x:0"),)
    assert ask(model, x=np.array([[3, 23, -17, 127]], np.int8))["y"].array.dtype == np.int8


def test_dequantize(folder: Path) -> None:
    """With the option clients send and get floats; what the file's range cannot hold is cut to it."""
    model = made(folder, lite.quantised(), dequantize=True)
    assert model.signatures[""].inputs == (TensorSpec("x", FP32, (-1, 4), native="x:0"),)
    assert model.signatures[""].outputs == (TensorSpec("y", FP32, (-1, 4), native="y:0"),)
    answer = ask(model, x=np.array([[0.0, 1.0, -1.0, 2.0], [1e30, -1e30, np.inf, np.nan]], np.float32))["y"]
    assert answer.array.dtype == np.float32
    np.testing.assert_allclose(answer.array[0], [0.5, 0.731, 0.269, 0.881], atol=0.01)
    np.testing.assert_allclose(answer.array[1], [1, 0, 1, 0.5], atol=0.01)


def test_fixed_batches_run_alone(folder: Path) -> None:
    """A file made for one row takes one row."""
    model = made(folder, lite.iris(rows=1))
    assert not model.signatures[""].batch
    assert model.signatures[""].inputs[0].shape == (1, 4)
    assert "[3, 4]" in refusal(model, X=X.copy()).message


def test_resize_batch(folder: Path) -> None:
    """With the option such a file takes any number of rows, once it has shown that two rows give what each gives alone."""
    model = made(folder, lite.iris(rows=1), resize_batch=True)
    assert model.signatures[""].batch
    assert ask(model, X=X.copy())["label"].array.tolist() == [0, 1, 2]
    quantised = made(folder, lite.quantised((1, 4)), resize_batch="true", dequantize="true")
    assert ask(quantised, x=np.zeros((5, 4), np.float32))["y"].array.shape == (5, 4)


def test_resize_batch_where_it_cannot_be(folder: Path) -> None:
    """A graph that has its number of rows built in is refused when it loads."""
    error = broken(folder, lite.write(lite.reshape("FP32", (1, 6), (1, 2, 3))), resize_batch=True)
    assert error.kind is Kind.INVALID_INPUT
    assert "'resize_batch'" in error.message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lite.custom("FlexErf"), "TensorFlow's operation Erf"),
        (lite.custom("Mine"), "custom operation Mine"),
        (lite.write(lite.add(), lite.reshape("FP32", key="other")).replace(b"other", b"othex"), ""),
    ],
    ids=["flex", "custom", "fine"],
)
def test_operations_that_litert_lacks(content: bytes, words: str, folder: Path) -> None:
    """They are found when the file loads, and named."""
    if not words:
        assert "othex" in made(folder, content).signatures
        return
    error = broken(folder, content)
    assert error.kind is Kind.UNSUPPORTED
    assert words in error.message


def test_operations_that_another_signature_lacks(folder: Path) -> None:
    """Every signature is tried, not only the first."""
    other = lite.Graph(
        "other", {"x": "x:0"}, {"y": "y:0"}, {"x:0": ("FP32", [-1]), "y:0": ("FP32", [-1])}, [lite.Node("Mine", ["x:0"], ["y:0"])]
    )
    error = broken(folder, lite.write(lite.add(), other))
    assert (error.kind, "Mine" in error.message) == (Kind.UNSUPPORTED, True)


def test_messages() -> None:
    """LiteRT's errors without source files, advice for phones and missing blanks."""
    text = "tflite/kernels/gather.cc:166 positive was not true.gather index out of boundsNode number 0 (GATHER) failed to invoke."
    assert litert_errors.plain(text) == "GATHER: positive was not true.gather index out of bounds"
    assert litert_errors.plain("Node number 3 (TfLiteXNNPackDelegate) failed to prepare.") == "TfLiteXNNPackDelegate failed"
    newer = litert_errors.at_load(ValueError("Didn't find op for builtin opcode 'CONV_2D' version '9'. An older..."), "m", "m.tflite")
    assert (newer.kind, "version 9 of the operation CONV_2D" in newer.message) == (Kind.UNSUPPORTED, True)
    assert "'m.tflite'" in litert_errors.at_load(RuntimeError("no\nspace"), "m", "m.tflite").message
    failed = RuntimeError("no space")
    assert litert_errors.at_run(failed, "m", dimensions_open=False) is failed


def test_rows_and_closed_models(folder: Path) -> None:
    """Rows are refused; after close nothing is answered."""
    model = made(folder, lite.iris())
    with pytest.raises(ServingError, match="rows"):
        model.predict(Call(Rows([{"X": 1}])))
    model.close()
    assert refusal(model, X=X.copy()).kind is Kind.UNAVAILABLE


def test_a_declared_signature(folder: Path) -> None:
    """A configuration narrows the default one."""
    path = folder / "model.tflite"
    path.write_bytes(lite.iris())
    declared = Signature(inputs=(TensorSpec("X", FP32, (-1, 4)),), outputs=(TensorSpec("probabilities", FP32, (-1, 3)),), batch=True)
    model = load("litert", path, declared)
    answer = model.predict(call(tensor("X", X.copy())))
    assert isinstance(answer, Tensors)
    assert [t.name for t in answer.items] == ["probabilities"]


def test_instances_serve_side_by_side(folder: Path) -> None:
    """Each instance has its own interpreter, and requests of different sizes do not meet in one."""
    path = folder / "model.tflite"
    path.write_bytes(lite.write(lite.reshape("BF16", (-1, 2), (-1, 1, 2))))

    async def serve() -> list[Any]:
        servable = LocalServable.load(ModelSpec("m", runtime="litert", artifact=str(path), instances=2))
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(servable.infer(InferRequest(Tensors([Tensor("x", BF16, np.full((n, 2), n, np.uint16))]))))
                    for n in range(1, 9)
                ]
            outputs = [task.result().outputs for task in tasks]
            return [each.items[0].array.tolist() for each in outputs if isinstance(each, Tensors)]
        finally:
            await servable.close()

    assert asyncio.run(serve()) == [[[[n, n]]] * n for n in range(1, 9)]
