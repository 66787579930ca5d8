"""The sockets of one server: those on which every protocol answers, the one for metrics only, those of gRPC. Bound before anything is loaded.

Called by the command line and by dragoman.serve; the worker is given them in this order.
"""

import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from dragoman.server.http import bind
from dragoman.server.settings import Settings


def bound(settings: Settings, stack: ExitStack) -> list[socket.socket]:
    """Sockets for every --port, then one for --metrics-port where there is one; closed with the stack. Raises OSError naming the port."""
    places = [(settings.host, port) for port in settings.port]
    if settings.metrics_port >= 0:
        places.append((settings.metrics_host or settings.host, settings.metrics_port))
    return [stack.enter_context(bind(host, port)) for host, port in places]


def ports(sockets: Sequence[socket.socket], settings: Settings) -> list[int]:
    """The ports on which every protocol answers, as the system chose them."""
    return [each.getsockname()[1] for each in sockets[: len(settings.port)]]


def metrics_port(sockets: Sequence[socket.socket], settings: Settings) -> int | None:
    """The port for metrics only, as the system chose it."""
    only = sockets[len(settings.port) :]
    return only[0].getsockname()[1] if only else None


def reserved(settings: Settings, stack: ExitStack) -> Settings:
    """The settings with the gRPC ports as they are: 0 becomes a free one. Nobody else gets them until the stack closes.

    The library binds its ports itself, in every worker, and the kernel shares them by SO_REUSEPORT; a socket that is bound and does not
    listen keeps a port and is given no connection. Raises OSError naming a port that another server has.
    """
    ports = []
    for port in settings.grpc_port:
        # First alone: sockets that share a port do not mind those of another server that shares its own.
        with bind(settings.grpc_host or settings.host, port) as alone:
            free: int = alone.getsockname()[1]
        ports.append(free)
        stack.enter_context(bind(settings.grpc_host or settings.host, free, reuse_port=True))
    return replace(settings, grpc_port=tuple(ports))
