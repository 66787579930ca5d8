"""Reading what a Python file declares, without running it."""

import sys
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import ServingError
from dragoman.core.model import Environment, ModelSpec
from dragoman.serving.python_models import located, module_file, python_of, spec_of, state_of
from dragoman.serving.python_source import Declared, declarations, mlrun_classes, plain_batch

CLASS = "class Model:\n    def predict(self, inputs): return inputs\n"
HEAD = "from tungstenkit import BaseIO, define_model\n"


def read(tmp_path: Path, text: str) -> tuple[Declared, ...]:
    file = tmp_path / "tungsten_model.py"
    file.write_text(text, "utf-8")
    return declarations(file)


def arguments(tmp_path: Path, text: str, head: str = "") -> dict[str, Any]:
    (found,) = read(tmp_path, f"{HEAD}{head}\n@define_model(input=In, output=Out, {text})\n{CLASS}")
    assert found.unknown == ()
    return dict(found.arguments)


@pytest.mark.parametrize(
    ("head", "decorator"),
    [
        ("from tungstenkit import define_model", "define_model"),
        ("from tungstenkit import define_model as d", "d"),
        ("from tungstenkit import *", "define_model"),
        ("import tungstenkit", "tungstenkit.define_model"),
        ("import tungstenkit as tk", "tk.define_model"),
        ("try:\n    from tungstenkit import define_model\nexcept ImportError:\n    pass", "define_model"),
    ],
)
def test_the_decorator_by_any_name(tmp_path: Path, head: str, decorator: str) -> None:
    """However it was imported."""
    (found,) = read(tmp_path, f"{head}\n@{decorator}(input=In, output=Out, batch_size=8)\n{CLASS}")
    assert (found.name, found.arguments) == ("Model", {"batch_size": 8})


@pytest.mark.parametrize("decorator", ["other(batch_size=3)", "define_model", "x.define_model(batch_size=3)", "[1][0]()"])
def test_other_decorators_are_not_it(tmp_path: Path, decorator: str) -> None:
    """Nor is a class without any, nor one inside of a function."""
    text = f"{HEAD}@{decorator}\n{CLASS}\nclass B: pass\ndef f():\n    @define_model(batch_size=1)\n    class C: pass\n"
    assert read(tmp_path, text) == ()


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("8", 8),
        ("-1.5", -1.5),
        ("None", None),
        ("True", True),
        ("'a' 'b'", "ab"),
        ("'a' + 'b'", "ab"),
        ("['a', 'b'] + ['c']", ["a", "b", "c"]),
        ("('a', 2)", ["a", 2]),
        ("{'a': [1]}", {"a": [1]}),
        ("4 * 8 - 1", 31),
        ("SIZE", 16),
        ("[*'ab']", ...),
        ("SIZE * 2", 32),
        ("PACKAGES", ["torch==2.0"]),
        ("TYPED", 3),
    ],
)
def test_literals(tmp_path: Path, written: str, value: Any) -> None:
    """Constants, collections and sums of them, also by a name of the module."""
    head = "SIZE = 16\nPACKAGES = ['torch==2.0']\nTYPED: int = 3\n"
    if value is ...:
        (found,) = read(tmp_path, f"{HEAD}{head}\n@define_model(batch_size={written})\n{CLASS}")
        assert found.unknown == ("batch_size",)
    else:
        assert arguments(tmp_path, f"batch_size={written}", head) == {"batch_size": value}


@pytest.mark.parametrize(
    "head",
    [
        "N = f()",
        "N = 1\nN = 2",
        "N = 1\nif x: N = 2",
        "N = 1\nN += 1",
        "N = [1]\nN.append(2)",
        "N = [1]\nN[0] = 2",
        "N = 1\ndef f():\n    global N\n    N = 3",
        "from m import N",
        "N = 1\nfor N in range(3): pass",
        "def N(): pass",
        "N = 10 ** 3",
        "N = 2 * 9007199254740992",
        "N = 'a' * 3",
        "N = 1 + 'a'",
        "N = M\nM = N",
        "N = {**{}}",
        "N = b'x'",
        "N = f'{1}'",
        "N = -'a'",
        "",
    ],
)
def test_what_is_not_a_literal_is_named(tmp_path: Path, head: str) -> None:
    """Nothing is guessed: neither computed values nor names that are bound again or changed."""
    (found,) = read(tmp_path, f"{HEAD}{head}\n@define_model(batch_size=N, gpu=True, **more)\n{CLASS}")
    assert found == Declared("Model", {"gpu": True}, ("batch_size", "**"))


@pytest.mark.parametrize("text", ["class (", "x = \x00", "(" * 500 + ")" * 500, "# -*- coding: nonsense -*-\n", b"\xff\xfe"])
def test_what_is_not_python(tmp_path: Path, text: str | bytes) -> None:
    """An error that names the file, and a line where there is one."""
    file = tmp_path / "tungsten_model.py"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ServingError, match=r"tungsten_model\.py"):
        declarations(file)


def test_nothing_is_run(tmp_path: Path) -> None:
    """A file that would end the process is read like any other."""
    text = f"{HEAD}import os\nos._exit(3)\n@define_model(batch_size=2, python_packages=[os.abort()])\n{CLASS}"
    assert read(tmp_path, text) == (Declared("Model", {"batch_size": 2}, ("python_packages",)),)


# --- from there to the spec ---


def project(folder: Path, declared: str = "", head: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tungsten_model.py").write_text(f"{HEAD}{head}\n@define_model(input=In, output=Out, {declared})\n{CLASS}")
    return folder


def spec(folder: Path, **options: Any) -> ModelSpec:
    return spec_of(ModelSpec("m"), folder, **options)


def test_a_project(tmp_path: Path) -> None:
    """Runtime, engine, module and batch size; the folder and its file mean the same."""
    folder = project(tmp_path / "text", "batch_size=8")
    found = spec(folder)
    assert (found.runtime, found.engine, found.artifact) == ("python", "process", str(folder))
    assert found.arguments == {"module": "tungsten_model", "class": ""}
    assert (found.batch.max_size, found.environment, found.warnings) == (8, None, ())
    assert spec(folder / "tungsten_model.py") == found


@pytest.mark.parametrize(
    ("declared", "given", "size"), [("", 0, 1), ("batch_size=0", 0, 1), ("batch_size=4", 0, 4), ("batch_size=4", 9, 9)]
)
def test_the_batch_size(tmp_path: Path, declared: str, given: int, size: int) -> None:
    """T3: the operator's word, else the model's, else 1."""
    assert spec(project(tmp_path / "m", declared), batch_size=given).batch.max_size == size


def test_what_is_for_images_only(tmp_path: Path) -> None:
    """One note names all of it; what is declared as off is not worth one."""
    folder = project(tmp_path / "m", "gpu=True, mem_gb=4, system_packages=['ffmpeg'], base_image=None, dockerfile_commands=[]")
    (note,) = spec(folder).warnings
    assert "gpu, mem_gb, system_packages have an effect in container images only" in note


def test_packages_that_are_here_need_no_environment(tmp_path: Path) -> None:
    """With "auto"; "always" makes one in any case, "never" does not and says what is missing."""
    there = project(tmp_path / "a", "python_packages=['numpy>=1.20', 'tungstenkit==0.2.20']")
    assert spec(there).environment is None
    assert "tungstenkit is not installed" in spec(there).warnings[0]
    made = spec(there, environments="always").environment
    assert made is not None
    assert made.packages == ("numpy>=1.20",)
    missing = project(tmp_path / "b", "python_packages=['no-such-package-at-all==1.0', 'numpy']")
    made = spec(missing).environment
    assert made is not None
    assert len(made.packages) == 2
    refused = spec(missing, environments="never")
    assert refused.environment is None
    assert "no-such-package-at-all" in refused.warnings[0]


def test_the_python_version(tmp_path: Path) -> None:
    """The server's own needs nothing, a newer one an environment, one that is too old is replaced with a note."""
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert spec(project(tmp_path / "a", f"python_version='{own}'")).environment is None
    assert spec(project(tmp_path / "b", "python_version='3.99'")).environment == Environment("3.99")
    old = spec(project(tmp_path / "c", "python_version='3.8'"))
    assert old.environment is None
    assert "3.8" in old.warnings[0]
    for wrong in ("3", "three", "3.x", "", 3.11):
        assert "is no version" in python_of(wrong)[1]


@pytest.mark.parametrize("packages", ["'numpy'", "['--index-url=http://x']", "['a\\nb']", "[3]", "{'numpy': 1}"])
def test_packages_that_are_none(tmp_path: Path, packages: str) -> None:
    """The model is not served: it would run without what it needs, or make the installer do something else."""
    with pytest.raises(ServingError, match="python_packages"):
        spec(project(tmp_path / "m", f"python_packages={packages}"))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("def predict(x: float): ...", 1),
        ("class M:\n    def predict(self, x: float): ...", 1),
        ("class M:\n    @staticmethod\n    def predict(x: float): ...", 1),
        ("@batched\ndef predict(x): ...", 32),
        ("@dragoman.batched()\ndef predict(x): ...", 32),
        ("N = 4\n@batched(max_size=N * 2)\ndef predict(x): ...", 8),
        ("@batched(max_size=f())\ndef predict(x): ...", None),
        ("@batched(max_size=0)\ndef predict(x): ...", None),
        ("@other\ndef predict(x): ...", None),
        ("signature = Signature()\ndef predict(x): ...", None),
        ("from elsewhere import predict", None),
        ("class A:\n    def predict(self): ...\nclass B:\n    @batched\n    def predict(self): ...", None),
    ],
)
def test_the_batch_size_of_a_plain_model(tmp_path: Path, text: str, size: int | None) -> None:
    """What @batched says, 1 without it, and no guess; the operator's word holds for models that take batches."""
    file = tmp_path / "app.py"
    file.write_text(text)
    assert plain_batch(file) == size
    assert spec(file).batch.max_size == (size or 32)
    assert spec(file, batch_size=5).batch.max_size == {1: 1, None: 32}.get(size, 5)


def test_what_could_not_be_read_is_said(tmp_path: Path) -> None:
    """The batch size above all: T3 would be broken in silence."""
    found = spec(project(tmp_path / "m", "batch_size=f(), python_packages=PACKAGES, python_version=V, **more"))
    assert len(found.warnings) == 4
    assert "--batch-size" in " ".join(found.warnings)


def test_several_classes(tmp_path: Path) -> None:
    """One can be named; otherwise nothing is assumed of either."""
    folder = project(tmp_path / "m", "batch_size=3")
    with (folder / "tungsten_model.py").open("a") as file:
        file.write("@define_model(input=In, output=Out, batch_size=5)\nclass Second: pass\n")
    assert spec(folder, model_class="Second").batch.max_size == 5
    assert spec(folder, model_class="Second").arguments["class"] == "Second"
    neither = spec(folder)
    assert neither.batch.max_size == 32
    assert "Model, Second" in neither.warnings[0]


def test_a_plain_model(tmp_path: Path) -> None:
    """No decorator, no declaration; its requirements count when they are to."""
    file = tmp_path / "app.py"
    file.write_text("def predict(x: float) -> float: return x\n")
    (tmp_path / "requirements.txt").write_text("colorama\n")
    found = spec(file)
    assert (found.artifact, found.arguments, found.environment) == (str(file), {"module": "app", "class": ""}, None)
    assert found.warnings == ()
    assert spec(file, environments="always").environment == Environment(requirements="colorama\n")


def test_modules_of_a_folder(tmp_path: Path) -> None:
    """A dotted name is a file in a package, or the package itself."""
    (tmp_path / "inner" / "deep").mkdir(parents=True)
    (tmp_path / "inner" / "deep" / "__init__.py").write_text("")
    (tmp_path / "inner" / "m.py").write_text("")
    assert module_file(tmp_path, "inner.m") == tmp_path / "inner" / "m.py"
    assert module_file(tmp_path, "inner.deep") == tmp_path / "inner" / "deep" / "__init__.py"
    with pytest.raises(ServingError, match=r"no module 'inner\.x'"):
        module_file(tmp_path, "inner.x")
    with pytest.raises(ServingError, match="not a Python name"):
        located(tmp_path / "my-model.py")


def test_the_state_of_a_project(tmp_path: Path) -> None:
    """Every file of it counts; caches, hidden folders and virtualenvs do not."""
    folder = project(tmp_path / "m")
    before = state_of(folder)
    for name in (".git/x", "__pycache__/a.pyc", ".venv/b", "venv/c"):
        (folder / name).parent.mkdir()
        (folder / name).write_text("x")
    assert state_of(folder) == before
    (folder / "weights").mkdir()
    (folder / "weights" / "a.bin").write_text("x")
    assert state_of(folder) != before
    alone = state_of(folder / "tungsten_model.py")
    (folder / "helper.py").write_text("")
    assert state_of(folder / "tungsten_model.py") != alone


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("from mlrun.serving import V2ModelServer\nclass A(V2ModelServer): pass\nclass B(A): pass\nclass C: pass", ("A", "B")),
        ("from mlrun.serving.v2_serving import V2ModelServer as S\nclass A(Mixin, S): pass", ("A",)),
        ("import mlrun\nclass A(mlrun.serving.V2ModelServer): pass", ("A",)),
        ("import mlrun.serving as s\nif True:\n    class A(s.V2ModelServer): pass", ("A",)),
        ("from mlrun.frameworks.sklearn import PickleModelServer\nclass A(PickleModelServer): pass", ("A",)),
        ("from other import PickleModelServer\nclass A(PickleModelServer): pass", ()),
        ("class A(V2ModelServer): pass", ("A",)),
        ("def f():\n    class A(V2ModelServer): pass", ()),
        ("class A(f()): pass\nclass B(A[0]): pass", ()),
    ],
)
def test_mlruns_classes(tmp_path: Path, text: str, classes: tuple[str, ...]) -> None:
    """By the name of their base class, however it was imported, also by way of other classes of the file."""
    file = tmp_path / "models.py"
    file.write_text(text, "utf-8")
    assert mlrun_classes(file) == classes
    spec = spec_of(ModelSpec("m", arguments={"class_args": {"k": 1}}), file)
    assert (spec.batch.max_size == 1, spec.warnings == ()) == (bool(classes), bool(classes))
