"""What a configuration asks for, in our terms: samples, each field, each refusal, and a warning for all that has no effect."""

import math
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import Policy, PolicyKind
from dragoman.core.model import BatchPolicy
from dragoman.core.tensors import BF16, BYTES, FP32, INT64, UINT8, TensorSpec
from dragoman.serving.settings import Device, InstanceGroup, ModelSettings
from dragoman.serving.triton import config_from_json, read_config, translate

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "triton"
IO = 'input { name: "x" data_type: TYPE_FP32 dims: 4 } output { name: "y" data_type: TYPE_FP32 dims: 1 }'
"""Both listed, so that nothing is left to the artifact."""


def settings_of(text: str, folder: Path = Path("/nonexistent"), name: str = "m") -> ModelSettings:
    return translate(read_config(text, name), folder)


def sample(name: str, folder: Path = Path("/nonexistent")) -> ModelSettings:
    return translate(read_config((GOLDEN / f"{name}.pbtxt").read_bytes(), name), folder)


def refused(text: str, kind: Kind = Kind.INVALID_INPUT) -> str:
    with pytest.raises(ServingError) as caught:
        settings_of(text)
    assert caught.value.kind is kind
    assert caught.value.message.startswith("config.pbtxt of model 'm': ")
    return caught.value.message


def paths_without_effect(settings: ModelSettings) -> list[str]:
    """The fields that the warnings name."""
    middle = " has no effect here"
    return [warning.removeprefix(f"{settings.source}: ").partition(middle)[0] for warning in settings.warnings if middle in warning]


def test_an_image_classifier(tmp_path: Path) -> None:
    """Without max_batch_size the shapes are complete; reshapes and labels come along."""
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    settings = sample("densenet", tmp_path)
    assert (settings.name, settings.runtime, settings.platform, settings.filename) == ("densenet", "onnx", "onnxruntime_onnx", "model.onnx")
    assert settings.inputs == (TensorSpec("data_0", FP32, (3, 224, 224)),)
    assert settings.outputs == (TensorSpec("fc6_1", FP32, (1000,), labels=("cat", "dog")),)
    assert settings.input_reshapes == {"data_0": (1, 3, 224, 224)}
    assert settings.output_reshapes == {"fc6_1": (1, 1000, 1, 1)}
    assert (settings.max_batch_size, settings.batch, settings.joins) == (0, BatchPolicy(max_size=1), False)
    assert (settings.version_policy, settings.instance_count) == (Policy(PolicyKind.LATEST, 1), 1)
    assert paths_without_effect(settings) == ["input[0].format"]


def test_a_text_model_that_batches(tmp_path: Path) -> None:
    """Shapes get the batch dimension, sizes are sorted, the delay is in seconds, parameters are texts."""
    (tmp_path / "classes").mkdir()
    (tmp_path / "classes" / "names.txt").write_text("good\r\nbad")
    settings = sample("bert", tmp_path)
    assert settings.inputs == (TensorSpec("input_ids", INT64, (-1, -1)), TensorSpec("attention_mask", INT64, (-1, -1), optional=True))
    assert settings.outputs == (TensorSpec("logits", FP32, (-1, 2), labels=("good", "bad")),)
    assert settings.batch == BatchPolicy(max_size=16, refuse_larger=True, max_delay_s=0.0005, preferred=(4, 8, 16))
    assert (settings.max_batch_size, settings.joins, settings.filename) == (16, True, "bert.onnx")
    assert settings.version_policy == Policy(PolicyKind.LATEST, 2)
    assert settings.instances == (InstanceGroup(2, Device.CPU),)
    assert settings.arguments == {"intra_op_thread_count": "2", "execution_mode": "1"}
    assert settings.warnings == ()


def test_priorities_and_queues() -> None:
    """Each level's bound and time-out; the actions of levels that differ from the default's are named."""
    settings = sample("queues")
    assert settings.batch == BatchPolicy(
        max_size=8,
        refuse_larger=True,
        levels=3,
        default_level=2,
        queue_timeout_s=2.5,
        timeout_delays=True,
        timeout_override=True,
        level_max_queue={1: 8, 2: 64},
        level_timeout_s={1: 0.1, 3: math.inf},
    )
    assert settings.version_policy == Policy(versions=("1", "3"))
    assert settings.runtime == "torch"
    assert settings.inputs == (TensorSpec("INPUT__0", UINT8, (-1, -1, -1, 3)),)
    assert settings.outputs[0].datatype is BF16
    assert settings.instances == (InstanceGroup(1, Device.GPU, (0, 1), "fast"), InstanceGroup(3, Device.CPU, (), "spare"))
    assert settings.instance_count == 5
    assert paths_without_effect(settings) == [
        "dynamic_batching.preserve_ordering",
        "dynamic_batching.priority_queue_policy[1].timeout_action",
        "dynamic_batching.priority_queue_policy[3].allow_timeout_override",
    ]


def test_everything_that_has_no_effect_is_named() -> None:
    """A file that sets every field: what is taken is taken, and each of the others has its warning, by path."""
    settings = sample("everything")
    assert (settings.sequences, settings.response_cache, settings.decoupled) == (True, True, True)
    assert (settings.version_policy, settings.filename, settings.arguments) == (Policy(PolicyKind.ALL), "net.onnx", {"level": "9"})
    assert settings.output_reshapes == {"y": (-1,)}
    assert set(paths_without_effect(settings)) == {
        "runtime",
        *(f"input[0].{field}" for field in ("format", "is_shape_tensor", "allow_ragged_batch", "is_non_linear_format_io")),
        *(f"output[0].{field}" for field in ("is_shape_tensor", "is_non_linear_format_io")),
        *(f"batch_input[0].{field}" for field in ("kind", "target_name", "data_type", "source_input")),
        *(f"batch_output[0].{field}" for field in ("target_name", "source_input")),
        "optimization.graph.level",
        "optimization.priority",
        *(f"optimization.cuda.{field}" for field in ("graphs", "busy_wait_events", "output_copy_stream", "graph_spec[0].batch_size")),
        "optimization.cuda.graph_spec[0].input['x'].dim",
        "optimization.cuda.graph_spec[0].graph_lower_bound.batch_size",
        "optimization.cuda.graph_spec[0].graph_lower_bound.input['x'].dim",
        "optimization.execution_accelerators.gpu_execution_accelerator[0].name",
        "optimization.execution_accelerators.gpu_execution_accelerator[0].parameters",
        "optimization.execution_accelerators.cpu_execution_accelerator[0].name",
        "optimization.input_pinned_memory",
        "optimization.output_pinned_memory.enable",
        "optimization.gather_kernel_buffer_threshold",
        "optimization.eager_batching",
        "sequence_batching",
        *(f"instance_group[0].rate_limiter.resources[0].{field}" for field in ("name", "global", "count")),
        *(f"instance_group[0].{field}" for field in ("rate_limiter.priority", "profile", "passive", "host_policy")),
        "instance_group[0].secondary_devices[0].device_id",
        "cc_model_filenames",
        "metric_tags",
        "model_operations.op_library_filename",
        "model_transaction_policy.decoupled",
        "model_repository_agents.agents[0].name",
        "model_repository_agents.agents[0].parameters",
        "response_cache.enable",
        "model_metrics.metric_control[0].metric_identifier.family",
        "model_metrics.metric_control[0].histogram_options.buckets",
    }
    assert all(warning.startswith("config.pbtxt of model 'everything': ") for warning in settings.warnings)


def test_warnings_of_the_file_and_of_its_fields_are_together() -> None:
    """Unknown ones first, each once."""
    settings = settings_of("frobnicate: 1 optimization { eager_batching: true }")
    assert [("frobnicate" in w, "eager_batching" in w) for w in settings.warnings] == [(True, False), (False, True)]


def test_a_flood_of_warnings_is_cut() -> None:
    """A hundred, and how many more there would be."""
    text = "instance_group { count: 1 }" + " batch_input { kind: BATCH_ITEM_SHAPE }" * 300
    warnings = settings_of(text).warnings
    assert len(warnings) == 101
    assert "200 more" in warnings[-1]


def test_a_warning_stays_on_one_line() -> None:
    """Keys of maps come from the file: control characters are escaped, long ones cut."""
    text = f'optimization {{ cuda {{ graph_spec {{ input {{ key: "a\\n{"k" * 5000}" value {{ dim: 1 }} }} }} }} }}'
    (warning,) = settings_of(text).warnings
    assert "\n" not in warning
    assert len(warning) < 300


def test_an_empty_file_leaves_everything_to_the_artifact() -> None:
    """No runtime, no batch policy, no tensors; the newest version."""
    settings = settings_of("")
    assert (settings.runtime, settings.filename, settings.batch, settings.inputs, settings.outputs) == ("", "", None, (), ())
    assert (settings.version_policy, settings.instances, settings.instance_count) == (Policy(PolicyKind.LATEST, 1), (), 1)


def test_tensors_that_are_only_named_are_left_to_the_artifact() -> None:
    """Datatype and shape None; what is there counts."""
    settings = settings_of('max_batch_size: 3 input [ { name: "a" }, { name: "b" dims: 2 }, { name: "c" data_type: TYPE_STRING } ]')
    assert settings.inputs == (TensorSpec("a", None, None), TensorSpec("b", None, (-1, 2)), TensorSpec("c", BYTES, None))


@pytest.mark.parametrize(
    ("text", "runtime", "filename"),
    [
        ('backend: "onnxruntime"', "onnx", "model.onnx"),
        ('platform: "onnxruntime_onnx"', "onnx", "model.onnx"),
        ('backend: "onnxruntime" platform: "onnxruntime_onnx"', "onnx", "model.onnx"),
        ('backend: "pytorch"', "torch", "model.pt"),
        ('platform: "pytorch_libtorch" default_model_filename: "net.pt2"', "torch", "net.pt2"),
        ('platform: "libtorch"', "torch", "model.pt"),
        ('platform: "tensorflow_savedmodel"', "savedmodel", "model.savedmodel"),
        ('backend: "tensorflow"', "savedmodel", "model.savedmodel"),
        ('backend: "xgboost"', "xgboost", ""),
        ('backend: "sklearn" platform: "anything"', "sklearn", ""),
        ('default_model_filename: "model.onnx"', "onnx", "model.onnx"),
        ('default_model_filename: "model.pt"', "torch", "model.pt"),
        ('default_model_filename: "weights/net.bin"', "", "weights/net.bin"),
        ("", "", ""),
    ],
)
def test_the_runtime(text: str, runtime: str, filename: str) -> None:
    """By backend, platform or file name; a backend of one of our runtimes' names means that runtime."""
    settings = settings_of(text)
    assert (settings.runtime, settings.filename) == (runtime, filename)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('backend: "tensorrt"', "'tensorrt'"),
        ('backend: "python"', "'python'"),
        ('platform: "tensorflow_graphdef"', "'tensorflow_graphdef'"),
        ('backend: "pytorch" platform: "torch_aoti"', "'torch_aoti'"),
        ('platform: "onnxruntim"', "'onnxruntim'"),
        (f'backend: "{"x" * 10_000}"', "'xxx"),
    ],
)
def test_backends_without_a_runtime(text: str, named: str) -> None:
    """UNSUPPORTED names the backend and what could be served."""
    error = refused(text, Kind.UNSUPPORTED)
    assert named in error
    assert "ensemble" in error
    assert len(error) < 400


def test_backend_and_platform_must_agree() -> None:
    """Two that exist and do not belong together are a mistake."""
    assert "do not belong together" in refused('backend: "onnxruntime" platform: "pytorch_libtorch"')


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", Policy(PolicyKind.LATEST, 1)),
        ("version_policy { latest { } }", Policy(PolicyKind.LATEST, 1)),
        ("version_policy: { latest: { num_versions: 3 } }", Policy(PolicyKind.LATEST, 3)),
        ("version_policy: { all: { } }", Policy(PolicyKind.ALL)),
        ("version_policy { }", Policy(PolicyKind.ALL)),
        ("version_policy: { specific: { versions: [ 4, 2, 4 ] } }", Policy(versions=("4", "2"))),
    ],
)
def test_version_policies(text: str, policy: object) -> None:
    """Without one, the newest; one without a choice is all, as in Triton."""
    assert settings_of(text).version_policy == policy


@pytest.mark.parametrize("text", ["versions: []", "versions: 0", "versions: [ 1, -1 ]"])
def test_specific_versions_must_be_possible(text: str) -> None:
    """Folders of versions are numbered from 1."""
    assert "version_policy.specific" in refused(f"version_policy {{ specific {{ {text} }} }}")


@pytest.mark.parametrize(
    ("text", "policy", "joins"),
    [
        pytest.param("", None, False, id="left to the artifact"),
        pytest.param(IO, BatchPolicy(max_size=1), False, id="complete shapes"),
        pytest.param("max_batch_size: 6", BatchPolicy(max_size=6, refuse_larger=True), False, id="a bound for requests"),
        pytest.param(
            "max_batch_size: 6 dynamic_batching { }", BatchPolicy(max_size=6, refuse_larger=True), True, id="joined without delay"
        ),
        pytest.param(
            "max_batch_size: 6 dynamic_batching { default_queue_policy { } }",
            BatchPolicy(max_size=6, refuse_larger=True, timeout_override=False),
            True,
            id="a queue policy forbids time-outs of requests unless it allows them",
        ),
        pytest.param(
            "max_batch_size: 6 dynamic_batching { default_queue_policy { max_queue_size: 9 default_timeout_microseconds: 1 } }",
            BatchPolicy(max_size=6, refuse_larger=True, timeout_override=False, max_queue=9, queue_timeout_s=1e-6),
            True,
            id="bound and time-out",
        ),
        pytest.param(
            f"max_batch_size: 6 dynamic_batching {{ default_queue_policy {{ default_timeout_microseconds: {2**64 - 1} }} }}",
            BatchPolicy(max_size=6, refuse_larger=True, timeout_override=False),
            True,
            id="a time-out that no timer can hold is none",
        ),
    ],
)
def test_batch_policies(text: str, policy: BatchPolicy | None, joins: bool) -> None:
    """From max_batch_size and dynamic_batching; `joins` tells whether the file asks for joining."""
    settings = settings_of(text)
    assert (settings.batch, settings.joins) == (policy, joins)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_batch_size: -1", "max_batch_size is -1, expected 0 or more"),
        ("max_batch_size: 4 dynamic_batching { preferred_batch_size: [ 2, 0 ] }", "sizes from 1 to max_batch_size (4), not [0, 2]"),
        ("max_batch_size: 4 dynamic_batching { preferred_batch_size: 5 }", "not [5]"),
        ("max_batch_size: 4 dynamic_batching { max_queue_delay_microseconds: 3600000001 }", "more than an hour"),
        ("max_batch_size: 4 dynamic_batching { priority_levels: 1025 default_priority_level: 1 }", "at most 1024"),
        ("max_batch_size: 4 dynamic_batching { priority_levels: 2 }", "default_priority_level is 0, expected 1 to priority_levels (2)"),
        ("max_batch_size: 4 dynamic_batching { priority_levels: 2 default_priority_level: 3 }", "default_priority_level is 3"),
        (
            "max_batch_size: 4 dynamic_batching { priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 3 value { } } }",
            "has the level 3, expected 1 to priority_levels (2)",
        ),
    ],
)
def test_batching_that_cannot_be(text: str, expected: str) -> None:
    """Each refusal says what is there and what was expected."""
    assert expected in refused(text)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("dynamic_batching { preferred_batch_size: 4 }", "dynamic_batching"),
        ("max_batch_size: 2 dynamic_batching { default_priority_level: 1 }", "dynamic_batching.default_priority_level"),
        ("max_batch_size: 2 dynamic_batching { priority_queue_policy { key: 1 value { } } }", "dynamic_batching.priority_queue_policy"),
    ],
)
def test_batching_that_is_said_in_vain(text: str, path: str) -> None:
    """A field that has an effect as such, but not with the values around it, is named too."""
    assert paths_without_effect(settings_of(text)) == [path]


@pytest.mark.parametrize(
    ("text", "groups", "count"),
    [
        ("", (), 1),
        ("instance_group { }", (InstanceGroup(),), 1),
        ("instance_group { count: 4 kind: KIND_CPU }", (InstanceGroup(4, Device.CPU),), 4),
        ("instance_group { kind: KIND_GPU gpus: [ 0, 2 ] count: 2 }", (InstanceGroup(2, Device.GPU, (0, 2)),), 4),
        ("instance_group [ { count: 1 }, { count: 2 kind: KIND_MODEL } ]", (InstanceGroup(1), InstanceGroup(2, Device.MODEL)), 3),
    ],
)
def test_instances(text: str, groups: tuple[InstanceGroup, ...], count: int) -> None:
    """Per group, and per listed GPU of a group."""
    settings = settings_of(text)
    assert (settings.instances, settings.instance_count) == (groups, count)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("count: -1", "instance_group[0]: count is -1"),
        ("kind: 4", "kind 4 is not known"),
        ("kind: -1", "kind -1 is not known"),
        ("kind: KIND_CPU gpus: 0", "the kind is KIND_CPU"),
        ("kind: KIND_MODEL gpus: 0", "the kind is KIND_MODEL"),
        ("kind: KIND_GPU gpus: -1", "gpus are [-1]"),
        ("kind: KIND_GPU gpus: [ 1, 1 ]", "gpus are [1, 1]"),
        ("count: 257", "257 instances, at most 256"),
        ("count: 2000000000", "at most 256"),
        ("count: 100 kind: KIND_GPU gpus: [ 0, 1, 2 ]", "300 instances"),
    ],
)
def test_instances_that_cannot_be(text: str, expected: str) -> None:
    """Counts and devices that nobody has, before anything is started."""
    assert expected in refused(f"instance_group {{ {text} }}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("input { }", "input[0]: expected a name"),
        ('input { name: "x" } input { name: "x" }', "input 'x' is listed twice"),
        ('output { name: "x" } output { name: "x" }', "output 'x' is listed twice"),
        ('input { name: "x" data_type: 15 }', "input 'x': data_type 15 is not known"),
        ('input { name: "x" data_type: -3 }', "data_type -3 is not known"),
        ('input { name: "x" dims: 0 }', "input 'x': dims: 0 is not a dimension"),
        ('output { name: "x" dims: [ 3, -2 ] }', "output 'x': dims: -2 is not a dimension"),
        (f'input {{ name: "x" dims: [ {", ".join(["1"] * 33)} ] }}', "33 dimensions, at most 32"),
        ('input { name: "x" dims: 4 reshape { shape: [ 0 ] } }', "reshape: 0 is not a dimension"),
        ('input { name: "x" dims: 4 reshape { shape: [ 2, 3 ] } }', "reshape [2, 3] does not hold as many elements as dims [4]"),
        ('input { name: "x" dims: 4 reshape { shape: [ -1 ] } }', "does not hold as many elements"),
        ('input { name: "x" dims: 1 reshape { } }', "only a model with max_batch_size above 0"),
        ('max_batch_size: 2 input { name: "x" dims: 2 reshape { } }', "does not hold as many elements"),
        ('input { name: "x" reshape { shape: 2 } }', "reshape needs dims"),
        ('input { name: "x" dims: [ 2, -1, 6 ] reshape { shape: [ 2, -1, 7 ] } }', "does not hold as many elements"),
    ],
)
def test_tensors_that_cannot_be(text: str, expected: str) -> None:
    """Each refusal names the tensor and the field."""
    assert expected in refused(text)


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        ("4", "2, 2"),
        ("2, 4, -1, 6", "8, -1, 1, 6"),
        ("-1", "-1"),
        ("-1, -1", "1, -1, -1"),
        ("1, 1", ""),
        ("4611686018427387904, 4", "4, 4611686018427387904"),
    ],
)
def test_reshapes_that_can_be(dims: str, shape: str) -> None:
    """As many elements in each stretch between variable dimensions; sizes beyond 64 bits do not overflow."""
    settings = settings_of(f'max_batch_size: 2 input {{ name: "x" dims: [ {dims} ] reshape {{ shape: [ {shape} ] }} }}')
    assert settings.input_reshapes == {"x": (-1, *(int(size) for size in shape.split(",") if size))}


def test_labels_belong_to_outputs(tmp_path: Path) -> None:
    """One label per line, the empty ones too; the folder of the model is where they are looked for."""
    (tmp_path / "l").write_bytes("caf\u00e9\r\n\n\u2028x\n".encode())
    settings = settings_of('output { name: "y" label_filename: "l" }', tmp_path)
    assert settings.outputs[0].labels == ("caf\u00e9", "", "\u2028x")


@pytest.mark.parametrize("name", ["/etc/passwd", "../labels.txt", "a/../../b", "missing.txt", "sub", "link", "a\\x00b", "latin", "."])
def test_label_files_that_are_refused(tmp_path: Path, name: str) -> None:
    """Paths that lead out, folders, links to elsewhere, files that are not there or no text: named by output and field."""
    folder = tmp_path / "m"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "labels.txt").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "labels.txt")
    (folder / "latin").write_bytes(b"\xff\n")
    with pytest.raises(ServingError, match=r"^config.pbtxt of model 'm': output 'y': label_filename: ") as caught:
        settings_of(f'output {{ name: "y" label_filename: "{name}" }}', folder)
    assert caught.value.kind is Kind.INVALID_INPUT
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("name", ["/model.onnx", "../model.onnx", "a/../b", "..", ".", "a\\\\b", "\\x00"])
def test_model_files_must_stay_in_the_version_folder(name: str) -> None:
    """default_model_filename is a path below it, nothing else."""
    assert "default_model_filename: expected a path inside" in refused(f'default_model_filename: "{name}"')


def test_a_load_request_is_translated_like_a_file() -> None:
    """The JSON form of a configuration means the same, and its messages say where it came from."""
    config = config_from_json('{"backend":"onnxruntime","max_batch_size":3,"metric_tags":{"a":"b"}}', "m")
    settings = translate(config, Path("/nonexistent"))
    assert (settings.runtime, settings.max_batch_size) == ("onnx", 3)
    assert settings.warnings == ("configuration of model 'm': metric_tags has no effect here",)


def test_ten_thousand_tensors_are_no_burden() -> None:
    """Names are looked up, not searched for."""
    settings = settings_of(" ".join(f'input {{ name: "x{index}" }}' for index in range(10_000)))
    assert len(settings.inputs) == 10_000
