"""Modules that cannot be imported for a while, and what that is for."""

import importlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dragoman.runtimes.hidden import hidden
from tests.models import learned

ROOT = Path(__file__).parents[3]
OPENING = """
import sys
from dragoman.core.model import ModelSpec
from dragoman.runtimes.estimator_files import open_estimator
estimator = open_estimator(ModelSpec("iris", "1", "sklearn", sys.argv[1]))
print(type(estimator).__name__, "torch" in sys.modules)
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two modules, of which one takes the other where it finds it."""
    (tmp_path / "hidden_inner.py").write_text("")
    (tmp_path / "hidden_outer.py").write_text("try:\n    import hidden_inner\n    found = True\nexcept ImportError:\n    found = False\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("hidden_inner", "hidden_outer"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.usefixtures("modules")
def test_what_is_hidden_is_missing_as_if_it_were_not_installed() -> None:
    """Its error names it; others are found; afterwards it is there."""
    with hidden("hidden_inner", "hidden_nothing"):
        assert importlib.import_module("hidden_outer").found is False
        with pytest.raises(ModuleNotFoundError) as caught:
            importlib.import_module("hidden_inner")
    assert caught.value.name == "hidden_inner"
    assert importlib.import_module("hidden_inner").__name__ == "hidden_inner"


@pytest.mark.usefixtures("modules")
def test_other_threads_see_it() -> None:
    """A model that another thread loads meanwhile may need just that."""
    with hidden("hidden_inner"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: importlib.import_module("hidden_outer").found).result() is True


@pytest.mark.usefixtures("modules")
def test_nothing_is_left_of_it() -> None:
    """Though the block failed, and another was within it."""
    before = list(sys.meta_path)
    with pytest.raises(ImportError), hidden("hidden_inner"), hidden("hidden_nothing"):
        importlib.import_module("hidden_inner")
    assert sys.meta_path == before


def test_an_estimator_brings_no_tensors_library(tmp_path: Path) -> None:
    """A fresh process that opens a skops file does not import PyTorch, which is installed here."""
    file = learned.write(tmp_path / "iris.skops", learned.skops_of(learned.classifier()))
    command = [sys.executable, "-c", OPENING, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT / "src", timeout=100, check=False)
    assert done.stdout.split() == ["LogisticRegression", "False"], done.stderr
    assert done.returncode == 0, done.stderr
