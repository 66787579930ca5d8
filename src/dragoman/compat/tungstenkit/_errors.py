"""What is wrong with a value: one dictionary per fault, in the form and words of pydantic 1, and the exception that carries them.

Coercion appends faults to a list and goes on, so that one exception names all of them.
"""

import json
from collections.abc import Iterable
from enum import Enum
from typing import Any, Final, TypeAlias

Loc: TypeAlias = tuple[int | str, ...]
Fault: TypeAlias = dict[str, Any]
"""{"loc": (...), "msg": "...", "type": "..."} and, where there are limits, "ctx": {...}."""


class _Invalid(Enum):
    INVALID = 0


INVALID: Final = _Invalid.INVALID
"""What a coercion returns in place of a value after it has written down a fault."""


def fault(faults: list[Fault], loc: Loc, kind: str, message: str, **context: Any) -> _Invalid:
    """Write one down; the return value is INVALID, so that callers can return it."""
    found: Fault = {"loc": loc, "msg": message, "type": kind}
    if context:
        found["ctx"] = context
    faults.append(found)
    return INVALID


def none_is_not_allowed(faults: list[Fault], loc: Loc) -> _Invalid:
    return fault(faults, loc, "type_error.none.not_allowed", "none is not an allowed value")


def listed(values: Iterable[object]) -> str:
    return ", ".join(repr(value) for value in values)


def place(loc: Loc) -> str:
    """Where, for people: x -> 0 -> y."""
    return " -> ".join(str(step) for step in loc)


class ValidationError(ValueError):
    """Raised when a BaseIO class does not take its values. `errors()` has every fault."""

    def __init__(self, errors: list[Fault], model: type) -> None:
        super().__init__(errors, model)
        self._errors = errors
        self.model = model

    def errors(self) -> list[Fault]:
        return self._errors

    def json(self, *, indent: int | str | None = 2) -> str:
        return json.dumps(self._errors, indent=indent, default=str)

    def __str__(self) -> str:
        count = len(self._errors)
        lines = [f"{count} validation error{'' if count == 1 else 's'} for {self.model.__name__}"]
        for found in self._errors:
            context = "".join(f"; {key}={value}" for key, value in found.get("ctx", {}).items())
            lines += [place(found["loc"]), f"  {found['msg']} (type={found['type']}{context})"]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"ValidationError(model={self.model.__name__!r}, errors={self._errors!r})"
