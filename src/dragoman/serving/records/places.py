"""Where records go, as operators write it: kafka://BROKER/TOPIC, http(s)://..., FILE.jsonl or FILE.parquet. Reads URLs, opens nothing."""

import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.serving.fetch import shown
from dragoman.serving.webhooks import check_url

_FORMS = "expected kafka://BROKER[,BROKER]/TOPIC, http://..., https://..., or a file that ends in .jsonl or .parquet"
_SUFFIXES = (".jsonl", ".parquet")
_BROKERS = re.compile(r"[A-Za-z0-9._,:\[\]-]+")
MOST_FILES = 1000
_MB = 1 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """`kind` is kafka, http, jsonl or parquet. Only what belongs to the kind is set."""

    kind: str
    url: str = field(repr=False)
    shown: str
    """The URL without password and query, for people."""
    path: Path = Path()
    max_bytes: int = 64 * _MB
    """Of one JSONL file: a larger one is put aside under a number."""
    keep: int = 10
    """How many of those are kept."""

    def check_installed(self) -> None:
        """Raise UNSUPPORTED, naming the extra, where a package is missing."""
        extra, package = {"kafka": ("kafka", "aiokafka"), "parquet": ("parquet", "pyarrow")}.get(self.kind, ("", ""))
        if package and find_spec(package) is None:
            words = f"tracking to {self.shown} needs {package}, which is not installed: pip install 'dragoman[{extra}]'"
            raise ServingError(Kind.UNSUPPORTED, words)


def parse(url: str) -> Place:
    """Raises INVALID_INPUT for what is no such place. A relative file is one of the current folder."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise invalid(f"the address for tracking records is malformed: {_FORMS}") from None
    if "\0" in url or len(url) > 2048:
        raise invalid(f"the address for tracking records is no address: {_FORMS}")
    if parts.scheme in ("http", "https"):
        check_url(url)
        return Place("http", url, shown(url))
    if parts.scheme == "kafka":
        brokers, topic = parts.netloc.rpartition("@")[2], parts.path.strip("/")
        if not _BROKERS.fullmatch(brokers) or not topic.isprintable() or not topic or "/" in topic:
            raise invalid("the address for tracking records: expected kafka://BROKER[,BROKER]/TOPIC")
        return Place("kafka", url, f"kafka://{brokers}/{topic}"[:300])
    if parts.scheme == "file" or not parts.scheme:
        return _file(url, unquote(parts.path), parts.netloc, parts.query)
    raise invalid(f"the address {shown(url)} for tracking records: {_FORMS}")


def _file(url: str, path: str, host: str, query: str) -> Place:
    if host not in ("", "localhost"):
        raise invalid(f"the address {shown(url)} for tracking records names a host: write file:///DIR/FILE")
    suffix = Path(path).suffix
    if suffix not in _SUFFIXES:
        raise invalid(f"the file '{path[:200]}' for tracking records: {_FORMS}")
    options = dict(parse_qsl(query, keep_blank_values=True))
    max_bytes = _number(options.pop("max_mb", "64"), "max_mb", 1, 1 << 20) * _MB
    keep = _number(options.pop("keep", "10"), "keep", 0, MOST_FILES)
    if options:
        raise invalid(
            f"the file '{path[:200]}' for tracking records has the option '{next(iter(options))[:50]}'; there are max_mb and keep"
        )
    return Place(suffix[1:], url, path, Path(path).absolute(), max_bytes, keep)


def _number(text: str, name: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10 or not least <= int(text) <= most:
        raise invalid(f"the option '{name}' of a file for tracking records is '{text[:50]}', expected {least} to {most}")
    return int(text)
