"""Runtimes, dialects and engines by name: built in, installed, missing."""

import ast
import importlib.util
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.plugins import BUILT_IN, find, missing, names
from dragoman.engines import LocalEngine
from tests.packages import installed


def test_a_built_in_name_leads_to_its_object() -> None:
    """The table's "module:attribute" is imported and returned."""
    assert find("engines", "local") is LocalEngine


@pytest.mark.parametrize("path", [path for group in BUILT_IN.values() for path in group.values()])
def test_every_built_in_module_exists(path: str) -> None:
    """A row of the table names a module that is there and something that it defines. Nothing is imported to find out."""
    module, _, attribute = path.partition(":")
    found = importlib.util.find_spec(module)
    assert found is not None
    assert found.origin is not None
    tree = ast.parse(Path(found.origin).read_text("utf-8"))
    assert attribute in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}


def test_an_installed_package_adds_a_name(tmp_path: Path) -> None:
    """An entry point in the group "dragoman.<group>" is listed after the built-in names, and found."""
    with installed(tmp_path, "dragoman.runtimes", "paper", "def load(spec):\n    return 'a model on paper'\n") as package:
        assert names("runtimes") == [*BUILT_IN["runtimes"], "paper"]
        assert find("runtimes", "paper") is package.load
        assert "paper" not in names("engines")
    assert "paper" not in names("runtimes")


def test_a_built_in_name_cannot_be_replaced(tmp_path: Path) -> None:
    """A package that calls its own engine "local" does not get the calls of ours, and the name is listed once."""
    with installed(tmp_path, "dragoman.engines", "local", "load = 'somebody else'\n"):
        assert find("engines", "local") is LocalEngine
        assert names("engines").count("local") == 1


def test_an_unknown_name_is_refused() -> None:
    """The message says what there is."""
    with pytest.raises(ServingError) as caught:
        find("runtimes", "caffe")
    assert caught.value.kind is Kind.UNSUPPORTED
    assert caught.value.message == "no runtime is called 'caffe'; there are " + ", ".join(names("runtimes"))


def test_a_missing_framework_names_the_extra_that_brings_it() -> None:
    """The message can be copied to a shell."""
    error = missing("onnx", "onnxruntime", ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime"))
    assert error.kind is Kind.UNSUPPORTED
    assert "pip install 'dragoman[onnx]'" in error.message
    assert "onnxruntime" in error.message
