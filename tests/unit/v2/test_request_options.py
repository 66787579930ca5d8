"""What rides along with a request: compression both ways (O13), parameters, time-out and priority (O30, O31), shared memory (O26)."""

import asyncio
import gzip
import json
import math
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dragoman.core.model import InferRequest, InferResponse, ModelSpec
from dragoman.core.tensors import FP32, Signature, Tensors, TensorSpec
from dragoman.dialects.v2.codec import decode
from dragoman.hosting.servable import Cost, LocalServable
from dragoman.serving.gateway import Entry
from tests.fakes import FakeModel
from tests.unit.v2.client import FLOWER, GOOD, Client, Headers, Reply, entry, iris, one_input, tensor, with_binary

UNPACK: dict[bytes, Callable[[bytes], bytes]] = {b"gzip": gzip.decompress, b"deflate": zlib.decompress}
BODY = json.dumps(GOOD).encode()


def encoded(name: bytes) -> Headers:
    return [(b"content-encoding", name)]


def accept(value: bytes) -> Headers:
    return [(b"accept-encoding", value)]


# --- compression ---


@pytest.mark.parametrize("name", list(UNPACK))
@pytest.mark.parametrize("size", [4, 40_000])
def test_replies_are_compressed_when_asked(server: Client, name: bytes, size: int) -> None:
    """Small ones too, as in Triton; what comes out is the plain reply."""
    body = one_input([0.5] * size, shape=(size,), name="x")
    plain = server.infer("identity_fp32", body)
    packed = server.infer("identity_fp32", body, accept(name))
    assert packed.headers[b"content-encoding"] == name
    assert packed.media_type == b"application/json"
    assert UNPACK[name](packed.body) == plain.body


@pytest.mark.parametrize(
    ("value", "chosen"),
    [
        (b"gzip;q=0.1, deflate;q=0.9", b"deflate"),
        (b"deflate, gzip", b"deflate"),
        (b"gzip, deflate, br", b"gzip"),
        (b"br", None),
        (b"*", None),
        (b"identity", None),
        (b"gzip;q=0", None),
        (b"", None),
        (b"GZIP", b"gzip"),
        (b"gzip;q=x", None),
    ],
)
def test_the_best_encoding_is_chosen(server: Client, value: bytes, chosen: bytes | None) -> None:
    """The highest q, the first on a tie; what is not known is not used."""
    assert server.infer("iris", GOOD, accept(value)).headers.get(b"content-encoding") == chosen


def test_binary_replies_are_compressed_whole(server: Client) -> None:
    """The length of the JSON part counts bytes before compression."""
    body = one_input(FLOWER, parameters={"binary_data_output": True})
    plain = server.infer("iris", body)
    packed = server.infer("iris", body, accept(b"gzip"))
    assert packed.media_type == b"application/octet-stream"
    assert gzip.decompress(packed.body) == plain.body
    assert packed.headers[b"inference-header-content-length"] == plain.headers[b"inference-header-content-length"]


def test_errors_are_not_compressed(server: Client) -> None:
    """As in Triton: an error is short and must be readable by anyone."""
    reply = server.infer("iris", b"{", accept(b"gzip"))
    assert b"content-encoding" not in reply.headers
    assert reply.error


@pytest.mark.parametrize("size", [4, 40_000])
def test_requests_may_be_compressed(server: Client, size: int) -> None:
    """JSON and binary bodies, small and large, in both encodings; the length header counts inflated bytes."""
    values = np.random.default_rng(3).random(size, dtype="f4")
    document = {"inputs": [{"name": "x", "shape": [size], "datatype": "FP32", "parameters": {"binary_data_size": 4 * size}}]}
    body, headers = with_binary(document, values.tobytes())
    plain = json.dumps(one_input(values.tolist(), shape=(size,), name="x")).encode()
    for name, squeeze in ((b"gzip", gzip.compress), (b"deflate", zlib.compress), (b"x-gzip", gzip.compress)):
        output = server.infer("identity_fp32", squeeze(body), [*headers, *encoded(name)]).outputs["y"]
        assert np.array_equal(np.array(output["data"], "f4"), values)
        assert server.infer("identity_fp32", squeeze(plain), encoded(name)).outputs["y"] == output


def test_compressed_bombs(server: Client) -> None:
    """What inflates beyond the limit is 413, in one layer or several members, small or large."""
    limit = 1 << 20
    for bomb in (bytes(limit + 1), bytes(8 * limit)):
        for name, squeeze in ((b"gzip", gzip.compress), (b"deflate", zlib.compress)):
            assert server.infer("iris", squeeze(bomb), encoded(name)).status == 413
    members = gzip.compress(bytes(limit // 2)) * 3
    assert server.infer("iris", members, encoded(b"gzip")).status == 413


def test_unknown_encodings_name_the_known_ones(server: Client) -> None:
    """415, and Accept-Encoding says what there is."""
    reply = server.infer("iris", BODY, encoded(b"zstd"))
    assert reply.status == 415
    assert reply.headers[b"accept-encoding"] == b"gzip, deflate"


# --- parameters ---


def asked(server: Client, **parameters: Any) -> InferRequest:
    """The request that the gateway gets."""
    request, _ = decode(server.gateway.find("iris"), json.dumps(one_input(FLOWER, parameters=parameters)).encode(), None)
    return request


def test_what_the_model_gets(server: Client) -> None:
    """Unknown keys and those of sequences; nothing that steers the server."""
    given = {"a": 1, "b": "x", "c": True, "d": 1.5, "sequence_id": 7, "sequence_start": True, "sequence_end": False}
    ours = {"timeout": 10**9, "priority": 3, "binary_data_output": True, "content_type": "np", "empty": None}
    request = asked(server, **given, **ours)
    assert request.parameters == given
    assert request.priority == 3
    assert request.id == ""


def test_the_timeout_is_a_deadline(server: Client) -> None:
    """Microseconds from now; 0 and nothing are none."""
    before = time.monotonic()
    deadline = asked(server, timeout=5_000_000).deadline
    assert before + 5 <= deadline <= time.monotonic() + 5
    assert asked(server, timeout=0).deadline == math.inf
    assert asked(server).deadline == math.inf
    assert asked(server, timeout=(1 << 64) - 1).deadline < math.inf


def test_deadline_and_priority_reach_the_servable() -> None:
    """A request that is late is 503, as in Triton."""
    seen: list[InferRequest] = []
    found = iris()
    inner = found.servable

    class Watching:
        signatures, operations, platform = inner.signatures, inner.operations, inner.platform
        close = inner.close

        async def infer(self, request: InferRequest) -> InferResponse:
            seen.append(request)
            return await inner.infer(request)

    found.servable = Watching()  # type: ignore[assignment]
    with Client([found]) as server:
        server.infer("iris", one_input(FLOWER, id="a", parameters={"timeout": 60_000_000, "priority": 2}))
    assert seen[0].deadline < math.inf
    assert (seen[0].priority, seen[0].dialect, seen[0].id, seen[0].strict) == (2, "v2", "a", True)


def test_late_requests() -> None:
    """A deadline that comes before the answer is 503 in this protocol's shape, however long the model takes."""
    gate = threading.Event()
    spec = ModelSpec("slow")
    signature = Signature(inputs=(TensorSpec("input", FP32, (-1, 4)),))
    model = FakeModel(signature=signature, gate=gate, run=lambda _: Tensors([tensor("y", FP32, [1])]))
    with Client([Entry(spec, LocalServable(spec, [model], Cost()))]) as server:
        reply = server.infer("slow", one_input(FLOWER, parameters={"timeout": 1_000}))
        gate.set()
    assert reply.status == 503
    assert "slow" in reply.error
    assert "deadline" in reply.error


def test_many_at_once_with_bad_ones_among_them(server: Client) -> None:
    """Requirement O20: every answer belongs to its request, and a bad request fails alone."""
    path = "/v2/models/iris/infer"
    good = [one_input([float(i), 0, 0, 0], id=str(i)) for i in range(64)]
    bad = [one_input([float(i), 0, 0], id=str(i)) for i in range(64)]

    async def all_at_once() -> list[Reply]:
        return await asyncio.gather(*(server.ask("POST", path, body) for pair in zip(good, bad, strict=True) for body in pair))

    replies = server.run(all_at_once())
    assert [r.status for r in replies] == [200, 400] * 64
    for index, reply in enumerate(replies[::2]):
        assert reply.json["id"] == str(index)
        assert reply.outputs["probabilities"]["data"] == [index, index * 2, index / 2]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("timeout", -1),
        ("timeout", 1.5),
        ("timeout", "5"),
        ("timeout", True),
        ("priority", -1),
        ("priority", "high"),
        ("priority", 1 << 64),
        ("sequence_id", -1),
        ("sequence_id", 1.5),
        ("sequence_id", True),
        ("sequence_start", 1),
        ("sequence_end", "true"),
        ("binary_data_output", "yes"),
        ("triton_enable_empty_final_response", True),
        ("triton_", 1),
    ],
    ids=str,
)
def test_wrong_values(server: Client, key: str, value: Any) -> None:
    """400 that names the parameter; reserved names are refused whatever they hold (requirement O31)."""
    reply = server.infer("iris", one_input(FLOWER, parameters={key: value}))
    assert reply.status == 400
    assert key in reply.error


@pytest.mark.parametrize("sequence_id", [0, (1 << 64) - 1, "", "call-7"])
def test_sequence_ids(server: Client, sequence_id: Any) -> None:
    """Unsigned numbers and strings."""
    parameters = {"sequence_id": sequence_id, "sequence_start": True, "sequence_end": True}
    assert server.infer("iris", one_input(FLOWER, parameters=parameters)).status == 200


def test_parameters_reach_the_model() -> None:
    """Unknown ones are the model's to read."""
    seen: list[Any] = []

    def run(call: Any) -> Tensors:
        seen.append(dict(call.parameters))
        return Tensors([tensor("y", call.inputs.items[0].datatype, [1])])

    with Client([entry("reads", iris().signatures[""], run)]) as server:
        server.infer("reads", one_input(FLOWER, parameters={"temperature": 0.5, "timeout": 10**9}))
        server.infer("reads", GOOD)
    assert seen == [{"temperature": 0.5}, {}]


# --- shared memory ---


@pytest.mark.parametrize("key", ["shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"])
def test_shared_memory_is_refused(server: Client, key: str) -> None:
    """Requirement O26: a clean 400 for inputs and outputs; the region is never opened."""
    item = {"name": "input", "shape": [1, 4], "datatype": "FP32", "parameters": {key: "region" if key.endswith("region") else 16}}
    for body in ({"inputs": [item]}, one_input(FLOWER, outputs=[{"name": "label", "parameters": item["parameters"]}])):
        reply = server.infer("iris", body)
        assert reply.status == 400
        assert "shared memory" in reply.error
