"""Forms with files (multipart/form-data, RFC 7578) taken apart while they come: bytes in, parts and pieces of content out. Pure.

Holds one head and less than one boundary of content, however large the form. Called by serving/jobs/receiving.py and dialects/tungsten.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from dragoman.core.errors import invalid

_BOUNDARY = re.compile(r'\s*multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"\r\n]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE | re.DOTALL)
_DISPOSITION = re.compile(rb"^content-disposition:[ \t]*form-data[ \t]*(;.*)$", re.IGNORECASE | re.MULTILINE)
_TYPE = re.compile(rb"^content-type:[ \t]*([^\r\n]{1,200})", re.IGNORECASE | re.MULTILINE)
_PARAMETER = re.compile(rb';[ \t]*([a-zA-Z]{1,16}\*?)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^;"\s]*))[ \t]*')
_ESCAPED = re.compile(rb"%22|%0[0-9A-F]|%1[0-9A-F]|\\[\\\"]")
"""What clients write for characters that a quoted name cannot have: browsers and urllib3 `%22` and control characters, older ones backslashes."""
_LARGEST_HEAD = 16 << 10
_LINE = b"\r\n"


@dataclass(frozen=True, slots=True)
class Part:
    """The beginning of a part; its content follows in pieces, until the next Part or the end."""

    name: str
    filename: str | None = None
    """As the client wrote it, unescaped; None for a field that is no file."""
    media_type: str = ""
    """As the client declared it, "" where it did not."""


def boundary_of(content_type: str) -> str:
    """What separates the parts. Raises INVALID_INPUT (what="body") for anything but a form with files."""
    found = _BOUNDARY.match(content_type)
    if found is None:
        raise invalid("the body must be a form with files (multipart/form-data with a boundary)", "body")
    return found[1] or found[2]


class Form:
    """One form. `begun`: its first boundary has been seen; `complete`: the last one, too. What is before and behind is dropped."""

    def __init__(self, boundary: str) -> None:
        self._mark = _LINE + b"--" + boundary.encode("latin-1", "replace")
        self._have = bytearray(_LINE)  # so that the first boundary, which has no line before it, looks like the others
        self._step = self._preamble
        self.begun = False
        self.complete = False

    def feed(self, data: bytes) -> Iterator[Part | bytes]:
        """What the next bytes of the form hold. Raises INVALID_INPUT (what="body") for what is no form; take all of it before the next call."""
        self._have += data
        while True:
            before = len(self._have), self._step
            yield from self._step()
            if (len(self._have), self._step) == before:
                return

    # --- steps: each takes from what has come as much as it can, and says which is next ---

    def _preamble(self) -> Iterator[Part | bytes]:
        at = self._have.find(self._mark)
        if at >= 0:
            del self._have[: at + len(self._mark)]
            self.begun = True
            self._step = self._behind_boundary
        else:
            del self._have[: max(0, len(self._have) - len(self._mark) + 1)]
        return
        yield

    def _behind_boundary(self) -> Iterator[Part | bytes]:
        if self._have.startswith(b"--"):
            self.complete = True
            self._step = self._epilogue
        elif (at := self._have.find(_LINE)) >= 0 and not self._have[:at].strip(b" \t"):
            del self._have[: at + len(_LINE)]
            self._step = self._head
        elif at >= 0 or len(self._have) > 100:
            raise _broken("a boundary is followed by something else than a line's end")
        return
        yield

    def _head(self) -> Iterator[Part | bytes]:
        at = self._have.find(_LINE + _LINE, 0, _LARGEST_HEAD)
        if at < 0:
            if len(self._have) >= _LARGEST_HEAD:
                raise _broken(f"the head of a part has more than {_LARGEST_HEAD} bytes")
            return
        part = _part(bytes(self._have[:at]))
        del self._have[: at + 2 * len(_LINE)]
        self._step = self._content
        yield part

    def _content(self) -> Iterator[Part | bytes]:
        at = self._have.find(self._mark)
        ready = at if at >= 0 else len(self._have) - len(self._mark) + 1  # what is behind may be the beginning of a boundary
        if ready > 0:
            yield bytes(memoryview(self._have)[:ready])
        if at >= 0:
            del self._have[: at + len(self._mark)]
            self._step = self._behind_boundary
        elif ready > 0:
            del self._have[:ready]

    def _epilogue(self) -> Iterator[Part | bytes]:
        self._have.clear()
        return
        yield


def _part(head: bytes) -> Part:
    found = _DISPOSITION.search(head)
    if found is None:
        raise _broken("a part does not say what it is (Content-Disposition: form-data)")
    text, at = found[1].rstrip(), 0
    named: dict[str, str] = {}
    while at < len(text):
        one = _PARAMETER.match(text, at)
        if one is None:
            raise _broken("the Content-Disposition of a part cannot be read")
        key = one[1].decode().lower()
        try:
            named[key] = _extended(one[3]) if key.endswith("*") else _unescaped(one[2] if one[2] is not None else one[3])
        except UnicodeDecodeError:
            raise _broken(f"{key!r} of a part is not UTF-8: {text[:200]!r}") from None
        at = one.end()
    if "name" not in named:
        raise _broken("a part has no name")
    declared = _TYPE.search(head)
    media_type = declared[1].strip().decode("latin-1") if declared else ""
    return Part(named["name"], named.get("filename*", named.get("filename")), media_type)


def _unescaped(quoted: bytes) -> str:
    return _ESCAPED.sub(lambda m: m[0][1:] if m[0][:1] == b"\\" else bytes.fromhex(m[0][1:].decode()), quoted).decode("utf-8")


def _extended(value: bytes) -> str:
    """Of `filename*`: charset'language'percent-encoded (RFC 5987)."""
    charset, _, rest = value.partition(b"'")
    content = unquote_to_bytes(rest.partition(b"'")[2])
    return content.decode("latin-1" if charset.lower() == b"iso-8859-1" else "utf-8")


def _broken(text: str) -> Exception:
    return invalid(f"the form cannot be read: {text}", "body")
