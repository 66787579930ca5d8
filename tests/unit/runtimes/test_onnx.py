"""ONNX models: datatypes, shapes, batching, text, BF16, class dictionaries, options."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Model, ModelSpec
from dragoman.core.tensors import BF16, DATATYPES, FP32, Signature, TensorSpec
from dragoman.runtimes import onnx as runtime
from tests.models import build
from tests.models.build import Dims, constant, save, value
from tests.models.calls import ask, call, load, tensor

node = helper.make_node


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test writes its model."""
    return tmp_path / "model.onnx"


def refusal(model: Model, **arrays: Any) -> ServingError:
    with pytest.raises(ServingError) as caught:
        model.predict(call(*[tensor(name, array) for name, array in arrays.items()]))
    assert "'m'" in caught.value.message
    return caught.value


SAMPLES: dict[str, list[Any]] = {
    "BOOL": [True, False, True],
    "UINT8": [0, 1, 255],
    "UINT16": [0, 1, 2**16 - 1],
    "UINT32": [0, 1, 2**32 - 1],
    "UINT64": [0, 1, 2**64 - 1],
    "INT8": [-128, 0, 127],
    "INT16": [-(2**15), 0, 2**15 - 1],
    "INT32": [-(2**31), 0, 2**31 - 1],
    "INT64": [-(2**63), 0, 2**63 - 1],
    "FP16": [-1.5, 0.0, 65504.0],
    "BF16": [0x3F80, 0xFF80, 0x7FC1],
    "FP32": [-1.5, float("inf"), 3.4e38],
    "FP64": [-1.5, float("-inf"), 1.7e308],
    "BYTES": [b"", "déjà".encode(), b"a\x00b"],
}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (1, 0), (0, 3)], ids=str)
def test_every_datatype_goes_through(name: str, shape: tuple[int, int], path: Path) -> None:
    """Each datatype keeps its values, extremes and bits, in every shape, empty ones included."""
    datatype = DATATYPES[name]
    model = load("onnx", build.identity(path, name))
    assert model.signatures[""].inputs == (TensorSpec("x", datatype, (-1, -1)),)
    array = np.array(SAMPLES[name], datatype.numpy)[: shape[0] * shape[1]].reshape(shape)
    out = ask(model, tensor("x", array.copy(), datatype))["y"]
    assert out.datatype is datatype
    assert out.array.shape == shape
    assert out.array.dtype == datatype.numpy
    assert out.array.tolist() == array.tolist()


@pytest.mark.parametrize("name", ["FP32", "BF16", "BYTES", "BOOL"])
def test_scalars(name: str, path: Path) -> None:
    """Tensors without dimensions are declared as such and go through."""
    datatype = DATATYPES[name]
    model = load("onnx", build.identity(path, name, ()))
    assert model.signatures[""].inputs == (TensorSpec("x", datatype, ()),)
    assert not model.signatures[""].batch
    array = np.array(SAMPLES[name][1], datatype.numpy)
    out = ask(model, tensor("x", array, datatype))["y"]
    assert out.array.shape == ()
    assert out.array.tolist() == array.tolist()


def test_unknown_rank(path: Path) -> None:
    """A tensor whose shape the file does not give takes any, unlike a scalar, which onnxruntime shows in the same way."""
    model = load("onnx", build.identity(path, "FP32", None))
    assert model.signatures[""].inputs == (TensorSpec("x", FP32, None),)
    assert not model.signatures[""].batch
    for shape in ((), (2,), (1, 2, 3)):
        assert ask(model, tensor("x", np.ones(shape, np.float32)))["y"].array.shape == shape


def test_not_contiguous_input(path: Path) -> None:
    """Views, transposed or strided, are read as what they show."""
    model = load("onnx", build.identity(path))
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert ask(model, tensor("x", array.T))["y"].array.tolist() == array.T.tolist()
    assert ask(model, tensor("x", array[::2, ::-1]))["y"].array.tolist() == array[::2, ::-1].tolist()


def test_bf16_beside_others(path: Path) -> None:
    """A model with BF16 and other tensors, text included among the inputs of neither, takes and gives each in its own datatype."""
    save(
        path,
        [node("Cast", ["bits"], ["number"], to=TensorProto.FLOAT), node("Cast", ["scale"], ["small"], to=TensorProto.BFLOAT16)],
        [value("bits", "BF16", ["N"]), value("scale", "FP32", ["N"])],
        [value("number", "FP32", ["N"]), value("small", "BF16", ["N"])],
    )
    model = load("onnx", path)
    inputs = (tensor("bits", np.array([0x3F80, 0x4000], np.uint16), BF16), tensor("scale", np.array([1.0, -2.0], np.float32)))
    answer = ask(model, *inputs)
    assert answer["number"].array.tolist() == [1.0, 2.0]
    assert answer["small"].datatype is BF16
    assert answer["small"].array.tolist() == [0x3F80, 0xC000]
    assert list(ask(model, *inputs, outputs=("small",))) == ["small"]
    view = np.array([0, 0x3F80, 0, 0x4000], np.uint16)[1::2]
    assert ask(model, tensor("bits", view, BF16), inputs[1])["number"].array.tolist() == [1.0, 2.0]


def test_text(path: Path) -> None:
    """Text is UTF-8 on both sides; what is not UTF-8 is refused with its place."""
    model = load("onnx", build.shout(path))
    assert ask(model, tensor("text_input", [b"abc", b"", b"d e"]))["text_output"].array.tolist() == [b"ABC", b"", b"D E"]
    error = refusal(model, text_input=[b"good", b"\xff"])
    assert error.kind is Kind.INVALID_INPUT
    assert "input 'text_input'" in error.message
    assert "element 1" in error.message


@pytest.mark.parametrize(
    ("inputs", "outputs", "joins"),
    [
        ({"x": ("N", 4)}, {"y": ("N", 4)}, True),
        ({"x": (None, 4)}, {"y": (None, 4)}, True),
        ({"x": ("N", 4)}, {"y": (None, 4)}, True),
        ({"x": ("unk__617", 4)}, {"y": ("unk__618", 4)}, True),
        ({"x": ("batch", 4)}, {"y": ("Addy_dim_0", 4)}, True),
        ({"x": ("N", 4), "z": ("N", 4)}, {"y": ("N", 4)}, True),
        ({"x": ("N", 4)}, {"y": ("boxes", 4)}, False),
        ({"x": ("N", 4), "z": ("M", 4)}, {"y": (None, 4)}, False),
        ({"x": (1, 4)}, {"y": ("N", 4)}, False),
        ({"x": ("N", 4)}, {"y": (1, 4)}, False),
        ({"x": ("N", 4)}, {"y": ()}, False),
        ({"x": ()}, {"y": ("N", 4)}, False),
        ({"x": (1, "N")}, {"y": (1, "N")}, False),
    ],
)
def test_batch_axis(inputs: dict[str, Dims], outputs: dict[str, Dims], joins: bool, path: Path) -> None:
    """Axis 0 is the batch where it is variable everywhere and nothing says that it is something else."""
    first, *rest = inputs
    nodes = [node("Identity", [first], ["kept"]), *[node("Identity", [name], [f"unused_{name}"]) for name in rest]]
    # the answer is computed at run time, so that its declared shape is believed
    nodes += [node("Cast", ["kept"], ["numbers"], to=TensorProto.FLOAT), node("Reshape", ["numbers", "shape"], ["y"])]
    save(
        path,
        nodes,
        [*[value(name, "FP32", dims) for name, dims in inputs.items()], value("shape", "INT64", [None])],
        [value(name, "FP32", dims) for name, dims in outputs.items()],
        [constant("shape", np.array([-1, 4]))],
    )
    signature = load("onnx", path).signatures[""]
    assert signature.batch is joins
    assert [t.name for t in signature.inputs if not t.optional] == list(inputs)


def test_no_inputs_no_batch(path: Path) -> None:
    """A model that takes nothing answers, and never joins."""
    save(path, [node("Identity", ["c"], ["y"])], [], [value("y", "FP32", [None])], [constant("c", np.ones(3, np.float32))], check=False)
    model = load("onnx", path)
    assert not model.signatures[""].batch
    assert ask(model)["y"].array.tolist() == [1.0, 1.0, 1.0]


def test_optional_input(path: Path) -> None:
    """An initializer among the inputs is a default that a request may replace."""
    model = load("onnx", build.optional_input(path))
    assert model.signatures[""].inputs == (TensorSpec("x", FP32, (-1, 2)), TensorSpec("factor", FP32, (1,), optional=True))
    assert not model.signatures[""].batch
    x = tensor("x", np.ones((1, 2), np.float32))
    assert ask(model, x)["y"].array.tolist() == [[10.0, 10.0]]
    assert ask(model, x, tensor("factor", np.array([3], np.float32)))["y"].array.tolist() == [[3.0, 3.0]]


def weights_as_inputs(path: Path) -> Path:
    """What old exporters write: every weight is also listed as an input."""
    return save(
        path,
        [node("Gemm", ["x", "w", "b"], ["y"])],
        [value("x", "FP32", ["N", 2]), value("w", "FP32", [2, 3]), value("b", "FP32", [3])],
        [value("y", "FP32", ["N", 3])],
        [constant("w", np.ones((2, 3), np.float32)), constant("b", np.zeros(3, np.float32))],
    )


def test_weights_are_nobodys_business(path: Path) -> None:
    """Weights that are listed as inputs are neither shown nor a reason not to join, unless the configuration names them."""
    model = load("onnx", weights_as_inputs(path))
    assert [t.name for t in model.signatures[""].inputs] == ["x"]
    assert model.signatures[""].batch
    declared = Signature(inputs=(TensorSpec("x", FP32, (-1, 2)), TensorSpec("w", FP32, (2, 3))))
    model = load("onnx", path, declared)
    assert model.signatures[""].inputs[1] == TensorSpec("w", FP32, (2, 3), optional=True)
    x = tensor("x", np.ones((1, 2), np.float32))
    assert ask(model, x, tensor("w", np.full((2, 3), 5, np.float32)))["y"].array.tolist() == [[10.0, 10.0, 10.0]]


def class_dictionaries(path: Path, labels: list[int] | list[str]) -> Path:
    """A classifier as skl2onnx writes it: the probabilities are a list of dictionaries."""
    key = "classlabels_int64s" if isinstance(labels[0], int) else "classlabels_strings"
    element = TensorProto.INT64 if isinstance(labels[0], int) else TensorProto.STRING
    kind = helper.make_map_type_proto(element, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    graph = helper.make_graph(
        [node("ZipMap", ["x"], ["scores"], domain="ai.onnx.ml", **{key: labels}), node("Identity", ["x"], ["raw"])],
        "graph",
        [value("x", "FP32", ["N", len(labels)])],
        [helper.make_value_info("scores", helper.make_sequence_type_proto(kind)), value("raw", "FP32", ["N", len(labels)])],
    )
    opsets = [helper.make_opsetid("", build.OPSET), helper.make_opsetid("ai.onnx.ml", 3)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=build.IR_VERSION).SerializeToString())
    return path


@pytest.mark.parametrize(
    ("labels", "order", "columns"),
    [
        ([0, 1, 2], ("0", "1", "2"), [[1, 2, 3], [4, 5, 6]]),
        ([7, -1, 10], ("-1", "7", "10"), [[2, 1, 3], [5, 4, 6]]),
        (["b", "a", "c"], ("a", "b", "c"), [[2, 1, 3], [5, 4, 6]]),
    ],
)
def test_class_dictionaries_become_columns(
    labels: list[int] | list[str], order: tuple[str, ...], columns: list[list[int]], path: Path
) -> None:
    """A list of {class: score} is a matrix, classes in order, and the classes are its labels; it joins."""
    model = load("onnx", class_dictionaries(path, labels))
    signature = model.signatures[""]
    assert signature.outputs[0] == TensorSpec("scores", FP32, (-1, 3), labels=order)
    assert signature.batch
    x = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    answer = ask(model, tensor("x", x))
    assert answer["scores"].datatype is FP32
    assert answer["scores"].array.tolist() == columns
    assert answer["scores"].array.flags.c_contiguous
    assert answer["raw"].array.tolist() == x.tolist()
    assert list(ask(model, tensor("x", x), outputs=("scores",))) == ["scores"]
    assert ask(model, tensor("x", x[:0]))["scores"].array.shape == (0, 3)


def test_sequences_are_left_out(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An output that no datatype can carry is left out with a warning; a model of only such outputs is refused."""
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    graph = helper.make_graph(
        [node("SequenceConstruct", ["x"], ["many"]), node("Identity", ["x"], ["y"])],
        "graph",
        [value("x", "FP32", ["N"])],
        [helper.make_value_info("many", kind), value("y", "FP32", ["N"])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", build.OPSET)], ir_version=build.IR_VERSION)
    path.write_bytes(proto.SerializeToString())
    model = load("onnx", path)
    assert [t.name for t in model.signatures[""].outputs] == ["y"]
    assert "output 'many' of model 'm' is left out" in caplog.text
    assert list(ask(model, tensor("x", np.ones(1, np.float32)))) == ["y"]
    del proto.graph.output[1]
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ServingError, match="none is a tensor") as caught:
        load("onnx", path)
    assert caught.value.kind is Kind.UNSUPPORTED


def test_inputs_that_cannot_be_sent(path: Path) -> None:
    """A model that takes a sequence is refused with the input's name and type."""
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    graph = helper.make_graph(
        [node("SequenceLength", ["many"], ["count"])], "graph", [helper.make_value_info("many", kind)], [value("count", "INT64", [])]
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", build.OPSET)], ir_version=build.IR_VERSION)
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ServingError, match=r"the input 'many' of model 'm' has the type seq\(tensor\(float\)\)") as caught:
        load("onnx", path)
    assert caught.value.kind is Kind.UNSUPPORTED


def test_declared_signature(path: Path) -> None:
    """A configuration may hide outputs, add labels and forbid joining."""
    build.iris(path)
    declared = Signature(outputs=(TensorSpec("probabilities", FP32, (-1, 3), labels=build.IRIS_CLASSES),), batch=False)
    model = load("onnx", path, declared)
    signature = model.signatures[""]
    assert signature.outputs[0].labels == build.IRIS_CLASSES
    assert not signature.batch
    assert list(ask(model, tensor("X", build.IRIS_CENTRES))) == ["probabilities"]
    with pytest.raises(ServingError, match="no output 'label'"):
        ask(model, tensor("X", build.IRIS_CENTRES), outputs=("label",))


def test_refusals_of_the_framework(path: Path) -> None:
    """What onnxruntime calls an invalid argument is the caller's fault, in onnxruntime's words without its codes."""
    model = load("onnx", build.iris(path))
    for array, says in [
        (np.zeros((1, 5), np.float32), "index: 1 Got: 5 Expected: 4"),
        (np.zeros(4, np.float32), "Got: 1 Expected: 2"),
        (np.zeros((1, 4), np.float64), "(tensor(double))"),
    ]:
        error = refusal(model, X=array)
        assert error.kind is Kind.INVALID_INPUT
        assert says in error.message
        assert "ONNXRuntimeError" not in error.message
    assert "Invalid input name: Y" in refusal(model, X=build.IRIS_CENTRES, Y=build.IRIS_CENTRES).message
    lookup = load("onnx", build.lookup(path))
    assert "Gather: indices element out of data bounds, idx=10" in refusal(lookup, index=np.array([1, 10])).message


OPEN_SHAPES: dict[str, tuple[list[Any], list[Any], dict[str, Any], dict[str, tuple[int, ...]]]] = {
    "MatMul": ([node("MatMul", ["x", "w"], ["y"])], ["N", None], {"w": np.ones((4, 2), np.float32)}, {"x": (1, 3)}),
    "Reshape": ([node("Reshape", ["x", "s"], ["y"])], ["N", None], {"s": np.array([-1, 4])}, {"x": (1, 3)}),
    "Add": ([node("Add", ["x", "w"], ["y"])], ["N", None], {"w": np.ones((2, 4), np.float32)}, {"x": (1, 3)}),
    "Conv": ([node("Conv", ["x", "w"], ["y"])], ["N", None, None, None], {"w": np.ones((2, 3, 5, 5), np.float32)}, {"x": (1, 4, 9, 9)}),
}


@pytest.mark.parametrize("operator", OPEN_SHAPES)
def test_open_dimensions_are_the_callers_choice(operator: str, path: Path) -> None:
    """Where the signature lets the caller choose, a shape that an operator cannot work with is the caller's fault."""
    nodes, dims, constants, shapes = OPEN_SHAPES[operator]
    save(
        path,
        nodes,
        [value("x", "FP32", dims)],
        [value("y", "FP32", [None] * (4 if operator == "Conv" else 2))],
        [constant(name, array) for name, array in constants.items()],
    )
    error = refusal(load("onnx", path), x=np.ones(shapes["x"], np.float32))
    assert error.kind is Kind.INVALID_INPUT
    assert operator in error.message
    assert "onnxruntime_src" not in error.message
    assert ".cc:" not in error.message
    assert ".h:" not in error.message


def test_failures_with_fixed_dimensions_are_the_models(path: Path) -> None:
    """A model that cannot work with the shape that it declares has failed; so has one that asks for more memory than there is."""
    save(
        path,
        [node("Reshape", ["x", "s"], ["z"]), node("Identity", ["z"], ["y"])],
        [value("x", "FP32", [2, 4]), value("s", "INT64", [2])],
        [value("y", "FP32", None)],
        check=False,
    )
    model = load("onnx", path)
    inputs = (tensor("x", np.ones((2, 4), np.float32)), tensor("s", np.array([2, 3])))
    with pytest.raises(Exception, match="cannot be reshaped") as caught:
        ask(model, *inputs)
    assert not isinstance(caught.value, ServingError)
    save(
        path,
        [node("Expand", ["x", "s"], ["y"])],
        [value("x", "FP32", [None, None]), value("s", "INT64", [1])],
        [value("y", "FP32", None)],
        check=False,
    )
    model = load("onnx", path)
    # These are more bytes than there are addresses: some machines promise all else, and end whoever takes them at their word.
    with pytest.raises(Exception, match="allocate") as caught:
        ask(model, tensor("x", np.ones((1, 1), np.float32)), tensor("s", np.array([1 << 46])))
    assert not isinstance(caught.value, ServingError)


def session_settings(path: Path, **arguments: Any) -> Any:
    """The options with which the session of a model was opened."""
    model = runtime.load(ModelSpec("m", artifact=str(path), arguments=arguments))
    assert isinstance(model, runtime.OnnxModel)
    return model._session.get_session_options()


def test_threads(path: Path) -> None:
    """By default onnxruntime's own number, shared out between instances; pool threads do not spin unless asked to."""
    build.iris(path)
    assert session_settings(path).intra_op_num_threads == 0
    assert session_settings(path, threads="3").intra_op_num_threads == 3
    assert session_settings(path, intra_op_thread_count="2").intra_op_num_threads == 2
    assert session_settings(path).get_session_config_entry("session.intra_op.allow_spinning") == "0"
    many = runtime.load(ModelSpec("m", artifact=str(path), instances=1000))
    assert isinstance(many, runtime.OnnxModel)
    assert many._session.get_session_options().intra_op_num_threads == 1
    assert session_settings(path, processors=3).intra_op_num_threads == 3
    assert session_settings(path, processors=3, threads=2).intra_op_num_threads == 2
    shared = runtime.load(ModelSpec("m", artifact=str(path), instances=2, arguments={"processors": 4}))
    assert isinstance(shared, runtime.OnnxModel)
    assert shared._session.get_session_options().intra_op_num_threads == 2
    parallel = session_settings(path, inter_op_threads=2)
    assert parallel.inter_op_num_threads == 2
    assert parallel.execution_mode == onnxruntime.ExecutionMode.ORT_PARALLEL
    assert session_settings(path, inter_op_threads=1).execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    with pytest.raises(RuntimeError):
        session_settings(path, spinning=True).get_session_config_entry("session.intra_op.allow_spinning")


@pytest.mark.parametrize(
    ("level", "meant"),
    [("disabled", "ORT_DISABLE_ALL"), ("BASIC", "ORT_ENABLE_BASIC"), (2, "ORT_ENABLE_EXTENDED"), ("99", "ORT_ENABLE_ALL")],
)
def test_optimization_level(level: object, meant: str, path: Path) -> None:
    """By name or by onnxruntime's number."""
    build.iris(path)
    found = session_settings(path, optimization_level=level).graph_optimization_level
    assert found == getattr(onnxruntime.GraphOptimizationLevel, meant)


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        ({"threads": "many"}, Kind.INVALID_INPUT, "argument 'threads'"),
        ({"optimization_level": "7"}, Kind.INVALID_INPUT, "expected one of disabled, basic"),
        ({"optimization_level": "high"}, Kind.INVALID_INPUT, "expected one of disabled, basic"),
        ({"device": "cuda:0"}, Kind.UNSUPPORTED, "execution provider 'cuda'"),
        ({"device": "gpu"}, Kind.UNSUPPORTED, "execution provider 'cuda'"),
        ({"providers": ["TensorrtExecutionProvider"]}, Kind.UNSUPPORTED, "it has "),
        ({"providers": "nonsense"}, Kind.UNSUPPORTED, "CPUExecutionProvider"),
        ({"providers": [["CPUExecutionProvider"]]}, Kind.INVALID_INPUT, "expected a name, or a name and an object"),
        ({"providers": [5]}, Kind.INVALID_INPUT, "argument 'providers'"),
    ],
)
def test_wrong_options(arguments: dict[str, Any], kind: Kind, says: str, path: Path) -> None:
    """Each is refused with its name; a missing provider with those that there are."""
    with pytest.raises(ServingError) as caught:
        load("onnx", build.iris(path), **arguments)
    assert caught.value.kind is kind
    assert says in caught.value.message
    assert "'m'" in caught.value.message


@pytest.mark.parametrize(
    "arguments",
    [
        {"device": "cpu"},
        {"providers": "cpu"},
        {"providers": ["CPUExecutionProvider"]},
        {"providers": [["CPUExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"}]]},
        {"providers": ["cpu"], "device": "cuda"},
        {"somebody_elses": "parameter"},
    ],
)
def test_options_that_mean_the_processor(arguments: dict[str, Any], path: Path) -> None:
    """The CPU is always there; providers are named with or without their suffix and go before a device; other arguments are ignored."""
    model = load("onnx", build.iris(path), **arguments)
    assert ask(model, tensor("X", build.IRIS_CENTRES))["label"].array.tolist() == [[0], [1], [2]]


def test_another_provider_comes_with_the_processor(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A provider besides the CPU is started when this onnxruntime has it; what it does not take runs on the CPU."""
    others = [name for name in onnxruntime.get_available_providers() if name != "CPUExecutionProvider"]
    with caplog.at_level(logging.WARNING):
        model = runtime.load(ModelSpec("m", artifact=str(build.iris(path)), arguments={"providers": others}))
    assert isinstance(model, runtime.OnnxModel)
    assert model._session.get_providers() == [*others, "CPUExecutionProvider"]
    assert ask(model, tensor("X", build.IRIS_CENTRES))["label"].array.tolist() == [[0], [1], [2]]


def test_weights_in_a_file_of_their_own(path: Path) -> None:
    """External data beside the model is found."""
    build.iris(path)
    proto = onnx.load(str(path))
    onnx.save(proto, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (path.parent / "weights.bin").exists()
    assert ask(load("onnx", path), tensor("X", build.IRIS_CENTRES))["label"].array.tolist() == [[0], [1], [2]]
    assert ask(load("onnx", path.parent), tensor("X", build.IRIS_CENTRES))["label"].array.tolist() == [[0], [1], [2]]
