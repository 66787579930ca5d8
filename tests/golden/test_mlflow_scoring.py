"""Requests of MLflow's scoring protocol and of Seldon's, and the replies they must get: every file of tests/golden/mlflow is sent and compared."""

import json
from pathlib import Path
from typing import Any

import pytest

from dragoman.dialects.mlflow.scoring import MLflowScoring
from dragoman.dialects.seldon.rest import Seldon
from tests.fakes_scoring import Caller, toys

FILES = sorted((Path(__file__).parent / "mlflow").glob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_golden(file: Path) -> None:
    """The reply has the status of the file, and its document or, where the file has a text, the very bytes."""
    case: dict[str, Any] = json.loads(file.read_bytes())
    request, expected = case["request"], case["reply"]
    body = request["text"] if "text" in request else json.dumps(request["json"]) if "json" in request else b""
    caller = Caller(toys(), Seldon if request["path"].startswith("/api/") else MLflowScoring)
    reply = caller.send(request["method"], request["path"], body, request.get("headers"), (request["model"], "1"))
    assert reply.status == expected["status"], reply.body
    if "text" in expected:
        assert reply.body == expected["text"].encode()
    else:
        assert reply.json == expected["json"]
        assert list(reply.json) == list(expected["json"])


def test_there_are_files() -> None:
    """An empty folder would prove nothing."""
    assert len(FILES) > 20
