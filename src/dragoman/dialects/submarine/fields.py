"""Fields of request bodies and queries, checked one by one (requirements R6 to R8). Called by the handlers of this folder.

Whatever is not asked for here is ignored, above all `id`, `modelId`, `modelType` and `modelURI`: no client chooses files through them. How
long texts may be, and which characters a name may have, the registry says for all protocols alike.
"""

from collections.abc import Mapping
from typing import Any

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.dialects.documents import shown
from dragoman.serving.words import HIGHEST, LONGEST_NAME, storable, version_digits

_VERSIONS = f"expected a whole number from 1 to {HIGHEST}, or a text of its digits"


def name(document: Mapping[str, Any], field: str) -> str:
    """A name that must be there. Which names may be registered the registry says; here it is a text of a bearable length."""
    value = document.get(field)
    if not isinstance(value, str):
        raise _wrong(field, document, "expected the model's name as a text")
    if not value:
        raise invalid(f"{field} is empty, expected the model's name", field)
    if len(value) > LONGEST_NAME:
        raise invalid(f"{field} has {len(value)} characters, expected at most {LONGEST_NAME}", field)
    if any(ord(c) < 32 for c in value) or not storable(value):
        raise invalid(f"{field} has control characters or half a surrogate pair, expected the model's name", field)
    return value


def version(document: Mapping[str, Any], field: str) -> str:
    """The digits of a version, without zeros in front. Fractions, booleans, null and lists are none, even where they look like a number."""
    value = document.get(field)
    if isinstance(value, str):
        digits = version_digits(value)
        if digits:
            return digits
    elif isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= HIGHEST:
        return str(value)
    raise _wrong(field, document, _VERSIONS)


def in_path(name: str, version: str) -> str:
    """The version that a segment of a path names. Raises NOT_FOUND for what can be none: nothing is there."""
    digits = version_digits(version)
    if not digits:
        raise ServingError(Kind.NOT_FOUND, f"model {name[:256]!r} has no version {version[:60]!r}", what="version")
    return digits


def text(document: Mapping[str, Any], field: str, *, needed: bool = False) -> str | None:
    """A text, or None for one that is missing or null. `needed`: that is an error, "" is not."""
    value = document.get(field)
    if value is None and not needed:
        return None
    if not isinstance(value, str):
        raise _wrong(field, document, "expected a text")
    return value


def tags(document: Mapping[str, Any]) -> dict[str, str]:
    """The list of words in `tags`, as the registry keeps them: each a key without a value."""
    value = document.get("tags")
    if value is None:
        return {}
    if not isinstance(value, list):
        raise invalid(f"tags is {shown(value)}, expected a list of texts", "tags")
    return {tag(each, f"tags[{index}]"): "" for index, each in enumerate(value)}


def tag(value: object, field: str = "tag") -> str:
    """One tag that came as `value`."""
    if not isinstance(value, str) or not value.strip():
        raise invalid(f"{field} is {shown(value)}, expected a text that is not blank", field)
    return value


def _wrong(field: str, document: Mapping[str, Any], expected: str) -> ServingError:
    found = f"is {shown(document[field])}" if field in document else "is missing"
    return invalid(f"{field} {found}, {expected}", field)
