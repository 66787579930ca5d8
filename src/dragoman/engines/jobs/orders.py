"""What the first process of a job is told: one JSON object on a pipe, whose descriptor is the only argument of hosting/jobs/inside.py.

    {"job": ID, "mode": "serve", "argv": [...], "cwd": "/floyd/home", "environ": {...},     all of the environment, nothing is added
     "limits": {the fields of core.jobs.Limits; inf is null}, "ran_s": 12.5, "port": 5000,   where the program listens, also where it was moved to
     "gate": 5, "log": 6, "end": 7,                                                          inherited descriptors
     "isolation": "...", "orphan_s": 60}

`gate` is a listening unix socket; `log` is a file open for appending; `end` is an empty file, which gets the fields of core.jobs.End as one JSON
object, in one write: the first process of a job has no folder of ours, because whoever has a folder's descriptor finds the way to the ones above.
The orders end with the pipe. When they do not end with the closing brace the server has died, or thought better of it, and nothing is to be started.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from dragoman.core.jobs import PORT, Start

ORPHAN_S = 60.0
"""How long a job goes on without a server."""


def orders(
    start: Start,
    argv: Sequence[str],
    cwd: str,
    environ: Mapping[str, str],
    descriptors: Mapping[str, int],
    isolation: str,
    port: int = PORT,
) -> bytes:
    """The orders of one start. `descriptors`: gate, log and end, by their numbers inside."""
    limits = {name: None if value == math.inf else value for name, value in asdict(start.limits).items()}
    told = {
        "job": start.job,
        "mode": start.mode.value,
        "argv": list(argv),
        "cwd": cwd,
        "environ": dict(environ),
        "limits": limits,
        "ran_s": start.ran_s,
        "port": port,
        **descriptors,
        "isolation": isolation,
        "orphan_s": ORPHAN_S,
    }
    return json.dumps(told).encode()
