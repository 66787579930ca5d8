"""Wire compatibility with tritonclient.http (requirement O29), without a socket: its own functions make the bodies and read the replies."""

from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import tritonclient.http as http

from dragoman.core.tensors import FP32
from tests.unit.v2.client import FLOWER, WIRE_DATATYPES, Client, Reply, identity, iris


def infer(server: Client, model: str, inputs: list[Any], headers: tuple[tuple[bytes, bytes], ...] = (), **options: Any) -> Any:
    """What InferenceServerClient.infer does, but for the connection."""
    reply = post(server, model, inputs, headers, **options)
    assert reply.status == 200, reply.body
    length = reply.headers.get(b"inference-header-content-length")
    encoding = reply.headers.get(b"content-encoding")
    return http.InferenceServerClient.parse_response_body(
        reply.body, header_length=int(length) if length else None, content_encoding=encoding.decode() if encoding else None
    )


def post(server: Client, model: str, inputs: list[Any], headers: tuple[tuple[bytes, bytes], ...] = (), **options: Any) -> Reply:
    body, length = http.InferenceServerClient.generate_request_body(inputs, **options)
    sent = list(headers) if length is None else [*headers, (b"inference-header-content-length", str(length).encode())]
    return server.infer(model, body, sent)


def given(name: str, array: Any, datatype: str, *, binary: bool = True) -> Any:
    tensor = http.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def sample(datatype: str) -> Any:
    """Two rows of values as tritonclient takes them."""
    if datatype == "BYTES":
        return np.array([["a", "é"], ["", "x\x00y"]], dtype=object)
    dtype: Any = next(d.numpy for d in WIRE_DATATYPES if d.name == datatype)
    return np.array([[1, 0], [7, 100]]).astype(dtype)


# FP16 has no JSON form. How BF16 arrays are made differs between releases of the client; test_binary.py has its bits.
NAMES = [d.name for d in WIRE_DATATYPES if d.name != "BF16"]
FORMS = [(name, i, o) for name in NAMES for i in (True, False) for o in (True, False) if name != "FP16" or (i and o)]


@pytest.mark.parametrize(("datatype", "binary_in", "binary_out"), FORMS)
def test_every_datatype(server: Client, datatype: str, binary_in: bool, binary_out: bool) -> None:
    """Both ways, in every form that the client can send and read."""
    array = sample(datatype)
    wanted = [http.InferRequestedOutput("y", binary_data=binary_out)]
    result = infer(server, f"identity_{datatype.lower()}", [given("x", array, datatype, binary=binary_in)], outputs=wanted)
    back = result.as_numpy("y")
    if datatype == "BYTES":
        back = np.array([e.decode() if isinstance(e, bytes) else e for e in back.ravel()], object).reshape(back.shape)
    assert back.shape == array.shape
    assert back.tolist() == array.tolist()


def test_no_outputs_named(server: Client) -> None:
    """The client asks for binary data then, with an id and all its options."""
    flower = np.array([FLOWER], np.float32)
    result = infer(
        server,
        "iris",
        [given("input", flower, "FP32")],
        request_id="42",
        sequence_id=7,
        sequence_start=True,
        priority=1,
        timeout=10_000_000,
        parameters={"own": "value", "number": 5},
    )
    assert result.get_response()["id"] == "42"
    assert result.get_response()["model_version"] == "2"
    assert result.as_numpy("label").tolist() == [1]
    assert result.as_numpy("probabilities").shape == (1, 3)


def test_mixed_forms(server: Client) -> None:
    """One input as JSON, one binary; one output as JSON, one binary."""
    a, b = np.array([1, 2], np.float32), np.array([10, 20], np.float32)
    result = infer(server, "adder", [given("a", a, "FP32", binary=False), given("b", b, "FP32")])
    assert result.as_numpy("c").tolist() == [11.0, 22.0]
    outputs = [http.InferRequestedOutput("label", binary_data=False), http.InferRequestedOutput("probabilities", binary_data=True)]
    result = infer(server, "iris", [given("input", np.array([FLOWER], np.float32), "FP32")], outputs=outputs)
    assert result.as_numpy("label").tolist() == [1]
    assert result.as_numpy("probabilities").dtype == np.float32


@pytest.mark.parametrize("binary", [True, False])
def test_classes(server: Client, binary: bool) -> None:
    """class_count, in both forms."""
    outputs = [http.InferRequestedOutput("probabilities", binary_data=binary, class_count=2)]
    result = infer(server, "iris", [given("input", np.array([FLOWER], np.float32), "FP32")], outputs=outputs)
    classes = [e.decode() if isinstance(e, bytes) else e for e in result.as_numpy("probabilities").ravel()]
    assert classes == ["20.400000:1:versicolor", "10.200000:0:setosa"]


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate"])
def test_compressed_replies(server: Client, encoding: bytes) -> None:
    """The client inflates what it asked for."""
    result = infer(server, "iris", [given("input", np.array([FLOWER], np.float32), "FP32")], ((b"accept-encoding", encoding),))
    assert result.as_numpy("label").tolist() == [1]


def test_big_tensors(server: Client) -> None:
    """An image keeps its bits."""
    image = np.random.default_rng(5).random((1, 3, 224, 224), dtype=np.float32)
    assert np.array_equal(infer(server, "identity_fp32", [given("x", image, "FP32")]).as_numpy("y"), image)


def test_shared_memory_is_refused_cleanly(server: Client) -> None:
    """The client's error is ours in its words: an `error` text that it can show."""
    tensor = http.InferInput("input", [1, 4], "FP32")
    tensor.set_shared_memory("region", 16)
    assert "shared memory" in post(server, "iris", [tensor]).error
    wanted = http.InferRequestedOutput("label")
    wanted.set_shared_memory("region", 8)
    assert "shared memory" in post(server, "iris", [given("input", np.array([FLOWER], np.float32), "FP32")], outputs=[wanted]).error


def test_names_as_the_client_quotes_them() -> None:
    """Spaces, slashes and letters beyond ASCII in a model's name."""
    for name in ("a b", "größe", "50%", "a/b"):
        with Client([iris(name=name), identity(FP32)]) as server:
            reply = server.send("GET", f"/v2/models/{quote(name, safe='')}/ready")
            assert reply.json == {"name": name, "ready": True}
