"""Triton's and MLServer's repositories on disk, from their configuration to the model that answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dragoman.core.errors import ServingError
from dragoman.core.model import BatchPolicy, InferRequest, ModelSpec, Step
from dragoman.core.tensors import FP32, INT64, Tensor, Tensors
from dragoman.hosting.servable import LocalServable
from dragoman.serving.repository import Defaults, Found, Repository
from tests.models import build
from tests.servables import run

ONNX = 'backend: "onnxruntime"\n'


def put(path: Path, content: str = "a model") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, "utf-8")
    return path


def read(folder: Path, defaults: Defaults | None = None, config: str = "") -> Found:
    repository = Repository([str(folder)], defaults or Defaults())
    found = repository.find(folder.name, config)
    assert found is not None
    return found


def specs(folder: Path, defaults: Defaults | None = None, config: str = "") -> dict[str, ModelSpec]:
    found = read(folder, defaults, config)
    assert not found.error
    assert all((s.name, s.version) == (found.name, v) for v, s in found.versions.items())
    return dict(found.versions)


def triton(folder: Path, config: str = ONNX, versions: tuple[str, ...] = ("1",), file: str = "model.onnx") -> Path:
    for version in versions:
        put(folder / version / file)
    put(folder / "config.pbtxt", config)
    return folder


def call(spec: ModelSpec, **inputs: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Load the model and call it once; float32 and int64 inputs only."""
    answers: dict[str, Any] = {}

    async def once() -> None:
        servable = LocalServable.load(spec)
        try:
            tensors = [Tensor(name, FP32 if array.dtype == np.float32 else INT64, array) for name, array in inputs.items()]
            response = await servable.infer(InferRequest(Tensors(tensors)))
            assert isinstance(response.outputs, Tensors)
            answers.update({t.name: t.array for t in response.outputs.items})
        finally:
            await servable.close()

    run(once)
    return answers


# --- Triton: versions and files ---


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("", {"10"}),
        ("version_policy { latest { num_versions: 2 } }", {"9", "10"}),
        ("version_policy { latest { num_versions: 20 } }", {"1", "9", "10"}),
        ("version_policy { all {} }", {"1", "9", "10"}),
        ("version_policy { specific { versions: [9, 1] } }", {"1", "9"}),
        ("version_policy { specific { versions: [9, 3] } }", {"9"}),
    ],
)
def test_version_policies(tmp_path: Path, policy: str, expected: set[str]) -> None:
    """Numbers as numbers; folders that begin with 0 or are no number are ignored."""
    folder = triton(tmp_path / "m", ONNX + policy, ("1", "9", "10", "011", "0", "draft"))
    found = specs(folder)
    assert set(found) == expected
    assert all(Path(s.artifact) == folder / v / "model.onnx" for v, s in found.items())
    assert len({s.revision for s in found.values()}) == len(expected)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ONNX + "version_policy { specific { versions: [3] } }", "names 3, for which there is no folder"),
        (ONNX + "default_model_filename: 'other.onnx'", "there is no other.onnx"),
        (ONNX + "default_model_filename: '../x.onnx'", "without '..'"),
        ('backend: "caffe"', "cannot be served"),
        ("name: 'n'\n" + ONNX, "must equal the model's folder"),
        ("max_batch_size: many", "line 1"),
        (ONNX + "output { name: 'y' data_type: TYPE_FP32 dims: 1 label_filename: 'none.txt' }", "none.txt"),
    ],
)
def test_configurations_that_cannot_be_served(tmp_path: Path, config: str, message: str) -> None:
    """Each is an error of this model, with its reason."""
    assert message in read(triton(tmp_path / "m", config)).error


def test_a_model_without_a_version_folder(tmp_path: Path) -> None:
    """The message says what a version folder is called."""
    triton(tmp_path / "m", ONNX, ("v1",))
    assert "no version folder (1, 2, ...)" in read(tmp_path / "m").error


@pytest.mark.parametrize(
    ("config", "files", "expected"),
    [
        (ONNX, ["model.onnx", "other.onnx"], "model.onnx"),
        (ONNX, ["other.onnx"], "other.onnx"),
        (ONNX + "default_model_filename: 'other.onnx'", ["model.onnx", "other.onnx"], "other.onnx"),
        (ONNX + "default_model_filename: 'weights/best.onnx'", ["weights/best.onnx"], "weights/best.onnx"),
        ("", ["model.pt"], "model.pt"),
        ("", ["iris.skops"], "iris.skops"),
    ],
)
def test_which_file_is_opened(tmp_path: Path, config: str, files: list[str], expected: str) -> None:
    """The one that is named, else the conventional one, else the only one; without a backend its suffix says the runtime."""
    triton(tmp_path / "m", config, ())
    for file in files:
        put(tmp_path / "m" / "1" / file)
    spec = specs(tmp_path / "m")["1"]
    assert Path(spec.artifact) == tmp_path / "m" / "1" / expected
    assert spec.runtime == {".onnx": "onnx", ".pt": "torch", ".skops": "sklearn"}[Path(expected).suffix]


def test_a_link_out_of_the_version_folder_is_refused(tmp_path: Path) -> None:
    """A repository that somebody sent cannot make the server open its own files."""
    secret = put(tmp_path / "secret.onnx")
    triton(tmp_path / "m", ONNX + "default_model_filename: 'link.onnx'", ())
    (tmp_path / "m" / "1").mkdir()
    (tmp_path / "m" / "1" / "link.onnx").symlink_to(secret)
    assert "leads out" in read(tmp_path / "m").error


# --- Triton: what the configuration says ---


def test_every_setting_arrives_in_the_specification(tmp_path: Path) -> None:
    """Signature, labels, batching, instances, device, parameters, warm-up, platform, warnings, and the configuration itself."""
    put(tmp_path / "m" / "labels.txt", "cat\ndog\n")
    config = """
        platform: "onnxruntime_onnx"  max_batch_size: 8
        input { name: "x" data_type: TYPE_FP32 dims: [4] }
        output { name: "y" data_type: TYPE_FP32 dims: [2] label_filename: "labels.txt" }
        dynamic_batching { max_queue_delay_microseconds: 500 }
        instance_group { count: 3 kind: KIND_GPU gpus: [1] }
        parameters { key: "threads" value { string_value: "2" } }
        model_warmup { name: "zeros" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: 4 zero_data: true } } }
        optimization { priority: PRIORITY_MAX }
    """
    spec = specs(triton(tmp_path / "m", config), Defaults(arguments={"trust_pickle": False, "threads": 1}))["1"]
    assert spec.signature is not None
    assert (spec.signature.batch, spec.signature.inputs[0].shape, spec.signature.outputs[0].labels) == (True, (-1, 4), ("cat", "dog"))
    assert (spec.batch.max_size, spec.batch.refuse_larger, spec.batch.max_delay_s) == (8, True, 0.0005)
    assert (spec.instances, spec.platform) == (3, "onnxruntime_onnx")
    assert spec.arguments == {"trust_pickle": False, "threads": "2", "device": "cuda:1"}
    assert [set(w["inputs"]) for w in spec.warmup] == [{"x"}]
    assert (spec.config["name"], spec.config["max_batch_size"]) == ("m", 8)
    assert any("optimization" in w for w in spec.warnings)


@pytest.mark.parametrize("name", ["trust_pickle", "Trust_Pickle"])
@pytest.mark.parametrize("trusted", [True, False])
def test_a_model_cannot_declare_itself_trusted(tmp_path: Path, mlserver: Path, name: str, trusted: bool) -> None:
    """Whether pickles are loaded is said on the command line only: what stands in a model's own files is named in a warning."""
    operator = Defaults(arguments={"trust_pickle": trusted})
    own = "false" if trusted else "true"
    config = f'backend: "sklearn" parameters {{ key: "{name}" value {{ string_value: "{own}" }} }}'
    settings(mlserver, parameters={"extra": {name: own}})
    for folder in (triton(tmp_path / "m", config, file="model.pkl"), mlserver):
        spec = specs(folder, operator)["1"]
        assert spec.arguments == {"trust_pickle": trusted}
        assert any(name in warning and "--trust-pickle" in warning for warning in spec.warnings)


@pytest.mark.parametrize(
    ("config", "server", "expected"),
    [
        ("default_queue_policy { max_queue_size: 5 }", 100, 5),
        ("default_queue_policy { max_queue_size: 500 }", 100, 100),
        ("default_queue_policy { max_queue_size: 5 }", 0, 5),
    ],
)
def test_the_shorter_queue_counts(tmp_path: Path, config: str, server: int, expected: int) -> None:
    """The model's or the server's; zero on the server's side means no bound of its own."""
    folder = triton(tmp_path / "m", f"{ONNX} max_batch_size: 4 dynamic_batching {{ {config} }}")
    assert specs(folder, Defaults(batch=BatchPolicy(max_queue=server)))["1"].batch.max_queue == expected


def test_what_is_not_said_is_the_servers(tmp_path: Path) -> None:
    """An empty file leaves batching, instances and tensors to the command line and the artifact."""
    defaults = Defaults(batch=BatchPolicy(max_size=5), instances=2)
    spec = specs(triton(tmp_path / "m"), defaults)["1"]
    assert (spec.batch, spec.instances, spec.signature) == (BatchPolicy(max_size=5), 2, None)


def test_a_configuration_in_json_stands_for_the_file(tmp_path: Path) -> None:
    """For one load, and also where there is no file; the next load reads the file again."""
    folder = triton(tmp_path / "m", ONNX + "max_batch_size: 4")
    override = json.dumps({"backend": "onnxruntime", "max_batch_size": 2})
    assert specs(folder, config=override)["1"].batch.max_size == 2
    assert specs(folder)["1"].batch.max_size == 4
    (folder / "config.pbtxt").unlink()
    assert specs(folder, config=override)["1"].batch.max_size == 2
    assert "not JSON" in read(folder, config="{").error


def test_an_ensemble_has_no_artifact(tmp_path: Path) -> None:
    """One version, its steps, and a revision that follows the configuration."""
    config = """
        platform: "ensemble"
        input { name: "a" data_type: TYPE_FP32 dims: [-1, 2] }
        output { name: "b" data_type: TYPE_FP32 dims: [-1, 2] }
        ensemble_scheduling { step { model_name: "m" model_version: VERSION
            input_map { key: "x" value: "a" } output_map { key: "y" value: "b" } } }
    """
    put(tmp_path / "e" / "config.pbtxt", config.replace("VERSION", "-1"))
    first = specs(tmp_path / "e")["1"]
    assert (first.artifact, first.runtime, first.steps) == ("", "", (Step("m", "", {"x": "a"}, {"y": "b"}),))
    put(tmp_path / "e" / "config.pbtxt", config.replace("VERSION", "3"))
    second = specs(tmp_path / "e")["1"]
    assert second.steps[0].version == "3"
    assert first.revision != second.revision


# --- Triton: models that answer ---


def test_reshaped_tensors(tmp_path: Path) -> None:
    """Clients see the declared shapes, the model gets and gives its own."""
    build.identity(tmp_path / "m" / "1" / "model.onnx", dims=("N", 4))
    config = f"""{ONNX} max_batch_size: 8
        input {{ name: "x" data_type: TYPE_FP32 dims: [2, 2] reshape {{ shape: [4] }} }}
        output {{ name: "y" data_type: TYPE_FP32 dims: [4, 1] reshape {{ shape: [4] }} }}
    """
    put(tmp_path / "m" / "config.pbtxt", config)
    spec = specs(tmp_path / "m")["1"]
    sent = np.arange(12, dtype="f4").reshape(3, 2, 2)
    assert call(spec, x=sent)["y"].tolist() == sent.reshape(3, 4, 1).tolist()
    servable = LocalServable.load(spec)
    assert [s.shape for s in (*servable.signatures[""].inputs, *servable.signatures[""].outputs)] == [(-1, 2, 2), (-1, 4, 1)]
    servable.discard()


def test_a_declaration_that_the_artifact_contradicts(tmp_path: Path) -> None:
    """Loading fails and names the tensor and both sides."""
    build.identity(tmp_path / "m" / "1" / "model.onnx", dims=("N", 4))
    put(tmp_path / "m" / "config.pbtxt", ONNX + "max_batch_size: 8 input { name: 'x' data_type: TYPE_INT64 dims: [4] }")
    with pytest.raises(ServingError, match="'x' with datatype INT64, but the model has FP32"):
        LocalServable.load(specs(tmp_path / "m")["1"])


def test_without_a_configuration_the_artifact_says_everything(tmp_path: Path) -> None:
    """A Triton repository may leave config.pbtxt out."""
    build.iris(tmp_path / "m" / "1" / "model.onnx")
    assert call(specs(tmp_path / "m")["1"], X=np.array(build.IRIS_CENTRES[1:2]))["label"].tolist() == [[1]]


# --- MLServer ---


@pytest.fixture
def mlserver(tmp_path: Path) -> Path:
    """A folder with an ONNX model, whose settings each test writes."""
    build.iris(tmp_path / "iris" / "model.onnx")
    return tmp_path / "iris"


def settings(folder: Path, **values: Any) -> None:
    put(folder / "model-settings.json", json.dumps({"implementation": "mlserver_onnx.OnnxModel", **values}))


def test_mlserver_settings(mlserver: Path) -> None:
    """Name, version, batching and platform are the file's; the model is found beside it."""
    settings(mlserver, name="flowers", platform="onnx", max_batch_size=16, max_batch_time=0.25, parameters={"version": "v2"})
    (found,) = Repository([str(mlserver)], Defaults()).discover()
    assert (found.name, list(found.versions)) == ("flowers", ["v2"])
    spec = found.versions["v2"]
    assert (spec.name, spec.version, spec.runtime, spec.platform) == ("flowers", "v2", "onnx", "onnx")
    assert (spec.batch.max_size, spec.batch.max_delay_s, Path(spec.artifact)) == (16, 0.25, mlserver / "model.onnx")


@pytest.mark.parametrize("name", ["iris", "mine"])
def test_the_users_name_wins_over_the_files(mlserver: Path, name: str) -> None:
    """Also when it is that of the folder."""
    settings(mlserver, name="flowers")
    (found,) = Repository([f"{name}={mlserver}"], Defaults()).discover()
    assert found.name == name
    assert {s.name for s in found.versions.values()} == {name}


def test_a_folder_of_mlserver_models(mlserver: Path) -> None:
    """Each is listed and found by the name in its settings; one that cannot be read goes by its folder."""
    settings(mlserver, name="flowers")
    put(mlserver.parent / "bad" / "model-settings.json", "{")
    repository = Repository([str(mlserver.parent)], Defaults())
    assert repository.names() == ["bad", "flowers"]
    assert repository.find("iris") is None
    found, bad = repository.find("flowers"), repository.find("bad")
    assert found is not None
    assert not found.error
    assert bad is not None
    assert "not JSON" in bad.error


def test_an_artifact_elsewhere(mlserver: Path) -> None:
    """A file or a folder below the settings; never above them."""
    build.iris(mlserver / "deep" / "weights.onnx")
    for uri in ("deep", "./deep/weights.onnx"):
        settings(mlserver, parameters={"uri": uri})
        assert Path(specs(mlserver)["1"].artifact) == mlserver / "deep" / "weights.onnx"
    settings(mlserver, parameters={"uri": "../../etc"})
    assert "'..'" in read(mlserver).error


def test_what_is_declared_does_not_keep_a_model_from_serving(mlserver: Path) -> None:
    """MLServer never checks declared inputs, so a wrong one does no harm here either: the model's own count, and a warning says so."""
    settings(mlserver, inputs=[{"name": "input-0", "datatype": "FP64", "shape": [1, 4]}])
    spec = specs(mlserver)["1"]
    assert any("inputs and outputs have no effect" in w for w in spec.warnings)
    assert call(spec, X=np.array(build.IRIS_CENTRES))["label"].tolist() == [[0], [1], [2]]
    servable = LocalServable.load(spec)
    assert servable.signatures[""].batch
    servable.discard()


def test_an_mlserver_model_without_a_model(mlserver: Path) -> None:
    """The message says what lies there."""
    settings(mlserver)
    (mlserver / "model.onnx").unlink()
    assert "model-settings.json" in read(mlserver).error
    settings(mlserver, implementation="mlserver_sklearn.SKLearnModel", parameters={"uri": "gone.joblib"})
    assert "no file or folder 'gone.joblib'" in read(mlserver).error


def test_both_configurations_in_one_folder(mlserver: Path) -> None:
    """Triton's is the one that counts, for the name too."""
    settings(mlserver, name="flowers")
    triton(mlserver, ONNX)
    assert list(specs(mlserver)) == ["1"]
