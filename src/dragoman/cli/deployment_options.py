"""What the commands of `dragoman deployments` take, and what becomes of it in a request. Called by deployments.py."""

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dragoman.core.errors import invalid
from dragoman.serving.gradient.records import State

_TEXTS: Mapping[str, str] = {
    "modelId": "the model: NAME or NAME:VERSION of a registered one, models:/NAME/VERSION, or the name of one in a model root",
    "modelUrl": "where the model lies, if it is not registered: a path below a model root, or a URI that the server may fetch",
    "containerModelPath": "where the model lies below a model root, if there is no --modelId",
    "apiType": "REST (default) or GRPC",
    "method": "what follows the deployment's address, for its endpoint (default: :predict)",
    "projectId": "a word to list deployments by",
    "clusterId": "kept, without effect",
    "machineType": "kept, without effect",
    "imageUrl": "kept; images are not run",
    "command": "kept; not run",
    "imageUsername": "kept, without effect",
    "imageServer": "kept, without effect",
    "containerUrlPath": "kept, without effect",
    "ports": "kept, without effect: every deployment answers on the server's ports",
    "workspaceRef": "kept, without effect",
    "workspaceUsername": "kept, without effect",
}
_SCALING = ("minInstanceCount", "maxInstanceCount", "scaleCooldownPeriod")
_UNSENT = ("imagePassword", "workspacePassword")
STATES = tuple(state.value for state in State)
_TARGET = re.compile(r"([^/]+)/([^:]+):(.+)")
_LENGTH = re.compile(r"([0-9]{1,6})(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}


def add_fields(command: argparse.ArgumentParser) -> None:
    for name, help_text in _TEXTS.items():
        command.add_argument(f"--{name}", metavar="TEXT", help=help_text)
    command.add_argument(
        "--instanceCount", type=int, metavar="N", help="how many of the model are loaded in each worker, or model processes"
    )
    command.add_argument("--dockerArgs", type=_json, metavar="JSON", help="kept, without effect")
    command.add_argument(
        "--env", type=_json, metavar="JSON", help="MODEL_BASE_PATH and MODEL_NAME say where the model lies, if nothing else does"
    )
    command.add_argument("--authUsername", metavar="NAME", help="ask for this user name, and --authPassword, on every call")
    command.add_argument("--authPassword", metavar="PASSWORD", help="see --authUsername")
    command.add_argument("--workspace", dest="workspaceUrl", metavar="URL", help="kept; nothing is uploaded or run")
    for name in _SCALING:
        command.add_argument(
            f"--{name}", type=int, metavar="N", help="kept; --minInstanceCount stands for --instanceCount where that is not given"
        )
    for name, kind in (("metric", "Metric"), ("resource", "Resource")):
        command.add_argument(
            f"--{name}",
            dest="targets",
            action="append",
            default=[],
            type=_target(kind),
            metavar="NAME/targetAverage:N",
            help="kept, without effect",
        )
    for name in _UNSENT:
        command.add_argument(f"--{name}", metavar="TEXT", help="taken, and not sent")


def add_tags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--tag", action="append", default=[], metavar="TAG", help="a tag; repeatable")
    command.add_argument("--tags", default="", metavar="TAG,TAG", help="several tags")


def choice(choices: Sequence[str]) -> Callable[[str], str]:
    def parsed(text: str) -> str:
        for each in choices:
            if each.lower() == text.lower():
                return each
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(choices)}")

    return parsed


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is no JSON: {error}") from error


def _target(kind: str) -> Callable[[str], dict[str, Any]]:
    def parsed(text: str) -> dict[str, Any]:
        found = _TARGET.fullmatch(text)
        try:
            number = float(found[3]) if found is not None else None
        except ValueError:
            number = None
        if found is None or number is None:
            raise argparse.ArgumentTypeError(f"{text!r} is no target, expected NAME/KIND:VALUE, for example cpu/targetAverage:60")
        return {"type": kind, "name": found[1], "valueType": found[2], "value": number}

    return parsed


def switch(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def seconds(text: str) -> float:
    found = _LENGTH.fullmatch(text)
    if found is None or not int(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time, expected for example 30s")
    return int(found[1]) * _SECONDS[found[2] or ""]


def given(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of a request, of those options that were given."""
    named = (*_TEXTS, "name", "deploymentType", "instanceCount", "dockerArgs", "env", "workspaceUrl", "authUsername", "authPassword")
    body = {name: value for name in named if (value := getattr(options, name)) is not None}
    if (options.authUsername is None) != (options.authPassword is None):
        raise invalid("--authUsername and --authPassword have to be used together")
    scaling = {name: value for name in _SCALING if (value := getattr(options, name)) is not None}
    if options.targets:
        scaling["metrics"] = options.targets
    return {**body, "autoscaling": scaling} if scaling else body


def words(options: argparse.Namespace) -> list[str]:
    return [*options.tag, *(word.strip() for word in options.tags.split(",") if word.strip())]
