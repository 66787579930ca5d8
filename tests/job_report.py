"""The program of a job that says what it finds around it, as JSON. Runs inside, with any Python; reads what to look for from look.json."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any


def attempt(function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What came of it: ["ok", the result] or the name and number of the error."""
    try:
        return ["ok", function(*arguments)]
    except OSError as error:
        return [type(error).__name__, error.errno]


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


def write(path: str) -> str:
    with open(path, "w") as file:
        file.write("written")
    return read(path)


def writable(path: str) -> None:
    """Opens without writing: what must not be changed is not changed by a test that fails."""
    os.close(os.open(path, os.O_WRONLY))


def reach(host: str, port: int) -> None:
    socket.create_connection((host, port), 3).close()


def knobs() -> list[str]:
    """Files of /proc that belong to the machine and can be opened for writing."""
    found = []
    for folder, names, files in os.walk("/proc"):
        if folder == "/proc":
            names[:] = [name for name in names if not name.isdigit() and name not in ("self", "thread-self")]
        for name in files:
            path = os.path.join(folder, name)
            if attempt(writable, path)[0] == "ok":
                found.append(path)
    return found


def main() -> None:
    with open("look.json") as file:
        look = json.load(file)
    contained = look["contained"]
    said = {
        "cwd": os.getcwd(),
        "environ": dict(os.environ),
        "prefix": sys.prefix,
        "python": subprocess.run(["python", "-c", "import sys; print(sys.prefix)"], stdout=subprocess.PIPE, check=True)
        .stdout.decode()
        .strip(),
        "read": {path: attempt(read, path) for path in look["read"]},
        "write": {path: attempt(write, path) for path in look["write"]},
        "list": {path: attempt(lambda path: sorted(os.listdir(path)), path) for path in look["list"]},
        "reach": {f"{host}:{port}": attempt(reach, host, port) for host, port in look["reach"]},
        "interfaces": [line.split(":")[0].strip() for line in read("/proc/net/dev").splitlines()[2:]],
        "processes": [int(name) for name in os.listdir("/proc") if name.isdigit()],
        "capabilities": [line.split()[1] for line in read("/proc/self/status").splitlines() if line.startswith("Cap")],
        "knobs": knobs() if contained else [],
        "own namespace": ctypes.CDLL(None).unshare(0x10000000) == 0 if contained else None,
        "shared memory": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize,
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "terminal": attempt(os.open, "/dev/tty", os.O_RDWR),
    }
    with open("/output/report.json", "w") as file:
        json.dump(said, file)


main()
