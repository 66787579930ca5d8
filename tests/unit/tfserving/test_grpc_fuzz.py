"""Damaged messages to every method: an answer or a status of the caller's doing, whatever comes."""

import asyncio
import random
from typing import Any

import pytest

from dragoman.core import tensors as t
from dragoman.dialects.rpc import Code
from dragoman.proto import messages
from tests.fakes_rpc import Refused, Rpc
from tests.fakes_tfs import echo
from tests.fakes_tfs_grpc import CLASSIFY, Fake, floats, several
from tests.tensor_protos import FIELDS, VALUES, array_of, proto, typed

ROUNDS = 400
FINE = {Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.UNIMPLEMENTED, Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE}
ODD = (b"\xff" * 9 + b"\x01", b"\xff\xff\xff\xff\x0f", b"\x80", b"\x7f", b"\x00")


def example() -> Any:
    made: Any = messages.new("tensorflow.Example")
    made.features.feature["x"].float_list.value.append(1)
    return made


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, dropped, doubled or put in."""
    made = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(made)) if made else 0
        end = at + rng.randrange(1, 8)
        made[at:end] = rng.choice((rng.randbytes(end - at), b"", made[at:end] * 2, rng.choice(ODD)))
    return bytes(made)


def survive(rpc: Rpc, method: str, content: bytes, seed: str) -> None:
    rng = random.Random(seed)

    async def ask() -> None:
        for _ in range(ROUNDS):
            sent = damaged(content, rng)
            answer = await rpc.ask(method, sent)
            assert not isinstance(answer, Refused) or answer.code in FINE, (sent, answer)

    asyncio.run(ask())


@pytest.fixture(scope="module")
def fake() -> Fake:
    return several()


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("Predict", {"model_spec": {"name": "half", "version": {"value": 1}}, "inputs": {"x": floats(1, 2)}, "output_filter": ["y"]}),
        ("Classify", {"model_spec": {"name": "examples"}, "input": {"example_list": {"examples": [example(), example()]}}}),
        (
            "Regress",
            {"model_spec": {"name": "half"}, "input": {"example_list_with_context": {"examples": [example()], "context": example()}}},
        ),
        (
            "MultiInference",
            {
                "tasks": [{"model_spec": {"name": "examples"}, "method_name": CLASSIFY}],
                "input": {"example_list": {"examples": [example()]}},
            },
        ),
        ("GetModelMetadata", {"model_spec": {"name": "half"}, "metadata_field": ["signature_def"]}),
        ("GetModelStatus", {"model_spec": {"name": "half", "version_label": "stable"}}),
    ],
)
def test_every_method_survives(fake: Fake, method: str, fields: dict[str, Any]) -> None:
    """No damage to a request is the server's fault, and none makes it fail otherwise than with a status."""
    rpc = fake.models if method == "GetModelStatus" else fake.predictions
    survive(rpc, method, rpc.message(method, **fields).SerializeToString(), method)


@pytest.mark.parametrize("form", ["typed", "content"])
@pytest.mark.parametrize("datatype", [pytest.param(each, id=each.name) for each in VALUES])
def test_every_datatype_survives(datatype: t.Datatype, form: str) -> None:
    """The same for tensors of every type, in both forms."""
    fields: dict[str, Any] = {FIELDS[datatype]: typed(datatype)}
    if form == "content":
        fields = {"tensor_content": b"\x01\x02\x00\x00\x00\x00abb" if datatype is t.BYTES else array_of(datatype).tobytes()}
    served = Fake({"m": echo(datatype)}, max_inflated=1 << 16)
    message = served.predictions.message("Predict", model_spec={"name": "m"}, inputs={"x": proto(datatype, (2, 3), **fields)})
    survive(served.predictions, "Predict", message.SerializeToString(), f"{datatype}{form}")
