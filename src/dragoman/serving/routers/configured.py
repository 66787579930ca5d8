"""Routers as operators write them, `--router NAME=KIND:MEMBER,MEMBER`, as models that a repository finds.

Made by worker.py, asked by repository.py.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dragoman.core.errors import ServingError, invalid
from dragoman.core.model import EMPTY, ModelSpec, Step
from dragoman.serving.reading import Found, broken
from dragoman.serving.routers.calling import Member
from dragoman.serving.routers.options import KINDS, options
from dragoman.serving.routers.router import RUNTIME
from dragoman.serving.words import check_name

_ROUTER = re.compile(r"(?P<name>[^=]+)=(?P<kind>[^:]+):(?P<members>.+)")


class Routers:
    """`texts` are those of the setting, `arguments` what the operator gives to models by name. Raises INVALID_INPUT for a text that is none."""

    def __init__(self, texts: Sequence[str] = (), arguments: Mapping[str, Mapping[str, Any]] = EMPTY) -> None:
        self._texts = {text: parsed(text) for text in texts}
        self._arguments = arguments

    def found(self) -> list[Found]:
        """Each router as a model; one that cannot be has its reason."""
        return [self._found(*parts) for parts in self._texts.values()]

    def _found(self, name: str, kind: str, members: tuple[Member, ...]) -> Found:
        given = dict(self._arguments.get(name, EMPTY))
        try:
            check_name(name)
            options(kind, given, [member.key for member in members], name)
        except ServingError as error:
            return broken(name, error.message)
        steps = tuple(Step(member.name, member.version) for member in members)
        spec = ModelSpec(name, runtime=RUNTIME, steps=steps, arguments={"kind": kind, "args": given})
        return Found(name, {spec.version: spec.with_revision("")})


def parsed(text: str) -> tuple[str, str, tuple[Member, ...]]:
    """The name, the kind and the members that a setting names. Raises INVALID_INPUT."""
    match = _ROUTER.fullmatch(text)
    if match is None or match["kind"] not in KINDS:
        raise invalid(f"--router is '{text}', expected NAME=KIND:MEMBER,MEMBER with KIND one of {', '.join(KINDS)}")
    keys = [key.strip() for key in match["members"].split(",")]
    if not all(keys) or len(set(keys)) < len(keys):
        raise invalid(f"--router is '{text}', expected each member once, separated by commas")
    return match["name"], match["kind"], tuple(Member.of(key) for key in keys)
