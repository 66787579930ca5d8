"""The first process of a job as the one that started it has it: with the helpers that were started beside it. Called by launch.py, in threads."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO

_QUIT_S = 5.0


@dataclass(slots=True)
class First:
    """`pid` is that of the job's first process, `child` the one of ours that it is, or that waits for it, `helpers` end after it."""

    child: "subprocess.Popen[bytes]"
    pid: int
    helpers: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def reap(self) -> int:
        """Wait for the end of all; returns the exit code, negative for a signal."""
        code = self.child.wait()
        for helper in self.helpers:
            try:
                helper.wait(_QUIT_S)
            except subprocess.TimeoutExpired:
                helper.kill()
                helper.wait()
        return code

    def kill(self) -> int:
        """End all at once, the first process before the one that waits for it: the other way round it would live on."""
        for pid in {self.pid, self.child.pid}:
            if self.child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return self.reap()


def spawn(argv: Sequence[str], descriptors: Sequence[int], words: IO[bytes] | int) -> "subprocess.Popen[bytes]":
    """Start a process that has nothing of ours but these descriptors: no terminal, no environment. Raises OSError."""
    return subprocess.Popen(  # noqa: S603 # the interpreter of the job, or a program that isolation.py has found
        argv, pass_fds=descriptors, stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True, cwd="/",
        env={"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8"},
    )  # fmt: skip
