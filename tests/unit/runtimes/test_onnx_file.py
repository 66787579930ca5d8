"""The reader of ONNX files: what it finds, and that nothing upsets it."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from dragoman.runtimes.onnx_file import OnnxFile, read
from tests.models import build


def test_versions_and_opsets(tmp_path: Path) -> None:
    """IR version, and opsets by domain; the standard domain has two names."""
    facts = read(build.iris(tmp_path / "m.onnx"))
    assert facts is not None
    assert facts.ir_version == build.IR_VERSION
    assert facts.opsets == {"": build.OPSET}
    assert facts.zipmaps == {}
    assert facts.shapeless == set()


def test_domains(tmp_path: Path) -> None:
    """Opsets of other domains are kept under their names."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g", [build.value("x", "FP32", [1])], [build.value("y", "FP32", [1])]
    )
    opsets = [helper.make_opsetid("ai.onnx", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    assert read(path) == OnnxFile(ir_version=8, opsets={"": 17, "ai.onnx.ml": 3})


def test_class_labels(tmp_path: Path) -> None:
    """Labels of dictionaries, as numbers (also negative ones) and as text."""
    nodes = [
        helper.make_node("ZipMap", ["x"], ["a"], domain="ai.onnx.ml", classlabels_int64s=[-5, 0, 300]),
        helper.make_node("ZipMap", ["x"], ["b"], domain="ai.onnx.ml", classlabels_strings=["yes", "nö"]),
        helper.make_node("Identity", ["x"], ["c"]),
    ]
    graph = helper.make_graph(nodes, "g", [build.value("x", "FP32", ["N", 3])], [build.value("c", "FP32", ["N", 3])])
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    facts = read(path)
    assert facts is not None
    assert facts.zipmaps == {"a": ("-5", "0", "300"), "b": ("yes", "nö")}


@pytest.mark.parametrize(("dims", "shapeless"), [(None, {"x", "y"}), ((), set()), ((1,), set()), (("N", None), set())])
def test_unknown_rank_and_scalar_differ(dims: build.Dims | None, shapeless: set[str], tmp_path: Path) -> None:
    """Only tensors without any shape are shapeless; an empty shape is a scalar."""
    facts = read(build.identity(tmp_path / "m.onnx", "FP32", dims))
    assert facts is not None
    assert facts.shapeless == shapeless


@pytest.mark.parametrize(
    "data", [b"", b"text", b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f", b"\x08", b"\x0b\x0c", b"\x08" + b"\x80" * 20, b"\x3a\x05abc"]
)
def test_what_is_no_onnx(data: bytes, tmp_path: Path) -> None:
    """Anything else gives None, never an exception."""
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    assert read(path) is None


def test_missing_file(tmp_path: Path) -> None:
    """A file that is gone gives None."""
    assert read(tmp_path / "none.onnx") is None


def test_empty_fields_without_end(tmp_path: Path) -> None:
    """A file of millions of empty fields is given up."""
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x12\x00" * 2_100_000)
    assert read(path) is None


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """No bytes at all upset the reader."""
    path = tmp_path_factory.mktemp("bytes") / "m.onnx"
    path.write_bytes(data)
    facts = read(path)
    assert facts is None or isinstance(facts.ir_version, int)


def test_damaged_models(tmp_path: Path) -> None:
    """Nor do models with a few bytes changed or cut."""
    whole = build.slow(tmp_path / "m.onnx", width=4).read_bytes()
    generator = random.Random(5)
    path = tmp_path / "d.onnx"
    for _ in range(300):
        data = bytearray(whole[: generator.randrange(1, len(whole))])
        for _ in range(3):
            data[generator.randrange(len(data))] = generator.randrange(256)
        path.write_bytes(bytes(data))
        read(path)


def test_weights_are_skipped(tmp_path: Path) -> None:
    """A file of 32 MB is read in no more steps than a small one: its one big field is stepped over."""
    facts = read(build.large(tmp_path / "m.onnx", 32))
    assert facts is not None
    assert facts.opsets == {"": build.OPSET}
