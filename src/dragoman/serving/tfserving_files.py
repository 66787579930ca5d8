"""The text files that TensorFlow Serving's flags name, but for the list of models: batching, monitoring, certificates of gRPC.

Called by the command line at start, and by reading.py for batching_params.pbtxt in the folder of a version. Blocking.
"""

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from dragoman.core.errors import ServingError, invalid
from dragoman.core.model import BatchPolicy
from dragoman.serving.proto_text import read_file

PER_MODEL = "batching_params.pbtxt"
"""Beside a saved_model.pb: how requests for this version are joined."""
METRICS_PATH = "/monitoring/prometheus/metrics"
_PATH = re.compile(r"/[A-Za-z0-9._~:-]+(?:/[A-Za-z0-9._~:-]+)*")
_TAKEN = frozenset({"v1", "v2", "models", "model-serving", "predictions"})
_LONGEST_DELAY_US = 3_600_000_000
_MOST_WAITING = (1 << 31) - 1
_USUAL_SIZE = 1000
_USUAL_BATCHES = 10
"""Where a file does not say them."""


@dataclass(frozen=True, slots=True)
class Monitoring:
    """Whether metrics are shown to Prometheus, and where."""

    enabled: bool = False
    path: str = METRICS_PATH


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM texts. `client_ca` is empty where nobody's certificate is asked for."""

    key: str
    cert: str
    client_ca: str = ""


def read_batching(path: Path) -> tuple[BatchPolicy, bool]:
    """The policy of a batching parameters file, and whether it sizes the pool of threads, which has no effect here.

    Raises INVALID_INPUT with what is wrong with it.
    """
    source = f"the batching parameters {path.name}"
    message = _read(path, "tensorflow.serving.BatchingParameters", source)
    size = _number(message, "max_batch_size", _USUAL_SIZE, 1, _MOST_WAITING, source)
    delay_us = _number(message, "batch_timeout_micros", 0, 0, _LONGEST_DELAY_US, source)
    batches = _number(message, "max_enqueued_batches", _USUAL_BATCHES, 1, (1 << 63) - 1, source)
    largest, cut = size, message.enable_large_batch_splitting.value
    if cut:
        largest = _number(message, "max_execution_batch_size", size, 1, size, source)
    allowed = tuple(message.allowed_batch_sizes)
    if allowed and (allowed[0] < 1 or any(a >= b for a, b in pairwise(allowed))):
        raise invalid(f"{source}: allowed_batch_sizes entries must be monotonically increasing, from 1, not {list(allowed)[:20]}")
    if allowed and allowed[-1] != largest:
        which = "max_execution_batch_size" if largest != size else "max_batch_size"
        raise invalid(f"{source}: last entry in allowed_batch_sizes must equal {which}; last entry was {allowed[-1]}; expected {largest}")
    policy = BatchPolicy(
        max_size=largest,
        max_delay_s=delay_us / 1e6,
        # Bounded in batches there and in requests here, each of which has a row at least.
        max_queue=min(size * batches, _MOST_WAITING),
        allowed=allowed,
        cut=cut,
        pad=message.pad_variable_length_inputs,
    )
    return policy, message.HasField("num_batch_threads")


def own_batching(folder: Path, usual: BatchPolicy) -> BatchPolicy:
    """How requests for the version in this folder are joined: as its own file says, and not at all without one.

    Raises INVALID_INPUT with what is wrong with the file.
    """
    path = folder / PER_MODEL
    return read_batching(path)[0] if path.is_file() else replace(usual, max_size=1, allowed=(), cut=False, pad=False)


def is_metrics_path(text: str) -> bool:
    """Whether a page can be there: a path of plain characters, below which is nothing of another protocol."""
    return _PATH.fullmatch(text) is not None and text.split("/", 2)[1].lower() not in _TAKEN


def read_monitoring(path: Path) -> Monitoring:
    """Raises INVALID_INPUT with what is wrong with the file."""
    source = f"the monitoring configuration {path.name}"
    config = _read(path, "tensorflow.serving.MonitoringConfig", source).prometheus_config
    where = config.path or METRICS_PATH
    if not is_metrics_path(where):
        raise invalid(f"{source}: prometheus_config.path is {where[:100]!r}, expected a plain path such as {METRICS_PATH}")
    return Monitoring(config.enable, where)


def read_certificates(path: Path) -> Certificates:
    """Raises INVALID_INPUT with what is wrong with the file; nothing of a key is in any message."""
    source = f"the SSL configuration {path.name}"
    config = _read(path, "tensorflow.serving.SSLConfig", source, secret=True)
    for name in ("server_key", "server_cert"):
        if not getattr(config, name):
            raise invalid(f"{source}: {name} is missing: the PEM text itself, with \\n at the ends of its lines")
    if config.client_verify and not config.custom_ca:
        raise invalid(f"{source}: client_verify needs custom_ca, the authorities that sign clients' certificates")
    return Certificates(config.server_key, config.server_cert, config.custom_ca if config.client_verify else "")


def _read(path: Path, message: str, source: str, *, secret: bool = False) -> Any:
    try:
        return read_file(path, message, source)
    except ServingError as error:
        why = "it is not a text-format SSLConfig" if secret else error.message.removeprefix(f"{source}: ")
        raise invalid(f"Invalid protobuf file: '{path}': {why}") from None


def _number(message: Any, name: str, default: int, least: int, most: int, source: str) -> int:
    value: int = getattr(message, name).value if message.HasField(name) else default
    if not least <= value <= most:
        raise invalid(f"{source}: {name} is {value}, expected {least} to {most}")
    return value
