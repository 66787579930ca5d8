"""The sockets of one server: those on which every protocol answers, and the one for metrics only. Bound here, before anything is loaded.

Called by the command line and by dragoman.serve; the worker is given them in this order.
"""

import socket
from collections.abc import Sequence
from contextlib import ExitStack

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
