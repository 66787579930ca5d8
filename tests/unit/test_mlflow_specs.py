"""From an MLflow folder to a spec: which runtime loads it, in which process and environment, under which signature, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import BatchPolicy, ModelSpec
from dragoman.core.spec_json import spec_from_json, spec_to_json
from dragoman.core.tensors import BYTES, FP32, FP64, INT64, Form, TensorSpec
from dragoman.serving.mlflow_specs import spec_of
from dragoman.serving.reading import Defaults
from dragoman.serving.repository import Repository
from tests.models import build, learned
from tests.models import mlflow_folders as made

TRUSTED = ModelSpec("m", arguments={"trust_pickle": True})


def function(folder: Path, described: Any = None, requirements: str = "", **more: Any) -> ModelSpec:
    """The spec of a model of its own code, with the environments switched off unless told otherwise."""
    made.write(folder, made.document({}, described=described), requirements=requirements)
    return spec_of(TRUSTED, folder, **{"environments": "never", **more})


def refused(folder: Path, base: ModelSpec = TRUSTED, **more: Any) -> ServingError:
    with pytest.raises(ServingError) as caught:
        spec_of(base, folder, **more)
    return caught.value


def test_a_native_flavor(tmp_path: Path) -> None:
    """In this process, by the runtime of the flavor, from the file that the flavor names; no trust is needed to read that."""
    spec = spec_of(ModelSpec("m"), made.flowers(tmp_path))
    assert (spec.runtime, spec.engine, spec.artifact) == ("mlflow", "local", str(tmp_path / "model.skops"))
    assert spec.arguments["mlflow"]["runtime"] == "sklearn"
    assert spec.environment is None
    assert spec.revision


def test_the_spec_can_be_stored(tmp_path: Path) -> None:
    """As JSON and back, which is how a model process gets it."""
    for spec in (spec_of(TRUSTED, made.flowers(tmp_path / "a")), function(tmp_path / "b", made.doubling())):
        assert spec_from_json(spec_to_json(spec)) == spec


def test_the_revision_follows_the_folder(tmp_path: Path) -> None:
    """A changed MLmodel is another revision of the model, its file the same."""
    folder = made.flowers(tmp_path)
    first = spec_of(TRUSTED, folder)
    assert spec_of(TRUSTED, folder).revision == first.revision
    with (folder / "MLmodel").open("a") as file:
        file.write("run_id: another\n")
    assert spec_of(TRUSTED, folder).revision != first.revision


def test_own_code_gets_a_process(tmp_path: Path) -> None:
    """One request at a time, unless the operator says that rows may be joined."""
    spec = function(tmp_path, made.doubling())
    assert (spec.runtime, spec.engine, spec.artifact, spec.batch.max_size) == ("mlflow", "process", str(tmp_path), 1)
    assert function(tmp_path, made.doubling(), batch_size=8).batch.max_size == 8
    assert spec_of(ModelSpec("m", batch=BatchPolicy(32)), made.flowers(tmp_path / "n")).batch.max_size == 32


@pytest.mark.parametrize(
    ("flavors", "text"),
    [
        ({}, "python_function"),
        ({"prophet": {}}, "prophet"),
        ({"tensorflow": {}}, "Keras's own format"),
        ({"keras": {}}, "Keras's own format"),
    ],
)
def test_code_needs_trust(tmp_path: Path, flavors: dict[str, Any], text: str) -> None:
    """Whatever only its own code can load is refused, with the reason and the ways out."""
    made.write(tmp_path, made.document(flavors))
    for error in (refused(tmp_path, ModelSpec("m")), refused(tmp_path, code=False)):
        assert error.kind is Kind.UNSUPPORTED
        assert text in error.message
        assert "--trust-pickle" in error.message
        assert "skops" in error.message


@pytest.mark.parametrize(
    ("flavor", "folder"),
    [({"saved_model_dir": "tf2model", "model_type": "tf2-module"}, "tf2model"), ({"data": "data", "save_format": "tf"}, "data/model")],
)
def test_saved_models_need_no_trust(tmp_path: Path, flavor: dict[str, str], folder: str) -> None:
    """TensorFlow's flavor by our own runtime, in a process of its own unless the operator says otherwise."""
    made.write(tmp_path, made.document({"tensorflow": flavor}), {f"{folder}/saved_model.pb": b"x"})
    spec = spec_of(ModelSpec("m", engine=""), tmp_path, code=False)
    assert (spec.runtime, spec.engine, spec.artifact) == ("mlflow", "process", str(tmp_path / folder))
    assert spec.arguments["mlflow"]["runtime"] == "savedmodel"
    assert spec_of(ModelSpec("m", engine="local"), tmp_path).engine == "local"


def test_trust_is_the_operators_alone(tmp_path: Path) -> None:
    """A folder cannot call itself trusted."""
    made.write(tmp_path, made.document({}, trust_pickle=True, metadata={"trust_pickle": True}))
    assert refused(tmp_path, ModelSpec("m")).kind is Kind.UNSUPPORTED


def test_a_flavor_without_python_function(tmp_path: Path) -> None:
    """Nothing here can load it, trusted or not."""
    made.write(tmp_path, {"flavors": {"mleap": {"model_data": "x"}}})
    assert "'mleap'" in refused(tmp_path).message


def test_files_outside_of_the_folder(tmp_path: Path) -> None:
    """No entry leads out, by dots or by a link."""
    folder = made.write(tmp_path / "f", made.document({"sklearn": {"pickled_model": "../other.skops"}}))
    assert refused(folder).kind is Kind.INVALID_INPUT
    (tmp_path / "other.skops").write_bytes(b"x")
    made.write(folder, made.document({"sklearn": {"pickled_model": "model.skops"}}))
    (folder / "model.skops").symlink_to(tmp_path / "other.skops")
    assert "leads out" in refused(folder).message


# --- signatures ---


def test_columns_by_type(tmp_path: Path) -> None:
    """One tensor per column, of one value per row; parameters are what the model reads."""
    spec = function(tmp_path, made.doubling())
    assert spec.signature is not None
    assert spec.signature.inputs == (
        TensorSpec("x", FP64, (-1,), native="double"),
        TensorSpec("note", BYTES, (-1,), optional=True, native="string"),
    )
    assert [output.name for output in spec.signature.outputs] == ["twice", "text"]
    assert spec.signature.batch
    assert spec.signature.reads == {"times"}
    assert spec.arguments["mlflow"]["params"] == [{"name": "times", "type": "long", "list": False}]


def test_tensors(tmp_path: Path) -> None:
    """Tensors keep their names; a single one without is input-0, its answer predict."""
    described = made.signature([made.tensor("float32", -1, 28, 28)], [made.tensor("int64", -1)])
    signature = function(tmp_path, described).signature
    assert signature is not None
    assert signature.inputs == (TensorSpec("input-0", FP32, (-1, 28, 28), native="tensor"),)
    assert signature.outputs == (TensorSpec("predict", INT64, (-1,), native="tensor"),)
    described = made.signature([made.tensor("str", 3, name="a"), made.tensor("complex256", name="b")])
    signature = function(tmp_path, described).signature
    assert signature is not None
    assert [(spec.name, spec.datatype) for spec in signature.inputs] == [("a", BYTES), ("b", None)]
    assert not signature.batch


def test_columns_without_names(tmp_path: Path) -> None:
    """Side by side in one matrix, of the type that holds them all."""
    signature = function(tmp_path, made.signature([{"type": "long"}, {"type": "double"}], [{"type": "long"}] * 2)).signature
    assert signature is not None
    assert signature.inputs == (TensorSpec("input-0", FP64, (-1, 2)),)
    assert signature.outputs == (TensorSpec("predict", INT64, (-1, 2)),)


def test_nested_columns(tmp_path: Path) -> None:
    """Objects, lists and maps make the model one of rows, with a schema; a native runtime cannot take them."""
    person = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "long", "required": False}}}
    columns = [
        {"name": "people", "type": "array", "items": person, "required": True},
        {"name": "scores", "type": "map", "values": {"type": "double"}, "required": False},
        {"name": "any", "type": "any", "required": True},
    ]
    signature = function(tmp_path / "f", made.signature(columns)).signature
    assert signature is not None
    assert signature.form is Form.ROWS
    assert signature.input_schema == {
        "type": "object",
        "properties": {
            "people": {
                "type": "array",
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name"]},
            },
            "scores": {"type": "object", "additionalProperties": {"type": "number"}},
            "any": {},
        },
        "required": ["people", "any"],
    }
    native = made.sklearn(tmp_path / "n", learned.classifier(), made.signature(columns))
    assert "'people' is of MLflow's type 'array'" in refused(native).message


def test_a_type_that_is_nested_without_end(tmp_path: Path) -> None:
    """Refused with a reason instead of recursing."""
    column: dict[str, Any] = {"type": "double"}
    for _ in range(30):
        column = {"type": "array", "items": column}
    made.write(tmp_path, made.document({}, described=made.signature([{"name": "a", **column}])))
    assert "nested deeper" in refused(tmp_path, environments="never").message


def test_nothing_declared(tmp_path: Path) -> None:
    """Then the model says what it takes."""
    assert function(tmp_path).signature is None


# --- environments ---


def test_the_environment_of_its_requirements(tmp_path: Path) -> None:
    """Built from the folder's requirements.txt when something of it is missing here."""
    made.write(tmp_path, made.document({}, described=None), requirements="surely-not-installed==1.0\nnumpy\n")
    spec = spec_of(TRUSTED, tmp_path)
    assert spec.environment is not None
    assert spec.environment.requirements == "surely-not-installed==1.0\nnumpy\n"
    assert spec_of(TRUSTED, tmp_path, environments="never").environment is None


def test_no_environment_where_all_is_installed(tmp_path: Path) -> None:
    """Unless the operator always wants one. The Python of the folder is this one."""
    document = made.document({})
    document["flavors"]["python_function"].pop("python_version")
    made.write(tmp_path, document, requirements="numpy\npyyaml\n")
    assert spec_of(TRUSTED, tmp_path).environment is None
    assert spec_of(TRUSTED, tmp_path, environments="always").environment is not None


def test_another_python(tmp_path: Path) -> None:
    """A newer Python makes an environment; one that is too old is said to be, and the server's own taken."""
    document = made.document({})
    document["flavors"]["python_function"]["python_version"] = "3.99.1"
    made.write(tmp_path, document)
    environment = spec_of(TRUSTED, tmp_path).environment
    assert environment is not None
    assert environment.python == "3.99"
    document["flavors"]["python_function"]["python_version"] = "3.8.1"
    made.write(tmp_path, document)
    spec = spec_of(TRUSTED, tmp_path)
    assert spec.environment is None
    assert any("3.8" in warning for warning in spec.warnings)


def test_requirements_that_may_not_be_installed(tmp_path: Path) -> None:
    """Paths and other files are refused before anything is built."""
    made.write(tmp_path, made.document({}), requirements="-r /etc/other.txt\n")
    error = refused(tmp_path)
    assert error.kind is Kind.INVALID_INPUT
    assert "requirements.txt" in error.message


# --- the repository ---


def specs(*targets: str, **defaults: Any) -> dict[str, ModelSpec]:
    found = Repository(targets, Defaults(**defaults)).discover()
    assert not [each.error for each in found if each.error], found
    return {f"{each.name}/{version}": spec for each in found for version, spec in each.versions.items()}


def test_a_folder_as_target(tmp_path: Path) -> None:
    """By its name, a name of the user's, as a version folder, and among others in a repository."""
    made.flowers(tmp_path / "models" / "flowers")
    made.flowers(tmp_path / "models" / "versioned" / "3")
    build.iris(tmp_path / "models" / "iris" / "1" / "model.onnx")
    flowers = str(tmp_path / "models" / "flowers")
    assert list(specs(flowers)) == ["flowers/1"]
    assert list(specs(f"mine={flowers}")) == ["mine/1"]
    found = specs(str(tmp_path / "models"))
    assert {name: spec.runtime for name, spec in found.items()} == {"flowers/1": "mlflow", "iris/1": "onnx", "versioned/3": "mlflow"}


def test_a_broken_folder_is_named_with_its_reason(tmp_path: Path) -> None:
    """The others are served."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "MLmodel").write_text("[")
    made.flowers(tmp_path / "good")
    found = {each.name: each for each in Repository([str(tmp_path)], Defaults()).discover()}
    assert "MLmodel" in found["bad"].error
    assert list(found["good"].versions) == ["1"]


def test_code_in_a_load_request(tmp_path: Path) -> None:
    """What a load request brings is data, even on a server that trusts pickles."""
    folder = made.own_code(tmp_path)
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    repository = Repository([], Defaults(arguments={"trust_pickle": True}))
    try:
        found = repository.find("m", folder=repository.receive("m", files))
    finally:
        repository.close()
    assert found is not None
    assert "code" in found.error
