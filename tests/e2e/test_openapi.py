"""What the OpenAPI document promises, schemathesis tries out: documented operations of a running server answer as documented."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from tests.e2e import tungsten_models
from tests.e2e.running import Running, serving
from tests.fuzz.models import make

EXAMPLES = 3
MODELS = ("iris", "flowers", "sums", "shout", "twice", "optional_input", "scalar", "id_INT8", "id_BOOL", "id_FP16", "id_UINT16", "any")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("openapi")
    models = make(folder / "models")
    chosen = Path(folder / "chosen")
    chosen.mkdir()
    for name in MODELS:
        (models / name).rename(chosen / name)
    tungsten = tungsten_models.write(folder / "tungsten")
    with serving(folder, str(tungsten / "text"), str(tungsten / "files"), str(chosen)) as running:
        yield running


@pytest.fixture(scope="module")
def document(server: Running) -> Any:
    return requests.get(f"{server.url}/dragoman/v1/openapi.json", timeout=60).json()


def fits_always(path: str) -> bool:
    """Whether the schema says all that matters. JSON Schema has no words for shape and data, or rows, that must agree with each other, and
    none for what a model itself refuses."""
    return not on_examples(path) and path.startswith(("/dragoman/", "/v1/models/iris/", "/v1/models/scalar/"))


def on_examples(path: str) -> bool:
    return path.endswith((":classify", ":regress"))


def takes_more(path: str) -> bool:
    """Whether a route takes more than its schema says. "7" is a number for Tungsten, as in the original; shapes are left to the model by
    TensorFlow Serving's protocol, and the one of a single number runs on a list of them."""
    return path.startswith(("/models/", "/predict", "/demo", "/v1/models/scalar/"))


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def try_out(operation: Any, mode: GenerationMode, data: st.DataObject) -> None:
    excluded = [] if fits_always(operation.path) else [positive_data_acceptance]
    if takes_more(operation.path):
        excluded.append(negative_data_rejection)
    data.draw(operation.as_strategy(generation_mode=mode)).call_and_validate(excluded_checks=excluded)


def test_operations_answer_as_documented(server: Running) -> None:
    """Every operation: no 5xx, only documented types and bodies, what the schema forbids is refused, what it allows is taken."""
    described = schemathesis.openapi.from_url(f"{server.url}/dragoman/v1/openapi.json")
    operations = [result.ok() for result in described.get_all_operations()]
    assert len(operations) >= 4 + 2 * len(MODELS) - 2 + 4 * len(MODELS) + 20
    for operation in operations:
        if on_examples(operation.path) and "/iris/" not in operation.path:
            continue  # they are described alike for all
        try_out(operation, GenerationMode.POSITIVE)
        if operation.body:
            try_out(operation, GenerationMode.NEGATIVE)
    assert '"level": "error"' not in server.output


def test_documented_examples_are_accepted(server: Running, document: Any) -> None:
    """An example is a request to copy: every one of them is answered with 200."""
    tried = set()
    for path, operations in document["paths"].items():
        content = operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        if "example" in content:
            answer = requests.post(server.url + path, json=content["example"], timeout=60)
            assert answer.status_code == 200, f"{path}: {answer.text}"
            tried.add(path)
    assert {f"/v2/models/{name}/versions/1/infer" for name in ("iris", "sums", "scalar", "shout", "flowers", "id_BOOL")} <= tried
    assert {f"/v1/models/{name}/versions/1:predict" for name in ("iris", "sums", "shout", "flowers", "id_BOOL")} <= tried
    assert {
        f"/models/{name}:1/{kind}" for name in ("iris", "sums", "shout", "text", "files") for kind in ("predict", "predictions", "demo")
    } <= tried
    assert {"/predictions", "/predict", "/demo", "/demo/predictions"} <= tried
    assert not [path for path in tried if path.startswith(("/v2/models/id_FP16", "/v1/models/id_UINT16"))]
