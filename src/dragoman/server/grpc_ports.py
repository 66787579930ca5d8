"""The ports of gRPC before there is a server: bound here so that nobody else gets them, shared with the workers by SO_REUSEPORT.

The library binds its ports itself. A socket that is bound and does not listen keeps the port and is given no connection.
"""

from contextlib import ExitStack
from dataclasses import replace

from dragoman.server.http import bind
from dragoman.server.settings import Settings


def reserve(settings: Settings, stack: ExitStack) -> Settings:
    """The settings with the gRPC ports as they are: 0 becomes a free one. They are kept until the stack closes.

    Raises OSError, as `bind` does, for a port that another server has.
    """
    ports = []
    for port in settings.grpc_port:
        # First alone: sockets that share a port do not mind those of another server that does.
        with bind(settings.host, port) as alone:
            port = alone.getsockname()[1]
        ports.append(stack.enter_context(bind(settings.host, port, reuse_port=True)).getsockname()[1])
    return replace(settings, grpc_port=tuple(ports))
