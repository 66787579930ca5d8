"""What a job's program is told so that the shim works in it, and the port that it is moved to. Called by inside.py."""

from __future__ import annotations

import json
import os
import socket
from typing import Mapping

from dragoman.hosting.jobs import PORT

_FIRST, _COUNT = 20000, 12000
"""Below those that clients get by themselves."""


def with_shim(environ: Mapping[str, str], port: int, paths: Mapping[str, str]) -> dict[str, str]:
    """The environment, unchanged where the program really has port 5000 and its paths."""
    if port == PORT and not paths:
        return dict(environ)
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "shim")
    known = environ.get("PYTHONPATH", "")
    return {
        **environ,
        "PYTHONPATH": folder + os.pathsep + known if known else folder,
        "DRAGOMAN_JOB_SHIM": json.dumps({"port": port, "paths": dict(paths)}),
    }


def free_port() -> int:
    """One that nobody listens on now. Raises OSError when none is found."""
    for _ in range(200):
        port = _FIRST + int.from_bytes(os.urandom(4), "little") % _COUNT
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port is free")
