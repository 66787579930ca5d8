"""SavedModels in this process, through TensorFlow: what the contract suite does not ask. One import of TensorFlow for all of it."""

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import BatchPolicy, Call, InferRequest, Model, ModelSpec
from dragoman.core.plugins import find
from dragoman.core.tensors import BF16, BYTES, DATATYPES, FP32, Tensor, Tensors, TensorSpec
from dragoman.hosting.servable import LocalServable
from dragoman.proto.messages import new
from dragoman.serving import mlflow_specs
from tests.models import mlflow_folders, savedmodels
from tests.models.calls import load, tensor

PIXELS = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00\x90wS\xde\x00\x00\x00\x0cIDATx\x9cc\xf8\xcf"
    b"\xc0\x00\x00\x03\x01\x01\x00\xc9\xfe\x92\xef\x00\x00\x00\x00IEND\xaeB`\x82"
)
"""One red pixel."""


@cache
def model(name: str) -> Model:
    """Loaded once for all tests: predicting changes none of them."""
    loaded[name] = load("savedmodel", savedmodels.path(name))
    return loaded[name]


loaded: dict[str, Model] = {}


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    """TensorFlow wants its sessions closed before the interpreter ends."""
    yield
    model.cache_clear()
    while loaded:
        loaded.popitem()[1].close()


def ask(name: str, signature: str = "", outputs: Sequence[str] = (), /, **inputs: Any) -> dict[str, Any]:
    """The outputs as lists."""
    tensors = [each if isinstance(each, Tensor) else tensor(key, each) for key, each in inputs.items()]
    answer = model(name).predict(Call(Tensors(tensors), signature=signature, outputs=tuple(outputs)))
    assert isinstance(answer, Tensors)
    return {each.name: each.array.tolist() for each in answer.items}


def floats(*values: Any) -> "np.ndarray[Any, Any]":
    return np.array(values, np.float32)


def refused(name: str, signature: str = "", **inputs: Any) -> ServingError:
    with pytest.raises(ServingError) as caught:
        ask(name, signature, **inputs)
    assert "'m'" in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value


def failure(path: Path, **arguments: Any) -> ServingError:
    with pytest.raises(ServingError) as caught:
        load("savedmodel", path, **arguments)
    assert "'m'" in caught.value.message
    assert str(path.parent) not in caught.value.message
    return caught.value


def changed(folder: Path, change: Callable[[Any], object]) -> Path:
    """A model whose first graph was changed in its file."""
    from tensorflow.core.protobuf import saved_model_pb2

    file = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    change(saved.meta_graphs[0])
    file.write_bytes(saved.SerializeToString())
    return folder


def example(**features: float) -> bytes:
    message: Any = new("tensorflow.Example")
    for name, value in features.items():
        message.features.feature[name].float_list.value.append(value)
    return bytes(message.SerializeToString())


# --- signatures ---


def test_every_signature_is_there() -> None:
    """Under its key with its method; the default under "" as well; the graph's own tensor names are for metadata."""
    signatures = model("half_plus_two").signatures
    assert list(signatures) == ["", "classify_x_to_y", "regress_x2_to_y3", "regress_x_to_y", "regress_x_to_y2", "serving_default"]
    assert signatures[""] is signatures["serving_default"]
    assert signatures[""].inputs == (TensorSpec("x", FP32, (-1, 1), native="x:0"),)
    assert signatures[""].method == "tensorflow/serving/predict"
    assert signatures["classify_x_to_y"].method == "tensorflow/serving/classify"
    assert signatures["regress_x_to_y"].inputs == (TensorSpec("inputs", BYTES, (-1,), native="tf_example:0"),)


def test_shapes() -> None:
    """Unknown ranks, scalars and fixed shapes are told as such; what TensorFlow 2 runs after loading is no entry point."""
    assert model("unknown_rank").signatures[""].inputs[0].shape is None
    signatures = model("identities").signatures
    assert signatures["scalar"].inputs[0].shape == ()
    assert signatures["fixed"].inputs[0].shape == (2, 3)
    assert "__saved_model_init_op" not in signatures
    assert "qint8" not in signatures


def test_requests_join_only_along_a_common_axis() -> None:
    """Variable first dimensions are not enough: the graph is asked whether inputs may differ in them, and whether outputs have them."""
    assert model("tagged").signatures[""].batch
    assert model("picky").signatures[""].batch
    assert not model("picky").signatures["gather"].batch
    assert model("half_plus_two").signatures["regress_x_to_y"].batch
    assert not model("unknown_rank").signatures[""].batch
    assert not model("identities").signatures["fixed"].batch


# --- answers ---


@pytest.mark.parametrize("name", ["half_plus_two", "half_plus_two_tf2"])
def test_shapes_are_the_graphs_business(name: str) -> None:
    """The documentation's example feeds [3] to an input that is declared [-1,1]."""
    assert ask(name, x=floats(1, 2, 5)) == {"y": [2.5, 3.0, 4.5]}
    assert ask(name, x=np.ones((2, 2, 1), np.float32)) == {"y": [[[2.5], [2.5]], [[2.5], [2.5]]]}
    assert ask(name, "serving_default", x=floats([1])) == {"y": [[2.5]]}


def test_serialized_examples() -> None:
    """Features of tf.Example, defaults included; what the parser refuses is the caller's fault, in TensorFlow's words."""
    given = {"inputs": [example(x=80.0), example(x=20.0, x2=5.0)]}
    assert ask("half_plus_two", "regress_x_to_y", **given) == {"outputs": [[42.0], [12.0]]}
    assert ask("half_plus_two", "regress_x_to_y2", **given) == {"outputs": [[43.0], [13.0]]}
    assert ask("half_plus_two", "classify_x_to_y", **given) == {"scores": [[42.0], [12.0]]}
    assert ask("half_plus_two", "regress_x2_to_y3", inputs=floats([2])) == {"outputs": [[4.0]]}
    assert (
        "Feature: x (data type: float) is required but could not be found."
        in refused("half_plus_two", "regress_x_to_y", inputs=[b""]).message
    )
    assert "Could not parse example input, value: 'abc'" in refused("half_plus_two", "regress_x_to_y", inputs=[b"abc"]).message


def test_texts_beside_numbers() -> None:
    """Strings are bytes, whatever is in them, both ways."""
    answer = ask("tagged", tag=[b"foo", b"\xff\x00"], signal=np.ones((2, 5), np.float32), sensor=np.ones((2, 2, 2), np.float32))
    assert answer == {"label": [b"foo!", b"\xff\x00!"], "total": [9.0, 9.0]}
    assert ask("vocabulary", words=[b"two", b"three"]) == {"number": [2, -1]}
    assert ask("classifier", inputs=[_flower()])["classes"] == [[b"setosa", b"versicolor", b"virginica"]]
    assert ask("classifier", "name", inputs=[_flower()]) == {"name": [b""]}


def _flower() -> bytes:
    message: Any = new("tensorflow.Example")
    message.features.feature["petal"].float_list.value.extend([1.5, 0.2])
    return bytes(message.SerializeToString())


def test_pictures() -> None:
    """A file in, a file out."""
    answer = ask("image", image_bytes=[PIXELS])
    assert answer["mean"] == [85.0]
    assert ask("image", image_bytes=answer["inverted_bytes"])["mean"] == [170.0]
    assert refused("image", image_bytes=[b"no picture"]).kind is Kind.INVALID_INPUT


@pytest.mark.parametrize("name", [name for name in DATATYPES if name not in ("BYTES", "BF16")])
def test_every_type(name: str) -> None:
    """What goes in comes out, of the same type."""
    datatype = DATATYPES[name]
    key = {"FP16": "half", "FP32": "float32", "FP64": "float64"}.get(name, name.lower())
    given = np.array([0, 1, 1], datatype.numpy)
    answer = model("identities").predict(Call(Tensors([Tensor("x", datatype, given)]), signature=key))
    assert isinstance(answer, Tensors)
    assert answer.items[0].datatype is datatype
    assert answer.items[0].array.dtype == datatype.numpy
    assert answer.items[0].array.tolist() == given.tolist()


def test_bfloat16_travels_as_bits() -> None:
    """numpy has no such type; the bits are the same before and after."""
    bits = np.array([0x3F80, 0xC000, 0x7FC0], np.uint16)
    assert ask("identities", "bfloat16", x=Tensor("x", BF16, bits)) == {"y": bits.tolist()}


@pytest.mark.parametrize(
    ("key", "value"), [("scalar", np.array(3.5, np.float32)), ("string", np.array(b"one", object)), ("int64", np.array(7))]
)
def test_scalars(key: str, value: "np.ndarray[Any, Any]") -> None:
    """Without dimensions on both sides, texts too: TensorFlow gives these without an array."""
    answer = model("identities").predict(
        Call(Tensors([tensor("x", value) if value.dtype != object else Tensor("x", BYTES, value)]), signature=key)
    )
    assert isinstance(answer, Tensors)
    assert answer.items[0].array.shape == ()
    assert answer.items[0].array.tolist() == value.tolist()


def test_keras() -> None:
    """What Keras exports, under both of its signatures."""
    assert ask("keras_dense", "serve", features=floats([1, 2, 3])) == {"output_0": [[6.0, 6.0]]}
    assert ask("keras_dense", features=floats([1, 2, 3])) == {"output_0": [[6.0, 6.0]]}


def test_ranks() -> None:
    """An unknown rank takes any."""
    assert ask("unknown_rank", x=np.array(2, np.float32)) == {"y": 4.0}
    assert ask("unknown_rank", x=np.ones((1, 1, 2), np.float32)) == {"y": [[[2.0, 2.0]]]}


def test_chosen_outputs() -> None:
    """Only what is asked for is computed and answered; however many choices clients make, the model keeps few."""
    images = {"image_bytes": [PIXELS]}
    assert list(ask("image", "", ["mean"], **images)) == ["mean"]
    assert list(ask("image", "", ["mean", "inverted_bytes"], **images)) == ["inverted_bytes", "mean"]


# --- refusals ---


@pytest.mark.parametrize(
    ("signature", "inputs", "text"),
    [
        ("", {"x": floats(1, -1)}, "x must not be negative"),
        ("matrix", {"x": np.ones((1, 2), np.float32)}, "Matrix size-incompatible: In[0]: [1,2], In[1]: [4,3]"),
        ("gather", {"table": floats(1, 2), "index": np.array([7])}, "indices[0] = 7 is not in [0, 2)"),
        ("", {"x": np.ones(1)}, "input 'x' of model 'm' has datatype FP64, expected FP32"),
        ("", {"y": floats(1)}, "needs the input 'x'"),
        ("", {"x": floats(1), "z": floats(1)}, "has no input 'z'"),
        ("none", {"x": floats(1)}, "has no signature 'none'"),
    ],
)
def test_what_a_graph_refuses(signature: str, inputs: dict[str, Any], text: str) -> None:
    """The caller's fault, with TensorFlow's reason; the model answers on."""
    error = refused("picky", signature, **inputs)
    assert error.kind is Kind.INVALID_INPUT
    assert text in error.message
    assert ask("picky", x=floats(4)) == {"root": [2.0]}


def test_long_refusals_are_cut() -> None:
    """What a graph says may be as long as the input."""
    error = refused("half_plus_two", "regress_x_to_y", inputs=[b"\xff" * 5000])
    assert len(error.message) == 1024
    assert error.message.endswith("...TRUNCATED")


def test_neighbours_of_a_bad_request() -> None:
    """One that a graph refuses fails alone, whoever was joined with it."""

    async def serve() -> list[Any]:
        spec = ModelSpec("m", runtime="savedmodel", artifact=str(savedmodels.path("picky")), batch=BatchPolicy(max_size=8))
        servable = LocalServable.load(spec)
        try:
            requests = [InferRequest(Tensors([tensor("x", floats(value))])) for value in (1, -1, 4, 9)]
            return await asyncio.gather(*(servable.infer(request) for request in requests), return_exceptions=True)
        finally:
            await servable.close()

    answers = asyncio.run(serve())
    assert isinstance(answers[1], ServingError)
    assert [answer.outputs.items[0].array.tolist() for answer in answers if not isinstance(answer, ServingError)] == [[1.0], [2.0], [3.0]]


# --- loading ---


def test_tags() -> None:
    """`serve` unless others are asked for; the error says which there are."""
    path = savedmodels.path("train_only")
    error = failure(path)
    assert error.kind is Kind.UNSUPPORTED
    assert "no graph with the tags serve; its tags are: gpu,train" in error.message
    other = load("savedmodel", path, saved_model_tags="gpu,train")
    answer = other.predict(Call(Tensors([tensor("x", floats(2))])))
    assert isinstance(answer, Tensors)
    assert answer.items[0].array.tolist() == [6.0]
    other.close()


def test_an_operation_that_is_missing() -> None:
    """It is named, with the version that lacks it."""
    error = failure(savedmodels.path("missing_op"))
    assert error.kind is Kind.UNSUPPORTED
    assert "the operation ParseExampleV9, which TensorFlow 2." in error.message


def test_damaged_variables(tmp_path: Path) -> None:
    """Half a copy does not load, and says why."""
    folder = savedmodels.copy("half_plus_two", tmp_path / "1")
    data = folder / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-6])
    assert failure(folder).kind is Kind.INVALID_INPUT
    data.unlink()
    error = failure(folder)
    assert error.message.startswith("TensorFlow 2.")
    (folder / "saved_model.pb").unlink()
    assert failure(folder).kind is Kind.NOT_FOUND


def test_text_form(tmp_path: Path) -> None:
    """saved_model.pbtxt does as well."""
    from tensorflow.core.protobuf import saved_model_pb2

    folder = savedmodels.copy("half_plus_three", tmp_path / "1")
    binary = folder / "saved_model.pb"
    (folder / "saved_model.pbtxt").write_text(str(saved_model_pb2.SavedModel.FromString(binary.read_bytes())))
    binary.unlink()
    other = load("savedmodel", folder)
    assert "serving_default" in other.signatures
    other.close()
    (folder / "saved_model.pbtxt").write_text("meta_graphs { what: 1 }")
    assert "'saved_model.pbtxt'" in failure(folder).message


@pytest.mark.parametrize(
    ("operation", "known"),
    [("ReadFile", True), ("WriteFile", True), ("PyFunc", True), ("TextLineDataset", True), ("SaveV2", True), ("Relu", False)],
)
def test_graphs_that_reach_out(tmp_path: Path, operation: str, known: bool) -> None:
    """Files and Python are for models that the operator trusts; a checkpoint's operations may be there, but no request may reach them."""
    folder = changed(savedmodels.copy("iris", tmp_path / "1"), lambda graph: graph.graph_def.node.add(name="extra", op=operation))
    if operation in ("SaveV2", "Relu"):  # nothing leads to it: TensorFlow may think of it what it likes
        assert "reaches out" not in failure(folder).message

    def lead_there(graph: Any) -> None:
        graph.signature_def["serving_default"].outputs["label"].name = "extra:0"

    changed(folder, lead_there)
    arguments: dict[str, Any]
    for arguments in ({}, {"trust_pickle": True}):
        error = failure(folder, **arguments)
        assert (f"has the operation {operation}, which reaches out" in error.message) is (known and not arguments)
        assert ("--trust-pickle" in error.message) is (known and not arguments)


def test_functions_are_looked_into(tmp_path: Path) -> None:
    """What a graph calls counts as its own."""

    def hide(graph: Any) -> None:
        function = next(each for each in graph.graph_def.library.function if "inference_label" in each.signature.name)
        function.node_def.add(name="save", op="SaveV2")

    folder = changed(savedmodels.copy("tagged", tmp_path / "1"), hide)
    assert "has the operation SaveV2, which reaches out" in failure(folder).message


def test_inputs_with_a_default(tmp_path: Path) -> None:
    """They may be left out."""

    def change(graph: Any) -> None:
        value = graph.signature_def["serving_default"].defaults["x"]
        value.dtype = 1
        for size in (1, 4):
            value.tensor_shape.dim.add(size=size)
        value.float_val.extend([6.6, 3.0, 5.6, 2.0])

    other = load("savedmodel", changed(savedmodels.copy("iris", tmp_path / "1"), change))
    assert other.signatures[""].inputs[0].optional
    for given, label in (([], 2), ([tensor("x", floats([5.0, 3.4, 1.5, 0.2]))], 0)):
        answer = other.predict(Call(Tensors(given), outputs=("label",)))
        assert isinstance(answer, Tensors)
        assert answer.items[0].array.tolist() == [label]
    other.close()


def test_signatures_that_are_broken(tmp_path: Path) -> None:
    """One that names tensors which the graph lacks is left out; without any other the model does not load."""

    def lose(graph: Any) -> None:
        graph.signature_def["serving_default"].outputs["y"].name = "nowhere:0"

    folder = changed(savedmodels.copy("half_plus_three", tmp_path / "1"), lose)
    other = load("savedmodel", folder)
    assert list(other.signatures) == ["", "tensorflow/serving/regress"]
    other.close()
    changed(folder, lambda graph: graph.signature_def.pop("tensorflow/serving/regress"))
    assert "no signature of model 'm' names tensors that are in its graph" in failure(folder).message
    changed(folder, lambda graph: graph.signature_def.pop("serving_default"))
    assert "has no signature that can be served" in failure(folder).message


def test_no_default_signature(tmp_path: Path) -> None:
    """The first in alphabetical order is taken for it."""
    folder = changed(savedmodels.copy("identities", tmp_path / "1"), lambda graph: graph.signature_def.pop("serving_default"))
    other = load("savedmodel", folder)
    assert other.signatures[""] == other.signatures["bfloat16"]
    assert "serving_default" not in other.signatures
    other.close()


def test_options() -> None:
    """Threads are taken; a device that is not there, or is none, is refused."""
    load("savedmodel", savedmodels.path("iris"), threads=1, inter_op_threads="2").close()
    assert failure(savedmodels.path("iris"), device="cuda:7").kind is Kind.UNSUPPORTED
    assert "expected cpu, cuda or cuda:N" in failure(savedmodels.path("iris"), device="abacus").message


def test_one_server_may_hold_many() -> None:
    """Two of one name do not meet: each has a graph and a session of its own."""
    first, second = load("savedmodel", savedmodels.path("half_plus_two")), load("savedmodel", savedmodels.path("half_plus_three"))
    first.close()
    answer = second.predict(Call(Tensors([tensor("x", floats([80]))])))
    assert isinstance(answer, Tensors)
    assert answer.items[0].array.tolist() == [[43.0]]
    second.close()


def test_in_a_folder_of_mlflow(tmp_path: Path) -> None:
    """Its tensorflow flavor, with a signature of one tensor without a name, as Keras models have."""
    folder = mlflow_folders.write(
        tmp_path / "m",
        mlflow_folders.document(
            {"tensorflow": {"data": "data", "model_type": "keras", "save_format": "tf"}},
            described=mlflow_folders.signature([mlflow_folders.tensor("float32", -1, 3)], [mlflow_folders.tensor("float32", -1, 2)]),
        ),
    )
    savedmodels.copy("keras_dense", folder / "data" / "model")
    spec = mlflow_specs.spec_of(ModelSpec("m", engine=""), folder)
    other: Model = find("runtimes", "mlflow")(spec)
    answer = other.predict(Call(Tensors([tensor("features", floats([1, 2, 3]))])))
    assert isinstance(answer, Tensors)
    assert answer.items[0].array.tolist() == [[6.0, 6.0]]
    other.close()


# --- warm-up ---


def log(kind: str, signature: str = "", key: str = "x", values: Sequence[float] = (1.0,)) -> bytes:
    """One request as it was recorded."""
    record: Any = new("tensorflow.serving.PredictionLog")
    request = getattr(record, kind).request
    if kind == "multi_inference_log":
        for each in ("regress_x_to_y", "classify_x_to_y"):
            request.tasks.add().model_spec.signature_name = each
    else:
        request.model_spec.signature_name = signature
    if kind == "predict_log":
        request.inputs[key].dtype = 1
        request.inputs[key].tensor_shape.dim.add(size=len(values))
        request.inputs[key].float_val.extend(values)
    elif kind == "session_run_log":
        feed = request.feed.add(name="x:0")
        feed.tensor.dtype = 1
        feed.tensor.tensor_shape.dim.add(size=1)
        feed.tensor.tensor_shape.dim.add(size=1)
        feed.tensor.float_val.append(1.0)
        request.fetch.append("y:0")
    else:
        given = request.input.example_list_with_context
        given.examples.add()
        given.context.features.feature[key].float_list.value.extend(values)
    return bytes(record.SerializeToString())


def test_warm_up_requests_of_every_kind(tmp_path: Path) -> None:
    """They run before the model is ready, those of Examples with their context."""
    kinds = ("classify_log", "regress_log", "multi_inference_log", "session_run_log")
    records = [log("predict_log"), *(log(kind, kind.replace("_log", "_x_to_y")) for kind in kinds)]
    folder = savedmodels.copy("half_plus_two", tmp_path / "1")
    savedmodels.add_warmup(folder, records)
    load("savedmodel", folder).close()


@pytest.mark.parametrize(
    ("records", "text"),
    [
        ([log("predict_log"), log("predict_log", key="z")], "warm-up request 2 of model 'm' failed: model 'm' has no input 'z'"),
        ([log("predict_log", "nothing")], "has no signature 'nothing'"),
        ([log("regress_log", "regress_x_to_y", "y")], "Feature: x (data type: float) is required"),
        ([log("regress_log", "serving_default")], "does not take Examples"),
        ([b""], "of a kind that is not known"),
        ([b"\xff\xff\xff"], "is damaged after 1 requests"),
        ([log("predict_log")] * 1001, "has more than 1000 requests"),
    ],
)
def test_warm_up_requests_that_fail(tmp_path: Path, records: list[bytes], text: str) -> None:
    """The model does not load; the request is named. Without warm-up it does."""
    folder = savedmodels.copy("half_plus_two", tmp_path / "1")
    savedmodels.add_warmup(folder, records)
    assert text in failure(folder).message
    load("savedmodel", folder, model_warmup=False).close()


def test_a_damaged_file_of_warm_up_requests(tmp_path: Path) -> None:
    """What was cut, or is no such file at all."""
    folder = savedmodels.copy("half_plus_two", tmp_path / "1")
    file = savedmodels.add_warmup(folder, [log("predict_log")] * 2)
    file.write_bytes(file.read_bytes()[:-3])
    assert "is damaged after 1 requests" in failure(folder).message
    file.write_bytes(b"nothing of the kind" * 10)
    assert "is damaged after 0 requests" in failure(folder).message


def test_without_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways out are named: the extra, and converting once."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    error = failure(savedmodels.path("iris"))
    assert error.kind is Kind.UNSUPPORTED
    assert "pip install 'dragoman[tensorflow]'" in error.message
    assert "dragoman convert" in error.message
