"""Puts the gRPC server of one worker together: services of the dialects, health and reflection, limits, TLS. Called by worker.py, late.

Everything behind this import is for gRPC only, which most servers do not speak.
"""

from dragoman.core.plugins import find, names
from dragoman.dialects import Services
from dragoman.dialects.rpc import RpcService
from dragoman.server.grpc import GrpcLimits, GrpcServer, address, credentials
from dragoman.server.grpc_health import HealthService
from dragoman.server.grpc_reflection import VERSIONS, ReflectionService
from dragoman.server.guard import Guard
from dragoman.server.logs import AccessLog
from dragoman.server.settings import Settings
from dragoman.server.tls import server_context


async def listen(settings: Settings, services: Services, guard: Guard) -> GrpcServer:
    """Answer on every gRPC port of the settings. Raises UNAVAILABLE when one cannot be had."""
    offered: list[RpcService] = [find("services", name)(services) for name in names("services")]
    gateway = services.gateway
    offered.append(HealthService(gateway.ready, lambda: gateway.draining, frozenset(each.name for each in offered)))
    listed = [*(each.name for each in offered), *(ReflectionService(version, ()).name for version in VERSIONS)]
    offered += [ReflectionService(version, listed) for version in VERSIONS]
    limits = GrpcLimits(max_message_bytes=settings.max_body, max_calls=settings.max_connections)
    server = GrpcServer(offered, guard, limits, AccessLog() if settings.access_log else None, identified=settings.access_log)
    await server.start(
        [address(settings.grpc_host or settings.host, port) for port in settings.grpc_port],
        credentials(*_certificates(settings)),
    )
    return server


def _certificates(settings: Settings) -> tuple[str, str, str]:
    """Its own where it has any, else those of HTTP. Raises INVALID_INPUT for files that are none."""
    own = settings.grpc_tls_cert, settings.grpc_tls_key, settings.grpc_tls_client_ca
    server_context(*own, flags="--grpc-tls")
    return own if settings.grpc_tls_cert else (settings.tls_cert, settings.tls_key, settings.tls_client_ca)
