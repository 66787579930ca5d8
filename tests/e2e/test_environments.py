"""Environments as the real installers make them: uv, and venv with pip; from wheels of our own, once from a registry."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Environment, InferRequest, ModelSpec
from dragoman.core.tensors import FP32, Tensor, Tensors
from dragoman.engines import Context, Engines
from dragoman.engines.environment import Environments
from tests import wheels
from tests.e2e.running import run as run_command

SITE = "import json, sys; print(json.dumps([p for p in sys.path if p.endswith('site-packages')]))"


@pytest.fixture(params=["uv", "pip"])
def installer(request: pytest.FixtureRequest) -> str | None:
    """What Environments takes: whatever uv there is (`make env` installs it), or none."""
    return None if request.param == "uv" else ""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, which is all that installers know."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    folder = tmp_path / "wheels"
    wheels.write(folder, "numpy", "2.0")
    wheels.write(folder, "toy", "1.5")
    wheels.write(folder, "toy", "2.0")
    wheels.write(folder, "gadget", "0.1", requires=["toy<2"])
    for name, value in wheels.settings(folder, tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    return folder


def python(path: Path, code: str) -> str:
    """What this interpreter prints, started as the server would start it: with the server's variables."""
    return subprocess.run([path, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def built(environments: Environments, wish: Environment, log: Callable[[str], None] = lambda _: None) -> Path:
    return asyncio.run(environments.python_for(wish, log))


def test_what_is_asked_for(installer: str | None, shop: Path, tmp_path: Path) -> None:
    """The packages and what they need, numpy, hashes respected, nothing of the server's; and a reason when a package is not to be had."""
    environments = Environments(tmp_path / "root", installer)
    lines: list[str] = []
    digest = wheels.sha256(shop / "toy-1.5-py3-none-any.whl")
    path = built(environments, Environment("", ("gadget",), f"# ours\ntoy==1.5 \\\n  --hash=sha256:{digest}\n"), lines.append)
    assert python(path, "import gadget, toy, numpy; print(gadget.VERSION, toy.VERSION, numpy.VERSION)") == "0.1 1.5 2.0"
    assert python(path, "import sys; print(sys.version.split()[0], sys.prefix != sys.base_prefix)") == f"{sys.version.split()[0]} True"
    assert python(path, SITE).count("site-packages") == 1
    for absent in ("orjson", "httptools", "dragoman_of_nobody"):
        with pytest.raises(subprocess.CalledProcessError):
            python(path, f"import {absent}")
    assert any("with uv" in line for line in lines) == (installer is None)
    assert any("toy" in line and "1.5" in line for line in lines)
    assert environments.installed()[0].packages == ("gadget", "toy==1.5")

    wishes = [("gadget", "toy==2.0"), ("gadget==7",), ("nosuchthing",)]
    for wish in wishes if installer is None else wishes[:1]:  # pip takes seconds for each
        with pytest.raises(ServingError) as caught:
            built(environments, Environment(packages=wish))
        assert caught.value.kind is Kind.UNAVAILABLE
        assert any(f"cannot be built: {culprit} cannot be installed (" in caught.value.message for culprit in wish)
        assert str(tmp_path) not in caught.value.message
        assert caught.value.trace
    assert len(environments.installed()) == 1


MODEL = """
import numpy, toy
from dragoman.core.tensors import FP32, Signature, Tensor, TensorSpec, Tensors

class Model:
    signatures = {"": Signature(inputs=(TensorSpec("x", FP32, (-1,)),), outputs=(TensorSpec("y", FP32, (-1,)),), batch=True)}
    operations = frozenset({"predict"})
    platform = "toy " + toy.VERSION
    concurrent = False

    def predict(self, call):
        return Tensors([Tensor("y", FP32, call.inputs.items[0].array * numpy.float32(3))])

    def close(self):
        pass

def load(spec):
    return Model()
"""


def test_a_model_runs_in_its_own(shop: Path, tmp_path: Path) -> None:
    """With a package and even a runtime that the server does not have; while its process runs nobody removes what it runs in."""
    (shop / "numpy-2.0-py3-none-any.whl").unlink()
    wheels.borrow_numpy(shop)
    wheels.write(shop, "toy-runtime", "1.0", MODEL, ["toy<2"], {"entry_points.txt": "[dragoman.runtimes]\ntoy = toy_runtime:load\n"})
    environments = Environments(tmp_path / "root")
    spec = ModelSpec("m", runtime="toy", engine="process", environment=Environment(packages=("toy-runtime",)))

    async def test() -> None:
        engines = Engines(Context(environments=environments))
        try:
            servable = await engines.open(spec)
            assert servable.platform == "toy 1.5"
            answer = await servable.infer(InferRequest(Tensors([Tensor("x", FP32, np.array([1, 2], "f4"))])))
            assert isinstance(answer.outputs, Tensors)
            assert answer.outputs.items[0].array.tolist() == [3, 6]
            (found,) = environments.installed()
            assert found.in_use
            assert environments.collect(0) == []
            await servable.close()
            assert not environments.installed()[0].in_use

            with pytest.raises(ServingError, match="toy==7 cannot be installed") as caught:
                await engines.open(replace(spec, environment=Environment(packages=("toy==7",))))
            assert caught.value.kind is Kind.UNAVAILABLE
            with pytest.raises(ServingError, match="toy"):  # the package is there, the runtime is not
                await engines.open(replace(spec, environment=Environment(packages=("toy",))))
            assert not any(e.in_use for e in environments.installed())
        finally:
            await engines.close()
        assert found.hash in environments.collect(0)
        assert environments.installed() == []

    asyncio.run(test())


def test_a_package_that_fails_to_build(shop: Path, tmp_path: Path) -> None:
    """A broken wheel is named."""
    (shop / "rotten-1.0-py3-none-any.whl").write_bytes(b"this is no archive")
    with pytest.raises(ServingError, match="cannot be built") as caught:
        built(Environments(tmp_path / "root"), Environment(packages=("rotten",)))
    assert "rotten" in caught.value.message


def test_from_the_registry(tmp_path: Path) -> None:
    """The command, with the settings of this machine: a small package that the server does not have, and the real numpy."""
    with pytest.raises(ModuleNotFoundError):
        __import__("pyfiglet")
    ran = run_command(tmp_path, "env", "build", "pyfiglet", timeout_s=110)
    assert ran.returncode == 0, ran.stderr
    key, path = ran.stdout.split()
    assert (
        python(Path(path), "import numpy, pyfiglet; print(numpy.arange(3).sum(), len(pyfiglet.figlet_format('x').splitlines()) > 1)")
        == "3 True"
    )
    assert key in run_command(tmp_path, "env", "list").stdout
