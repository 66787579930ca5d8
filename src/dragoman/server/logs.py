"""The log of the server process: readable lines or JSON, one line per request where that is wanted. Called by the command line and the worker.

`configure_logging` is for processes that are ours. A server inside somebody's program logs to the loggers "dragoman.*" and leaves their
handlers to that program.
"""

import json
import logging
import os
import re
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from dragoman.dialects import Scope
from dragoman.server.trace import CURRENT, IDS_KEY, Ids
from dragoman.serving.log_settings import ACCESS, LogSettings

_COLOURS = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_IN_TRACEBACK = {code: text for code, text in _CONTROL.items() if chr(code) not in "\n\t"}
_MODEL = re.compile(r"/models/([^/:]+)")


def configure_logging(level: str, form: str, stream: TextIO | None = None) -> LogSettings:
    """Log to `stream` (standard error): `form` is pretty, json, or auto, which is pretty on a terminal. Replaces what it set up before.

    Our own records come from `level` on, other packages' from warnings on; "trace" is what Tungsten calls a level below "debug", which there
    is none of. The settings that it returns can be changed at any time.
    """
    level = "debug" if level == "trace" else level
    target = sys.stderr if stream is None else stream
    structured = form == "json" or (form == "auto" and not target.isatty())
    settings = LogSettings(level, structured=structured)
    handler = _Handler(target, settings)
    handler.setFormatter(JsonLines() if structured else PrettyLines(settings, coloured=target.isatty() and not os.environ.get("NO_COLOR")))
    root = logging.getLogger()
    for before in [each for each in root.handlers if isinstance(each, _Handler)]:
        before.settings.on_change(lambda: None)
        root.removeHandler(before)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    ours = logging.getLogger("dragoman")
    settings.on_change(lambda: ours.setLevel(settings.lowest))
    logging.getLogger(ACCESS).setLevel(logging.INFO)
    return settings


def log_settings() -> LogSettings:
    """The settings of this process; ones that cannot be changed where `configure_logging` was not called."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Handler):
            return handler.settings
    return LogSettings(fixed="this server runs inside a program that configures the log itself, so its settings cannot be changed here")


class _Handler(logging.StreamHandler[TextIO]):
    def __init__(self, stream: TextIO, settings: LogSettings) -> None:
        super().__init__(stream)
        self.settings = settings
        self.addFilter(settings)


class PrettyLines(logging.Formatter):
    """For people: time, level, part of the server, message, ids. Nothing that a client sent can start a new line or steer a terminal."""

    def __init__(self, settings: LogSettings, *, coloured: bool = False) -> None:
        super().__init__()
        self._settings = settings
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname:<7}"
        if self._coloured:
            level = f"\x1b[{_COLOURS.get(record.levelname, '0')}m{level}\x1b[0m"
        facts = _facts(record)
        message = record.getMessage().translate(_CONTROL)
        shown = "".join(f" {name}={str(value).translate(_CONTROL)}" for name, value in facts.items() if name not in _IN_MESSAGE)
        line = f"{self._time(record)} {level} {record.name.removeprefix('dragoman.')}: {message}{shown}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info).translate(_IN_TRACEBACK)
        return line

    def _time(self, record: logging.LogRecord) -> str:
        if self._settings.iso_times:
            return _iso(record.created)
        return f"{time.strftime('%H:%M:%S', time.localtime(record.created))}.{int(record.msecs):03d}"


class JsonLines(logging.Formatter):
    """For machines: one JSON object per line. Times are UTC."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _iso(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_facts(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class AccessLog:
    """One record per answered request. Given to the servers, which call it after each answer with what they have sent."""

    def __init__(self) -> None:
        self._log = logging.getLogger(ACCESS)

    def __call__(self, scope: Scope | None, status: int | str, sent_bytes: int, started_ns: int) -> None:
        """`started_ns` is on the performance counter; without a scope the request could not be read. gRPC's statuses are names."""
        took_ms = round((time.perf_counter_ns() - started_ns) / 1e6, 3)
        facts: dict[str, Any] = {"client": "-", "method": "-", "path": "-", "status": status, "bytes": sent_bytes, "ms": took_ms}
        if scope is not None:
            client = scope.get("client")
            facts["client"] = client[0] if client else "-"
            facts["method"] = scope["method"]
            # As it came: percent-encoded, and without the query, where some clients put secrets.
            facts["path"] = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")[:1000]
            facts.update(_named(scope.get(IDS_KEY)))
            model = _MODEL.search(scope["path"])
            if model is not None:
                facts["model"] = model[1][:255]
        message = f"{facts['client']} {facts['method']} {facts['path']} {status} {sent_bytes} B {took_ms} ms"
        self._log.info("%s", message, extra={"dragoman_facts": facts})


_IN_MESSAGE = frozenset({"client", "method", "path", "status", "bytes", "ms"})


def _facts(record: logging.LogRecord) -> Mapping[str, Any]:
    """What a record says beside its message: that of an access record, or the ids of the request that is being answered."""
    facts: Mapping[str, Any] | None = getattr(record, "dragoman_facts", None)
    return _named(CURRENT.get()) if facts is None else facts


def _named(ids: Ids | None) -> dict[str, str]:
    if ids is None:
        return {}
    return {name: value for name, value in (("request_id", ids.request_id), ("trace_id", ids.trace_id)) if value}


def _iso(created: float) -> str:
    return datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
