"""TLS to brokers, for all kinds of streams: options `ca`, `cert` and `key` of an address. Used by kafka_client.py and mqtt.py."""

import ssl

from dragoman.core.errors import invalid
from dragoman.streams.addresses import StreamAddress

OPTIONS = ("ca", "cert", "key")


def tls_context(address: StreamAddress) -> ssl.SSLContext:
    """Reads the files; without `ca` the system's authorities are trusted. Raises INVALID_INPUT for files that are wrong."""
    ca, cert, key = (address.option(name) for name in OPTIONS)
    try:
        context = ssl.create_default_context(cafile=ca or None)
        if cert:
            context.load_cert_chain(cert, key or None, password="")  # one that is encrypted would ask at the terminal
    except (OSError, ValueError) as error:
        raise invalid(f"the certificates of the stream {address.name} cannot be used: {error}") from error
    return context
