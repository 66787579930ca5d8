"""Places that keep pushed models: a folder, a bucket (obstore), or anything that fsspec reaches. Called by transfer, in threads.

Names are relative paths with "/". Bytes that come from such a place are nobody's word for anything: every read has a bound.
"""

import math
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from dragoman.core.errors import Kind, ServingError, invalid

_BUCKETS = frozenset({"s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss"})
_CHUNK = 1 << 20
_CLIENT: Any = {"connect_timeout": timedelta(seconds=5), "read_timeout": timedelta(seconds=60), "timeout": timedelta(hours=6)}
"""The last is for a whole object, however large."""
_RETRIES: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
"""Nobody should wait for minutes to hear that a bucket cannot be reached."""


class Remote(Protocol):
    def send(self, name: str, source: Path) -> None:
        """Write a file; one that is there is replaced."""
        ...

    def claim(self, name: str, source: Path) -> bool:
        """Write a file unless there is one; False when there is."""
        ...

    def fetch(self, name: str, target: Path, limit: int) -> bool:
        """Read a file of at most `limit` bytes into `target`; False when there is none. Raises TOO_LARGE."""
        ...

    def names(self, folder: str) -> list[str]:
        """The files directly in a folder."""
        ...


def open_remote(url: str) -> Remote:
    """Raises INVALID_INPUT for what is no place, UNSUPPORTED when the package that reaches it is not installed, naming the extra."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        if re.match(r"[a-z][a-z0-9+.-]+:", url) and not url.startswith("file:"):
            raise invalid(f"'{url}' is no place for models: expected a folder, file:///FOLDER, s3://BUCKET/PATH or the like")
        return Folder(Path(unquote(url.removeprefix("file:"))).expanduser().absolute())
    if scheme == "file":
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost"):
            raise invalid(f"'{url}' names another machine; expected file:///FOLDER")
        return Folder(Path(unquote(parts.path)))
    if not rest:
        raise invalid(f"'{url}' is no place for models: nothing follows {scheme}://")
    return _bucket(url) if scheme in _BUCKETS else _filesystem(url, scheme)


@dataclass(frozen=True, slots=True)
class Part:
    """One object below a URL: its path relative to that, and what its store knows its content by ("" when it does not say)."""

    path: str
    size: int
    tag: str


class Tree(Protocol):
    def parts(self) -> list[Part]:
        """The object itself, or every object below the prefix; empty when there is nothing."""
        ...

    def pieces(self, part: Part, start: int) -> Iterator[bytes]:
        """The content of one, from a place on."""
        ...


def tree_of(url: str) -> Tree:
    """What lies at a bucket's URL. Raises UNSUPPORTED without the package that reaches it, INVALID_INPUT for other URLs."""
    scheme = url.partition("://")[0].lower()
    if scheme not in _BUCKETS:
        raise invalid(f"'{without_secrets(url)}' is no bucket: expected {', '.join(f'{each}://' for each in sorted(_BUCKETS))}")
    base, _, leaf = url.rstrip("/").rpartition("/")
    if base.endswith(":/"):  # a whole bucket
        return _Tree(*_opened(url.rstrip("/")), "")
    return _Tree(*_opened(base), leaf)


def object_in(root: str, key: str, patience_s: float) -> Iterator[bytes]:
    """The content of one object of a bucket, in pieces; whatever the library finds in its own variables says who asks.

    Raises FileNotFoundError when there is none, UNSUPPORTED naming the extra without the package that reaches it, and what the package raises.
    """
    if root.partition("://")[0] in _BUCKETS:
        module, store = _opened(root, patience_s)
        yield from map(bytes, module.get(store, key).stream(min_chunk_size=_CHUNK))
        return
    with _v3io().open(f"/{key}", "rb") as source:
        yield from iter(lambda: source.read(_CHUNK), b"")


class _Tree:
    """Through obstore."""

    def __init__(self, module: Any, store: Any, leaf: str) -> None:
        self._module = module
        self._store = store
        self._leaf = leaf
        self._alone = False

    def parts(self) -> list[Part]:
        if self._leaf:
            try:
                return [self._part(self._module.head(self._store, self._leaf), alone=True)]
            except FileNotFoundError:
                pass
        listed = self._module.list(self._store, self._leaf or None)
        return sorted((self._part(each) for batch in listed for each in batch), key=lambda part: part.path)

    def _part(self, found: Any, *, alone: bool = False) -> Part:
        self._alone = alone
        path = str(found["path"])
        relative = path if alone or not self._leaf else path.removeprefix(f"{self._leaf}/")
        return Part(relative, int(found["size"]), str(found.get("e_tag") or ""))

    def pieces(self, part: Part, start: int) -> Iterator[bytes]:
        path = part.path if self._alone or not self._leaf else f"{self._leaf}/{part.path}"
        if start >= part.size:
            return iter(())
        options = {"range": {"offset": start}} if start else None
        return map(bytes, self._module.get(self._store, path, options=options).stream(min_chunk_size=_CHUNK))


class Folder:
    """A folder of this machine, or one that is mounted here."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def send(self, name: str, source: Path) -> None:
        self._written(name, source).replace(self._root / name)

    def claim(self, name: str, source: Path) -> bool:
        partial = self._written(name, source)
        try:
            os.link(partial, self._root / name)
        except FileExistsError:
            return False
        finally:
            partial.unlink()
        return True

    def fetch(self, name: str, target: Path, limit: int) -> bool:
        try:
            with (self._root / name).open("rb") as source:
                _copy(iter(lambda: source.read(_CHUNK), b""), target, limit, name)
        except FileNotFoundError:
            return False
        return True

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(entry.name for entry in (self._root / folder).iterdir() if entry.is_file())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _written(self, name: str, source: Path) -> Path:
        target = self._root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        with source.open("rb") as file:
            _copy(iter(lambda: file.read(_CHUNK), b""), partial, source.stat().st_size, name)
        return partial


class _Bucket:
    """Object stores, through obstore."""

    def __init__(self, module: Any, store: Any) -> None:
        self._module = module
        self._store = store

    def send(self, name: str, source: Path) -> None:
        self._module.put(self._store, name, source)

    def claim(self, name: str, source: Path) -> bool:
        try:
            self._module.put(self._store, name, source.read_bytes(), mode="create", use_multipart=False)
        except self._module.exceptions.AlreadyExistsError:
            return False
        return True

    def fetch(self, name: str, target: Path, limit: int) -> bool:
        try:
            found = self._module.get(self._store, name)
        except FileNotFoundError:
            return False
        _copy(map(bytes, found.stream(min_chunk_size=_CHUNK)), target, limit, name)
        return True

    def names(self, folder: str) -> list[str]:
        listed = self._module.list_with_delimiter(self._store, folder)["objects"]
        return sorted(each["path"].rpartition("/")[2] for each in listed)


class _FileSystem:
    """Everything else, through fsspec. Whether a claim can lose a race is a matter of the file system behind it."""

    def __init__(self, system: Any, root: str) -> None:
        self._system = system
        self._root = root.rstrip("/")

    def send(self, name: str, source: Path) -> None:
        target = f"{self._root}/{name}"
        self._system.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._system.put_file(str(source), target)

    def claim(self, name: str, source: Path) -> bool:
        if self._system.exists(f"{self._root}/{name}"):
            return False
        self.send(name, source)
        return True

    def fetch(self, name: str, target: Path, limit: int) -> bool:
        try:
            with self._system.open(f"{self._root}/{name}", "rb") as source:
                _copy(iter(lambda: source.read(_CHUNK), b""), target, limit, name)
        except FileNotFoundError:
            return False
        return True

    def names(self, folder: str) -> list[str]:
        try:
            listed = self._system.ls(f"{self._root}/{folder}", detail=True)
        except FileNotFoundError:
            return []
        return sorted(each["name"].rpartition("/")[2] for each in listed if each["type"] == "file")


@contextmanager
def told(url: str) -> Iterator[None]:
    """What goes wrong at such a place, in one sentence."""
    try:
        yield
    except ServingError:
        raise
    except Exception as error:  # each library and service behind it has errors of its own
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ServingError(Kind.UNAVAILABLE, f"{without_secrets(url)} cannot be used: {lines[0][:300]}") from error


def without_secrets(url: str) -> str:
    """A URL that may be printed."""
    return re.sub(r"//[^/@]*@", "//", url.partition("?")[0])


def _bucket(url: str) -> Remote:
    return _Bucket(*_opened(url))


def _opened(url: str, patience_s: float = math.inf) -> tuple[Any, Any]:
    """obstore, and the store at a URL. With `patience_s` nothing takes longer than about that."""
    try:
        import obstore
        import obstore.store
    except ImportError as error:
        raise _missing(url.partition("://")[0], "obstore") from error
    # Options that are given replace those which the library would find in its variables.
    plain = any(os.environ.get(f"{cloud}_ALLOW_HTTP", "").lower() in ("1", "true") for cloud in ("AWS", "GOOGLE", "AZURE"))
    client: Any = {**_CLIENT, **({"allow_http": True} if plain else {})}
    retries: Any = _RETRIES
    if patience_s < math.inf:
        patience = timedelta(seconds=patience_s)
        client |= {"connect_timeout": min(client["connect_timeout"], patience), "read_timeout": patience, "timeout": patience}
        retries = {**retries, "retry_timeout": min(retries["retry_timeout"], patience)}
    with told(url):
        return obstore, obstore.store.from_url(url, client_options=client, retry_config=retries)


def _v3io() -> Any:
    """The file system of MLRun's platform, whose driver registers itself when it is imported."""
    try:
        import fsspec

        if "v3io" not in fsspec.registry:
            import v3iofs  # noqa: F401 # to be registered
        return fsspec.filesystem("v3io")
    except ImportError as error:
        raise ServingError(Kind.UNSUPPORTED, "v3io:// needs v3iofs, which is not installed: pip install 'dragoman[v3io]'") from error


def _filesystem(url: str, scheme: str) -> Remote:
    try:
        import fsspec.core
    except ImportError as error:
        raise _missing(scheme, "fsspec") from error
    resolve: Callable[[str], tuple[Any, str]] = fsspec.core.url_to_fs
    try:
        return _FileSystem(*resolve(url))
    except (ValueError, ImportError) as error:
        raise ServingError(Kind.UNSUPPORTED, f"models cannot be kept at {scheme}:// here: {error}") from error


def _missing(scheme: str, package: str) -> ServingError:
    return ServingError(Kind.UNSUPPORTED, f"{scheme}:// needs {package}, which is not installed: pip install 'dragoman[remote]'")


def _copy(chunks: Iterator[bytes], target: Path, limit: int, name: str) -> None:
    size = 0
    with target.open("wb") as out:
        for chunk in chunks:
            size += len(chunk)
            if size > limit:
                raise ServingError(Kind.TOO_LARGE, f"'{name}' has more than the {limit} bytes that are expected")
            out.write(chunk)
