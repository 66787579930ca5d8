"""Routers as operators write them, `--router NAME=KIND:MEMBER,MEMBER`, as models that a repository finds.

Made by worker.py, asked by repository.py.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dragoman.core.errors import ServingError, invalid
from dragoman.core.model import EMPTY, ModelSpec, Step
from dragoman.serving.python_models import state_of
from dragoman.serving.reading import Found, broken
from dragoman.serving.routers.calling import Member
from dragoman.serving.routers.options import KINDS, options
from dragoman.serving.routers.router import RUNTIME
from dragoman.serving.words import check_name

_ROUTER = re.compile(r"(?P<name>[^=]+)=(?:(?P<kind>[A-Za-z]+)|(?P<file>.+\.py):(?P<class>[^\W\d]\w*)):(?P<members>.+)")


@dataclass(frozen=True, slots=True)
class Parsed:
    """`kind` is one of KINDS, or "" for the class `own` of a Python file."""

    name: str
    members: tuple[Member, ...]
    kind: str = ""
    file: str = ""
    own: str = ""


class Routers:
    """`texts` are those of the setting, `arguments` what the operator gives to models by name. Raises INVALID_INPUT for a text that is none."""

    def __init__(self, texts: Sequence[str] = (), arguments: Mapping[str, Mapping[str, Any]] = EMPTY) -> None:
        self._texts = {text: parsed(text) for text in texts}
        self._arguments = arguments

    def found(self) -> list[Found]:
        """Each router as a model; one that cannot be has its reason."""
        return [self._found(router) for router in self._texts.values()]

    def _found(self, router: Parsed) -> Found:
        name, given = router.name, dict(self._arguments.get(router.name, EMPTY))
        steps = tuple(Step(member.name, member.version) for member in router.members)
        spec = ModelSpec(name, runtime=RUNTIME, steps=steps, arguments={"kind": router.kind, "class": router.own, "args": given})
        state = ""
        try:
            check_name(name)
            if router.file:
                file = Path(router.file).expanduser().absolute()
                if not file.is_file():
                    raise invalid(f"there is no {file}")
                spec, state = replace(spec, artifact=str(file)), state_of(file)
            else:
                options(router.kind, given, [member.key for member in router.members], name)
        except ServingError as error:
            return broken(name, error.message)
        except OSError as error:
            return broken(name, f"the file {router.file} of router '{name}' cannot be read: {error.strerror or error}")
        return Found(name, {spec.version: spec.with_revision(state)})


def parsed(text: str) -> Parsed:
    """What a setting says. Raises INVALID_INPUT."""
    match = _ROUTER.fullmatch(text)
    if match is None or (match["kind"] or KINDS[0]) not in KINDS:
        raise invalid(f"--router is '{text}', expected NAME=KIND:MEMBER,MEMBER with KIND one of {', '.join(KINDS)} or FILE.py:CLASS")
    keys = [key.strip() for key in match["members"].split(",")]
    if not all(keys) or len(set(keys)) < len(keys):
        raise invalid(f"--router is '{text}', expected each member once, separated by commas")
    members = tuple(Member.of(key) for key in keys)
    return Parsed(match["name"], members, match["kind"] or "", match["file"] or "", match["class"] or "")
