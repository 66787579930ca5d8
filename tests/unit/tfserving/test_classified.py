""":classify and :regress: signatures of SavedModels by TensorFlow Serving's rules, and any other model by its inputs and outputs."""

import asyncio
from typing import Any

import numpy as np
import pytest

from dragoman.core import tensors as t
from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import InferRequest, InferResponse, Timings
from dragoman.core.tensors import Array, Form, Rows, Signature, Tensor, Tensors, TensorSpec
from dragoman.dialects.tfserving import classified
from tests.fakes_tfs import CLASSIFY, PREDICT, REGRESS, Client, Toy, array, examined, flowers, half_plus, parsing, signature

ONE = {"examples": [{"x": 1.0}]}
TWO = {"examples": [{"x": 1.0}, {"x": 2.0}]}


def words(values: Any) -> Tensor:
    made: Array = np.empty(np.shape(values), object)
    made[...] = values
    return Tensor("classes", t.BYTES, made)


def scores(values: Any, code: str = "f4", datatype: t.Datatype = t.FP32) -> Tensor:
    return Tensor("scores", datatype, array(values, code))


def outputs(values: Any, code: str = "f4", datatype: t.Datatype = t.FP32, name: str = "outputs") -> Tensor:
    return Tensor(name, datatype, array(values, code))


def ask(toy: Toy, verb: str, body: Any = TWO, **more: Any) -> Any:
    reply = Client({"m": toy}, **more).send("POST", f"/v1/models/m:{verb}", body)
    return reply.json["results"] if reply.status == 200 else (reply.status, reply.error)


# --- signatures of SavedModels ---


def test_g9_labels_and_scores() -> None:
    """G9: per example a list of [label, score], in order; bytes that are no UTF-8 do not break the answer."""
    toy = examined(words([[b"cat", b"dog"], [b"\xff", b""]]), scores([[0.1, 0.9], [0.2, 3e7]]), method=CLASSIFY)
    assert ask(toy, "classify") == [[["cat", 0.1], ["dog", 0.9]], [["\ufffd", 0.2], ["", 3e7]]]


def test_g9_one_of_both() -> None:
    """G9: no labels are empty texts, no scores are 0."""
    assert ask(examined(scores([[1.5, 2.5], [0.0, -1.0]]), method=CLASSIFY), "classify") == [
        [["", 1.5], ["", 2.5]],
        [["", 0.0], ["", -1.0]],
    ]
    assert ask(examined(words([[b"a"], [b"b"]]), method=CLASSIFY), "classify") == [[["a", 0.0]], [["b", 0.0]]]


def test_g10_numbers() -> None:
    """G10: one decimal per example, in order, of [batch_size] and of [batch_size, 1]."""
    assert ask(examined(outputs([1.5, 0.2]), method=REGRESS), "regress") == [1.5, 0.2]
    assert ask(examined(outputs([[3.0], [4.0]]), method=REGRESS), "regress") == [3.0, 4.0]


def test_numbers_are_written_from_their_width() -> None:
    """A float32 of 0.2 is 0.2, whole ones keep their point, and what is not finite is a bare token."""
    client = Client({"m": examined(outputs([0.2, 3.0, np.nan, np.inf]), method=REGRESS)})
    reply = client.send("POST", "/v1/models/m:regress", {"examples": [{}, {}, {}, {}]})
    assert reply.body == b'{"results":[0.2,3.0,NaN,Infinity]}'


def test_examples_are_fed_as_they_are() -> None:
    """One BYTES tensor of serialized Examples, with the signature, without a look at shapes."""
    toy = parsing()
    assert ask(toy, "regress", {"signature_name": "regress_x_to_y", **TWO}) == [2.5, 3.0]
    (seen,) = toy.seen
    assert isinstance(seen.inputs, Tensors)
    (fed,) = seen.inputs.items
    assert (fed.name, fed.datatype, fed.array.shape, seen.signature, seen.strict) == ("inputs", t.BYTES, (2,), "regress_x_to_y", False)
    assert all(type(each) is bytes for each in fed.array)


def test_exports_of_tensorflow_2() -> None:
    """Their classify signatures say predict: names count, unless the check is switched on."""
    toy = examined(scores([[1.0], [2.0]]), method=PREDICT)
    assert ask(toy, "classify") == [[["", 1.0]], [["", 2.0]]]
    assert ask(toy, "classify", check_methods=True) == (
        400,
        f"Expected classification signature method_name to be {CLASSIFY}. Was: {PREDICT}",
    )
    assert ask(examined(outputs([1.0, 2.0]), method=PREDICT), "regress", check_methods=True) == (
        400,
        f"Expected regression signature method_name to be {REGRESS}. Was: {PREDICT}",
    )


@pytest.mark.parametrize("method", [PREDICT, CLASSIFY, REGRESS, "somebody/else", ""])
def test_predict_of_any_method(method: str) -> None:
    """Any signature may be run, unless the check is switched on: then its own method is needed, or none, as of models that are no SavedModels."""
    toy = examined(outputs([1.0, 2.0]), method=method)
    assert Client({"m": toy}).predict("m", {"instances": ["a", "b"]}).json == {"predictions": [1.0, 2.0]}
    checked = Client({"m": toy}, check_methods=True).predict("m", {"instances": ["a", "b"]})
    if method in ("", PREDICT):
        assert checked.json == {"predictions": [1.0, 2.0]}
    else:
        assert (checked.status, checked.error) == (400, f"Expected prediction signature method_name to be {PREDICT}. Was: {method}")


@pytest.mark.parametrize(
    ("toy", "verb", "text"),
    [
        (half_plus(2), "classify", "Feature: x (data type: float) is required"),
        (parsing(), "classify", "No classification inputs found in SignatureDef: inputs: x; outputs: y; method_name: " + PREDICT),
        (parsing(), "regress", "No regression inputs found in SignatureDef: "),
        (examined(words([[b"a"]]), method=REGRESS), "regress", "No regression outputs found in SignatureDef: "),
        (examined(outputs([1.0]), method=CLASSIFY), "classify", "Expected classification signature outputs to contain at least one of"),
        (examined(outputs([1.0]), scores([[1.0]]), method=REGRESS), "regress", "Expected one output Tensor."),
        (
            examined(outputs([1.0]), scores([[1.0]]), words([[b"a"]]), method=CLASSIFY),
            "classify",
            "Expected one or two output Tensors, found 3",
        ),
        (
            Toy({"": signature([TensorSpec("inputs", t.BYTES, (-1,)), TensorSpec("b", t.BYTES, (-1,))], [], CLASSIFY)}, lambda _, __: []),
            "classify",
            "Expected one input Tensor.",
        ),
        (examined(scores([1.0, 2.0]), method=CLASSIFY), "classify", "Expected Tensor shape: [batch_size num_classes] but got [2]"),
        (examined(scores([[1.0]]), method=CLASSIFY), "classify", "Input batch size did not match output batch size: 2 vs. 1"),
        (
            examined(words([[b"a"], [b"b"]]), scores([[1.0, 2.0], [3.0, 4.0]]), method=CLASSIFY),
            "classify",
            "Number of classes in the scores and the labels does not match: [2,1] of 'classes' and [2,2] of 'scores'",
        ),
        (
            examined(outputs([[1.0, 2.0], [3.0, 4.0]]), method=REGRESS),
            "regress",
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [2,2]",
        ),
        (examined(outputs(1.0), method=REGRESS), "regress", "Expected output Tensor shape to be either"),
        (examined(outputs([1.0]), method=REGRESS), "regress", "Input batch size did not match output batch size: 2 vs. 1"),
        (examined(scores([[1], [2]], "i8", t.INT64), method=CLASSIFY), "classify", "Expected scores Tensor of DT_FLOAT. Got: DT_INT64"),
        (examined(outputs([1, 2], "f8", t.FP64), method=REGRESS), "regress", "Expected output Tensor of DT_FLOAT. Got: DT_DOUBLE"),
    ],
)
def test_signatures_of_the_wrong_kind(toy: Toy, verb: str, text: str) -> None:
    """400 in TensorFlow Serving's words for what a signature is not, and for outputs that are not what the method promises."""
    body = TWO if toy.signatures[""].method else {"examples": [{"y": 1.0}]}
    status, error = ask(toy, verb, body)
    assert (status, text in error) == (400, True), error


def test_a_model_that_breaks_its_word() -> None:
    """An output that is declared and does not come is the model's failure."""
    toy = Toy({"": signature([TensorSpec("inputs", t.BYTES, (-1,))], [TensorSpec("outputs", t.FP32, (-1,))], REGRESS)}, lambda _, __: [])
    status, error = ask(toy, "regress")
    assert (status, "did not answer the output 'outputs'" in error) == (500, True)


# --- other models: inputs ---


def seen(specs: list[TensorSpec], body: Any) -> dict[str, Any]:
    """What a model with these inputs gets."""
    toy = Toy({"": Signature(inputs=tuple(specs), outputs=(TensorSpec("y", t.FP32, (-1,)),), batch=True)}, zeros)
    reply = Client({"m": toy}).send("POST", "/v1/models/m:regress", body)
    assert reply.status == 200, reply.body
    (request,) = toy.seen
    assert isinstance(request.inputs, Tensors)
    return {each.name: each.array.tolist() for each in request.inputs.items}


def zeros(inputs: Tensors, _: str) -> list[Tensor]:
    return [Tensor("y", t.FP32, array([0.0] * len(inputs.items[0].array)))]


def test_features_go_to_the_inputs_of_their_names() -> None:
    """By name, nested as declared; whole numbers are as good as others; what no input asks for is ignored."""
    specs = [
        TensorSpec("a", t.FP32, (-1,)),
        TensorSpec("b", t.FP64, (-1, 2, 2)),
        TensorSpec("c", t.BYTES, (-1, -1)),
        TensorSpec("d", t.BOOL, (-1,)),
        TensorSpec("e", t.UINT8, (-1, 1)),
        TensorSpec("f", None, None),
        TensorSpec("g", t.INT64, (-1,), optional=True),
    ]
    row = {"a": 1, "b": [1.0, 2.0, 3.0, 4.0], "c": ["x", "y"], "d": True, "e": 255, "f": [1.5, 2.5], "other": "z"}
    expected = {"a": [1.0], "b": [[[1.0, 2.0], [3.0, 4.0]]], "c": [[b"x", b"y"]], "d": [True], "e": [[255]], "f": [[1.5, 2.5]]}
    assert seen(specs, {"examples": [row]}) == expected


def test_undeclared_inputs() -> None:
    """A model that declares none gets the features as they are."""
    assert seen([], {"examples": [{"a": 1, "b": [1.5, 2.5]}, {"a": 2, "b": [0.5, 3.5]}]}) == {"a": [1, 2], "b": [[1.5, 2.5], [0.5, 3.5]]}


def test_a_model_that_does_not_batch() -> None:
    """It is asked once per example, and the answers come in order."""

    def total(inputs: Tensors, _: str) -> list[Tensor]:
        return [Tensor("y", t.FP32, array(inputs.items[0].array.sum()))]

    toy = Toy({"": Signature(inputs=(TensorSpec("x", t.FP32, (2,)),), outputs=(TensorSpec("y", t.FP32, ()),))}, total)
    assert ask(toy, "regress", {"examples": [{"x": [1.0, 2.0]}, {"x": [3.0, 4.0]}]}) == [3.0, 7.0]
    assert len(toy.seen) == 2


@pytest.mark.parametrize(
    ("spec", "value", "text"),
    [
        (TensorSpec("x", t.FP32, (-1,)), "a", "Key: x, Index: 0. Data types don't match. Data type: string but expected type: float"),
        (TensorSpec("x", t.INT64, (-1,)), 1.0, "Key: x, Index: 0. Data types don't match. Data type: float but expected type: int64"),
        (TensorSpec("x", t.BYTES, (-1,)), 1, "Key: x, Index: 0. Data types don't match. Data type: int64 but expected type: string"),
        (TensorSpec("x", None, None), "a", "Data type: string but expected type: float"),
        (TensorSpec("x", t.COMPLEX64, (-1,)), 1.0, "Data type: float but expected type: complex64"),
        (TensorSpec("x", t.BOOL, (-1,)), 2, "A true or false value is written as 1 or 0"),
        (TensorSpec("x", t.UINT8, (-1,)), 300, "300 is out of range for UINT8"),
        (TensorSpec("x", t.FP32, (-1, 4)), [1.0, 2.0], "Number of values != expected. Values size: 2 but output shape: [4]"),
        (TensorSpec("x", t.FP32, (-1,)), [1.0, 2.0], "Values size: 2 but output shape: []"),
        (TensorSpec("x", t.FP32, (-1, -1, -1)), [1.0, 2.0], "Values size: 2 but output shape: [?,?]"),
        (TensorSpec("x", t.FP32, (-1, 0, -1)), [1.0, 2.0], "Values size: 2 but output shape: [0,?]"),
        (TensorSpec("x", t.FP32, (-1,)), [], "Feature: x (data type: float) is required but could not be found. Example 0 has none"),
        (TensorSpec("z", t.BYTES, (-1,)), 1, "Feature: z (data type: string) is required but could not be found. Example 0 has x"),
    ],
)
def test_features_that_do_not_fit(spec: TensorSpec, value: Any, text: str) -> None:
    """400, with the feature, the example, what was expected and what came."""
    toy = Toy({"": Signature(inputs=(spec,), outputs=(TensorSpec("y", t.FP32, (-1,)),), batch=True)}, zeros)
    status, error = ask(toy, "regress", {"examples": [{"x": value}]})
    assert (status, text in error) == (400, True), error
    assert not toy.seen


# --- other models: outputs ---


def unsaved(*tensors: Tensor, labels: tuple[str, ...] = ()) -> Toy:
    """No SavedModel: answers the same to anything; the outputs called `named` have labels."""
    specs = tuple(TensorSpec(each.name, each.datatype, None, labels=labels if each.name == "named" else ()) for each in tensors)
    return Toy({"": Signature(inputs=(TensorSpec("x", t.FP32, (-1,)),), outputs=specs, batch=True)}, lambda _, __: list(tensors))


TABLE = [[0.25, 0.75], [0.5, 0.5]]
WORDS = Tensor("best", t.BYTES, words([b"a", b"b"]).array)
COUNTS = outputs([7, 8], "i8", t.INT64, "best")


@pytest.mark.parametrize(
    ("toy", "expected"),
    [
        (unsaved(words([[b"a", b"b"], [b"c", b"d"]]), scores(TABLE)), [[["a", 0.25], ["b", 0.75]], [["c", 0.5], ["d", 0.5]]]),
        (unsaved(COUNTS, outputs(TABLE, name="named"), labels=("p", "q")), [[["p", 0.25], ["q", 0.75]], [["p", 0.5], ["q", 0.5]]]),
        (unsaved(outputs(TABLE, name="named"), labels=("p",)), [[["", 0.25], ["", 0.75]], [["", 0.5], ["", 0.5]]]),
        (unsaved(outputs([7, 8], "i8", t.INT64, "classes"), outputs(TABLE, name="p")), [[["", 0.25], ["", 0.75]], [["", 0.5], ["", 0.5]]]),
        (unsaved(COUNTS, outputs(TABLE, "f8", t.FP64, "p")), [[["", 0.25], ["", 0.75]], [["", 0.5], ["", 0.5]]]),
        (unsaved(WORDS, outputs([0.5, 1.0], name="p")), [[["a", 0.5]], [["b", 1.0]]]),
        (unsaved(outputs([0x3F80, 0x4000], "u2", t.BF16, "p"), WORDS), [[["a", 1.0]], [["b", 2.0]]]),
        (unsaved(WORDS), [[["a", 0.0]], [["b", 0.0]]]),
        (unsaved(COUNTS), [[["7", 0.0]], [["8", 0.0]]]),
    ],
)
def test_classes_of_any_model(toy: Toy, expected: Any) -> None:
    """By the protocol's names; else the output with labels, the only scores, the only labels, or one label with its score."""
    assert ask(toy, "classify") == expected


@pytest.mark.parametrize(
    "toy",
    [
        unsaved(outputs([1.5, 2.5])),
        unsaved(outputs(TABLE, name="p"), outputs(TABLE, name="q")),
        unsaved(WORDS, outputs([1.5, 2.5]), outputs([1.5, 2.5], name="q")),
        unsaved(Tensor("z", t.COMPLEX64, array([1j, 2j], "c8"))),
    ],
)
def test_models_that_classify_nothing(toy: Toy) -> None:
    """400 that names the outputs and their shapes: one number per example, or several outputs that could be meant."""
    status, error = ask(toy, "classify")
    assert (status, "its outputs are '" in error) == (400, True), error


@pytest.mark.parametrize(
    ("toy", "expected"),
    [
        (unsaved(outputs([1.5, 2.5]), scores([[0.0], [0.0]])), [1.5, 2.5]),
        (unsaved(outputs([[1.5], [2.5]], "f8", t.FP64, "p"), COUNTS), [1.5, 2.5]),
        (unsaved(COUNTS), [7.0, 8.0]),
        (unsaved(outputs([1.5, 2.5], "f2", t.FP16, "p"), outputs(TABLE, name="q"), WORDS), [1.5, 2.5]),
    ],
)
def test_numbers_of_any_model(toy: Toy, expected: Any) -> None:
    """By the protocol's name; else the only one of one decimal per example, or a model's only output."""
    assert ask(toy, "regress") == expected


@pytest.mark.parametrize(
    "toy",
    [
        unsaved(outputs(TABLE, name="p")),
        unsaved(WORDS, COUNTS),
        unsaved(WORDS),
        unsaved(Tensor("outputs", t.BYTES, WORDS.array)),
        flowers(),
    ],
)
def test_models_that_regress_nothing(toy: Toy) -> None:
    """400 that names the outputs: none, or none alone, is one number per example. The class of a classifier is no such number."""
    body = {"examples": [{"x": 1.0, "size": [1.0, 1.0, 1.0, 1.0], "colour": "red"}] * 2}
    status, error = ask(toy, "regress", body)
    assert (status, "has no one output of one number per example" in error) == (400, True), error


# --- models of rows ---


class Talker(Toy):
    """A model of rows: answers by name what a function makes of each row."""

    def __init__(self, properties: dict[str, Any], required: list[str], specs: list[TensorSpec], answer: Any) -> None:
        schema = {"type": "object", "properties": properties, "required": required}
        super().__init__({"": Signature(Form.ROWS, tuple(specs), batch=True, input_schema=schema)}, none)
        self._answer = answer
        self.rows: list[Any] = []

    async def infer(self, request: InferRequest) -> InferResponse:
        assert isinstance(request.inputs, Rows)
        self.rows += request.inputs.items
        return InferResponse(Rows([self._answer(row) for row in request.inputs.items]), Timings())


def none(inputs: Tensors, _: str) -> list[Tensor]:
    raise AssertionError("it has no tensors")


def test_models_of_rows() -> None:
    """Features become checked fields, optional ones may be in some examples only; a label and a score per row are its class."""
    talker = Talker(
        {
            "text": {"type": "string"},
            "weights": {"type": "array", "items": {"type": "number"}},
            "loud": {"type": "boolean", "default": False},
        },
        ["text", "weights"],
        [TensorSpec("text", t.BYTES, (-1,)), TensorSpec("weights", t.FP64, (-1, -1)), TensorSpec("loud", t.BOOL, (-1,), optional=True)],
        lambda row: {"label": row["text"].upper() if row["loud"] else row["text"], "score": float(sum(row["weights"]))},
    )
    body = {"context": {"weights": [1, 2]}, "examples": [{"text": "a"}, {"text": "b", "loud": True, "weights": 0.5}]}
    assert ask(talker, "classify", body) == [[["a", 3.0]], [["B", 0.5]]]
    assert ask(talker, "regress", body) == [3.0, 0.5]
    status, error = ask(talker, "regress", {"examples": [{"text": "a"}]})
    assert (status, "Feature: weights (data type: float) is required" in error) == (400, True), error


# --- paths, names, the body ---


def test_g5_g19_versions_and_labels() -> None:
    """G5, G19: the latest version by default, the named one else, labels too; an unknown one is 404, an unknown label 400."""
    client = Client({"m/1": examined(outputs([1.0])), "m/2": examined(outputs([2.0]))}, labels={"m": {"old": "1"}})
    for path, expected in (("m", 2.0), ("m/versions/1", 1.0), ("m/versions/2", 2.0), ("m/labels/old", 1.0)):
        assert client.send("POST", f"/v1/models/{path}:regress", ONE).json == {"results": [expected]}
        assert client.send("POST", f"/model-serving/{path}:regress", ONE).json == {"results": [expected], "result": [expected]}
    unknown = client.send("POST", "/v1/models/m/versions/3:classify", ONE)
    assert (unknown.status, unknown.error) == (404, "Servable not found for request: Specific(m, 3)")
    label = client.send("POST", "/v1/models/m/labels/new:classify", ONE)
    assert (label.status, label.error) == (400, "Unrecognized servable version label: new")


def test_g6_signatures() -> None:
    """G6: the default signature without a name or with an empty one, any other by its name; an unknown one is 400."""
    client = Client({"m": parsing()})
    named = {"signature_name": "regress_x_to_y2", **ONE}
    assert client.send("POST", "/v1/models/m:regress", named).json == {"results": [3.5]}
    for default in ({}, {"signature_name": ""}, {"signature_name": "serving_default"}):
        assert "No regression inputs found" in client.send("POST", "/v1/models/m:regress", {**default, **ONE}).error
    assert "'signature_name' key must be a string value." in client.send("POST", "/v1/models/m:regress", {"signature_name": 1, **ONE}).error
    assert client.send("POST", "/v1/models/m:regress", {"signature_name": "no", **ONE}).error == "No signature was found with the name: no"


def test_multi_inference() -> None:
    """Several signatures of one model over the same Examples; a method that cannot be joined, or a signature twice, is refused."""
    client = Client({"m": parsing()})
    entry = client.gateway.find("m")
    example = b"\x0a\x0d\x0a\x0b\x0a\x01x\x12\x06\x12\x04\x0a\x02\x00\x00"  # a float list that ends in the middle of a number
    good = b"\x0a\x0f\x0a\x0d\x0a\x01x\x12\x08\x12\x06\x0a\x04\x00\x00\xa0\x42"

    def multi(tasks: list[tuple[str, str]], examples: list[bytes]) -> Any:
        return asyncio.run(classified.multi(client.gateway, entry, tasks, examples, classified.Terms()))

    assert multi([("regress_x_to_y", REGRESS), ("classify_x_to_y", CLASSIFY)], [good]) == [[42.0], [[("", 42.0)]]]
    for tasks, kind, text in (
        (
            [("regress_x_to_y", REGRESS), ("regress_x_to_y", REGRESS)],
            Kind.INVALID_INPUT,
            "Duplicate evaluation of signature: regress_x_to_y",
        ),
        ([("", PREDICT)], Kind.UNSUPPORTED, f"Unsupported signature method_name: {PREDICT}"),
    ):
        with pytest.raises(ServingError, match=text) as caught:
            multi(tasks, [good])
        assert caught.value.kind is kind
    assert entry.in_flight == 0
    with pytest.raises(ValueError, match=r"no tensorflow\.Example"):
        multi([("regress_x_to_y", REGRESS)], [example])
    assert entry.in_flight == 0
