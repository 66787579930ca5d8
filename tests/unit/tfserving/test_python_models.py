"""Models of rows through TensorFlow Serving's protocol: instances are the rows, columns are cut into them."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes_scoring import Served
from tests.fakes_tfs import Client
from tests.models.snippets import model_of, same_process

SOURCE = """
from typing import TypedDict
import numpy as np

class Out(TypedDict):
    text: str
    picture: bytes
    score: float
    raw_bytes: str
    inner: dict

def predict(prompt: str, picture: bytes = b"", box: dict[str, int] = {}, scale: float = 1.0) -> Out:
    if prompt == "boom":
        raise ValueError("boom happened")
    return {"text": prompt, "picture": picture, "score": scale, "raw_bytes": "x", "inner": {"box": box, "a": np.array([1, 2])}}
"""


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with same_process():
        yield Client(
            {
                "m": Served(model_of(tmp_path / "m", SOURCE)),
                "one": Served(model_of(tmp_path / "one", "def predict(x: float, times: int = 1) -> float:\n    return x * times")),
                "deep": Served(
                    model_of(
                        tmp_path / "deep",
                        "import numpy as np\ndef predict(x: float):\n    return {'a': np.array([np.nan, 2.5]), 'b': {'c': -np.inf}}",
                    )
                ),
                "list": Served(model_of(tmp_path / "list", "def predict(x: list[float]) -> float:\n    return sum(x)")),
                "odd": Served(
                    model_of(tmp_path / "odd", "def predict(x: int):\n    return ['\\ud800', 10**30, x][x] if x < 3 else {str(x): x}")
                ),
            }
        )


def test_instances_are_rows(client: Client) -> None:
    """Base64 objects stand for files, objects for objects; files and names that end in _bytes come back as base64 objects."""
    reply = client.predict("m", {"instances": [{"prompt": "a", "picture": {"b64": "AP8="}, "box": {"w": 2}, "scale": 2}, {"prompt": "b"}]})
    assert reply.json == {
        "predictions": [
            {"text": "a", "picture": {"b64": "AP8="}, "score": 2.0, "raw_bytes": {"b64": "eA=="}, "inner": {"box": {"w": 2}, "a": [1, 2]}},
            {"text": "b", "picture": {"b64": ""}, "score": 1.0, "raw_bytes": {"b64": "eA=="}, "inner": {"box": {}, "a": [1, 2]}},
        ]
    }


def test_columns_are_cut_into_rows(client: Client) -> None:
    """A value that is no list goes into every row."""
    reply = client.predict("m", {"inputs": {"prompt": ["a", "b"], "picture": [{"b64": "AA=="}, {"b64": "AQ=="}], "scale": 3}})
    outputs = reply.json["outputs"]
    assert outputs["text"] == ["a", "b"]
    assert outputs["picture"] == [{"b64": "AA=="}, {"b64": "AQ=="}]
    assert outputs["score"] == [3.0, 3.0]


def test_models_of_one_field_take_bare_values(client: Client) -> None:
    """In both forms, and answer so; long lists of numbers are no exception."""
    assert client.predict("one", {"instances": [1, 2.5]}).body == b'{"predictions":[1.0,2.5]}'
    assert client.predict("one", {"inputs": [1, 2]}).body == b'{"outputs":[1.0,2.0]}'
    assert client.predict("one", {"inputs": 5}).body == b'{"outputs":[5.0]}'
    assert client.predict("one", {"instances": [{"x": 2, "times": 3}]}).json == {"predictions": [6.0]}
    many = list(range(20_000))
    assert client.predict("one", {"instances": many}).json == {"predictions": [float(n) for n in many]}
    assert client.predict("list", {"instances": [many, [1]]}).json == {"predictions": [float(sum(many)), 1.0]}


def test_numbers_that_are_not_finite(client: Client) -> None:
    """Are bare tokens in both directions."""
    reply = client.predict("one", b'{"instances": [NaN, Infinity]}')
    assert reply.body == b'{"predictions":[NaN,Infinity]}'
    assert math.isnan(json.loads(reply.body)["predictions"][0])
    deep = client.predict("deep", {"instances": [1]})
    assert deep.body == b'{"predictions":[{"a":[NaN,2.5],"b":{"c":-Infinity}}]}'


REFUSED = [
    ("m", {"instances": [{"prompt": "a"}, {"scale": "x"}]},
     "Failed to process element: 1 key: prompt of 'instances' list. Error: INVALID_ARGUMENT: field required"),
    ("m", {"instances": [{"prompt": "a", "box": {"w": "x"}}]},
     "Failed to process element: 0 key: box.w of 'instances' list. Error: INVALID_ARGUMENT: value is not a valid integer"),
    ("m", {"instances": [{"prompt": "a", "picture": {"b64": "?"}}]},
     "Failed to process element: 0 key: picture of 'instances' list. Error: INVALID_ARGUMENT: Invalid file input"),
    ("m", {"instances": [{"prompt": "a", "picture": "http://x/y"}]},
     "Failed to process element: 0 key: picture of 'instances' list. Error: INVALID_ARGUMENT: URLs are not fetched here: send the content"),
    ("one", {"instances": ["x"]}, "Failed to process element: 0 key: x of 'instances' list. Error: INVALID_ARGUMENT: value is not a valid float"),
    ("m", {"inputs": {"prompt": ["a", "b"], "scale": [1, "x"]}},
     "Failed to process element: 1 of 'inputs' key: scale. Error: value is not a valid float"),
    ("m", {"inputs": {"prompt": ["a", "b"], "scale": [1]}},
     "The columns of 'inputs' must have one element per row each, but prompt has 2, scale has 1"),
    ("m", {"instances": []}, None),
    ("m", {"instances": 5}, None),
    ("m", {"x": 5}, "Missing 'inputs' or 'instances' key"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "body", "message"), REFUSED, ids=range(len(REFUSED)))
def test_refusals_are_in_this_protocols_words(model: str, body: Any, message: str | None, client: Client) -> None:
    """400, with the element and the key."""
    reply = client.predict(model, body)
    assert reply.status == 400
    assert message is None or reply.error == message


def test_bare_values_for_several_fields(tmp_path: Path) -> None:
    """Cannot be told apart, which the answer says."""
    with same_process():
        two = Client({"two": Served(model_of(tmp_path, "def predict(a: int, b: int): return a"))})
        reply = two.predict("two", {"instances": [1]})
        assert (reply.status, "a, b" in reply.error) == (400, True)
        assert two.predict("two", {"inputs": [1]}).status == 400


def test_answers_that_json_cannot_carry(client: Client) -> None:
    """Half a surrogate pair is the model's failure; integers of any size are numbers; rows of different keys keep them."""
    assert client.predict("odd", {"instances": [0]}).status == 500
    assert client.predict("odd", {"instances": [1]}).json == {"predictions": [10**30]}
    assert client.predict("odd", {"instances": [3, 4]}).json == {"predictions": [{"3": 3}, {"4": 4}]}
    assert client.predict("odd", {"inputs": [3, 4]}).json == {"outputs": {"3": [3, None], "4": [None, 4]}}


def test_a_model_that_raises(client: Client) -> None:
    """500 with type and message."""
    reply = client.predict("m", {"instances": [{"prompt": "boom"}]})
    assert (reply.status, "ValueError: boom happened" in reply.error) == (500, True)


def test_metadata_and_signature_names(client: Client) -> None:
    """Fields as tensors; the default signature has its usual other name, and others do not exist."""
    described = client.send("GET", "/v1/models/m/metadata").json["metadata"]["signature_def"]["signature_def"]
    assert list(described) == ["serving_default"]
    assert described["serving_default"]["inputs"]["scale"]["dtype"] == "DT_DOUBLE"
    body = {"instances": [{"prompt": "a"}]}
    assert client.predict("m", body | {"signature_name": "serving_default"}).status == 200
    assert client.predict("m", body | {"signature_name": "@demo"}).status == 400


def test_a_deep_instance_is_no_crash(client: Client) -> None:
    """Objects in objects without end are refused or answered, never more."""
    deep: Any = "x"
    for _ in range(300):
        deep = {"a": deep}
    assert client.predict("m", {"instances": [{"prompt": deep}]}).status == 400
