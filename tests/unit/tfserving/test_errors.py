"""Every row of the protocol's table of error texts, and the table from kinds to answers."""

import asyncio
from typing import Any

import pytest

from dragoman.core import tensors as t
from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import InferRequest, InferResponse
from dragoman.core.tensors import Rows, Tensors, TensorSpec
from dragoman.dialects import Answer
from dragoman.dialects.tfserving.messages import ANSWERS, cut, quoted, refusal
from tests.fakes_tfs import Client, Toy, answering, array, beacon, echo, half_plus, signature

ROW = {"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]}
PLAIN_ROWS = "instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map"
PLAIN_INPUTS = "inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map"
BOTH = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"


def client() -> Client:
    batch, other, scalar = t.Tensor("a", t.FP32, array([1, 2])), t.Tensor("b", t.FP32, array([1, 2, 3])), t.Tensor("s", t.FP32, array(1))
    return Client(
        {
            "float": echo(t.FP32),
            "string": echo(t.BYTES),
            "int": echo(t.INT32),
            "half": half_plus(2),
            "beacon": beacon(),
            "scalar-output": answering(scalar),
            "unequal-outputs": answering(batch, other),
            "complex-output": answering(t.Tensor("c", t.COMPLEX64, array([1j], "c8"))),
        }
    )


def row(index: int, text: str, key: str = "") -> str:
    return f"Failed to process element: {index}{f' key: {key}' if key else ''} of 'instances' list. Error: INVALID_ARGUMENT: {text}"


def wrong(value: str, kind: str, dtype: str = "float") -> str:
    return f"JSON Value: {value} Type: {kind} is not of expected type: {dtype}"


DOCUMENTS = {
    "empty-body": (b"", "JSON Parse error: The document is empty"),
    "blank-body": (b" \r\n", "JSON Parse error: The document is empty"),
    "malformed": (b'{"instances": [1,}', "JSON Parse error: Invalid value. at offset: 17"),
    "malformed-comma": (b'{"instances": [1 2]}', "JSON Parse error: Missing a comma or ] after an array element. at offset: 17"),
    "malformed-text": (b"this is no JSON", "JSON Parse error: Invalid value. at offset: 0"),
    "malformed-word": (b'{"instances": [nan]}', "JSON Parse error: Invalid value. at offset: 15"),
    "malformed-end": (b'{"instances": [1,]}', "JSON Parse error: Invalid value. at offset: 16"),
    "malformed-number": (b'{"instances": [.5]}', "JSON Parse error: Invalid value. at offset: 15"),
    "malformed-key": (b"{'a': 1}", "JSON Parse error: Missing a name for object member. at offset: 1"),
    "malformed-colon": (b'{"a" 1}', "JSON Parse error: Missing a colon after a name of object member. at offset: 5"),
    "malformed-member": (b'{"a": 1 "b": 2}', "JSON Parse error: Missing a comma or } after an object member. at offset: 8"),
    "number-beyond-double": (b'{"a": 1e400}', "JSON Parse error: Number too big to be stored in double. at offset: 6"),
    "not-utf8": (b'{"a": "\xff"}', "JSON Parse error: Invalid UTF-8. at offset: 7"),
    "list-at-top": (b"[1, 2]", "JSON Value: [1, 2] Is not object"),
    "null-at-top": (b"null", "JSON Value: null Is not object"),
    "signature-name-type": (
        b'{"signature_name": 3}',
        "JSON Value: {\"signature_name\": 3} not formatted correctly. 'signature_name' key must be a string value.",
    ),
    "signature-name-null": (
        b'{"signature_name":null}',
        "JSON Value: {\"signature_name\":null} not formatted correctly. 'signature_name' key must be a string value.",
    ),
    "unknown-signature": (b'{"signature_name": "S"}', 'Serving signature name: "S" not found in signature def'),
    "operation-as-signature": (b'{"signature_name": "@demo"}', 'Serving signature name: "@demo" not found in signature def'),
    "neither-key": (b"{}", "Missing 'inputs' or 'instances' key"),
    "G11-both-keys": (b'{"inputs":1,"instances":[1]}', f'JSON Value: {{"inputs":1,"instances":[1]}} {BOTH}'),
    "no-instances": (b'{"instances":[]}', "JSON Value: {\"instances\":[]} No values in 'instances' array"),
    **{
        f"instances-{kind}": (
            f'{{"instances":{value}}}'.encode(),
            f"JSON Value: {{\"instances\":{value}}} Expecting 'instances' to be an list/array",
        )
        for kind, value in {"object": '{"x":1}', "number": "1.0", "null": "null", "string": '"x"', "b64": '{"b64":"AA=="}'}.items()
    },
}


@pytest.mark.parametrize(("body", "error"), DOCUMENTS.values(), ids=[f"tfs-error-{name}" for name in DOCUMENTS])
def test_documents(body: bytes, error: str) -> None:
    """Faults of the document as a whole: each is 400 with its own text in a body of one key (G2)."""
    reply = client().predict("half", body)
    assert (reply.status, reply.error) == (400, error)


NO_K = "JSON object: does not have named input: K"
ROWS: dict[str, tuple[str, Any, str]] = {
    "plain-rows": ("beacon", [1], PLAIN_ROWS),
    "unknown-input": ("beacon", [ROW, {**ROW, "K": 1}], row(1, NO_K, "K")),
    "unknown-only-input": ("half", [{"K": 1}], row(0, NO_K, "K")),
    "missing-input": (
        "beacon",
        [ROW, {"signal": [1], "tag": "é"}],
        (
            "Failed to process element: 1 of 'instances' list. "
            'JSON object: {"signal":[1],"tag":"é"} keys must be equal to: sensor,signal,tag'
        ),
    ),
    "empty-row": ("half", [{}], "Failed to process element: 0 of 'instances' list. JSON object: {} keys must be equal to: x"),
    "list-among-objects": ("half", [{"x": 1}, 2], "Expecting object but got list at item 1 of input list"),
    "b64-among-objects": ("half", [{"x": 1}, {"b64": ""}], "Expecting object but got list at item 1 of input list"),
    "object-among-lists": ("half", [[1], {"x": 1}], "Expecting value/list but got object at item 1 of input list"),
    "type": ("float", [1, "x"], row(1, wrong('"x"', "String"))),
    "type-named": ("float", [{"x": [1, "x"]}], row(0, wrong('"x"', "String"), "x")),
    "size": ("float", [[1, 2], [1, 2, 3]], row(1, "Expecting tensor size: 2 but got: 3")),
    "size-of-nothing": ("float", [[], [1]], row(1, "Expecting tensor size: 0 but got: 1")),
    "size-named": ("float", [{"x": [1, 2]}, {"x": [1]}], row(1, "Expecting tensor size: 2 but got: 1", "x")),
    "shape": ("float", [[1, 2], [[1, 2]]], row(1, "Expecting shape [2] but got: [1,2]")),
    "shape-of-scalar": ("float", [1, [1]], row(1, "Expecting shape [] but got: [1]")),
    "ragged": ("float", [[[1, 2], [3]]], row(0, "Encountered list at unexpected size: 1 at level: 1 expected size: 2")),
    "too-deep": ("float", [[1, [2]]], row(0, "Encountered list at unexpected level: 1 expected < 1")),
    "too-shallow": ("float", [[[1], 2]], row(0, "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2")),
    "b64": ("string", ["a", {"b64": "?"}], row(1, "Unable to base64 decode")),
    "object-without-b64": ("string", [["a", {"c": 1}]], row(0, 'JSON Value: {"c":1} not formatted correctly for base64 data')),
    "output-without-batch": ("scalar-output", [1], "Tensor name: s has no shape information"),
    "outputs-of-unequal-batch": ("unequal-outputs", [1], "Tensor name: b has inconsistent batch size: 3 expecting: 2"),
    "complex-output": ("complex-output", [1], "Failed to write JSON value for tensor type: complex64"),
}


@pytest.mark.parametrize(("model", "rows", "error"), ROWS.values(), ids=[f"tfs-error-row-{name}" for name in ROWS])
def test_rows(model: str, rows: Any, error: str) -> None:
    """Faults in row form, each 400 with its own text, and the row where there is one."""
    reply = client().predict(model, {"instances": rows})
    assert (reply.status, reply.error) == (400, error)


COLUMNS: dict[str, tuple[str, Any, str]] = {
    "plain-inputs": ("beacon", [1], PLAIN_INPUTS),
    "plain-b64": ("beacon", {"b64": "AA=="}, PLAIN_INPUTS),
    "missing-input": ("beacon", {"tag": [], "signal": []}, "Missing named input: sensor in 'inputs' object."),
    "type": ("float", "x", wrong('"x"', "String")),
    "type-named": ("float", {"x": [[1, None]]}, wrong("null", "Null")),
    "ragged": ("float", [[1, 2], [3]], "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
    "ragged-deep": ("float", [[[1]], [[2, 3]]], "Encountered list at unexpected size: 2 at level: 2 expected size: 1"),
    "too-deep": ("float", [1, [2]], "Encountered list at unexpected level: 1 expected < 1"),
    "too-shallow": ("float", [[1], 2], "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
    "object-without-b64": ("string", [{"a": 1}], 'JSON Value: {"a":1} not formatted correctly for base64 data'),
    "b64-of-number": ("string", [{"b64": 1}], 'JSON Value: {"b64":1} not formatted correctly for base64 data'),
    "b64-and-more": ("string", [{"b64": "", "c": 1}], 'JSON Value: {"b64":"","c":1} not formatted correctly for base64 data'),
    "b64-url-safe": ("string", {"b64": "_w=="}, "Unable to base64 decode"),
    "b64-for-number": ("float", [{"b64": "AA=="}], wrong('{"b64":"AA=="}', "Object")),
    "complex-output": ("complex-output", [1], "Failed to write JSON value for tensor type: complex64"),
}


@pytest.mark.parametrize(("model", "inputs", "error"), COLUMNS.values(), ids=[f"tfs-error-column-{name}" for name in COLUMNS])
def test_columns(model: str, inputs: Any, error: str) -> None:
    """Faults in column form, each 400 with its own text."""
    reply = client().predict(model, {"inputs": inputs})
    assert (reply.status, reply.error) == (400, error)


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        pytest.param(["x", {"x": 1}], row(0, wrong('"x"', "String")), id="value-before-kind"),
        pytest.param([1, {"x": 1}, "x"], "Expecting value/list but got object at item 1 of input list", id="kind-before-value"),
        pytest.param([{"x": 1}, {"x": None}, 3], row(1, wrong("null", "Null"), "x"), id="value-before-object-kind"),
        pytest.param([{"x": 1}, 3, {"x": None}], "Expecting object but got list at item 1 of input list", id="object-kind-before-value"),
        pytest.param([{"x": [1]}, {"x": [1, 2]}, {"z": 1}], row(1, "Expecting tensor size: 1 but got: 2", "x"), id="shape-before-key"),
        pytest.param([[1, 2], [3], ["x"]], row(1, "Expecting tensor size: 2 but got: 1"), id="shape-before-later-value"),
    ],
)
def test_first_faulty_row_is_told(rows: list[Any], error: str) -> None:
    """Rows are judged in their order: the first fault is the one that is told."""
    assert client().predict("float", {"instances": rows}).error == error


def test_first_faulty_input_of_a_row_is_told() -> None:
    """Within a row its own order of keys decides."""
    faulty = {"sensor": "s", "tag": 1, "signal": [1, 2, 3, 4, 5]}
    assert client().predict("beacon", {"instances": [ROW, faulty]}).error == row(1, wrong('"s"', "String"), "sensor")


@pytest.mark.parametrize(
    ("value", "kind"),
    [(None, "Null"), (False, "False"), (True, "True"), ({"a": 1}, "Object"), ("s", "String"), (1.5, "Number")],
)
def test_json_types(value: Any, kind: str) -> None:
    """The names of JSON types in messages."""
    assert client().predict("int", {"inputs": {"x": [1, value]}}).error.endswith(f" Type: {kind} is not of expected type: int32")


@pytest.mark.parametrize(("token", "text"), [("NaN", "NaN"), ("Infinity", "Infinity"), ("-Inf", "-Infinity")])
def test_tokens_are_quoted(token: str, text: str) -> None:
    """A token in the wrong place is named as it is, not as null."""
    assert client().predict("int", f'{{"inputs":[{token}]}}').error == wrong(text, "Number", "int32")


def test_order_of_checks() -> None:
    """JSON, then the object, then signature_name's type, then the model, then the signature, then the keys."""
    ours = client()
    bodies = ["{", "[]", '{"signature_name":1}', '{"signature_name":"S"}', "{}"]
    texts = ["JSON Parse error", "Is not object", "must be a string", "Servable not found", "Servable not found"]
    for body, text in zip(bodies, texts, strict=True):
        assert text in ours.predict("nope", body).error
    assert "signature name" in ours.predict("half", '{"signature_name":"S","instances":1,"inputs":2}').error


def test_quotes_are_cut() -> None:
    """No message quotes more than 256 bytes of a value, a document or a name, and none ends in half a character."""
    ours = client()
    long = "é" * 1000
    assert ours.predict("float", {"inputs": long}).error == wrong(f'"{"é" * 127}', "String")
    assert ours.predict("half", f'{{"instances":"{long}"}}').error.startswith('JSON Value: {"instances":"éé')
    for body in ({"signature_name": long}, {"instances": [{long: 1}]}, {"instances": [{"x": 1, long: 1}]}, [long]):
        assert len(ours.predict("half", body).error.encode()) < 700
    assert cut("a" * 300) == "a" * 256
    assert cut("a" * 256) == "a" * 256


def test_quoting_what_json_cannot_carry() -> None:
    """Values that no JSON writer takes still have a quotation."""
    deep: Any = 1
    for _ in range(600):
        deep = [deep]
    assert quoted(deep) == "list"
    assert quoted([b"a"]) == '["a"]'


def test_deep_nesting() -> None:
    """Lists nested beyond what arrays can hold are 400, in both forms; so is what no parser follows."""
    ours = client()
    deep = "[" * 60 + "1" + "]" * 60
    assert ours.predict("float", f'{{"inputs":{deep}}}').error == "Encountered lists nested deeper than 32 levels"
    assert "nested deeper than 32 levels" in ours.predict("float", f'{{"instances":{deep}}}').error
    assert ours.predict("string", f'{{"inputs":{deep}}}').status == 400
    assert ours.predict("string", f'{{"instances":[{{"x":{deep}}}]}}').status == 400
    assert "JSON Parse error" in ours.predict("half", '{"unused":' + "[" * 500_000 + "]" * 500_000 + ',"inputs":1}').error


def test_inputs_that_name_nothing() -> None:
    """A model that declares no inputs still needs one."""
    ours = Client({"m": Toy({"": signature([], [])}, lambda inputs, _: inputs.items)})
    assert ours.predict("m", '{"inputs": {}}').error == 'JSON Value: {"inputs": {}} names no input'
    assert ours.predict("m", {"instances": [{}]}).status == 400


# --- kinds ---

EXPECTED = {
    Kind.INVALID_INPUT: 400,
    Kind.NOT_FOUND: 404,
    Kind.NOT_READY: 503,
    Kind.CONFLICT: 409,
    Kind.OVERLOADED: 503,
    Kind.TIMEOUT: 504,
    Kind.CANCELLED: 499,
    Kind.MODEL_FAILED: 500,
    Kind.UNSUPPORTED: 501,
    Kind.UNAVAILABLE: 503,
    Kind.TOO_LARGE: 413,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.INTERNAL: 500,
}


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)
def test_every_kind_has_an_answer(kind: Kind) -> None:
    """A model's error of any kind keeps its text and gets the kind's status (G2)."""

    def fail(inputs: Tensors, name: str) -> list[t.Tensor]:
        raise ServingError(kind, "the reason")

    toy = Toy({"": signature([TensorSpec("x", t.FP32, None)], [])}, fail)
    reply = Client({"m": toy}).predict("m", {"inputs": 1})
    assert (reply.status, reply.error) == (EXPECTED[kind], "the reason")
    assert reply.media_type == b"application/json"
    assert ANSWERS[kind][1] == EXPECTED[kind]


def test_wrong_method_is_400() -> None:
    """An error about the method that the server itself found is 400 as well."""
    assert refusal(ServingError(Kind.UNSUPPORTED, "no", what="method")).status == 400


def test_text_that_is_no_unicode() -> None:
    """A lone surrogate in a message, say from a file name, cannot break the answer."""
    answer: Answer = refusal(ServingError(Kind.INTERNAL, "bad \udcff name"))
    assert answer.body == b'{"error":"bad ? name"}'


class Breaking(Toy):
    """Answers rows though its signature says tensors."""

    async def infer(self, request: InferRequest) -> InferResponse:
        response = await super().infer(request)
        response.outputs = Rows([1])
        return response


def test_model_that_breaks_its_signature() -> None:
    """Rows from a model that declares tensors are the model's failure."""
    toy = Breaking({"": signature([TensorSpec("x", t.FP32, None)], [])}, lambda _, __: [])
    assert Client({"m": toy}).predict("m", {"instances": [1]}).status == 500


def test_client_that_goes_away() -> None:
    """A body that never ends is a cancelled request."""
    ours = client()
    assert asyncio.run(ours.ask(ours.request("POST", "/v1/models/half:predict", None))).status == 499
