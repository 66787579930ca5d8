"""Reads `--explain NAME=METHOD[:OPTION=VALUE...]`, and the same out of a ModelSpec. Pure; called by server/defaults.py and explained.py."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dragoman.core.errors import invalid

METHODS = ("auto", "exact", "permutation")
"""exact: every set of features, so 2 to the number of them; permutation: orders of features drawn at random; auto: which of both suits."""
MOST_EXACT = 12
"""Features; one more doubles the work."""
_FEW = 8
"""Features up to which exact takes no longer than permutation."""
_TEXTS = ("background", "output")
_NUMBERS = {"rows": (1, 1000), "rounds": (1, 1000)}
"""Option -> the least and the most."""


@dataclass(frozen=True, slots=True)
class Explainer:
    """How one model is explained.

    `background` is a file ("": next to the model), of which `rows` data points are used; `output` the output that is explained ("": chosen by
    what the model answers); `rounds` how many orders of the features permutation goes through, each forwards and backwards.
    """

    method: str = "auto"
    background: str = ""
    output: str = ""
    rows: int = 50
    rounds: int = 10

    def method_for(self, features: int) -> str:
        """exact or permutation."""
        return self.method if self.method != "auto" else "exact" if features <= _FEW else "permutation"

    def masks(self, features: int) -> int:
        """How many mixtures of a data point with the background are looked at."""
        return 2**features if self.method_for(features) == "exact" else self.rounds * (2 * features + 1)


def read_setting(entries: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Model -> what ModelSpec.explainer holds. Raises INVALID_INPUT for an entry that means nothing, and for a model that is named twice."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        name, separator, rest = entry.partition("=")
        if not name or not separator or not rest:
            raise invalid(f"{entry!r}: expected NAME=METHOD[:OPTION=VALUE...], where METHOD is {_or(METHODS)}")
        if name in found:
            raise invalid(f"{entry!r}: model '{name}' is named twice")
        method, *options = rest.split(":")
        document: dict[str, Any] = {"method": method}
        for option in options:
            key, separator, value = option.partition("=")
            if not separator or key in document:
                raise invalid(f"{entry!r}: expected OPTION=VALUE once each, got {option!r}")
            document[key] = value
        of_spec(document, f"{entry!r}")
        found[name] = document
    return found


def of_spec(document: Mapping[str, Any], where: str) -> Explainer:
    """The explainer that a ModelSpec asks for. Raises INVALID_INPUT, which begins with `where`."""
    made: dict[str, Any] = {}
    for key, value in document.items():
        if key == "method":
            if value not in METHODS:
                raise invalid(f"{where}: there is no method {value!r}, expected {_or(METHODS)}")
            made[key] = value
        elif key in _TEXTS and isinstance(value, str) and value:
            made[key] = value
        elif key in _NUMBERS:
            least, most = _NUMBERS[key]
            if not str(value).isascii() or not str(value).isdigit() or not least <= int(value) <= most:
                raise invalid(f"{where}: {key} must be a number from {least} to {most}, got {value!r}")
            made[key] = int(value)
        else:
            raise invalid(f"{where}: there is no option {key!r} with such a value, expected {_or((*_TEXTS, *_NUMBERS))}")
    return Explainer(**made)


def _or(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}"
