"""Start-up shim of jobs that have no network, or no files, of their own: moves port 5000, and maps /output, /input and the like.

Python imports it by its name when it starts, since its folder is on the PYTHONPATH of the job; a sitecustomize that is there besides is run
after it. DRAGOMAN_JOB_SHIM says what to do: {"port": N, "paths": {"/output": FOLDER, ...}}; without it nothing is changed. The path "/" is where
folders at the top go that the machine does not have.
Reaches what goes through Python's own functions, not what libraries in C open themselves, and no programs in other languages.
"""

from __future__ import annotations

import builtins
import errno
import importlib.machinery
import importlib.util
import io
import json
import os
import sys

TYPE_CHECKING = False  # typing itself would cost every start of Python in a job some milliseconds
if TYPE_CHECKING:
    from typing import Any, Callable, Self

SHOWN = 5000
"""The port that programs see."""


def _move_port(port: int) -> None:
    import _socket
    import socket

    plain = _socket.socket
    families = (socket.AF_INET, socket.AF_INET6)

    def real(sock: Any, address: Any, foreign: bool) -> Any:
        """Where it is: on the loopback, where only the gate comes in. `foreign`: unless it is the port of another machine."""
        if sock.family not in families or not isinstance(address, tuple) or len(address) < 2 or address[1] != SHOWN:
            return address
        host = address[0].decode("ascii", "replace") if isinstance(address[0], (bytes, bytearray)) else address[0]
        if not isinstance(host, str):
            return address
        if foreign and host not in _HERE and not host.startswith("127."):
            return address
        return ("127.0.0.1" if sock.family == socket.AF_INET else "::1", port, *address[2:])

    def shown(sock: Any, address: Any) -> Any:
        if sock.family in families and isinstance(address, tuple) and len(address) > 1 and address[1] == port:
            return (address[0], SHOWN, *address[2:])
        return address

    def bind(self: Any, address: Any) -> None:
        plain.bind(self, real(self, address, foreign=False))

    def connect(self: Any, address: Any) -> None:
        plain.connect(self, real(self, address, foreign=True))

    def connect_ex(self: Any, address: Any) -> int:
        return plain.connect_ex(self, real(self, address, foreign=True))

    def getsockname(self: Any) -> Any:
        return shown(self, plain.getsockname(self))

    def getpeername(self: Any) -> Any:
        return shown(self, plain.getpeername(self))

    for function in (bind, connect, connect_ex, getsockname, getpeername):
        setattr(socket.socket, function.__name__, function)


_HERE = frozenset(("", "0.0.0.0", "::", "::1", "localhost", "::ffff:127.0.0.1"))  # noqa: S104 # what programs say; none is bound


_OWN = ("/output", "/floyd/output", "/floyd/home")
"""Of what is mapped, what is not data."""


class _Mapped:
    """A function whose first arguments are paths. No function itself: as a member of a class, pathlib's for one, it must not become a method."""

    def __init__(self, function: Callable[..., Any], *maps: Callable[[Any], Any]) -> None:
        """`maps`: what gives the real path, for each of its paths."""
        self.__wrapped__ = function
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__
        self._maps = maps

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._call(self._maps, arguments, named)

    def _call(self, maps: tuple[Callable[[Any], Any], ...], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        paths = [real(path) for real, path in zip(maps, arguments)]
        for name, which in _NAMED.items():
            if name in named:
                named[name] = maps[which](named[name])
        return self.__wrapped__(*paths, *arguments[len(paths) :], **named)


class _Open(_Mapped):
    """open, Python's own or that of os. It has a map for reading and one for what changes files."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        how = arguments[1] if len(arguments) > 1 else named.get("flags", named.get("mode", "r"))
        changes = bool(set(how) & set("wax+")) if isinstance(how, str) else isinstance(how, int) and bool(how & _CHANGING)
        return self._call(self._maps[1:] if changes else self._maps[:1], arguments, named)


_CHANGING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class _Entry:
    """One of os.scandir, under the path that the program has asked for."""

    def __init__(self, entry: Any, path: Any) -> None:
        self._entry = entry
        self.name = entry.name
        self.path = path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._entry, name)

    def __fspath__(self) -> Any:
        return self.path

    def __repr__(self) -> str:
        return repr(self._entry)


class _Entries:
    """What os.scandir returns."""

    def __init__(self, entries: Any, folder: Any) -> None:
        self._entries = entries
        self._folder = folder

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _Entry:
        entry = next(self._entries)
        return _Entry(entry, os.path.join(self._folder, entry.name))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._entries.close()


class _Scan(_Mapped):
    def __call__(self, path: Any = ".") -> Any:
        real = self._maps[0](path)
        entries = self.__wrapped__(real)
        return entries if real is path else _Entries(entries, os.fspath(path))


def _map_paths(places: dict[str, str]) -> None:
    top = places.get("/")
    longest_first = sorted(((path, real) for path, real in places.items() if path != "/"), key=lambda place: -len(place[0]))
    data = tuple(real + "/" for path, real in longest_first if path not in _OWN)
    machine = frozenset(os.listdir("/")) if top else frozenset()

    def mapped(path: Any) -> Any:
        """The real path of one that is mapped, text or bytes as it is given; everything else unchanged."""
        try:
            given = os.fspath(path)
        except TypeError:  # a descriptor, or nothing
            return path
        text = os.fsdecode(given)
        if not text.startswith("/"):
            return path
        text = "/" + os.path.normpath(text).lstrip("/")
        for name, real in longest_first:
            if text == name or text.startswith(name + "/"):
                found = real + text[len(name) :]
                break
        else:
            if top is None or text == "/" or text.split("/", 2)[1] in machine:
                return path
            found = top + text
        return os.fsencode(found) if isinstance(given, bytes) else found

    def own(path: Any) -> Any:
        """The same for what is to be changed. Raises OSError for data, which is read-only."""
        real = mapped(path)
        if real is not path and (os.fsdecode(real) + "/").startswith(data):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return real

    for names, maps in ((_READING, (mapped,)), (_CHANGED, (own,)), (_MOVING, (own, own)), (_LINKING, (mapped, own))):
        for name in names:
            plain = getattr(os, name, None)
            if plain is None:
                continue
            _put(name, plain, (_Scan if name == "scandir" else _Mapped)(plain, *maps))
    _put("open", os.open, _Open(os.open, mapped, own))
    opened: Any = _Open(io.open, mapped, own)
    builtins.open = io.open = opened


def _put(name: str, plain: Any, new: Any) -> None:
    setattr(os, name, new)
    for able in (os.supports_fd, os.supports_dir_fd, os.supports_follow_symlinks, os.supports_effective_ids):
        if plain in able:  # callers ask there whether a function can do it
            able.add(new)


_NAMED = {"path": 0, "file": 0, "src": 0, "dst": -1}
_READING = ("stat", "lstat", "listdir", "scandir", "access", "chdir", "readlink", "statvfs", "pathconf", "getxattr", "listxattr")
"""Functions of os that take a path first. Those of os.path, shutil, glob and pathlib call these."""
_CHANGED = (
    "mkdir",
    "rmdir",
    "remove",
    "unlink",
    "chmod",
    "chown",
    "lchown",
    "utime",
    "truncate",
    "mkfifo",
    "mknod",
    "setxattr",
    "removexattr",
)
_MOVING = ("rename", "replace")
_LINKING = ("link", "symlink")


def _chain() -> None:
    """Another sitecustomize, of the machine or the virtualenv, is run as if this one were not there."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


def _begin(text: str) -> None:
    wanted = json.loads(text)
    if wanted["port"] != SHOWN:
        _move_port(wanted["port"])
    if wanted["paths"]:
        _map_paths(wanted["paths"])


if __name__ == "sitecustomize":
    if "DRAGOMAN_JOB_SHIM" in os.environ:
        _begin(os.environ["DRAGOMAN_JOB_SHIM"])
    _chain()
