"""Requests of TensorFlow Serving's REST protocol and the replies they must get: every file of tests/golden/tfserving is sent and compared."""

import json
from pathlib import Path
from typing import Any

import pytest

from dragoman.core import tensors as t
from tests.fakes_tfs import Client, beacon, digits, echo, flowers, half_plus, parsing

FILES = sorted((Path(__file__).parent / "tfserving").glob("*.json"))


def client() -> Client:
    models = {
        "half_plus_two/123": half_plus(2),
        "beacon": beacon(),
        "mnist": digits(),
        "saved": parsing(),
        "flowers": flowers(),
        "floats": echo(t.FP32),
        "integers": echo(t.INT64),
        "words": echo(t.BYTES),
        "images": echo(t.BYTES, output="image_bytes"),
    }
    return Client(models, labels={"half_plus_two": {"stable": "123"}})


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_golden(file: Path) -> None:
    """The reply has the status of the file, and its document or, where the file has a text, the very bytes."""
    case: dict[str, Any] = json.loads(file.read_bytes())
    request, expected = case["request"], case["reply"]
    body = request["text"] if "text" in request else json.dumps(request["json"]) if "json" in request else b""
    reply = client().send(request["method"], request["path"], body)
    assert reply.status == expected["status"], reply.body
    if "text" in expected:
        assert reply.body == expected["text"].encode()
    else:
        assert reply.json == expected["json"]


def test_there_are_files() -> None:
    """An empty folder would prove nothing."""
    assert len(FILES) > 20
