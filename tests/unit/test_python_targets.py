"""Targets that are Python models, and names in the model store: what `serve` makes of them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import ModelSpec
from dragoman.serving.library.library import Stored
from dragoman.serving.library.packing import digest_of, manifest, recorded
from dragoman.serving.library.specs import kept, write_record
from dragoman.serving.repository import Defaults, Found, Repository
from dragoman.serving.targets import Elsewhere
from dragoman.store import StoredVersion
from tests.models import build
from tests.unit.library.projects import project, put


def found(*targets: object, defaults: Defaults | None = None, stored: Callable[[str], Stored] | None = None) -> dict[str, Found]:
    elsewhere = Elsewhere(stored) if stored else Elsewhere()
    return {f.name: f for f in Repository([str(t) for t in targets], defaults or Defaults(), elsewhere).discover()}


def only(models: dict[str, Found]) -> ModelSpec:
    (model,) = models.values()
    assert not model.error
    (spec,) = model.versions.values()
    return spec


@pytest.mark.parametrize("target", ["", "tungsten_model.py"])
def test_a_project(tmp_path: Path, target: str) -> None:
    """Its folder and its file mean the same model, called like the folder."""
    spec = only(found(project(tmp_path / "text") / target))
    assert (spec.name, spec.version, spec.runtime, spec.engine) == ("text", "1", "python", "process")
    assert (spec.artifact, spec.batch.max_size) == (str(tmp_path / "text"), 4)
    assert spec.revision
    assert only(found(f"mine={tmp_path}/text/{target}")).name == "mine"


def test_any_python_file(tmp_path: Path) -> None:
    """Called like the file, served as the file."""
    file = put(tmp_path / "app.py", "def predict(x: float) -> float: return x\n")
    spec = only(found(file))
    assert (spec.name, spec.artifact, spec.arguments["module"]) == ("app", str(file), "app")
    assert "not a Python name" in found(put(tmp_path / "my-app.py", ""))["my-app"].error


def test_one_class_of_several(tmp_path: Path) -> None:
    """FILE.py:CLASS, for any Python file, with a name or without; a path that has a colon in it is a path."""
    file = project(tmp_path / "text") / "tungsten_model.py"
    file.write_text(file.read_text() + "@define_model(input=In, output=Out, batch_size=9)\nclass Other: pass\n")
    spec = only(found(f"{file}:Other"))
    assert (spec.name, spec.arguments["class"], spec.batch.max_size) == ("text", "Other", 9)
    plain = put(tmp_path / "app.py", "")
    models = found(f"a={plain}:A", f"b={plain}:B", f"{plain}:C")
    assert {name: only({name: each}).arguments["class"] for name, each in models.items()} == {"a": "A", "b": "B", "app": "C"}
    odd = put(tmp_path / "odd.py:C" / "tungsten_model.py", "").parent
    assert only(found(f"odd={odd}")).arguments["class"] == ""
    missing = found(f"{tmp_path}/gone.py:C")["gone"].error
    assert "there is no" in missing


def test_a_folder_with_a_plain_model(tmp_path: Path) -> None:
    """Named itself, a folder with a model.py and no artifact is a Python model, called like the folder; files beside it change nothing."""
    put(tmp_path / "shout" / "model.py", "def predict(x: float) -> float: return x\n")
    put(tmp_path / "shout" / "words.txt", "loud")
    spec = only(found(tmp_path / "shout"))
    assert (spec.name, spec.runtime, spec.engine) == ("shout", "python", "process")
    assert (spec.artifact, spec.arguments["module"]) == (str(tmp_path / "shout"), "model")
    assert only(found(f"mine={tmp_path / 'shout'}")).name == "mine"
    project(tmp_path / "shout")
    assert only(found(tmp_path / "shout")).arguments["module"] == "tungsten_model"


@pytest.mark.parametrize(
    "beside", ["m/config.pbtxt", "m/1/model.onnx", "m/2/other.onnx"], ids=["Triton's", "an older version", "an artifact beside it"]
)
def test_a_model_file_of_somebody_else(tmp_path: Path, beside: str) -> None:
    """Is not run, whichever folder is named."""
    file = put(tmp_path / "m" / "2" / "model.py", "raise SystemExit\n")
    build.iris(tmp_path / beside) if beside.endswith(".onnx") else put(tmp_path / beside, "")
    for target in (file.parent, file.parents[1], file.parents[2]):
        for model in found(target).values():
            assert all(spec.runtime != "python" for spec in model.versions.values()), target


def test_projects_among_other_models(tmp_path: Path) -> None:
    """Folders of models may hold them, and versions may be projects; lone Python files are never models by themselves."""
    project(tmp_path / "text")
    project(tmp_path / "many" / "2", "batch_size=2")
    project(tmp_path / "many" / "10", "batch_size=10")
    put(tmp_path / "code" / "app.py", "")
    put(tmp_path / "code" / "model.py", "")
    build.iris(tmp_path / "iris" / "model.onnx")
    models = found(tmp_path)
    assert set(models) == {"text", "many", "iris"}
    (spec,) = models["many"].versions.values()
    assert (spec.version, spec.batch.max_size, spec.artifact) == ("10", 10, str(tmp_path / "many" / "10"))


def test_the_operators_batch_size(tmp_path: Path) -> None:
    """T3: it wins, for the batcher and for the model itself."""
    spec = only(found(project(tmp_path / "text"), defaults=Defaults(batch_size=9)))
    assert (spec.batch.max_size, spec.arguments["batch_size"]) == (9, 9)
    assert "batch_size" not in only(found(tmp_path / "text")).arguments


def read(folder: Path, declared: str, content: bytes = b"# Hello\n![x](x.png) \xff") -> ModelSpec:
    """The spec of a project that calls this its readme."""
    project(folder / "text", f"readme_md={declared}")
    (folder / "text" / "docs").mkdir()
    (folder / "text" / "docs" / "about.md").write_bytes(content)
    (folder / "secret").write_bytes(b"secret")
    (folder / "text" / "link").symlink_to(folder / "secret")
    return only(found(folder / "text"))


def test_a_readme(tmp_path: Path) -> None:
    """Its text is in the spec, as it is; bytes that are none are replaced. A change makes a new revision."""
    spec = read(tmp_path, "'docs/about.md'")
    assert spec.readme == "# Hello\n![x](x.png) \ufffd"
    assert "readme" not in " ".join(spec.warnings)
    (tmp_path / "text" / "docs" / "about.md").write_text("other")
    assert only(found(tmp_path / "text")).revision != spec.revision


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ("'nothing.md'", "'nothing.md' cannot be read"),
        ("'../secret'", "expected a path inside the model's folder"),
        ("'/etc/hostname'", "expected a path inside the model's folder"),
        ("'link'", "leads out of the model's folder"),
        ("'docs'", "'docs' cannot be read"),
        ("'a\\0b'", "expected a path inside the model's folder"),
        ("['docs/about.md']", "cannot be read"),
        ("str(1)", "not a literal"),
    ],
)
def test_a_readme_that_is_none(tmp_path: Path, declared: str, words: str) -> None:
    """The model is served all the same, without it, and a warning says why."""
    spec = read(tmp_path, declared)
    assert spec.readme == ""
    (warning,) = [each for each in spec.warnings if "readme_md" in each]
    assert words in warning


def test_a_readme_that_is_too_long(tmp_path: Path) -> None:
    """256 kB is the most."""
    spec = read(tmp_path, "'docs/about.md'", b"x" * ((256 << 10) + 1))
    assert spec.readme == ""
    assert "more than 262144 bytes" in spec.warnings[-1]


def test_a_broken_project(tmp_path: Path) -> None:
    """The error names the file and the line."""
    put(tmp_path / "text" / "tungsten_model.py", "import x\nclass (")
    assert found(tmp_path / "text")["text"].error.startswith("tungsten_model.py, line 2")


def test_a_change_is_a_new_revision(tmp_path: Path) -> None:
    """Of any file of the project."""
    before = only(found(project(tmp_path / "text"))).revision
    put(tmp_path / "text" / "helper.py", "changed = True")
    assert only(found(tmp_path / "text")).revision != before


# --- what a request brings ---


@pytest.mark.parametrize("name", ["tungsten_model.py", "1/tungsten_model.py", "dragoman.json", "3/dragoman.json"])
def test_uploads_are_never_code(tmp_path: Path, name: str) -> None:
    """Whoever may send files may not run any code here."""
    record = b'{"kind": "tungsten", "spec": {"artifact": "", "arguments": {"module": "m", "class": ""}, "declared": {}}}'
    repository = Repository([str(tmp_path)], Defaults())
    model = repository.find("m", folder=repository.receive("m", {name: record}))
    repository.close()
    assert model is not None
    assert not model.versions
    assert "Python code" in model.error


def test_a_configuration_does_not_make_code_of_files(tmp_path: Path) -> None:
    """Nor does one that comes with a request, for files or for what lies here."""
    put(tmp_path / "m" / "1" / "model.py", "")
    put(tmp_path / "m" / "config.pbtxt", "")
    repository = Repository([str(tmp_path)], Defaults())
    for config in ('{"backend": "python"}', '{"backend": "python", "default_model_filename": "model.py"}'):
        for folder in ("", repository.receive("m", {"1/model.py": b""})):
            model = repository.find("m", config, folder)
            assert model is not None
            assert not model.versions
            assert "backend 'python'" in model.error
    repository.close()


# --- names in the model store ---


def stored(folder: Path, kind: str, name: str = "team/text", **spec: object) -> Stored:
    """What the store would say of the files in a folder."""
    files = recorded(folder)
    content = dict(spec)
    version = StoredVersion(name, "3", digest_of(kind, content, files), 0.0, kind, content, manifest(files), "models/x", "")
    return Stored(name, "v1", ("v1", "latest"), version, folder)


def test_a_name(tmp_path: Path) -> None:
    """Where there is no such path: the stored model, its number as the version and its tags as labels."""
    model = stored(project(tmp_path / "p"), "tungsten", **kept("", "tungsten_model", "Echo", {"batch_size": 6}))
    asked: list[str] = []

    def lookup(text: str) -> Stored:
        asked.append(text)
        return model

    models = found("team/text:v1", stored=lookup)
    spec = only(models)
    assert asked == ["team/text:v1"]
    assert (spec.name, spec.version, spec.digest, spec.batch.max_size) == ("text", "3", model.version.digest, 6)
    assert spec.arguments["class"] == "Echo"
    assert models["text"].labels == {"v1": "3", "latest": "3"}
    assert only(found("mine=team/text", stored=lookup)).name == "mine"
    assert only(found("team/text", defaults=Defaults(name="other"), stored=lookup)).name == "other"
    again = Repository(["team/text"], Defaults(), Elsewhere(lookup)).find("text")
    assert again is not None
    assert again.versions["3"].digest == model.version.digest


def test_a_stored_artifact(tmp_path: Path) -> None:
    """Its files say what it is."""
    build.iris(tmp_path / "m" / "iris.onnx")
    spec = only(found("iris:v1", stored=lambda _: stored(tmp_path / "m", "onnx", "iris")))
    assert (spec.name, spec.version, spec.runtime) == ("iris", "3", "onnx")


@pytest.mark.parametrize("name", ["tungsten_model.py", "dragoman.json", "1/tungsten_model.py"])
def test_a_stored_artifact_is_never_code(tmp_path: Path, name: str) -> None:
    """Whoever made it may have called it what they liked."""
    put(tmp_path / "m" / name, "x = 1")
    (model,) = found("iris", stored=lambda _: stored(tmp_path / "m", "onnx", "iris")).values()
    assert "Python code" in model.error


def test_a_stored_model_of_several_versions(tmp_path: Path) -> None:
    """A Triton folder keeps its own versions and its name."""
    for version in ("1", "2"):
        build.iris(tmp_path / "two" / version / "model.onnx")
    put(tmp_path / "two" / "config.pbtxt", 'name: "two"\nbackend: "onnxruntime"\nversion_policy { all {} }\n')
    (model,) = found("flowers", stored=lambda _: stored(tmp_path / "two", "triton", "flowers", leaf="two")).values()
    assert (model.name, sorted(model.versions), model.error) == ("flowers", ["1", "2"], "")


def test_a_path_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is not even asked."""
    project(tmp_path / "text")
    monkeypatch.chdir(tmp_path)

    def lookup(_: str) -> Stored:
        raise AssertionError

    assert only(found("text", stored=lookup)).artifact == str(tmp_path / "text")


def test_neither_a_path_nor_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both readings are in the error; what cannot be a name is only a path."""
    monkeypatch.chdir(tmp_path)

    def lookup(text: str) -> Stored:
        raise ServingError(Kind.NOT_FOUND, f"no model '{text}' is stored", what="model")

    (model,) = found("text:1", stored=lookup).values()
    assert model.error == f"there is no {tmp_path}/text:1, and no model 'text:1' is stored"
    (model,) = found("./Text.onnx", stored=lookup).values()
    assert model.error == f"there is no {tmp_path}/Text.onnx"


def test_a_damaged_model_is_not_served(tmp_path: Path) -> None:
    """The file that changed is named."""
    model = stored(project(tmp_path / "p"), "tungsten", **kept("", "tungsten_model", "Echo", {}))
    put(tmp_path / "p" / "helper.py", "evil = True")
    (served,) = found("text", stored=lambda _: model).values()
    assert "'helper.py' is missing or has changed" in served.error


def test_a_folder_with_a_record(tmp_path: Path) -> None:
    """What was extracted, or lies in an image, is what it was built as."""
    folder = project(tmp_path / "p")
    (folder / "tungsten_model.py").rename(folder / "other.py")
    put(folder / "me.md", "about me")
    write_record(folder, "tungsten", kept("", "other", "Echo", {"batch_size": 6, "readme_md": "me.md"}))
    spec = only(found(folder))
    assert (spec.arguments["module"], spec.batch.max_size, spec.readme) == ("other", 6, "about me")


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"kind": "onnx", "spec": {}}', '{"kind": "tungsten", "spec": {}}', '{"kind": "tungsten"}', "[" * 100_000]
)
def test_records_that_are_none(tmp_path: Path, content: str) -> None:
    """An error, not a guess."""
    put(tmp_path / "p" / "dragoman.json", content)
    assert "dragoman.json" in found(tmp_path / "p")["p"].error or "record" in found(tmp_path / "p")["p"].error


class TestOtherPlaces:
    """Targets that are fetched."""

    def repository(self, target: str, path: Path, *, registry: bool = True, trusting: bool = False) -> Repository:
        asked: list[str] = []
        self.asked = asked

        def fetch(uri: str) -> Path:
            asked.append(uri)
            return path

        defaults = Defaults(arguments={"trust_pickle": trusting})
        return Repository([target], defaults, Elsewhere(fetch=fetch, registry=registry))

    @pytest.mark.parametrize(
        ("target", "name"),
        [
            ("s3://bucket/iris", "iris"),
            ("flowers=s3://bucket/iris", "flowers"),
            ("models:/iris/3", "iris"),
            ("https://example.com/iris.onnx", "iris"),
        ],
    )
    def test_a_model(self, tmp_path: Path, target: str, name: str) -> None:
        """It is served under the name that its URI has, or that it was given."""
        build.iris(tmp_path / "abc" / "model.onnx")
        (found,) = self.repository(target, tmp_path / "abc").discover()
        assert (found.name, found.error, [spec.runtime for spec in found.versions.values()]) == (name, "", ["onnx"])
        assert self.asked == [target.partition("=")[2] or target]

    def test_code_from_elsewhere(self, tmp_path: Path) -> None:
        """Python code that was fetched is run only by who trusts it."""
        project(tmp_path / "p")
        (found,) = self.repository("s3://bucket/p", tmp_path / "p").discover()
        assert "--trust-pickle" in found.error
        (found,) = self.repository("s3://bucket/p", tmp_path / "p", trusting=True).discover()
        assert found.error == ""

    def test_a_place_that_is_away(self, tmp_path: Path) -> None:
        """The model is broken with the reason; the others are served."""

        def fetch(uri: str) -> Path:
            raise ServingError(Kind.UNAVAILABLE, "the bucket is away")

        local = build.iris(tmp_path / "other.onnx")
        broken, fine = Repository(["iris=s3://bucket/iris", str(local)], Defaults(), Elsewhere(fetch=fetch)).discover()
        assert (broken.name, broken.error, fine.error) == ("iris", "the bucket is away", "")

    def test_nobody_waits_for_names(self, tmp_path: Path) -> None:
        """Listing what there is, and loading another model, fetch nothing."""
        repository = self.repository("s3://bucket/iris", tmp_path)
        assert (repository.names(), repository.find("other"), self.asked) == (["iris"], None, [])

    def test_without_a_way(self) -> None:
        """A program that cannot fetch says so."""
        (found,) = Repository(["s3://bucket/iris"], Defaults()).discover()
        assert "cannot be fetched" in found.error
