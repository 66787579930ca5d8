"""model_warmup: samples as arrays, from made-up data and from files beside the configuration."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import DATATYPES, pack_bytes
from dragoman.serving.triton import read_config, translate

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "triton"
NOWHERE = Path("/nonexistent")


def samples_of(inputs: str, more: str = "batch_size: 1", config: str = "", folder: Path = NOWHERE) -> Any:
    text = f"{config} model_warmup {{ {more} {inputs} }}"
    return translate(read_config(text, "m"), folder).warmup


def one(fields: str) -> str:
    """The inputs of a sample with one tensor named x."""
    return f'inputs {{ key: "x" value {{ {fields} }} }}'


def refused(inputs: str, more: str = "batch_size: 1", config: str = "", folder: Path = NOWHERE) -> str:
    with pytest.raises(ServingError) as caught:
        samples_of(inputs, more, config, folder)
    assert caught.value.kind is Kind.INVALID_INPUT
    assert caught.value.message.startswith("config.pbtxt of model 'm': model_warmup[0]")
    return caught.value.message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder with the data files of the sample configuration."""
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup" / "pixels").write_bytes(np.arange(6, dtype="<f4").tobytes())
    (tmp_path / "warmup" / "text").write_bytes(pack_bytes(np.array(["\u00e4".encode(), b""], dtype=object)))
    return tmp_path


def test_samples_of_a_file(folder: Path) -> None:
    """Made-up and stored ones, repeated along the batch; `count` is how often to run them."""
    made_up, stored = translate(read_config((GOLDEN / "warm.pbtxt").read_bytes(), "warm"), folder).warmup
    assert (made_up["name"], made_up["count"]) == ("made up", 1)
    assert (made_up["inputs"]["pixels"].shape, made_up["inputs"]["pixels"].dtype) == ((2, 3, 2), np.float32)
    assert made_up["inputs"]["text"].tolist() == [[b"", b""]] * 2
    assert (stored["name"], stored["count"]) == ("stored", 5)
    assert stored["inputs"]["pixels"].tolist() == [[[0, 1], [2, 3], [4, 5]]]
    assert stored["inputs"]["text"].tolist() == [["\u00e4".encode(), b""]]


@pytest.mark.parametrize("name", [name for name in DATATYPES if not name.startswith("COMPLEX")])
@pytest.mark.parametrize("data", ["zero_data: true", "random_data: true", "zero_data: false"])
def test_every_datatype_can_be_made_up(name: str, data: str) -> None:
    """In its own dtype, finite and small; whether the flag says true or false is not looked at, as in Triton."""
    config_name = "STRING" if name == "BYTES" else name
    (sample,) = samples_of(one(f"data_type: TYPE_{config_name} dims: [ 2, 3 ] {data}"))
    array = sample["inputs"]["x"]
    assert (array.shape, array.dtype) == ((2, 3), DATATYPES[name].numpy)
    if name == "BYTES":
        assert set(array.ravel()) == {b""}
    elif name == "BF16":
        assert np.all((array.astype(np.uint32) << 16).view(np.float32) <= 1)
    else:
        assert np.all((array >= 0) & (array <= 1))
    assert data == "random_data: true" or not array.any()


def test_random_data_are_the_same_each_time() -> None:
    """A load that fails on them fails again, and can be looked into."""
    text = one("data_type: TYPE_FP32 dims: [ 100 ] random_data: true")
    first, second = samples_of(text)[0]["inputs"]["x"], samples_of(text)[0]["inputs"]["x"]
    assert np.array_equal(first, second)
    assert len(set(first)) > 50


def test_a_scalar_and_an_unnamed_sample() -> None:
    """No dims is a scalar; a sample without a name is called by its place."""
    (sample,) = samples_of(one("data_type: TYPE_INT64 zero_data: true"))
    assert (sample["name"], sample["inputs"]["x"].shape) == ("0", ())


def test_the_batch_is_a_view() -> None:
    """A large batch of one item costs the memory of one item."""
    (sample,) = samples_of(one("data_type: TYPE_FP32 dims: [ 1000 ] zero_data: true"), "batch_size: 1000", "max_batch_size: 1000")
    array = sample["inputs"]["x"]
    assert array.shape == (1000, 1000)
    assert array.strides[0] == 0
    assert not array.flags.writeable


def test_a_sample_of_no_requests_is_none() -> None:
    """Triton skips batch size 0, which is also what a sample without batch_size has."""
    assert samples_of(one("data_type: TYPE_FP32 dims: 1 zero_data: true"), "") == ()


def test_a_longer_file_is_enough(folder: Path) -> None:
    """The beginning is taken, as in Triton."""
    (sample,) = samples_of(one('data_type: TYPE_FP32 dims: 2 input_data_file: "pixels"'), folder=folder)
    assert sample["inputs"]["x"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("inputs", "more", "config", "expected"),
    [
        (
            one("data_type: TYPE_FP32 dims: 1 zero_data: true"),
            "batch_size: 2",
            "",
            "batch_size is 2, expected 1 because max_batch_size is 0",
        ),
        (one("data_type: TYPE_FP32 dims: 1 zero_data: true"), "batch_size: 9", "max_batch_size: 8", "expected 1 to max_batch_size (8)"),
        (one("data_type: TYPE_FP32 dims: 1 zero_data: true"), "batch_size: 1 count: 1001", "", "count is 1001, at most 1000"),
        ("", "batch_size: 1", "", "expected inputs"),
        (one("dims: 1 zero_data: true"), "batch_size: 1", "", "input 'x': expected data_type"),
        (one("data_type: 99 dims: 1 zero_data: true"), "batch_size: 1", "", "data_type 99 is not known"),
        (one("data_type: TYPE_FP32 dims: [ 1, -1 ] zero_data: true"), "batch_size: 1", "", "dims are [1, -1], expected only fixed"),
        (one("data_type: TYPE_FP32 dims: 0 zero_data: true"), "batch_size: 1", "", "0 is not a dimension"),
        (one("data_type: TYPE_FP32 dims: 1"), "batch_size: 1", "", "expected zero_data, random_data or input_data_file"),
        (one("data_type: TYPE_FP32 dims: [ 100000, 100000 ] zero_data: true"), "batch_size: 1", "", "more than 256 MiB together"),
        (one(f"data_type: TYPE_INT8 dims: [ {2**62}, 4 ] zero_data: true"), "batch_size: 1", "", "more than 256 MiB together"),
        (one("data_type: TYPE_STRING dims: [ 40000000 ] zero_data: true"), "batch_size: 1", "", "more than 256 MiB together"),
    ],
)
def test_samples_that_cannot_be(inputs: str, more: str, config: str, expected: str) -> None:
    """Before anything is allocated; the sample and the input are named."""
    assert expected in refused(inputs, more, config)


def test_all_samples_share_one_bound() -> None:
    """Many samples that are fine alone are too much together."""
    sample = f"model_warmup {{ batch_size: 1 {one('data_type: TYPE_UINT8 dims: [ 67108864 ] zero_data: true')} }}"
    assert len(translate(read_config(sample * 4, "m"), NOWHERE).warmup) == 4
    with pytest.raises(ServingError, match=r"model_warmup\[4\]: input 'x': the samples hold more than 256 MiB"):
        translate(read_config(sample * 5, "m"), NOWHERE)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ('data_type: TYPE_FP32 dims: 7 input_data_file: "pixels"', "has 24 bytes, expected 28"),
        ('data_type: TYPE_STRING dims: 3 input_data_file: "text"', "does not hold 3 length-prefixed elements"),
        ('data_type: TYPE_STRING dims: 1 input_data_file: "text"', "left over"),
        ('data_type: TYPE_STRING dims: 2 input_data_file: "pixels"', "length-prefixed"),
        ('data_type: TYPE_FP32 dims: 1 input_data_file: "missing"', "cannot be read"),
        ('data_type: TYPE_FP32 dims: 1 input_data_file: ""', "expected a path inside"),
        ('data_type: TYPE_FP32 dims: 1 input_data_file: "../warmup/pixels"', "without '..'"),
        ('data_type: TYPE_FP32 dims: 1 input_data_file: "/etc/hostname"', "expected a path inside"),
        ('data_type: TYPE_FP32 dims: 1 input_data_file: "out"', "leads out of the model's folder"),
    ],
)
def test_data_files_that_are_refused(folder: Path, fields: str, expected: str) -> None:
    """Too short, of another form, not there, or not in the folder `warmup`."""
    (folder / "config.pbtxt").write_text("x")
    (folder / "warmup" / "out").symlink_to(folder / "config.pbtxt")
    error = refused(one(fields), folder=folder)
    assert "input 'x': input_data_file" in error
    assert expected in error
