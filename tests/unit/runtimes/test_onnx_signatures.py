"""A folder of ONNX graphs as one model with several signatures."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Call, InferRequest, Model, ModelSpec
from dragoman.core.tensors import FP32, INT64, Signature, Tensor, Tensors, TensorSpec
from dragoman.hosting.servable import LocalServable
from dragoman.serving import layouts
from dragoman.serving.reading import Defaults, Place, Reader
from tests.models import build
from tests.models.calls import load, tensor

X = np.array([[1.0], [2.0], [5.0]], np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The description of a model in a version folder."""
    return build.half_plus_two(tmp_path / "half" / "7")


@pytest.fixture
def model(path: Path) -> Model:
    return load("onnx", path)


def ask(model: Model, signature: str, *tensors: Tensor, outputs: tuple[str, ...] = ()) -> dict[str, Any]:
    answer = model.predict(Call(Tensors(list(tensors)), signature=signature, outputs=outputs))
    assert isinstance(answer, Tensors)
    return {t.name: t.array.tolist() for t in answer.items}


def rewritten(path: Path, **changes: Any) -> Path:
    """The description with some of its keys replaced; None removes one."""
    described = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in described.items() if value is not None}))
    return path


def refusal(path: Path) -> ServingError:
    with pytest.raises(ServingError) as caught:
        load("onnx", path)
    assert "'m'" in caught.value.message
    assert "'signatures.json'" in caught.value.message
    assert "\n" not in caught.value.message
    assert str(path.parent) not in caught.value.message
    return caught.value


def test_signatures_are_as_described(model: Model) -> None:
    """Names and methods are the description's, datatypes and shapes the graphs'; the default has the name "" too."""
    assert list(model.signatures) == ["", "table", "serving_default", "twice"]
    default = model.signatures["serving_default"]
    assert model.signatures[""] is default
    assert default.method == "tensorflow/serving/predict"
    assert default.batch
    assert default.inputs == (TensorSpec("x", FP32, (-1, 1), native="serving_default_x:0"),)
    assert default.outputs == (TensorSpec("y", FP32, (-1, 1), native="StatefulPartitionedCall:0"),)
    assert model.signatures["table"].inputs == (TensorSpec("index", INT64, (-1,)),)
    assert [t.name for t in model.signatures["twice"].outputs] == ["less", "x", "again"]
    assert model.platform == "onnxruntime_onnx"
    assert model.operations == {"predict"}
    assert model.concurrent


def test_calls_go_to_their_signature(model: Model) -> None:
    """Each signature has its own graph, under its own names, in its own order; one output may have two names."""
    assert ask(model, "", tensor("x", X)) == {"y": [[2.5], [3.0], [4.5]]}
    assert ask(model, "serving_default", tensor("x", X)) == {"y": [[2.5], [3.0], [4.5]]}
    assert ask(model, "table", tensor("index", np.array([3]))) == {"square": [9]}
    answer = ask(model, "twice", tensor("x", np.array([1.5], np.float32)))
    assert answer == {"less": [-3.0], "x": [3.0], "again": [3.0]}
    assert list(answer) == ["less", "x", "again"]


def test_only_the_wanted_outputs_come(model: Model) -> None:
    """By the names of the signature, in its order; those of the graph mean nothing."""
    x = tensor("x", np.array([1.5], np.float32))
    assert list(ask(model, "twice", x, outputs=("again", "less"))) == ["less", "again"]
    for signature, name in (("twice", "minus"), ("", "halved")):
        with pytest.raises(ServingError, match=name) as caught:
            ask(model, signature, x, outputs=(name,))
        assert caught.value.what == "output"


def test_bad_calls_are_the_callers_fault(model: Model) -> None:
    """Unknown signatures and inputs, and what a graph refuses."""
    with pytest.raises(ServingError, match="'regress'") as caught:
        ask(model, "regress", tensor("x", X))
    assert (caught.value.kind, caught.value.what) == (Kind.INVALID_INPUT, "signature")
    for signature, given in (("twice", tensor("in", X[0])), ("twice", tensor("x", X)), ("table", tensor("index", np.array([99])))):
        with pytest.raises(ServingError, match="'m'") as caught:
            ask(model, signature, given)
        assert caught.value.kind is Kind.INVALID_INPUT


def test_closed_once_and_twice(model: Model) -> None:
    """No signature answers after close."""
    model.close()
    model.close()
    for signature in model.signatures:
        with pytest.raises(ServingError) as caught:
            ask(model, signature, tensor("x", X[0]))
        assert caught.value.kind is Kind.UNAVAILABLE


def test_requests_of_one_signature_join(path: Path) -> None:
    """The servable warms every signature up and answers all of them at once."""

    async def serve() -> list[Any]:
        servable = LocalServable.load(ModelSpec("m", runtime="onnx", artifact=str(path)))
        try:
            calls = [("twice", "x", np.array([float(n)], np.float32)) for n in range(4)] + [("", "x", X)] * 2
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(servable.infer(InferRequest(Tensors([tensor(name, array.copy())]), signature=signature)))
                    for signature, name, array in calls
                ]
            return [{t.name: t.array.tolist() for t in task.result().outputs.items} for task in tasks]
        finally:
            await servable.close()

    answers = asyncio.run(serve())
    assert answers[:4] == [{"less": [-2.0 * n], "x": [2.0 * n], "again": [2.0 * n]} for n in range(4)]
    assert answers[4:] == [{"y": [[2.5], [3.0], [4.5]]}] * 2


def test_found_in_folders(path: Path) -> None:
    """A version folder with a description is one model, and a change to any graph is a new revision."""
    assert layouts.is_model(path.parent)
    assert layouts.one_artifact(path.parent) == path
    reader = Reader(Defaults())
    spec = reader.read(Place("half", path.parent.parent)).versions["7"]
    assert (spec.runtime, spec.artifact) == ("onnx", str(path))
    build.lookup(path.parent / "graphs" / "more.onnx")
    assert reader.read(Place("half", path.parent.parent)).versions["7"].revision != spec.revision
    assert list(load("onnx", path.parent).signatures) == ["", "table", "serving_default", "twice"]


def test_a_configuration_is_about_the_default(path: Path) -> None:
    """Its declared signature is laid over the default one; the others stay."""
    declared = Signature(inputs=(TensorSpec("x", FP32, (-1, 1)),), outputs=(TensorSpec("y", FP32, (-1, 1)),), batch=False)
    model = load("onnx", path, declared)
    assert not model.signatures[""].batch
    assert model.signatures["table"].batch
    with pytest.raises(ServingError, match="'other'"):
        load("onnx", path, Signature(inputs=(TensorSpec("other", FP32, (-1, 1)),)))
    rewritten(path, default="twice")
    hidden = Signature(inputs=(TensorSpec("x", FP32, (-1,)),), outputs=(TensorSpec("x", FP32, (-1,)),), batch=True)
    assert ask(load("onnx", path, hidden), "", tensor("x", X[0])) == {"x": [2.0]}


def test_the_first_is_the_default_without_a_word(path: Path) -> None:
    """`default` may be left out."""
    assert load("onnx", rewritten(path, default=None)).signatures[""].input_by_name.keys() == {"index"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"onnx_signatures": 2}, "'onnx_signatures': 1"),
        ({"onnx_signatures": None}, "'onnx_signatures': 1"),
        ({"signatures": None}, "'signatures'"),
        ({"signatures": {}}, "0 entries"),
        ({"signatures": {str(n): {} for n in range(65)}}, "65 entries"),
        ({"signatures": []}, "'signatures'"),
        ({"signatures": {"": {"file": "graphs/half.onnx"}}}, "signature ''"),
        ({"signatures": {"@explain": {"file": "graphs/half.onnx"}}}, "'@explain'"),
        ({"default": "other"}, "'other'"),
        ({"default": 1}, "'default'"),
        ({"signatures": {"a": 1}}, "'a'"),
        ({"signatures": {"a": {}}}, "'file'"),
        ({"signatures": {"a": {"file": 3}}}, "'file'"),
        ({"signatures": {"a": {"file": "../half.onnx"}}}, "leads out"),
        ({"signatures": {"a": {"file": "/etc/hostname"}}}, "leads out"),
        ({"signatures": {"a": {"file": "graphs/out.onnx"}}}, "leads out"),
        ({"signatures": {"a": {"file": "graphs"}}}, "does not exist"),
        ({"signatures": {"a": {"file": "graphs/none.onnx"}}}, "'graphs/none.onnx'"),
        ({"signatures": {"a": {"file": "nul\0.onnx"}}}, "does not exist"),
        ({"signatures": {"a": {"file": "graphs/half.onnx", "method": 1}}}, "'method'"),
        ({"signatures": {"a": {"file": "graphs/half.onnx", "inputs": []}}}, "'inputs'"),
        ({"signatures": {"a": {"file": "graphs/half.onnx", "inputs": {"x": "x"}}}}, "'x'"),
        ({"signatures": {"a": {"file": "graphs/half.onnx", "outputs": {"y": {"tensor": 1}}}}}, "'tensor'"),
        ({"signatures": {"a": {"file": "graphs/half.onnx", "inputs": {"x": {}, "z": {"tensor": "x"}}}}}, "same tensor"),
    ],
    ids=str,
)
def test_bad_descriptions(changes: dict[str, Any], words: str, path: Path) -> None:
    """Whatever is wrong with the file is said in one sentence that names the key; nothing outside of the folder is opened."""
    (path.parent.parent / "half.onnx").write_bytes((path.parent / "graphs" / "half.onnx").read_bytes())
    (path.parent / "graphs" / "out.onnx").symlink_to(path.parent.parent / "half.onnx")
    if "signatures" in changes and "default" not in changes:
        changes = {**changes, "default": None}
    assert words in refusal(rewritten(path, **changes)).message


def test_descriptions_and_graphs_that_do_not_agree(path: Path) -> None:
    """A name that the graph lacks, and an input that it needs; every graph that was opened is closed again."""
    for part, ports, words in (
        ("inputs", {"x": {"tensor": "z"}}, "'z'"),
        ("outputs", {"y": {"tensor": "x"}}, "'x'"),
    ):
        described = {"a": {"file": "graphs/half.onnx", part: ports}}
        with pytest.raises(ServingError, match=words) as caught:
            load("onnx", rewritten(path, signatures=described, default="a"))
        assert caught.value.kind is Kind.INVALID_INPUT
    build.add_sub(path.parent / "graphs" / "pair.onnx")
    with pytest.raises(ServingError, match="'INPUT1'"):
        load("onnx", rewritten(path, signatures={"a": {"file": "graphs/pair.onnx", "inputs": {"x": {"tensor": "INPUT0"}}}}))


def test_damaged_files(path: Path) -> None:
    """Cut, deep or too large descriptions, and a damaged graph behind a good one."""
    whole = path.read_bytes()
    for content in (whole[:-5], b'{"onnx_signatures": 1, "a": ' + b"[" * 100_000, whole + b" " * (1 << 20), b'{"onnx_signatures": 1\xff'):
        path.write_bytes(content)
        assert refusal(path).kind is Kind.INVALID_INPUT
    path.write_bytes(whole)
    (path.parent / "graphs" / "twice.onnx").write_bytes(b"damaged")
    with pytest.raises(ServingError, match=r"twice\.onnx"):
        load("onnx", path)
