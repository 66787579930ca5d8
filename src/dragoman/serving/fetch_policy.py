"""What the server may fetch: parses `--allow-fetch` and judges addresses and files, without any I/O on the network.

Only the guarded client (`fetch.py`, `fetch_http.py`) and the server's configuration use it. Everything that is not plainly an address of
the public internet is refused unless an entry opens it; the tables are our own because `ipaddress` changed its mind between releases.
"""

import ipaddress
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dragoman.core.errors import invalid
from dragoman.serving.fetch_places import SCHEMES, Place, read_place

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_V4_REFUSED = tuple(
    (ipaddress.IPv4Network(block), word)
    for block, word in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_V6_REFUSED = tuple(
    (ipaddress.IPv6Network(block), word)
    for block, word in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
        ("2001::/32", "Teredo"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "documentation"),
    )
)
_V6_PUBLIC = ipaddress.IPv6Network("2000::/3")
"""The only part of IPv6 that was ever given out for public use; whatever lies outside and has no word above is reserved."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""A network without IPv4 reaches 1.2.3.4 as 64:ff9b::1.2.3.4, so the address inside is the one that counts."""

CLOSED = "none"
"""The entry that closes what is open by default."""

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*(?![0-9]+\Z|0[xX][0-9a-fA-F]*\Z){_LABEL}\Z")
"""A name and never a number: resolvers read a last label of digits or hexadecimal as an odd spelling of an IPv4 address."""


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """What was opened with `--allow-fetch`, and the limits of every fetch. Make it with `parse`.

    `hosts` are lower-case names without a final dot. `roots` are absolute directories as they were written: one that is a symbolic link
    may be pointed elsewhere by its owner. `places` are buckets, which the server reads with its own credentials. Without `public` the public
    internet is closed, too, but for what the others name.
    """

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    roots: tuple[Path, ...] = ()
    max_bytes: int = 64 * 2**20
    timeout_s: float = 30.0
    max_redirects: int = 5
    places: tuple[Place, ...] = ()
    public: bool = True

    @classmethod
    def parse(
        cls, entries: Iterable[str], *, max_bytes: int = 64 * 2**20, timeout_s: float = 30.0, max_redirects: int = 5
    ) -> "FetchPolicy":
        """Reads each entry as a network (`10.0.0.0/8`), an address, a host name, `file:///DIR`, or `s3://BUCKET/PATH` and the like;
        `none` closes the public internet.

        INVALID_INPUT names a bad entry.
        """
        hosts: set[str] = set()
        networks: list[Network] = []
        roots: list[Path] = []
        places: list[Place] = []
        public = True
        for entry in entries:
            if entry == CLOSED:
                public = False
            elif entry.lower().startswith("file:"):
                roots.append(_root(entry))
            elif entry.lower().partition("://")[0] in SCHEMES and "://" in entry:
                places.append(_place(entry))
            elif (network := _network(entry)) is not None:
                networks.append(network)
            elif _HOST_NAME.match(name := plain_host(entry)):
                hosts.add(name)
            else:
                raise invalid(
                    f"--allow-fetch {entry!r}: expected a host name (models.example.com), an address, a network"
                    " (10.0.0.0/8), without scheme, port or path, or a directory (file:///srv/data) or bucket (s3://bucket/path)"
                )
        return cls(frozenset(hosts), tuple(networks), tuple(roots), max_bytes, timeout_s, max_redirects, tuple(places), public)

    def refusal(self, host: str, address: Address) -> str:
        """Why this address, to which the host name resolved, may not be connected to: one word such as "private"; "" when it may be."""
        if plain_host(host) in self.hosts or any(address in network for network in self.networks):
            return ""
        if isinstance(address, ipaddress.IPv6Address):
            inner = address.ipv4_mapped
            if inner is None and address in _NAT64:
                inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
            if inner is not None:
                return self.refusal(host, inner)
            word = _word(address, _V6_REFUSED) or ("" if address in _V6_PUBLIC else "reserved")
        else:
            word = _word(address, _V4_REFUSED)
        return word or ("" if self.public else "public")

    def inside(self, path: str) -> tuple[Path, str] | None:
        """The root that holds this absolute path and the rest of the path below it, both with links resolved; None where none does.

        A path that is outside every root as it is written is refused before the disk is touched, so answers tell nothing about it.
        """
        written = os.path.normpath(path)
        if not any(_below(written, os.fspath(root)) is not None for root in self.roots):
            return None
        real = os.path.realpath(written)
        for root in self.roots:
            real_root = os.path.realpath(root)
            rest = _below(real, real_root)
            if rest is not None:
                return Path(real_root), rest
        return None


def plain_host(host: str) -> str:
    """A host as it is compared: lower case, without the one final dot that makes a name absolute."""
    return host.lower().removesuffix(".")


def _word(address: Address, table: Iterable[tuple[Network, str]]) -> str:
    return next((word for network, word in table if address in network), "")


def _network(entry: str) -> Network | None:
    try:
        return ipaddress.ip_network(entry[1:-1] if entry.startswith("[") and entry.endswith("]") else entry)
    except ValueError:
        pass
    try:
        wide = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None
    raise invalid(f"--allow-fetch {entry!r}: the address has bits beyond its prefix; did you mean {wide}?")


def _place(entry: str) -> Place:
    try:
        return read_place(entry)
    except ValueError as error:
        raise invalid(f"--allow-fetch {entry!r}: {error}") from None


def _root(entry: str) -> Path:
    parts = urlsplit(entry)
    path = unquote(parts.path)
    if parts.netloc or not path.startswith("/") or parts.query or parts.fragment or "\0" in path:
        raise invalid(f"--allow-fetch {entry!r}: expected file:///DIR with the absolute path of a directory")
    root = Path(os.path.normpath(path))
    if not root.is_dir():
        raise invalid(f"--allow-fetch {entry!r}: there is no directory {path}")
    return root


def _below(path: str, root: str) -> str | None:
    """The part of the path under the root, "" for the root itself, None outside it."""
    if path == root:
        return ""
    prefix = root.rstrip("/") + "/"
    return path[len(prefix) :] if path.startswith(prefix) else None
