"""How brokers are reached: the parts of HOST:PORT, and TLS by the options of an address. Used by the connectors and by records of requests."""

import ssl

from dragoman.core.errors import invalid
from dragoman.streams.addresses import StreamAddress

TLS_OPTIONS = ("ca", "cert", "key")
"""Files in PEM: authorities, a certificate of our own, its key."""


def host_port(where: str, default: int) -> tuple[str, int]:
    """Of HOST, HOST:PORT or [IPV6]:PORT as addresses have them checked; the host comes without brackets."""
    host, colon, port = where.rpartition(":")
    if not colon or where.endswith("]"):
        host, port = where, str(default)
    return host.strip("[]"), int(port)


def tls_context(address: StreamAddress) -> ssl.SSLContext:
    """Reads files. Without `ca` the system's authorities are trusted. Raises INVALID_INPUT for files that are wrong."""
    authority, certificate, key = (address.option(name) for name in TLS_OPTIONS)
    try:
        context = ssl.create_default_context(cafile=authority or None)
        if certificate:
            context.load_cert_chain(certificate, key or None, password="")  # one that is locked would ask at the terminal
    except (OSError, ValueError) as error:
        raise invalid(f"the certificates of the stream {address.name} cannot be used: {error}") from error
    return context
