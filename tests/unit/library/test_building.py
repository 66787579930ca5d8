"""Projects become stored models: looked at in another process, with the files that they need and no others."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Environment
from dragoman.serving.library.building import Log, Project, build
from dragoman.serving.library.library import Library, Stored
from dragoman.serving.library.references import parse
from dragoman.serving.library.specs import write_record
from tests.fakes_store import FakeStore
from tests.models import build as models
from tests.unit.library.projects import project, put


class Builder:
    """Builds in a folder; remembers what was printed and which environments were asked for."""

    def __init__(self, root: Path) -> None:
        self.library = Library(FakeStore(), root / "data" / "models")
        self.lines: list[str] = []
        self.environments: list[Environment] = []

    async def _python(self, environment: Environment, log: Log) -> Path:
        self.environments.append(environment)
        return Path(sys.executable)

    def __call__(self, source: Path, name: str = "m:1", **options: Any) -> Stored:
        wanted = parse(name) if name else None
        return asyncio.run(build(self.library, Project(source, **options), wanted, self.lines.append, self._python))

    def refused(self, source: Path, **options: Any) -> ServingError:
        with pytest.raises(ServingError) as caught:
            self(source, **options)
        assert list((self.library.root / ".staging").iterdir()) == []
        return caught.value


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path)


def test_a_project(builder: Builder, tmp_path: Path) -> None:
    """What it declares is recorded, its files are copied, and nothing is left behind in either place."""
    source = project(tmp_path / "p")
    before = sorted(source.rglob("*"))
    stored = builder(source)
    assert (stored.version.kind, stored.model_class, stored.version.source) == ("tungsten", "tungsten_model:Echo", str(source))
    assert stored.version.spec["declared"]["batch_size"] == 4
    assert [f.path for f in stored.files] == ["helper.py", "tungsten_model.py", "weights/w.bin"]
    assert sorted(source.rglob("*")) == before
    assert list((builder.library.root / ".staging").iterdir()) == []
    stored.check()


def test_a_project_without_a_name(builder: Builder, tmp_path: Path) -> None:
    """Its folder's name and the digest's beginning."""
    stored = builder(project(tmp_path / "My_Text"), "")
    assert stored.name == f"tungsten-my-text:{stored.version.digest[:7]}"
    assert builder(tmp_path / "My_Text" / "tungsten_model.py", "").version == stored.version


def test_building_again_changes_nothing(builder: Builder, tmp_path: Path) -> None:
    """The digest is that of the content."""
    source = project(tmp_path / "p")
    first = builder(source)
    assert builder(source).version == first.version
    put(source / "helper.py", "def say(text): return text\n")
    assert builder(source).version.version == "2"


def test_what_is_computed_is_known_after_building(builder: Builder, tmp_path: Path) -> None:
    """Arguments that are no literals, patterns included, are learned by running the file."""
    declared = "batch_size=int('7'), include_files=list(('helper.py',))"
    stored = builder(project(tmp_path / "p", declared))
    assert stored.version.spec["declared"]["batch_size"] == 7
    assert [f.path for f in stored.files] == ["helper.py", "tungsten_model.py"]


def test_post_build(builder: Builder, tmp_path: Path) -> None:
    """Runs in the copy; what it makes there becomes part of the model; what it prints is shown."""
    body = "@staticmethod\n    def post_build():\n        print('down', flush=True)\n        open('loaded.bin', 'w').write('y')"
    source = project(tmp_path / "p", body=body)
    stored = builder(source)
    assert "loaded.bin" in [f.path for f in stored.files]
    assert not (source / "loaded.bin").exists()
    assert "down" in builder.lines
    assert "checking the model and running its post_build" in builder.lines


def test_a_folder_with_a_plain_model(builder: Builder, tmp_path: Path) -> None:
    """Is built as it would be served."""
    put(tmp_path / "shout" / "model.py", "def predict(x: str) -> str: return x.upper()\n")
    stored = builder(tmp_path / "shout")
    assert (stored.version.kind, stored.version.spec["arguments"]["module"]) == ("python", "model")


def test_what_building_says(builder: Builder, tmp_path: Path) -> None:
    """Of a model without a post_build nothing of one."""
    builder(project(tmp_path / "p"))
    assert "checking the model" in builder.lines


def test_a_build_that_fails_shows_the_traceback(builder: Builder, tmp_path: Path) -> None:
    """Once, with the line of the model that is to blame."""
    builder.refused(project(tmp_path / "p", body="@staticmethod\n    def post_build(): 1 / 0"))
    assert [line for line in builder.lines if line.startswith("ZeroDivisionError")] == ["ZeroDivisionError: division by zero"]


def test_a_file_that_was_left_out(builder: Builder, tmp_path: Path) -> None:
    """Is missed when the model is built, not when it is served."""
    error = builder.refused(project(tmp_path / "p", "exclude_files=['helper.py']"))
    assert error.kind is Kind.MODEL_FAILED
    assert "helper" in error.message


@pytest.mark.parametrize(
    ("declared", "body", "message"),
    [
        ("no_such=1", "pass", "no_such"),
        ("batch_size='x'", "pass", "cannot be built"),
        ("cuda_version='12.4'", "pass", "gpu is not True"),
        ("readme_md='gone.md'", "pass", "gone.md"),
        ("python_packages=['-r x']", "pass", "python_packages"),
        ("include_files='*'", "pass", "include_files"),
        ("", "@staticmethod\n    def post_build(): 1 / 0", "ZeroDivisionError"),
        ("", "import os; os._exit(7)", "ended the process that looked at it, with 7"),
        ("", "def setup(self, more): pass", "setup"),
    ],
)
def test_projects_that_cannot_be_built(builder: Builder, tmp_path: Path, declared: str, body: str, message: str) -> None:
    """The reason, and nothing in the store."""
    error = builder.refused(project(tmp_path / "p", declared, body))
    assert message in error.message
    assert asyncio.run(builder.library.all()) == []


def test_a_project_that_is_not_there(builder: Builder, tmp_path: Path) -> None:
    """Nothing, an empty folder, a module that is missing."""
    with pytest.raises(ServingError, match="there is no"):
        builder(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    assert "no runtime knows" in builder.refused(tmp_path / "empty").message
    assert "no module 'other'" in builder.refused(tmp_path / "empty", module="other").message


def test_the_readme_is_always_taken(builder: Builder, tmp_path: Path) -> None:
    """Whatever the patterns say."""
    source = project(tmp_path / "p", "readme_md='docs/me.md', include_files=['*.py']")
    put(source / "docs" / "me.md", "# me")
    assert "docs/me.md" in [f.path for f in builder(source).files]


def test_the_environment_of_the_model(builder: Builder, tmp_path: Path) -> None:
    """Its own virtualenv looks at it when packages are missing here."""
    builder(project(tmp_path / "p", "python_packages=['no-such-package-at-all==1']"))
    assert builder.environments == [Environment("", ("no-such-package-at-all==1",))]
    builder(project(tmp_path / "q", "python_packages=['no-such-package-at-all==1']"), environments="never")
    assert len(builder.environments) == 1
    assert any("no-such-package-at-all==1 not installed here as asked for" in line for line in builder.lines)


def test_another_module_and_class(builder: Builder, tmp_path: Path) -> None:
    """-m and -c, also in a package."""
    source = project(tmp_path / "p")
    put(source / "inner" / "__init__.py", "")
    text = (source / "tungsten_model.py").read_text()
    put(
        source / "inner" / "mine.py",
        text + "\n@define_model(input=In, output=Out, batch_size=9)\nclass Second:\n    def predict(self, inputs): ...\n",
    )
    stored = builder(source, module="inner.mine", model_class="Second")
    assert stored.model_class == "inner.mine:Second"
    assert stored.version.spec["declared"]["batch_size"] == 9
    assert builder.refused(source, module="inner.mine").kind is Kind.MODEL_FAILED


def test_an_extracted_model(builder: Builder, tmp_path: Path) -> None:
    """Its record says which module and class it was; built again it is the same model."""
    source = project(tmp_path / "p")
    (source / "tungsten_model.py").rename(source / "other.py")
    first = builder(source, module="other")
    write_record(source, first.version.kind, first.version.spec)
    assert builder(source).version == first.version


def test_packages_that_are_computed(builder: Builder, tmp_path: Path) -> None:
    """Are installed once the file has been run without them."""
    builder(project(tmp_path / "p", "python_packages=['no-such-package-at-all', *[]]"))
    assert builder.environments == [Environment("", ("no-such-package-at-all",))]


def test_where_it_was_started_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative data directory becomes an absolute one."""
    monkeypatch.chdir(tmp_path)
    stored = Builder(Path("here"))(project(tmp_path / "p"))
    assert stored.folder.is_absolute()
    stored.check()


def test_a_plain_model(builder: Builder, tmp_path: Path) -> None:
    """A lone file is copied alone, with the requirements beside it; more by --copy-files."""
    file = put(tmp_path / "p" / "app.py", "def predict(x: float) -> float: return x + 1\n")
    put(tmp_path / "p" / "requirements.txt", "numpy\n")
    put(tmp_path / "p" / "secret.txt", "x")
    put(tmp_path / "w.bin", "x")
    stored = builder(file, copy_files=(("../w.bin", "data/"),))
    assert (stored.version.kind, stored.model_class) == ("python", "app:")
    assert [f.path for f in stored.files] == ["app.py", "data/w.bin", "requirements.txt"]


def test_artifacts(builder: Builder, tmp_path: Path) -> None:
    """A file, a folder, a Triton folder that keeps its name; a folder of several models is refused."""
    file = models.iris(tmp_path / "repo" / "one" / "iris.onnx")
    assert (stored := builder(file)).version.kind == "onnx"
    assert [f.path for f in stored.files] == ["iris.onnx"]
    put(tmp_path / "repo" / "one" / "labels.txt", "a")
    assert [f.path for f in builder(file.parent).files] == ["iris.onnx", "labels.txt"]
    models.iris(tmp_path / "repo" / "two" / "1" / "model.onnx")
    put(tmp_path / "repo" / "two" / "config.pbtxt", 'name: "two"\nbackend: "onnxruntime"\n')
    stored = builder(tmp_path / "repo" / "two")
    assert (stored.version.kind, stored.folder.name) == ("triton", "two")
    assert "several models (one, two)" in builder.refused(tmp_path / "repo").message
