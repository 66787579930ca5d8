"""ModelInfer on the wire (O28, rows 41 and 42): tritonclient's own message classes make the requests and read the answers."""

import contextlib
import importlib
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Call
from dragoman.core.tensors import BOOL, BYTES, FP32, INT64, UINT64, Array, Signature, Tensors, TensorSpec, pack_bytes
from dragoman.dialects.rpc import RpcCall
from tests.unit.v2.client import FLOWER, WIRE_DATATYPES, Client, constant, entry, talking, tensor
from tests.unit.v2.test_tritonclient import sample

pb: Any = importlib.import_module("tritonclient.grpc.service_pb2")
NAMES = [d.name for d in WIRE_DATATYPES if d.name != "BF16"]
TYPED = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def request(model: str, *inputs: InferInput, outputs: tuple[InferRequestedOutput, ...] = (), **fields: Any) -> Any:
    """A ModelInferRequest as tritonclient builds it."""
    made = pb.ModelInferRequest(model_name=model, **fields)
    for each in inputs:
        made.inputs.append(each._get_tensor())  # what its own client sends, without a connection
        raw = each._get_content()  # the same
        if raw is not None:
            made.raw_input_contents.append(raw)
    made.outputs.extend(each._get_tensor() for each in outputs)  # the same
    return made


def given_input(name: str, array: Any, datatype: str) -> InferInput:
    made = InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def typed(model: str, name: str, datatype: str, shape: list[int], contents: dict[str, Any], **fields: Any) -> Any:
    made = pb.ModelInferRequest(model_name=model, **fields)
    made.inputs.add(name=name, datatype=datatype, shape=shape, contents=pb.InferTensorContents(**contents))
    return made


def infer(server: Client, message: Any) -> Any:
    return pb.ModelInferResponse.FromString(server.call("ModelInfer", message.SerializeToString()))


def refused(server: Client, message: Any) -> str:
    """The text of an INVALID_INPUT."""
    with pytest.raises(ServingError) as caught:
        server.call("ModelInfer", message if isinstance(message, bytes) else message.SerializeToString())
    assert caught.value.kind is Kind.INVALID_INPUT, caught.value
    return caught.value.message


def flower(**fields: Any) -> Any:
    return request("iris", given_input("input", np.array([FLOWER], "f4"), "FP32"), **fields)


@pytest.mark.parametrize("datatype", NAMES)
def test_every_datatype_raw(server: Client, datatype: str) -> None:
    """What goes in as bytes comes back as bytes, read by the client's own reader."""
    array = sample(datatype)
    back = InferResult(infer(server, request(f"identity_{datatype.lower()}", given_input("x", array, datatype)))).as_numpy("y")
    assert back is not None
    if datatype == "BYTES":
        back = np.array([e.decode() for e in back.ravel()], object).reshape(back.shape)
    assert (back.shape, back.tolist()) == (array.shape, array.tolist())


def test_bf16_raw(server: Client) -> None:
    """Two bytes of an element, untouched."""
    message = pb.ModelInferRequest(model_name="identity_bf16", raw_input_contents=[b"\x80\x3f\x01\x02"])
    message.inputs.add(name="x", datatype="BF16", shape=[2])
    assert infer(server, message).raw_output_contents == [b"\x80\x3f\x01\x02"]


@pytest.mark.parametrize("datatype", TYPED)
def test_every_datatype_typed(server: Client, datatype: str) -> None:
    """The field of the datatype is read, negative numbers and the largest ones too; the answer is raw."""
    values: Any = [b"", b"a\0b", "é".encode()] if datatype == "BYTES" else sample(datatype).ravel().tolist()
    if datatype.startswith(("INT", "UINT")):
        limits = np.iinfo(sample(datatype).dtype)
        values = [int(limits.min), int(limits.max), 1]
    answer = infer(server, typed(f"identity_{datatype.lower()}", "x", datatype, [len(values)], {TYPED[datatype]: values}))
    output = answer.outputs[0]
    assert (output.name, output.datatype, list(output.shape)) == ("y", datatype, [len(values)])
    back = InferResult(answer).as_numpy("y")
    assert back is not None
    assert back.tolist() == values


def test_unpacked_numbers_are_read_too(server: Client) -> None:
    """A writer may send the elements of a repeated field one by one."""
    packed = typed("identity_int64", "x", "INT64", [2], {"int64_contents": [-1, 300]}).SerializeToString()
    one_by_one = b"\x18" + b"\xff" * 9 + b"\x01" + b"\x18\xac\x02"
    inputs = b"\x0a\x01x" + b"\x12\x05INT64" + b"\x18\x02" + b"\x2a" + bytes([len(one_by_one)]) + one_by_one
    message = b"\x0a\x0eidentity_int64" + b"\x2a" + bytes([len(inputs)]) + inputs
    assert pb.ModelInferRequest.FromString(message) == pb.ModelInferRequest.FromString(packed)
    answers = [server.call("ModelInfer", each) for each in (message, packed)]
    assert answers[0] == answers[1]


def test_the_answer_says_who_answered(server: Client) -> None:
    """Model, version, the id that came, outputs in the model's order, and nothing made up."""
    answer = infer(server, flower(id="seven"))
    assert (answer.model_name, answer.model_version, answer.id) == ("iris", "2", "seven")
    assert [output.name for output in answer.outputs] == ["label", "probabilities"]
    assert infer(server, flower(model_version="1")).model_version == "1"
    assert infer(server, flower()).id == ""


def test_outputs_are_picked(server: Client) -> None:
    """Only those that are named; one of them as its best classes."""
    wanted = (InferRequestedOutput("probabilities", class_count=2),)
    result = InferResult(infer(server, flower(outputs=wanted)))
    assert [output.name for output in result.get_response().outputs] == ["probabilities"]
    classes = result.as_numpy("probabilities")
    assert classes is not None
    assert [text.decode().split(":")[1:] for text in classes[0]] == [["1", "versicolor"], ["0", "setosa"]]


@pytest.mark.parametrize("count", [0, -1])
def test_classes_are_a_positive_number(server: Client, count: int) -> None:
    """Unlike over HTTP, 0 is refused (section 4)."""
    message = flower()
    message.outputs.add(name="probabilities").parameters["classification"].int64_param = count
    assert "positive integer" in refused(server, message)


def test_parameters_reach_the_model(server: Client) -> None:
    """Those that steer the server do not; null, which is a parameter without a value, counts as not given."""
    message = request("text", given_input("text_input", np.array([["hello"]], object), "BYTES"))
    message.parameters["twice"].bool_param = True
    message.parameters["priority"].uint64_param = 0
    message.parameters["nothing"].SetInParent()
    back = InferResult(infer(server, message)).as_numpy("text_output")
    assert back is not None
    assert back.tolist() == [[b"HELLOHELLO"]]


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("string_param", "soon", "parameter 'timeout' of the request to model 'iris' must be a non-negative integer"),
        ("int64_param", -5, "must be a non-negative integer"),
        ("double_param", 1.5, "must be a non-negative integer"),
    ],
)
def test_a_bad_timeout(server: Client, field: str, value: object, text: str) -> None:
    """As over HTTP."""
    message = flower()
    setattr(message.parameters["timeout"], field, value)
    assert text in refused(server, message)


def test_reserved_parameters(server: Client) -> None:
    """Names that begin with triton_ are refused (O31)."""
    message = flower()
    message.parameters["triton_secret"].bool_param = True
    assert "reserved" in refused(server, message)


def test_parameters_of_answers() -> None:
    """Each by its type, what is no scalar as JSON."""
    parameters = {"b": True, "i": -3, "u": (1 << 64) - 1, "d": 0.5, "s": "é", "l": [1]}
    with Client([talking("talk", parameters)]) as server:
        answer = infer(server, typed("talk", "x", "FP32", [1], {"fp32_contents": [1]}))
    told = {name: value.WhichOneof("parameter_choice") for name, value in answer.parameters.items()}
    kinds = ("bool_param", "int64_param", "uint64_param", "double_param", "string_param", "string_param")
    assert told == dict(zip(parameters, kinds, strict=True))
    assert {name: getattr(answer.parameters[name], told[name]) for name in parameters} == {**parameters, "l": "[1]"}


def test_the_deadline_of_the_call_counts(server: Client) -> None:
    """A call whose time is over is not run."""
    with pytest.raises(ServingError) as caught:
        server.call("ModelInfer", flower().SerializeToString(), RpcCall(deadline=0.0))
    assert caught.value.kind is Kind.TIMEOUT


# --- what is refused ---


def _both() -> Any:
    message = flower()
    message.inputs[0].contents.fp32_contents.extend(FLOWER)
    return message


def _shape(*dimensions: int) -> Any:
    message = flower()
    del message.inputs[0].shape[:]
    message.inputs[0].shape.extend(dimensions)
    return message


def _shared() -> Any:
    message = flower()
    message.inputs[0].parameters["shared_memory_region"].string_param = "r"
    return message


def _twice() -> Any:
    message = flower()
    message.inputs.append(message.inputs[0])
    message.raw_input_contents.append(message.raw_input_contents[0])
    return message


WRONG: dict[str, tuple[Any, str]] = {
    "both forms (row 41)": (_both, "has contents beside raw_input_contents"),
    "raw too short (row 42)": (lambda: _shape(2, 4), "16 bytes came, but shape [2, 4] of FP32 takes 32"),
    "no data at all (row 42)": (lambda: typed("iris", "input", "FP32", [1, 4], {}), "has no data, but its shape [1, 4] takes 4 elements"),
    "too few elements": (lambda: typed("iris", "input", "FP32", [1, 4], {"fp32_contents": [1, 2]}), "has 2 elements, but its shape"),
    "the field of another type": (
        lambda: typed("iris", "input", "FP32", [1, 4], {"fp64_contents": FLOWER}),
        "has fp64_contents, but FP32 takes fp32_contents",
    ),
    "typed FP16": (
        lambda: typed("identity_fp16", "x", "FP16", [1], {"fp32_contents": [1]}),
        "has fp32_contents, but FP16 takes raw_input_contents only",
    ),
    "FP16 without data": (lambda: typed("identity_fp16", "x", "FP16", [1], {}), "FP16 takes raw_input_contents only"),
    "out of range": (lambda: typed("identity_int8", "x", "INT8", [1], {"int_contents": [200]}), "do not fit into INT8"),
    "negative dimension (row 6)": (lambda: _shape(-1, 4), "has dimension -1 in its shape"),
    "overflowing shape (row 8)": (lambda: _shape(1 << 62, 4), "16 bytes came"),
    "overflowing shape, typed": (lambda: typed("iris", "input", "FP32", [1 << 62, 1 << 62], {"fp32_contents": [1]}), "has 1 elements"),
    "0 in an impossible shape": (lambda: typed("identity_fp32", "x", "FP32", [0, 1 << 62, 1 << 62], {}), "too large"),
    "too many dimensions": (lambda: _shape(*[1] * 33), "has 33 dimensions"),
    "unknown datatype (row 10)": (lambda: typed("iris", "input", "FLOAT", [1, 4], {}), "unknown datatype 'FLOAT'"),
    "complex": (lambda: typed("iris", "input", "COMPLEX64", [1, 4], {}), "unknown datatype 'COMPLEX64'"),
    "wrong datatype (row 9)": (lambda: typed("iris", "input", "INT64", [1, 4], {"int64_contents": [1, 2, 3, 4]}), "INT64"),
    "wrong rank (row 5)": (lambda: _shape(4), "shape"),
    "no name": (lambda: typed("iris", "", "FP32", [1, 4], {"fp32_contents": FLOWER}), "has no name"),
    "twice (row 17)": (_twice, "given twice"),
    "no inputs": (lambda: pb.ModelInferRequest(model_name="iris"), "input"),
    "raw without inputs": (lambda: pb.ModelInferRequest(model_name="iris", raw_input_contents=[b""]), "1 raw_input_contents for 0 inputs"),
    "unknown output (row 18)": (lambda: flower(outputs=(InferRequestedOutput("nope"),)), "nope"),
    "shared memory": (_shared, "shared memory"),
    "batch above the most (row 25)": (
        lambda: request("iris", given_input("input", np.ones((9, 4), "f4"), "FP32")),
        "9",
    ),
    "BYTES with damaged lengths": (
        lambda: pb.ModelInferRequest(
            model_name="identity_bytes",
            inputs=[pb.ModelInferRequest.InferInputTensor(name="x", datatype="BYTES", shape=[1])],
            raw_input_contents=[b"\xff\0\0\0a"],
        ),
        "claims 255 bytes",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(server: Client, case: str) -> None:
    """INVALID_ARGUMENT with the model, the tensor, what was expected and what came."""
    make, text = WRONG[case]
    assert text in refused(server, make())


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"\xff", id="garbage"),
        pytest.param(b"\x0a\x04iris\x2a\x05\x0a\x7f", id="damaged input"),
        pytest.param(b"\x0a\x04iris\x22\x02\x0a\x05", id="damaged parameter"),
        pytest.param(b"\x0a\x01\xff", id="a name that is no text"),
        pytest.param(b"\x0a\x04iris\x1a\x02\xc3\x28", id="an id that is no text"),
    ],
)
def test_undecodable_messages_do_no_harm(server: Client, message: bytes) -> None:
    """They are refused, and the next request is answered (O28)."""
    refused(server, message)
    assert infer(server, flower()).model_name == "iris"


@pytest.mark.parametrize(
    ("model", "version", "kind"), [("none", "", Kind.NOT_FOUND), ("iris", "9", Kind.NOT_FOUND), ("iris", "@stable", Kind.NOT_FOUND)]
)
def test_unknown_models_and_versions(server: Client, model: str, version: str, kind: Kind) -> None:
    """NOT_FOUND (section 10); the gateway's labels are none of this protocol's."""
    message = flower(model_version=version)
    message.model_name = model
    with pytest.raises(ServingError) as caught:
        server.call("ModelInfer", message.SerializeToString())
    assert caught.value.kind is kind


GOOD = [
    flower(id="x", outputs=(InferRequestedOutput("probabilities", class_count=1),)).SerializeToString(),
    typed("identity_bytes", "x", "BYTES", [2], {"bytes_contents": [b"a", b""]}).SerializeToString(),
    typed("identity_int64", "x", "INT64", [2], {"int64_contents": [-1, 1]}).SerializeToString(),
]


@settings(max_examples=300)
@given(st.sampled_from(GOOD), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4), st.integers(0, 200))
def test_damaged_requests(server: Client, good: bytes, changes: list[tuple[int, int]], length: int) -> None:
    """Whatever becomes of a request on its way: an answer or a ServingError of the client's doing, never anything else."""
    message = bytearray(good)
    for at, octet in changes:
        message[at % len(message)] = octet
    with contextlib.suppress(ServingError):
        try:
            server.call("ModelInfer", bytes(message[: max(length, len(message) // 2)]))
        except ServingError as error:
            if error.kind not in (Kind.INVALID_INPUT, Kind.NOT_FOUND):
                raise AssertionError from error
            raise


# --- memory ---


def test_inputs_are_the_models_own() -> None:
    """Aligned and writable, whatever lay before them in the message, and not the message's memory."""
    seen: list[Array] = []

    def look(call: Call) -> Tensors:
        assert isinstance(call.inputs, Tensors)
        seen.append(call.inputs.items[0].array)
        return call.inputs

    signature = Signature(inputs=(TensorSpec("x", FP32, None),), outputs=(TensorSpec("x", FP32, None),))
    values = np.arange(4000, dtype="f4")
    with Client([entry("look", signature, look)]) as server:
        for padding in range(5):
            infer(server, request("look", given_input("x", values, "FP32"), id="i" * padding))
    for array in seen:
        assert array.flags.aligned
        assert array.flags.writeable
        assert array.tolist() == values.tolist()


def test_several_outputs_lie_in_order() -> None:
    """The n-th output's bytes are the n-th raw contents."""
    lots = constant("lots", tensor("y", FP32, [1.0] * 6), tensor("z", BYTES, [b"a"]), tensor("b", BOOL, [True]))
    with Client([lots]) as server:
        answer = infer(server, typed("lots", "x", "FP32", [1], {"fp32_contents": [1]}))
    assert [output.name for output in answer.outputs] == ["y", "z", "b"]
    assert list(answer.raw_output_contents) == [struct.pack("<6f", *[1.0] * 6), pack_bytes(np.array([b"a"], object)), b"\1"]


@pytest.mark.parametrize("datatype", [INT64, UINT64])
def test_64_bits_are_exact(server: Client, datatype: Any) -> None:
    """Out to the last one."""
    largest = int(np.iinfo(datatype.numpy).max)
    name = datatype.name.lower()
    back = InferResult(infer(server, typed(f"identity_{name}", "x", datatype.name, [1], {f"{name}_contents": [largest]}))).as_numpy("y")
    assert back is not None
    assert int(back[0]) == largest


def test_a_format_without_names() -> None:
    """The name of its one input is ours, so that requests may have another; two inputs are still refused."""
    with Client([constant("learned", tensor("y", FP32, [1]), any_name=True)]) as server:
        (answer,) = infer(server, typed("learned", "predict", "FP32", [1], {"fp32_contents": [1]})).outputs
        assert answer.name == "y"
        two = typed("learned", "predict", "FP32", [1], {"fp32_contents": [1]})
        two.inputs.append(two.inputs[0])
        two.inputs[1].name = "more"
        assert "has no input 'predict'" in refused(server, two)
