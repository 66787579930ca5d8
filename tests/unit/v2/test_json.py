"""The JSON form of inference (requirements O4 to O7 and O10): what goes in, what comes back, to the byte where clients may compare."""

import json
from typing import Any

import numpy as np
import orjson
import pytest

from dragoman.core.model import Call, ModelSpec
from dragoman.core.tensors import BF16, BOOL, BYTES, FP16, FP32, FP64, INT64, UINT64, Signature, Tensor, Tensors, TensorSpec
from dragoman.hosting.servable import Cost, LocalServable
from dragoman.serving.gateway import Entry
from tests.fakes import FakeModel
from tests.unit.v2.client import FLOWER, GOOD, WIRE_DATATYPES, Client, constant, entry, identity, one_input, talking, tensor

X = one_input([1.0], shape=(1,), name="x")


def test_reply_to_the_byte(server: Client) -> None:
    """Keys come in a fixed order, the version is a string, data are flat, floats are as short as their own width allows."""
    reply = server.infer("iris", one_input(FLOWER, id="42"))
    assert reply.media_type == b"application/json"
    assert reply.body == (
        b'{"model_name":"iris","model_version":"2","id":"42","outputs":['
        b'{"name":"label","shape":[1],"datatype":"INT64","data":[1]},'
        b'{"name":"probabilities","shape":[1,3],"datatype":"FP32","data":[10.2,20.4,5.1]}]}'
    )


@pytest.mark.parametrize(
    "data", [FLOWER, [FLOWER], [[5.1, 3.5], [1.4, 0.2]], [[[5.1], [3.5], [1.4], [0.2]]]], ids=["flat", "by shape", "cut anywhere", "deep"]
)
def test_any_nesting(server: Client, data: Any) -> None:
    """Only the number of elements counts, not how the lists are cut."""
    assert server.infer("iris", one_input(data)).outputs["probabilities"]["data"] == [10.2, 20.4, 5.1]


def test_integers_and_exponents_for_floats(server: Client) -> None:
    """1, 1.0 and 1e0 are the same number."""
    body = b'{"inputs":[{"name":"x","shape":[4],"datatype":"FP64","data":[1,1.0,1e0,-2]}]}'
    assert server.infer("identity_fp64", body).outputs["y"]["data"] == [1.0, 1.0, 1.0, -2.0]


def test_a_batch_of_several_rows(server: Client) -> None:
    """Rows come back in order."""
    rows = [[float(i)] * 4 for i in range(8)]
    assert server.infer("iris", one_input(rows, shape=(8, 4))).outputs["probabilities"]["data"][::3] == [4.0 * i for i in range(8)]


def test_unknown_keys_are_ignored(server: Client) -> None:
    """Clients send model_name and more; unknown parameters of a request, input or output change nothing."""
    item = {**GOOD["inputs"][0], "parameters": {"content_type": "np", "odd": 1}, "comment": []}
    body = {
        "model_name": "x",
        "inputs": [item],
        "parameters": {"odd": "x"},
        "outputs": [{"name": "label", "parameters": {"odd": True}, "datatype": 5}],
    }
    assert server.infer("iris", body).outputs == {"label": {"name": "label", "shape": [1], "datatype": "INT64", "data": [1]}}


def test_null_is_nothing(server: Client) -> None:
    """Clients made from data classes send their empty fields as null."""
    item = {**GOOD["inputs"][0], "parameters": None}
    body = {"id": None, "parameters": None, "inputs": [item], "outputs": None}
    assert server.infer("iris", body).json == server.infer("iris", GOOD).json
    assert server.infer("iris", {**body, "outputs": [{"name": "label", "parameters": None}]}).status == 200


def test_duplicate_keys_last_wins(server: Client) -> None:
    """As in every JSON parser of the field."""
    body = json.dumps(GOOD).replace('"name": "input"', '"name": "odd", "name": "input"').encode()
    assert server.infer("iris", body).status == 200


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0, 5)])
def test_empty_tensors(server: Client, shape: tuple[int, ...]) -> None:
    """A dimension of 0 is legal, and the reply has an empty list."""
    output = server.infer("identity_fp32", one_input([], shape=shape, name="x")).outputs["y"]
    assert output["data"] == []
    assert output["shape"] == list(shape)


def test_scalars(server: Client) -> None:
    """A shape without dimensions is one element, in a list."""
    output = server.infer("identity_fp32", one_input([2.5], shape=(), name="x")).outputs["y"]
    assert output == {"name": "y", "shape": [], "datatype": "FP32", "data": [2.5]}


EXTREMES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "UINT8": [0, 255],
    "UINT16": [0, 65535],
    "UINT32": [0, (1 << 32) - 1],
    "UINT64": [0, (1 << 64) - 1, (1 << 63) + 1],
    "INT8": [-128, 127],
    "INT16": [-32768, 32767],
    "INT32": [-(1 << 31), (1 << 31) - 1],
    "INT64": [-(1 << 63), (1 << 63) - 1, (1 << 53) + 1],
    "FP32": [0.0, 1.5, -3.4028234663852886e38, 1e-45],
    "FP64": [0.1, -1.7976931348623157e308, 5e-324],
    "BYTES": ["", "é€😀", "a\u0000b", "line\n"],
}


@pytest.mark.parametrize("name", EXTREMES)
def test_extremes_of_every_datatype(server: Client, name: str) -> None:
    """Requirement O6: every value of every datatype that JSON can carry comes back the same."""
    values = EXTREMES[name]
    output = server.infer(f"identity_{name.lower()}", one_input(values, name, (len(values),), "x")).outputs["y"]
    if name == "FP32":
        assert np.array(output["data"], "f4").tobytes() == np.array(values, "f4").tobytes()
    else:
        assert output["data"] == values
        assert [type(v) for v in output["data"]] == [type(v) for v in values]


def test_every_datatype_is_covered() -> None:
    """A new datatype must come with its extremes."""
    assert set(EXTREMES) == {d.name for d in WIRE_DATATYPES} - {"FP16", "BF16"}


def test_not_a_number_is_null_in_json() -> None:
    """Requirement O10: a JSON reply is valid JSON whatever the model answers; NaN and infinities are null there."""
    values = tensor("y", FP32, [float("nan"), 1.0, float("inf"), -float("inf")])
    with Client([constant("odd", values, tensor("z", FP64, [float("nan")]))]) as server:
        outputs = server.infer("odd", X).outputs
    assert outputs["y"]["data"] == [None, 1.0, None, None]
    assert outputs["z"]["data"] == [None]


def test_float_beyond_fp32_is_infinite_for_the_model(server: Client) -> None:
    """1e39 is a number that FP32 rounds to infinity; it is not an error, and the reply stays JSON."""
    assert server.infer("identity_fp32", one_input([1e39], shape=(1,), name="x")).outputs["y"]["data"] == [None]


def test_arrays_of_any_layout_are_written() -> None:
    """Models answer transposed, strided, reversed and read-only views; each is written in C order."""
    base = np.arange(6, dtype="f4").reshape(2, 3)
    frozen = base.copy()
    frozen.flags.writeable = False
    views = {"t": base.T, "s": base[:, ::2], "r": base[::-1], "f": np.asfortranarray(base), "ro": frozen}
    tensors = Tensors([Tensor(name, FP32, array) for name, array in views.items()])
    signature = Signature(inputs=(TensorSpec("x", FP32, (1,)),))
    with Client([entry("views", signature, lambda _: tensors)]) as server:
        outputs = server.infer("views", X).outputs
        head, data = server.infer("views", {**X, "parameters": {"binary_data_output": True}}).split()
    for name, array in views.items():
        assert outputs[name]["data"] == array.ravel().tolist()
        assert outputs[name]["shape"] == list(array.shape)
    assert data == b"".join(a.tobytes() for a in views.values())
    assert len(head["outputs"]) == 5


def test_bytes_that_are_not_text_need_binary() -> None:
    """JSON cannot carry them: 400 with the way out (requirement O9)."""
    with Client([constant("raw", tensor("y", BYTES, [b"\xff\x00"]))]) as server:
        reply = server.infer("raw", X)
        assert reply.status == 400
        assert "'y'" in reply.error
        assert "binary_data" in reply.error
        head, data = server.infer("raw", {**X, "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}).split()
    assert data == b"\x02\x00\x00\x00\xff\x00"
    assert head["outputs"] == [{"name": "y", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}}]


@pytest.mark.parametrize("datatype", [FP16, BF16], ids=str)
def test_half_floats_need_binary(datatype: Any) -> None:
    """FP16 and BF16 outputs are 400 in JSON, with the way out; other outputs of the same model can be had."""
    with Client([constant("half", tensor("y", datatype, [1, 2]), tensor("z", INT64, [3]))]) as server:
        reply = server.infer("half", X)
        assert reply.status == 400
        assert str(datatype) in reply.error
        assert server.infer("half", {**X, "outputs": [{"name": "z"}]}).outputs["z"]["data"] == [3]


# --- outputs ---


@pytest.mark.parametrize("wanted", [["label"], ["probabilities"], ["probabilities", "label"], []], ids=str)
def test_wanted_outputs(server: Client, wanted: list[str]) -> None:
    """Requirement O7: only the named outputs, in the model's order; an empty list is all of them."""
    reply = server.infer("iris", one_input(FLOWER, outputs=[{"name": name} for name in wanted]))
    assert list(reply.outputs) == [name for name in ("label", "probabilities") if name in wanted or not wanted]


def test_the_model_is_told_what_is_wanted() -> None:
    """Models may save the work for outputs that nobody wants."""
    seen: list[tuple[str, ...]] = []

    def run(call: Any) -> Tensors:
        seen.append(call.outputs)
        return Tensors([tensor("b", INT64, [1])])

    signature = Signature(inputs=(TensorSpec("x", FP32, (1,)),), outputs=(TensorSpec("a", INT64, (1,)), TensorSpec("b", INT64, (1,))))
    with Client([entry("two", signature, run)]) as server:
        assert list(server.infer("two", {**X, "outputs": [{"name": "b"}]}).outputs) == ["b"]
    assert seen == [("b",)]


def test_an_output_named_twice(server: Client) -> None:
    """In the same way it is one output, as in Triton; in two ways it is refused."""
    same = one_input(FLOWER, outputs=[{"name": "label"}, {"name": "label"}])
    assert list(server.infer("iris", same).outputs) == ["label"]
    other = one_input(FLOWER, outputs=[{"name": "label"}, {"name": "label", "parameters": {"binary_data": True}}])
    assert "twice" in server.infer("iris", other).error


def test_undeclared_outputs() -> None:
    """A model that does not declare its outputs is asked first; a name that it did not answer is the client's mistake."""
    with Client([constant("free", tensor("y", INT64, [1]), declared=False)]) as server:
        assert server.infer("free", {**X, "outputs": [{"name": "y"}]}).outputs["y"]["data"] == [1]
        reply = server.infer("free", {**X, "outputs": [{"name": "y"}, {"name": "z"}]})
    assert reply.status == 400
    assert "'z'" in reply.error


def test_optional_inputs(server: Client) -> None:
    """An optional input may be left out, a required one may not."""
    a = {"name": "a", "shape": [2], "datatype": "FP32", "data": [1, 2]}
    b = {**a, "name": "b"}
    assert server.infer("adder", {"inputs": [a]}).outputs["c"]["data"] == [1.0, 2.0]
    assert server.infer("adder", {"inputs": [b, a]}).outputs["c"]["data"] == [2.0, 4.0]
    assert "'a'" in server.infer("adder", {"inputs": [b]}).error


# --- what the model gets ---


def test_the_model_owns_its_inputs() -> None:
    """Arrays are of the exact datatype, writable, C-ordered and aligned, small or large, and never shared with another request."""
    seen: list[Any] = []

    def run(call: Any) -> Tensors:
        array = call.inputs.items[0].array
        seen.append((array.dtype, array.flags.writeable, array.flags.c_contiguous, array.flags.aligned))
        array += 1
        return Tensors([Tensor("y", FP32, array)])

    with Client([entry("own", Signature(inputs=(TensorSpec("x", FP32, None),)), run)]) as server:
        for size in (1, 4, 50_000):
            body = orjson.dumps(one_input([0.5] * size, shape=(size,), name="x"))
            assert server.infer("own", body).outputs["y"]["data"] == [1.5] * size
    assert seen == [(np.dtype("f4"), True, True, True)] * 3


def test_big_nested_bodies(server: Client) -> None:
    """An image of 150,000 numbers keeps every value and its order."""
    image = np.random.default_rng(7).random((1, 3, 224, 224), dtype="f4")
    output = server.infer("identity_fp32", one_input(image.tolist(), shape=image.shape, name="x")).outputs["y"]
    assert np.array_equal(np.array(output["data"], "f4"), image.ravel())
    assert output["shape"] == [1, 3, 224, 224]


def test_big_bodies_are_checked_like_small_ones(server: Client) -> None:
    """A wrong element, a ragged list and a wrong count are found among 20,000 numbers."""
    good = [[0.5, 1.5]] * 10_000
    for bad, word in (([*good[:-1], [0.5, "1"]], '"1"'), ([*good[:-1], [0.5]], "1"), (good[:-1], "19998")):
        reply = server.infer("identity_fp32", one_input(bad, shape=(10_000, 2), name="x"))
        assert reply.status == 400
        assert word in reply.error
    reply = server.infer("identity_int64", one_input([1] * 9_999 + [1.5], "INT64", (10_000,), "x"))
    assert "1.5" in reply.error


def test_bodies_in_pieces() -> None:
    """Chunked bodies are put together before anything is read."""
    with Client([identity(FP32)]) as server:
        request = server.request("POST", "/v2/models/identity_fp32/infer", one_input([1.0, 2.0], shape=(2,), name="x"), chunk=7)
        route = server.dialect.route(request)

        async def handled() -> Any:
            return (await route.handler(request, *route.args)).body

        assert json.loads(server.run(handled()))["outputs"][0]["data"] == [1.0, 2.0]


# --- answers of broken models ---


def test_a_failing_model_is_500(server: Client) -> None:
    """The text names the model and the exception, in this protocol's shape."""
    reply = server.infer("broken", GOOD)
    assert reply.status == 500
    assert "broken" in reply.error
    assert "it does not add up" in reply.error


def test_response_parameters_come_back() -> None:
    """What a model says beside its outputs is `parameters` of the reply; what JSON cannot carry is the model's failure."""
    with Client([talking("talking", {"took": 1.5, "note": "x"}), talking("odd", {"odd": {1, 2}})]) as server:
        reply = server.infer("talking", X)
        assert list(reply.json) == ["model_name", "model_version", "parameters", "outputs"]
        assert reply.json["parameters"] == {"took": 1.5, "note": "x"}
        assert server.infer("odd", X).status == 500


def test_uint64_reaches_the_model_exactly() -> None:
    """No way through a double: the largest odd value keeps its last bit."""
    seen: list[int] = []

    def run(call: Any) -> Tensors:
        seen.extend(call.inputs.items[0].array.tolist())
        return Tensors([tensor("y", BOOL, [True])])

    with Client([entry("exact", Signature(inputs=(TensorSpec("x", UINT64, (1,)),)), run)]) as server:
        assert server.infer("exact", one_input([(1 << 64) - 1], "UINT64", (1,), "x")).outputs["y"]["data"] == [True]
    assert seen == [(1 << 64) - 1]


def test_another_signature_by_its_inputs() -> None:
    """The protocol has no field for a signature, so inputs that are another one's choose it; all others are the default's."""
    one, two = (Signature(inputs=(TensorSpec(name, FP32, (1,)),), outputs=(TensorSpec("y", FP32, (1,)),)) for name in ("x", "whole"))

    def run(called: Call) -> Tensors:
        return Tensors([Tensor("y", FP32, np.array([1 if called.signature == "matrix" else 0], np.float32))])

    spec = ModelSpec("both")
    both = Entry(spec, LocalServable(spec, [FakeModel(signature=one, others={"matrix": two, "@demo": two}, run=run)], Cost()))
    with Client([both]) as client:
        assert client.infer("both", X).outputs["y"]["data"] == [0]
        assert client.infer("both", one_input([1.0], shape=(1,), name="whole")).outputs["y"]["data"] == [1]
        reply = client.infer("both", one_input([1.0], shape=(1,), name="nothing"))
        assert reply.status == 400
        assert "'nothing'; its inputs are 'x'" in reply.error
