"""The example clients, against the example models as `make serve` serves them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.running import Running, serving
from tests.e2e.workspace import example_models, populate, run


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example_models(tmp_path_factory)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("data"), str(models)) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    made = tmp_path_factory.mktemp("workspace")
    populate(made, models)
    return made


def output(folder: Path, server: Running, *command: str) -> str:
    """What the command prints; it must succeed."""
    done = run(folder, server.url, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_open_inference_protocol(folder: Path, server: Running) -> None:
    """Classes, best classes and an error, through Triton's client."""
    printed = output(folder, server, "python", "examples/client_oip.py", server.url)
    assert "ready: True" in printed
    assert "classes: [0, 1, 2]" in printed
    assert re.search(r"best two: \['0\.\d+:0:0', '0\.\d+:1:1'\]", printed)
    assert "refused: input 'X' of model 'iris' has shape [1, 3]" in printed


def test_tensorflow_serving(folder: Path, server: Running) -> None:
    """Rows, columns, a version, a Gradient path, a digit and an error, through requests."""
    printed = output(folder, server, "python", "examples/client_tfserving.py", server.url)
    assert "version 1 is AVAILABLE" in printed
    assert "classes: [0, 1, 2]" in printed
    assert "digit: 0" in printed
    assert "refused: 400" in printed


@pytest.mark.parametrize(("frequency", "name"), [("440", "A4"), ("261.63", "C4"), ("880", "A5")])
def test_the_network_hears_the_note(folder: Path, server: Running, frequency: str, name: str) -> None:
    """A sine of 440 Hz is an A4 for basic-pitch: bin 48 of 88."""
    printed = output(folder, server, "python", "examples/client_pitch.py", server.url, frequency)
    assert f"sounds like {name} " in printed


def test_curl(folder: Path, server: Running) -> None:
    """Every answer of the script is JSON, and the metrics count its requests."""
    printed = output(folder, server, "sh", "examples/client_curl.sh", server.url)
    answers = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert len(answers) == 6
    assert answers[3]["outputs"] == [{"name": "predict", "shape": [1], "datatype": "INT64", "data": [0]}]
    assert [row["predict"] for row in answers[4]["predictions"]] == [0, 2]
    assert 'nv_inference_count{model="iris",version="1"}' in printed


def test_embedded(folder: Path, server: Running) -> None:
    """The server inside a program gives the same answers."""
    printed = output(folder, server, "python", "examples/embedded.py")
    assert "served: ('iris',)" in printed
    assert "classes: [0, 2]" in printed
    assert "refused: 404 model 'nobody' is not known to this server" in printed
