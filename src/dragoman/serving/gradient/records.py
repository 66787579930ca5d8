"""What is kept of a deployment, and the checks of what clients say about one. Pure; called by service.py.

Fields have the names that they have on the wire (`modelId`, `instanceCount`). What has no effect here (machine types, images, clusters) is kept
and shown, so that scripts find again what they wrote; passwords of registries and repositories are not kept at all.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, unique
from typing import Any

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.serving.settings import quoted
from dragoman.serving.words import storable

LONGEST_NAME = 256
_LONGEST = 4096
_LARGEST = 1 << 16
"""Characters of one deployment, as JSON."""
MOST_INSTANCES = 1024
_MOST_TAGS = 100
_LONGEST_TAG = 256
_DES = "des"
ID = re.compile(r"des[0-9a-z]{12}")
"""What ids look like, as Gradient's did."""

TYPES = ("TFServing", "ONNX", "Custom", "Flask", "TensorRT")
API_TYPES = ("REST", "GRPC")

Fields = Mapping[str, Any]


@unique
class State(Enum):
    """The states of the sheet's section 10."""

    BUILDING = "Building"
    """It exists, and nothing has been wished for it yet."""
    PROVISIONING = "Provisioning"
    """It should run, and not every worker knows yet."""
    STARTING = "Starting"
    RUNNING = "Running"
    """In every worker."""
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    ERROR = "Error"


@dataclass(frozen=True, slots=True)
class Record:
    """One deployment. Times are seconds since the epoch, 0 for never."""

    id: str
    fields: Fields
    lock: Mapping[str, str] = field(default_factory=dict)
    """What is kept of its password (doors.py), empty for none."""
    created: float = 0.0
    modified: float = 0.0
    started: float = 0.0
    stopped: float = 0.0
    wanted: bool = True
    """Whether it should run."""
    generation: int = 0
    """Of the last wish that was made for it; 0: none yet."""
    deleted: bool = False

    def get(self, name: str) -> str:
        """A field that is a text, "" where it is not given."""
        value = self.fields.get(name, "")
        return value if isinstance(value, str) else ""

    @property
    def grpc(self) -> bool:
        return self.get("apiType") == "GRPC"

    @property
    def instances(self) -> int | None:
        """How many of the model are to be loaded; None for as many as the server's settings say."""
        scaling = self.fields.get("autoscaling", {})
        found = self.fields.get("instanceCount") or scaling.get("minInstanceCount")
        return int(found) if found else None

    @property
    def tags(self) -> list[str]:
        return list(self.fields.get("tags", ()))

    def changed(self, changes: Fields, now: float) -> "Record":
        """With these fields; "" takes one away. Raises INVALID_INPUT where that leaves too little or makes too much."""
        fields = {name: value for name, value in {**self.fields, **changes}.items() if value not in ("", [], {})}
        check_whole(fields)
        return replace(self, fields=fields, modified=now)


def read_record(body: Mapping[str, Any]) -> Record:
    return Record(**body)


# --- what clients say ---


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request that are kept, as they are kept. Others, and those that are null, are ignored. Raises INVALID_INPUT naming one."""
    found = {}
    for name, value in given.items():
        known = _OTHER_NAMES.get(name, name)
        check = _CHECKS.get(known)
        if check is not None and value is not None:
            found[known] = check(known, value)
    return found


def check_whole(fields: Fields) -> None:
    """Raise INVALID_INPUT for fields that are no deployment, UNSUPPORTED for a type that this server has not."""
    if not fields.get("name"):
        raise invalid("name is missing, expected what the deployment is called", "name")
    kind = fields.get("deploymentType")
    if kind == "TensorRT":
        raise ServingError(
            Kind.UNSUPPORTED,
            "deploymentType TensorRT is not possible: this server has no runtime for TensorRT's engines; deploy the model's ONNX file as ONNX",
            what="deploymentType",
        )
    if len(json.dumps(dict(fields))) > _LARGEST:
        raise ServingError(Kind.TOO_LARGE, f"a deployment has at most {_LARGEST} characters of fields", what="body")


def credentials(given: Mapping[str, Any]) -> tuple[str, str] | None:
    """User name and password that a deployment shall ask for; None where nothing is said, ("", "") for none from now on.

    Raises INVALID_INPUT for one without the other.
    """
    user, password = (_secret(given, *names) for names in (("oauthKey", "authUsername"), ("oauthSecret", "authPassword")))
    if user is None and password is None:
        return None
    if bool(user) != bool(password):
        raise invalid("authUsername and authPassword have to be used together", "authUsername")
    if ":" in (user or ""):
        raise invalid("authUsername has a ':' in it, which Basic authorization cannot carry", "authUsername")
    return user or "", password or ""


def check_tags(name: str, value: Any) -> list[str]:
    """Words, each once, in the order given."""
    if not isinstance(value, list) or len(value) > _MOST_TAGS:
        raise invalid(f"{name} is {_shown(value)}, expected a list of at most {_MOST_TAGS} texts", name)
    for each in value:
        if not isinstance(each, str) or not each.strip() or len(each) > _LONGEST_TAG or not storable(each):
            raise invalid(f"{name} has {_shown(each)}, expected texts of 1 to {_LONGEST_TAG} characters", name)
    return list(dict.fromkeys(value))


def _secret(given: Mapping[str, Any], *names: str) -> str | None:
    value = next((given[name] for name in names if given.get(name) is not None), None)
    return None if value is None else _text(names[-1], value)


def _text(name: str, value: Any, longest: int = _LONGEST) -> str:
    if not isinstance(value, str):
        raise invalid(f"{name} is {_shown(value)}, expected a text", name)
    if len(value) > longest or not storable(value):
        raise invalid(f"{name} has {len(value)} characters, or some that are none, expected a text of at most {longest}", name)
    return value


def _name(name: str, value: Any) -> str:
    text = _text(name, value, LONGEST_NAME)
    if not text.strip() or any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise invalid(f"{name} is blank or has control characters, expected what the deployment is called", name)
    return text


def _one_of(choices: tuple[str, ...]) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:
        found = next((each for each in choices if isinstance(value, str) and each.lower() == value.lower()), None)
        if found is None:
            raise invalid(f"{name} is {_shown(value)}, expected one of {', '.join(choices)}", name)
        return found

    return check


def _count(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_INSTANCES:
        raise invalid(f"{name} is {_shown(value)}, expected a whole number from 1 to {MOST_INSTANCES}", name)
    return value


def _texts(name: str, value: Any) -> list[str]:
    if not isinstance(value, list):
        raise invalid(f"{name} is {_shown(value)}, expected a list of texts", name)
    return [_text(name, each) for each in value]


def _environment(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise invalid(f"{name} is {_shown(value)}, expected an object of texts", name)
    return {_text(name, key): _text(f"{name}.{key[:60]}", _variable(each)) for key, each in value.items()}


def _variable(value: Any) -> Any:
    """Numbers and switches are written as texts, as shells have nothing else."""
    return json.dumps(value) if isinstance(value, int | float) else value


def _autoscaling(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise invalid(f"{name} is {_shown(value)}, expected an object", name)
    found: dict[str, Any] = {
        key: _count(f"{name}.{key}", value[key]) for key in ("minInstanceCount", "maxInstanceCount") if value.get(key) is not None
    }
    period = value.get("scaleCooldownPeriod")
    if period is not None:
        if not isinstance(period, int) or isinstance(period, bool) or not 0 <= period < 1 << 31:
            raise invalid(f"{name}.scaleCooldownPeriod is {_shown(period)}, expected seconds as a whole number", name)
        found["scaleCooldownPeriod"] = period
    metrics = value.get("metrics") or []
    if not isinstance(metrics, list) or not all(isinstance(each, dict) for each in metrics):
        raise invalid(f"{name}.metrics is {_shown(metrics)}, expected a list of objects", name)
    if metrics:
        found["metrics"] = [_metric(f"{name}.metrics", each) for each in metrics]
    if found.get("minInstanceCount", 1) > found.get("maxInstanceCount", MOST_INSTANCES):
        raise invalid(f"{name} has a minInstanceCount above its maxInstanceCount", name)
    return found


def _metric(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """One target of scaling: {type, name, valueType, value}. The original's client wrote value_type in some places."""
    number = value.get("value")
    if not isinstance(number, int | float) or isinstance(number, bool):
        raise invalid(f"{name} has the value {_shown(number)}, expected a number", name)
    kind = value.get("valueType", value.get("value_type", ""))
    return {
        "type": _text(name, value.get("type", "")),
        "name": _text(name, value.get("name", "")),
        "valueType": _text(name, kind),
        "value": number,
    }


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"a list of {len(value)}" if isinstance(value, list) else "an object"
    return quoted(value) if isinstance(value, str) else json.dumps(value)[:60]


_TEXTS = (
    *("modelId", "modelUrl", "containerModelPath", "projectId", "imageUrl", "machineType", "clusterId", "command", "ports", "method"),
    *("imageUsername", "imageServer", "containerUrlPath", "endpointUrlPath", "workspaceUrl", "workspaceRef", "workspaceUsername"),
)
_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(_TEXTS, _text),
    "name": _name,
    "deploymentType": _one_of(TYPES),
    "apiType": _one_of(API_TYPES),
    "instanceCount": _count,
    "dockerArgs": _texts,
    "env": _environment,
    "tags": check_tags,
    "autoscaling": _autoscaling,
}
_OTHER_NAMES: Mapping[str, str] = {"cluster": "clusterId", "args": "dockerArgs"}
"""By which names the original's client sent some fields, in one of its calls."""
