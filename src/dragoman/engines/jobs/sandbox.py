"""What a job, or an installer, sees of the machine: the arguments of bubblewrap. Everything that is not named here is not there.

Called by beginning.py for jobs, by isolation.py to try what is possible, and by environments for the commands that build virtualenvs.
"""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import dragoman.hosting.jobs
from dragoman.core.jobs import PORT, Start
from dragoman.engines.jobs import bubble
from dragoman.engines.jobs.allowed import Isolation
from dragoman.engines.jobs.bubble import Bubble
from dragoman.engines.jobs.orders import PROGRAMS, View, mounted

INSIDE = Path(dragoman.hosting.jobs.__file__).parent
"""What a job's first process runs."""

_MACHINE = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
_SETTINGS = (
    "ssl/certs", "ssl/openssl.cnf", "ssl/cert.pem", "ca-certificates", "ca-certificates.conf", "pki/tls/certs", "pki/ca-trust/extracted",
    "crypto-policies", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "timezone", "alternatives", "mime.types", "fonts",
    "protocols", "services", "os-release", "debian_version", "magic", "gai.conf", "host.conf", "OpenCL", "java-11-openjdk",
    "java-17-openjdk",
)  # fmt: skip
"""Of /etc. Not all of ssl and pki, which have private keys: a server that is root would let its jobs read them."""

_PROC = ("sys", "sysrq-trigger", "irq", "bus", "fs", "scsi", "acpi", "mtrr", "tty", "driver", "pressure", "dynamic_debug")
"""Of /proc: knobs of the machine. They belong to root, so to whoever runs as the user that the server runs as when it is root: without
any privilege inside. bubblewrap only covers what it may write itself once it has given its privileges up, and that is too late (seen with 0.8)."""

_USER, _GROUP = 1000, 1000
_PASSWD = f"""\
root:x:0:0:root:/root:/usr/sbin/nologin
floyd:x:{_USER}:{_GROUP}:floyd:/floyd/home:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
_GROUPS = f"root:x:0:\ntty:x:5:\nfloyd:x:{_GROUP}:\nnogroup:x:65534:\n"
_NAMES = "passwd: files\ngroup: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n"
_RESOLVER = "nameserver 10.0.2.3\n"
"""slirp4netns answers there, and asks the machine's own."""
_TMP, _VAR_TMP, _SHM = "/tmp", "/var/tmp", "/dev/shm"  # noqa: S108 # a job's own
_GPUS = ("nvidia*", "dri", "kfd")
_SHARED_MEMORY = 1 << 30
_RUN = 16 << 20
_FIRST_FOLDER = "/run/dragoman/jobs"
"""hosting/jobs must keep the last part of its name."""


def job(start: Start, isolation: Isolation, orders: int) -> tuple[Bubble, View]:
    """How this job is started, and what it finds where; `orders` is the descriptor that its first process reads them from."""
    folder = start.folder
    own = not isolation.moves_port(start.network)
    writable = [(folder / "tmp", _TMP), (folder / "tmp", _VAR_TMP), (folder / "home", "/floyd/home"), (folder / "output", "/output"),
                (folder / "output", "/floyd/output")]  # fmt: skip
    readable = [*((path, str(path)) for path in start.readable), (INSIDE, _FIRST_FOLDER), *mounted(start)]
    # FloydHub's mnist sample makes a folder /eval: the top is a folder on disk, so that it counts for no memory.
    arguments = ["--bind", str(folder / "root"), "/", *_walls(isolation, own, start.limits.memory), "--clearenv", "--as-pid-1"]
    arguments += _mounts(readable, writable)
    for name in PROGRAMS:
        arguments += ["--symlink", str(start.python), f"/floyd/bin/{name}"]
    arguments += ["--chdir", "/floyd/home"]
    command = (str(start.python), "-I", "-S", _FIRST_FOLDER, str(orders))
    uplink = isolation.uplink if own and start.network else ""
    view = View("/floyd/home", _TMP, "/floyd/bin", port=PORT if own else 0)
    return Bubble(isolation.bwrap, tuple(arguments), command, _files(uplink, start.network), uplink, sealed=False), view


def devices() -> tuple[Path, ...]:
    """What a job needs to see to use the GPUs of this machine: for `readable` of its start."""
    return tuple(path for pattern in _GPUS for path in sorted(Path("/dev").glob(pattern)))


async def sandboxed(
    isolation: Isolation, command: Sequence[str], *, writable: Iterable[Path] = (), readable: Iterable[Path] = (), network: bool = True
) -> list[str]:
    """The command line that runs `command` where it sees nothing but these paths and the system's; the command itself without namespaces.

    It keeps its environment, and its working directory where that is visible. Whoever kills the process group of it kills all that it has
    started. Raises UNAVAILABLE when it is to have no network, and that cannot be had.
    """
    isolation.check(network, "a command")
    if not isolation.bwrap:
        return list(command)
    told = bubble_of(isolation, command, writable, readable, network=network)
    return [sys.executable, "-I", "-S", bubble.__file__, json.dumps(asdict(told))]


def bubble_of(
    isolation: Isolation, command: Sequence[str], writable: Iterable[Path] = (), readable: Iterable[Path] = (), *, network: bool = True
) -> Bubble:
    """A command that sees nothing but these paths and the system's, and ends with the one who starts it."""
    own = not isolation.moves_port(network)
    arguments = [*_walls(isolation, own, 0), "--die-with-parent"]
    arguments += [
        *_bounded(isolation, _SHARED_MEMORY, _TMP),
        *_mounts([(path, str(path)) for path in readable], [(path, str(path)) for path in writable]),
    ]
    uplink = isolation.uplink if own and network else ""
    return Bubble(isolation.bwrap, tuple(arguments), tuple(command), _files(uplink, network), uplink)


def _walls(isolation: Isolation, own_network: bool, memory: int) -> list[str]:
    """Namespaces, no privileges, and what of the machine everybody may see."""
    walls = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", *["--unshare-net"] * own_network]
    walls += ["--uid", str(_USER), "--gid", str(_GROUP), "--hostname", "floyd", "--cap-drop", "ALL"]
    walls += ["--disable-userns"] * ("--disable-userns" in isolation.options)
    for path in _MACHINE:
        if os.path.islink(path):
            walls += ["--symlink", os.readlink(path), path]
        else:
            walls += ["--ro-bind-try", path, path]
    for folder in isolation.hidden:
        if any(folder.is_relative_to(path) for path in _MACHINE):
            walls += ["--tmpfs", str(folder)]
    for name in _SETTINGS:
        walls += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    walls += ["--proc", "/proc"]
    for name in _PROC:
        walls += ["--ro-bind-try", f"/proc/{name}", f"/proc/{name}"]
    walls += ["--dev", "/dev", *_bounded(isolation, min(memory or _SHARED_MEMORY, _SHARED_MEMORY), _SHM), "--remount-ro", "/dev"]
    return [*walls, *_bounded(isolation, _RUN, "/run"), "--ro-bind-try", "/sys/devices/system/cpu", "/sys/devices/system/cpu"]


def _bounded(isolation: Isolation, size: int, path: str) -> list[str]:
    """A folder in memory, which counts for no process."""
    return [*["--size", str(size)] * ("--size" in isolation.options), "--tmpfs", path]


def _mounts(readable: Iterable[tuple[Path, str]], writable: Iterable[tuple[Path, str]]) -> list[str]:
    """Folders above before those below, so that none hides another."""
    seen = [("--dev-bind" if path.is_relative_to("/dev") else "--ro-bind", path, at) for path, at in readable]
    seen += [("--bind", path, at) for path, at in writable]
    return [
        word for kind, path, at in sorted(set(seen), key=lambda m: (Path(m[2]).parts, m[0] == "--bind")) for word in (kind, str(path), at)
    ]


def _files(uplink: str, network: bool) -> dict[str, str]:
    resolver = _RESOLVER if uplink else (_text("/etc/resolv.conf") if network else "")
    return {
        "/etc/passwd": _PASSWD,
        "/etc/group": _GROUPS,
        "/etc/nsswitch.conf": _NAMES,
        "/etc/hosts": (_text("/etc/hosts") or "127.0.0.1 localhost\n") + "\n127.0.0.1 floyd\n",
        "/etc/resolv.conf": resolver,
    }


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""
