"""What `describe` reads from MLflow's model folders, and how it refuses what is damaged or hostile."""

from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.mlflow_models import PYTHON_FUNCTION, Field, describe, file_of, is_mlflow
from tests.models import mlflow_folders as made

SKLEARN = {"sklearn": {"pickled_model": "model.skops", "serialization_format": "skops", "sklearn_version": "1.9.1"}}


def refused(folder: Path) -> str:
    """The message with which a folder is refused."""
    with pytest.raises(ServingError) as caught:
        describe(folder)
    assert caught.value.kind is Kind.INVALID_INPUT
    return caught.value.message


def test_a_column_signature(tmp_path: Path) -> None:
    """Columns by name with MLflow's types, the flavor, versions and the requirements."""
    described = made.signature(made.columns(a="double", b="string?"), [made.tensor("int64", -1)])
    folder = made.write(tmp_path, made.document(SKLEARN, described=described, run_id="r1"), requirements="scikit-learn==1.9.1\n")
    model = describe(folder)
    assert (model.flavor, model.run_id, model.mlflow_version, model.python_version) == ("sklearn", "r1", "3.17.2", "3.11.7")
    assert model.inputs == (Field("a", "double"), Field("b", "string", required=False))
    assert model.outputs == (Field("", "tensor", dtype="int64", shape=(-1,)),)
    assert model.columns
    assert model.requirements == "scikit-learn==1.9.1\n"
    assert is_mlflow(folder)


def test_a_folder_without_a_signature(tmp_path: Path) -> None:
    """Nothing is declared, which is not the same as no columns."""
    model = describe(made.write(tmp_path, made.document(SKLEARN)))
    assert model.inputs is None
    assert not model.columns
    assert model.params == ()


def test_parameters(tmp_path: Path) -> None:
    """A parameter has a type, a default, and a shape when it is a list."""
    params: list[dict[str, object]] = [
        {"name": "t", "type": "double", "default": 0.5, "shape": None},
        {"name": "stop", "type": "string", "default": ["a"], "shape": [-1]},
    ]
    model = describe(made.write(tmp_path, made.document({}, described=made.signature([], [], params))))
    assert model.params == (
        Field("t", "double", required=False, default=0.5),
        Field("stop", "string", required=False, shape=(-1,), default=["a"]),
    )


def test_nested_columns_are_kept_as_written(tmp_path: Path) -> None:
    """Objects, arrays and maps describe themselves."""
    column = {"name": "m", "type": "array", "items": {"type": "object", "properties": {"x": {"type": "long"}}}, "required": True}
    model = describe(made.write(tmp_path, made.document({}, described=made.signature([column]))))
    assert model.inputs is not None
    assert model.inputs[0].type == "array"
    assert model.inputs[0].described == column


@pytest.mark.parametrize(
    ("flavors", "expected"),
    [
        ({}, PYTHON_FUNCTION),
        ({"xgboost": {}}, "xgboost"),
        ({"mleap": {}, "onnx": {}}, "onnx"),
        ({"keras": {}, "tensorflow": {}}, "tensorflow"),
        ({"prophet": None}, "prophet"),
    ],
)
def test_the_native_flavor(tmp_path: Path, flavors: dict[str, object], expected: str) -> None:
    """The flavor besides python_function, the well known one where there are several."""
    assert describe(made.write(tmp_path, made.document(flavors))).flavor == expected


def test_python_env_says_what_the_flavor_does_not(tmp_path: Path) -> None:
    """The version of python_env.yaml, where the flavor has none."""
    document = made.document(SKLEARN)
    del document["flavors"]["python_function"]["python_version"]
    made.write(tmp_path, document, {"python_env.yaml": b"python: 3.12.4\nbuild_dependencies:\n- pip==25.0\n"})
    assert describe(tmp_path).python_version == "3.12.4"


def test_the_input_example(tmp_path: Path) -> None:
    """The ready request body is named, not read."""
    example = {"artifact_path": "input_example.json", "serving_input_path": "serving_input_example.json", "type": "dataframe"}
    model = describe(made.write(tmp_path, made.document(SKLEARN, saved_input_example_info=example)))
    assert model.serving_input_example == "serving_input_example.json"


def test_files_of_a_flavor_stay_inside(tmp_path: Path) -> None:
    """The first entry that is there names the file; one that leads out is refused."""
    flavors = {"sklearn": {"pickled_model": "model.pkl"}, "onnx": {"data": "../../etc/passwd"}}
    folder = made.write(tmp_path, made.document(flavors))
    model = describe(folder)
    assert file_of(folder, model, "sklearn", "nothing", "pickled_model") == folder.resolve() / "model.pkl"
    assert file_of(folder, model, "sklearn", "nothing") is None
    with pytest.raises(ServingError, match="inside the model's folder"):
        file_of(folder, model, "onnx", "data")


BILLION = b"a: &a [x, x]\nb: &b [*a, *a]\nflavors: *b\n"
HOSTILE = {
    "empty": (b"", "expected an object"),
    "list": (b"- a\n", "a list"),
    "no yaml": (b"a: [1\n", "no YAML"),
    "no text": (b"\xff\xfe\xff", "no YAML"),
    "no flavors": (b"mlflow_version: 3\n", "'flavors' is missing"),
    "aliases": (BILLION, "aliases"),
    "tag": (b"flavors: !!python/object/apply:os.system [ls]\n", "tags"),
    "deep": (b"flavors: " + b"[" * 5000, "nested deeper"),
    "wide": (b"flavors: [" + b"a," * 60000 + b"]", "more than"),
    "flavor": (b"flavors: {sklearn: [1]}\n", "flavors.'sklearn' is a list"),
    "signature": (b"flavors: {sklearn: {}}\nsignature: [1]\n", "signature is a list"),
    "side": (b"flavors: {sklearn: {}}\nsignature: {inputs: 'x'}\n", "signature.inputs is no JSON"),
    "side object": (b"flavors: {sklearn: {}}\nsignature: {inputs: '{}'}\n", "expected a list"),
    "deep side": (b"flavors: {sklearn: {}}\nsignature: {inputs: '" + b"[" * 200_000 + b"'}\n", "no JSON"),
    "column": (b"flavors: {sklearn: {}}\nsignature: {inputs: '[1]'}\n", "signature.inputs[0] is a number"),
    "column name": (b'flavors: {a: {}}\nsignature: {inputs: \'[{"name": [], "type": "long"}]\'}\n', "expected a 'name'"),
    "twins": (b'flavors: {a: {}}\nsignature: {inputs: \'[{"name":"a","type":"long"},{"name":"a","type":"long"}]\'}\n', "two columns 'a'"),
    "mixed": (b'flavors: {a: {}}\nsignature: {inputs: \'[{"name":"a","type":"long"},{"type":"long"}]\'}\n', "columns without"),
    "tensor": (b'flavors: {a: {}}\nsignature: {inputs: \'[{"type":"tensor"}]\'}\n', "tensor-spec"),
    "shape": (
        b'flavors: {a: {}}\nsignature: {inputs: \'[{"type":"tensor","tensor-spec":{"dtype":"int64","shape":[true]}}]\'}\n',
        "the shape is no list",
    ),
    "surrogate": (b'flavors: {a: {}}\nsignature: {inputs: \'[{"name":"\\ud800","type":"long"}]\'}\n', "surrogate"),
    "number": (b"flavors: {a: {}}\nx: " + b"1" * 6000, "no YAML"),
    "date": (b"flavors: {a: {}}\nx: 2020-13-45\n", "no YAML"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files(tmp_path: Path, case: str) -> None:
    """Each is refused with a reason, in no time, and without being run."""
    content, reason = HOSTILE[case]
    (tmp_path / "MLmodel").write_bytes(content)
    assert reason in refused(tmp_path)


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    """More than two mebibytes are not read."""
    (tmp_path / "MLmodel").write_bytes(b"#" * (3 << 20))
    assert "bytes" in refused(tmp_path)


def test_a_folder_without_the_file(tmp_path: Path) -> None:
    """It is no MLflow model, and describing it says which file is missing."""
    assert not is_mlflow(tmp_path)
    assert "MLmodel" in refused(tmp_path)
    (tmp_path / "MLmodel").mkdir()
    assert not is_mlflow(tmp_path)
    assert "MLmodel" in refused(tmp_path)
