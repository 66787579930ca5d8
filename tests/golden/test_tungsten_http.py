"""Requests of Tungsten's REST API and the bytes of their replies: every file of tests/golden/tungsten_http is sent and compared."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.predictions import Progress
from dragoman.core.tensors import Blob
from tests.fakes_predictions import PICTURES, TEXT, Client

FILES = sorted((Path(__file__).parent / "tungsten_http").glob("*.json"))
TRACE = 'Traceback (most recent call last):\n  File "tungsten_model.py", line 21, in predict\nValueError: boom happened\n'


def client() -> Client:
    """Two models, and predictions 1 to 8 in every state that there is."""
    made = Client(m=TEXT, pictures=PICTURES)
    rows = [{"prompt": "one"}, {"prompt": "two"}]
    states: list[dict[str, Any]] = [
        {},
        {"progress": Progress.CLAIMED},
        {"progress": Progress.RUNNING},
        {"progress": Progress.SUCCEEDED, "outputs": [{"text": "ONE", "score": 0.5}, {"text": "TWO", "score": math.nan}], "finished": 104.0},
        {
            "progress": Progress.FAILED,
            "error": TRACE,
            "error_kind": "model_failed",
            "logs": "loading\n",
            "started": 101.0,
            "finished": 104.0,
        },
        {"progress": Progress.CANCELLED, "error": "Canceled", "error_kind": "cancelled"},
        {"progress": Progress.SUCCEEDED, "outputs": [{"image": Blob(b"\x89PNG", "image/png", "a.png")}]},
    ]
    for state in states:
        made.post("/predictions", rows)
        made.predictions.change(f"{len(made.predictions.views):032x}", **state)
    made.post("/demo", rows)
    shown = [{"output": {"text": row["prompt"]}, "demo_output": {"page": f"<b>{row['prompt']}</b>"}} for row in rows]
    made.predictions.change(f"{8:032x}", progress=Progress.SUCCEEDED, outputs=shown, logs="step 1\nstep 2\n")
    made.predictions.work = lambda given: [{"text": row["prompt"].upper()} for row in given]
    return made


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_golden(file: Path) -> None:
    """The reply has the status, the type and the very bytes of the file."""
    case: dict[str, Any] = json.loads(file.read_bytes())
    request, expected = case["request"], case["reply"]
    body = request["text"].encode() if "text" in request else json.dumps(request["json"]).encode() if "json" in request else b""
    path, _, query = request["path"].partition("?")
    reply = client().send(request["method"], path, body, request.get("headers"), query=query)
    assert (reply.status, reply.body.decode()) == (expected["status"], expected["text"])
    assert reply.headers[b"content-type"].decode() == expected.get("type", "application/json")


def test_there_are_files() -> None:
    """An empty folder would prove nothing."""
    assert len(FILES) > 25
