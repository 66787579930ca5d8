"""Paths below a served version's own prefix, rewritten to the paths of the protocol that answers them. Pure; called by server/app.py.

The prefixes are /serve/{name}-{version}, which Submarine's `result.url` begins with, /{name}/{version} (Submarine 0.7.0), and Seldon's
/seldon/{namespace}/{name}[/{version}]. Open Inference Protocol, TensorFlow Serving and Tungsten have paths of their own that name model and
version, so their handlers need not know of prefixes. MLflow scoring and Seldon have none: they see their path at the root, and the application
tells them which model is meant (`Request.pinned`).
"""

import re
from dataclasses import dataclass
from urllib.parse import quote

from dragoman.dialects import path_text

_SERVE = re.compile(rb"/serve/([^/]+)-([^/-]+)(?:/(.*))?\Z", re.DOTALL)
"""A name may have dashes, a version has none."""
_ROUTE = re.compile(rb"/([^/]+)/([0-9]+)/((?:api/v[0-9.]+/|v2/models/).+)\Z", re.DOTALL)
"""No protocol's own path looks like this, so it needs no word in front."""
_SELDON = re.compile(rb"/seldon/[^/]+/([^/]+)(?:/([0-9]+))?/(.*)\Z", re.DOTALL)
_WORDS = ("/serve/", "/seldon/")

_V2_MODEL = re.compile(rb"v2/models/([^/]+)(?:/versions/([^/]+))?((?:/.*)?)\Z", re.DOTALL)
_V1_MODEL = re.compile(rb"v1/models/([^/:]+)(?:/versions/([^/:]+))?((?:[/:].*)?)\Z", re.DOTALL | re.IGNORECASE)
_TUNGSTEN = (b"predict", b"predictions", b"demo")
_FILES = b"files"
_NAMELESS = re.compile(rb"(?:invocations|ping|health|version|api/v(?:0\.1|1\.0)/.*)\Z", re.DOTALL)
"""Paths of protocols that have no name for a model."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """A path below the prefix of one version."""

    name: str
    version: str
    """"" where the prefix names none: Seldon's own deployments."""
    rest: bytes
    """What follows the prefix and its slash, percent-encoded as it came."""


_JOBS = re.compile(r"/(?:expose|serve/[^/]+/projects)/[^/]")
"""A path below it is for the job's own program, whatever it looks like."""


def endpoint(path: str) -> bool:
    """Whether a decoded path leads to a job: /expose/ID or /serve/USER/projects/NAME, and what is below."""
    return path.startswith(("/expose/", "/serve/")) and _JOBS.match(path) is not None


def possible(path: str) -> bool:
    """Whether a decoded path may have such a prefix: what every request is asked first, so few searches and as a rule no expression (0.2 us)."""
    return (path.startswith(_WORDS) or "/api/v" in path or path.find("/v2/models/", 1) > 0) and not endpoint(path)


def pinned(raw_path: bytes) -> Pinned | None:
    """Model and version that a path is below; None for a path that has no such prefix. Whether they are served is for others to say."""
    found = _SERVE.match(raw_path) or _ROUTE.match(raw_path) or _SELDON.match(raw_path)
    return None if found is None else Pinned(path_text(found[1]), path_text(found[2] or b""), found[3] or b"")


def rewritten(raw_path: bytes) -> bytes:
    """The path that means the same without a prefix; the path itself where there is none.

    A path that names another model or version than its prefix, or the whole server, becomes one that its protocol does not have (`astray`).
    """
    place = pinned(raw_path)
    if place is None:
        return raw_path
    rest = place.rest
    first, _, below = rest.partition(b"/")
    if first == b"v2":
        return _v2(place, below.removesuffix(b"/")) or b"/v2" + raw_path
    if first.lower() == b"v1":
        return _of_model(place, b"/v1/models/", _V1_MODEL.match(rest)) or b"/v1" + raw_path
    if first in _TUNGSTEN or not rest:
        where = b"/models/" + _quoted(place.name) + (b":" + _quoted(place.version) if place.version else b"")
        return where + b"/" + rest if rest else where
    return b"/" + rest if first == _FILES or _NAMELESS.match(rest) else raw_path


def astray(raw_path: bytes, meant: bytes) -> bool:
    """Whether `rewritten` has made `meant` of a path that leads away from its prefix."""
    return meant is not raw_path and meant.endswith(raw_path)


def _v2(place: Pinned, below: bytes) -> bytes:
    if below in (b"", b"health/live"):
        return b"/v2/" + below if below else b"/v2"
    if below == b"health/ready":  # a probe at the prefix of a model asks about that model, not about all others
        below = b"models/" + _quoted(place.name) + b"/ready"
    return _of_model(place, b"/v2/models/", _V2_MODEL.match(b"v2/" + below))


def _of_model(place: Pinned, models: bytes, found: re.Match[bytes] | None) -> bytes:
    """The path with the version of its prefix; b"" where it names another one, or another model. A label may be another version's."""
    if found is None or path_text(found[1]) != place.name or (place.version and found[3].lower().startswith(b"/labels/")):
        return b""
    version = place.version or path_text(found[2] or b"")
    if found[2] is not None and path_text(found[2]) != version:
        return b""
    return models + _quoted(place.name) + (b"/versions/" + _quoted(version) if version else b"") + found[3]


def _quoted(text: str) -> bytes:
    return quote(text, safe="").encode()
