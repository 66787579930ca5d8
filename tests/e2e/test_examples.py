"""The example clients, against the example models as `make serve` serves them."""

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.running import Running, serving
from tests.e2e.running import run as run_command
from tests.e2e.workspace import READING, ROOT, example_models, populate, run


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example_models(tmp_path_factory)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("data"), str(models), READING) as running:
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


def test_a_python_model(folder: Path, server: Running) -> None:
    """One function, the same answers in three protocols, and a refusal before it is asked."""
    printed = output(folder, server, "python", "examples/python/client.py", server.url)
    assert "predictions: success [(9, 2.3, 'easy'), (9, 4.7, 'hard')]" in printed
    assert "instances: ['easy', 'hard']" in printed
    assert "tensors: {'words': [9, 9], 'seconds': [2.3, 2.3], 'level': ['easy', 'hard']}" in printed
    assert "refused: 422 ['body', '__root__', 0, 'words_per_minute']" in printed


# --- Tungsten projects: each is served as it lies there, and its own client is run ---


def client(project: str, folder: Path, server: Running, *arguments: str) -> str:
    return output(folder, server, "python", str(ROOT / "examples" / "tungsten" / project / "client.py"), server.url, *arguments)


def test_shout_answers_a_crowd_in_batches(tmp_path: Path, folder: Path) -> None:
    """Options, a batch of several clients, and a choice that there is not."""
    with serving(tmp_path, "examples/tungsten/shout") as server:
        printed = client("shout", folder, server)
    assert "required: ['text'] voices: ['loud', 'polite', 'whisper']" in printed
    assert "success ['GOOD MORNING!', 'good night']" in printed
    largest = re.search(r"largest batch: (\d+)", printed)
    assert largest is not None
    assert 1 < int(largest[1]) <= 8
    assert "all right: True" in printed
    assert "refused: 422 ['body', '__root__', 0, 'voice'] unexpected value; permitted: 'loud', 'polite', 'whisper'" in printed


def test_thumbnail_has_a_virtualenv_of_its_own(tmp_path: Path) -> None:
    """It is built with Pillow when the model is served, in use while it runs, and removed when nothing uses it any more."""
    folder = tmp_path / "pictures"
    populate(folder, ROOT)
    with serving(tmp_path / "share", "examples/tungsten/thumbnail", "--environments", "always") as server:
        printed = client("thumbnail", folder, server)
        (environment,) = json.loads(run_command(tmp_path / "share", "env", "list", "--output", "json").stdout)
        assert environment["packages"] == ["pillow"]
        assert environment["in_use"]
    assert "-> 128 x 72, " in printed
    sizes = []
    for number in (1, 2, 3):
        picture = (folder / f"thumbnail-{number}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        sizes.append(struct.unpack_from(">IIxB", picture, 16))
    assert sizes == [(128, 72, 2), (64, 36, 2), (64, 36, 0)], "width, height, and 0 for grey"
    removed = run_command(tmp_path / "share", "env", "collect", "--unused-days", "0")
    assert removed.returncode == 0, removed.stderr
    assert "there are no environments" in run_command(tmp_path / "share", "env", "list").stdout


def test_slow_can_be_followed_and_stopped(tmp_path: Path, folder: Path) -> None:
    """Polled from pending to success, its prints read while it runs, and cancelled in the middle of a step."""
    with serving(tmp_path, "examples/tungsten/slow") as server:
        printed = client("slow", folder, server, "0.2")
    assert re.search(r"predictions: .*-> success \[\{'result': 'soup is served'", printed)
    assert [f"step {n} of 4" in printed for n in (1, 2, 3, 4)] == [True] * 4
    assert "demo: success" in printed
    assert "4. stir the soup" in printed
    assert "cancelled: failed Canceled" in printed
    assert "the next one was served soon" in printed
