"""A request with what is known about its answer, and what every answer must be whatever was asked."""

import gzip
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

from tests.fuzz.documents import dumps
from tests.fuzz.wire import Answer

LENGTH = b"inference-header-content-length"
Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Case:
    """One request. `check` raises AssertionError unless the answer is the right one; None when only the general rules hold.

    The body is `raw` where that is given, else the JSON text of `tree` and then `tail`, the binary part. `undo` puts the server back into
    the state before.
    """

    method: str
    target: bytes
    tree: Any = None
    tail: bytes | None = None
    raw: bytes | None = None
    headers: Headers = field(default_factory=list)
    check: Callable[[Answer], None] | None = None
    undo: "Case | None" = None
    what: str = ""

    @property
    def body(self) -> bytes | None:
        """What is sent behind the head, None for nothing."""
        if self.raw is not None:
            return self.raw
        if self.tree is None:
            return self.tail
        return dumps(self.tree) + (self.tail or b"")

    def materialised(self) -> "Case":
        """The same with its body as bytes and every header that belongs to it written down."""
        headers = list(self.headers)
        if self.raw is None and self.tail is not None and self.tree is not None:
            headers.append((LENGTH, str(len(dumps(self.tree))).encode()))
        return Case(self.method, self.target, raw=self.body, headers=headers, check=self.check, undo=self.undo, what=self.what)

    def head(self) -> bytes:
        """Request line and headers, with the Content-Length of the body."""
        body = self.body
        lines = [b"%b %b HTTP/1.1\r\nhost: 127.0.0.1\r\n" % (self.method.encode(), self.target)]
        lines += [b"%b: %b\r\n" % header for header in self.headers]
        if body is not None:
            lines.append(b"content-length: %d\r\n" % len(body))
        return b"".join([*lines, b"\r\n"])

    def message(self) -> bytes:
        """Everything that goes over the wire."""
        case = self if self.raw is not None or self.tail is None or self.tree is None else self.materialised()
        return case.head() + (case.body or b"")


class WrongAnswerError(Exception):
    """An answer that no request may get, or not this one."""


_ALLOWED_501 = re.compile(
    "shared memory|Conversion of JSON Value|signature that this server can run|CONNECT is not supported"
    "|Transfer-Encoding other than chunked|WebSocket is not supported|HTTP/2 is not supported"
)
_ALLOWED_503 = re.compile("reached its deadline|model '[^']*' is (loading|unloaded)|'spare'")
"""Which of a client's requests may be answered so: those with a time-out, and those for the model that is loaded and unloaded."""
_METRICS = re.compile(rb"/(metrics|monitoring)", re.IGNORECASE)
"""The pages whose errors are text."""
_STATUSES = frozenset({200, 400, 401, 403, 404, 405, 406, 408, 409, 411, 413, 414, 415, 417, 422, 431, 501, 503, 505})
_TUNGSTEN = re.compile(rb"(?:https?://[^/]*)?/*(?:predictions|predict|demo|models|files)(?![^/?#])", re.IGNORECASE)
"""Paths whose errors have `detail`, which is a text or a list of problems."""
_SUBMARINE = re.compile(rb"(?:https?://[^/]*)?/api/v1/(?:serve|registered-model|model-version)(?![^/?#])")
"""Paths whose every answer is Submarine's envelope."""
_ENVELOPE = ["status", "code", "success", "message", "result", "attributes"]
_MLFLOW = re.compile(rb"/(?:invocations|ping|health|version)(?![^/?#])", re.IGNORECASE)
_SELDON = re.compile(rb"/api/v(?:1\.0|0\.1)(?![^/?#])", re.IGNORECASE)
"""Paths of two more protocols that have error objects of their own."""
_REGISTRY = re.compile(rb"(?:https?://[^/]*)?/api/(?:2\.0/(?:preview/)?mlflow(?:-artifacts)?|3\.0/mlflow)(?![^/?#])", re.IGNORECASE)
"""Paths whose every error has `error_code`."""
_PREFIX = re.compile(rb"/*(?:serve|seldon|[^/]+/[0-9]+)/")
_FILE = re.compile(rb"(?:/demo)?/files/|/mlflow-artifacts/artifacts/", re.IGNORECASE)
"""What was uploaded comes back as it was, whatever type it was said to have."""
_TEXT = (b"text/plain", b"text/html", b"text/event-stream", b"application/octet-stream")


def judge(case: Case, answer: Answer) -> None:
    """Raise WrongAnswerError unless the answer keeps the rules that hold for every request, and `check` for this one."""
    if answer.status not in _STATUSES:
        raise WrongAnswerError(f"status {answer.status}: {answer.body[:500]!r}")
    if case.method == "HEAD":
        return
    body = plain(answer)
    if _SUBMARINE.match(unquote_to_bytes(case.target)) and case.what != "wrong head":
        _judge_envelope(answer, body)
    if answer.status >= 400:
        _judge_error(case, answer, body)
    elif _FILE.search(unquote_to_bytes(case.target)) and b"x-content-type-options" in answer.headers:
        pass
    elif answer.media_type == b"application/octet-stream":
        length = answer.headers.get(LENGTH, b"")
        if not length.isdigit() or not 0 < int(length) <= len(body):
            raise WrongAnswerError(f"binary data behind {length!r} bytes of JSON in an answer of {len(body)}")
        document(body[: int(length)])
    elif answer.media_type == b"application/json":
        if body != b"\n":  # which is MLflow's word for "ready"
            document(body, nonfinite=b":" in case.target)
    elif answer.media_type not in _TEXT and body:
        raise WrongAnswerError(f"an answer of the type {answer.media_type!r}")
    if case.check is not None:
        try:
            case.check(answer)
        except (AssertionError, KeyError, IndexError, TypeError, ValueError) as error:
            raise WrongAnswerError(f"{case.what}: {type(error).__name__}: {error}: {answer.status} {body[:500]!r}") from error


def _judge_envelope(answer: Answer, body: bytes) -> None:
    found = document(body)
    if answer.status in (414, 431) or b"malformed request" in body[:60]:
        return  # no head that could be read, so nobody's path
    if not isinstance(found, dict) or list(found) != _ENVELOPE or (found["code"], found["attributes"]) != (answer.status, {}):
        raise WrongAnswerError(f"no envelope: {answer.status} {body[:300]!r}")
    if (found["success"], found["status"] == "OK") != ((answer.status == 200,) * 2):
        raise WrongAnswerError(f"an envelope that contradicts itself: {body[:300]!r}")


def _judge_error(case: Case, answer: Answer, body: bytes) -> None:
    if answer.media_type == b"text/plain" and _METRICS.search(unquote_to_bytes(case.target)):
        text = body.decode()
    else:
        if answer.media_type != b"application/json":
            raise WrongAnswerError(f"an error of the type {answer.media_type!r}: {body[:200]!r}")
        found = document(body)
        text = _text_of(found, case)
        if _REGISTRY.match(unquote_to_bytes(case.target)) and case.what != "wrong head" and "error_code" not in found:
            text = text if answer.status in (414, 431) or "malformed request" in text else ""
        if not text:
            raise WrongAnswerError(f"an error without its text: {body[:200]!r}")
    if "Traceback" in text or "/site-packages/" in text:
        raise WrongAnswerError(f"an error tells of the inside: {text[:500]}")
    if answer.status == 501 and not _ALLOWED_501.search(text):
        raise WrongAnswerError(f"501 for what should be there: {text[:500]}")
    if answer.status == 503 and not _ALLOWED_503.search(text):
        raise WrongAnswerError(f"503: {text[:500]}")
    if answer.status == 405 and b"allow" not in answer.headers:
        raise WrongAnswerError("405 without Allow")


def _text_of(found: Any, case: Case) -> str:
    """What an error says, "" for one that does not say it as it should."""
    if not isinstance(found, dict):
        return ""
    path = unquote_to_bytes(case.target)
    any_path = case.what == "wrong head" or _PREFIX.match(path) is not None  # which may lead to any dialect
    said = found.get("error")
    if said is None and (any_path or _TUNGSTEN.match(path)):
        said = found.get("detail")
        if isinstance(said, list):
            said = "; ".join(f"{each['loc']} {each['msg']} {each['type']}" for each in said if {"loc", "msg", "type"} <= set(each))
    if said is None and (any_path or _MLFLOW.search(path) or _REGISTRY.match(path)) and list(found) == ["error_code", "message"]:
        said = found["message"]
    if said is None and list(found) == _ENVELOPE:
        said = found["message"]
    if said is None and (any_path or _SELDON.search(path)) and list(found) == ["status"]:
        said = found["status"]["info"]
    return said if isinstance(said, str) else ""


def plain(answer: Answer) -> bytes:
    """The body without its compression."""
    coding = answer.headers.get(b"content-encoding")
    if coding is None:
        return answer.body
    return gzip.decompress(answer.body) if coding == b"gzip" else zlib.decompress(answer.body)


def document(body: bytes, *, nonfinite: bool = False) -> Any:
    """The body as JSON; strict unless NaN and Infinity are allowed. Raises WrongAnswerError."""

    def refuse(token: str) -> float:
        if nonfinite:
            return float(token)
        raise ValueError(f"{token} is not JSON")

    try:
        return json.loads(body.decode(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise WrongAnswerError(f"not JSON: {error}: {body[:300]!r}") from error
