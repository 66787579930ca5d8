"""Runtime options from a spec's arguments, which hold whatever a person or a configuration file wrote. Called by every runtime's load.

Arguments that no runtime asks for are ignored: configuration files of other servers carry their own. Names are compared without case, and a
value may be written as text, because Triton's parameters are texts.
"""

import os
from collections.abc import Mapping
from typing import Any

from dragoman.core.errors import ServingError, invalid
from dragoman.core.model import ModelSpec

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


class Options:
    """Typed reading of the arguments of one spec. Raises INVALID_INPUT, naming the argument, for a value of the wrong kind."""

    def __init__(self, spec: ModelSpec) -> None:
        self._model = spec.name
        self._values: Mapping[str, Any] = {str(name).lower(): value for name, value in spec.arguments.items()}

    def integer(self, *names: str, low: int, high: int) -> int | None:
        """The first of these names that is given, or None."""
        name, value = self._first(names)
        if value is None:
            return None
        expected = f"a whole number from {low} to {high}"
        if isinstance(value, bool) or not isinstance(value, int | str) or (isinstance(value, str) and len(value) > 20):
            raise self._wrong(name, value, expected)
        try:
            number = int(value)
        except ValueError:
            raise self._wrong(name, value, expected) from None
        if not low <= number <= high:
            raise self._wrong(name, value, expected)
        return number

    def processors(self) -> int | None:
        """How many processors the server leaves to this process; None when nobody has said."""
        return self.integer("processors", low=1, high=4096)

    def boolean(self, name: str) -> bool | None:
        _, value = self._first((name,))
        if value is None or isinstance(value, bool):
            return value
        text = str(value).lower()
        if text not in _TRUE | _FALSE:
            raise self._wrong(name, value, "true or false")
        return text in _TRUE

    def text(self, *names: str) -> str:
        """The first of these names that is given, or ""."""
        name, value = self._first(names)
        if value is None:
            return ""
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise self._wrong(name, value, "a text")
        return str(value).strip()

    def items(self, name: str) -> list[Any]:
        """A list; a text is split at commas; [] when it is not given."""
        _, value = self._first((name,))
        if value is None:
            return []
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, list | tuple):
            raise self._wrong(name, value, "a list")
        return list(value)

    def _first(self, names: tuple[str, ...]) -> tuple[str, Any]:
        for name in names:
            value = self._values.get(name.lower())
            if value is not None and value != "":
                return name, value
        return names[0], None

    def _wrong(self, name: str, value: object, expected: str) -> ServingError:
        return invalid(f"argument '{name}' of model '{self._model}' is {str(value)[:100]!r}, expected {expected}", what="model")


def processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
