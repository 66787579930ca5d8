"""URLs of objects in buckets and file systems, as `--allow-fetch` opens them and requests name them. Pure; for fetch_policy and fetch_objects.

The server reads such a place with its own credentials, so none is open unless an entry names it, and a name is taken apart into segments: two
spellings of one place are never judged apart, and nothing climbs out of what was opened.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

SCHEMES = {
    **dict.fromkeys(("s3", "s3a", "gs", "gcs", "az", "azure", "adl", "abfs", "abfss"), "remote"),
    "v3io": "v3io",
}
"""Scheme -> the extra that brings what reads it."""
_AUTHORITY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253})(?:@[A-Za-z0-9][A-Za-z0-9.-]{0,253})?\Z")
_HOSTLESS = frozenset({"v3io"})
"""Schemes whose host may be left out, because the driver knows it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket or what is below it; `authority` is the bucket, or container@account, "" only in an entry that opens a whole scheme."""

    scheme: str
    authority: str = ""
    segments: tuple[str, ...] = ()

    def holds(self, other: "Place") -> bool:
        """Whether `other` is this place or below it, by whole segments."""
        if self.scheme != other.scheme:
            return False
        if not self.authority and not self.segments:
            return True
        return self.authority == other.authority and self.segments == other.segments[: len(self.segments)]

    @property
    def root(self) -> str:
        """The URL of the bucket."""
        return f"{self.scheme}://{self.authority}"

    @property
    def key(self) -> str:
        """The name of the object in its bucket."""
        return "/".join(self.segments)


def read_place(url: str) -> Place:
    """The place that a URL of one of SCHEMES names; `SCHEME://` alone is all of its places. Raises ValueError that says what is wrong."""
    parts = urlsplit(url)
    scheme = "gs" if parts.scheme == "gcs" else parts.scheme
    if "?" in url or "#" in url:
        raise ValueError("write ? and # as %3F and %23; nothing else may follow the path")
    if not url[len(parts.scheme) :].startswith("://"):
        raise ValueError(f"expected {parts.scheme}://BUCKET/PATH")
    segments = tuple(unquote(part) for part in parts.path.removeprefix("/").removesuffix("/").split("/")) if parts.path.strip("/") else ()
    if parts.netloc and not _AUTHORITY.match(parts.netloc):
        raise ValueError("the name of its bucket is malformed, or holds a password")
    if segments and not parts.netloc and scheme not in _HOSTLESS:
        raise ValueError(f"expected {parts.scheme}://BUCKET/PATH")
    for part in segments:
        if part in {"", ".", ".."} or "/" in part or "\\" in part or "::" in part or not part.isprintable():
            raise ValueError("its path has an empty segment, dots, or characters that no path has")
    return Place(scheme, parts.netloc, segments)
