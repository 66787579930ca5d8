"""What is kept of a deployment, and which fields of a request are refused, and why."""

from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State as Loaded
from dragoman.serving.gateway import VersionStatus
from dragoman.serving.gradient.records import Record, State, check_whole, checked, credentials
from dragoman.serving.gradient.service import new_id, status_of
from dragoman.serving.wishes import Document


def test_fields_are_kept_as_they_are_written() -> None:
    """What the original's client sends in its create call, with its odd names; unknown ones, nulls and passwords of registries are left out."""
    given = {
        "name": "half plus two",
        "deploymentType": "tfserving",
        "apiType": "grpc",
        "cluster": "cl1",
        "args": ["--x"],
        "env": {"MODEL_NAME": "m", "N": 3},
        "instanceCount": 2,
        "modelId": None,
        "imagePassword": "geheim",
        "somethingElse": {"a": 1},
        "autoscaling": {"minInstanceCount": 1, "metrics": [{"type": "Resource", "name": "cpu", "value_type": "target", "value": 60.0}]},
    }
    assert checked(given) == {
        "name": "half plus two",
        "deploymentType": "TFServing",
        "apiType": "GRPC",
        "clusterId": "cl1",
        "dockerArgs": ["--x"],
        "env": {"MODEL_NAME": "m", "N": "3"},
        "instanceCount": 2,
        "autoscaling": {"minInstanceCount": 1, "metrics": [{"type": "Resource", "name": "cpu", "valueType": "target", "value": 60.0}]},
    }


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("name", "", "blank"),
        ("name", "a\nb", "control"),
        ("name", "x" * 257, "at most 256"),
        ("name", 5, "name is 5, expected a text"),
        ("deploymentType", "Nix", "TFServing, ONNX, Custom, Flask, TensorRT"),
        ("deploymentType", ["ONNX"], "a list of 1"),
        ("apiType", "SOAP", "REST, GRPC"),
        ("instanceCount", 0, "from 1 to 1024"),
        ("instanceCount", 1.5, "from 1 to 1024"),
        ("instanceCount", True, "from 1 to 1024"),
        ("instanceCount", "2", "from 1 to 1024"),
        ("modelId", {"a": 1}, "modelId is an object"),
        ("modelId", "x" * 4097, "at most 4096"),
        ("modelUrl", "a\0b", "some that are none"),
        ("modelUrl", "\ud800", "some that are none"),
        ("dockerArgs", "--x", "expected a list of texts"),
        ("dockerArgs", [1], "dockerArgs is 1"),
        ("env", [1], "expected an object of texts"),
        ("env", {"A": {"b": 1}}, "env.A is an object"),
        ("tags", "a", "expected a list"),
        ("tags", [""], "texts of 1 to 256"),
        ("tags", ["a"] * 101, "at most 100"),
        ("autoscaling", [], "expected an object"),
        ("autoscaling", {"minInstanceCount": 3, "maxInstanceCount": 2}, "above its maxInstanceCount"),
        ("autoscaling", {"scaleCooldownPeriod": -1}, "scaleCooldownPeriod is -1"),
        ("autoscaling", {"metrics": [1]}, "expected a list of objects"),
        ("autoscaling", {"metrics": [{"value": "60"}]}, "the value '60'"),
    ],
)
def test_wrong_fields_are_named(field: str, value: Any, says: str) -> None:
    """Each with what was expected and what came."""
    with pytest.raises(ServingError) as refusal:
        checked({field: value})
    assert refusal.value.kind is Kind.INVALID_INPUT
    assert field in refusal.value.message
    assert says in refusal.value.message


def test_what_no_deployment_is() -> None:
    """One without a name, one of a type that there is no runtime for, one that is too large."""
    for fields, kind in (
        ({}, Kind.INVALID_INPUT),
        ({"name": "x", "deploymentType": "TensorRT"}, Kind.UNSUPPORTED),
        ({"name": "x", "dockerArgs": ["y" * 4000] * 20}, Kind.TOO_LARGE),
    ):
        with pytest.raises(ServingError) as refusal:
            check_whole(fields)
        assert refusal.value.kind is kind


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"oauthKey": "joe", "oauthSecret": "s:s"}, ("joe", "s:s")),
        ({"authUsername": "joe", "authPassword": "s"}, ("joe", "s")),
        ({"authUsername": "", "authPassword": ""}, ("", "")),
        ({"authUsername": None}, None),
    ],
)
def test_credentials(given: dict[str, Any], expected: tuple[str, str] | None) -> None:
    """By the names of the wire and by those of the command line; empty ones end it."""
    assert credentials(given) == expected


@pytest.mark.parametrize("given", [{"authUsername": "joe"}, {"oauthSecret": "s"}, {"oauthKey": "a:b", "oauthSecret": "s"}, {"oauthKey": 5}])
def test_half_credentials_are_refused(given: dict[str, Any]) -> None:
    """One without the other, and user names that Basic authorization cannot carry."""
    with pytest.raises(ServingError):
        credentials(given)


def test_changes() -> None:
    """An empty value takes a field away; what is not named stays."""
    record = Record("desaaaaaaaaaaaa", {"name": "a", "modelId": "m", "autoscaling": {"minInstanceCount": 3}})
    assert record.instances == 3
    changed = record.changed({"modelId": "", "instanceCount": 2}, 5.0)
    assert changed.fields == {"name": "a", "autoscaling": {"minInstanceCount": 3}, "instanceCount": 2}
    assert (changed.instances, changed.modified) == (2, 5.0)
    with pytest.raises(ServingError, match="name is missing"):
        record.changed({"name": ""}, 5.0)


def test_ids_look_as_they_did() -> None:
    """`des` and twelve letters or digits, never the same."""
    found = {new_id() for _ in range(100)}
    assert len(found) == 100
    assert all(len(each) == 15 and each.startswith("des") and each.isalnum() and each == each.lower() for each in found)


WANTED: Document = {"versions": {"1": {"revision": "r", "origin": {}}}}
FAILED: Document = {"failed": {"1": {"revision": "r", "reason": "it is spoilt"}}}


@pytest.mark.parametrize(
    ("generation", "wanted", "document", "known", "applied", "states", "expected"),
    [
        (0, True, {}, True, True, [], State.BUILDING),
        (3, True, {}, False, True, [], State.PROVISIONING),
        (3, True, WANTED, True, False, [], State.PROVISIONING),
        (3, True, WANTED, True, False, [Loaded.GONE], State.PROVISIONING),
        (3, True, WANTED, True, False, [Loaded.LOADING], State.STARTING),
        (3, True, WANTED, True, False, [Loaded.READY], State.STARTING),
        (3, True, WANTED, True, True, [Loaded.READY], State.RUNNING),
        (3, True, WANTED, True, True, [Loaded.FAILED], State.ERROR),
        (3, True, FAILED, True, True, [], State.ERROR),
        (3, False, FAILED, True, True, [], State.STOPPED),
        (3, False, {}, False, True, [Loaded.READY], State.STOPPING),
        (3, False, {}, True, False, [], State.STOPPING),
        (3, False, {}, True, True, [Loaded.DRAINING], State.STOPPING),
        (3, False, {}, True, True, [Loaded.GONE], State.STOPPED),
        (3, True, {}, True, True, [], State.STOPPED),
    ],
)
def test_states_follow_from_what_is_so(
    generation: int, wanted: bool, document: Document, known: bool, applied: bool, states: list[Loaded], expected: State
) -> None:
    """From the record, the wish that stands, and what this worker and the others have made of it."""
    record = Record("desaaaaaaaaaaaa", {}, generation=generation, wanted=wanted)
    statuses = [VersionStatus(record.id, "1", state, "it is spoilt" if state is Loaded.FAILED else "") for state in states]
    found = status_of(record, document, statuses, known=known, applied=applied)
    assert found.state is expected
    assert (found.reason == "it is spoilt") is (expected is State.ERROR)
