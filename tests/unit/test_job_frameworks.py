"""Frameworks, pins of another time and notebook servers of jobs, with an installer that does as it is told."""

from pathlib import Path

import pytest

from dragoman.core.errors import Kind
from dragoman.core.jobs import Mode
from tests.job_bench import Bench, packages, put


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_the_framework_when_it_is_allowed(bench: Bench) -> None:
    """In the release that fits the interpreter, with what the program imports of what the image had; shared by jobs that want the same."""
    bench.write("app.py", "import tensorflow as tf, numpy, evaluate\nfrom flask import Flask\nimport unheard_of\n")
    bench.write("evaluate.py", "from PIL import Image\nfrom werkzeug import utils\n")
    prepared = bench.prepare("tensorflow-1.9", frameworks=True)
    lines = packages(bench)
    assert [line for line in lines if line.startswith("tensorflow")]
    assert {line.split("<")[0] for line in lines} >= {"flask", "numpy", "pillow"}
    assert len([line for line in lines if line.startswith(("numpy", "flask"))]) == 2
    assert not [line for line in lines if "unheard" in line]
    assert bench.said("installing what FloydHub's environment had: tensorflow")
    assert not bench.said("names nothing")
    bench.write("app.py", "import numpy, evaluate, tensorflow\nfrom flask import Flask\nx = 1\n")
    assert bench.prepare("tensorflow-1.9", frameworks=True).python == prepared.python
    assert bench.prepare("tensorflow-1.9").python != prepared.python


def test_what_the_project_declares_goes_first(bench: Bench) -> None:
    """Its own release of the framework, and of everything else."""
    bench.write("app.py", "import tensorflow, numpy, flask\n")
    bench.write("floyd_requirements.txt", "tensorflow==2.99\nNumPy==1.26\n")
    bench.prepare("tensorflow-1.9", frameworks=True)
    assert packages(bench) == ["tensorflow==2.99", "numpy==1.26", "flask"]
    bench.prepare("tensorflow-1.9")
    assert not bench.said("is not installed:")


def test_frameworks_of_other_names(bench: Bench) -> None:
    """By default, what the program imports; a framework that there is no package of is said to be missing, and the job goes on."""
    bench.write("app.py", "import torch\n")
    bench.prepare(frameworks=True)
    assert [line for line in packages(bench) if line.startswith("torch<")]
    bench.write("app.py", "import caffe\n")
    bench.prepare("caffe", frameworks=True)
    assert bench.said("caffe cannot be installed: Caffe was never released as a Python package")
    bench.prepare("caffe")
    assert bench.said("caffe cannot be installed")


# --- pins of another time ---


def test_old_pins_get_what_fits(bench: Bench) -> None:
    """And the log says so."""
    bench.write("floyd_requirements.txt", "flask==1.0.2\n")
    bench.prepare()
    assert packages(bench) == ["flask==1.0.2", "itsdangerous<2.1", "jinja2<3.1", "markupsafe<2.1", "werkzeug<1"]
    assert bench.said("installing releases that fit what floyd_requirements.txt pins: werkzeug<1, jinja2<3.1")


def test_what_nobody_asked_for_does_no_harm(bench: Bench) -> None:
    """Where it cannot be installed with the rest, the rest is installed without it."""
    bench.write("floyd_requirements.txt", "flask==1.0.2\n")
    script = Path(bench.uv.path)
    text = script.read_text()
    script.write_text(
        text.replace(
            "  if [ -e hold ]",
            "  if grep -q jinja packages.list; then echo 'error: jinja2 is not to be had' >&2; exit 1; fi\n  if [ -e hold ]",
        )
    )
    bench.prepare()
    assert packages(bench) == ["flask==1.0.2"]
    assert bench.said("they cannot be installed with the rest; trying again without them")
    script.write_text(text)
    bench.write("floyd_requirements.txt", "flask==1.0.2\nnosuch\n")
    bench.uv.set("error", "error: nosuch was not found in the package registry\n")
    assert "nosuch cannot be installed" in bench.refused().message
    assert not bench.said("trying again"), "it would not help"


# --- notebooks ---


def test_a_notebook_needs_a_server(bench: Bench) -> None:
    """Without one named, or allowed, nothing is built, and the reason says what to do."""
    error = bench.refused(mode=Mode.JUPYTER)
    assert error.kind is Kind.UNAVAILABLE
    assert "name notebook or jupyterlab in floyd_requirements.txt; a server with --env-frameworks" in error.message
    assert not bench.uv.calls


def test_a_notebook_that_is_declared(bench: Bench) -> None:
    """Is found in the virtualenv, whichever it is; and when it is not there after all, that is said, too."""
    bench.write("floyd_requirements.txt", "jupyter\n")
    assert "jupyter is not installed" in bench.refused(mode=Mode.JUPYTER).message
    prepared = bench.prepare()
    assert prepared.notebook == ""
    put(prepared, "jupyterlab")
    assert bench.prepare(mode=Mode.JUPYTER).notebook == "jupyterlab"
    put(prepared, "notebook")
    assert bench.prepare(mode=Mode.JUPYTER).notebook == "notebook"


def test_a_notebook_when_frameworks_are_allowed(bench: Bench) -> None:
    """Is installed as part of what FloydHub's images had, with what the project's files import."""
    bench.refused(mode=Mode.JUPYTER, frameworks=True)
    assert packages(bench) == ["flask", "notebook", "pillow"]
