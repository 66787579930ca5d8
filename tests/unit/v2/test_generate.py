"""generate and generate_stream (requirement O24): flat objects to tensors and back, and server-sent events."""

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest

from dragoman.core.errors import ServingError
from dragoman.core.tensors import BYTES, FP16, FP32, INT64, Signature, Tensors, TensorSpec
from tests.unit.v2.client import Client, constant, entry, identity, tensor

TEXT = "/v2/models/text/generate"
WORDS = "/v2/models/words/generate_stream"


def events(body: bytes) -> list[Any]:
    """The JSON of every event of a stream."""
    *blocks, rest = body.split(b"\n\n")
    assert rest == b""
    assert all(block.startswith(b"data: ") for block in blocks)
    return [json.loads(block[6:]) for block in blocks]


def test_reply_to_the_byte(server: Client) -> None:
    """One-element tensors stand alone; the id comes first and only if there was one."""
    assert server.send("POST", TEXT, {"text_input": "hey"}).body == b'{"model_name":"text","model_version":"1","text_output":"HEY"}'
    assert server.send("POST", TEXT, {"id": "7", "text_input": ""}).body == (
        b'{"id":"7","model_name":"text","model_version":"1","text_output":""}'
    )


def test_versions(server: Client) -> None:
    """The version may stand in the path."""
    assert server.send("POST", "/v2/models/text/versions/1/generate", {"text_input": "a"}).status == 200
    assert server.send("POST", "/v2/models/text/versions/2/generate", {"text_input": "a"}).status == 404


def test_other_inputs_and_parameters(server: Client) -> None:
    """Keys that name an input are tensors, wherever they stand; all others are parameters."""
    assert server.send("POST", TEXT, {"text_input": "a", "times": 3}).json["text_output"] == "AAA"
    assert server.send("POST", TEXT, {"text_input": "a", "twice": True}).json["text_output"] == "AA"
    assert server.send("POST", TEXT, {"text_input": "a", "parameters": {"twice": True, "times": [2]}}).json["text_output"] == "AAAA"
    assert server.send("POST", TEXT, {"text_input": "a", "parameters": None, "priority": 1, "timeout": 10_000_000}).status == 200


def test_lists(server: Client) -> None:
    """Several values fill the variable dimension, and come back as a list."""
    assert server.send("POST", TEXT, {"text_input": ["a", "b"]}).json["text_output"] == ["A", "B"]


@pytest.mark.parametrize(
    ("declared", "value", "shape"),
    [
        ((-1, 4), [1, 2, 3, 4], [1, 4]),
        ((-1, -1), [1, 2, 3], [1, 3]),
        ((2, -1), [1, 2, 3, 4], [2, 2]),
        ((-1, 1), [1, 2], [2, 1]),
        ((), 5, []),
        ((1,), 5, [1]),
        ((-1,), [], [0]),
        ((2, 2), [[1, 2], [3, 4]], [2, 2]),
    ],
    ids=str,
)
def test_shapes(declared: tuple[int, ...], value: Any, shape: list[int]) -> None:
    """Fixed dimensions first, the innermost variable one takes the rest."""
    seen: list[Any] = []

    def run(call: Any) -> Tensors:
        seen.append(list(call.inputs.items[0].array.shape))
        return Tensors([tensor("y", INT64, [1])])

    with Client([entry("shapes", Signature(inputs=(TensorSpec("x", FP32, declared),)), run)]) as server:
        assert server.send("POST", "/v2/models/shapes/generate", {"x": value}).status == 200
    assert seen == [shape]


@pytest.mark.parametrize(("declared", "value"), [((-1, 4), [1, 2, 3]), ((2,), 1), ((1,), [1, 2]), ((-1, 0), [1])], ids=str)
def test_values_that_do_not_fill_the_shape(declared: tuple[int, ...], value: Any) -> None:
    """400 that names the input and its shape."""
    with Client([identity(FP32, declared, "shapes")]) as server:
        reply = server.send("POST", "/v2/models/shapes/generate", {"x": value})
    assert reply.status == 400
    assert "'x'" in reply.error
    assert "shape" in reply.error


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"{", "JSON"),
        (b"", "JSON"),
        (b"[]", "object"),
        ({}, "'text_input'"),
        ({"text_input": 5}, "5"),
        ({"text_input": None}, "null"),
        ({"text_input": {"a": 1}}, "'text_input'"),
        ({"text_input": ["a", ["b"]]}, "'text_input'"),
        ({"text_input": "a", "id": 5}, "id"),
        ({"text_input": "a", "times": "x"}, "'times'"),
        ({"text_input": "a", "odd": {}}, "'odd'"),
        ({"text_input": "a", "odd": [1]}, "'odd'"),
        ({"text_input": "a", "parameters": []}, "parameters"),
        ({"text_input": "a", "parameters": {"text_input": "b"}}, "twice"),
        ({"text_input": "a", "odd": 1, "parameters": {"odd": 2}}, "twice"),
        ({"text_input": "a", "triton_odd": 1}, "reserved"),
        ({"text_input": "a", "timeout": -1}, "timeout"),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", [TEXT, f"{TEXT}_stream"])
def test_wrong_requests(server: Client, path: str, body: Any, word: str) -> None:
    """All of it is 400 with a text, for the stream too, since nothing has been sent yet."""
    reply = server.send("POST", path, body)
    assert reply.status == 400
    assert word in reply.error


def test_unknown_models(server: Client) -> None:
    """404 as everywhere."""
    assert server.send("POST", "/v2/models/nobody/generate", {"text_input": "a"}).status == 404
    assert server.send("POST", "/v2/models/nobody/generate_stream", {"text_input": "a"}).status == 404


@pytest.mark.parametrize("path", [TEXT, WORDS])
def test_content_encoding_is_refused(server: Client, path: str) -> None:
    """As in Triton; `identity` is nothing."""
    body = {"text_input": "a"}
    assert "gzip" in server.send("POST", path, body, [(b"content-encoding", b"gzip")]).error
    assert server.send("POST", path, body, [(b"content-encoding", b"identity")]).status == 200


def test_half_floats_cannot_be_generated() -> None:
    """An FP16 output is 400 with the way out, and an FP16 input too."""
    with Client([constant("half", tensor("y", FP16, [1])), identity(FP16, (1,))]) as server:
        assert "binary" in server.send("POST", "/v2/models/half/generate", {"x": 1}).error
        assert "FP16" in server.send("POST", "/v2/models/identity_fp16/generate", {"x": 1}).error


def test_numbers_come_back_as_numbers() -> None:
    """Not only text models: every output by its name, NaN as null."""
    values = (tensor("a", INT64, [7]), tensor("b", FP32, [[1.5, float("nan")]]), tensor("c", FP32, [float("nan")]), tensor("d", FP32, []))
    with Client([constant("numbers", *values)]) as server:
        reply = server.send("POST", "/v2/models/numbers/generate", {"x": 1}).json
    assert reply == {"model_name": "numbers", "model_version": "1", "a": 7, "b": [1.5, None], "c": None, "d": []}


# --- streams ---


def test_stream(server: Client) -> None:
    """One event per response; the media type says what it is."""
    reply = server.send("POST", WORDS, {"id": "7", "text_input": "to be  or"})
    assert reply.status == 200
    assert reply.media_type == b"text/event-stream; charset=utf-8"
    assert reply.body.startswith(b'data: {"id":"7","model_name":"words","model_version":"1","text_output":"to"}\n\n')
    assert [event["text_output"] for event in events(reply.body)] == ["to", "be", "or"]


def test_stream_of_a_model_that_does_not_stream(server: Client) -> None:
    """It is one event."""
    reply = server.send("POST", f"{TEXT}_stream", {"text_input": "line\nline"})
    assert [event["text_output"] for event in events(reply.body)] == ["LINE\nLINE"]


def test_an_error_after_the_first_event_is_an_event(server: Client) -> None:
    """The status has gone out; the stream ends with the error."""
    reply = server.send("POST", WORDS, {"text_input": "good bad good"})
    assert reply.status == 200
    first, last = events(reply.body)
    assert first["text_output"] == "good"
    assert last == {"error": "model 'words' failed: a bad word"}


def test_an_error_before_the_first_event_is_an_error(server: Client) -> None:
    """Status and body are those of any failed request."""
    reply = server.send("POST", WORDS, {"text_input": "bad"})
    assert reply.status == 500
    assert "bad word" in reply.error


def test_an_empty_stream_is_an_event_without_outputs(server: Client) -> None:
    """A generator that yields nothing has not failed."""
    reply = server.send("POST", WORDS, {"text_input": ""})
    assert reply.status == 200
    assert events(reply.body) == [{"model_name": "words", "model_version": "1"}]


def test_a_client_that_leaves_ends_the_stream(server: Client) -> None:
    """Closing the body after one event ends the request: nothing is in flight afterwards."""
    found = server.gateway.find("words")

    async def leave() -> None:
        request = server.request("POST", WORDS, {"text_input": "one two three"})
        route = server.dialect.route(request)
        body = (await route.handler(request, *route.args)).body
        assert not isinstance(body, bytes)
        assert b"one" in await anext(body)
        assert found.in_flight == 1
        await body.aclose()

    server.run(leave())
    assert found.in_flight == 0


def test_bytes_that_are_not_text_end_a_stream() -> None:
    """An event that JSON cannot carry is an error event or an error answer, never half a line."""
    with Client([constant("raw", tensor("y", BYTES, [b"\xff"]))]) as server:
        reply = server.send("POST", "/v2/models/raw/generate_stream", {"x": 1})
    assert reply.status == 400
    assert "'y'" in reply.error


def test_cancelling_a_request_cancels_the_stream(server: Client) -> None:
    """A task that is cancelled while it waits for the next event leaves nothing in flight."""
    found = server.gateway.find("words")

    async def cancelled() -> None:
        request = server.request("POST", WORDS, {"text_input": "one two"})
        route = server.dialect.route(request)
        task = asyncio.ensure_future(route.handler(request, *route.args))
        task.cancel()
        with suppress(asyncio.CancelledError, ServingError):
            await task

    server.run(cancelled())
    assert found.in_flight == 0
