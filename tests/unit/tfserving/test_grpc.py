"""Predict over toy models, called as the listener calls it: what it answers, and every refusal."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dragoman.core import tensors as t
from dragoman.core.tensors import Tensor, TensorSpec
from dragoman.dialects.rpc import Code, RpcCall
from tests.fakes_rpc import Refused
from tests.fakes_scoring import Served
from tests.fakes_tfs import Toy, array, echo, signature
from tests.fakes_tfs_grpc import PREDICTION, Fake, floats, several, spec_of
from tests.models.snippets import model_of, same_process
from tests.tensor_protos import ALL, FIELDS, array_of, proto, typed


@pytest.fixture(scope="module")
def fake() -> Fake:
    return several()


def test_predict_answers_in_the_typed_field(fake: Fake) -> None:
    """Clients read float_val; the answer says which version and which signature it is from."""
    answer = fake.predict("half", {"x": floats(1, 2, 5, shape=(3, 1))})
    assert list(answer.outputs["y"].float_val) == [3.5, 4.0, 5.5]
    assert [dim.size for dim in answer.outputs["y"].tensor_shape.dim] == [3, 1]
    assert spec_of(answer) == ("half", 7, "serving_default")


def test_a_missing_last_dimension_is_given_and_taken(fake: Fake) -> None:
    """The protocol's best known example feeds [3] to [-1, 1] and gets [3]."""
    answer = fake.predict("half", {"x": floats(1, 2, 5)}, version={"value": 1})
    assert list(answer.outputs["y"].float_val) == [2.5, 3.0, 4.5]
    assert [dim.size for dim in answer.outputs["y"].tensor_shape.dim] == [3]


@pytest.mark.parametrize(
    ("spec", "first", "told"),
    [
        ({"version": {"value": 1}}, 2.5, ("half", 1, "serving_default")),
        ({"version_label": "stable"}, 2.5, ("half", 1, "serving_default")),
        ({"signature_name": "plus_one"}, 4.5, ("half", 7, "plus_one")),
        ({"signature_name": "serving_default"}, 3.5, ("half", 7, "serving_default")),
    ],
)
def test_versions_labels_and_signatures(fake: Fake, spec: dict[str, Any], first: float, told: tuple[str, int, str]) -> None:
    """A version by number or label, a signature by name; the answer names them as they were used."""
    answer = fake.predict("half", {"x": floats(1)}, **spec)
    assert (answer.outputs["y"].float_val[0], spec_of(answer)) == (first, told)


def test_a_version_that_is_no_number_is_left_out(fake: Fake) -> None:
    """Other layouts than TensorFlow Serving's may name versions; the message has no place for a name."""
    answer = fake.predict("odd", {"x": floats(1)})
    assert not answer.model_spec.HasField("version")
    (status,) = fake.models.send("GetModelStatus", model_spec={"name": "odd"}).model_version_status
    assert (status.version, status.state) == (0, 30)


@pytest.mark.parametrize("datatype", ALL)
def test_every_datatype_goes_through(datatype: t.Datatype) -> None:
    """In as content, out in the typed field; texts in and out as they are."""
    served = Fake({"m": echo(datatype, (-1, 3))})
    given = array_of(datatype)
    content = {"string_val": typed(datatype)} if datatype is t.BYTES else {"tensor_content": given.tobytes()}
    answer = served.predict("m", {"x": proto(datatype, (2, 3), **content)})
    assert answer.outputs["y"] == proto(datatype, (2, 3), **{FIELDS[datatype]: typed(datatype)})


def test_several_inputs_and_an_output_filter(fake: Fake) -> None:
    """Only the outputs that are asked for come back."""
    inputs = {
        "tag": proto(t.BYTES, (1,), string_val=[b"foo"]),
        "signal": proto(t.INT64, (1, 5), int64_val=[1, 2, 3, 4, 5]),
        "sensor": floats(1, 2, 3, 4, shape=(1, 2, 2)),
    }
    assert sorted(fake.predict("beacon", inputs).outputs) == ["mean", "tag_bytes", "total"]
    answer = fake.predict("beacon", inputs, ["total", "mean"])
    assert sorted(answer.outputs) == ["mean", "total"]
    assert (answer.outputs["total"].int64_val[0], answer.outputs["mean"].float_val[0]) == (15, 2.5)


def test_deadline_and_caller_reach_the_model() -> None:
    """What the listener knows of a call travels with the request."""
    toy = echo(t.FP32)
    served = Fake({"m": toy})
    message = served.predictions.message("Predict", model_spec={"name": "m"}, inputs={"x": floats(1)})
    served.predictions.send("Predict", message, call=RpcCall(deadline=1e12, caller="ann"))
    assert (toy.seen[0].deadline, toy.seen[0].caller, toy.seen[0].dialect) == (1e12, "ann", "tfserving-grpc")


def test_a_message_in_two_halves_is_one(fake: Fake) -> None:
    """Protobuf lets a message be the sum of its pieces: a spec twice is merged, an input twice is the later one."""
    one = fake.predictions.message("Predict", model_spec={"name": "half"}, inputs={"x": floats(1)}).SerializeToString()
    two = fake.predictions.message("Predict", model_spec={"version": {"value": 1}}, inputs={"x": floats(5)}).SerializeToString()
    answer = fake.predictions.send("Predict", one + two)
    assert (answer.outputs["y"].float_val[0], spec_of(answer)) == (4.5, ("half", 1, "serving_default"))


TAG = {"tag": proto(t.BYTES, (1,), string_val=[b"foo"])}


@pytest.mark.parametrize(
    ("name", "inputs", "more", "code", "text"),
    [
        pytest.param("", {}, {}, Code.INVALID_ARGUMENT, "ModelSpec has no name specified.", id="no name"),
        pytest.param("no", {}, {}, Code.NOT_FOUND, "Servable not found for request: Latest(no)", id="no such model"),
        pytest.param(
            "half", {}, {"version": {"value": 8}}, Code.NOT_FOUND, "Servable not found for request: Specific(half, 8)", id="no such version"
        ),
        pytest.param("half", {}, {"version": {"value": -8}}, Code.NOT_FOUND, "Specific(half, -8)", id="a negative version"),
        pytest.param("gone", {}, {}, Code.NOT_FOUND, "Servable not found for request: Latest(gone)", id="unloaded"),
        pytest.param("half", {}, {"version": {"value": 9}}, Code.UNAVAILABLE, "its file is broken", id="failed"),
        pytest.param(
            "half", {}, {"version_label": "no"}, Code.INVALID_ARGUMENT, "Unrecognized servable version label: no", id="no such label"
        ),
        pytest.param(
            "half", {}, {"signature_name": "no"}, Code.FAILED_PRECONDITION, 'Serving signature key "no" not found.', id="no such signature"
        ),
        pytest.param("half", {}, {"signature_name": "@demo"}, Code.FAILED_PRECONDITION, "not found", id="a hidden signature"),
        pytest.param(
            "half",
            {},
            {},
            Code.INVALID_ARGUMENT,
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
            id="no inputs",
        ),
        pytest.param(
            "half", {"x": floats(1), "z": floats(1), "b": floats(1)}, {}, Code.INVALID_ARGUMENT, "Sent extra: {b,z}.", id="too many inputs"
        ),
        pytest.param("beacon", TAG, {}, Code.INVALID_ARGUMENT, "Missing but required: {sensor,signal}.", id="several are missing"),
        pytest.param(
            "half", {"y": floats(1)}, {}, Code.INVALID_ARGUMENT, "Sent extra: {y}. Missing but required: {x}.", id="another input"
        ),
        pytest.param(
            "half", {"x": proto(t.INT32, (1,), int_val=[1])}, {}, Code.INVALID_ARGUMENT, "datatype INT32, expected FP32", id="another type"
        ),
        pytest.param("half", {"x": floats(1, 2, shape=(1, 2))}, {}, Code.INVALID_ARGUMENT, "expected [-1, 1]", id="another shape"),
        pytest.param("half", {"x": floats(1, shape=(-1,))}, {}, Code.INVALID_ARGUMENT, "tensor parsing error: x", id="no shape"),
        pytest.param("half", {"x": floats(1, shape=(1 << 40,))}, {}, Code.RESOURCE_EXHAUSTED, "fill more than", id="a bomb"),
        pytest.param("half", {"x": {}}, {}, Code.INVALID_ARGUMENT, "tensor parsing error: x: its data type is number 0", id="no tensor"),
    ],
)
def test_refusals(fake: Fake, name: str, inputs: dict[str, Any], more: dict[str, Any], code: Code, text: str) -> None:
    """Codes are canonical, and texts those that clients match on."""
    refused = fake.predict(name, inputs, **more)
    assert isinstance(refused, Refused)
    assert refused.code is code
    assert text in refused.text


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (["y", "q"], "output tensor alias not found in signature: q"),
        (["y", "y"], "duplicate output tensor alias: y"),
    ],
)
def test_output_filters_are_checked(fake: Fake, wanted: list[str], text: str) -> None:
    """Before anything runs."""
    refused = fake.predict("half", {"x": floats(1)}, wanted)
    assert refused.code is Code.INVALID_ARGUMENT
    assert text in refused.text


def test_an_output_that_only_the_answer_could_have() -> None:
    """A model that declares no outputs is asked, and then it is known."""
    toy = Toy({"": signature([TensorSpec("x", t.FP32, None)], [])}, lambda inputs, _: [Tensor("y", t.FP32, array([1]))])
    served = Fake({"m": toy})
    assert list(served.predict("m", {"x": floats(1)}, ["y"]).outputs["y"].float_val) == [1]
    assert "output tensor alias not found in signature: q" in served.predict("m", {"x": floats(1)}, ["q"]).text


@pytest.mark.parametrize("method", [*PREDICTION])
@pytest.mark.parametrize(
    "content",
    [
        b"\xff",
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x0a\x05ab",
        b"\x0a\x03\x0a\x01\xff",
        b"\x12\x03\x0a\x01\xff",
        b"\x12\x05\x12\xff\xff\xff\xff",
        b"\x00",
        b"\x0b",
    ],
)
def test_bytes_that_are_no_message(fake: Fake, method: str, content: bytes) -> None:
    """INVALID_ARGUMENT from every method, whatever it finds first."""
    refused = fake.predictions.send(method, content)
    assert isinstance(refused, Refused)
    assert refused.code is Code.INVALID_ARGUMENT


def test_long_texts_are_cut() -> None:
    """At 1024 bytes, between characters, and the text says so."""
    served = Fake({})
    refused = served.predict("\u00e4" * 2000, {})
    assert refused.text.endswith("...TRUNCATED")
    assert len(refused.text.encode()) in (1024 + 12, 1023 + 12)


def test_a_name_of_a_method_may_be_checked() -> None:
    """With the check on, Predict takes only signatures of its own method."""
    x = [TensorSpec("x", t.FP32, None)]
    toy = Toy({"": signature(x, x, "something/else")}, lambda inputs, _: inputs.items)
    assert list(Fake({"m": toy}).predict("m", {"x": floats(1)}).outputs["x"].float_val) == [1]
    refused = Fake({"m": toy}, check_methods=True).predict("m", {"x": floats(1)})
    assert refused.code is Code.INVALID_ARGUMENT
    assert "something/else" in refused.text


# --- models of rows ---

SOURCE = """
def predict(prompt: str, times: int = 1) -> dict:
    return {"text": prompt * times, "length": len(prompt) * times}
"""


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[Fake]:
    with same_process():
        odd = "def predict(x: int) -> dict:\n    return {'\\ud800': x}"
        yield Fake({"m": Served(model_of(tmp_path / "m", SOURCE)), "odd": Served(model_of(tmp_path / "odd", odd))})


def test_models_of_rows_answer(rows: Fake) -> None:
    """Each input has one element per row, optional ones may be left out; outputs are named as the rows name them."""
    inputs = {"prompt": proto(t.BYTES, (2,), string_val=[b"a", b"bc"]), "times": proto(t.INT32, (2,), int_val=[2])}
    answer = rows.predict("m", inputs)
    assert list(answer.outputs["text"].string_val) == [b"aa", b"bcbc"]
    assert list(answer.outputs["length"].int64_val) == [2, 4]
    del inputs["times"]
    assert list(rows.predict("m", inputs, ["text"]).outputs["text"].string_val) == [b"a", b"bc"]


def test_models_of_rows_refuse(rows: Fake) -> None:
    """What does not fit their schema names the field."""
    refused = rows.predict("m", {"prompt": proto(t.BYTES, (1,), string_val=[b"\xff"])})
    assert refused.code is Code.INVALID_ARGUMENT
    assert "prompt" in refused.text


def test_keys_of_rows_that_no_message_can_carry(rows: Fake) -> None:
    """Half a surrogate pair in a name is replaced."""
    assert list(rows.predict("odd", {"x": proto(t.INT64, (1,), int64_val=[3])}).outputs["?"].int64_val) == [3]
