"""What `dragoman serve` prints: progress while loading, then the addresses and requests that can be copied."""

import json
import shlex
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TextIO
from urllib.parse import quote

from dragoman.server.jobs import wanted
from dragoman.server.loading import Loaded
from dragoman.server.settings import Settings


class Progress:
    """One line per event, at once."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, text: str) -> None:
        self._stream.write(f"  {text}\n")
        self._stream.flush()


def addresses(settings: Settings, ports: Iterable[int]) -> list[str]:
    """Where a server with these settings answers."""
    scheme = "https" if settings.tls_cert else "http"
    return [f"{scheme}://{_host(settings.host)}:{port}" for port in ports]


def banner(settings: Settings, ports: list[int], loaded: Loaded | None, metrics_port: int | None = None) -> str:
    """The start banner: addresses, models, and a ready-made request per protocol for the model with the smallest sample."""
    scheme = "https" if settings.tls_cert else "http"
    local = settings.host in ("0.0.0.0", "::")  # noqa: S104 # compared, not bound
    base = f"{scheme}://{'127.0.0.1' if local else _host(settings.host)}:{ports[0]}" if ports else ""
    grpc = [f"{_host(settings.grpc_host or settings.host)}:{port}" for port in settings.grpc_port]
    lines = ["", f"Dragoman is listening on {', '.join(addresses(settings, ports) or grpc)} (Press CTRL+C to quit)"]
    if grpc and ports:
        lines.append(f"gRPC: {', '.join(grpc)}")
    if metrics_port is not None:
        only = replace(settings, host=settings.metrics_host or settings.host)
        lines.append(f"Metrics, and nothing else: {addresses(only, [metrics_port])[0]}/metrics")
    if loaded is None:
        lines.append("The models load in the background" + (f"; see {base}/v2/health/ready" if base else ""))
        return "\n".join([*lines, "", ""])
    if not loaded.ready and not loaded.failed:
        how = "register and deploy one" if settings.model_root or settings.trusted_root else "build a model with `dragoman build`"
        lines.append(f"No model is served yet: give `dragoman serve` a file or a folder, or {how}")
    if loaded.ready:
        lines.append(
            f"Models: {', '.join(loaded.ready)}" + (f"   failed: {', '.join(n for n, _ in loaded.failed)}" if loaded.failed else "")
        )
    if base and wanted(settings) and not loaded.ready:
        lines.append(
            f"Jobs: `dragoman run --mode serve --url {base}` in a folder with an app.py, or `floyd --host {base} run --mode serve`"
        )
    lines.append("")
    if not base:
        return "\n".join(lines)
    if loaded.samples:
        sample = min(loaded.samples, key=lambda sample: len(json.dumps(sample)))
        lines += requests_for(base, sample, default=loaded.ready[:1] == (sample["name"],) and not loaded.failed)
    return "\n".join([*lines, f"Pages: {base}/   Metrics: {base}/metrics", ""])


def requests_for(base: str, sample: dict[str, Any], *, default: bool = False) -> list[str]:
    """Shell lines to copy: the same call in each protocol that has a small one. `default`: whether the routes at the root mean this model."""
    name = sample["name"]
    path = quote(name, safe="")
    lines = []
    if "points" in sample:
        lines += ["MLRun:", f"  curl {base}/v2/models/{path}/infer -d {_quoted({'inputs': sample['points']})}"]
        lines += ["Command line:", f"  dragoman predict {shlex.quote(name)} {_quoted(sample['points'])} --url {base}"]
        return [*lines, ""]
    if sample["rows"] is not None:
        where = "" if default else f"/models/{path}"
        content = "-H 'Content-Type: application/json'"
        lines += ["Tungsten:", f"  curl {base}{where}/predict {content} -d {_quoted(sample['rows'])}"]
    if sample["inputs"] is not None:
        lines += ["Open Inference Protocol:", f"  curl {base}/v2/models/{path}/infer -d {_quoted({'inputs': sample['inputs']})}"]
    if sample["instances"] is not None:
        lines += ["TensorFlow Serving:", f"  curl {base}/v1/models/{path}:predict -d {_quoted({'instances': sample['instances']})}"]
        lines += ["Command line:", f"  dragoman predict {shlex.quote(name)} {_quoted(sample['instances'])} --url {base}"]
    return [*lines, ""]


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _quoted(value: Any) -> str:
    return shlex.quote(json.dumps(value))
