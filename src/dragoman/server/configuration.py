"""Settings from where operators write them: defaults, then a TOML file, then DRAGOMAN_* variables, then flags; and back as a file.

Called by the command line and by dragoman.serve, once. Every error names the source and the setting that is wrong.
"""

import json
import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from dragoman.core.errors import ServingError, invalid
from dragoman.server.settings import Settings
from dragoman.serving import class_arguments
from dragoman.serving.explain.options import read_setting
from dragoman.serving.model_config import policy_of
from dragoman.serving.records import settings as records
from dragoman.serving.records.sinks import check_place
from dragoman.serving.routers.configured import parsed
from dragoman.serving.tfserving_files import METRICS_PATH, is_metrics_path
from dragoman.store.addresses import sqlite_path
from dragoman.streams.addresses import check_streams

_SIZE = re.compile(r"(\d+)\s*([kmg]?)i?b?", re.IGNORECASE)
_OPTION = re.compile(r"(?!(?i:trust_pickle)=)[A-Za-z]\w{0,99}=.+")
_PUBLIC_URL = re.compile(r"https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~/%-]*)?")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}

_YEAR_S = 31_536_000
_RANGES = (
    ("timeout", 0, _YEAR_S),
    ("drain_timeout", 0, _YEAR_S),
    ("keep_alive", 0.1, _YEAR_S),
    ("prediction_timeout", 0, _YEAR_S),
    ("setup_timeout", 0, _YEAR_S),
    ("result_expiration", 0.1, _YEAR_S),
    ("model_wait", 0, _YEAR_S),
    ("upload_expiration", 0.1, _YEAR_S),
    ("fetch_timeout", 0.1, _YEAR_S),
    ("batch_delay_ms", 0, 3_600_000),
    ("threads", 0, 1024),
    ("instances", 1, 256),
    ("max_jobs", 0, 100_000),
    ("job_cpus", 0, 4096),
    ("job_processes", 0, 1 << 22),
    ("job_max_runtime", 0, 100 * _YEAR_S),
    ("job_start_timeout", 0, _YEAR_S),
    ("job_idle_timeout", 0, _YEAR_S),
    ("job_concurrency", 1, 1024),
    ("poll", 0, _YEAR_S),
    ("model_config_poll", 0, _YEAR_S),
    ("load_retries", 0, 1_000_000_000),
    ("load_retry_interval", 0.001, _YEAR_S),
    ("tracking_sample", 1, records.MOST),
    ("tracking_batch", 1, records.MOST),
)
"""Least and most of settings whose values reach timers and thread pools, which take no number for granted."""


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def read(flags: Mapping[str, Any], config_file: str = "", environ: Mapping[str, str] = os.environ) -> Settings:
    """Layer the sources. Raises ServingError INVALID_INPUT naming the source and the setting that is wrong."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if config_file:
        values = _from_file(Path(config_file))
        sources = {name: f"{config_file}: {name}" for name in values}
    for spec in fields(Settings):
        variable = f"DRAGOMAN_{spec.name.upper()}"
        text = environ.get(variable)
        if text is not None:
            listed = spec.metadata.get("many") and not spec.metadata.get("commas")
            raw: Any = [t for t in text.split(",") if t] if listed else text
            values[spec.name] = _coerce(spec.name, raw, variable)
            sources[spec.name] = variable
    for name, value in flags.items():
        if name not in {spec.name for spec in fields(Settings)}:
            raise invalid(f"there is no setting called '{name}'")
        if value is not None:
            values[name] = _coerce(name, value, flag_of(name))
            sources[name] = flag_of(name)
    return _sane(replace(Settings(), **values), sources, environ)


def as_toml(settings: Settings) -> str:
    """The settings as a file that --config reads back, but for passwords and tokens."""
    lines = []
    for spec in fields(Settings):
        lines.append(f"# {spec.metadata['help']}")
        value, shown = getattr(settings, spec.name), spec.metadata.get("shown")
        lines.append(f"{spec.name} = {_toml(_printable(value, shown) if shown else value)}")
    return "\n".join(lines) + "\n"


def _printable(value: Any, shown: Callable[[str], str]) -> Any:
    return tuple(shown(each) for each in value) if isinstance(value, tuple) else shown(value)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped) + '"'


def _from_file(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise invalid(f"the configuration file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(f"the configuration file {path} is not valid TOML: {error}") from error
    known = {f.name for f in fields(Settings)}
    values = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name not in known:
            raise invalid(f"the configuration file {path} has the setting '{key}', which does not exist")
        values[name] = _coerce(name, value, f"{path}: {key}")
    return values


def _coerce(name: str, value: Any, source: str) -> Any:
    """Bring a value from a file, variable or flag to the type of its setting."""
    spec = next(f for f in fields(Settings) if f.name == name)
    if spec.metadata.get("many"):
        items = value if isinstance(value, list | tuple) else [value]
        if spec.metadata.get("table") and isinstance(value, Mapping):
            items = [f"{key}={json.dumps(each)}" for key, each in value.items()]
        return tuple(_scalar(item, spec.metadata["of"], spec.metadata, source) for item in items)
    kind = type(spec.default)
    return _scalar(value, kind, spec.metadata, source)


def _scalar(value: Any, kind: type, meta: Mapping[str, Any], source: str) -> Any:
    wrong = invalid(f"{source} is {value!r}, expected {_expected(kind, meta)}")
    if kind is bool:
        if isinstance(value, bool):
            return value
        text = str(value).lower()
        if text not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
            raise wrong
        return text in ("1", "true", "yes", "on")
    if kind is str and isinstance(value, os.PathLike):
        value = os.fspath(value)
    # A number in the place of a text, or 2.5 where whole ones are meant, is a mistake: nothing is rounded or spelled out in silence.
    allowed = {str: str, int: int | str, float: int | float | str}[kind]
    if isinstance(value, bool) or not isinstance(value, allowed):
        raise wrong
    if meta["unit"] == "size" and isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise wrong
        return int(match[1]) * _UNITS[match[2].lower()]
    try:
        result = kind(value)
    except (ValueError, OverflowError):
        raise wrong from None
    if (meta["choices"] and result not in meta["choices"]) or (kind is float and not math.isfinite(result)):
        raise wrong
    return result


def _expected(kind: type, meta: Mapping[str, Any]) -> str:
    if meta["choices"]:
        return "one of " + ", ".join(meta["choices"])
    if meta["unit"] == "size":
        return "a size such as 64MB"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]


def _check(name: str, check: Callable[[], object], sources: Mapping[str, str]) -> None:
    try:
        check()
    except ServingError as error:
        raise invalid(f"{sources.get(name, flag_of(name))}: {error.message}") from None


def _sane(settings: Settings, sources: Mapping[str, str], environ: Mapping[str, str]) -> Settings:
    def refuse(name: str, text: str) -> ServingError:
        value = getattr(settings, name)
        shown = ", ".join(str(v) for v in value) or "empty" if isinstance(value, tuple) else value
        return invalid(f"{sources.get(name, flag_of(name))} is {shown}, {text}")

    if not (settings.port or settings.grpc_port) or not all(0 <= port <= 65535 for port in settings.port):
        raise refuse("port", "expected one or more numbers from 0 to 65535")
    if not all(0 <= port <= 65535 for port in settings.grpc_port):
        raise refuse("grpc_port", "expected numbers from 0 to 65535")
    if both := {port for port in settings.grpc_port if port} & {*settings.port, settings.metrics_port}:
        raise invalid(
            f"{sources.get('grpc_port', flag_of('grpc_port'))} is {min(both)}, which is a port of HTTP; gRPC needs one of its own"
        )
    if settings.workers < 1 or settings.workers > 512:
        raise refuse("workers", "expected 1 to 512")
    for name in ("batch_size", "max_queue", "job_memory", "job_file_size", "max_data_set"):
        if getattr(settings, name) < 0:
            raise refuse(name, "expected 0 or more")
    for name in ("max_body", "max_connections", "max_inputs", "max_file", "max_predictions", "max_code", "max_code_files", "job_log_size"):
        if getattr(settings, name) < 1:
            raise refuse(name, "expected 1 or more")
    for name, least, most in _RANGES:
        if not least <= getattr(settings, name) <= most:
            raise refuse(name, f"expected {least} to {most}")
    try:
        policy_of(settings.version_policy)
    except ValueError:
        raise refuse("version_policy", "expected latest, latest:N, all, or version numbers such as 1,3") from None
    if settings.monitoring_path and not is_metrics_path(settings.monitoring_path):
        raise refuse("monitoring_path", f"expected a plain path such as {METRICS_PATH}")
    if not -1 <= settings.metrics_port <= 65535:
        raise refuse("metrics_port", "expected 0 to 65535, or -1 for none")
    sizes = settings.batch_sizes
    if sizes and (sizes[0] < 1 or any(a >= b for a, b in pairwise(sizes)) or settings.batch_size not in (0, sizes[-1])):
        raise refuse("batch_sizes", "expected ascending numbers from 1, the last of them that of --batch-size")
    if settings.name and len(settings.targets) > 1:
        raise invalid("--name goes with one target; give several targets their names as NAME=PATH")
    if settings.store:
        _check("store", lambda: sqlite_path(settings.store), sources)
    _check("stream", lambda: check_streams(settings.stream), sources)
    _check("explain", lambda: read_setting(settings.explain), sources)
    _check("class_args", lambda: class_arguments.parse(settings.class_args), sources)
    if settings.tracking:
        _check("tracking", lambda: check_place(settings.tracking, environ), sources)
    if settings.public_url and not _PUBLIC_URL.fullmatch(settings.public_url):
        raise refuse("public_url", "expected http:// or https:// with a host, and at most a port and a path")
    for each in settings.option:
        if not _OPTION.fullmatch(each):
            raise refuse("option", "expected NAME=VALUE with the name of an option (--trust-pickle is a flag of its own)")
    _check("router", lambda: [parsed(each) for each in settings.router], sources)
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise invalid("--tls-cert and --tls-key go together")
    if bool(settings.grpc_tls_cert) != bool(settings.grpc_tls_key):
        raise invalid("--grpc-tls-cert and --grpc-tls-key go together")
    return settings
