"""`dragoman floyd`: FloydHub's own client in its own Python, sent to our server. Here a program of ours stands in for the client."""

import sys
from pathlib import Path

import pytest

from tests.unit.jobs_cli.conftest import Run

CLIENT = """\
import json, sys
import raven
import floyd
def cli(prog_name):
    raven.Client(dsn="https://strangers", release="1")
    here = {"words": sys.argv[1:], "host": floyd.floyd_host, "web": floyd.floyd_web_host, "upload": floyd.tus_server_endpoint, "name": prog_name}
    json.dump(here, open("called.json", "w"))
    sys.exit(7)
"""


@pytest.fixture
def client(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A virtualenv, as far as the launcher looks: a command, an interpreter beside it that finds a package `floyd`."""
    venv = tmp_path / "client"
    (venv / "bin").mkdir(parents=True)
    (venv / "site/floyd").mkdir(parents=True)
    (venv / "pyvenv.cfg").touch()
    (venv / "site/floyd/__init__.py").write_text("floyd_host = floyd_web_host = tus_server_endpoint = 'https://elsewhere'")
    (venv / "site/floyd/main.py").write_text(CLIENT)
    (venv / "bin/floyd").write_text("#!/nowhere/python\n")
    python = venv / "bin/python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{venv / "site"}" exec "{sys.executable}" "$@"\n')
    for command in (venv / "bin/floyd", python):
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{venv / 'bin'}:/usr/bin:/bin")
    return venv


def called(place: Path) -> dict[str, object]:
    import json

    content: dict[str, object] = json.loads((place / "called.json").read_text())
    return content


def test_everything_goes_to_our_server(client: Path, place: Path, command: Run) -> None:
    """API, pages and uploads; crashes are reported to nobody; the exit code is the client's."""
    assert command("floyd", "run", "--mode", "serve", "-m", "-h").code == 7
    url = "http://127.0.0.1:3000"
    assert called(place) == {
        "words": ["--host", url, "run", "--mode", "serve", "-m", "-h"], "host": url, "web": url, "upload": f"{url}/api/v1/upload/", "name": "floyd",
    }  # fmt: skip


@pytest.mark.parametrize(
    "words", [("-h", "https://gpu:1/x/"), ("--host", "https://gpu:1/x"), ("--host=https://gpu:1/x",), ("-v", "-h", "https://gpu:1/x")]
)
def test_another_server(client: Path, place: Path, command: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    """As the client's own option says, or the variable of our commands."""
    assert command("floyd", *words, "status").code == 7
    assert (called(place)["upload"], called(place)["web"]) == ("https://gpu:1/x/api/v1/upload/", "https://gpu:1/x")
    monkeypatch.setenv("DRAGOMAN_URL", "http://other:1")
    assert command("floyd", "status").code == 7
    assert called(place)["host"] == "http://other:1"


def test_a_server_that_is_no_address(client: Path, command: Run) -> None:
    """It is refused before anything is started."""
    assert command("floyd", "-h", "localhost", "status").code == 2


@pytest.mark.parametrize("named", ["", "bin/floyd"])
def test_a_client_that_is_named(client: Path, place: Path, command: Run, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    """Its virtualenv, or its command, when it is not on the path."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("DRAGOMAN_FLOYD", str(client / named))
    assert command("floyd", "version").code == 7


def test_a_command_outside_of_a_virtualenv(client: Path, place: Path, command: Run) -> None:
    """Its first line says which Python it belongs to."""
    (client / "pyvenv.cfg").unlink()
    (client / "bin/floyd").write_text(f"#!{client / 'bin/python'}\n")
    assert command("floyd", "version").code == 7
    (client / "bin/floyd").write_text("#!/usr/bin/env python\n")
    assert command("floyd", "version").code == 7
    (client / "bin/floyd").write_bytes(b"\x7fELF")
    ran = command("floyd", "version")
    assert (ran.code, "no Python program" in ran.err) == (1, True)


def test_no_client(place: Path, command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """How to install it is said, with the pins that it needs."""
    monkeypatch.setenv("DRAGOMAN_FLOYD", str(place / "none"))
    ran = command("floyd", "run")
    assert ran.code == 1
    assert "floyd-cli==0.11.17" in ran.err
