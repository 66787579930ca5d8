"""What every runtime promises, whatever the format: one suite over all of them, through the same door as the server."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from dragoman.core.checks import fits
from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Call, InferRequest, Model, ModelSpec
from dragoman.core.plugins import BUILT_IN
from dragoman.core.tensors import BYTES, FP32, FP64, INT64, Rows, Signature, Tensor, Tensors, TensorSpec
from dragoman.hosting.servable import LocalServable
from tests.models import build, learned, lite, savedmodels
from tests.models.calls import ask, call, load, tensor
from tests.models.snippets import same_process

X = build.IRIS_CENTRES


@dataclass(frozen=True)
class Case:
    """One format, one model, and what to send it."""

    runtime: str
    file: str
    make: Callable[[], bytes]
    platform: str
    good: tuple[Tensor, ...]
    """Three rows."""
    wrong_shape: tuple[Tensor, ...]
    output: str
    """One of several outputs where the model has several, otherwise the only one."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch: bool = True
    arguments: dict[str, Any] = field(default_factory=dict)
    declared: Signature | None = None

    def __str__(self) -> str:
        return self.file


def onnx_iris() -> bytes:
    with TemporaryDirectory() as folder:
        return build.iris(Path(folder) / "m.onnx").read_bytes()


PYTHON = b"""
from typing import Annotated, TypedDict
import dragoman, numpy as np
from numpy.typing import NDArray

class Answer(TypedDict):
    label: Annotated[NDArray[np.int64], ()]
    scores: Annotated[NDArray[np.float32], (3,)]

class Model:
    def setup(self):
        self.matrix = np.eye(4, 3, dtype=np.float32)

    @dragoman.batched
    def predict(self, x: Annotated[NDArray[np.float32], (4,)]) -> Answer:
        scores = x @ self.matrix
        return {"label": scores.argmax(axis=1), "scores": scores}
"""

COLUMNS = tuple(TensorSpec(name, FP64, (-1,), native="double") for name in "abcd")
ANY_X = (TensorSpec("X", None, (-1, 4)),)
CLASSES = TensorSpec("predict", INT64, (-1,))
CASES = [
    Case(
        "onnx",
        "model.onnx",
        onnx_iris,
        "onnxruntime_onnx",
        (tensor("X", X),),
        (tensor("X", X[:, :3]),),
        "label",
        (TensorSpec("X", FP32, (-1, 4)),),
        (TensorSpec("label", INT64, (-1, 1)), TensorSpec("probabilities", FP32, (-1, 3))),
    ),
    Case(
        "sklearn",
        "model.skops",
        learned.LEARNED["classifier.skops"],
        "sklearn",
        (tensor("X", X),),
        (tensor("X", X[:, :3]),),
        "predict",
        ANY_X,
        (CLASSES, TensorSpec("predict_proba", FP64, (-1, 3), labels=("0", "1", "2"))),
    ),
    Case(
        "sklearn",
        "forest.skops",
        learned.LEARNED["forest.skops"],
        "sklearn",
        (tensor("X", X),),
        (tensor("X", X[:, :3]),),
        "predict_proba",
        ANY_X,
        (CLASSES, TensorSpec("predict_proba", FP64, (-1, 3), labels=("0", "1", "2"))),
    ),
    Case(
        "sklearn",
        "text.skops",
        learned.LEARNED["text.skops"],
        "sklearn",
        (tensor("X", [b"free money", b"lunch", b"noon"]),),
        (tensor("X", X),),
        "predict",
        (TensorSpec("X", BYTES, (-1,)),),
        (TensorSpec("predict", BYTES, (-1,)), TensorSpec("predict_proba", FP64, (-1, 2), labels=("ham", "spam"))),
    ),
    Case(
        "sklearn",
        "model.pkl",
        learned.LEARNED["classifier.pkl"],
        "sklearn",
        (tensor("X", X),),
        (tensor("X", X[:, :3]),),
        "predict",
        ANY_X,
        (CLASSES, TensorSpec("predict_proba", FP64, (-1, 3), labels=("0", "1", "2"))),
        arguments={"trust_pickle": True},
    ),
    Case(
        "xgboost",
        "model.ubj",
        learned.LEARNED["booster.ubj"],
        "xgboost",
        (tensor("X", X),),
        (tensor("X", X[:, :3]),),
        "predict",
        ANY_X,
        (TensorSpec("predict", FP32, (-1, 3)),),
    ),
    Case(
        "lightgbm",
        "model.txt",
        learned.LEARNED["booster.txt"],
        "lightgbm",
        (tensor("X", X),),
        (tensor("X", X[:, :3]),),
        "predict",
        ANY_X,
        (TensorSpec("predict", FP64, (-1, 3)),),
    ),
    Case(
        "torch",
        "model.pt2",
        learned.exported,
        "pytorch_export",
        (tensor("x", X),),
        (tensor("x", X[:, :3]),),
        "label",
        (TensorSpec("x", FP32, (-1, 4)),),
        (TensorSpec("label", INT64, (-1,)), TensorSpec("scores", FP32, (-1, 3))),
    ),
    Case(
        "torch",
        "model.pt",
        learned.scripted_matrix,
        "pytorch_torchscript",
        (tensor("x", X),),
        (tensor("x", X[:, :3]),),
        "output",
        (TensorSpec("x", None, None, native="x"),),
        (TensorSpec("output", None, None),),
        batch=False,
    ),
    Case(
        "litert",
        "model.tflite",
        lite.iris,
        "litert",
        (tensor("X", X),),
        (tensor("X", X[:, :3]),),
        "label",
        (TensorSpec("X", FP32, (-1, 4), native="features:0"),),
        (TensorSpec("label", INT64, (-1,), native="Partitioned:0"), TensorSpec("probabilities", FP32, (-1, 3), native="Partitioned:1")),
    ),
    Case(
        "savedmodel",
        "saved_model.pb",
        lambda: (savedmodels.path("iris") / "saved_model.pb").read_bytes(),
        "tensorflow_savedmodel",
        (tensor("x", X),),
        (tensor("x", X[:, :3]),),
        "label",
        (TensorSpec("x", FP32, (-1, 4), native="x:0"),),
        (TensorSpec("label", INT64, (-1,), native="ArgMax:0"), TensorSpec("probabilities", FP32, (-1, 3), native="Softmax:0")),
    ),
    Case(
        "python",
        "model.py",
        lambda: PYTHON,
        "python",
        (tensor("x", X),),
        (tensor("x", X[:, :3]),),
        "label",
        (TensorSpec("x", FP32, (-1, 4)),),
        (TensorSpec("label", INT64, (-1,)), TensorSpec("scores", FP32, (-1, 3))),
    ),
    Case(
        "mlflow",
        "flowers.skops",
        learned.LEARNED["classifier.skops"],
        "sklearn",
        tuple(tensor(spec.name, X[:, index].astype(float)) for index, spec in enumerate(COLUMNS)),
        tuple(tensor(spec.name, X.astype(float)) for spec in COLUMNS),
        "class",
        COLUMNS,
        (TensorSpec("class", INT64, (-1,)),),
        arguments={"mlflow": {"runtime": "sklearn", "predict_fn": "predict", "columns": True}},
        declared=Signature(inputs=COLUMNS, outputs=(TensorSpec("class", INT64, (-1,)),), batch=True),
    ),
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def fresh(tensors: tuple[Tensor, ...]) -> list[Tensor]:
    """Copies: a model owns its inputs."""
    return [Tensor(t.name, t.datatype, t.array.copy()) for t in tensors]


@pytest.fixture(autouse=True)
def _process() -> Iterator[None]:
    """Python models change the process that they are loaded in."""
    with same_process():
        yield


@pytest.fixture
def path(case: Case, tmp_path: Path) -> Path:
    """The case's file in a folder of its own."""
    return learned.write(tmp_path / "1" / case.file, case.make())


@pytest.fixture
def model(case: Case, path: Path) -> Model:
    """The loaded case."""
    return load(case.runtime, path, case.declared, **case.arguments)


def refused(model: Model, request: Call) -> ServingError:
    with pytest.raises(ServingError) as caught:
        model.predict(request)
    return caught.value


def test_every_built_in_runtime_is_here() -> None:
    """A runtime that is added to the table is added to this suite."""
    assert {case.runtime for case in CASES} == set(BUILT_IN["runtimes"])


@every_case
def test_signature_tells_the_truth(case: Case, model: Model) -> None:
    """Names, datatypes, shapes, labels and batching are read from the file; operations and platform are the runtime's."""
    signature = model.signatures[""]
    assert signature.inputs == case.inputs
    assert signature.outputs == case.outputs
    assert signature.batch is case.batch
    assert model.operations == {"predict"}
    assert model.platform == case.platform
    assert isinstance(model.concurrent, bool)


@every_case
def test_outputs_are_as_declared(case: Case, model: Model) -> None:
    """Every output comes, in order, of the declared datatype and shape, contiguous, aligned, writable and native."""
    answer = ask(model, *fresh(case.good))
    declared = model.signatures[""].output_by_name
    assert list(answer) == list(declared)
    for name, output in answer.items():
        spec = declared[name]
        assert spec.datatype is None or output.datatype is spec.datatype
        assert output.array.dtype == output.datatype.numpy
        assert spec.shape is None or fits(output.array.shape, spec.shape)
        assert output.array.shape[0] == 3
        assert output.array.flags.c_contiguous
        assert output.array.flags.writeable
        assert output.array.flags.aligned
        assert output.array.dtype.isnative
        if output.datatype is BYTES:
            assert {type(element) for element in output.array.ravel()} == {bytes}


@every_case
def test_rows_are_answered_one_by_one(case: Case, model: Model) -> None:
    """A batch gives what its rows give alone, which is what joining requests stands on."""
    together = ask(model, *fresh(case.good))
    for row in range(3):
        alone = ask(model, *[Tensor(t.name, t.datatype, t.array[row : row + 1].copy()) for t in case.good])
        for name, output in alone.items():
            expected = together[name].array[row : row + 1]
            if output.datatype.kind == "float":
                np.testing.assert_allclose(output.array, expected, rtol=1e-5)
            else:
                assert output.array.tolist() == expected.tolist()


@every_case
def test_only_the_wanted_outputs_come(case: Case, model: Model) -> None:
    """A request that names outputs gets those; one that the model lacks is named."""
    answer = ask(model, *fresh(case.good), outputs=(case.output,))
    assert list(answer) == [case.output]
    error = refused(model, call(*fresh(case.good), outputs=("nothing",)))
    assert (error.kind, error.what) == (Kind.INVALID_INPUT, "output")
    assert "'m'" in error.message
    assert "'nothing'" in error.message


@every_case
def test_an_empty_batch_is_answered_or_refused(case: Case, model: Model) -> None:
    """No rows in, no rows out."""
    answer = ask(model, *[Tensor(t.name, t.datatype, t.array[:0].copy()) for t in case.good])
    assert {output.array.shape[0] for output in answer.values()} == {0}


@every_case
def test_input_that_the_framework_refuses(case: Case, model: Model) -> None:
    """A wrong shape, name or kind of payload, or a missing input, is the caller's fault; the message names the model, in one line."""
    spoiled = [Tensor("unknown", t.datatype, t.array) for t in fresh(case.good)]
    requests = [call(*fresh(case.wrong_shape)), call(*spoiled), call(), Call(Rows([{"X": 1}]))]
    for request in requests:
        error = refused(model, request)
        assert error.kind is Kind.INVALID_INPUT, error.message
        assert "'m'" in error.message
        assert "\n" not in error.message
        assert "Traceback" not in error.message
    assert ask(model, *fresh(case.good))  # and it still answers


@every_case
def test_text_where_numbers_belong(case: Case, model: Model) -> None:
    """BYTES for a numeric input never reach the framework as something else."""
    if case.good[0].datatype is BYTES:
        error = refused(model, call(tensor("X", [b"\xff\xfe"])))
        assert "UTF-8" in error.message
    else:
        error = refused(model, call(Tensor(case.good[0].name, BYTES, np.full((1, 4), b"a", dtype=object))))
    assert error.kind is Kind.INVALID_INPUT


@every_case
def test_closed_models_answer_no_more(case: Case, model: Model) -> None:
    """close may come twice; a call after it fails as unavailable."""
    model.close()
    model.close()
    assert refused(model, call(*fresh(case.good))).kind is Kind.UNAVAILABLE


@every_case
def test_missing_file(case: Case, tmp_path: Path) -> None:
    """The error names the model and the file, but not where it lies."""
    with pytest.raises(ServingError) as caught:
        load(case.runtime, tmp_path / case.file, **case.arguments)
    assert caught.value.kind is Kind.NOT_FOUND
    assert f"'{case.file}'" in caught.value.message
    assert "'m'" in caught.value.message
    assert str(tmp_path) not in caught.value.message


@every_case
@pytest.mark.parametrize("damage", ["cut", "text", "zeros", "empty", "lfs"])
def test_damaged_files(case: Case, damage: str, tmp_path: Path) -> None:
    """Whatever is in the file, the error is one sentence about this file; nothing else comes out, the process least of all."""
    whole = case.make()
    data = {
        "cut": whole[: len(whole) // 2],
        "text": b"this is no model\n" * 50,
        "zeros": bytes(1000),
        "empty": b"",
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n",
    }[damage]
    path = learned.write(tmp_path / case.file, data)
    with pytest.raises(ServingError) as caught:
        load(case.runtime, path, **case.arguments)
    assert caught.value.kind is Kind.INVALID_INPUT
    assert f"'{case.file}'" in caught.value.message
    assert "'m'" in caught.value.message
    assert "\n" not in caught.value.message
    assert str(tmp_path) not in caught.value.message


@every_case
def test_a_folder_holds_the_model(case: Case, path: Path) -> None:
    """A version's folder does as well as the file in it."""
    (path.parent / "notes.md").write_text("not a model")
    model = load(case.runtime, path.parent, case.declared, **case.arguments)
    assert list(ask(model, *fresh(case.good), outputs=(case.output,))) == [case.output]


@every_case
def test_declared_signature_is_compared(case: Case, path: Path) -> None:
    """A configuration that names an input which the model lacks is an error that names it."""
    other = Signature(inputs=(TensorSpec("nothing", FP32, (-1, 4)), TensorSpec("more", FP32, (-1, 4))))
    with pytest.raises(ServingError, match="nothing") as caught:
        load(case.runtime, path, other, **case.arguments)
    assert caught.value.kind is Kind.INVALID_INPUT
    assert "'m'" in caught.value.message


@every_case
def test_served_with_warm_up(case: Case, path: Path) -> None:
    """The servable loads it, warms it up, answers several callers at once, and gives it back."""

    async def serve() -> list[Tensors | Rows]:
        spec = ModelSpec("m", runtime=case.runtime, artifact=str(path), instances=2, signature=case.declared, arguments=case.arguments)
        servable = LocalServable.load(spec)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(servable.infer(InferRequest(Tensors(fresh(case.good))))) for _ in range(8)]
            return [task.result().outputs for task in tasks]
        finally:
            await servable.close()

    answers = asyncio.run(serve())
    first = answers[0]
    assert isinstance(first, Tensors)
    for answer in answers:
        assert isinstance(answer, Tensors)
        for output, expected in zip(answer.items, first.items, strict=True):
            assert output.array.shape == expected.array.shape
            if output.datatype.kind == "float":
                np.testing.assert_allclose(output.array, expected.array, rtol=1e-5)
            else:
                assert output.array.tolist() == expected.array.tolist()


@every_case
def test_threads_share_a_concurrent_model(case: Case, model: Model) -> None:
    """Models that say that they may be called at once give every caller his own answer."""
    if not model.concurrent:
        assert case.runtime in ("sklearn", "torch", "litert", "python", "mlflow")
        return
    expected = ask(model, *fresh(case.good))
    wrong: list[str] = []

    def caller(row: int) -> None:
        for _ in range(20):
            answer = ask(model, *[Tensor(t.name, t.datatype, t.array[row : row + 1].copy()) for t in case.good])
            for name, output in answer.items():
                if not np.allclose(output.array, expected[name].array[row : row + 1], rtol=1e-5):
                    wrong.append(name)

    threads = [threading.Thread(target=caller, args=(index % 3,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


PACKAGES = {"onnx": "onnxruntime", "sklearn": "sklearn", "xgboost": "xgboost", "lightgbm": "lightgbm", "torch": "torch"}
WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None  # what Python makes of an import that fails
from dragoman.core.errors import ServingError
from dragoman.core.model import ModelSpec
from dragoman.core.plugins import find
try:
    find("runtimes", sys.argv[2])(ModelSpec("m", artifact=sys.argv[3]))
except ServingError as error:
    print(error.kind.name, error.message)
"""


@pytest.mark.parametrize("runtime", sorted(PACKAGES))
def test_a_framework_that_is_not_installed(runtime: str, tmp_path: Path) -> None:
    """The error names the package and the extra that brings it."""
    case = next(case for case in CASES if case.runtime == runtime)
    path = learned.write(tmp_path / case.file, case.make())
    command = [sys.executable, "-c", WITHOUT, PACKAGES[runtime], runtime, str(path)]
    answer = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert answer.stdout.startswith("UNSUPPORTED this model needs ")
    assert f"pip install 'dragoman[{runtime}]'" in answer.stdout
