"""docs/dialects/open-inference-protocol.md is true: its requests are answered, its statuses are those of the error table."""

import json
import re
import struct
from pathlib import Path

import pytest

from dragoman.dialects.v2.answers import STATUS
from tests.unit.v2.client import FLOWER, TEXT, Client, entry, iris, shout

PAGE = (Path(__file__).parents[3] / "docs" / "dialects" / "open-inference-protocol.md").read_text("utf-8")
CURLS = re.findall(r"curl http://localhost:3000(\S+) -d '(.*?)'", PAGE, re.DOTALL)


def test_the_page_has_requests() -> None:
    """The pattern of this test still finds them."""
    assert len(CURLS) >= 3


@pytest.mark.parametrize(("path", "body"), CURLS)
def test_requests_are_answered(path: str, body: str) -> None:
    """Every curl line with a JSON body is 200 for a model such as it names."""
    with Client([iris(), entry("shout", TEXT, shout)]) as server:
        assert server.send("POST", path, body.encode()).status == 200


def test_the_binary_request_is_answered(server: Client) -> None:
    """Its length header is that of the JSON that the line before it writes."""
    document = re.search(r"printf '%s' '(.*?)' > request", PAGE)
    length = re.search(r"Inference-Header-Content-Length: (\d+)'", PAGE)
    assert document
    assert length
    body = document[1].encode() + struct.pack("<4f", *FLOWER)
    json.loads(document[1])
    assert server.infer("iris", body, [(b"inference-header-content-length", length[1].encode())]).status == 200


def test_every_status_is_explained() -> None:
    """The table of the page has each status of the error table, and those that refine it."""
    for status in {*STATUS.values(), 405, 408, 415}:
        assert re.search(rf"^\|[^|]*\b{status}\b", PAGE, re.MULTILINE), status
