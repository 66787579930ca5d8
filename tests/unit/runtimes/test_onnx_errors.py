"""Files that onnxruntime does not open: the message says what the file needs, what is there, and what to do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from onnx import helper

from dragoman.core.errors import Kind, ServingError
from dragoman.runtimes.onnx_errors import at_load, at_run, plain
from tests.models import build
from tests.models.calls import load

VERSION = onnxruntime.__version__


def changed(path: Path, change: Callable[[Any], None]) -> Path:
    """The iris model with a change."""
    proto = onnx.load(str(build.iris(path)))
    change(proto)
    path.write_bytes(proto.SerializeToString())
    return path


def refusal(path: Path) -> ServingError:
    with pytest.raises(ServingError) as caught:
        load("onnx", path)
    assert "'m'" in caught.value.message
    assert "\n" not in caught.value.message
    assert str(path.parent) not in caught.value.message
    assert "onnxruntime_src" not in caught.value.message
    return caught.value


def test_ir_version(tmp_path: Path) -> None:
    """A file from the future: its version and opset, what is installed, what that reads, and both ways out."""

    def change(proto: Any) -> None:
        proto.ir_version = 99

    error = refusal(changed(tmp_path / "model.onnx", change))
    assert error.kind is Kind.UNSUPPORTED
    assert "ONNX IR version 99 (opset 18)" in error.message
    assert f"onnxruntime {VERSION} reads at most IR version" in error.message
    assert "install a newer onnxruntime" in error.message
    assert "when exporting" in error.message


def test_opset(tmp_path: Path) -> None:
    """The same for an opset, of the standard domain or another."""

    def standard(proto: Any) -> None:
        proto.opset_import[0].version = 99

    error = refusal(changed(tmp_path / "model.onnx", standard))
    assert error.kind is Kind.UNSUPPORTED
    assert "uses opset 99, but" in error.message
    assert f"onnxruntime {VERSION} knows opsets up to" in error.message

    def other(proto: Any) -> None:
        proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 99))

    assert "opset 99 of the domain 'ai.onnx.ml'" in refusal(changed(tmp_path / "model.onnx", other)).message


def test_operators_that_are_missing(tmp_path: Path) -> None:
    """An operator of somebody's own, or one that does not exist, is named."""

    def own(proto: Any) -> None:
        proto.graph.node[0].domain = "com.example"
        proto.opset_import.append(helper.make_opsetid("com.example", 1))

    error = refusal(changed(tmp_path / "model.onnx", own))
    assert error.kind is Kind.UNSUPPORTED
    assert "the operator com.example:Gemm" in error.message

    def unknown(proto: Any) -> None:
        proto.graph.node[0].op_type = "Gemmm"

    assert "the operator Gemmm" in refusal(changed(tmp_path / "model.onnx", unknown)).message


def test_graphs_that_make_no_sense(tmp_path: Path) -> None:
    """onnxruntime's own reason is given."""

    def change(proto: Any) -> None:
        proto.graph.node[0].input[0] = "nowhere"

    error = refusal(changed(tmp_path / "model.onnx", change))
    assert error.kind is Kind.INVALID_INPUT
    assert "cannot open 'model.onnx'" in error.message
    assert "nowhere" in error.message


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A model whose weights are in weights.bin beside it."""
    path = build.iris(tmp_path / "model" / "model.onnx")
    onnx.save(onnx.load(str(path)), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def relocate(path: Path, location: str) -> None:
    proto = onnx.load(str(path), load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(proto.SerializeToString())


def test_external_weights_must_be_there(external: Path) -> None:
    """Missing or short weights are named."""
    weights = external.parent / "weights.bin"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:8])
    error = refusal(external)
    assert error.kind is Kind.INVALID_INPUT
    assert "must be complete" in error.message
    weights.unlink()
    assert "weights.bin" in refusal(external).message


def test_external_weights_stay_in_their_folder(external: Path, tmp_path: Path) -> None:
    """A model file cannot make the server read files elsewhere: not by a path upwards, an absolute one, or a link."""
    weights = external.parent / "weights.bin"
    outside = tmp_path / "outside.bin"
    outside.write_bytes(weights.read_bytes())
    for location in ("../outside.bin", str(outside)):
        relocate(external, location)
        error = refusal(external)
        assert error.kind is Kind.INVALID_INPUT
        assert "inside the model's folder" in error.message
        assert str(tmp_path) not in error.message
    relocate(external, "weights.bin")
    weights.unlink()
    weights.symlink_to(outside)
    error = refusal(external)
    assert "inside the model's folder" in error.message
    assert str(outside) not in error.message


MESSAGES = [
    ("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Invalid input name: Y", "Invalid input name: Y"),
    (
        (
            "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: X for the following indices\n "
            "index: 1 Got: 5 Expected: 4\n"
            " Please fix either the inputs/outputs or the model."
        ),
        "Got invalid dimensions for input: X for the following indices index: 1 Got: 5 Expected: 4",
    ),
    (
        (
            "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Add node. Name:'' Status Message: "
            "/onnxruntime_src/onnxruntime/core/providers/cpu/math/element_wise_ops.h:563 void onnxruntime::BroadcastIterator::Init(ptrdiff_t, "
            "ptrdiff_t) axis == 1 || axis == largest was false. Attempting to broadcast an axis by a dimension other than 1. 3 by 4\n"
        ),
        "Add: Attempting to broadcast an axis by a dimension other than 1. 3 by 4",
    ),
    (
        (
            "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Concat node. Name:'' Status Message: concatbase.h:133 "
            "PrepareForComputeImpl Non concat axis dimensions must match: Axis 1 has mismatched dimensions of 4 and 3"
        ),
        "Concat: Non concat axis dimensions must match: Axis 1 has mismatched dimensions of 4 and 3",
    ),
    (
        (
            "[ONNXRuntimeError] : 1 : FAIL : Exception during initialization: /onnxruntime_src/onnxruntime/core/optimizer/initializer.cc:51 "
            "onnxruntime::Initializer::Initializer(const onnx::TensorProto&, const std::filesystem::__cxx11::path&) [ONNXRuntimeError] : 1 : FAIL : "
            "tensorprotoutils.cc:1876 GetExtDataFromTensorProto External initializer: bias offset: 48 size to read: 12"
        ),
        "External initializer: bias offset: 48 size to read: 12",
    ),
    (
        (
            "[ONNXRuntimeError] : 1 : FAIL : /src/text/string_normalizer.cc:235 onnxruntime::StringNormalizer::Locale::Locale(const "
            "std::string&)::<lambda()> Failed to construct locale with name:en_US.UTF-8"
        ),
        "Failed to construct locale with name:en_US.UTF-8",
    ),
    ("[ONNXRuntimeError] : 3 : NO_SUCHFILE : Load model from /a/b.onnx failed:Load model /a/b.onnx failed. File doesn't exist", None),
    ("plain words", "plain words"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "expected"), MESSAGES)
def test_plain_words(text: str, expected: str | None) -> None:
    """Codes, source files, functions and their types are cut away; the reason stays."""
    result = plain(text)
    if expected is not None:
        assert result == expected
    assert "ONNXRuntimeError" not in result
    assert not result.startswith("Load model from")


def test_long_messages_are_cut() -> None:
    """However long onnxruntime's message is, and however it is nested, the answer is short and quick."""
    assert len(plain("x.cc:1 " + "(" * 100_000)) <= 500
    assert len(plain("a/" * 50_000)) <= 500


def test_other_exceptions_stay_what_they_are() -> None:
    """Only what blames the input is turned into an error of the caller."""
    error = MemoryError("no memory")
    assert at_run(error, "m", dimensions_open=True) is error
    missing = at_run(ValueError("Required inputs (['X']) are missing"), "m", dimensions_open=False)
    assert isinstance(missing, ServingError)
    assert missing.kind is Kind.INVALID_INPUT


def test_opset_is_left_out_when_the_file_does_not_say(tmp_path: Path) -> None:
    """A version error about a file that cannot be read any more still names the version."""
    error = at_load(RuntimeError("Unsupported model IR version: 14, max supported IR version: 13"), "m", tmp_path / "gone.onnx", "1.0")
    assert "ONNX IR version 14, but onnxruntime 1.0 reads at most IR version 13" in error.message
