"""The JSON form of configurations: of files, to the letter; and of served models, completed by what runs."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from google.protobuf import json_format

from dragoman.core.model import BatchPolicy, ModelSpec
from dragoman.core.tensors import BF16, BYTES, COMPLEX64, DATATYPES, FP32, INT64, Signature, TensorSpec
from dragoman.serving.triton import config_from_json, config_json, describe, read_config

SAMPLES = sorted((Path(__file__).resolve().parents[1] / "golden" / "triton").glob("*.pbtxt"))
GOLDEN = [path for path in SAMPLES if path.with_suffix(".json").exists()]

BATCHED = Signature(
    inputs=(TensorSpec("x", FP32, (-1, 3, -1)), TensorSpec("ids", INT64, (-1,), optional=True)),
    outputs=(TensorSpec("label", BYTES, (-1, 1)),),
    batch=True,
)
SINGLE = Signature(inputs=(TensorSpec("x", FP32, (2, 3)),), outputs=(TensorSpec("y", None, None),))


def written(text: str) -> dict[str, Any]:
    """The JSON form of a file of model 'm'."""
    return config_json(read_config(text, "m").message)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_files_answer_as_recorded(path: Path) -> None:
    """Names, values, order of fields, and which fields are there at all."""
    answer = config_json(read_config(path.read_bytes(), path.stem).message)
    assert orjson.dumps(answer) == orjson.dumps(orjson.loads(path.with_suffix(".json").read_bytes()))


def agree(ours: Any, theirs: Any) -> bool:
    """Whether two JSON values are equal when 64-bit integers may be text in the second."""
    if isinstance(ours, dict):
        return isinstance(theirs, dict) and ours.keys() == theirs.keys() and all(agree(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list):
        return isinstance(theirs, list) and len(ours) == len(theirs) and all(map(agree, ours, theirs))
    if isinstance(ours, int) and not isinstance(ours, bool) and isinstance(theirs, str):
        return str(ours) == theirs
    return bool(ours == theirs and type(ours) is type(theirs))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_library_writes_the_same_but_for_large_integers(path: Path) -> None:
    """An independent witness: protobuf's own printer, asked for names as written and defaults, as Triton asks its own."""
    message = read_config(path.read_bytes(), path.stem).message
    theirs = json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    assert agree(config_json(message), theirs)


def test_large_integers_are_numbers() -> None:
    """Triton mends protobuf's habit of writing them as text; keys of maps stay text, as JSON wants it."""
    text = f"""input {{ name: "x" data_type: TYPE_INT64 dims: {2**62} }} version_policy {{ specific {{ versions: 9007199254740993 }} }}
               dynamic_batching {{ max_queue_delay_microseconds: {2**64 - 1} priority_queue_policy {{ key: {2**63} value {{}} }} }}"""
    answer = written(text)
    assert answer["input"][0]["dims"] == [2**62]
    assert answer["version_policy"]["specific"]["versions"] == [9007199254740993]
    assert answer["dynamic_batching"]["max_queue_delay_microseconds"] == 2**64 - 1
    assert list(answer["dynamic_batching"]["priority_queue_policy"]) == [str(2**63)]
    assert orjson.loads(orjson.dumps(answer)) == answer


def test_enum_values_of_a_newer_schema_are_numbers() -> None:
    """They have no name here; nothing is lost."""
    assert written("instance_group { kind: 9 }")["instance_group"][0]["kind"] == 9


@pytest.mark.parametrize(("text", "expected"), [("nan", "NaN"), ("inf", "Infinity"), ("-inf", "-Infinity"), ("0.1", 0.1), ("1e300", 1e300)])
def test_numbers_that_json_lacks_are_text(text: str, expected: object) -> None:
    """As protobuf's JSON writes them; the answer is always valid JSON."""
    answer = written(f"model_metrics {{ metric_control {{ histogram_options {{ buckets: {text} }} }} }}")
    assert answer["model_metrics"]["metric_control"][0]["histogram_options"]["buckets"] == [expected]


def test_messages_appear_only_when_set() -> None:
    """A block that is written empty is there with its defaults, one that is not written is not."""
    assert "dynamic_batching" not in written("")
    assert written("dynamic_batching { }")["dynamic_batching"] == {
        "preferred_batch_size": [],
        "max_queue_delay_microseconds": 0,
        "preserve_ordering": False,
        "priority_levels": 0,
        "default_priority_level": 0,
        "priority_queue_policy": {},
    }


def test_a_model_without_a_file_is_described_from_what_runs() -> None:
    """As Triton completes one: dims without the batch, the newest version, dynamic batching, one instance group."""
    policy = BatchPolicy(max_size=16, max_delay_s=0.0005, preferred=(4, 8), max_queue=100)
    spec = ModelSpec("m", runtime="onnx", artifact="/models/m/1/model.onnx", instances=2, batch=policy)
    answer = describe(spec, BATCHED, "onnxruntime_onnx")
    assert (answer["name"], answer["platform"], answer["backend"]) == ("m", "onnxruntime_onnx", "onnxruntime")
    assert (answer["max_batch_size"], answer["default_model_filename"]) == (16, "model.onnx")
    assert [(t["name"], t["data_type"], t["dims"], t["optional"]) for t in answer["input"]] == [
        ("x", "TYPE_FP32", [3, -1], False),
        ("ids", "TYPE_INT64", [], True),
    ]
    assert [(t["name"], t["data_type"], t["dims"]) for t in answer["output"]] == [("label", "TYPE_STRING", [1])]
    assert answer["version_policy"] == {"latest": {"num_versions": 1}}
    assert answer["dynamic_batching"]["preferred_batch_size"] == [4, 8]
    assert answer["dynamic_batching"]["max_queue_delay_microseconds"] == 500
    assert answer["dynamic_batching"]["default_queue_policy"]["max_queue_size"] == 100
    assert [(g["name"], g["kind"], g["count"]) for g in answer["instance_group"]] == [("m", "KIND_CPU", 2)]


def test_a_model_without_batching_says_so() -> None:
    """max_batch_size 0, complete dims, no dynamic batching; an unknown rank is one variable dimension, an unknown datatype none."""
    answer = describe(ModelSpec("m", runtime="sklearn", artifact="m.skops"), SINGLE, "sklearn", "KIND_GPU")
    assert (answer["max_batch_size"], answer["backend"]) == (0, "sklearn")
    assert "dynamic_batching" not in answer
    assert answer["input"][0]["dims"] == [2, 3]
    assert (answer["output"][0]["data_type"], answer["output"][0]["dims"]) == ("TYPE_INVALID", [-1])
    assert answer["instance_group"][0]["kind"] == "KIND_GPU"


def test_a_batch_of_one_is_not_joined() -> None:
    """A model that batches but never joins requests has no dynamic batching."""
    answer = describe(ModelSpec("m", batch=BatchPolicy(max_size=1)), BATCHED, "p")
    assert answer["max_batch_size"] == 1
    assert "dynamic_batching" not in answer


def test_time_outs_are_in_microseconds_and_none_is_zero() -> None:
    """In the units and with the words of the file."""
    policy = BatchPolicy(max_size=4, queue_timeout_s=0.25, timeout_delays=True, timeout_override=False)
    queue = describe(ModelSpec("m", batch=policy), BATCHED, "p")["dynamic_batching"]["default_queue_policy"]
    assert queue == {
        "timeout_action": "DELAY",
        "default_timeout_microseconds": 250_000,
        "allow_timeout_override": False,
        "max_queue_size": 4096,
    }
    endless = describe(ModelSpec("m", batch=replace(policy, queue_timeout_s=math.inf)), BATCHED, "p")
    assert endless["dynamic_batching"]["default_queue_policy"]["default_timeout_microseconds"] == 0


@pytest.mark.parametrize("signature", [BATCHED, SINGLE, Signature()])
def test_a_description_has_the_form_of_a_file(signature: Signature) -> None:
    """Read back and written again, it is the same: same fields, same defaults, same names."""
    answer = describe(ModelSpec("m", runtime="onnx", artifact="model.onnx"), signature, "onnxruntime_onnx")
    assert config_json(config_from_json(orjson.dumps(answer), "m").message) == answer


def test_every_datatype_has_a_name() -> None:
    """All that the schema knows, and TYPE_INVALID for the complex ones, which Triton does not have."""
    specs = tuple(TensorSpec(name, datatype, (1,)) for name, datatype in DATATYPES.items())
    answer = describe(ModelSpec("m"), Signature(inputs=specs), "p")
    names = {tensor["name"]: tensor["data_type"] for tensor in answer["input"]}
    assert names[BYTES.name] == "TYPE_STRING"
    assert names[BF16.name] == "TYPE_BF16"
    assert names[COMPLEX64.name] == names["COMPLEX128"] == "TYPE_INVALID"
    assert sum(name == f"TYPE_{key}" for key, name in names.items()) == 13


def test_what_a_file_leaves_out_comes_from_what_runs() -> None:
    """Platform, backend, shapes, instances, batching: as Triton's answer after auto-completion; the rest as written."""
    config = written('parameters { key: "a" value { string_value: "b" } } metric_tags { key: "k" value: "v" }')
    spec = ModelSpec("m", runtime="onnx", artifact="/m/1/model.onnx", batch=BatchPolicy(max_size=4), config=config)
    answer = describe(spec, BATCHED, "onnxruntime_onnx")
    bare = describe(replace(spec, config={}), BATCHED, "onnxruntime_onnx")
    group = [{**bare["instance_group"][0]}]
    assert answer == {**bare, "parameters": {"a": {"string_value": "b"}}, "metric_tags": {"k": "v"}, "instance_group": group}


def test_what_a_file_says_stays() -> None:
    """Even where something else runs: it is the file that is asked for."""
    text = """platform: "onnxruntime_onnx" max_batch_size: 2 version_policy { all {} } default_model_filename: "net.onnx"
              input { name: "x" data_type: TYPE_FP32 dims: [ 3, 5 ] } output { name: "label" data_type: TYPE_STRING dims: 1 }
              dynamic_batching { preferred_batch_size: 2 } instance_group { name: "g" count: 3 kind: KIND_GPU gpus: 0 }"""
    config = written(text)
    answer = describe(ModelSpec("m", runtime="onnx", batch=BatchPolicy(max_size=64), config=config), BATCHED, "other")
    assert answer == {**config, "backend": "onnxruntime"}


def test_partly_declared_tensors_and_groups_are_completed() -> None:
    """A tensor that is only named gets its type and dims; a group gets a name, a count and a device. Unknown tensors stay as they are."""
    text = """max_batch_size: 2 instance_group [ {}, { count: 3 kind: KIND_GPU name: "g" } ]
              input [ { name: "x" }, { name: "new" } ] output { name: "label" dims: 7 }"""
    answer = describe(ModelSpec("m", config=written(text)), BATCHED, "p")
    assert [(t["name"], t["data_type"], t["dims"]) for t in answer["input"]] == [("x", "TYPE_FP32", [3, -1]), ("new", "TYPE_INVALID", [])]
    assert (answer["output"][0]["data_type"], answer["output"][0]["dims"]) == ("TYPE_STRING", [7])
    assert [(g["name"], g["count"], g["kind"]) for g in answer["instance_group"]] == [("m_0", 1, "KIND_CPU"), ("g", 3, "KIND_GPU")]


def test_dynamic_batching_without_sizes_prefers_the_largest() -> None:
    """As Triton's normalisation does."""
    answer = describe(ModelSpec("m", config=written("max_batch_size: 8 dynamic_batching { }")), BATCHED, "p")
    assert answer["dynamic_batching"]["preferred_batch_size"] == [8]


def test_sequence_batching_excludes_dynamic_batching() -> None:
    """They are one choice in the schema, so the answer has only what the file has."""
    answer = describe(ModelSpec("m", config=written("max_batch_size: 8 sequence_batching { direct {} }")), BATCHED, "p")
    assert "sequence_batching" in answer
    assert "dynamic_batching" not in answer


def test_an_ensemble_answers_its_file() -> None:
    """It has no instances, no backend and no batching of its own; only the version policy is completed."""
    path = next(path for path in SAMPLES if path.stem == "pipeline")
    config = config_json(read_config(path.read_bytes(), "pipeline").message)
    answer = describe(ModelSpec("pipeline", config=config), BATCHED, "ensemble")
    assert answer == {**config, "version_policy": {"latest": {"num_versions": 1}}}


def test_the_written_configuration_is_not_changed() -> None:
    """A description is made for each request; the spec is shared by all."""
    config = written("max_batch_size: 8 dynamic_batching { } input { name: 'x' } instance_group { }")
    before = orjson.dumps(config)
    describe(ModelSpec("m", config=config), BATCHED, "p")
    assert orjson.dumps(config) == before
