"""Predictions: accepted with an id, shown in exactly three keys, cancelled, waited for, streamed; and the same for demos."""

import asyncio
import json
import math
from typing import Any

import numpy as np
import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.predictions import Progress
from dragoman.core.tensors import Blob
from dragoman.serving.predictions import Event
from tests.fakes_predictions import NUMBERS, PICTURES, TEXT, Client, view

ROW = {"prompt": "hello"}
FIRST = f"{1:032x}"


def started(client: Client, path: str = "/predictions", body: Any = None) -> str:
    answer = client.post(path, body or [ROW])
    (prediction_id,) = answer.values()
    return str(prediction_id)


# --- starting one ---


def test_a_prediction_is_accepted_with_an_id() -> None:
    """At once, with one key; rows arrive coerced and with their defaults."""
    client = Client()
    assert client.post("/predictions", [ROW, {"prompt": 77, "seed": "8", "other": 1}]) == {"prediction_id": FIRST}
    assert client.predictions.given[FIRST] == [
        {"prompt": "hello", "seed": 7, "style": "plain"},
        {"prompt": "77", "seed": 8, "style": "plain"},
    ]
    assert client.predictions.views[FIRST].operation == "predict"
    assert client.get(f"/predictions/{FIRST}") == {"outputs": None, "status": "pending", "error_message": None}


@pytest.mark.parametrize("where", ["header", "query", ""])
def test_a_webhook(where: str) -> None:
    """Named in a header or in the query, since the body is a list."""
    client, url = Client(), "https://hooks.example/done?x=1"
    headers = {"X-Webhook-Url": url} if where == "header" else {}
    query = "webhook=https%3A%2F%2Fhooks.example%2Fdone%3Fx%3D1" if where == "query" else ""
    client.post("/predictions", [ROW], headers, query=query)
    assert client.predictions.webhooks[FIRST] == (url if where else "")


def test_what_a_webhook_carries() -> None:
    """Everything about the prediction, its outputs as clients get them."""
    client = Client()
    ended = view(FIRST, progress=Progress.SUCCEEDED, outputs=[{"a": Blob(b"hi", "a/b"), "b": math.nan}], finished=3.5)
    body = json.loads(client.predictions.webhook_body(ended))
    assert (body["id"], body["status"], body["outputs"]) == (FIRST, "success", [{"a": "data:a/b;base64,aGk=", "b": None}])
    shown = view(FIRST, operation="demo", progress=Progress.SUCCEEDED, outputs=[{"output": 1, "demo_output": 2}])
    assert json.loads(client.predictions.webhook_body(shown))["demo_outputs"] == [2]


def test_the_caller_is_the_name_of_the_key() -> None:
    """It is kept with the prediction."""
    client = Client()
    client.post("/predictions", [ROW], caller="reader")
    assert client.predictions.callers[FIRST] == "reader"


# --- looking at one ---


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (None, "pending", None)),
        ({"progress": Progress.CLAIMED}, (None, "pending", None)),
        ({"progress": Progress.RUNNING}, (None, "running", None)),
        ({"progress": Progress.SUCCEEDED, "outputs": [{"text": "a"}, {"text": "b"}]}, ([{"text": "a"}, {"text": "b"}], "success", None)),
        (
            {"progress": Progress.FAILED, "error": "Traceback ...\nValueError: boom\n"},
            (None, "failed", "Traceback ...\nValueError: boom\n"),
        ),
        ({"progress": Progress.CANCELLED}, (None, "failed", "Canceled")),
        ({"progress": Progress.CANCELLED, "error": "Canceled"}, (None, "failed", "Canceled")),
        ({"progress": Progress.FAILED, "error": "Timeout", "error_kind": "timeout"}, (None, "failed", "Timeout")),
    ],
)
def test_always_three_keys(fields: dict[str, Any], expected: tuple[Any, ...]) -> None:
    """Outputs only when it succeeded, an error only when it failed, four words for the status."""
    client = Client()
    prediction_id = started(client)
    client.predictions.change(prediction_id, **fields)
    assert client.get(f"/predictions/{prediction_id}") == dict(zip(("outputs", "status", "error_message"), expected, strict=True))


def test_details_on_demand() -> None:
    """`?verbose=1` adds what the original does not have."""
    client = Client()
    prediction_id = started(client)
    client.predictions.change(
        prediction_id, progress=Progress.FAILED, error="no", error_kind="model_failed", logs="hi\n", started=101.0, finished=102.5
    )
    assert client.get(f"/predictions/{prediction_id}", query="verbose=1") == {
        "id": prediction_id,
        "model": "m",
        "version": "1",
        "operation": "predict",
        "error_kind": "model_failed",
        "logs": "hi\n",
        "created": 100.0,
        "started": 101.0,
        "finished": 102.5,
        "outputs": None,
        "status": "failed",
        "error_message": "no",
    }
    for off in ("", "verbose=0", "verbose=false"):
        assert len(client.get(f"/predictions/{prediction_id}", query=off)) == 3


@pytest.mark.parametrize(("query", "seconds"), [("wait=2.5", 2.5), ("wait=1000", 60.0), ("wait=inf", 60.0)])
def test_long_poll(query: str, seconds: float) -> None:
    """It is answered when the prediction has ended; the time is bounded."""
    client = Client()
    prediction_id = started(client)
    assert client.get(f"/predictions/{prediction_id}", query=query)["status"] == "success"
    assert client.predictions.waits == [seconds]
    client.get(f"/predictions/{prediction_id}", query=query)
    assert len(client.predictions.waits) == 1, "what has ended is not waited for"


@pytest.mark.parametrize("value", ["abc", "-1", "nan", "1e", "%00"])
def test_a_wait_that_is_no_time(value: str) -> None:
    """422, naming the parameter."""
    client = Client()
    (problem,) = client.refused(422, "GET", f"/predictions/{started(client)}", query=f"wait={value}")["detail"]
    assert problem["loc"] == ["query", "wait"]


def test_no_wait_without_a_number() -> None:
    """`wait=0` and `wait=` are answered at once."""
    client = Client()
    for query in ("wait=0", "wait="):
        client.get(f"/predictions/{started(client)}", query=query)
    assert client.predictions.waits == []


@pytest.mark.parametrize("odd", ["nope", "0" * 32, "A" * 32, "0" * 33, "..", "a%20b"])
@pytest.mark.parametrize(("method", "ending"), [("GET", ""), ("GET", "/cancel"), ("POST", "/cancel"), ("GET", "/events")])
@pytest.mark.parametrize("kind", ["predictions", "demo"])
def test_unknown_ids(kind: str, method: str, ending: str, odd: str) -> None:
    """404 with the id as it was meant."""
    client = Client()
    assert client.refused(404, method, f"/{kind}/{odd}{ending}") == {"detail": odd.replace("%20", " ")}


def test_an_overlong_id_is_not_echoed_whole() -> None:
    """Nobody gets a kilobyte back."""
    assert len(Client().refused(404, "GET", f"/predictions/{'x' * 5000}")["detail"]) == 200


# --- cancelling one ---


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("kind", ["predictions", "demo"])
def test_cancel(kind: str, method: str) -> None:
    """200 with an empty body, whatever the method and however often."""
    client = Client()
    prediction_id = started(client, f"/{kind}")
    for _ in range(2):
        reply = client.send(method, f"/{kind}/{prediction_id}/cancel")
        assert (reply.status, reply.body) == (200, b"")
    assert client.predictions.cancelled == [prediction_id] * 2
    assert client.get(f"/predictions/{prediction_id}")["error_message"] == "Canceled"


def test_cancelling_what_has_ended_changes_nothing() -> None:
    """The outputs stay."""
    client = Client()
    prediction_id = started(client)
    client.predictions.succeed(prediction_id, {"text": "a"})
    assert client.send("POST", f"/predictions/{prediction_id}/cancel").status == 200
    assert client.get(f"/predictions/{prediction_id}")["status"] == "success"


# --- the synchronous call ---


def test_predict() -> None:
    """The body of a prediction that has ended."""
    client = Client()
    client.predictions.work = lambda rows: [{"text": row["prompt"].upper()} for row in rows]
    found = client.post("/predict", [ROW, {"prompt": "you"}])
    assert found == {"outputs": [{"text": "HELLO"}, {"text": "YOU"}], "status": "success", "error_message": None}


def test_a_failed_predict_is_an_answer() -> None:
    """200, with the model's traceback for the one who asked."""
    client = Client()
    client.predictions.run_view = view(progress=Progress.FAILED, error="ValueError: boom\n", error_kind="model_failed")
    assert client.post("/predict", [ROW]) == {"outputs": None, "status": "failed", "error_message": "ValueError: boom\n"}


@pytest.mark.parametrize(("kind", "status"), [(Kind.TIMEOUT, 504), (Kind.OVERLOADED, 429), (Kind.NOT_READY, 503), (Kind.UNAVAILABLE, 503)])
@pytest.mark.parametrize("raised", [True, False])
def test_a_predict_that_never_ran(kind: Kind, status: int, raised: bool) -> None:
    """It is an error, whichever way the service says so."""
    client = Client()
    client.predictions.run_view = view(progress=Progress.FAILED, error="sorry", error_kind=kind.value)
    client.predictions.error = ServingError(kind, "sorry") if raised else None
    assert client.refused(status, "POST", "/predict", [ROW]) == {"detail": "sorry", "error_kind": kind.value}


@pytest.mark.parametrize(("kind", "status"), [(Kind.TIMEOUT, 504), (Kind.OVERLOADED, 200), (Kind.NOT_READY, 200), (Kind.UNAVAILABLE, 200)])
def test_a_predict_that_broke_off(kind: Kind, status: int) -> None:
    """What had started has failed, unless it was out of time: its process may have died."""
    client = Client()
    client.predictions.run_view = view(progress=Progress.FAILED, error="sorry", error_kind=kind.value, started=101.0)
    if status == 200:
        assert client.post("/predict", [ROW]) == {"outputs": None, "status": "failed", "error_message": "sorry"}
    else:
        client.refused(status, "POST", "/predict", [ROW])


# --- demos ---


def test_a_demo() -> None:
    """Its own id key, its own outputs beside those of the model, and logs."""
    client = Client()
    assert client.post("/demo", [ROW]) == {"demo_id": FIRST}
    assert client.predictions.views[FIRST].operation == "demo"
    pending = {"outputs": None, "status": "pending", "error_message": None, "demo_outputs": None, "logs": None}
    assert client.get(f"/demo/{FIRST}") == pending
    client.predictions.change(FIRST, progress=Progress.RUNNING, logs="step 1\n")
    assert client.get(f"/demo/{FIRST}")["logs"] == "step 1\n"
    client.predictions.succeed(FIRST, {"output": {"text": "a"}, "demo_output": {"page": "<b>"}})
    shown = client.get(f"/demo/{FIRST}")
    assert (shown["outputs"], shown["demo_outputs"]) == ([{"text": "a"}], [{"page": "<b>"}])
    assert client.get(f"/predictions/{FIRST}") == {"outputs": [{"text": "a"}], "status": "success", "error_message": None}


def test_ids_share_one_space() -> None:
    """A prediction shows as a demo, too: what it shows is what it has."""
    client = Client()
    prediction_id = started(client)
    client.predictions.succeed(prediction_id, {"text": "a"})
    assert client.get(f"/demo/{prediction_id}")["demo_outputs"] == [{"text": "a"}]


def test_the_demo_of_a_model_without_one() -> None:
    """It is a prediction whose outputs are shown."""
    client = Client(n=NUMBERS)
    client.post("/demo", [{"x": [1, 2]}])
    assert client.predictions.views[FIRST].operation == "predict"
    client.predictions.succeed(FIRST, {"y": 3.0})
    assert client.get(f"/demo/{FIRST}")["demo_outputs"] == [{"y": 3.0}]


# --- events ---


def test_events() -> None:
    """Status and log as server-sent events, a comment in silences, the terminal status last."""
    client = Client()
    prediction_id = started(client)
    running, failed = view(FIRST, progress=Progress.RUNNING), view(FIRST, progress=Progress.FAILED, error="a\nb")
    client.predictions.scripts[FIRST] = [
        Event("status", view(FIRST)),
        Event("status", running),
        Event("idle", running),
        Event("log", running, "one\ntwo\n"),
        Event("status", failed),
    ]
    reply = client.send("GET", f"/predictions/{prediction_id}/events")
    assert (reply.status, reply.headers[b"cache-control"]) == (200, b"no-store")
    assert reply.headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert reply.parts == [
        b'event: status\ndata: {"status":"pending","error_message":null}\n\n',
        b'event: status\ndata: {"status":"running","error_message":null}\n\n',
        b": keep-alive\n\n",
        b'event: log\ndata: {"text":"one\\ntwo\\n"}\n\n',
        b'event: status\ndata: {"status":"failed","error_message":"a\\nb"}\n\n',
    ]


def test_a_client_that_leaves_ends_the_stream() -> None:
    """The service hears of it."""
    client = Client()
    prediction_id = started(client)
    client.predictions.scripts[FIRST] = [Event("status", view(FIRST))] * 3

    async def whole() -> None:
        request = client.request("GET", f"/predictions/{prediction_id}/events")
        route = client.dialect.route(request)
        answer = await route.handler(request, *route.args)
        assert not isinstance(answer.body, bytes)
        await anext(answer.body)
        await answer.body.aclose()
        assert client.predictions.ended_streams == 1

    asyncio.run(whole())


# --- outputs ---


def outputs(*values: Any) -> Any:
    """What these outputs become, read from the answer's bytes."""
    client = Client()
    client.predictions.work = lambda _: list(values)
    reply = client.send("POST", "/predict", [ROW])
    assert reply.status == 200, reply.body
    text = reply.body.decode()
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))["outputs"]


def test_files_are_data_uris_wherever_they_are() -> None:
    """In fields, lists, dicts and objects; with their own type, or that of any bytes where it could break out."""
    blob = Blob(b"hi", "image/png", "a.png")
    uri = "data:image/png;base64,aGk="
    assert outputs({"a": blob, "b": [blob], "c": {"d": {"e": blob}}}) == [{"a": uri, "b": [uri], "c": {"d": {"e": uri}}}]
    assert outputs({"a": Blob(b"hi", 'x/"y', "")}) == [{"a": "data:application/octet-stream;base64,aGk="}]
    assert outputs({"a": Blob(b"", "text/plain", "")}) == [{"a": "data:text/plain;base64,"}]


def test_large_files_are_whole() -> None:
    """They are written in a thread."""
    (found,) = outputs({"a": Blob(bytes(300_000), "image/png", "")})
    assert found["a"] == "data:image/png;base64," + "A" * 400_000


def test_what_is_not_finite_is_null() -> None:
    """Wherever it stands, also beside what only the slow writer takes."""
    odd = [math.nan, math.inf, -math.inf, 1.5]
    assert outputs({"a": odd, "b": math.nan}) == [{"a": [None, None, None, 1.5], "b": None}]
    assert outputs({"a": odd, "b": 2**70}) == [{"a": [None, None, None, 1.5], "b": 2**70}]
    assert outputs({"a": np.array(odd)}, {"a": np.float32("nan")}) == [{"a": [None, None, None, 1.5]}, {"a": None}]


def test_arrays_and_bytes() -> None:
    """Arrays of any layout are nested lists; bytes are text where they can be."""
    matrix = np.arange(6, dtype="f4").reshape(2, 3)
    assert outputs({"a": matrix, "b": matrix.T, "c": np.array(["x", b"y"], object), "d": np.array(5)}) == [
        {"a": [[0, 1, 2], [3, 4, 5]], "b": [[0, 3], [1, 4], [2, 5]], "c": ["x", "y"], "d": 5}
    ]
    assert outputs({"a": b"text", "b": b"\xff"}) == [{"a": "text", "b": "data:application/octet-stream;base64,/w=="}]


def test_text_that_utf8_does_not_have() -> None:
    """Half a surrogate pair becomes a question mark."""
    assert outputs({"a": "x\ud800y", "b": Blob(b"hi", "a/b", "")}) == [{"a": "x?y", "b": "data:a/b;base64,aGk="}]


def test_output_that_is_deeper_than_can_be_written() -> None:
    """An error of the model, not of the server."""
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    client = Client()
    client.predictions.work = lambda _: [{"a": deep}]
    found = client.refused(500, "POST", "/predict", [ROW])
    assert found == {"detail": "the model's output is nested deeper than 200 levels", "error_kind": "model_failed"}


def test_pictures_stay_strings_until_they_are_fetched() -> None:
    """The service decodes them: here a data URI is only looked at."""
    client = Client(p=PICTURES)
    client.post("/predictions", [{"image": "data:image/png;base64,aGk="}])
    assert client.predictions.given[FIRST] == [{"image": "data:image/png;base64,aGk=", "strength": 0.5}]


def test_text_and_demo_of_two_models() -> None:
    """The first that was named is meant at the root."""
    client = Client(a=TEXT, b=NUMBERS)
    assert client.predictions.views[started(client)].model == "a"
    assert client.predictions.views[started(client, "/models/b/predictions", [{"x": [1, 2]}])].model == "b"
