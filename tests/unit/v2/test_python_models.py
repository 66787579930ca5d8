"""Models of rows through the Open Inference Protocol: fields are tensors with one element per row, files their content."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.model import InferRequest, ModelSpec
from dragoman.core.tensors import BYTES, Form, Signature, TensorSpec, Value
from dragoman.hosting.servable import LocalServable
from dragoman.serving.gateway import Entry
from tests.models.snippets import same_process, write
from tests.unit.predictions.rig import Scripted
from tests.unit.v2.client import Client

SOURCE = """
import dragoman
from pathlib import Path
from typing import TypedDict

CALLS = Path("calls.txt").resolve()

class Out(TypedDict):
    text: str
    size: int
    copy: bytes
    more: dict[str, int]

class Model:
    @dragoman.batched(max_size=4)
    def predict(self, prompt: list[str], picture: list[bytes], times: int = 2) -> list[Out]:
        with CALLS.open("a") as file:
            file.write(f"{len(prompt)}\\n")
        if "boom" in prompt:
            raise ValueError("boom happened")
        return [{"text": p * times, "size": len(f), "copy": f, "more": {p: times}} for p, f in zip(prompt, picture)]
"""
STREAM = """
from typing import Iterator
def predict(prompt: str, words: int = 3) -> Iterator[str]:
    for index in range(words):
        if prompt == "boom" and index == 2:
            raise ValueError("boom happened")
        yield f"{prompt}{index} "
"""


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with same_process():
        entries = []
        for name, source in {"m": SOURCE, "s": STREAM}.items():
            path = write(tmp_path / name, source)
            spec = ModelSpec(name, runtime="python", artifact=str(path))
            entries.append(Entry(spec, LocalServable.load(spec)))
        with Client(entries) as server:
            yield server


def text(name: str, *values: str) -> dict[str, Any]:
    return {"name": name, "shape": [len(values)], "datatype": "BYTES", "data": list(values)}


HELLO = text("prompt", "a", "b")
PICTURES = text("picture", "data:image/png;base64,AAEC", "xyz")


def test_metadata_says_how_fields_look_as_tensors(client: Client) -> None:
    """Options among them, since clients build their requests from it."""
    described = client.send("GET", "/v2/models/m").json
    assert described["platform"] == "python"
    assert described["inputs"] == [
        {"name": "prompt", "datatype": "BYTES", "shape": [-1], "value_type": "str"},
        {"name": "picture", "datatype": "BYTES", "shape": [-1], "value_type": "str"},
        {"name": "times", "datatype": "INT64", "shape": [-1], "value_type": "int"},
    ]
    assert [(o["name"], o["datatype"]) for o in described["outputs"]] == [
        ("text", "BYTES"), ("size", "INT64"), ("copy", "BYTES"), ("more", "BYTES"),
    ]  # fmt: skip


def test_infer(client: Client) -> None:
    """Element i is row i; parts of an answer are JSON in BYTES."""
    times = {"name": "times", "shape": [2, 1], "datatype": "INT32", "data": [1, 3]}
    reply = client.infer("m", {"id": "7", "inputs": [HELLO, PICTURES, times]})
    assert reply.json["id"] == "7"
    outputs = reply.outputs
    assert outputs["text"] == {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a", "bbb"]}
    assert outputs["size"]["data"] == [3, 3]
    assert [json.loads(each) for each in outputs["more"]["data"]] == [{"a": 1}, {"b": 3}]


def test_statistics_count_one_request_of_two_rows(client: Client, tmp_path: Path) -> None:
    """Rows are inferences, runs of the model executions, and the client asked once."""
    assert client.infer("m", {"inputs": [HELLO, PICTURES]}).status == 200
    runs = len(sizes(tmp_path))
    (row,) = client.send("GET", "/v2/models/m/stats").json["model_stats"]
    assert (row["inference_count"], row["execution_count"], row["inference_stats"]["success"]["count"]) == (2, runs, 1)


def test_priority_and_id_reach_the_model() -> None:
    """Of a request of rows as of one of tensors."""
    model = Scripted()
    model.answer = _echo
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    model.signatures = {"": Signature(Form.ROWS, (TensorSpec("a", BYTES, (-1,)),), batch=True, input_schema=schema)}
    with Client([Entry(ModelSpec("r"), model)]) as client:
        body = {"id": "7", "parameters": {"priority": 2}, "inputs": [text("a", "x", "y")]}
        assert client.infer("r", body).json["id"] == "7"
        asked = {"id": "8", "a": "z", "parameters": {"priority": 1}}
        assert client.send("POST", "/v2/models/r/generate", asked).json["id"] == "8"
    assert [(request.id, request.priority) for request in model.asked] == [("7", 2), ("7", 2), ("8", 1)]


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    """As in answers of tensors, at any depth: JSON has no word for them."""
    source = """
from typing import TypedDict
import numpy as np

class Out(TypedDict):
    y: float
    many: list[float]
    more: dict[str, float]
    array: list

def predict(x: float) -> Out:
    odd = {"nan": float("nan"), "inf": float("-inf")}
    return {"y": x * odd["inf"], "many": [1.5, odd["nan"]], "more": odd, "array": np.array([np.nan, 2.5])}
"""
    path = write(tmp_path / "n", source)
    with same_process():
        spec = ModelSpec("n", runtime="python", artifact=str(path))
        with Client([Entry(spec, LocalServable.load(spec))]) as client:
            asked = {"inputs": [{"name": "x", "shape": [2], "datatype": "FP64", "data": [1, 0]}]}
            outputs = client.infer("n", asked).outputs
            assert outputs["y"]["data"] == [None, None]
            assert outputs["many"]["data"] in ([1.5, None] * 2, ["[1.5,null]"] * 2)
            assert outputs["more"]["data"] == ['{"nan":null,"inf":null}'] * 2
            generated = client.send("POST", "/v2/models/n/generate", {"x": 1}).json
            assert (generated["y"], generated["more"], generated["array"]) == (None, {"nan": None, "inf": None}, [None, 2.5])


async def _echo(request: InferRequest) -> Value:
    return {"output": "done"}


def test_options_may_be_left_out(client: Client) -> None:
    """And the outputs that are not asked for."""
    reply = client.infer("m", {"inputs": [HELLO, PICTURES], "outputs": [{"name": "text"}]})
    assert list(reply.outputs) == ["text"]
    assert reply.outputs["text"]["data"] == ["aa", "bb"]


def test_binary_data(client: Client) -> None:
    """Files go in and out as they are."""
    content = b"\x03\x00\x00\x00\x00\xff\x01"
    head = json.dumps(
        {
            "inputs": [text("prompt", "a"), {"name": "picture", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 7}}],
            "outputs": [{"name": "copy", "parameters": {"binary_data": True}}],
        }
    ).encode()
    reply = client.infer("m", head + content, [(b"inference-header-content-length", str(len(head)).encode())])
    assert reply.status == 200
    assert reply.split()[1] == content


REFUSED = [
    ([HELLO], "input of model 'm', row 0, field 'picture': field required (and 1 more)"),
    ([HELLO, text("picture", "x")], "inputs of model 'm' disagree on the number of rows: 'picture' has 1, 'prompt' has 2"),
    ([HELLO, PICTURES, {"name": "times", "shape": [2], "datatype": "FP32", "data": [1, 2]}],
     "input 'times' of model 'm' has datatype FP32, expected INT64"),
    ([HELLO, PICTURES, {"name": "seed", "shape": [2], "datatype": "FP32", "data": [1, 2]}],
     "model 'm' has no input 'seed'; its inputs are 'prompt', 'picture', 'times'"),
    ([], "input of model 'm', the list of rows: ensure this value has at least 1 items"),
]  # fmt: skip


@pytest.mark.parametrize(("inputs", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_wrong_is_told_in_one_sentence(inputs: list[Any], message: str, client: Client) -> None:
    """400, naming model and field."""
    reply = client.infer("m", {"inputs": inputs})
    assert (reply.status, reply.error) == (400, message)


def test_an_output_that_does_not_exist(client: Client) -> None:
    """Is refused, and named."""
    reply = client.infer("m", {"inputs": [HELLO, PICTURES], "outputs": [{"name": "nothing"}]})
    assert reply.status == 400
    assert "'nothing'" in reply.error


def test_a_model_that_raises(client: Client) -> None:
    """500 with type and message, no traceback; the next request is answered: Tungsten requirement T22, here."""
    reply = client.infer("m", {"inputs": [text("prompt", "boom"), text("picture", "")]})
    assert reply.status == 500
    assert "ValueError: boom happened" in reply.error
    assert "Traceback" not in reply.error
    assert client.infer("m", {"inputs": [HELLO, PICTURES]}).status == 200


def test_a_long_request_is_cut_into_batches(client: Client, tmp_path: Path) -> None:
    """Ten rows never reach a model together that declares batches of four: Tungsten requirement T21, here."""
    names = [str(index) for index in range(10)]
    reply = client.infer("m", {"inputs": [text("prompt", *names), text("picture", *names)]})
    assert reply.outputs["text"]["data"] == [name * 2 for name in names]
    assert sum(sizes(tmp_path)) == 10
    assert max(sizes(tmp_path)) <= 4


def sizes(folder: Path) -> list[int]:
    """Of the batches that the model has run."""
    return [int(line) for line in (folder / "m" / "calls.txt").read_text().split()]


def test_generate_takes_fields_as_they_are(client: Client) -> None:
    """Files as base64 or data URI; what is no field is a parameter; the answer is the row."""
    sent = {"prompt": "hi", "picture": base64.b64encode(b"\x00\x01").decode(), "parameters": {"times": "3", "other": 1}}
    reply = client.send("POST", "/v2/models/m/generate", sent)
    assert reply.json == {
        "model_name": "m",
        "model_version": "1",
        "text": "hihihi",
        "size": 2,
        "copy": "data:application/octet-stream;base64,AAE=",
        "more": {"hi": 3},
    }
    assert (
        "field 'picture': URLs are not fetched here" in client.send("POST", "/v2/models/m/generate", sent | {"picture": "http://x/y"}).error
    )
    assert (
        "field 'times': value is not a valid integer"
        in client.send("POST", "/v2/models/m/generate", sent | {"parameters": {"times": "x"}}).error
    )
    assert "'times' is given twice" in client.send("POST", "/v2/models/m/generate", sent | {"times": 1}).error


def events(body: bytes) -> list[Any]:
    return [json.loads(line[6:]) for line in body.decode().split("\n\n") if line]


def test_generators_are_streamed(client: Client) -> None:
    """One event per part; generate gives the whole."""
    reply = client.send("POST", "/v2/models/s/generate_stream", {"prompt": "x", "words": 3})
    assert reply.media_type.startswith(b"text/event-stream")
    assert [event["output"] for event in events(reply.body)] == ["x0 ", "x1 ", "x2 "]
    assert client.send("POST", "/v2/models/s/generate", {"prompt": "x"}).json["output"] == "x0 x1 x2 "
    assert client.infer("s", {"inputs": [text("prompt", "x", "y")]}).outputs["output"]["data"] == ["x0 x1 x2 ", "y0 y1 y2 "]
    assert [event["output"] for event in events(client.send("POST", "/v2/models/s/generate_stream", {"prompt": "x", "words": 0}).body)] == [
        ""
    ]


def test_a_stream_that_fails_says_so_at_its_end(client: Client) -> None:
    """After the parts that had come; before the first part it is an answer like any other."""
    reply = client.send("POST", "/v2/models/s/generate_stream", {"prompt": "boom"})
    *parts, last = events(reply.body)
    assert [part["output"] for part in parts] == ["boom0 ", "boom1 "]
    assert "ValueError: boom happened" in last["error"]
    assert client.send("POST", "/v2/models/s/generate_stream", {"prompt": 1, "words": []}).status == 400
    assert client.send("POST", "/v2/models/m/generate_stream", {"prompt": "x", "picture": "AAE="}).status == 200
