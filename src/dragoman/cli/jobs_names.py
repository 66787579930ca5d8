"""Names of projects, jobs and data sets as people type them, made whole. Pure; called by the commands for jobs and data sets.

user/projects/x/N is a job, user/datasets/x/N a version of a data set. What is left out is filled in: the user who is logged in, the
project or data set of this folder. Without a number the newest is meant, which the server knows.
"""

import re
from dataclasses import dataclass

from dragoman.core.errors import invalid

_PART = r"[A-Za-z0-9_.-]{1,200}"
_NAME = re.compile(rf"(?:({_PART})/(?:(?:projects|datasets)/)?)?({_PART})")
_MOUNT = re.compile(rf"/?({_PART})/?")
_OUTPUTS = ("output", "files", "home", "code")
MOST_MOUNTS = 5


@dataclass(frozen=True, slots=True)
class Here:
    """What is filled in: a user, and the name that this folder was initialised with ("" where it was not) with its own user."""

    user: str
    name: str = ""
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """NAME:MOUNT of --data: the data's name as typed, and the one-level folder."""

    name: str
    mount: str


def split_name(text: str, user: str) -> tuple[str, str]:
    """Owner and name of a new project or data set: x, user/x, user/projects/x or user/datasets/x. Raises INVALID_INPUT."""
    match = _NAME.fullmatch(text.strip("/"))
    if match is None or match[2] in (".", "..") or match[1] in (".", ".."):
        raise invalid(f"'{text}' is no name: expected NAME or USER/NAME, of letters, digits, '-', '_' and '.'")
    return match[1] or user, match[2]


def job_names(text: str, here: Here) -> list[str]:
    """What a job may be called on the server, best guess first: its full name, then the text as an id. Raises INVALID_INPUT.

    "" is the newest job of this folder's project, 3 its third, x the newest one of project x, x/3 and user/x/3 and user/projects/x/3 are whole.
    """
    return _names(text, "projects", here, "job", "this folder has no project (run `dragoman init NAME`)")


def data_names(text: str, here: Here) -> list[str]:
    """The same for data: a version of a data set (x/1, user/datasets/x/1), or what a job left (user/projects/x/1/output)."""
    parts = [part for part in text.split("/") if part]
    tail = ""
    if len(parts) > 1 and parts[-1] in _OUTPUTS:
        *parts, tail = parts
    if tail or "projects" in parts[1:2]:
        return ["/".join(filter(None, (job_names("/".join(parts), Here(here.user))[0], tail)))]
    return _names(text, "datasets", here, "data", "this folder has no data set (run `dragoman data init NAME`)")


def _names(text: str, kind: str, here: Here, what: str, missing: str) -> list[str]:
    """`kind`: projects or datasets; `what` they are for people, `missing`: what to say where the folder's own name would be meant."""
    parts = [part for part in text.split("/") if part]
    *rest, number = parts if parts and parts[-1].isdecimal() else [*parts, ""]
    if len(rest) == 3 and rest[1] == kind:
        del rest[1]
    if len(rest) > 2:
        raise invalid(f"'{text}' is no {what}: expected USER/{kind}/NAME/NUMBER, NAME/NUMBER, NUMBER or an id")
    if not rest and not here.name:
        raise invalid(f"{missing}, so name it as NAME/NUMBER or USER/{kind}/NAME/NUMBER")
    owner, name = (here.owner or here.user, here.name) if not rest else rest if len(rest) == 2 else (here.user, rest[0])
    if not all(re.fullmatch(_PART, part) and part not in (".", "..") for part in (owner, name)):
        raise invalid(f"'{text}' is no name of a {what}: it is made of letters, digits, '-', '_' and '.'")
    full = "/".join(filter(None, (owner, kind, name, number)))
    return [full, *parts] if len(parts) == 1 and not number else [full]


def mounts(texts: list[str]) -> list[Wanted]:
    """What --data asks for, each NAME:MOUNT. Raises INVALID_INPUT for what is not, for two of one mount and for too many."""
    if len(texts) > MOST_MOUNTS:
        raise invalid(f"--data is given {len(texts)} times, at most {MOST_MOUNTS} data sets can be mounted")
    wanted: list[Wanted] = []
    for text in texts:
        name, colon, mount = text.partition(":")
        match = _MOUNT.fullmatch(mount)
        if not colon or not name or match is None or match[1] in (".", ".."):
            raise invalid(f"--data is '{text}', expected NAME:MOUNT, MOUNT being one folder's name of letters, digits, '-', '_' and '.'")
        if any(each.mount == match[1] for each in wanted):
            raise invalid(f"--data names the mount '{match[1]}' twice")
        wanted.append(Wanted(name, match[1]))
    return wanted
