"""TensorFlow Serving's list of models: what --model_config_file holds as text and HandleReloadConfigRequest sends, checked and in our terms.

Called by the worker and polling.py for the file, by the gRPC ModelService for the message. Reads no model and changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.lifecycle import Policy, PolicyKind
from dragoman.core.model import EMPTY
from dragoman.proto.messages import TextError, new, parse_text
from dragoman.serving.artifacts import is_remote
from dragoman.serving.paths import read_bounded
from dragoman.serving.settings import LATEST, quoted
from dragoman.serving.wishes import policy_json
from dragoman.serving.wishes import policy_of as stored_policy
from dragoman.serving.words import check_name

if TYPE_CHECKING:
    from google.protobuf.message import Message

_MESSAGE = "tensorflow.serving.ModelServerConfig"
_LARGEST = 16 << 20
"""Bytes of a file; a thousand models have some hundred kilobytes."""
_HIGHEST = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class ConfiguredModel:
    """One model of the list: `base_path` holds its versions as numeric folders, of which `policy` says which are served."""

    name: str
    base_path: str
    """Absolute, or a URI."""
    policy: Policy = LATEST
    labels: Mapping[str, str] = EMPTY
    """Label -> version."""

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads, for wishes and so for other workers."""
        return {"base_path": self.base_path, "policy": policy_json(self.policy), "labels": dict(self.labels)}

    @classmethod
    def from_json(cls, name: str, content: Mapping[str, Any]) -> Self:
        return cls(name, content["base_path"], stored_policy(content), dict(content["labels"]))


Models = tuple[ConfiguredModel, ...]


def read_models(path: str) -> Models:
    """The models of a file. Raises INVALID_INPUT with what is wrong, and where."""
    source = f"the model configuration {path}"
    return parse_models(read_bounded(Path(path).expanduser(), _LARGEST, source), source)


def parse_models(content: bytes, source: str) -> Models:
    """The same of a file's content. An empty one names no models."""
    message = new(_MESSAGE)
    try:
        parse_text(content.decode().removeprefix("\ufeff"), message)
    except UnicodeDecodeError:
        raise invalid(f"{source}: Error parsing text-format {_MESSAGE}: it is not UTF-8 text") from None
    except TextError as error:
        where = "" if error.line is None else f"{error.line}:{error.column}: "
        raise invalid(f"{source}: Error parsing text-format {_MESSAGE}: {where}{error.message[:300]}") from None
    return models_of(message) if cast("Any", message).WhichOneof("config") else ()


def models_of(message: "Message") -> Models:
    """The models of a ModelServerConfig. Raises INVALID_INPUT for what TensorFlow Serving refuses too, with its words."""
    config: Any = message
    which = config.WhichOneof("config")
    if which != "model_config_list":
        said = "a custom_model_config, which only servers with code of their own can read" if which else "neither models nor anything else"
        raise ServingError(Kind.UNSUPPORTED if which else Kind.INVALID_INPUT, f"expected a model_config_list; the configuration has {said}")
    models: dict[str, ConfiguredModel] = {}
    for each in config.model_config_list.config:
        model = _model(each)
        if model.name in models:
            raise invalid(f"Illegal to list model {model.name} multiple times in config list", "model")
        models[model.name] = model
    return tuple(models.values())


def policy_of(text: str) -> Policy:
    """A policy as the setting writes it: "latest", "latest:2", "all" or "1,3". Raises ValueError."""
    kind, separator, count = text.partition(":")
    if kind == "latest":
        if separator and not 0 < _digits(count) < 1 << 32:
            raise ValueError(text)
        return Policy(PolicyKind.LATEST, int(count) if separator else 1)
    if text == "all":
        return Policy(PolicyKind.ALL)
    return Policy(PolicyKind.SPECIFIC, versions=tuple(dict.fromkeys(str(_digits(each.strip())) for each in text.split(","))))


def _digits(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) > _HIGHEST:
        raise ValueError(text)
    return int(text)


def _model(config: Any) -> ConfiguredModel:
    name, path = config.name, config.base_path
    check_name(name)
    if "\0" in path or not (path.startswith("/") or is_remote(path)):
        raise invalid(f"Expected model {name} to have an absolute path or URI; got base_path()={path[:300]}", "model")
    if config.model_platform not in ("", "tensorflow"):
        raise invalid(
            f"model {name} has the model_platform {quoted(config.model_platform)}, expected 'tensorflow' or none: what lies in its folders decides",
            "model",
        )
    labels = {label: str(version) for label, version in sorted(config.version_labels.items())}
    for label, version in labels.items():
        if not label or version.startswith("-"):
            raise invalid(
                f"model {name} has the label {quoted(label)} of version {version}, expected a name and a version of 0 or more", "label"
            )
    return ConfiguredModel(name, path, _policy(name, config.model_version_policy), labels)


def _policy(name: str, policy: Any) -> Policy:
    match policy.WhichOneof("policy_choice"):
        case "all":
            return Policy(PolicyKind.ALL)
        case "specific":
            versions = tuple(str(version) for version in dict.fromkeys(policy.specific.versions))
            if not versions or any(version.startswith("-") for version in versions):
                raise invalid(f"model {name} has a specific version policy that names {', '.join(versions) or 'no version'}", "model")
            return Policy(PolicyKind.SPECIFIC, versions=versions)
        case _:
            return Policy(PolicyKind.LATEST, policy.latest.num_versions or 1)
