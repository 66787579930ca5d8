"""Properties: no request breaks the server, and what goes in comes out.

The environment variable DRAGOMAN_FUZZ_EXAMPLES sets how many requests each property tries.
"""

import base64
import gzip
import json
import os
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dragoman.core import tensors as t
from dragoman.core.tensors import DATATYPES, Array, Tensor, TensorSpec
from tests.fakes_tfs import Client, Reply, Toy, array, beacon, digits, echo, half_plus, signature

fuzz = settings(
    max_examples=int(os.environ.get("DRAGOMAN_FUZZ_EXAMPLES", "150")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)

CLIENT = Client(
    {
        **{
            name: echo(datatype)
            for name, datatype in DATATYPES.items()
            if name not in ("FP16", "BF16", "UINT16", "COMPLEX64", "COMPLEX128")
        },
        "any": echo(None),
        "undeclared": Toy({"": signature([], [])}, lambda inputs, _: inputs.items),
        "shaped": Toy(
            {"": signature([TensorSpec("x", t.FP32, (-1, 1))], [TensorSpec("x", t.FP32, (-1, 1))])}, lambda inputs, _: inputs.items
        ),
        "half_plus_two": half_plus(2),
        "beacon": beacon(),
        "mnist": digits(),
    },
    labels={"FP32": {"stable": "1"}},
)


def send(method: str, path: str | bytes, body: Any = b"", headers: dict[str, str] | None = None) -> Reply:
    """Send one request; whatever it is, the answer is complete and no fault of the server."""
    reply = CLIENT.send(method, path, body, headers)
    assert reply.status < 500, reply.body
    if reply.status >= 400:
        assert reply.error
        assert len(reply.error) < 2000
    else:
        assert type(reply.json) is dict
    return reply


numbers = (
    st.integers(-(2**70), 2**70)
    | st.sampled_from([0, 1, -1, 127, 128, 2**31, 2**32, 2**53 + 1, 2**63, 2**64])
    | st.floats(allow_nan=True, allow_infinity=True)
)
texts = st.text(max_size=8) | st.sampled_from(["x", "tag", "signal", "sensor", "b64", "AA==", "_w==", "NaN"])
leaves = st.none() | st.booleans() | numbers | texts | st.fixed_dictionaries({"b64": st.sampled_from(["", "AA==", "AA", "_", 3])})
boxes = st.builds(lambda leaf, shape: np.full(shape, leaf, object).tolist(), leaves, hnp.array_shapes(max_dims=4, max_side=3, min_side=0))
values = st.recursive(
    leaves | boxes | st.lists(numbers, max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)
documents = st.dictionaries(st.sampled_from(["instances", "inputs", "signature_name", "examples", "x"]), values, max_size=3) | st.builds(
    lambda key, value: {key: value}, st.sampled_from(["instances", "inputs"]), values
)
models = st.sampled_from(sorted(CLIENT.statuses))


@fuzz
@given(model=models, document=documents)
def test_documents(model: str, document: Any) -> None:
    """Any JSON document, with the keys that mean something."""
    send("POST", f"/v1/models/{model}:predict", json.dumps(document))


@fuzz
@given(model=models, document=documents, cut=st.integers(0, 200), insert=st.binary(max_size=4), zipped=st.booleans())
def test_broken_documents(model: str, document: Any, cut: int, insert: bytes, zipped: bool) -> None:
    """Documents with something in the middle that does not belong there, compressed or not, and cut off."""
    body = json.dumps(document).encode()
    place = cut % (len(body) + 1)
    body = body[:place] + insert + body[place + cut // 100 :]
    headers = {"Content-Encoding": "gzip"} if zipped else {}
    send("POST", f"/model-serving/{model}:predict", gzip.compress(body, 1)[: 400 - cut] if zipped else body, headers)


@fuzz
@given(model=models, body=st.binary(max_size=60) | st.text(alphabet='{}[]":,0123.eE-+NaInfity \\ubtrlse64x', max_size=60))
def test_bytes(model: str, body: bytes | str) -> None:
    """Any bytes at all."""
    send("POST", f"/v1/models/{model}:predict", body)


WORDS = "/ : v1 V1 models model-serving FP32 versions labels stable 1 0 99999999999999999999 predict PREDICT metadata %2F %00 % %zz é \u2028 ? .."
pieces = st.sampled_from([*WORDS.split(" "), " "])


@fuzz
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "B\u00e9"]),
    path=st.lists(pieces | st.text(max_size=3), max_size=10).map("".join),
)
def test_paths(method: str, path: str) -> None:
    """Any method on any path below the prefixes."""
    send(method, f"/v1/models/{path}".encode("utf-8", "surrogatepass"), b'{"instances": [1]}')


TAKEN = sorted(set(CLIENT.statuses) & set(DATATYPES) - {"BYTES"})


@st.composite
def arrays(draw: st.DrawFn, min_dims: int) -> tuple[str, Array]:
    name = draw(st.sampled_from(TAKEN))
    shape = draw(hnp.array_shapes(min_dims=min_dims, max_dims=4, min_side=1, max_side=5) | st.just((700, 9)))
    return name, draw(hnp.arrays(DATATYPES[name].numpy, shape, fill=hnp.from_dtype(DATATYPES[name].numpy)))


@fuzz
@given(arrays(min_dims=0))
def test_columns_come_back(drawn: tuple[str, Array]) -> None:
    """Any array through column form and back is the same array."""
    name, sent = drawn
    reply = send("POST", f"/v1/models/{name}:predict", {"inputs": sent.tolist()})
    assert reply.status == 200
    np.testing.assert_array_equal(np.array(reply.json["outputs"], sent.dtype), sent)


@fuzz
@given(arrays(min_dims=1))
def test_rows_come_back(drawn: tuple[str, Array]) -> None:
    """Any array through row form, named or not, and back is the same array."""
    name, sent = drawn
    for rows in (sent.tolist(), [{"x": row} for row in sent.tolist()]):
        reply = send("POST", f"/v1/models/{name}:predict", {"instances": rows})
        assert reply.status == 200
        np.testing.assert_array_equal(np.array(reply.json["predictions"], sent.dtype), sent)


@fuzz
@given(st.lists(st.binary(max_size=6), min_size=1, max_size=5))
def test_bytes_come_back(elements: list[bytes]) -> None:
    """Any strings through base64 and back are the same bytes; what is text comes back as text."""
    sent = [{"b64": base64.b64encode(element).decode()} for element in elements]
    for key, answer in (("instances", "predictions"), ("inputs", "outputs")):
        got = send("POST", "/v1/models/BYTES:predict", {key: sent}).json[answer]
        assert [g.encode() if isinstance(g, str) else base64.b64decode(g["b64"]) for g in got] == elements


@fuzz
@given(st.lists(arrays(min_dims=1), min_size=2, max_size=4), st.integers(1, 4))
def test_rows_of_several_outputs_are_the_columns(drawn: list[tuple[str, Array]], rows: int) -> None:
    """Row form and column form of the same outputs hold the same numbers."""
    outputs = [Tensor(f"o{i}", DATATYPES[name], np.resize(made, (rows, *made.shape[1:]))) for i, (name, made) in enumerate(drawn)]
    outputs.append(Tensor("text", t.BYTES, array([b"a,b"] * rows, "O")))
    toy = Toy({"": signature([TensorSpec("x", t.FP32, None)], [])}, lambda _, __: outputs)
    ours = Client({"m": toy})
    columns = ours.predict("m", {"inputs": 1}).json["outputs"]
    predictions = ours.predict("m", {"instances": [1]}).json["predictions"]
    assert repr({name: [row[name] for row in predictions] for name in columns}) == repr(columns)
