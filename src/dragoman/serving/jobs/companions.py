"""Packages that a project of FloydHub's days did not name and that must not be newer than those it pins, or the program fails to import. Pure.

Flask 1 says that it works with any later Jinja, which it does not; requirement files of that time are full of such pins. Called by
environments.py, which installs these beside them and says so.
"""

import re
from collections.abc import Iterable, Iterator

from dragoman.engines.requirements import Requirement
from dragoman.serving.jobs.environment_names import bounds

_PIN = re.compile(r"(?P<name>[a-z0-9-]+)(?:\[[^\]]*\])?.*?(?P<sign>===?|~=|<=?)(?P<version>\d+(?:\.\d+)?)(?P<rest>[^,;]*)")
_FLASKS = (
    ((2, 0), ("werkzeug<2", "jinja2<3.1", "itsdangerous<2.1", "markupsafe<2.1")),
    ((2, 3), ("werkzeug<3",)),
)
"""Flask below this version -> what it works with."""

_FRAMEWORKS = {"tensorflow", "tensorflow-cpu", "tensorflow-gpu", "tensorboard"}
"""They need Werkzeug 1; other programs of Flask's early days import from `werkzeug` what is there only before it."""


def companions_of(declared: Iterable[Requirement], added: Iterable[str] = ()) -> tuple[str, ...]:
    """Requirement lines to install beside a project's own; none that it names itself, and none where it pins everything by hashes.

    `added`: packages that are installed besides.
    """
    declared = tuple(declared)
    if any(requirement.hashes for requirement in declared):
        return ()
    names = {requirement.name for requirement in declared}
    lines = [line for requirement in declared for line in _beside(requirement)]
    if not _FRAMEWORKS & {*names, *added}:
        lines = ["werkzeug<1" if line == "werkzeug<2" else line for line in lines]
    return tuple(dict.fromkeys(line for line in lines if line.split("<")[0] not in names))


def _beside(requirement: Requirement) -> Iterator[str]:
    pin = _PIN.match(requirement.line)
    if pin is None:
        return
    major, _, minor = pin["version"].partition(".")
    version = int(major), int(minor or 0)
    if pin["sign"] == "<":  # the release before it, of which only this is known
        version = (version[0], version[1] - 1) if version[1] else (version[0] - 1, 1000)
    if requirement.name == "flask":
        yield from next((lines for below, lines in _FLASKS if version < below), ())
    elif requirement.name in {"tensorflow", "tensorflow-cpu", "tensorflow-gpu", "torch"}:
        yield from bounds(requirement.name.removesuffix("-cpu").removesuffix("-gpu"), version)
