"""One server for all tests of this folder; requests leave nothing behind in it."""

from collections.abc import Iterator

import pytest

from tests.unit.v2.client import Client, everything


@pytest.fixture(scope="session")
def server() -> Iterator[Client]:
    with everything() as client:
        yield client
