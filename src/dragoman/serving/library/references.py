"""Names of stored models: `[host[:port]/]path[:tag]`, by the rules of container images. Called by the library and the command line."""

import re
from dataclasses import dataclass

from dragoman.core.errors import invalid
from dragoman.serving.settings import quoted

_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_HOST = re.compile(r"(?:localhost|(?=[^/]*[.:])[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::[0-9]{1,5})?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_LONGEST = 255
LATEST = "latest"


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository and a tag, "" where none was named."""

    repository: str
    tag: str = ""

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}" if self.tag else self.repository

    @property
    def served_name(self) -> str:
        """What the model is called in URLs: the last part of the repository."""
        return self.repository.rpartition("/")[2]


def parse(text: str) -> Reference:
    """Raises INVALID_INPUT (what="name") for anything else than a name with an optional tag."""
    name, tag = text, ""
    head, colon, tail = text.rpartition(":")
    if colon and "/" not in tail:
        name, tag = head, tail
        if _TAG.fullmatch(tag) is None:
            raise invalid(f"the tag of {quoted(text)} is not one: expected up to 128 letters, digits, '_', '.' and '-'", "name")
    first, slash, rest = name.partition("/")
    path = rest if slash and _HOST.fullmatch(first) else name
    if len(name) > _LONGEST or not all(_COMPONENT.fullmatch(part) for part in path.split("/")):
        raise invalid(
            f"{quoted(text)} is not a model name: expected lower-case letters and digits, with single '.', '_' or '-' between them,"
            " and perhaps :TAG behind",
            "name",
        )
    return Reference(name, tag)


def default_repository(folder: str) -> str:
    """The name of a project that is built without one."""
    cleaned = re.sub(r"[^a-z0-9.]+", "-", folder.lower())
    cleaned = re.sub(r"\.\.+", ".", cleaned)
    cleaned = re.sub(r"[.-]*\.[.-]*", ".", cleaned).strip(".-")[:100].strip(".-")
    return f"tungsten-{cleaned or 'model'}"


def default_tag(digest: str) -> str:
    return digest[:7]
