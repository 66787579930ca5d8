"""Reading model-settings.json: what people write, where the artifact lies, what has no effect, what is refused."""

import contextlib
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import BatchPolicy
from dragoman.core.tensors import BYTES, FP32, TensorSpec
from dragoman.serving.mlserver import read_settings
from dragoman.serving.settings import ModelSettings

SKLEARN = "mlserver_sklearn.SKLearnModel"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a model named iris."""
    path = tmp_path / "iris"
    path.mkdir()
    return path


def read(folder: Path, **values: Any) -> ModelSettings:
    return read_settings(orjson.dumps({"implementation": SKLEARN, **values}), folder)


def refused(folder: Path, text: str | bytes, kind: Kind = Kind.INVALID_INPUT) -> str:
    with pytest.raises(ServingError) as caught:
        read_settings(text, folder)
    assert caught.value.kind is kind
    assert caught.value.message.startswith("model-settings.json ")
    assert len(caught.value.message) < 600
    return caught.value.message


def refused_values(folder: Path, kind: Kind = Kind.INVALID_INPUT, **values: Any) -> str:
    return refused(folder, orjson.dumps({"implementation": SKLEARN, **values}), kind)


def test_a_model_as_the_documentation_has_it(folder: Path) -> None:
    """Name, implementation, a file beside the settings, a version, batching, declared inputs."""
    (folder / "iris.joblib").touch()
    result = read(
        folder,
        name="iris",
        platform="mlserver",
        max_batch_size=300,
        max_batch_time=0.3,
        inputs=[{"name": "input-0", "datatype": "FP32", "shape": [1, 4], "parameters": {"content_type": "np"}}],
        outputs=[{"name": "predict", "datatype": "BYTES", "shape": [1]}],
        parameters={"uri": "./iris.joblib", "version": "v0.1.0", "content_type": "np", "extra": {"probability": True}},
    )
    assert (result.name, result.source, result.runtime) == ("iris", "model-settings.json of model 'iris'", "sklearn")
    assert (result.platform, result.version, result.artifact) == ("mlserver", "v0.1.0", (folder / "iris.joblib").resolve())
    assert (result.batch, result.joins) == (BatchPolicy(max_size=300, max_delay_s=0.3), True)
    assert (result.inputs, result.outputs) == ((TensorSpec("input-0", FP32, (-1, 4)),), (TensorSpec("predict", BYTES, (-1,)),))
    assert result.arguments == {"probability": True}
    assert result.warnings == ()


def test_the_least_that_one_can_write(folder: Path) -> None:
    """Only the implementation: the folder gives the name, and its well-known file is the artifact."""
    (folder / "model.pkl").touch()
    result = read(folder)
    assert (result.name, result.version, result.platform, result.batch, result.joins) == ("iris", "", "", None, False)
    assert result.artifact == (folder / "model.pkl").resolve()
    assert (result.inputs, result.outputs, result.warnings) == ((), (), ())


@pytest.mark.parametrize(
    ("implementation", "runtime"),
    [
        (SKLEARN, "sklearn"),
        ("mlserver_sklearn.sklearn.SKLearnModel", "sklearn"),
        ("mlserver_xgboost.XGBoostModel", "xgboost"),
        ("mlserver_xgboost.xgboost.XGBoostModel", "xgboost"),
        ("mlserver_lightgbm.LightGBMModel", "lightgbm"),
        ("mlserver_mlflow.MLflowRuntime", "mlflow"),
        ("mlserver_mlflow.runtime.MLflowRuntime", "mlflow"),
        ("mlserver_onnx.OnnxModel", "onnx"),
        ("my_runtimes.ONNXRuntime", "onnx"),
    ],
)
def test_implementations(folder: Path, implementation: str, runtime: str) -> None:
    """By the package's export or its module, and every one that has ONNX in its name."""
    assert read(folder, implementation=implementation).runtime == runtime


@pytest.mark.parametrize(
    "implementation",
    [
        "mlserver_huggingface.HuggingFaceRuntime",
        "mlserver_catboost.CatboostModel",
        "mlserver_sklearn.Other",
        "models.SumModel",
        "SKLearnModel",
        "mlserver_sklearn",
        ".",
        "x" * 10_000,
    ],
)
def test_other_implementations_are_unsupported(folder: Path, implementation: str) -> None:
    """The text names the one that is missing, and those that there are."""
    error = refused_values(folder, Kind.UNSUPPORTED, implementation=implementation)
    assert implementation[:50] in error
    assert SKLEARN in error


@pytest.mark.parametrize(
    ("implementation", "files", "chosen"),
    [
        (SKLEARN, ["model.pkl", "model.joblib"], "model.joblib"),
        (SKLEARN, ["model.skops"], "model.skops"),
        ("mlserver_xgboost.XGBoostModel", ["model.ubj", "model.json"], "model.json"),
        ("mlserver_lightgbm.LightGBMModel", ["model.bst", "model.txt"], "model.bst"),
        ("mlserver_onnx.OnnxModel", ["model.onnx"], "model.onnx"),
        (SKLEARN, ["model.onnx"], ""),
    ],
)
@pytest.mark.parametrize("uri", ["", ".", "./", "sub", "file:sub"])
def test_a_folder_is_searched_for_well_known_files(folder: Path, implementation: str, files: list[str], chosen: str, uri: str) -> None:
    """In MLServer's order; without any, the folder itself is the artifact."""
    place = folder / "sub" if "sub" in uri else folder
    place.mkdir(exist_ok=True)
    for name in files:
        (place / name).touch()
    assert read(folder, implementation=implementation, parameters={"uri": uri}).artifact == (place / chosen).resolve()


def test_absolute_paths_are_taken_as_written(folder: Path) -> None:
    """Whoever wrote one meant that file; a file: address is one too, its escapes undone."""
    elsewhere = folder.parent / "my model.joblib"
    elsewhere.touch()
    for uri in (str(elsewhere), f"file://{elsewhere}", f"file://localhost{elsewhere}", f"file:{elsewhere}".replace(" ", "%20")):
        assert read(folder, parameters={"uri": uri}).artifact == elsewhere


@pytest.mark.parametrize("uri", ["../secret", "sub/../../secret", "link", "file:../secret", "file:%2e%2e/secret", "a\\b", "a\0b"])
def test_relative_paths_stay_in_the_folder(folder: Path, uri: str) -> None:
    """A repository that came from elsewhere cannot have the server open what lies around it."""
    (folder.parent / "secret").touch()
    (folder / "link").symlink_to(folder.parent / "secret")
    assert "parameters.uri" in refused_values(folder, parameters={"uri": uri})


def test_links_in_a_folder_stay_in_it(folder: Path) -> None:
    """The well-known file, too, must lie where it seems to."""
    (folder.parent / "secret").touch()
    (folder / "model.joblib").symlink_to(folder.parent / "secret")
    assert "leads out" in refused_values(folder)


@pytest.mark.parametrize("uri", ["missing.joblib", "/no/such/file", "n" * 5000, "/" + "n" * 5000, "/a\0b"])
def test_an_artifact_that_is_not_there(folder: Path, uri: str) -> None:
    """Named by field and path."""
    assert "parameters.uri" in refused_values(folder, parameters={"uri": uri})


@pytest.mark.parametrize("uri", ["s3://bucket/model", "https://example.com/m.onnx", "gs://x", "hdfs://[bad"])
def test_addresses_are_unsupported(folder: Path, uri: str) -> None:
    """Nothing is fetched because a file says so."""
    assert "only files can be read" in refused_values(folder, Kind.UNSUPPORTED, parameters={"uri": uri})


@pytest.mark.parametrize(
    ("values", "policy"),
    [
        ({}, None),
        ({"max_batch_size": 0, "max_batch_time": 0.0}, None),
        ({"max_batch_size": 8, "max_batch_time": 0.5}, BatchPolicy(max_size=8, max_delay_s=0.5)),
        ({"max_batch_size": 8, "max_batch_time": 1}, BatchPolicy(max_size=8, max_delay_s=1.0)),
        ({"max_batch_size": 8}, None),
        ({"max_batch_time": 0.5}, None),
        ({"max_batch_size": 1, "max_batch_time": 0.5}, None),
    ],
)
def test_adaptive_batching(folder: Path, values: dict[str, Any], policy: BatchPolicy | None) -> None:
    """Needs both a size above one and a time, as in MLServer; half of it is named. Large requests are not refused."""
    result = read(folder, **values)
    assert (result.batch, result.joins, result.max_batch_size) == (policy, policy is not None, 0)
    assert any("max_batch_size and max_batch_time" in warning for warning in result.warnings) is (policy is None and any(values.values()))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"versions": ["iris/v1"]}, "'versions'"),
        ({"cache_enabled": True}, "'cache_enabled'"),
        ({"parallel_workers": 2}, "'parallel_workers'"),
        ({"warm_workers": True}, "'warm_workers'"),
        ({"nmae": "x"}, "'nmae'"),
        ({"parameters": {"environment_tarball": "env.tar.gz"}}, "parameters.'environment_tarball'"),
        ({"parameters": {"format": "LogisticRegression"}}, "parameters.'format'"),
        ({"parameters": {"content_type": "pd"}}, "parameters.'content_type'"),
        ({"parameters": {"inference_pool_gid": "a"}}, "parameters.'inference_pool_gid'"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "parameters": {"content_type": "pd"}}]}, "inputs[0].'parameters'"),
        ({"outputs": [{"name": "x", "datatype": "FP32", "shape": [1], "tags": ["a"]}]}, "outputs[0].'tags'"),
        ({"name": "other"}, "differs from its folder's, 'iris'"),
    ],
)
def test_what_has_no_effect_is_named(folder: Path, values: dict[str, Any], named: str) -> None:
    """One warning for each, and no more."""
    (warning,) = read(folder, **values).warnings
    assert named in warning
    assert warning.startswith("model-settings.json of model ")


@pytest.mark.parametrize(
    "values",
    [
        {"versions": [], "cache_enabled": False, "parallel_workers": 0, "parameters": None},
        {"parameters": {"uri": None, "extra": {}, "environment_path": None, "autogenerate_inference_pool_gid": False}},
        {"parameters": {"version": "v2"}, "name": None},
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [], "parameters": None}], "outputs": None},
    ],
)
def test_defaults_that_are_written_out_are_no_news(folder: Path, values: dict[str, Any]) -> None:
    """Nothing is asked for, so nothing is without effect."""
    assert read(folder, **values).warnings == ()


def test_a_folder_may_be_named_by_version(tmp_path: Path) -> None:
    """As MLServer lets one lay out several versions of a model."""
    folder = tmp_path / "v2"
    folder.mkdir()
    result = read(folder, name="iris", parameters={"version": "v2"})
    assert (result.name, result.version, result.warnings) == ("iris", "v2", ())


def test_a_flood_of_unknown_keys_is_cut(folder: Path) -> None:
    """A hundred warnings and how many more; keys are quoted, so that they stay on one line."""
    warnings = read(folder, **{f"key\n{index}": 1 for index in range(500)}).warnings
    assert len(warnings) == 101
    assert not any("\n" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "it is not JSON"),
        ("{", "it is not JSON"),
        (b"\xff", "it is not JSON"),
        ("\ud800", "it is not JSON"),
        ('{"implementation": }', "line 1, column 20: it is not JSON"),
        ("[]", "the file: expected a JSON object, not a list"),
        ("null", "expected a JSON object, not null"),
        ("{}", "expected implementation, such as mlserver_sklearn.SKLearnModel"),
        ('{"implementation": 3}', "implementation: expected text, not a whole number"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "it is not JSON"),
    ],
)
def test_what_is_no_settings_file(folder: Path, text: str | bytes, expected: str) -> None:
    """Refused with the place or the key, and what was expected."""
    assert expected in refused(folder, text)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"name": 3}, "name: expected text, not a whole number"),
        ({"platform": ["x"]}, "platform: expected text, not a list"),
        ({"parameters": "x"}, "parameters: expected a JSON object, not text"),
        ({"parameters": {"uri": 1}}, "uri: expected text"),
        ({"parameters": {"version": True}}, "version: expected text, not true or false"),
        ({"parameters": {"version": "a/b"}}, "parameters.version: 'a/b' cannot stand in a URL"),
        ({"parameters": {"version": "a\nb"}}, "cannot stand in a URL"),
        ({"parameters": {"version": "v" * 256}}, "cannot stand in a URL"),
        ({"parameters": {"extra": [1]}}, "parameters.extra: expected a JSON object, not a list"),
        ({"max_batch_size": -1}, "max_batch_size is -1"),
        ({"max_batch_size": True}, "max_batch_size: expected a whole number, not true or false"),
        ({"max_batch_size": 1.5}, "max_batch_size: expected a whole number, not a number"),
        ({"max_batch_size": 1 << 40}, "max_batch_size is 1099511627776"),
        ({"max_batch_time": -0.1}, "max_batch_time: expected seconds from 0 to 3600, not '-0.1'"),
        ({"max_batch_time": 1e300}, "max_batch_time"),
        ({"max_batch_time": "1"}, "max_batch_time"),
        ({"max_batch_time": False}, "max_batch_time"),
        ({"inputs": {}}, "inputs: expected a list, not an object"),
        ({"inputs": [3]}, "inputs[0]: expected a JSON object"),
        ({"inputs": [{}]}, "inputs[0]: expected a name"),
        ({"inputs": [{"name": "x"}]}, "inputs[0]: datatype '' is not one"),
        ({"inputs": [{"name": "x", "datatype": "fp32", "shape": []}]}, "datatype 'fp32' is not one"),
        ({"inputs": [{"name": "x", "datatype": "COMPLEX64", "shape": []}]}, "datatype 'COMPLEX64' is not one"),
        ({"inputs": [{"name": "x", "datatype": "FP32"}]}, "shape: expected a list"),
        ({"outputs": [{"name": "x", "datatype": "FP32", "shape": [1.0]}]}, "outputs[0]: shape"),
        ({"outputs": [{"name": "x", "datatype": "FP32", "shape": [True]}]}, "shape"),
        ({"outputs": [{"name": "x", "datatype": "FP32", "shape": [-2]}]}, "shape"),
        ({"outputs": [{"name": "x", "datatype": "FP32", "shape": [1] * 33}]}, "shape"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": []}] * 2}, "inputs[1]: 'x' is listed twice"),
    ],
)
def test_values_that_cannot_be(folder: Path, values: dict[str, Any], expected: str) -> None:
    """Each refusal names the key."""
    assert expected in refused_values(folder, **values)


def test_a_file_above_one_mebibyte_is_too_large(folder: Path) -> None:
    """The same bound as for other configurations."""
    refused(folder, b" " * (1 << 20) + b"{}", Kind.TOO_LARGE)


def test_text_bytes_and_a_mark_at_the_beginning_are_read(folder: Path) -> None:
    """As editors write it."""
    text = json.dumps({"implementation": SKLEARN})
    for form in (text, text.encode(), "\ufeff" + text, b"\xef\xbb\xbf" + text.encode()):
        assert read_settings(form, folder).runtime == "sklearn"


KEYS = st.sampled_from(
    [
        "name",
        "implementation",
        "platform",
        "versions",
        "inputs",
        "outputs",
        "max_batch_size",
        "max_batch_time",
        "parameters",
        "uri",
        "extra",
        "version",
        "datatype",
        "shape",
        "content_type",
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from([SKLEARN, "mlserver_onnx.X", "FP32", "BYTES", "/", "..", "file:", "s3://x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, VALUES, max_size=8) | VALUES | st.binary(max_size=40))
def test_no_input_does_more_than_refuse(folder: Path, value: Any) -> None:
    """Any JSON, and any bytes: settings, or a ServingError; nothing else."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode("utf-8", "surrogatepass")
    with contextlib.suppress(ServingError):
        assert read_settings(text, folder).name
