"""`dragoman convert` with real SavedModels and the real tf2onnx, in the virtualenv that the command makes; what comes out is served."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from dragoman.engines import bootstrap
from tests.e2e.running import Running, run, serving
from tests.models import savedmodels
from tests.models.calls import load

DATA = savedmodels.ROOT / ".clients" / "convert"
"""The data directory whose virtualenv the tests share, from run to run: it is made by content, so it is never out of date."""
_MANY = """
import json, pathlib, tempfile
from dragoman.conversion import program
from dragoman.core.errors import ServingError
for name, source, samples in json.loads(arguments[0]):
    target = pathlib.Path(tempfile.mkdtemp(dir=arguments[1])) / "1"
    target.mkdir()
    order = dict(name=name, source=source, target=str(target), tags=["serve"], signatures=[], opset=18, tolerance=1e-3, samples=samples)
    try:
        answer = program.convert(order) | {"folder": str(target)}
    except ServingError as error:
        answer = {"error": error.kind.value, "message": error.message}
    print("\\nANSWER " + json.dumps([name, answer]), flush=True)
"""


@pytest.fixture(scope="module")
def half_plus_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """TensorFlow Serving's sample, converted by the command, and what the command said."""
    folder = tmp_path_factory.mktemp("converted") / "half"
    source = savedmodels.path("half_plus_two").parent
    done = run(DATA, "convert", str(source), "--to", "onnx", "--output", str(folder), "--data-dir", str(DATA), timeout_s=110)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def server(half_plus_two: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("data"), str(half_plus_two[0])) as running:
        yield running


def test_the_command_says_what_it_did(half_plus_two: tuple[Path, str]) -> None:
    """The differences from TensorFlow, and why a signature is left out."""
    folder, said = half_plus_two
    assert "signature 'serving_default': largest difference from TensorFlow 0 (" in said
    assert "signature 'regress_x_to_y' is left out: it parses serialized tf.Examples" in said
    assert f"written to {folder / '123'}" in said
    assert "TensorFlow" not in (folder / "123" / "graphs" / "serving_default.onnx").read_bytes().decode("latin-1")


def test_the_same_signatures_are_served(server: Running) -> None:
    """Names, methods, shapes and answers are those of the SavedModel, and no process has TensorFlow."""
    metadata = requests.get(f"{server.url}/v1/models/half/metadata", timeout=10).json()
    assert metadata["model_spec"]["version"] == "123"
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert sorted(signatures) == ["regress_x2_to_y3", "serving_default"]
    assert signatures["regress_x2_to_y3"]["method_name"] == "tensorflow/serving/regress"
    x = signatures["serving_default"]["inputs"]["x"]
    assert x == {
        "dtype": "DT_FLOAT",
        "name": "x:0",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}], "unknown_rank": False},
    }
    predict = f"{server.url}/v1/models/half:predict"
    answer = requests.post(predict, json={"instances": [[1.0], [2.0], [5.0]]}, timeout=10)
    assert answer.json() == {"predictions": [[2.5], [3.0], [4.5]]}
    answer = requests.post(predict, json={"signature_name": "regress_x2_to_y3", "instances": [[1.0], [2.0]]}, timeout=10)
    assert answer.json() == {"predictions": [[3.5], [4.0]]}
    answer = requests.post(predict, json={"signature_name": "regress_x_to_y", "instances": [[1.0]]}, timeout=10)
    assert answer.status_code == 400
    assert "regress_x_to_y" in answer.json()["error"]


@pytest.fixture(scope="module")
def many(half_plus_two: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What becomes of other SavedModels, all in one process: importing TensorFlow is most of the time."""
    environment = next((DATA / "environments").glob("*/bin/python"))
    names = ("tagged", "image", "vocabulary", "classifier", "picky", "unknown_rank", "identities", "keras_dense", "slow", "missing_op")
    samples = {"picky": {"matrix": {"x": [[1, 2, 3, 4]]}}}
    orders = [[name, str(savedmodels.path(name)), samples.get(name, {})] for name in names]
    command = bootstrap.command(str(environment), _MANY, json.dumps(orders), str(tmp_path_factory.mktemp("many")))
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(json.loads(line.removeprefix("ANSWER ")) for line in done.stdout.splitlines() if line.startswith("ANSWER "))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tagged", "strings (StringJoin)"),
        ("image", "DecodePng"),
        ("vocabulary", "tables (HashTableV2, LookupTableFindV2)"),
        ("classifier", "serialized tf.Examples"),
        ("missing_op", "ParseExampleV9"),
    ],
)
def test_what_cannot_be_converted(name: str, words: str, many: dict[str, dict[str, Any]]) -> None:
    """The reason names the operations."""
    assert many[name]["error"] == "unsupported"
    assert words in many[name]["message"]


def test_what_can_be_converted(many: dict[str, dict[str, Any]]) -> None:
    """Exports of TensorFlow 2 and Keras, loops, unknown ranks, given samples, and every type but those that ONNX lacks."""
    for name, signatures in (
        ("picky", {"gather", "matrix", "serving_default"}),
        ("unknown_rank", {"serving_default"}),
        ("keras_dense", {"serve", "serving_default"}),
        ("slow", {"serving_default"}),
    ):
        assert many[name]["signatures"].keys() == signatures, many[name]
        assert all(found["relative"] < 1e-5 for found in many[name]["signatures"].values())
    types = many["identities"]
    assert types["left_out"].keys() == {"bfloat16", "complex64", "complex128"}
    assert types["signatures"].keys() > {"half", "string", "bool", "uint64", "fixed", "scalar"}


def test_ranks_and_batches_are_kept(many: dict[str, dict[str, Any]]) -> None:
    """What the SavedModel says of shapes, and whether requests may be joined, holds for the graphs."""
    model = load("onnx", Path(many["unknown_rank"]["folder"]))
    assert model.signatures[""].inputs[0].shape is None
    model = load("onnx", Path(many["picky"]["folder"]))
    assert model.signatures["matrix"].batch
    assert not model.signatures["gather"].batch
    assert model.signatures["matrix"].inputs[0].shape == (-1, -1)
