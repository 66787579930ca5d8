"""`dragoman mlserver start FOLDER`: MLServer's start command with its settings.json and MLSERVER_* variables.

Settings are those of MLServer's `Settings`; what they do here is in `_settings`. See docs/migrating.md.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dragoman.cli.foreign.flags import Given
from dragoman.cli.foreign.starting import LOCAL, Command, Start
from dragoman.core.errors import invalid
from dragoman.server.settings import Settings
from dragoman.serving import layouts
from dragoman.serving.paths import read_bounded
from dragoman.serving.settings import LARGEST_FILE, quoted

_FILE = "settings.json"
_PREFIX, _MODEL = "MLSERVER_", "MLSERVER_MODEL_"
_DESCRIPTION = """\
Serve the folder as `mlserver start FOLDER` does: every folder below it with a model-settings.json, on the ports of its settings.json
or of MLSERVER_HTTP_PORT (8080), MLSERVER_GRPC_PORT (8081) and MLSERVER_METRICS_PORT (8082). What serves is Dragoman, which answers
on the port of HTTP in every other protocol, too."""
DEFAULTS: Mapping[str, Any] = {
    "host": LOCAL,
    "http_port": 8080,
    "grpc_port": 8081,
    "metrics_port": 8082,
    "metrics_endpoint": "/metrics",
    "parallel_workers": 1,
    "load_models_at_startup": True,
    "model_repository_root": "",
    "server_name": "mlserver",
    "cors_settings": None,
    "grpc_max_message_length": None,
}
"""MLServer's settings that have an effect here, with its defaults."""
IDLE: Mapping[str, Any] = {
    "debug": None,
    "server_version": None,
    "extensions": [],
    "root_path": "",
    "metrics_rest_server_prefix": "rest_server",
    "metrics_dir": None,
    "logging_settings": None,
    "use_structured_logging": False,
    "gzip_enabled": True,
    "cache_enabled": False,
    "cache_size": 100,
    "environments_dir": None,
    "parallel_workers_timeout": 5,
    "tracing_server": None,
    "model_repository_implementation": None,
    "model_repository_implementation_args": None,
    "kafka_enabled": False,
    "kafka_servers": "localhost:9092",
    "kafka_topic_input": "mlserver-input",
    "kafka_topic_output": "mlserver-output",
}
"""Those that have none; named in a warning where they are anything else than this (None: always)."""
_QUIET = ("debug", "server_version")
"""Of those, the ones of which nobody misses the effect."""


def _start(given: Given, environ: Mapping[str, str] = os.environ) -> Start:
    if given.words[:1] != ("start",) or len(given.words) > 2:
        raise invalid("expected `dragoman mlserver start FOLDER`")
    folder = Path(given.words[1] if len(given.words) == 2 else ".").expanduser()
    if not folder.is_dir():
        raise invalid(f"there is no folder {folder}")
    values, sources = _read(folder, environ)
    start = Start()
    _fill(start, values, sources)
    start.settings["targets"] = (_target(environ, Path(values["model_repository_root"] or folder)),)
    return start


def _read(folder: Path, environ: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Every setting, and where it was said: the file before the variables, as MLServer has it."""
    values, sources = dict(DEFAULTS), {}
    for name in (*DEFAULTS, *IDLE):
        variable = f"{_PREFIX}{name.upper()}"
        if variable in environ:
            values[name], sources[name] = _from_text(environ[variable]), variable
    path = folder / _FILE
    if path.is_file():
        try:
            content = json.loads(read_bounded(path, LARGEST_FILE, str(path)))
        except (ValueError, RecursionError) as error:
            raise invalid(f"{path} is not JSON: {error}") from None
        if not isinstance(content, dict):
            raise invalid(f"{path}: expected a JSON object")
        for name, value in content.items():
            values[name], sources[name] = value, f"{name} in {path}"
    return values, sources


def _from_text(text: str) -> Any:
    """A variable's value: JSON where it is any, else the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _fill(start: Start, values: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    def number(name: str, least: int, most: int) -> int:
        value = values[name]
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise invalid(f"{sources.get(name, name)} is {quoted(str(value))}, expected a whole number from {least} to {most}")
        return value

    def text(name: str) -> str:
        if not isinstance(values[name], str):
            raise invalid(f"{sources[name]}: expected text")
        return str(values[name])

    endpoint = values["metrics_endpoint"]
    if endpoint not in (None, "", "/metrics"):
        start.warnings.append(f"{sources['metrics_endpoint']} has no effect here: metrics are at /metrics")
    if values["grpc_max_message_length"] is not None and number("grpc_max_message_length", -1, (1 << 31) - 1) > Settings().max_body:
        start.settings["max_body"] = values["grpc_max_message_length"]
    cors = values["cors_settings"]
    host = text("host")
    start.settings |= {
        "host": host,
        "port": (number("http_port", 0, 65535),),
        "grpc_port": (number("grpc_port", 0, 65535),),
        "metrics_port": number("metrics_port", 0, 65535) if endpoint else -1,
        "workers": max(1, number("parallel_workers", 0, 512)),
        "server_name": text("server_name"),
        "cors": bool(cors.get("allow_origins") or cors.get("allow_origin_regex")) if isinstance(cors, dict) else None,
        "load": None if values["load_models_at_startup"] not in (False, "false") else "request",
    }
    unknown = [name for name in sources if name not in DEFAULTS and name not in IDLE]
    idle = [name for name in sources if name in IDLE and name not in _QUIET and values[name] != IDLE[name]]
    if unknown or idle:
        start.warnings.append(f"these settings have no effect here: {', '.join(sources[name] for name in (*idle, *unknown))}")


def _target(environ: Mapping[str, str], root: Path) -> str:
    """The repository; or, where nothing in it says what it holds and variables do (as in KServe's containers), the one model that they name."""
    if f"{_MODEL}IMPLEMENTATION" not in environ or (root / layouts.MLSERVER_SETTINGS).is_file() or any(layouts.models_below(root)):
        return str(root)
    name, place = environ.get(f"{_MODEL}NAME", ""), environ.get(f"{_MODEL}URI") or str(root)
    return f"{name}={place}" if name else place


COMMAND = Command("mlserver", "MLServer's start command: dragoman mlserver --help", _DESCRIPTION, (), _start, "start FOLDER")
