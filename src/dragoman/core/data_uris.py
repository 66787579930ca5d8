"""Reads what a client wrote in the place of a file: `data:` URIs in both forms, and bare base64. Pure; called by both files.py, here for
protocols that do not fetch and in serving for those that do.

As forgiving as browsers are: white space, missing padding and the URL alphabet are accepted. The size is known before anything is decoded.
"""

import base64
import binascii
import math
import re
from dataclasses import dataclass
from urllib.parse import unquote, unquote_to_bytes

from dragoman.core.tensors import Blob

_HEAD = 1024
"""A data URI says its type within so many characters."""
_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100}\Z")
_SPACE = str.maketrans("", "", " \t\r\n\f")
_URL_ALPHABET = str.maketrans("-_", "+/")
_NAME_CHARACTERS = 120
OCTETS = "application/octet-stream"
"""The media type of what does not say."""


class TooLongError(Exception):
    """It holds more bytes than are accepted."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A file that is still encoded."""

    text: str
    base64: bool
    media_type: str
    name: str = ""

    @property
    def least_bytes(self) -> int:
        """It cannot hold fewer; for base64 without white space it is about the truth."""
        return len(self.text) * 3 // 4 - 2 if self.base64 and "%" not in self.text else len(self.text) // 3

    def decode(self, most: float = math.inf) -> Blob:
        """Raises ValueError with what is wrong, or TooLongError."""
        if self.least_bytes > most and (not self.base64 or len(self.text.translate(_SPACE)) * 3 // 4 - 2 > most):
            raise TooLongError
        data = _base64(self.text) if self.base64 else unquote_to_bytes(self.text)
        if len(data) > most:
            raise TooLongError
        return Blob(data, self.media_type, self.name)


def read_data_uri(text: str) -> Encoded:
    """`text` begins with data:. Raises ValueError with what is wrong."""
    comma = text.find(",", 0, _HEAD)
    if comma < 0:
        raise ValueError("a data: URI without a comma after its type")
    media_type, *parameters = text[5:comma].split(";")
    encoded = bool(parameters) and parameters[-1].strip().lower() == "base64"
    media_type = media_type.strip().lower() or "text/plain"
    if not _TYPE.match(media_type):
        raise ValueError("a data: URI whose type is not of the form TYPE/SUBTYPE")
    names = (p.partition("=")[2] for p in parameters if p.partition("=")[0].strip().lower() in ("name", "filename"))
    name = bare_name(unquote(next(names, "")))
    return Encoded(text[comma + 1 :], encoded, media_type, name)


def _base64(text: str) -> bytes:
    if "%" in text:
        text = unquote(text, "ascii", "replace")
    text = text.translate(_SPACE)
    if "-" in text or "_" in text:
        text = text.translate(_URL_ALPHABET)
    text = text.rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("characters that are not base64") from None


def bare_name(path: str) -> str:
    """The last segment of a decoded path as a file name that is safe to use: no separators or control characters; "" where none is left."""
    name = "".join(character for character in re.split(r"[/\\]", path)[-1] if character.isprintable()).strip()
    return "" if name in {".", ".."} else name[-_NAME_CHARACTERS:]
