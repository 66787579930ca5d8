"""Where models may be registered from: the folders of --model-root and --trusted-root, and the server's own places for artifacts.

Whoever registers a model names files of this machine, so nothing outside of these folders is opened, or told to be there or not. `..` and
links are resolved first. Called by the catalog, and again when a registered model is loaded (origins.py). Blocking.
"""

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from dragoman.core.errors import invalid
from dragoman.serving.settings import quoted

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_LONGEST = 4096
_LOCAL_HOSTS = ("", "localhost")
ARTIFACTS = "mlflow-artifacts"
"""The scheme of what clients uploaded through the artifact API."""


@dataclass(frozen=True, slots=True)
class Root:
    """A folder, links not resolved. Below a `trusted` one the operator answers for every file: pickles and Python code are loaded."""

    path: Path
    trusted: bool = False


def scheme_of(source: str) -> str:
    """The scheme of a URI in lower case, "" for a path."""
    match = _SCHEME.match(source)
    return match[1].lower() if match else ""


def check_source(source: str) -> str:
    """The text again. Raises INVALID_INPUT (what="source") for one that can be neither a path nor a URI."""
    if not source.strip():
        raise invalid("the source is empty, expected the path of a model below a model root, or a URI", "source")
    if len(source) > _LONGEST:
        raise invalid(f"the source has {len(source)} characters, expected at most {_LONGEST}", "source")
    if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 or c == "\\" for c in source):
        raise invalid(f"the source {quoted(source)} has characters that no path here has ('\\', control characters, or no UTF-8)", "source")
    return source


class Roots:
    """`data_path` is the server's own folder. Of it only `own` (folders in it) is open to sources, and that is never trusted by itself.

    Where places lie inside of each other, the innermost decides: an untrusted root in a trusted one is not trusted.
    """

    def __init__(
        self,
        roots: Sequence[Root],
        data_path: Path,
        own: Sequence[str] = ("artifacts", "cache"),
        *,
        flag: str = "--model-root",
        use: str = "models may be registered from",
    ) -> None:
        trusted = {root.path for root in roots if root.trusted}
        self.roots = tuple(Root(path, path in trusted) for path in dict.fromkeys(root.path for root in roots))
        self._closed = Root(data_path.absolute())
        self._flag = flag
        self._use = use
        self.artifacts = data_path.absolute() / (own[0] if own else ARTIFACTS)
        self._own = tuple(Root(data_path.absolute() / name) for name in own)

    @classmethod
    def of(cls, model_roots: Sequence[str], trusted_roots: Sequence[str], data_path: Path) -> "Roots":
        """From the settings; paths are those of the folder that the server was started in."""

        def made(text: str, trusted: bool) -> Root:
            return Root(Path(text).expanduser().absolute(), trusted)

        return cls([*(made(t, False) for t in model_roots), *(made(t, True) for t in trusted_roots)], data_path)

    @classmethod
    def of_data(cls, data_roots: Sequence[str], data_path: Path) -> "Roots":
        """Folders that data sets may be; nothing of the server's own is open to them."""
        roots = [Root(Path(text).expanduser().absolute()) for text in data_roots]
        return cls(roots, data_path, own=(), flag="--data-root", use="data sets may be in")

    def check(self) -> None:
        """Raise INVALID_INPUT for a root of the operator's that is no folder."""
        for root in self.roots:
            if not root.path.is_dir():
                flag = "--trusted-root" if root.trusted else self._flag
                raise invalid(f"{flag} is {root.path}, which is no folder")

    def resolve(self, source: str, base: Path | None = None) -> Path:
        """The file or folder that a source means, links resolved. Relative paths begin at `base`, else at the first root, else where uploads lie.

        A source is a path, a `file:` URI of this machine, or an `mlflow-artifacts:` one. Raises INVALID_INPUT (what="source") for anything else,
        for what lies outside of every root, is not there, or is neither file nor folder.
        """
        text = check_source(source)
        scheme = scheme_of(text)
        if scheme == ARTIFACTS:
            return self._there([self.artifacts / _below_artifacts(text)], text)
        if scheme == "file":
            return self._there([Path(_of_file_uri(text))], text)
        if scheme:
            raise invalid(f"the source {quoted(text)} is neither a path nor a file: URI", "source")
        path = Path(text)
        if path.is_absolute():
            return self._there([path], text)
        bases = [base] if base is not None else [*(root.path for root in self.roots[:1]), self.artifacts]
        return self._there([each / path for each in bases], text)

    def open_to(self, path: Path) -> bool:
        """Whether a path, links resolved, lies in a place that sources may name."""
        return self._place(path) not in (None, self._closed)

    def holds_own(self, path: Path) -> bool:
        """Whether the server's own folder lies below a path, links resolved: who gets all of that would get the server's things, too."""
        return Path(os.path.realpath(self._closed.path)).is_relative_to(path)

    def trusted(self, path: Path) -> bool:
        """Whether the operator answers for what lies at a path, links resolved."""
        place = self._place(path)
        return place is not None and place.trusted

    def same(self, path: Path, other: Path) -> bool:
        """Whether two paths, links resolved, lie in one place: a link must not lead from a model to files of more or less trust."""
        return self._place(path) == self._place(other)

    def _place(self, path: Path) -> Root | None:
        """The innermost place that a resolved path is in. Of equal ones the operator's word wins."""
        found: tuple[int, Root] | None = None
        for root in (*self.roots, *self._own, self._closed):
            real = Path(os.path.realpath(root.path))
            depth = len(real.parts)
            if path.is_relative_to(real) and (found is None or depth > found[0]):
                found = (depth, root)
        return found[1] if found is not None else None

    def _there(self, candidates: Sequence[Path], source: str) -> Path:
        """The first of these that exists. What is outside is refused before anybody looks whether it exists."""
        inside = [real for path in candidates if self.open_to(real := Path(os.path.realpath(path)))]
        problem = invalid(f"the source {quoted(source)} does not exist", "source")
        if len(inside) < len(candidates):
            where = f"not in a folder that {self._use}"
            problem = invalid(
                f"the source {quoted(source)} is {where}; the server's operator allows folders with {self._flag} DIR", "source"
            )
        for real in inside:
            try:
                if os.path.realpath(real, strict=True) != str(real):  # changed meanwhile, or links in a circle
                    continue
                mode = real.lstat().st_mode
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                problem = invalid(f"the source {quoted(source)} cannot be read ({error.strerror or 'links in a circle'})", "source")
                continue
            if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
                return real
            problem = invalid(f"the source {quoted(source)} is neither a file nor a folder", "source")
        raise problem


def _of_file_uri(text: str) -> str:
    """The path of a `file:` URI."""
    parts = _split(text)
    if (parts.hostname or "") not in _LOCAL_HOSTS or parts.port is not None or "@" in parts.netloc:
        raise invalid(f"the source {quoted(text)} names another machine, expected file:///PATH", "source")
    if parts.query or parts.fragment or not parts.path.startswith("/"):
        raise invalid(
            f"the source {quoted(text)} is no file: URI of an absolute path, expected file:///PATH with '?' and '#' as %3F and %23",
            "source",
        )
    return check_source(_decoded(parts.path, text))


def _below_artifacts(text: str) -> str:
    """The path of an `mlflow-artifacts:` URI below the folder of uploads; its host, ours or not, says nothing more."""
    path = _split(text.split("?")[0].split("#")[0]).path.lstrip("/")
    if ".." in Path(path).parts or ".." in Path(unquote(path)).parts:
        raise invalid(f"the source {quoted(text)} has '..' in it", "source")
    return path


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises for what is no number
    except ValueError as error:
        raise invalid(f"the source {quoted(text)} is no URI", "source") from error
    return parts


def _decoded(path: str, text: str) -> str:
    try:
        return unquote(path, errors="strict")
    except UnicodeDecodeError:
        raise invalid(f"the source {quoted(text)} is not UTF-8 when its %XX are decoded", "source") from None
