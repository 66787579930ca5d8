"""The address of this server as a client may use it, for answers that hold URLs. Shared by the dialects."""

import re

from dragoman.dialects import Request

_AUTHORITY = re.compile(r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._~-]{1,253})(?::[0-9]{1,5})?\Z")


def base_url(request: Request, public_url: str = "") -> str:
    """Scheme and authority, without a slash at the end: `public_url` where that is set, else what the client used.

    A Host that could be more than an address is not repeated; the address that the server listens on takes its place. What proxies say of
    hosts and schemes is not believed, since anybody can say it: behind a proxy, set the public address.
    """
    if public_url:
        return public_url
    host = (request.header(b"host") or b"").decode("latin-1")
    return f"{request.scope.get('scheme', 'http')}://{host if _AUTHORITY.match(host) else _listening(request)}"


def _listening(request: Request) -> str:
    address, port = request.scope.get("server") or ("127.0.0.1", None)
    name = f"[{address}]" if ":" in address else address
    return name if port is None else f"{name}:{port}"
