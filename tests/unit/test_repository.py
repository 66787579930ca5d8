"""What `serve` accepts: every kind of target, their names, what is wrong with them, uploads, and when a revision changes."""

import os
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import Policy, PolicyKind
from dragoman.core.model import BatchPolicy, ModelSpec
from dragoman.serving.repository import Defaults, Found, Repository


def put(path: Path, content: str = "a model") -> Path:
    """A file with its folders. Nothing here is loaded, so any content will do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, "utf-8")
    return path


def find(*targets: object, name: str = "") -> dict[str, Found]:
    """What is found in these targets, by name."""
    found = Repository([str(t) for t in targets], Defaults(name=name)).discover()
    assert len({f.name for f in found}) == len(found)
    return {f.name: f for f in found}


def only(found: Mapping[str, Found]) -> ModelSpec:
    """The one version of the one model."""
    (model,) = found.values()
    assert not model.error
    (spec,) = model.versions.values()
    assert (spec.name, spec.version) == (model.name, next(iter(model.versions)))
    return spec


def error_of(found: Mapping[str, Found]) -> str:
    (model,) = found.values()
    assert model.error
    assert not model.versions
    return model.error


def test_versions_say_how_their_requests_are_joined(tmp_path: Path) -> None:
    """Where the operator wants that; those that do not say it are not batched, and a change is a new revision."""
    put(tmp_path / "m" / "1" / "model.onnx")
    usual = Defaults(batch=BatchPolicy(max_size=8), batch_files=True)

    def found() -> ModelSpec:
        (model,) = Repository([str(tmp_path / "m")], usual).discover()
        return model.versions["1"]

    alone = found()
    assert alone.batch.max_size == 1
    put(tmp_path / "m" / "1" / "batching_params.pbtxt", "max_batch_size { value: 4 } allowed_batch_sizes: 4")
    joined = found()
    assert joined.batch == BatchPolicy(max_size=4, max_queue=40, allowed=(4,))
    assert joined.revision != alone.revision
    assert only(find(tmp_path / "m")).batch == BatchPolicy()
    put(tmp_path / "m" / "1" / "batching_params.pbtxt", "max_batch_size: 4")
    (model,) = Repository([str(tmp_path / "m")], usual).discover()
    assert "batching_params.pbtxt" in model.error


# --- one model ---


@pytest.mark.parametrize(
    ("file", "runtime"),
    [("iris.onnx", "onnx"), ("iris.skops", "sklearn"), ("iris.joblib", "sklearn"), ("iris.ubj", "xgboost"), ("iris.pt2", "torch")],
)
def test_a_single_file(tmp_path: Path, file: str, runtime: str) -> None:
    """Its stem is the name, 1 the version, its suffix says the runtime."""
    spec = only(find(put(tmp_path / file)))
    assert (spec.name, spec.version, spec.runtime, spec.artifact) == ("iris", "1", runtime, str(tmp_path / file))
    assert spec.revision


@pytest.mark.parametrize("name", ["flowers", "iris.onnx", "iris"])
@pytest.mark.parametrize("file", ["iris.onnx", "a=b.onnx"])
def test_a_name_that_the_user_gives_wins(tmp_path: Path, name: str, file: str) -> None:
    """NAME=PATH or --name, whatever the file is called; everything after the first "=" is the path."""
    path = put(tmp_path / file)
    assert only(find(f"{name}={path}")).name == name
    assert only(find(path, name=name)).name == name


def test_a_path_with_an_equals_sign_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the whole target exists it is not NAME=PATH."""
    put(tmp_path / "lr=0.1.onnx")
    monkeypatch.chdir(tmp_path)
    assert only(find("lr=0.1.onnx")).name == "lr=0.1"
    assert only(find(tmp_path / "lr=0.1.onnx")).name == "lr=0.1"


def test_relative_paths_and_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Artifacts are absolute in any case: the server may change its folder."""
    put(tmp_path / "m.onnx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert only(find("m.onnx")).artifact == only(find("~/m.onnx")).artifact == only(find("n=~/m.onnx")).artifact == str(tmp_path / "m.onnx")


def test_a_folder_with_one_model(tmp_path: Path) -> None:
    """The folder's name is the model's; other files do not matter, hidden ones least of all."""
    put(tmp_path / "iris" / "weights.onnx")
    put(tmp_path / "iris" / "README.txt")
    put(tmp_path / "iris" / ".cache.onnx")
    put(tmp_path / "iris" / "__pycache__" / "x.onnx")
    spec = only(find(tmp_path / "iris"))
    assert (spec.name, Path(spec.artifact).name) == ("iris", "weights.onnx")


def test_version_folders(tmp_path: Path) -> None:
    """TensorFlow Serving's layout: the highest number is served, leading zeros and other folders do not matter."""
    for folder in ("2", "00000010", "9", "draft", "1.5", "-3", ".11", "99999999999999999999"):
        put(tmp_path / "iris" / folder / "model.onnx")
    spec = only(find(tmp_path / "iris"))
    assert (spec.name, spec.version, Path(spec.artifact).parent.name) == ("iris", "10", "00000010")


def test_defaults_hold_for_every_model(tmp_path: Path) -> None:
    """What the command line says about batches, instances and runtimes is in the specification."""
    defaults = Defaults(batch=BatchPolicy(max_size=7), instances=2, arguments={"threads": 3}, load_timeout_s=60, repeatable=True)
    (found,) = Repository([str(put(tmp_path / "m.onnx"))], defaults).discover()
    spec = found.versions["1"]
    assert (spec.batch.max_size, spec.instances, spec.arguments, spec.load_timeout_s) == (7, 2, {"threads": 3}, 60)
    assert spec.repeatable


# --- several ---


def test_a_repository_of_models(tmp_path: Path) -> None:
    """Folders of any layout, also a few levels deep; folders inside a model are its own, hidden ones nobody's."""
    put(tmp_path / "a" / "model.onnx")
    put(tmp_path / "a" / "inner" / "model.onnx")
    put(tmp_path / "b" / "1" / "model.onnx")
    put(tmp_path / "group" / "team" / "c" / "3" / "model.onnx")
    put(tmp_path / ".git" / "model.onnx")
    put(tmp_path / "far" / "too" / "deep" / "for" / "us" / "model.onnx")
    assert set(find(tmp_path / "a", tmp_path / "b")) == {"a", "b"}
    found = find(tmp_path)
    assert set(found) == {"a", "b", "c"}
    assert found["c"].versions["3"].artifact.endswith("c/3/model.onnx")


def test_one_bad_model_of_a_repository_does_not_hide_the_others(tmp_path: Path) -> None:
    """It is found with its reason."""
    put(tmp_path / "good" / "1" / "model.onnx")
    put(tmp_path / "empty" / "1" / "notes.md")
    put(tmp_path / "broken" / "config.pbtxt", "max_batch_size: -1")
    put(tmp_path / "stats" / "model.onnx")
    put(tmp_path / "a:b" / "model.onnx")
    found = find(tmp_path)
    assert {name: bool(f.error) for name, f in found.items()} == {"good": False, "empty": True, "broken": True, "stats": True, "a:b": True}
    assert "it holds notes.md" in found["empty"].error
    assert "max_batch_size" in found["broken"].error
    assert "no model may be called 'stats'" in found["stats"].error
    assert "URL" in found["a:b"].error


def test_a_name_is_for_one_model(tmp_path: Path) -> None:
    """Given to a repository of one it names that; given to one of several it is refused rather than ignored."""
    put(tmp_path / "one" / "iris" / "1" / "model.onnx")
    assert only(find(f"flowers={tmp_path / 'one'}")).name == "flowers"
    put(tmp_path / "one" / "wine" / "1" / "model.onnx")
    assert "several (iris, wine)" in error_of(find(f"flowers={tmp_path / 'one'}"))


def test_of_two_targets_of_one_name_the_second_is_refused(tmp_path: Path) -> None:
    """The first is served, and the message says how to name the other."""
    first, second = put(tmp_path / "a" / "m.onnx"), put(tmp_path / "b" / "m.onnx")
    found = Repository([str(first), str(second)], Defaults()).discover()
    assert [f.name for f in found] == ["m", "m"]
    assert found[0].versions["1"].artifact == str(first)
    assert "NAME=PATH" in found[1].error
    assert set(find(first, f"n={second}")) == {"m", "n"}


def test_names_lists_what_could_be_loaded(tmp_path: Path) -> None:
    """Readable or not, each name once."""
    put(tmp_path / "r" / "a" / "model.onnx")
    put(tmp_path / "r" / "b" / "config.pbtxt", "no config")
    repository = Repository([str(tmp_path / "r"), f"c={tmp_path / 'none'}", str(tmp_path / "r" / "a")], Defaults())
    assert repository.names() == ["a", "b", "c"]


# --- what cannot be served ---


def test_a_missing_path(tmp_path: Path) -> None:
    """The message has the path; the name is the one that was meant."""
    found = find(tmp_path / "none.onnx", f"m={tmp_path}/nothing")
    assert {name: f.error for name, f in found.items()} == {
        "none": f"there is no {tmp_path}/none.onnx",
        "m": f"there is no {tmp_path}/nothing",
    }


@pytest.mark.parametrize("target", ["x" * 300 + ".onnx", "m=" + "y" * 5000, "nul\0byte", "/dev/null", "half\udc80.onnx"])
def test_paths_that_no_disk_has(target: str) -> None:
    """Too long, with a NUL, no file and no folder, not UTF-8: an error that can be printed, and no exception."""
    (found,) = Repository([target], Defaults()).discover()
    assert found.error
    (found.name + found.error).encode()
    assert Repository([target], Defaults()).names() == [found.name]


def test_a_folder_with_nothing_to_serve(tmp_path: Path) -> None:
    """The message says what lies there instead."""
    assert "it holds nothing" in error_of(find(tmp_path))
    put(tmp_path / "data.csv")
    assert "it holds data.csv" in error_of(find(tmp_path))


def test_a_folder_with_several_models_and_no_folders(tmp_path: Path) -> None:
    """The user must choose, unless one is called model."""
    put(tmp_path / "a.onnx")
    put(tmp_path / "b.onnx")
    assert "holds several models (a.onnx, b.onnx); name the file" in error_of(find(tmp_path))
    put(tmp_path / "1" / "other.onnx")
    put(tmp_path / "1" / "model.onnx")
    assert only(find(tmp_path)).artifact.endswith("1/model.onnx")


@pytest.mark.parametrize("where", ["", "1"])
def test_a_saved_model_is_a_folder(tmp_path: Path, where: str) -> None:
    """It changes with any of its files, and nobody but the operator says where it runs."""
    put(tmp_path / "m" / where / "saved_model.pb")
    put(tmp_path / "m" / where / "variables" / "variables.index")
    spec = only(find(tmp_path / "m"))
    assert (spec.runtime, spec.artifact, spec.engine) == ("savedmodel", str(tmp_path / "m" / where).rstrip("/"), "")
    put(tmp_path / "m" / where / "variables" / "variables.data-00000-of-00001")
    assert only(find(tmp_path / "m")).revision != spec.revision


def test_names_on_disk_need_not_be_utf8(tmp_path: Path) -> None:
    """Such a model is refused under a name that can be printed, and its neighbours are served."""
    put(tmp_path / "good" / "model.onnx")
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    put(tmp_path / "caf\udce9" / "model.onnx")
    found = find(tmp_path)
    assert set(found) == {"good", "caf\\udce9"}
    found["caf\\udce9"].error.encode()
    assert not found["good"].error


# --- one model again, for a load request ---


def test_find_reads_the_disk_again(tmp_path: Path) -> None:
    """What came after the start is found; what is not there is None, and what cannot be read has its reason."""
    (tmp_path / "models").mkdir()
    repository = Repository([str(tmp_path / "models"), f"late={tmp_path}/later.onnx"], Defaults())
    assert repository.find("m") is None
    late = repository.find("late")
    assert late is not None
    assert "there is no" in late.error
    artifact = put(tmp_path / "models" / "m" / "model.onnx")
    put(tmp_path / "later.onnx")
    found = repository.find("m")
    assert found is not None
    assert found.versions["1"].artifact == str(artifact)
    late = repository.find("late")
    assert late is not None
    assert not late.error


@pytest.mark.parametrize("name", ["a/b", "..", "", "a:b", "stats"])
def test_find_refuses_names_that_cannot_be_served(name: str) -> None:
    """Before any disk is looked at."""
    with pytest.raises(ServingError) as caught:
        Repository([], Defaults()).find(name)
    assert caught.value.kind in (Kind.INVALID_INPUT, Kind.CONFLICT)


def test_uploads_are_written_and_removed() -> None:
    """Files of a load request are read like a folder on disk, and are gone when the repository is closed."""
    repository = Repository([], Defaults())
    found = repository.find("m", '{"backend": "onnxruntime"}', repository.receive("m", {"1/model.onnx": b"one", "3/model.onnx": b"three"}))
    assert found is not None
    assert not found.error
    artifact = Path(found.versions["3"].artifact)
    assert artifact.read_bytes() == b"three"
    again = repository.find("m", '{"backend": "onnxruntime"}', repository.receive("m", {"3/model.onnx": b"four"}))
    assert again is not None
    assert again.versions["3"].revision != found.versions["3"].revision
    assert artifact.read_bytes() == b"three"
    repository.close()
    assert not artifact.exists()
    repository.close()


@pytest.mark.parametrize(
    "path", ["../x.onnx", "/etc/x.onnx", "1/../../x.onnx", "", ".", "1\0/x", "1/" + "x" * 300, "a" * 5000, "..\\x.onnx", "1/x.onnx/y"]
)
def test_uploads_stay_in_their_folder(path: str) -> None:
    """A path that leads out, or that no disk can have, is the client's fault; nothing of the request stays behind."""
    repository = Repository([], Defaults())
    try:
        with pytest.raises(ServingError) as caught:
            repository.find("m", "{}", repository.receive("m", {"1/x.onnx": b"first", path: b"bad"}))
        assert caught.value.kind is Kind.INVALID_INPUT
        assert "'m'" in caught.value.message
        caught.value.message.encode()
        good = repository.find("n", "{}", repository.receive("n", {"1/model.onnx": b""}))
        assert good is not None
        root = Path(good.versions["1"].artifact).parents[3]
        assert [p.name for p in root.rglob("*.onnx")] == ["model.onnx"]
    finally:
        repository.close()


def test_a_name_too_long_for_a_folder_is_refused() -> None:
    """255 characters may be 1,020 bytes."""
    repository = Repository([], Defaults())
    with pytest.raises(ServingError, match="cannot be written: File name too long"):
        repository.find("é" * 200, "{}", repository.receive("é" * 200, {"1/model.onnx": b""}))
    repository.close()


def test_uploads_at_the_same_time() -> None:
    """Load requests are handled in threads: each gets a folder of its own."""
    repository = Repository([], Defaults())
    start = threading.Barrier(8)
    artifacts: list[str] = []

    def upload(number: int) -> None:
        start.wait(10)
        found = repository.find("m", '{"backend": "onnxruntime"}', repository.receive("m", {"1/model.onnx": b"%d" % number}))
        assert found is not None
        artifacts.append(found.versions["1"].artifact)

    threads = [threading.Thread(target=upload, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(Path(a).read_bytes() for a in artifacts) == [b"%d" % i for i in range(8)]
    repository.close()


def test_a_single_file_takes_no_configuration(tmp_path: Path) -> None:
    """It would be ignored, so it is refused."""
    found = Repository([str(put(tmp_path / "m.onnx"))], Defaults()).find("m", "{}")
    assert found is not None
    assert "takes no model configuration" in found.error


def test_several_versions_of_one_name(tmp_path: Path) -> None:
    """NAME:VERSION=PATH; together they are one model, and one that cannot be read does not hide the others."""
    first, second = put(tmp_path / "a.onnx"), put(tmp_path / "b.onnx")
    model = find(f"m:v1={first}", f"m:v2={second}", f"m:v3={tmp_path / 'missing.onnx'}")["m"]
    assert {v: (s.version, s.named_version, Path(s.artifact).name) for v, s in model.versions.items()} == {
        "v1": ("v1", True, "a.onnx"),
        "v2": ("v2", True, "b.onnx"),
    }
    assert "missing.onnx" in model.faults["v3"].message
    assert not model.error
    again = Repository([f"m:v1={first}", f"m:v2={second}"], Defaults()).find("m")
    assert again is not None
    assert again.versions == model.versions


def test_a_version_beside_none(tmp_path: Path) -> None:
    """A target without a version is the usual one, which nobody named."""
    path = put(tmp_path / "a.onnx")
    model = find(f"m={path}", f"m:v1={path}")["m"]
    assert {v: s.named_version for v, s in model.versions.items()} == {"1": False, "v1": True}
    put(tmp_path / "n" / "7" / "model.onnx")
    assert only(find(tmp_path / "n")).named_version


def test_one_version_twice(tmp_path: Path) -> None:
    """The second is an error; so is a folder of several versions as one."""
    path = put(tmp_path / "a.onnx")
    found = Repository([f"m:v1={path}", f"m:v1={path}"], Defaults()).discover()
    assert [f.error for f in found] == ["", "two targets are called 'm:v1'; name one of them differently with NAME=PATH"]
    put(tmp_path / "n" / "1" / "model.onnx")
    put(tmp_path / "n" / "2" / "model.onnx")
    folder = Repository([f"n:v1={tmp_path / 'n'}"], Defaults(policy=Policy(PolicyKind.ALL))).discover()
    assert "is for one version, but" in folder[0].error
    assert only(find(f"n:v1={tmp_path / 'n'}")).version == "v1"


@pytest.mark.parametrize("version", ["", "a b", "a:b", "@x", "x" * 101])
def test_versions_that_no_url_could_carry(tmp_path: Path, version: str) -> None:
    """Refused by name."""
    assert "version of 'm'" in error_of(find(f"m:{version}={put(tmp_path / 'a.onnx')}"))


def test_class_arguments_reach_mlrun_models(tmp_path: Path) -> None:
    """Of the name and of the version; other Python models say that they have no effect, and a change of them is a new revision."""
    server = put(tmp_path / "server.py", "from mlrun.serving import V2ModelServer as S\nclass A(S): pass\nclass B(A): pass")
    plain = put(tmp_path / "plain.py", "def predict(x: int): return x")

    def versions(**arguments: object) -> Mapping[str, ModelSpec]:
        defaults = Defaults(class_args={"m": {"k": 1}, "m:v1": arguments})
        (found,) = Repository([f"m:v1={server}:B", f"m:v2={plain}"], defaults).discover()
        return found.versions

    specs = versions(j=2)
    assert specs["v1"].arguments["class_args"] == {"k": 1, "j": 2}
    assert (specs["v1"].batch.max_size, specs["v1"].warnings) == (1, ())
    assert "class arguments are for MLRun's classes" in specs["v2"].warnings[0]
    assert versions(j=3)["v1"].revision != specs["v1"].revision


def test_class_arguments_and_explainers_for_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log says so, once."""
    explainers = {"m": {"method": "auto"}, "mm": {"method": "auto"}}
    repository = Repository([f"m={put(tmp_path / 'a.onnx')}"], Defaults(class_args={"n": {"k": 1}}, explainers=explainers))
    for _ in range(2):
        repository.discover()
    assert [record.getMessage() for record in caplog.records] == [
        "class arguments are given for 'n', which is none of the targets",
        "an explainer is given for 'mm', which is none of the targets",
    ]
