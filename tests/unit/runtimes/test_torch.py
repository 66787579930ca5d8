"""Exported PyTorch programs and TorchScript: signatures, datatypes, names, limits, options."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Model
from dragoman.core.tensors import BF16, BYTES, DATATYPES, FP32, INT64, Signature, TensorSpec
from tests.models import build, learned
from tests.models.calls import ask, load, tensor

CENTRES = build.IRIS_CENTRES
TORCH_NAMES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "BF16": "bfloat16",
    "FP32": "float32",
    "FP64": "float64",
    "COMPLEX64": "complex64",
}


def served(tmp_path: Path, data: bytes, signature: Signature | None = None, name: str = "model.pt2", **arguments: Any) -> Model:
    return load("torch", learned.write(tmp_path / name, data), signature, **arguments)


def script(tmp_path: Path, name: str, signature: Signature | None = None) -> Model:
    return served(tmp_path, learned.script(name), signature, "model.pt")


def refusal(model: Model, *tensors: Any) -> str:
    with pytest.raises(ServingError) as caught:
        ask(model, *tensors)
    assert caught.value.kind is Kind.INVALID_INPUT
    assert "'m'" in caught.value.message
    return caught.value.message


def test_exported_program(tmp_path: Path) -> None:
    """Names, datatypes and shapes come from the program; outputs are called by their keys."""
    model = served(tmp_path, learned.exported())
    signature = model.signatures[""]
    assert signature.inputs == (TensorSpec("x", FP32, (-1, 4)),)
    assert signature.outputs == (TensorSpec("label", INT64, (-1,)), TensorSpec("scores", FP32, (-1, 3)))
    assert signature.batch
    assert not model.concurrent
    answer = ask(model, tensor("x", CENTRES))
    assert answer["label"].array.tolist() == [0, 1, 2]
    assert answer["scores"].array.shape == (3, 3)


@pytest.mark.parametrize("name", sorted(TORCH_NAMES))
def test_every_datatype(name: str, tmp_path: Path) -> None:
    """Each keeps its values and bits, BF16 without a detour over another type."""
    datatype = DATATYPES[name]
    model = served(tmp_path, learned.exported_identity(TORCH_NAMES[name]))
    assert model.signatures[""].inputs == (TensorSpec("x", datatype, (-1, 2)),)
    rows: Any = {"bool": [[True, False]], "bits": [[0x3F80, 0x7FC1]], "complex": [[1 + 2j, -1j]]}.get(datatype.kind, [[0, 100]])
    array = np.array(rows * 3, datatype.numpy)
    out = ask(model, tensor("x", array.copy(), datatype))["output"]
    assert out.datatype is datatype
    assert out.array.dtype == datatype.numpy
    assert out.array.tolist() == array.tolist()
    assert ask(model, tensor("x", array[:0], datatype))["output"].array.shape == (0, 2)


def test_arguments_and_answers_in_structures(tmp_path: Path) -> None:
    """Keywords, constants and nested answers are flat tensors to clients; an answer that is no tensor is left out."""
    model = served(tmp_path, learned.exported_pair())
    signature = model.signatures[""]
    assert [t.name for t in signature.inputs] == ["a", "b"]
    assert [t.name for t in signature.outputs] == ["output_0", "output_1_0"]
    assert signature.batch
    a, b = np.ones((3, 2), np.float32), np.full((3, 2), 5, np.float32)
    answer = ask(model, tensor("b", b), tensor("a", a))
    assert answer["output_0"].array.tolist() == (a + b).tolist()
    assert answer["output_1_0"].array.tolist() == (a * 3).tolist()
    assert "needs the input 'b'" in refusal(model, tensor("a", a))


def test_limits_of_dimensions(tmp_path: Path) -> None:
    """What the program's guards would say is said in the signature's terms: ranges, and dimensions that must be equal."""
    model = served(tmp_path, learned.exported())
    for rows in (0, 1, 64):
        assert ask(model, tensor("x", np.zeros((rows, 4), np.float32)))["label"].array.shape == (rows,)
    message = refusal(model, tensor("x", np.zeros((65, 4), np.float32)))
    assert "dimension 0 of input 'x' of model 'm' is 65, expected at most 64" in message
    pair = served(tmp_path, learned.exported_pair())
    message = refusal(pair, tensor("a", np.zeros((3, 2), np.float32)), tensor("b", np.zeros((4, 2), np.float32)))
    assert "dimension 0 of input 'b' of model 'm' is 4, expected 3 as in another input" in message


def test_wrong_tensors(tmp_path: Path) -> None:
    """Shapes, ranks, datatypes and names are compared with the program's before it runs."""
    model = served(tmp_path, learned.exported())
    assert "has shape [3, 3], expected [-1, 4]" in refusal(model, tensor("x", CENTRES[:, :3]))
    assert "has shape [4], expected [-1, 4]" in refusal(model, tensor("x", CENTRES[0]))
    assert "has datatype FP64, expected FP32" in refusal(model, tensor("x", CENTRES.astype(np.float64)))
    assert "has datatype BYTES, expected FP32" in refusal(model, tensor("x", [[b"a"]]))
    assert "no input 'y'" in refusal(model, tensor("y", CENTRES))
    assert "needs the input 'x'" in refusal(model)


def test_read_only_and_strided_input(tmp_path: Path) -> None:
    """Input that PyTorch cannot share memory with is copied, not refused."""
    model = served(tmp_path, learned.exported())
    array = np.asfortranarray(CENTRES)
    array.flags.writeable = False
    assert ask(model, tensor("x", array))["label"].array.tolist() == [0, 1, 2]
    assert ask(model, tensor("x", CENTRES[::-1]))["label"].array.tolist() == [2, 1, 0]


def test_declared_signature_of_a_program(tmp_path: Path) -> None:
    """A configuration may hide outputs and name classes."""
    declared = Signature(outputs=(TensorSpec("scores", FP32, (-1, 3), labels=build.IRIS_CLASSES),), batch=True)
    model = served(tmp_path, learned.exported(), declared)
    assert model.signatures[""].outputs[0].labels == build.IRIS_CLASSES
    assert list(ask(model, tensor("x", CENTRES))) == ["scores"]


def test_script_without_configuration(tmp_path: Path) -> None:
    """TorchScript says how many tensors it takes and gives; datatypes and shapes stay open, and requests run alone."""
    model = served(tmp_path, learned.scripted(), name="model.pt")
    signature = model.signatures[""]
    assert signature.inputs == (TensorSpec("x", None, None, native="x"),)
    assert signature.outputs == (TensorSpec("output_0", None, None), TensorSpec("output_1", None, None))
    assert not signature.batch
    for datatype, array in [
        (FP32, np.ones((2, 3), np.float32)),
        (INT64, np.ones((2, 3), np.int64)),
        (BF16, np.full((2, 3), 0x3F80, np.uint16)),
    ]:
        answer = ask(model, tensor("x", array, datatype))
        assert answer["output_1"].datatype is datatype
        assert answer["output_1"].array.shape == (2, 3)
    assert answer["output_1"].array.tolist() == [[0x4000] * 3] * 2


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [(("x",), ("output_0", "output_1")), (("INPUT__0",), ("OUTPUT__0", "OUTPUT__1")), (("image",), ("sums", "doubles"))],
)
def test_script_with_declared_names(inputs: tuple[str, ...], outputs: tuple[str, ...], tmp_path: Path) -> None:
    """Its own names, names that end in a position, and any names in order all work, and declared shapes are believed."""
    declared = Signature(
        inputs=tuple(TensorSpec(name, FP32, (-1, 3)) for name in inputs),
        outputs=(TensorSpec(outputs[0], FP32, (-1,)), TensorSpec(outputs[1], FP32, (-1, 3))),
        batch=True,
    )
    model = served(tmp_path, learned.scripted(), declared, "model.pt")
    assert model.signatures[""].batch
    assert [t.name for t in model.signatures[""].inputs] == list(inputs)
    answer = ask(model, tensor(inputs[0], np.ones((2, 3), np.float32)))
    assert list(answer) == list(outputs)
    assert answer[outputs[0]].array.tolist() == [3.0, 3.0]
    assert "expected [-1, 3]" in refusal(model, tensor(inputs[0], np.ones((2, 4), np.float32)))


def test_one_of_two_declared_by_position(tmp_path: Path) -> None:
    """A configuration may serve only the second answer."""
    declared = Signature(outputs=(TensorSpec("OUTPUT__1", FP32, (-1, 3)),))
    model = served(tmp_path, learned.scripted(), declared, "model.pt")
    assert list(ask(model, tensor("x", np.ones((2, 3), np.float32)))) == ["OUTPUT__1"]
    for names in (("a", "b", "c"), ("OUTPUT__7",)):
        wrong = Signature(outputs=tuple(TensorSpec(name, None, None) for name in names))
        with pytest.raises(ServingError, match=r"names that end in __ and a position"):
            served(tmp_path, learned.scripted(), wrong, "model.pt")


def test_script_errors(tmp_path: Path) -> None:
    """With an open signature the program's refusal is the caller's fault: its last line, not its traceback."""
    model = served(tmp_path, learned.scripted_matrix(), name="model.pt")
    message = refusal(model, tensor("x", np.ones((2, 5), np.float32)))
    assert "mat1 and mat2 shapes cannot be multiplied (2x5 and 4x3)" in message
    assert "\n" not in message
    assert "__torch__" not in message
    fixed = Signature(inputs=(TensorSpec("x", FP32, (-1, 5)),), batch=True)
    model = served(tmp_path, learned.scripted_matrix(), fixed, "model.pt")
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        ask(model, tensor("x", np.ones((2, 5), np.float32)))


def test_script_answers_of_other_kinds(tmp_path: Path) -> None:
    """Dictionaries are outputs by key, lists by position; only the answer shows how many there are."""
    x = tensor("x", np.ones((1, 2), np.float32))
    model = script(tmp_path, "dict")
    assert model.signatures[""].outputs == ()
    answer = ask(model, x)
    assert {name: t.array.tolist() for name, t in answer.items()} == {"twice": [[2.0, 2.0]], "half": [[0.5, 0.5]]}
    assert list(ask(model, x, outputs=("half",))) == ["half"]
    with pytest.raises(ServingError, match="no output 'third'"):
        ask(model, x, outputs=("third",))
    declared = script(tmp_path, "dict", Signature(outputs=(TensorSpec("half", FP32, (-1, 2)),)))
    assert list(ask(declared, x)) == ["half"]
    assert list(ask(script(tmp_path, "list"), x)) == ["output_0", "output_1", "output_2"]


def test_script_arguments_of_other_kinds(tmp_path: Path) -> None:
    """Optional tensors are optional inputs; other arguments keep their defaults, or cannot be served."""
    x, y = tensor("x", np.ones(2, np.float32)), tensor("y", np.full(2, 5, np.float32))
    model = script(tmp_path, "optional")
    assert [(t.name, t.optional) for t in model.signatures[""].inputs] == [("x", False), ("y", True)]
    assert ask(model, x)["output"].array.tolist() == [1.0, 1.0]
    assert ask(model, x, y)["output"].array.tolist() == [6.0, 6.0]
    model = script(tmp_path, "default")
    assert [t.name for t in model.signatures[""].inputs] == ["x"]
    assert ask(model, x)["output"].array.tolist() == [5.0, 5.0]
    with pytest.raises(ServingError, match="the input 'times' of model 'm' is of type int, expected a Tensor") as caught:
        script(tmp_path, "number")
    assert caught.value.kind is Kind.UNSUPPORTED


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "gpu", "mps", "tpu", "cpu:x", "CUDA:-1"])
def test_devices_that_are_not_there(device: str, tmp_path: Path) -> None:
    """The error names those that are; this test is for machines without the device."""
    if device.lower().startswith(("cuda", "gpu")) and torch.cuda.is_available():
        device = "cuda:9999"
    if device == "mps" and torch.backends.mps.is_available():
        device = "tpu"
    with pytest.raises(ServingError, match="asks for the device") as caught:
        served(tmp_path, learned.exported(), device=device)
    assert caught.value.kind is Kind.UNSUPPORTED
    assert "cpu" in caught.value.message


def test_device_of_choice(tmp_path: Path) -> None:
    """The processor may be named, in any case."""
    assert served(tmp_path, learned.exported(), device="CPU").platform == "pytorch_export"
    assert served(tmp_path, learned.scripted(), name="model.pt", device="cpu:0").platform == "pytorch_torchscript"


def test_threads_are_the_processes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """PyTorch has one number of threads for all models: a wish is granted and logged, the server's share is taken in silence."""
    before = torch.get_num_threads()
    try:
        with caplog.at_level(logging.WARNING):
            served(tmp_path, learned.exported(), threads=before)
            served(tmp_path, learned.exported(), processors=before + 2)
            assert torch.get_num_threads() == before + 2
            assert caplog.records == []
            served(tmp_path, learned.exported(), threads=before + 1, processors=before + 2)
        assert torch.get_num_threads() == before + 1
        assert f"from {before + 2} to {before + 1} threads, for every PyTorch model of this process" in caplog.text
    finally:
        torch.set_num_threads(before)


def test_no_gradients_are_kept(tmp_path: Path) -> None:
    """Programs with parameters run without building graphs for training: their answers are plain arrays."""
    answer = ask(served(tmp_path, learned.exported()), tensor("x", CENTRES))
    assert all(type(t.array) is np.ndarray for t in answer.values())
    assert BYTES not in {t.datatype for t in answer.values()}
