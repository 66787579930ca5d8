"""Requests of Submarine's API and their answers, to the byte: one after the other, on a registry with one version of the model `example`."""

import asyncio
import json
from pathlib import Path

from tests.fakes_submarine import submarine

CASES = json.loads((Path(__file__).parent / "submarine" / "serve.json").read_text("utf-8"))


def test_answers_are_as_recorded(tmp_path: Path) -> None:
    """Status and body; what the client reads of them must not change unnoticed."""

    async def run() -> None:
        async with submarine(tmp_path) as client:
            await client.register("example")
            for case in CASES:
                body = None if case["body"] is None else case["body"].encode()
                reply = await client.ask(case["method"], case["target"], body, content_type=case["type"])
                assert (reply.status, reply.text.decode()) == (case["status"], case["answer"]), case["why"]

    asyncio.run(run())
