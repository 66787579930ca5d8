"""The command line of the benchmarks; no section is run here."""

import subprocess
import sys

import pytest

from benchmarks.__main__ import SECTIONS
from benchmarks.processes import ROOT, environment
from benchmarks.servers import PEERS, SCRIPTS


def call(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """`python -m benchmarks`, from the root of the repository as the Makefile does it."""
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=False)


def test_help_names_every_section_and_peer() -> None:
    """Nobody has to read the source."""
    done = call("--help")
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    for name in (*SECTIONS, *PEERS):
        assert name in text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["iris", "irsi"], "irsi"),
        (["iris", "--peers", "triton,seldon"], "seldon"),
        (["iris", "--seconds", "0"], "--seconds"),
        (["iris", "--pairs", "99"], "--pairs"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], named: str) -> None:
    """Before anything is started."""
    done = call(*arguments)
    assert done.returncode == 2
    assert named in done.stderr


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_has_a_script_that_says_how_to_use_it(name: str) -> None:
    """Without arguments nothing is installed or started."""
    done = subprocess.run([str(SCRIPTS / f"{name}.sh")], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "usage" in done.stderr
