"""What a job's program runs with, with an installer that does as it is told: interpreters, packages, and what the log says."""

import json
import os
from pathlib import Path

import pytest

from dragoman.core.errors import Kind
from tests.job_bench import OWN, Bench, put


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_without_requirements(bench: Bench) -> None:
    """A virtualenv of its own with nothing in it, and a line about what the program imports all the same."""
    prepared = bench.prepare()
    assert prepared.python.is_relative_to(bench.root)
    assert prepared.readable[0] == prepared.python.parent.parent
    assert all(path.exists() for path in prepared.readable)
    assert prepared.python.resolve().name.startswith("python")
    assert [call.split()[0] for call in bench.uv.calls] == ["venv"]
    assert bench.log[0] == f"environment default: Python {OWN}"
    assert bench.log[1] == "floyd_requirements.txt names nothing: the program has the standard library only"
    assert bench.log[-1] == (
        "PIL, flask are imported and not installed: what the program needs must be named in floyd_requirements.txt (flask, pillow)"
    )
    assert not bench.said("from the cache")
    prepared.release()


def test_requirements(bench: Bench) -> None:
    """Go to the installer as they are; its lines, and what is installed in the end, are in the log; numpy is nobody's wish."""
    bench.write("floyd_requirements.txt", "# ours\nFlask >= 2 # web\n\nPillow\n")
    bench.uv.set("output", "Resolved 2 packages\n + flask==2.0\n")
    prepared = bench.prepare()
    assert bench.uv.read("packages.list") == "flask>=2\npillow\n"
    for line in ("floyd_requirements.txt: flask>=2, pillow", "Resolved 2 packages", " + flask==2.0"):
        assert line in bench.log
    put(prepared, "flask", "PIL", "flask-2.0.dist-info", "Pillow-9.dist-info")
    assert bench.prepare().python == prepared.python
    assert bench.log[2:] == [
        f"the virtualenv {prepared.python.parts[-3][:20]} is there already, from the cache",
        "Successfully installed flask-2.0 Pillow-9",
    ]
    assert bench.uv.builds == 1


def test_one_missing_module(bench: Bench) -> None:
    """Is spoken of in the singular."""
    put(bench.prepare(), "PIL")
    bench.prepare()
    assert bench.said("flask is imported and not installed")


def test_other_requirements_are_another_virtualenv(bench: Bench) -> None:
    """Two jobs may pin different versions, and different interpreters."""
    pythons = []
    for text in ("six==1.16", "six==1.17", "six==1.16 # again"):
        bench.write("floyd_requirements.txt", text)
        pythons.append(bench.prepare().python)
    assert pythons[0] == pythons[2] != pythons[1]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_encodings(bench: Bench, encoding: str) -> None:
    """As editors and shells of Windows write them; without a mark UTF-16 cannot be told."""
    (bench.home / "floyd_requirements.txt").write_bytes("six\r\n".encode(encoding))
    if encoding == "utf-16-le":
        assert bench.refused().kind is Kind.INVALID_INPUT
    else:
        bench.prepare()
        assert bench.uv.read("packages.list") == "six\n"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("-r other.txt", "the option '-r' is not allowed"),
        ("-e .", "the option '-e' is not allowed"),
        ("../wheels/x.whl", "files and paths are not allowed"),
        ("six; --index-url", "this is no requirement"),
        ("${HOME}", "variables are not allowed"),
        ("http://example.com/x.whl", "this address is not allowed"),
    ],
)
def test_lines_that_are_refused(bench: Bench, line: str, reason: str) -> None:
    """With the line and the reason, before an installer sees them."""
    bench.write("floyd_requirements.txt", f"six\n{line}\n")
    error = bench.refused()
    assert error.kind is Kind.INVALID_INPUT
    assert "floyd_requirements.txt" in error.message
    assert repr(line) in error.message
    assert reason in error.message
    assert not bench.uv.calls


def test_no_file_at_all(bench: Bench, tmp_path: Path) -> None:
    """A link, a folder, a pipe or a huge file in its place is refused, so that nothing outside is read; not UTF-8 neither; an empty one is none."""
    path = bench.home / "floyd_requirements.txt"
    secret = tmp_path / "secret"
    secret.write_text("a secret")
    for make in (
        lambda: path.symlink_to(secret),
        path.mkdir,
        lambda: os.mkfifo(path),
        lambda: path.write_text("#" * (2 << 20)),
        lambda: path.write_bytes(b"\xff\xfe\xfd"),
        lambda: path.write_bytes(b"six\xff"),
    ):
        make()
        error = bench.refused()
        assert error.kind is Kind.INVALID_INPUT
        assert "floyd_requirements.txt" in error.message
        assert "secret" not in error.message
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    path.write_text("")
    bench.prepare()


def test_an_install_that_fails(bench: Bench) -> None:
    """The error names the requirement, the log has what the installer said, and no folder of the server."""
    bench.write("floyd_requirements.txt", "six\nnosuch==3\n")
    bench.uv.set("output", f"looking into {bench.root}/somewhere\n")
    bench.uv.set("error", "error: No matching distribution found for nosuch==3\n")
    error = bench.refused()
    assert error.kind is Kind.UNAVAILABLE
    assert "nosuch==3 cannot be installed" in error.message
    assert bench.said("error: No matching distribution found for nosuch==3")
    assert bench.said("looking into somewhere")
    assert not bench.said(str(bench.root))
    bench.uv.unset("error")
    bench.prepare()


def test_an_unknown_name(bench: Bench) -> None:
    """Is refused with the list."""
    assert "tensorflow-0.12:py2" in bench.refused("tensorflow-9").message


# --- interpreters ---


def test_the_nearest_interpreter(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is used and named in the log, with what was asked for; an old program is warned about it."""
    folder = tmp_path / "prefix" / "bin"
    folder.mkdir(parents=True)
    facts = {"version": "3.8.99", "implementation": "cpython", "platform": "linux-x86_64", "abi": "x", "pip": True}
    facts |= {"real": str(folder / "python3.8"), "prefix": str(folder.parent)}
    (folder / "python3.8").write_text(f"#!/bin/sh\nprintf '%s' '{json.dumps(facts)}'\n")
    (folder / "python3.8").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PYENV_ROOT", raising=False)
    bench.write("app.py", "import flask\nprint 'starting'\n")
    prepared = bench.prepare("tensorflow-0.12:py2")
    assert bench.log[0] == (
        "environment tensorflow-0.12:py2 (on FloydHub Python 2.7 with tensorflow 0.12.1, keras 1.2.2, tflearn 0.3.2): "
        "Python 3.8.99, the nearest that is available"
    )
    assert bench.log[1] == "app.py, line 2 is Python 2: only Python 3 is available here, so the program will fail there"
    assert bench.said(
        "tensorflow is not installed: where the program needs it, name it in floyd_requirements.txt; for this Python: tensorflow>=2.2"
    )
    assert prepared.python.readlink() == folder / "python3.8"
    assert prepared.readable[1:] == (folder,)
    assert bench.prepare("default").python != prepared.python
