"""GetModelMetadata and GetModelStatus over toy models, called as the listener calls them."""

from typing import Any

import pytest

from dragoman.dialects.rpc import Code
from dragoman.proto.messages import new
from tests.fakes_tfs_grpc import Fake, several, spec_of


@pytest.fixture(scope="module")
def fake() -> Fake:
    return several()


def test_metadata_packs_every_signature(fake: Fake) -> None:
    """A SignatureDefMap in an Any, under the name by which it was asked."""
    answer = fake.predictions.send("GetModelMetadata", model_spec={"name": "half"}, metadata_field=["signature_def"])
    assert spec_of(answer) == ("half", 7, "")
    described: Any = new("tensorflow.serving.SignatureDefMap")
    assert answer.metadata["signature_def"].type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    assert answer.metadata["signature_def"].Unpack(described)
    assert sorted(described.signature_def) == ["plus_one", "serving_default"]
    default = described.signature_def["serving_default"]
    assert default.method_name == "tensorflow/serving/predict"
    x = default.inputs["x"]
    assert (x.name, x.dtype, [dim.size for dim in x.tensor_shape.dim]) == ("x:0", 1, [-1, 1])


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ({"metadata_field": ["signature_def"]}, Code.INVALID_ARGUMENT, "has no name"),
        ({"model_spec": {"name": "half"}}, Code.INVALID_ARGUMENT, "at least one metadata_field"),
        (
            {"model_spec": {"name": "half"}, "metadata_field": ["signature_def", "x"]},
            Code.INVALID_ARGUMENT,
            "Metadata field x is not supported",
        ),
        ({"model_spec": {"name": "no"}, "metadata_field": ["signature_def"]}, Code.NOT_FOUND, "Latest(no)"),
    ],
)
def test_refusals_of_metadata(fake: Fake, fields: dict[str, Any], code: Code, text: str) -> None:
    """A field must be named, and there is one."""
    refused = fake.predictions.send("GetModelMetadata", **fields)
    assert (refused.code, text in refused.text) == (code, True)


def test_status_lists_versions_highest_first(fake: Fake) -> None:
    """State, and for a failed one the reason; one version by number or by label."""
    answer = fake.models.send("GetModelStatus", model_spec={"name": "half"})
    found = [(each.version, each.state, each.status.error_code != 0) for each in answer.model_version_status]
    assert found == [(9, 50, True), (7, 30, False), (1, 30, False)]
    assert "its file is broken" in answer.model_version_status[0].status.error_message
    for spec in ({"version": {"value": 1}}, {"version_label": "stable"}):
        answer = fake.models.send("GetModelStatus", model_spec={"name": "half", **spec})
        assert [each.version for each in answer.model_version_status] == [1]


@pytest.mark.parametrize(
    ("spec", "code", "text"),
    [
        ({}, Code.INVALID_ARGUMENT, "has no name"),
        ({"name": "no"}, Code.NOT_FOUND, "Could not find any versions of model no"),
        ({"name": "half", "version": {"value": 8}}, Code.NOT_FOUND, "Could not find version 8 of model half"),
        ({"name": "half", "version_label": "no"}, Code.INVALID_ARGUMENT, "Unrecognized servable version label: no"),
    ],
)
def test_refusals_of_status(fake: Fake, spec: dict[str, Any], code: Code, text: str) -> None:
    """As in REST."""
    refused = fake.models.send("GetModelStatus", model_spec=spec)
    assert (refused.code, text in refused.text) == (code, True)
