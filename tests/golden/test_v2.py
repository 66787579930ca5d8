"""Recorded requests and replies of the Open Inference Protocol, byte for byte: `v2/NAME.request` gives `v2/NAME.reply`.

Both files are an HTTP message without its noise: a first line (method and path, or status), the headers that matter, an empty line, and the
body as it is. After an intended change of the wire, `python -m tests.golden.test_v2` writes the replies anew; read the difference.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.v2.client import Client, everything

FOLDER = Path(__file__).with_name("v2")
REQUESTS = sorted(FOLDER.glob("*.request"))


@pytest.fixture(scope="module")
def server() -> Iterator[Client]:
    with everything() as client:
        yield client


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in REQUESTS])
def test_recorded(server: Client, path: Path) -> None:
    """The same bytes in give the same bytes out."""
    assert answer(server, path.read_bytes()) == path.with_suffix(".reply").read_bytes()


def test_nothing_is_recorded_twice_or_half() -> None:
    """Every request has its reply and every reply its request."""
    assert len(REQUESTS) > 20
    assert {path.stem for path in REQUESTS} == {path.stem for path in FOLDER.glob("*.reply")}


def answer(server: Client, message: bytes) -> bytes:
    """The reply to a recorded request, in the form in which it is recorded."""
    head, _, body = message.partition(b"\n\n")
    first, *lines = head.decode().splitlines()
    method, path = first.split(" ")
    headers = [(name.encode(), value.encode()) for name, value in (line.split(": ") for line in lines)]
    reply = server.send(method, path, body, headers)
    shown = [str(reply.status), f"content-type: {reply.media_type.decode()}"]
    shown += [f"{name.decode()}: {value.decode()}" for name, value in sorted(reply.headers.items())]
    return "\n".join(shown).encode() + b"\n\n" + reply.body


if __name__ == "__main__":
    with everything() as client:
        for request in REQUESTS:
            request.with_suffix(".reply").write_bytes(answer(client, request.read_bytes()))
