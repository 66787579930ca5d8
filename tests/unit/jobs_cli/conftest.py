"""A folder, a home and a FloydHub that does nothing, for the commands for jobs in this process."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dragoman.cli import main
from tests.fakes_floyd_server import State, floydhub


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Run = Callable[..., Ran]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: empty, with a home of its own beside it."""
    for name in list(os.environ):
        if name.startswith("DRAGOMAN_"):
            monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOGNAME", "ann")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def server(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[State]:
    """The fake, which is the server that commands ask."""
    with floydhub() as (url, state):
        monkeypatch.setenv("DRAGOMAN_URL", url)
        yield state


@pytest.fixture
def command(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command with arguments, and text on standard input."""

    def run(*arguments: str, stdin: str = "") -> Ran:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), "utf-8"))
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        assert isinstance(caught.value.code, int), caught.value.code
        return Ran(caught.value.code, printed.out, printed.err)

    return run
