"""Requests of many clients through a real servable, which joins them: each gets its own answer."""

import asyncio
import random
from typing import Any

import numpy as np

from dragoman.core import tensors as t
from dragoman.core.errors import invalid
from dragoman.core.model import BatchPolicy, Call, ModelSpec
from dragoman.core.tensors import Rows, Tensor, Tensors
from dragoman.hosting.servable import Cost, LocalServable
from dragoman.serving.gateway import Entry
from tests.fakes_tfs import Client, half_plus


class Half:
    """y = x / 2 + 2 over rows of one float."""

    signatures = half_plus(2).signatures
    operations = frozenset({"predict"})
    platform = "toy"
    concurrent = False

    def __init__(self) -> None:
        self.batches: list[int] = []

    def predict(self, call: Call) -> Tensors | Rows:
        assert isinstance(call.inputs, Tensors)
        (x,) = call.inputs.items
        if x.array.ndim != 2 or x.array.shape[1] != 1:
            raise invalid(f"input 'x' has shape {list(x.array.shape)}, expected [-1, 1]")
        self.batches.append(len(x.array))
        return Tensors([Tensor("y", t.FP32, x.array / np.float32(2) + np.float32(2))])

    def close(self) -> None: ...


def test_joined_requests_get_their_own_answers() -> None:
    """Rows with and without the last dimension, columns, several rows and faulty ones, all at once."""
    model = Half()

    async def run() -> None:
        client = Client({"half": half_plus(2)})
        spec = ModelSpec("half", batch=BatchPolicy(max_size=16))
        servable = LocalServable(spec, [model], Cost())
        entry = Entry(spec, servable)
        client.gateway.swap({("half", ""): entry})
        generator = random.Random(7)

        async def one(index: int) -> None:
            numbers = [float(generator.randrange(1000)) for _ in range(generator.randrange(1, 4))]
            halves = [number / 2 + 2 for number in numbers]
            body: Any
            expected: Any
            match index % 4:
                case 0:
                    body, expected = {"instances": numbers}, {"predictions": halves}
                case 1:
                    body, expected = {"instances": [[n] for n in numbers]}, {"predictions": [[h] for h in halves]}
                case 2:
                    body, expected = {"inputs": {"x": numbers}}, {"outputs": halves}
                case _:
                    body, expected = {"inputs": [[n, n] for n in numbers]}, {}
            reply = await client.ask(client.request("POST", "/v1/models/half:predict", body))
            if expected:
                assert (reply.status, reply.json) == (200, expected)
            else:
                assert reply.status == 400
                assert "expected [-1, 1]" in reply.error

        await asyncio.gather(*(one(index) for index in range(200)))
        assert entry.in_flight == 0
        await servable.close()

    asyncio.run(run())
    assert max(model.batches) > 4  # they were joined
