"""The logger that takes its facts as keywords, and small functions that model code imports from `mlrun.utils`."""

import datetime
import logging
import sys
from typing import Any


class Logger:
    """Writes `message {'fact': value}` through the standard library's logging; warnings and above are seen without any set-up."""

    def __init__(self, name: str = "mlrun", level: int | str = logging.INFO) -> None:
        self._logger = logging.getLogger(name)
        self.set_logger_level(level)

    @property
    def level(self) -> int:
        return self._logger.level

    def set_logger_level(self, level: int | str) -> None:
        self._logger.setLevel(level.upper() if isinstance(level, str) else level)

    def get_child(self, suffix: str) -> "Logger":
        return Logger(f"{self._logger.name}.{suffix}", self.level)

    def debug(self, message: str, *args: Any, **facts: Any) -> None:
        self._write(logging.DEBUG, message, args, facts)

    def info(self, message: str, *args: Any, **facts: Any) -> None:
        self._write(logging.INFO, message, args, facts)

    def warning(self, message: str, *args: Any, **facts: Any) -> None:
        self._write(logging.WARNING, message, args, facts)

    warn = warning

    def error(self, message: str, *args: Any, **facts: Any) -> None:
        self._write(logging.ERROR, message, args, facts)

    def exception(self, message: str, *args: Any, exc_info: Any = True, **facts: Any) -> None:
        self._write(logging.ERROR, message, args, facts, exc_info)

    # Nuclio's logger, which classes find in their context on MLRun's platform, has these words for facts as keywords.
    debug_with = debug
    info_with = info
    warn_with = warning
    error_with = error

    def _write(self, level: int, message: str, args: tuple[Any, ...], facts: dict[str, Any], exc_info: Any = None) -> None:
        if not self._logger.isEnabledFor(level):
            return
        if not self._logger.hasHandlers():  # nobody has set logging up, and what a model says must be seen
            self._logger.addHandler(_Printed())
        self._logger.log(level, f"{message} {facts}" if facts else message, *args, exc_info=exc_info)


class _Printed(logging.StreamHandler[Any]):
    """To the standard error of the moment: a server may have put its own in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s"))

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, _value: Any) -> None:
        """There is nothing to keep."""


logger = Logger()


def create_logger(level: int | str = logging.INFO, _format: str = "human", name: str = "mlrun", _stream: Any = None) -> Logger:
    return Logger(name, level)


def now_date(tz: datetime.tzinfo = datetime.UTC) -> datetime.datetime:
    return datetime.datetime.now(tz)


def get_in(obj: Any, keys: str | list[str], default: Any = None) -> Any:
    """What lies in nested dicts at a dotted path."""
    for key in keys.split(".") if isinstance(keys, str) else keys:
        if not isinstance(obj, dict) or key not in obj:
            return default
        obj = obj[key]
    return obj


def update_in(obj: dict[str, Any], key: str | list[str], value: Any) -> None:
    """Put a value into nested dicts at a dotted path, making those that are missing."""
    *parents, last = key.split(".") if isinstance(key, str) else key
    for parent in parents:
        obj = obj.setdefault(parent, {})
    obj[last] = value
