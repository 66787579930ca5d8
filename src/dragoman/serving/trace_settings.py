"""Which requests leave a trace: Triton's trace settings, of all models and of single ones, changeable while the server runs.

Read and changed by the Open Inference Protocol, obeyed by serving/tracing.py; common to all workers that share live settings. Values are
text, as on the wire.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dragoman.core.errors import ServingError, invalid
from dragoman.serving.live_settings import LiveSettings, Section, shown

_START: Mapping[str, str] = {
    "trace_level": "OFF",
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_file": "trace.json",
    "trace_mode": "triton",
}
_RANGES = {"trace_rate": (1, 2**32 - 1), "trace_count": (-1, 2**31 - 1), "log_frequency": (0, 10_000)}
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NUMBER = re.compile(r"-?[0-9]{1,10}")


@dataclass(frozen=True, slots=True)
class Traced:
    """What holds for one scope: a model with settings of its own, or "" for all others. `left` -1 is without end."""

    scope: str
    active: bool
    rate: int
    left: int
    frequency: int
    file: str


class TraceSettings:
    """The settings as clients see them. A model's own ones come before the general ones, setting by setting."""

    def __init__(self, live: LiveSettings | None = None) -> None:
        self._live = live or LiveSettings()
        self._general: dict[str, str] = dict(_START)
        self._of_models: dict[str, dict[str, str]] = {}
        self._on_change: Callable[[], None] = lambda: None
        self._live.join("trace", self._apply)

    def on_change(self, told: Callable[[], None]) -> None:
        """Call `told` now and after every change, by this worker or another."""
        self._on_change = told
        told()

    def read(self, model: str = "") -> dict[str, Any]:
        """All settings that hold for a model, or in general; `trace_count` is how many traces are still to come."""
        self._live.refresh()
        values: dict[str, Any] = {**self._general, **self._of_models.get(model, {})}
        values["trace_level"] = [values["trace_level"]]
        return values

    def update(self, values: Mapping[str, Any], model: str = "") -> dict[str, Any]:
        """Change the given ones, in every worker, and return all; null takes one back to what holds in general, or at start.

        Raises INVALID_INPUT and changes nothing when one cannot be had. That the model exists is for the caller to see.
        """
        checked = {name: None if value is None else _checked(name, value) for name, value in values.items() if _known(name)}

        def change(before: Section) -> Section:
            scopes = dict(before)
            scope = {name: value for name, value in {**before.get(model, {}), **checked}.items() if value is not None}
            scopes.pop(model, None)
            return {**scopes, model: scope} if scope else scopes

        self._live.update("trace", change)
        return self.read(model)

    def scopes(self) -> dict[str, Traced]:
        """What holds for each model with settings of its own, and under "" for all others."""
        return {scope: _traced(scope, {**self._general, **own}) for scope, own in {"": {}, **self._of_models}.items()}

    def claim(self, scope: str) -> bool:
        """Take one of the traces that a scope has left, before any other worker does; false when there is none."""
        claimed = False

        def change(before: Section) -> Section:
            nonlocal claimed
            counting = scope if "trace_count" in before.get(scope, {}) else ""
            own = before.get(counting, {})
            left = int(own.get("trace_count", _START["trace_count"]))
            claimed = left != 0
            return {**before, counting: {**own, "trace_count": str(left - 1)}} if left > 0 else before

        self._live.update("trace", change)
        return claimed

    def _apply(self, section: Section) -> None:
        self._general = {**_START, **section.get("", {})}
        self._of_models = {model: own for model, own in section.items() if model}
        self._on_change()


def _traced(scope: str, values: Mapping[str, str]) -> Traced:
    left = int(values["trace_count"])
    active = values["trace_level"] == "TIMESTAMPS" and left != 0
    return Traced(scope, active, int(values["trace_rate"]), left, int(values["log_frequency"]), values["trace_file"])


def _known(name: str) -> bool:
    if name not in _START:
        raise invalid(f"there is no trace setting '{name[:100]}'; there are {', '.join(_START)}", "trace")
    return True


def _checked(name: str, value: Any) -> str:
    """The value as text. Raises INVALID_INPUT for one that would have no effect here."""
    if name == "trace_level":
        return _level(value)
    if name in _RANGES:
        low, high = _RANGES[name]
        number = int(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            raise _wrong(name, value, f"a whole number from {low} to {high}, as text")
        return str(number)
    if name == "trace_mode":
        if value != "triton":
            raise _wrong(name, value, "'triton'; no other is supported")
    elif not isinstance(value, str) or _FILE.fullmatch(value) is None:
        raise _wrong(name, value, "the plain name of a file in the server's trace folder: letters, digits, '.', '_' and '-'")
    return str(value)


def _level(value: Any) -> str:
    levels = [value] if isinstance(value, str) else value
    if not isinstance(levels, list) or not levels or any(level not in ("OFF", "TIMESTAMPS") for level in levels):
        raise _wrong("trace_level", value, "OFF or TIMESTAMPS; tensors are not traced")
    if len(set(levels)) > 1:
        raise _wrong("trace_level", value, "either OFF or TIMESTAMPS")
    return str(levels[0])


def _wrong(name: str, value: Any, expected: str) -> ServingError:
    return invalid(f"the trace setting '{name}' must be {expected}, not {shown(value)}", "trace")
