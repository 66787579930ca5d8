"""Routers as operators write them, `--router NAME=KIND:MEMBER,MEMBER`, as models that a repository finds. Called by repository.py.

A name may have a version behind a colon, as those of members may. What a router is to do further is in its class arguments.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dragoman.core.errors import ServingError, invalid
from dragoman.core.model import EMPTY, ModelSpec, Step
from dragoman.serving.class_arguments import Arguments, of
from dragoman.serving.python_models import state_of
from dragoman.serving.reading import Found, broken
from dragoman.serving.routers.calling import Member
from dragoman.serving.routers.options import KINDS, options
from dragoman.serving.routers.router import RUNTIME
from dragoman.serving.settings import quoted
from dragoman.serving.words import check_model_key

_ROUTER = re.compile(r"(?P<name>[^=]+)=(?:(?P<kind>[A-Za-z]+)|(?P<file>.+\.py):(?P<class>[^\W\d]\w*)):(?P<members>.+)")


@dataclass(frozen=True, slots=True)
class Parsed:
    """`kind` is one of KINDS, or "" for the class `own` of a Python file."""

    name: str
    version: str
    members: tuple[Member, ...]
    kind: str = ""
    file: str = ""
    own: str = ""


class Routers:
    """`texts` are those of the setting, `arguments` the class arguments of all models. Raises INVALID_INPUT for a text that is none."""

    def __init__(self, texts: Sequence[str] = (), arguments: Arguments = EMPTY) -> None:
        self._texts = {text: parsed(text) for text in texts}
        self._arguments = arguments

    def found(self) -> list[Found]:
        """Each router as a model; one that cannot be has its reason."""
        return [self._found(router) for router in self._texts.values()]

    def _found(self, router: Parsed) -> Found:
        name, given = router.name, of(self._arguments, router.name, router.version)
        steps = tuple(Step(member.name, member.version) for member in router.members)
        if router.version:
            given = {"version": router.version, **given}
        arguments = {"kind": router.kind, "class": router.own, "args": given}
        spec = ModelSpec(name, runtime=RUNTIME, steps=steps, arguments=arguments, named_version=bool(router.version))
        spec = replace(spec, version=router.version or spec.version)
        state = ""
        try:
            check_model_key(f"{name}:{router.version}" if router.version else name)
            if router.file:
                file = Path(router.file).expanduser().absolute()
                if not file.is_file():
                    raise invalid(f"there is no {file}")
                spec, state = replace(spec, artifact=str(file)), state_of(file)
            else:
                options(router.kind, given, [member.key for member in router.members], name)
        except ServingError as error:
            return replace(broken(name, error.message), version=router.version)
        except OSError as error:
            reason = f"the file {router.file} of router '{name}' cannot be read: {error.strerror or error}"
            return replace(broken(name, reason), version=router.version)
        return Found(name, {spec.version: spec.with_revision(state)}, version=router.version)


def parsed(text: str) -> Parsed:
    """What a setting says. Raises INVALID_INPUT."""
    match = _ROUTER.fullmatch(text)
    if match is None or (match["kind"] or KINDS[0]) not in KINDS:
        raise invalid(f"{quoted(text)} is no router, expected NAME=KIND:MEMBER,MEMBER with KIND one of {', '.join(KINDS)} or FILE.py:CLASS")
    keys = [key.strip() for key in match["members"].split(",")]
    if not all(keys) or len(set(keys)) < len(keys):
        raise invalid(f"{quoted(text)} is no router, expected each member once, separated by commas")
    members = tuple(Member.of(key) for key in keys)
    name, _, version = match["name"].partition(":")
    return Parsed(name, version, members, match["kind"] or "", match["file"] or "", match["class"] or "")
