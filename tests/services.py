"""What a dialect is given, without a server: for tests of dialects."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import Signature
from dragoman.dialects import ServerInfo, Services
from dragoman.serving.artifact_folder import ArtifactFolder
from dragoman.serving.catalog import Catalog
from dragoman.serving.deployments import Deployments
from dragoman.serving.fetch import FetchPolicy
from dragoman.serving.gateway import Gateway
from dragoman.serving.gradient.logs import Logs
from dragoman.serving.gradient.models import Models
from dragoman.serving.gradient.service import GradientDeployments
from dragoman.serving.late_store import LateStore
from dragoman.serving.meters import Meters
from dragoman.serving.operations import Operations
from dragoman.serving.origins import Origins
from dragoman.serving.polling import Polling
from dragoman.serving.predictions import Parts, Predictions
from dragoman.serving.registry import Registry
from dragoman.serving.reloading import Reloading
from dragoman.serving.repository import Defaults, Repository
from dragoman.serving.roots import Roots
from dragoman.serving.tracking import Tracking
from dragoman.serving.uploads import Uploads
from dragoman.serving.webhooks import Webhooks
from dragoman.store import Store

NOWHERE = Path("/nonexistent")
"""A data directory that is never made."""


async def _no_store() -> Store:
    raise ServingError(Kind.UNAVAILABLE, "this test has no store")


async def _as_they_are(rows: Sequence[Any], signature: Signature) -> list[Any]:
    return list(rows)


def without_data(gateway: Gateway, store: LateStore, roots: Roots) -> dict[str, Any]:
    """What a server keeps on its disk, of one that has none."""
    predictions = Predictions(Parts(gateway, store, _as_they_are, Webhooks(FetchPolicy.parse([])), NOWHERE))
    catalog = Catalog(store, roots, NOWHERE)
    artifacts = ArtifactFolder(roots.artifacts)
    return {
        "predictions": predictions,
        "uploads": Uploads(NOWHERE),
        "catalog": catalog,
        "artifacts": artifacts,
        "tracking": Tracking(store),
    }


_INFO = ServerInfo("dragoman", "9.9")


def services(gateway: Gateway, meters: Meters, targets: tuple[str, ...] = (), *, info: ServerInfo = _INFO, **fields: Any) -> Services:
    """Services around a gateway; `targets` are what its repository has."""
    store, roots = fields.pop("store", None) or LateStore(_no_store), Roots([], NOWHERE)
    fields = {**without_data(gateway, store, roots), **fields}
    registry, repository = Registry(store), Repository(targets, Defaults())
    deployments = fields.setdefault("deployments", Deployments(store, registry, gateway))
    origins = Origins(store, roots, repository, NOWHERE)
    models = Models(fields["catalog"], deployments, origins)
    fields.setdefault("gradient", GradientDeployments(store, registry, gateway, models, Logs(NOWHERE)))
    polling, reloading = Polling(registry, repository, gateway), Reloading(registry, repository, gateway)
    operations = Operations(registry, repository, gateway, deployments, origins, polling, reloading)
    return Services(gateway, registry, operations, meters, info, **fields)
