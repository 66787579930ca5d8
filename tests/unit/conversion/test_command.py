"""`dragoman convert` in this process: what it takes, refuses and leaves behind. What the conversion itself does is tested end to end."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dragoman.cli import main, parse
from dragoman.conversion import NEWEST_PYTHON, Order, environment, to_onnx
from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Environment
from dragoman.engines.environment import Environments
from dragoman.engines.requirements import from_model
from tests import wheels

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run `dragoman convert` with arguments; returns its exit code and what it says of the error."""

    def call(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as caught:
            main(["convert", *arguments, "--data-dir", str(tmp_path / "data")])
        assert isinstance(caught.value.code, int)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return caught.value.code, printed.err

    return call


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with versions of what looks like a SavedModel."""
    for version in ("3", "00000012"):
        (tmp_path / "half" / version).mkdir(parents=True)
        (tmp_path / "half" / version / "saved_model.pb").write_bytes(b"")
    return tmp_path / "half"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "there is no SavedModel in"),
        (["{folder}/.."], "there is no SavedModel in"),
        (["{folder}", "--opset", "30"], "--opset is 30"),
        (["{folder}", "--tolerance", "nan"], "--tolerance is nan"),
        (["{folder}", "--tolerance", "-1"], "--tolerance is -1"),
        (["{folder}", "--sample", "{folder}/no.json"], "'no.json' cannot be read"),
        (["{folder}", "--sample", "{folder}/3/saved_model.pb"], "is not JSON"),
        (["{folder}", "--sample", "{folder}/list.json"], '"inputs"'),
        (["{folder}", "--sample", "{folder}/name.json"], "'signature_name'"),
        (["{folder}", "--python", "new"], "new"),
        (["{folder}", "--tensorflow", "2; os_name"], "tensorflow"),
    ],
)
def test_wrong_commands(arguments: list[str], words: str, command: Command, saved: Path) -> None:
    """Each says what is wrong, before anything is installed."""
    (saved / "list.json").write_text("[]")
    (saved / "name.json").write_text('{"inputs": {}, "signature_name": 1}')
    code, error = command(*[each.format(folder=saved) for each in arguments])
    assert code == 2
    assert words in error


def test_what_is_there_is_not_replaced(command: Command, saved: Path) -> None:
    """The highest version is taken, under its number without zeros; a folder that exists is left alone."""
    target = saved.parent / "out" / "12"
    target.mkdir(parents=True)
    code, error = command(str(saved), "--output", str(target.parent))
    assert code == 1
    assert f"{target} exists already" in error
    assert list(target.iterdir()) == []


def test_defaults() -> None:
    """ONNX, all signatures, the tag `serve`."""
    options = parse(["convert", "folder"])
    assert (options.to, options.signature, options.tags, options.opset) == ("onnx", [], "serve", 18)


def test_the_environment() -> None:
    """tf2onnx exactly, TensorFlow in a range or as asked for; all of it is what a model file may name, too."""
    usual = environment()
    assert len(from_model(usual.packages)) == 3
    assert any(package.startswith("tf2onnx==") for package in usual.packages)
    assert environment("3.12", "2.18.*").python == "3.12"
    assert any(package.endswith("==2.18.*") for package in environment("", "2.18.*").packages)
    assert usual.python in ("", "{}.{}".format(*NEWEST_PYTHON))


def failure(order: Order, target: Path, environments: Environments, wanted: Environment) -> ServingError:
    with pytest.raises(ServingError) as caught:
        asyncio.run(to_onnx(order, target, wanted, environments, lambda _: None))
    return caught.value


def test_a_program_that_fails_leaves_nothing(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its packages the program ends without an answer: its last words are told, and no part of a folder is left."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    wheels.write(tmp_path / "wheels", "numpy", "2.0")
    settings = wheels.settings(tmp_path / "wheels", tmp_path / "cache")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    environments = Environments(tmp_path / "environments")
    target = tmp_path / "out" / "12"
    error = failure(Order("half", str(saved / "3")), target, environments, Environment("", ("numpy==2.0",)))
    assert error.kind is Kind.UNAVAILABLE
    assert "'half' ended with exit code 1" in error.message
    assert list(target.parent.iterdir()) == []
    (tmp_path / "file").touch()
    error = failure(Order("half", str(saved / "3")), tmp_path / "file" / "12", environments, Environment("", ("numpy==2.0",)))
    assert (error.kind, "cannot be written" in error.message) == (Kind.INVALID_INPUT, True)
