"""Starts the program of a job: in a session of its own, under its limits, with its output in a pipe."""

from __future__ import annotations

import os
import resource
import signal
from typing import Mapping, NamedTuple, Sequence

from dragoman.hosting.jobs import Limits
from dragoman.hosting.jobs.processes import set_open

_CANNOT = 127


class Program(NamedTuple):
    process: int
    output: int
    """Descriptor, does not block."""


def start(argv: Sequence[str], cwd: str, environ: Mapping[str, str], limits: Limits, files: tuple[int, int]) -> Program:
    """`files`: how many it may have open, soft and hard. Raises OSError, with the file's name, when it cannot be started."""
    reader, writer = os.pipe()
    failed, failing = os.pipe()  # closed by a start that works
    process = os.fork()
    if not process:
        try:
            _become(writer, argv, cwd, environ, limits, files)
        except OSError as wrong:
            os.write(failing, b"%d %s" % (wrong.errno or 0, os.fsencode(cwd if wrong.filename == cwd else argv[0])))
        finally:
            os._exit(_CANNOT)
    os.close(writer)
    os.close(failing)
    try:
        with open(failed, "rb") as file:
            wrong_start = file.read()
    except OSError:
        wrong_start = b""
    if wrong_start:
        os.waitpid(process, 0)
        os.close(reader)
        number, _, name = wrong_start.partition(b" ")
        raise OSError(int(number), os.strerror(int(number)), os.fsdecode(name))
    os.set_blocking(reader, False)
    return Program(process, reader)


def _become(output: int, argv: Sequence[str], cwd: str, environ: Mapping[str, str], limits: Limits, files: tuple[int, int]) -> None:
    """In the new process, whose other descriptors are all closed by its start."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    set_open(readable=True)  # else what it is told about itself in /proc belongs to root
    _prefer_to_kill_this()
    if limits.cpus:
        os.sched_setaffinity(0, _cores(limits.cpus))
    resource.setrlimit(resource.RLIMIT_NOFILE, files)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit(resource.RLIMIT_FSIZE, limits.file_size)
    # The second line, for what grows between two looks at all of them. Wide, since libraries reserve much that they never touch.
    _limit(resource.RLIMIT_DATA, limits.memory and 2 * limits.memory + (1 << 30))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.chdir(cwd)
    os.execvpe(argv[0], list(argv), dict(environ))  # noqa: S606 # no shell is what is wanted


def _prefer_to_kill_this() -> None:
    """When the machine runs out of memory, rather than the server."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("500")
    except OSError:
        pass


def _cores(count: int) -> list[int]:
    """Jobs begin anywhere, so that they do not all share the first ones."""
    every = sorted(os.sched_getaffinity(0))
    first = int.from_bytes(os.urandom(4), "little")
    return [every[(first + number) % len(every)] for number in range(min(count, len(every)))]


def _limit(kind: int, value: int) -> None:
    if value:
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
