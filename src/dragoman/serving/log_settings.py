"""What is logged, changeable while the server runs: Triton's logging settings. A filter of the handler that server/logs.py installs.

Read and changed by the Open Inference Protocol; common to all workers once they share live settings.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from dragoman.core.errors import invalid
from dragoman.serving.live_settings import LiveSettings, shown

ACCESS = "dragoman.access"
"""The logger of the access log, which has a switch of its own at start and is no matter of levels."""
_SWITCHES = ("log_info", "log_warning", "log_error")
_FORMATS = ("default", "ISO8601")
_MOST_VERBOSE = 2**32 - 1


class LogSettings(logging.Filter):
    """The settings, by their names on the wire, and the switch that they are.

    `level` is what the server was started with: null brings a setting back to it. `structured` logs have one form of time, so that
    `log_format` cannot change it. `fixed` gives a reason why nothing can be changed (in a program with logging of its own).
    """

    def __init__(self, level: str = "info", *, structured: bool = False, fixed: str = "") -> None:
        super().__init__()
        rank = ("debug", "info", "warning", "error").index(level)
        self._start: Mapping[str, Any] = {
            "log_file": "",
            "log_info": rank <= 1,
            "log_warning": rank <= 2,
            "log_error": True,
            "log_verbose_level": int(rank == 0),
            "log_format": "ISO8601" if structured else "default",
        }
        self._values = dict(self._start)
        self._fixed = fixed
        self._structured = structured
        self._live = LiveSettings()
        self._on_change: Callable[[], None] = lambda: None
        self._live.join("log", self._apply)

    @property
    def iso_times(self) -> bool:
        return bool(self._values["log_format"] == "ISO8601")

    @property
    def lowest(self) -> int:
        """The lowest level that is logged."""
        if self._values["log_verbose_level"]:
            return logging.DEBUG
        if self._values["log_info"]:
            return logging.INFO
        return logging.WARNING if self._values["log_warning"] else logging.ERROR

    def share(self, live: LiveSettings) -> None:
        """From now on, be of one mind with the other workers."""
        self._live = live
        live.join("log", self._apply)

    def on_change(self, told: Callable[[], None]) -> None:
        """Call `told` now and after every change."""
        self._on_change = told
        told()

    def filter(self, record: logging.LogRecord) -> bool:
        level = record.levelno
        if record.name == ACCESS:
            return True
        if level >= logging.ERROR:
            return bool(self._values["log_error"])
        if level >= logging.WARNING:
            return bool(self._values["log_warning"])
        if level >= logging.INFO:
            return bool(self._values["log_info"])
        return bool(self._values["log_verbose_level"])

    def read(self) -> dict[str, Any]:
        """All settings."""
        self._live.refresh()
        return dict(self._values)

    def update(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Change the given ones, in every worker, and return all. Raises INVALID_INPUT and changes nothing when one cannot be had."""
        self._live.refresh()
        if self._fixed and any(value is not None and value != self._values.get(name) for name, value in values.items()):
            raise invalid(self._fixed, "log")
        for name, value in values.items():
            if name not in self._start:
                raise invalid(f"there is no log setting '{name[:100]}'; there are {', '.join(self._start)}", "log")
            if value is not None:
                self._check(name, value)
        self._live.update("log", lambda before: {n: v for n, v in {**before, **values}.items() if v is not None})
        return dict(self._values)

    def _check(self, name: str, value: Any) -> None:
        if name in _SWITCHES:
            if not isinstance(value, bool):
                raise invalid(f"the log setting '{name}' must be true or false, not {shown(value)}", "log")
        elif name == "log_verbose_level":
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_VERBOSE:
                raise invalid(
                    f"the log setting 'log_verbose_level' must be a whole number from 0 to {_MOST_VERBOSE}, not {shown(value)}", "log"
                )
        elif name == "log_format":
            if value not in _FORMATS:
                raise invalid(f"the log setting 'log_format' must be one of {', '.join(_FORMATS)}, not {shown(value)}", "log")
            if self._structured and value != "ISO8601":
                raise invalid(
                    "the log setting 'log_format' cannot be changed while the server writes its log as JSON: its times are ISO8601", "log"
                )
        elif value != self._values["log_file"]:
            raise invalid("the log setting 'log_file' cannot be changed: the log goes to where the server was started", "log")

    def _apply(self, section: Mapping[str, Any]) -> None:
        self._values = {**self._start, **{name: value for name, value in section.items() if name in self._start}}
        self._on_change()
