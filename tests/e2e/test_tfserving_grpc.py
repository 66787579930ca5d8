"""TensorFlow Serving's gRPC services over real sockets, with tensorflow-serving-api and TensorFlow in a virtualenv of their own.

TensorFlow takes seconds to import, so one client process asks everything, once; each test looks at a part of what it heard.
"""

import base64
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2

from dragoman.core.tensors import BYTES, Tensor
from dragoman.dialects.tfserving.messages import TYPE_NAMES
from dragoman.dialects.tfserving.room import Room
from dragoman.dialects.tfserving.tensor_proto import decode, encode
from dragoman.proto import messages
from tests import clients
from tests.e2e.running import Running, serving
from tests.models import build, documented, learned, savedmodels, snippets
from tests.tensor_protos import VALUES, array_of

SCRIPT = """
import base64, os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import grpc, numpy as np, tensorflow as tf
from google.protobuf import descriptor_pool
from tensorflow.core.example.example_pb2 import Example
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import classification_pb2, get_model_metadata_pb2, get_model_status_pb2, inference_pb2, predict_pb2
from tensorflow_serving.apis import model_management_pb2, model_service_pb2, model_service_pb2_grpc, regression_pb2
from tensorflow_serving.apis import prediction_service_pb2, prediction_service_pb2_grpc

heard = {}

# --- the schema ---

pool = descriptor_pool.Default()
def type_of(field):
    return (field.message_type or field.enum_type).full_name if field.message_type or field.enum_type else ""
def fields_of(name):
    return {each.name: [each.number, each.type, each.is_repeated, type_of(each)] for each in pool.FindMessageTypeByName(name).fields}
heard["messages"] = {name: fields_of(name) for name in given["messages"]}
heard["enums"] = {name: {v.name: v.number for v in pool.FindEnumTypeByName(name).values} for name in given["enums"]}
heard["services"] = {name: {m.name: [m.input_type.full_name, m.output_type.full_name] for m in pool.FindServiceByName(name).methods}
                     for name in given["services"]}

# --- tensors ---

heard["written"], heard["read"], arrays = {}, {}, {}
def b64(message):
    return base64.b64encode(message.SerializeToString()).decode()
for name, (dtype, content, ours) in given["tensors"].items():
    dtype = tf.as_dtype(dtype)
    if dtype == tf.string:
        array = np.array([base64.b64decode(each) for each in content], object).reshape(2, 3)
    else:
        array = np.frombuffer(base64.b64decode(content), dtype.as_numpy_dtype).reshape(2, 3)
    heard["written"][name] = [b64(tf.make_tensor_proto(array, dtype)), b64(tf.make_tensor_proto(array[0, 1], dtype, shape=(2, 3)))]
    read = tf.make_ndarray(TensorProto.FromString(base64.b64decode(ours)))
    arrays[name] = (dtype.name, array.reshape(6))
    heard["read"][name] = [list(read.shape), bool(read.dtype == dtype.as_numpy_dtype), bool((read == array).all())]

# --- calls ---

unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
channel = grpc.insecure_channel(given["address"], options=unlimited)
predictions = prediction_service_pb2_grpc.PredictionServiceStub(channel)
models = model_service_pb2_grpc.ModelServiceStub(channel)

def ask(what, method, request, understood):
    try:
        heard[what] = understood(method(request, timeout=60))
    except grpc.RpcError as error:
        heard[what] = [error.code().name, error.details()]

def spec(request, name, signature="", version=None, label=None):
    request.model_spec.name, request.model_spec.signature_name = name, signature
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    return request

def values(tensor):
    array = tf.make_ndarray(tensor)
    return [each.decode() for each in array.ravel()] if array.dtype == object else array.tolist()

def predict(what, name, inputs, outputs=(), **which):
    request = spec(predict_pb2.PredictRequest(output_filter=outputs), name, **which)
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(value if isinstance(value, TensorProto) else tf.make_tensor_proto(value))
    ask(what, predictions.Predict, request, lambda answer: {
        "spec": [answer.model_spec.name, answer.model_spec.version.value, answer.model_spec.signature_name],
        "outputs": {key: values(tensor) for key, tensor in answer.outputs.items()}})

def example(**features):
    made = Example()
    for key, value in features.items():
        made.features.feature[key].float_list.value.extend(value)
    return made

three = np.array([[1.0], [2.0], [5.0]], np.float32)
predict("rows", "half_plus_two", {"x": three})
predict("flat", "half_plus_two", {"x": three.reshape(3)})
predict("old", "half_plus", {"x": three}, version=1)
predict("latest", "half_plus", {"x": three})
beacon = {"tag": [b"foo"], "signal": np.ones((1, 5), np.int64), "sensor": np.ones((1, 2, 2), np.float32)}
predict("several", "beacon", beacon)
predict("filtered", "beacon", beacon, ["total"])
flowers = np.array(given["flowers"][1], np.float64)
predict("flowers", "flowers", {given["flowers"][0]: flowers.astype(given["flowers"][2])})
predict("greet", "greet", {"name": [b"Ann", b"Bob"]})
predict("no model", "nobody", {"x": three})
predict("no version", "half_plus", {"x": three}, version=9)
predict("no label", "half_plus", {"x": three}, label="canary")
predict("no signature", "half_plus_two", {"x": three}, signature="other")
predict("no input", "half_plus_two", {"y": three})
predict("no output", "half_plus_two", {"x": three}, ["z"])
predict("wrong type", "half_plus_two", {"x": [b"a"]})
predict("broken", "broken", {"x": three})
predict("bomb", "half_plus_two", {"x": tf.make_tensor_proto(1.0, shape=(1 << 20, 1 << 20))})

for name, (dtype, array) in arrays.items():
    request = spec(predict_pb2.PredictRequest(), "identities", "half" if dtype == "float16" else dtype)
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(array))
    ask("same " + name, predictions.Predict, request, lambda answer: bool((tf.make_ndarray(answer.outputs["y"]) == array).all()))

image = np.random.default_rng(0).random((8, 224, 224, 3), np.float32)
request = spec(predict_pb2.PredictRequest(), "images")
request.inputs["x"].CopyFrom(tf.make_tensor_proto(image))
ask("images", predictions.Predict, request, lambda answer: bool((tf.make_ndarray(answer.outputs["y"]) == image).all()))

def examples(request, given, context=None):
    if context is None:
        request.input.example_list.examples.extend(given)
    else:
        request.input.example_list_with_context.examples.extend(given)
        request.input.example_list_with_context.context.CopyFrom(context)
    return request
def numbers(result):
    return [each.value for each in result.regressions]
def classes(result):
    return [[[each.label, each.score] for each in one.classes] for one in result.classifications]
two = [example(x=[80.0]), example(x=[1.0])]
for what, name, signature in (("regress", "half_plus_two", "regress_x_to_y"), ("regress an onnx", "half_plus", ""), ("no kind", "half_plus_two", "")):
    request = examples(spec(regression_pb2.RegressionRequest(), name, signature), two)
    ask(what, predictions.Regress, request, lambda answer: [numbers(answer.result), answer.model_spec.signature_name])
request = spec(classification_pb2.ClassificationRequest(), "half_plus_two", "classify_x_to_y")
examples(request, [example(), example(x=[1.0])], example(x=[80.0]))
ask("classify", predictions.Classify, request, lambda answer: classes(answer.result))
request = examples(spec(classification_pb2.ClassificationRequest(), "chosen"), [example(x=[0.25, 0.75])])
ask("classify an onnx", predictions.Classify, request, lambda answer: classes(answer.result))
request = examples(spec(classification_pb2.ClassificationRequest(), "half_plus_two", "classify_x_to_y"), [example(y=[80.0])])
ask("no feature", predictions.Classify, request, lambda answer: classes(answer.result))
request = examples(inference_pb2.MultiInferenceRequest(), two)
spec(request.tasks.add(method_name="tensorflow/serving/regress"), "half_plus_two", "regress_x_to_y2")
spec(request.tasks.add(method_name="tensorflow/serving/classify"), "half_plus_two", "classify_x_to_y")
ask("multi", predictions.MultiInference, request, lambda answer: [
    numbers(answer.results[0].regression_result), classes(answer.results[1].classification_result),
    [each.model_spec.signature_name for each in answer.results]])

def described(answer):
    signatures = get_model_metadata_pb2.SignatureDefMap()
    answer.metadata["signature_def"].Unpack(signatures)
    default = signatures.signature_def["serving_default"]
    inputs = {key: [info.dtype, [dim.size for dim in info.tensor_shape.dim]] for key, info in default.inputs.items()}
    return [answer.model_spec.version.value, sorted(signatures.signature_def), default.method_name, inputs]
request = spec(get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"]), "half_plus_two")
ask("metadata", predictions.GetModelMetadata, request, described)
request = spec(get_model_status_pb2.GetModelStatusRequest(), "half_plus")
ask("status", models.GetModelStatus, request, lambda answer: [[v.version, v.state, v.status.error_code] for v in answer.model_version_status])
request = spec(get_model_status_pb2.GetModelStatusRequest(), "broken")
ask("failed", models.GetModelStatus, request, lambda answer: [[v.version, v.state, v.status.error_code > 0] for v in answer.model_version_status])

# --- another list of models, at last: it replaces all others ---

def reload(what, labels, **fields):
    request = model_management_pb2.ReloadConfigRequest()
    listed = request.config.model_config_list.config.add(name="half_plus", base_path=given["base_path"], model_platform="tensorflow", **fields)
    listed.model_version_policy.specific.versions.extend([1, 3])
    for label, version in labels.items():
        listed.version_labels[label] = version
    ask(what, models.HandleReloadConfigRequest, request, lambda answer: [answer.status.error_code, answer.status.error_message])
reload("reload", {"stable": 1})
predict("labelled", "half_plus", {"x": three}, label="stable")
predict("no longer", "beacon", beacon)
reload("early", {"stable": 1, "canary": 9})
request = model_management_pb2.ReloadConfigRequest()
request.config.custom_model_config.type_url = "example.com/x"
ask("custom", models.HandleReloadConfigRequest, request, lambda answer: "served")
request = model_management_pb2.ReloadConfigRequest()
for _ in range(2):
    request.config.model_config_list.config.add(name="a", base_path="/a")
ask("twice", models.HandleReloadConfigRequest, request, lambda answer: "served")
answer(heard)
"""
GREET = """
def predict(name: str) -> dict:
    return {"text": f"Hello {name}"}
"""
FILES = (
    *(f"tensorflow_{part}.proto" for part in ("example", "signature", "status", "tensor")),
    *(f"tfserving_{part}.proto" for part in ("config", "inference", "metadata", "models", "services")),
)
"""Ours that describe what goes over the wire."""


def schema() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Our messages, enums and services of TensorFlow's packages, as the script describes its own."""
    pool = messages.pool()
    found: tuple[dict[str, Any], dict[str, Any], dict[str, Any]] = {}, {}, {}
    content = (Path(messages.__file__).parent / "descriptors.binpb").read_bytes()

    def add(message: Any) -> None:
        types = {f: f.message_type or f.enum_type for f in message.fields}
        found[0][message.full_name] = {
            f.name: [f.number, f.type, f.is_repeated, kind.full_name if kind else ""] for f, kind in types.items()
        }
        for nested in message.nested_types:
            add(nested)

    messages.new("tensorflow.Example")  # fills the pool
    for each in descriptor_pb2.FileDescriptorSet.FromString(content).file:
        if each.name in FILES:
            file = pool.FindFileByName(each.name)
            for message in file.message_types_by_name.values():
                add(message)
            found[1].update({e.full_name: {v.name: v.number for v in e.values} for e in file.enum_types_by_name.values()})
            found[2].update(
                {
                    s.full_name: {m.name: [m.input_type.full_name, m.output_type.full_name] for m in s.methods}
                    for s in file.services_by_name.values()
                }
            )
    return found


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def tensors() -> dict[str, Any]:
    """Of every datatype: TensorFlow's name, the values, and how we answer them."""
    found = {}
    for datatype, values in VALUES.items():
        array = array_of(datatype)
        content = [b64(each) for each in values] if datatype is BYTES else b64(array.tobytes())
        found[datatype.name] = [TYPE_NAMES[datatype], content, b64(b"".join(encode(Tensor("y", datatype, array))))]
    return found


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of TensorFlow and ONNX, of several versions, and one that is broken."""
    models = tmp_path_factory.mktemp("models")
    savedmodels.copy("half_plus_two", models / "half_plus_two" / "00000123")
    savedmodels.copy("identities", models / "identities" / "1")
    for version in (1, 3):
        documented.half_plus(models / "half_plus" / str(version) / "model.onnx", version)
    (models / "half_plus" / "config.pbtxt").write_text('name: "half_plus"\nbackend: "onnxruntime"\nversion_policy { all { } }\n')
    documented.beacon(models / "beacon" / "1" / "model.onnx")
    build.identity(models / "images" / "1" / "model.onnx", "FP32", ("N", None, None, None))
    build.identity(models / "chosen" / "1" / "model.onnx", "FP32", ("N", 2))
    learned.write(models / "broken" / "1" / "model.onnx", b"no model")
    return models


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("grpc")
    flowers = learned.write(folder / "flowers.skops", learned.skops_of(learned.classifier()))
    greet = snippets.write(folder / "greet", GREET).parent
    with serving(folder, str(models), str(flowers), str(greet), "--grpc-port", "0") as running:
        yield running


def grpc_address(server: Running) -> str:
    """Where the banner says that gRPC is."""
    deadline = time.monotonic() + 30
    while (found := re.search(r"^gRPC: (\S+)$", server.output, re.MULTILINE)) is None:
        assert time.monotonic() < deadline, server.output
        time.sleep(0.01)
    return found[1]


@pytest.fixture(scope="module")
def heard(server: Running, models: Path) -> dict[str, Any]:
    described, enums, services = schema()
    asked: dict[str, Any] = {"messages": list(described), "enums": list(enums), "services": list(services), "tensors": tensors()}
    flowers = ["X", [[5.1, 3.5, 1.4, 0.2]], "float32"]
    asked |= {"address": grpc_address(server), "base_path": str(models / "half_plus")}
    answered: dict[str, Any] = clients.run("tensorflow-serving", SCRIPT, flowers=flowers, **asked)
    return answered


def test_every_message_is_the_clients(heard: dict[str, Any]) -> None:
    """Names, numbers, types and repetition of all fields that we have; the client may have more."""
    described, enums, services = schema()
    for name, fields in described.items():
        assert {field: heard["messages"][name].get(field) for field in fields} == fields, name
    for name, values in enums.items():
        assert {value: heard["enums"][name].get(value) for value in values} == values, name
    assert heard["services"] == services


def test_tensors_cross_both_ways(heard: dict[str, Any]) -> None:
    """Of every datatype: what TensorFlow writes, we read, in full and as one value for all; what we write, it reads."""
    for datatype in VALUES:
        array = array_of(datatype)
        for content, expected in zip(heard["written"][datatype.name], (array, np.full((2, 3), array[0, 1], datatype.numpy)), strict=True):
            tensor = decode("x", base64.b64decode(content), Room(1 << 10))
            assert (tensor.datatype, tensor.array.tolist()) == (datatype, expected.tolist())
    assert heard["read"] == {datatype.name: [[2, 3], True, True] for datatype in VALUES}


def test_predict(heard: dict[str, Any]) -> None:
    """Every runtime answers: TensorFlow, ONNX, scikit-learn, Python; versions, several inputs, an output filter, five megabytes."""
    assert heard["rows"] == {"spec": ["half_plus_two", 123, "serving_default"], "outputs": {"y": [[2.5], [3.0], [4.5]]}}
    assert heard["flat"]["outputs"] == {"y": [2.5, 3.0, 4.5]}
    assert heard["old"] == {"spec": ["half_plus", 1, "serving_default"], "outputs": {"y": [[1.5], [2.0], [3.5]]}}
    assert heard["latest"]["outputs"] == {"y": [[3.5], [4.0], [5.5]]}
    assert heard["several"]["outputs"] == {"total": [5], "mean": [1.0], "tag_bytes": ["foo"]}
    assert heard["filtered"]["outputs"] == {"total": [5]}
    assert heard["flowers"]["spec"][0] == "flowers"
    assert heard["greet"]["outputs"] == {"text": ["Hello Ann", "Hello Bob"]}
    assert heard["images"] is True


def test_every_datatype_goes_through_tensorflow(heard: dict[str, Any]) -> None:
    """In and out of a SavedModel that answers what it is given."""
    names = [f"same {datatype.name}" for datatype in VALUES]
    assert {name: heard[name] for name in names} == dict.fromkeys(names, True)


REFUSALS = [
    ("no model", "NOT_FOUND", "Servable not found for request: Latest(nobody)"),
    ("no version", "NOT_FOUND", "Servable not found for request: Specific(half_plus, 9)"),
    ("no label", "INVALID_ARGUMENT", "Unrecognized servable version label: canary"),
    ("no signature", "FAILED_PRECONDITION", 'Serving signature key "other" not found.'),
    ("no input", "INVALID_ARGUMENT", "Sent extra: {y}. Missing but required: {x}."),
    ("no output", "INVALID_ARGUMENT", "output tensor alias not found in signature: z"),
    ("wrong type", "INVALID_ARGUMENT", "BYTES"),
    ("broken", "UNAVAILABLE", "failed to load"),
    ("bomb", "RESOURCE_EXHAUSTED", "would fill more than"),
    ("no kind", "INVALID_ARGUMENT", "No regression inputs found in SignatureDef"),
    ("no feature", "INVALID_ARGUMENT", "x"),
]


def test_refusals(heard: dict[str, Any]) -> None:
    """As a client sees them."""
    for what, code, text in REFUSALS:
        assert heard[what][0] == code, what
        assert text in heard[what][1], what


def test_examples(heard: dict[str, Any]) -> None:
    """A SavedModel parses them; of any other model the features are its inputs. A context is part of each, and the example's own value wins."""
    assert heard["regress"] == [[42.0, 2.5], "regress_x_to_y"]
    assert heard["regress an onnx"] == [[43.0, 3.5], "serving_default"]
    assert heard["classify"] == [[["", 42.0]], [["", 2.5]]]
    assert heard["classify an onnx"] == [[["", 0.25], ["", 0.75]]]
    assert heard["multi"] == [[43.0, 3.5], [[["", 42.0]], [["", 2.5]]], ["regress_x_to_y2", "classify_x_to_y"]]


def test_metadata_and_status(heard: dict[str, Any]) -> None:
    """The signatures of a SavedModel under their names, and the state of every version."""
    version, names, method, inputs = heard["metadata"]
    assert (version, method, inputs) == (123, "tensorflow/serving/predict", {"x": [1, [-1, 1]]})
    assert names == ["classify_x_to_y", "regress_x2_to_y3", "regress_x_to_y", "regress_x_to_y2", "serving_default"]
    assert heard["status"] == [[3, 30, 0], [1, 30, 0]]
    assert heard["failed"] == [[1, 50, True]]


def test_another_list_of_models(heard: dict[str, Any]) -> None:
    """What it names is served, with its labels, when the call returns; what it does not name is not. A list that cannot be is refused whole."""
    assert heard["reload"] == [0, ""]
    assert heard["labelled"]["spec"] == ["half_plus", 1, "serving_default"]
    assert heard["no longer"][0] == "NOT_FOUND"
    assert heard["early"][0] == "FAILED_PRECONDITION"
    assert "assign label to version 9 of model half_plus, which is not currently available for inference" in heard["early"][1]
    assert heard["custom"][0] == "UNIMPLEMENTED"
    assert heard["twice"] == ["INVALID_ARGUMENT", "Illegal to list model a multiple times in config list"]
