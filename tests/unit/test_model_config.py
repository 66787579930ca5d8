"""TensorFlow Serving's list of models: everything its text form may look like, and what is wrong with the others."""

from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import Policy, PolicyKind
from dragoman.proto.messages import new, parse_text
from dragoman.serving.model_config import ConfiguredModel, models_of, parse_models, policy_of, read_models


def parse(text: str) -> tuple[ConfiguredModel, ...]:
    return parse_models(text.encode(), "models.config")


def refused(text: str) -> ServingError:
    with pytest.raises(ServingError) as caught:
        parse(text)
    return caught.value


WHOLE = """
# what a canary looks like
model_config_list: {
  config: { name: "a", base_path: '/models/a', model_platform: "tensorflow",
    model_version_policy: { specific: { versions: 2, versions: 1 } }
    version_labels { key: "stable" value: 1 } version_labels { key: "canary", value: 2 }
    logging_config { sampling_config { sampling_rate: 0.1 } } }
  config { name: "b" base_path: "/models/b" }
}
"""


def test_everything_that_the_text_form_allows() -> None:
    """Commas, colons before braces, both kinds of quotes and comments (sheet section 8)."""
    first, second = parse(WHOLE)
    assert first == ConfiguredModel("a", "/models/a", Policy(PolicyKind.SPECIFIC, versions=("2", "1")), {"stable": "1", "canary": "2"})
    assert second == ConfiguredModel("b", "/models/b", Policy(PolicyKind.LATEST, 1), {})


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("latest {}", Policy(PolicyKind.LATEST, 1)),
        ("latest { num_versions: 0 }", Policy(PolicyKind.LATEST, 1)),
        ("latest { num_versions: 3 }", Policy(PolicyKind.LATEST, 3)),
        ("all {}", Policy(PolicyKind.ALL)),
        ("specific { versions: [7, 7, 5] }", Policy(PolicyKind.SPECIFIC, versions=("7", "5"))),
    ],
)
def test_policies(text: str, policy: Policy) -> None:
    """Each of the three, and what is said of none of them is the highest version."""
    (model,) = parse(f'model_config_list {{ config {{ name: "a" base_path: "/a" model_version_policy {{ {text} }} }} }}')
    assert model.policy == policy


def test_a_model_goes_to_other_workers_and_back() -> None:
    """As JSON, with nothing lost."""
    for model in parse(WHOLE):
        assert ConfiguredModel.from_json(model.name, model.to_json()) == model


def test_nothing_at_all_is_a_list_of_none() -> None:
    """A file may be filled later; a request with nothing in it says nothing."""
    assert parse("") == parse("# later\n") == parse("model_config_list {}") == ()
    with pytest.raises(ServingError, match="expected a model_config_list"):
        models_of(new("tensorflow.serving.ModelServerConfig"))


def one(name: str = "a", path: str = "/a", more: str = "") -> str:
    return f'config {{ name: "{name}" base_path: "{path}" {more} }}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_config_list {", "models.config: Error parsing text-format tensorflow.serving.ModelServerConfig: 1:"),
        ("model_config_lst {}", 'has no field named "model_config_lst"'),
        ("model_config_list { config { name: 3 } }", "Error parsing text-format tensorflow.serving.ModelServerConfig"),
        (f"model_config_list {{ {one()} {one()} }}", "Illegal to list model a multiple times in config list"),
        (f"model_config_list {{ {one(path='a')} }}", r"Expected model a to have an absolute path or URI; got base_path\(\)=a"),
        (f"model_config_list {{ {one(path='')} }}", "Expected model a to have an absolute path or URI"),
        (f"model_config_list {{ {one(name='')} }}", "a model name has 1 to 256 characters"),
        (f"model_config_list {{ {one(name='a/b')} }}", "a URL path cannot carry"),
        ("model_config_list { " + one(more="model_platform: 'caffe'") + " }", "model_platform 'caffe', expected 'tensorflow' or none"),
        (f"model_config_list {{ {one(more='model_version_policy { specific {} }')} }}", "names no version"),
        (f"model_config_list {{ {one(more='model_version_policy { specific { versions: -1 } }')} }}", "names -1"),
        ("model_config_list { " + one(more="version_labels { key: 'x' value: -2 }") + " }", "the label 'x' of version -2"),
        ("custom_model_config {}", "only servers with code of their own can read"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    """In TensorFlow Serving's words where it has some, and always naming the model."""
    assert refused(text).kind in (Kind.INVALID_INPUT, Kind.UNSUPPORTED)
    with pytest.raises(ServingError, match=message):
        parse(text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is missing, a folder, and bytes that are no text."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, message in (("none", "cannot be read"), (".", "directory"), ("binary", "Error parsing text-format")):
        with pytest.raises(ServingError, match=message) as caught:
            read_models(str(tmp_path / name))
        assert caught.value.kind is Kind.INVALID_INPUT
    (tmp_path / "good").write_text(WHOLE, "utf-8-sig")
    assert len(read_models(str(tmp_path / "good"))) == 2


def test_a_message_of_a_request_is_checked_alike() -> None:
    """The gRPC service hands over the message itself."""
    message: Any = new("tensorflow.serving.ModelServerConfig")
    parse_text(WHOLE, message)
    assert models_of(message) == parse(WHOLE)
    message.model_config_list.config[1].name = "a"
    with pytest.raises(ServingError, match="multiple times"):
        models_of(message)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("latest", Policy(PolicyKind.LATEST, 1)),
        ("latest:2", Policy(PolicyKind.LATEST, 2)),
        ("all", Policy(PolicyKind.ALL)),
        ("1, 007", Policy(PolicyKind.SPECIFIC, versions=("1", "7"))),
    ],
)
def test_the_policy_of_the_setting(text: str, policy: Policy) -> None:
    """--version-policy in its four forms."""
    assert policy_of(text) == policy


@pytest.mark.parametrize("text", ["", "latest:", "latest:0", "latest:x", "newest", "1,,2", "-1", "9223372036854775808"])
def test_policies_that_are_none(text: str) -> None:
    """The setting says what it expected instead."""
    with pytest.raises(ValueError, match=r".*"):
        policy_of(text)
