"""What a dialect is given, without a server: for tests of dialects."""

from typing import Any

from dragoman.dialects import ServerInfo, Services
from dragoman.serving.fetch import FetchPolicy
from dragoman.serving.gateway import Gateway
from dragoman.serving.meters import Meters
from dragoman.serving.operations import Operations
from dragoman.serving.registry import Registry
from dragoman.serving.repository import Defaults, Repository


def services(gateway: Gateway, meters: Meters, targets: tuple[str, ...] = (), **fields: Any) -> Services:
    """Services around a gateway; `targets` are what its repository has."""
    registry, repository = Registry(), Repository(targets, Defaults())
    operations = Operations(registry, repository, gateway)
    return Services(gateway, registry, repository, operations, meters, ServerInfo("dragoman", "9.9"), FetchPolicy.parse([]), **fields)
