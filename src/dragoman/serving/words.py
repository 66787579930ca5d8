"""What people may write into the registry: names, versions, aliases, tags and descriptions, checked.

All raise ServingError INVALID_INPUT. Called by the catalog, and by whatever serves a model under a name.
"""

import re
import unicodedata
from collections.abc import Mapping

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.serving.settings import quoted

RESERVED = frozenset({"stats", "models", "predictions", "docs", "metrics"})
"""Names that would hide a route of some dialect, such as GET /v2/models/stats."""
LONGEST_NAME = 256
HIGHEST = (1 << 31) - 1
"""The highest version number."""
LONGEST_VALUE = 5000
"""Characters of a tag's value."""
_LONGEST_DESCRIPTION = 100_000
_LONGEST_KEY = 256
_MOST_TAGS = 1000
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_ALIAS = re.compile(r"[\w-]{1,256}")
_RESERVED_ALIAS = re.compile(r"latest|v\d+", re.IGNORECASE)


def check_name(name: str) -> None:
    """Raise INVALID_INPUT for a name that no URL of every dialect could carry, CONFLICT for one that would hide a route."""
    if not name or len(name) > LONGEST_NAME:
        raise invalid(f"a model name has 1 to {LONGEST_NAME} characters, this one has {len(name)}", "model")
    if name in (".", "..") or any(c in "/:\\" or ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in name):
        raise invalid(
            f"the model name {name!r} has characters that a URL path cannot carry ('/', ':', '\\', control characters or no UTF-8)", "model"
        )
    if name.lower() in RESERVED:
        raise ServingError(Kind.CONFLICT, f"no model may be called '{name}': that is a route of the server; use another name", what="model")


def check_model_key(key: str) -> None:
    """Of NAME or NAME:VERSION. Raises as `check_name` and `check_version_name`."""
    name, separator, version = key.partition(":")
    check_name(name)
    if separator:
        check_version_name(name, version or ":")


def check_version_name(name: str, version: str) -> None:
    """Raise INVALID_INPUT (what="version") for a version that somebody gave and no URL could carry; "" is none."""
    if version and not _VERSION.fullmatch(version):
        raise invalid(
            f"the version of '{name}' is {quoted(version)}, expected at most 100 letters, digits, '.', '_', '-' and '+'", "version"
        )


def check_new_name(name: str) -> None:
    """Raise INVALID_INPUT (what="model") for a name that no model may be registered under (Submarine requirement R7)."""
    try:
        check_name(name)
    except ServingError as error:
        raise invalid(error.message, "model") from error
    if not name.strip() or ".." in name or any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        raise invalid(f"the model name {quoted(name)} is blank, or has '..' or control characters in it", "model")


def check_version(version: str) -> str:
    """The number as it is stored, without leading zeros. Raises INVALID_INPUT (what="version")."""
    digits = version_digits(version)
    if not digits:
        raise invalid(f"the version is {quoted(version)}, expected a whole number from 1 to {HIGHEST}", "version")
    return digits


def version_digits(text: str) -> str:
    """The number of a version as it is stored, "" for what is none."""
    known = text.isascii() and text.isdigit() and len(text) <= 20 and 1 <= int(text) <= HIGHEST
    return str(int(text)) if known else ""


def storable(word: str) -> bool:
    """Whether a database can hold this text; one that it cannot is not looked up, as it is in none."""
    return "\0" not in word and not any(0xD800 <= ord(c) < 0xE000 for c in word)


def check_alias(alias: str) -> None:
    """Raise INVALID_INPUT (what="alias") for a word that means something else already, or that a URI cannot carry."""
    if not _ALIAS.fullmatch(alias) or _RESERVED_ALIAS.fullmatch(alias):
        rule = "1 to 256 letters, digits, '_' and '-', but neither 'latest' nor 'v' with a number"
        raise invalid(f"the alias {quoted(alias)} is not one: expected {rule}", "alias")


def check_text(text: str, what: str, longest: int = _LONGEST_KEY) -> str:
    """The text again. Raises INVALID_INPUT for one that is too long, or that a database cannot keep."""
    if len(text) > longest:
        raise invalid(f"{what} has {len(text)} characters, expected at most {longest}")
    if not storable(text):
        raise invalid(f"{what} has a NUL character or half a surrogate pair")
    return text


def check_description(text: str) -> str:
    return check_text(text, "the description", _LONGEST_DESCRIPTION)


def check_key(key: str) -> str:
    if not key.strip():
        raise invalid("a tag needs a name")
    return check_text(key, "the name of a tag", _LONGEST_KEY)


def check_value(key: str, value: str) -> str:
    return check_text(value, f"the value of the tag {quoted(key)}", LONGEST_VALUE)


def check_tags(tags: Mapping[str, str]) -> dict[str, str]:
    if len(tags) > _MOST_TAGS:
        raise invalid(f"there are {len(tags)} tags, expected at most {_MOST_TAGS}")
    return {check_key(key): check_value(key, value) for key, value in tags.items()}
