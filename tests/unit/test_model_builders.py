"""The models that other tests serve do what their docstrings say: seen with onnxruntime alone."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.models import build


def run(path: Path, **inputs: Any) -> list[Any]:
    """All outputs of a model file for these inputs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    result: list[Any] = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, inputs)
    return result


@pytest.mark.parametrize("name", sorted(build.BUILDERS))
def test_every_builder_writes_the_same_file_twice(name: str, tmp_path: Path) -> None:
    """Builds are reproducible, and parent folders are made."""
    first = build.BUILDERS[name](tmp_path / "a" / "1" / "model.onnx")
    second = build.BUILDERS[name](tmp_path / "b.onnx")
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size < 1 << 20


def test_iris_labels_its_own_centres(tmp_path: Path) -> None:
    """Each centre gets its own label and the highest probability there."""
    label, probabilities = run(build.iris(tmp_path / "m.onnx"), X=build.IRIS_CENTRES)
    assert label.tolist() == [[0], [1], [2]]
    assert probabilities.argmax(axis=1).tolist() == [0, 1, 2]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("datatype", [name for name in build.ELEMENTS if name not in {"BF16", "BYTES"}])
def test_identity_of_every_numeric_datatype(datatype: str, tmp_path: Path) -> None:
    """What goes in comes out, of the same dtype."""

    sample = np.array([[0, 1, 1]], onnx.helper.tensor_dtype_to_np_dtype(build.ELEMENTS[datatype]))
    (out,) = run(build.identity(tmp_path / "m.onnx", datatype), x=sample)
    assert out.dtype == sample.dtype
    assert out.tolist() == sample.tolist()


def test_add_sub(tmp_path: Path) -> None:
    """Sum and difference, in that order."""
    a, b = np.full((1, 16), 5, np.int32), np.full((1, 16), 3, np.int32)
    total, difference = run(build.add_sub(tmp_path / "m.onnx"), INPUT0=a, INPUT1=b)
    assert (total[0, 0], difference[0, 0]) == (8, 2)


def test_shapes_without_batch(tmp_path: Path) -> None:
    """fixed_batch, image_mean, scalar and optional_input answer with the shapes that they declare."""
    (sums,) = run(build.fixed_batch(tmp_path / "f.onnx"), x=np.ones((2, 3), np.float32))
    assert sums.tolist() == [[3.0], [3.0]]
    (mean,) = run(build.image_mean(tmp_path / "i.onnx"), image=np.full((1, 3, 224, 224), 2, np.float32))
    assert mean.tolist() == [2.0]
    (double,) = run(build.scalar(tmp_path / "s.onnx"), x=np.array(4, np.float32))
    assert double.shape == ()
    assert double == 8.0
    x = np.ones((1, 2), np.float32)
    optional = build.optional_input(tmp_path / "o.onnx")
    assert run(optional, x=x)[0].tolist() == [[10.0, 10.0]]
    assert run(optional, x=x, factor=np.array([2], np.float32))[0].tolist() == [[2.0, 2.0]]


def test_shout_changes_text(tmp_path: Path) -> None:
    """Text comes back in capitals, one per element."""
    (out,) = run(build.shout(tmp_path / "m.onnx"), text_input=np.array(["abc", "de"], object))
    assert out.tolist() == ["ABC", "DE"]


def test_lookup_refuses_what_its_table_lacks(tmp_path: Path) -> None:
    """An index outside makes the model fail, one inside does not."""
    path = build.lookup(tmp_path / "m.onnx")
    assert run(path, index=np.array([3, -1]))[0].tolist() == [9, 81]
    with pytest.raises(Exception, match="out of data bounds"):
        run(path, index=np.array([10]))


def test_slow_answers_its_input(tmp_path: Path) -> None:
    """However many rounds are asked for, the numbers come back; no rounds are fine too."""
    path = build.slow(tmp_path / "m.onnx", width=8)
    assert run(path, rounds=np.array([3, 0]))[0].tolist() == [3, 0]
    assert run(path, rounds=np.array([0]))[0].tolist() == [0]


def test_large_is_as_large_as_asked(tmp_path: Path) -> None:
    """The file has that many megabytes of weights, and runs."""
    path = build.large(tmp_path / "m.onnx", 2)
    assert 2 << 20 <= path.stat().st_size < (2 << 20) + 4096
    assert run(path, x=np.zeros((1, 64), np.float32))[0].shape == (1, 8192)
