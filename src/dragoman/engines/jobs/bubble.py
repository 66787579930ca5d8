"""Runs one command in a bubble of namespaces, with a way out of its network. Standard library only: also a program, for commands that others start.

`begin` is called by beginning.py, in a thread. As a program, `python -I -S bubble.py JSON`, it is what `sandbox.sandboxed` makes of a command: it
ends as the command does, and takes it along when it is killed itself, or who started it is.
"""

import contextlib
import ctypes
import dataclasses
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import IO

_READY_S = 20.0
_QUIT_S = 5.0
_LOOK_S = 1.0
_OWNER_OF = 0xB701
"""ioctl NS_GET_USERNS: the user namespace that owns another. bubblewrap may have gone on into a second one, which owns nothing."""


@dataclasses.dataclass(frozen=True)
class Bubble:
    """What is run, and where."""

    bwrap: str
    arguments: tuple[str, ...]
    command: tuple[str, ...]
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Path inside -> content of small files that are only there."""
    uplink: str = ""
    """Path of slirp4netns, if the network is to have a way out."""
    sealed: bool = True
    """Whether nothing can be made at its top, beside what is mounted."""


@dataclasses.dataclass
class First:
    """`pid` is that of the first process inside, as this machine sees it, `child` the one of ours that it is, or that waits for it."""

    child: "subprocess.Popen[bytes]"
    pid: int = 0
    helpers: "list[subprocess.Popen[bytes]]" = dataclasses.field(default_factory=list)
    """They end after it, by themselves."""

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
        for pid in (self.pid, self.child.pid):
            with contextlib.suppress(ProcessLookupError):
                if pid and self.child.poll() is None:
                    os.kill(pid, signal.SIGKILL)
        return self.reap()


def spawn(
    argv: Sequence[str], inherited: Sequence[int], words: "IO[bytes] | None", environ: "Mapping[str, str] | None" = None
) -> "subprocess.Popen[bytes]":
    """Start a process that gets these descriptors and no terminal. `words`: where it writes; None: where this one does. Raises OSError."""
    return subprocess.Popen(  # noqa: S603 # the interpreter of a job, or a program that isolation.py has found
        argv, pass_fds=inherited, stdin=subprocess.DEVNULL, stdout=words, stderr=words, env=environ,
        start_new_session=words is not None, cwd=None if words is None else "/",
    )  # fmt: skip


def begin(
    bubble: Bubble, inherited: Sequence[int], words: "IO[bytes] | None", environ: "Mapping[str, str] | None" = None, *, waits: bool = False
) -> First:
    """Start the command; its network has its way out when this returns. Raises OSError with the reason; nothing runs then.

    It begins at once, but with `waits` only when its network is there.
    """
    with contextlib.ExitStack() as stack:
        told, telling = _pipe(stack)
        blocked, go = _pipe(stack)
        leaving, alive = _pipe(stack)
        arguments = ["--info-fd", str(telling.fileno())]
        given = [*inherited, telling.fileno()]
        if bubble.uplink:
            given.append(alive.fileno())  # ends with the last process inside, and the helper with it
        if waits:
            given.append(blocked.fileno())
            arguments += ["--block-fd", str(blocked.fileno())]
        for path, content in bubble.files.items():
            file = stack.enter_context(tempfile.TemporaryFile())
            file.write(content.encode())
            file.seek(0)
            given.append(file.fileno())
            arguments += ["--ro-bind-data", str(file.fileno()), path]
        arguments += ["--remount-ro", "/"] * bubble.sealed
        first = First(spawn([bubble.bwrap, *bubble.arguments, *arguments, "--", *bubble.command], given, words, environ))
        try:
            telling.close()
            first.pid = _first_in(told)
            if bubble.uplink:
                alive.close()
                first.helpers.append(_reach_out(stack, bubble.uplink, first.pid, leaving.fileno()))
            if waits:
                go.write(b"\n")
        except BaseException:
            first.kill()
            raise
    return first


def _reach_out(stack: contextlib.ExitStack, uplink: str, pid: int, leaving: int) -> "subprocess.Popen[bytes]":
    """Start the helper in the network of this process; returns when it is there. It ends when `leaving` has no other end any more."""
    _await_loopback(pid)
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    stack.callback(os.close, network)
    owner = fcntl.ioctl(network, _OWNER_OF)
    stack.callback(os.close, owner)
    ready, readying = _pipe(stack)
    words = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 # closed by the stack
    helper = spawn(
        [uplink, "--configure", "--mtu=65520", "--disable-host-loopback", f"--ready-fd={readying.fileno()}", f"--exit-fd={leaving}",
         f"--userns-path=/proc/self/fd/{owner}", "--netns-type=path", f"/proc/self/fd/{network}", "tap0"],
        (owner, network, readying.fileno(), leaving), words,
    )  # fmt: skip
    readying.close()
    if select.select([ready], [], [], _READY_S)[0] and ready.read(1):
        return helper
    helper.kill()
    helper.wait()
    words.seek(0)
    said = words.read().decode("utf-8", "replace").strip().splitlines()
    raise OSError("slirp4netns has not made a network" + (f": {said[-1]}" if said else ""))


def _await_loopback(pid: int) -> None:
    """Wait until bubblewrap has done with the network: a helper that sets it up at the same time makes it fail, one time in twenty (0.8)."""
    end = time.monotonic() + _READY_S
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/net/fib_trie") as file:
                if "127.0.0.1" in file.read():
                    return
        except OSError:
            break
        time.sleep(0.002)
    raise OSError("bubblewrap has not made a network")


def _first_in(told: IO[bytes]) -> int:
    """The number of the first process inside, which bubblewrap tells."""
    text = b""
    while select.select([told], [], [], _READY_S)[0] and (more := told.read(4096)):
        text += more
        with contextlib.suppress(ValueError):
            return int(json.loads(text)["child-pid"])
    raise OSError("bubblewrap has not made namespaces")


def _pipe(stack: contextlib.ExitStack) -> tuple[IO[bytes], IO[bytes]]:
    reader, writer = os.pipe()
    return stack.enter_context(open(reader, "rb", 0)), stack.enter_context(open(writer, "wb", 0))


def _leave_keyring() -> None:
    """As the first process of a job does it (hosting/jobs/processes.py, which cannot be imported here): no namespace divides what is inherited."""
    number = {"x86_64": 250, "aarch64": 219, "riscv64": 219}.get(os.uname().machine)
    if number is not None and sys.maxsize > 1 << 32:
        ctypes.CDLL(None, use_errno=True).syscall(number, 1, None)


def main() -> int:
    """The program: runs the bubble that its argument describes, in front."""
    starter = os.getppid()
    bubble = Bubble(**json.loads(sys.argv[1]))
    _leave_keyring()
    try:
        first = begin(bubble, (), None, waits=True)
        while os.getppid() == starter:
            with contextlib.suppress(subprocess.TimeoutExpired):
                first.child.wait(_LOOK_S)
                return first.reap()
        return first.kill()
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
