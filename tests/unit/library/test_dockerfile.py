"""The Dockerfile of a stored model, and the folder that docker gets. T6 of the Tungsten requirements, without a daemon."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from dragoman import __version__
from dragoman.core.errors import ServingError
from dragoman.serving.library.dockerfile import LARGE, dockerfile, write_context
from dragoman.serving.library.library import Library, Prepared, Stored
from dragoman.serving.library.specs import kept, read_record
from dragoman.serving.repository import Defaults, Repository
from tests.fakes_store import FakeStore
from tests.models import build
from tests.unit.library.projects import project, put


def stored(root: Path, declared: dict[str, Any] | None = None, kind: str = "tungsten", name: str = "team/text", **spec: Any) -> Stored:
    library = Library(FakeStore(), root / "models")
    place = library.stage()
    if kind == "onnx":
        build.iris(place / "model" / "iris.onnx")
        content: dict[str, Any] = {}
    else:
        project(place / "model")
        put(place / "model" / "requirements.txt", "colorama\n")
        content = kept("", "tungsten_model", "Echo", declared or {}) | spec
    return asyncio.run(library.add(Prepared(place / "model", kind, content), name, "1"))


def text_of(root: Path, declared: dict[str, Any] | None = None, **more: Any) -> str:
    return dockerfile(stored(root, declared, **more))[0]


def instructions(text: str) -> list[str]:
    return [line.split(" ", 1)[0] for line in text.splitlines() if line and not line.startswith("#")]


def test_a_plain_image(tmp_path: Path) -> None:
    """Serves the model on 3000, as nobody in particular, from the usual base; words behind its name are options."""
    text = text_of(tmp_path)
    assert "FROM python:3.11-slim\n" in text
    assert f"ARG DRAGOMAN=dragoman=={__version__}\n" in text
    assert "EXPOSE 3000\n" in text
    entry = json.loads(re.findall(r"^ENTRYPOINT (.+)$", text, re.MULTILINE)[0])
    assert entry == ["dragoman", "serve", "text=/model", "--host", "0.0.0.0", "--port", "3000"]
    order = instructions(text)
    assert order[0] == "FROM"
    assert order.index("USER") > max(i for i, word in enumerate(order) if word in ("RUN", "COPY"))
    assert "USER 10001" in text
    assert "requirements.txt" not in text.replace("COPY --chown=10001 model/ /model/", "")


def test_what_is_declared(tmp_path: Path) -> None:
    """System packages, Python packages, the author's instructions, in an order that keeps layers."""
    declared = {
        "python_version": "3.12",
        "system_packages": ["ffmpeg", "libsm6=1.2"],
        "python_packages": ["torch==2.3", "numpy<3", "tungstenkit"],
        "dockerfile_commands": ["RUN echo 'done'", "ENV A=b"],
    }
    made = stored(tmp_path, declared)
    text, notes = dockerfile(made)
    assert "FROM python:3.12-slim" in text
    assert "apt-get install -y --no-install-recommends ffmpeg libsm6=1.2 &&" in text
    assert "RUN pip install --no-cache-dir torch==2.3 'numpy<3'\n" in text
    assert (
        text.index("apt-get")
        < text.index("torch")
        < text.index("ARG DRAGOMAN")
        < text.index("COPY --chown=10001 model/")
        < text.index("RUN echo")
    )
    assert text.index("ENV A=b") < text.index("USER")
    assert "tungstenkit" in notes[0]


def test_python_versions_that_are_too_old(tmp_path: Path) -> None:
    """Become one that can run the server, with a note."""
    text, notes = dockerfile(stored(tmp_path, {"python_version": "3.8"}))
    assert "FROM python:3.11-slim" in text
    assert "3.8" in notes[0]


@pytest.mark.parametrize(
    ("declared", "base"),
    [
        ({"gpu": True}, "nvidia/cuda:12.4.1-cudnn-runtime-ubuntu22.04"),
        ({"gpu": True, "cuda_version": "11.8"}, "nvidia/cuda:11.8.0-cudnn8-runtime-ubuntu22.04"),
        ({"gpu": True, "cuda_version": "12.1.0"}, "nvidia/cuda:12.1.1-cudnn8-runtime-ubuntu22.04"),
    ],
)
def test_gpu_images(tmp_path: Path, declared: dict[str, Any], base: str) -> None:
    """CUDA's base, and a Python that is new enough, which it lacks."""
    text = text_of(tmp_path, declared | {"system_packages": ["ffmpeg"]})
    assert f"FROM {base}\n" in text
    assert "uv venv --seed --python 3.11 /opt/venv" in text
    assert "python3-pip ffmpeg" in text


def test_an_image_of_ones_own(tmp_path: Path) -> None:
    """Nothing is installed into it but the server."""
    declared = {"base_image": "mine:1", "python_packages": ["torch"], "system_packages": ["ffmpeg"], "gpu": True}
    text, notes = dockerfile(stored(tmp_path, declared))
    assert "FROM mine:1\n" in text
    assert "torch" not in text
    assert "ffmpeg" not in text
    assert "useradd" not in text
    assert "base_image" in notes[-1]


@pytest.mark.parametrize(
    "declared",
    [
        {"system_packages": ["ffmpeg; rm -rf /"]},
        {"system_packages": ["-o=x"]},
        {"system_packages": "ffmpeg"},
        {"system_packages": [3]},
        {"base_image": "a\nRUN x"},
        {"base_image": "a b"},
        {"base_image": 3},
        {"python_packages": ["a\nRUN x"]},
        {"python_packages": ["--index-url=http://x"]},
        {"gpu": True, "cuda_version": "9.0"},
        {"gpu": True, "cuda_version": "12.4\nRUN x"},
        {"dockerfile_commands": "RUN x"},
        {"dockerfile_commands": [3]},
    ],
)
def test_declarations_that_would_be_something_else(tmp_path: Path, declared: dict[str, Any]) -> None:
    """A package is no instruction."""
    with pytest.raises(ServingError):
        text_of(tmp_path, declared)


def test_requirements_with_quotes_are_quoted(tmp_path: Path) -> None:
    """For the shell of the image."""
    assert """'a; python_version < "3.12"'""" in text_of(tmp_path, {"python_packages": ['a; python_version < "3.12"']})


def test_plain_models_and_artifacts(tmp_path: Path) -> None:
    """The first bring a requirements file, the second need a framework."""
    plain = text_of(tmp_path / "a", kind="python")
    assert "RUN pip install --no-cache-dir -r /tmp/requirements.txt" in plain
    assert f"ARG DRAGOMAN=dragoman[onnx]=={__version__}" in text_of(tmp_path / "b", kind="onnx")


def test_the_context(tmp_path: Path) -> None:
    """It has every file, and is a model that `serve` takes as it lies there."""
    made = stored(tmp_path, {"batch_size": 7})
    write_context(made, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["Dockerfile", "model"]
    model = tmp_path / "out" / "model"
    assert {f.path for f in made.files} | {"dragoman.json"} == {p.relative_to(model).as_posix() for p in model.rglob("*") if p.is_file()}
    assert read_record(model) == ("tungsten", made.version.spec)
    (found,) = Repository([f"text={model}"], Defaults()).discover()
    assert (found.name, found.versions["1"].batch.max_size, found.versions["1"].arguments["class"]) == ("text", 7, "Echo")


def test_large_files_have_layers_of_their_own(tmp_path: Path) -> None:
    """They come first, and by numbers, whatever they are called."""
    library = Library(FakeStore(), tmp_path / "models")
    place = library.stage()
    project(place / "model")
    for name, size in (("big $x [1].bin", LARGE), ("small.bin", LARGE - 1)):
        with (place / "model" / name).open("wb") as file:
            file.truncate(size)
    made = asyncio.run(library.add(Prepared(place / "model", "tungsten", kept("", "tungsten_model", "Echo", {})), "m", "1"))
    write_context(made, tmp_path / "out")
    text = (tmp_path / "out" / "Dockerfile").read_text()
    assert 'COPY --chown=10001 ["large/0", "/model/big \\\\$x [1].bin"]\n' in text
    assert text.index("large/0") < text.index("model/ /model/")
    assert (tmp_path / "out" / "large" / "0").stat().st_size == LARGE
    assert not (tmp_path / "out" / "model" / "big $x [1].bin").exists()
    assert (tmp_path / "out" / "model" / "small.bin").exists()


def test_a_damaged_model_makes_no_image(tmp_path: Path) -> None:
    """Nor is anything written."""
    made = stored(tmp_path)
    (made.folder / "helper.py").write_text("changed")
    with pytest.raises(ServingError, match="damaged"):
        write_context(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()
