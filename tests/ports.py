"""Ports for servers that cannot choose their own, and addresses where nobody listens."""

import socket
from pathlib import Path
from random import SystemRandom

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_CHOICE = SystemRandom()
"""Not the usual one, which begins alike in each of several test processes."""


def free_port() -> int:
    """A port of the loopback that nobody has now. The kernel gives it to no client either, so that it is still free when a server takes it."""
    try:
        end = int(_RANGE.read_text().split()[0])
    except OSError:
        end = 32_768
    while True:
        port = _CHOICE.randrange(10_000, end) if end > 11_000 else 0
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found


def free_ports(count: int) -> list[int]:
    """As many, no two alike."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)
