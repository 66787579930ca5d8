"""What the server says about models in the Open Inference Protocol, as JSON values. Called by rest.py and admin.py, and for gRPC by grpc_admin.py."""

import asyncio
from collections.abc import Mapping
from typing import Any

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State, version_order
from dragoman.core.tensors import TensorSpec
from dragoman.dialects import Services
from dragoman.dialects.v2.assembly import default_signature, find
from dragoman.dialects.v2.statistics import model_statistics
from dragoman.serving.gateway import Entry, Gateway, VersionStatus
from dragoman.serving.triton import describe

_STATES: Mapping[State, str] = {
    State.LOADING: "LOADING",
    State.READY: "READY",
    State.FAILED: "UNAVAILABLE",
    State.DRAINING: "UNLOADING",
    State.GONE: "UNAVAILABLE",
}
_MOST_UNLOADED = 10_000
"""Rows of an index that are not loaded."""


def model_metadata(gateway: Gateway, entry: Entry, *, only: bool) -> dict[str, Any]:
    """Name, versions (with `only` just this one), platform, inputs and outputs."""
    signature = entry.signatures.get("")
    ready = {entry.version} if only else {s.version for s in gateway.statuses(entry.name) if s.state is State.READY} | {entry.version}
    return {
        "name": entry.name,
        "versions": sorted(ready, key=version_order),
        "platform": entry.servable.platform,
        "inputs": [_described(spec) for spec in signature.inputs] if signature else [],
        "outputs": [_described(spec) for spec in signature.outputs] if signature else [],
    }


def _described(spec: TensorSpec) -> dict[str, Any]:
    """A tensor of the metadata. Of a tensor whose rank is not known the shape is [-1]; one that takes any number says FP64, which fits all."""
    return {
        "name": spec.name,
        "datatype": spec.datatype.name if spec.datatype else "FP64",
        "shape": [-1] if spec.shape is None else spec.shape,
    }


def configuration(entry: Entry) -> dict[str, Any]:
    """The model's configuration as Triton writes it. Raises UNSUPPORTED for a model without a default signature."""
    return describe(entry.spec, default_signature(entry), entry.servable.platform)


async def statistics(services: Services, name: str, version: str) -> dict[str, Any]:
    """The counters of one version, of all versions of a model, or of all models. Unknown ones are errors, not empty lists."""
    if name:
        find(services.gateway, name, version)
    return model_statistics(await asyncio.to_thread(services.meters.totals, name, version))


async def index(services: Services, *, only_ready: bool) -> list[dict[str, str]]:
    """A row for every version that is known, and for every model that could be loaded."""
    rows = [_row(s) for s in services.gateway.statuses() if not only_ready or s.state is State.READY]
    if not only_ready:
        known = {row["name"] for row in rows}
        names = await services.operations.unloaded(_MOST_UNLOADED)
        rows += [{"name": name, "state": "UNAVAILABLE", "reason": "not loaded"} for name in names if name not in known]
    return rows


def _row(status: VersionStatus) -> dict[str, str]:
    row = {"name": status.name, "state": _STATES[status.state]}
    if status.version:
        row["version"] = status.version
    if status.state is not State.READY:
        row["reason"] = status.reason
    return row


def no_shared_memory() -> ServingError:
    return ServingError(
        Kind.UNSUPPORTED,
        "this server has no shared memory extension; send tensors in the request, as JSON or binary data",
        what="operation",
    )
