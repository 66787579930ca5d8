"""The log of a job: as it is, or followed to its end. Called by `dragoman logs` and `dragoman run`."""

import codecs
import time
from collections.abc import Iterator
from typing import TextIO
from urllib.parse import quote

from dragoman.cli.client import NoServerError
from dragoman.cli.jobs_api import Api, Json

ENDED = ("success", "failed", "shutdown", "timeout")
_LOOK_S = 0.5
_PIECE = 1 << 16
_WAITS = 20
"""Looks that a server may miss, while it is being restarted, before following gives up."""


def log_of(api: Api, job: Json) -> str:
    """All that a job has printed."""
    log = job.get("instance_log_id")
    if not log:
        return ""
    with api.stream("GET", _path(str(log))) as reply:
        return reply.read().decode("utf-8", "replace")


def _path(log: str) -> str:
    return f"/resources/{quote(log)}?content=true"


def follow(api: Api, job: str, out: TextIO) -> Json:
    """Write the log of a job, by its id, as it grows, until the job has ended and all of its log is out. The job, as it is then."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    read = missed = 0
    while True:
        try:
            now = api.ask("GET", f"/experiments/{quote(job)}")  # before the log: what an ended job has printed is all there
            for piece in _after(api, now, read):
                read += len(piece)
                out.write(decoder.decode(piece))
            missed = 0
        except NoServerError:
            missed += 1
            if missed > _WAITS:
                raise
        else:
            out.flush()
            if now.get("state") in ENDED:
                return now
        time.sleep(_LOOK_S)


def _after(api: Api, job: Json, start: int) -> Iterator[bytes]:
    """What the log has beyond so many bytes. The whole log is the protocol's answer; a server that knows ranges sends only what is new."""
    log = job.get("instance_log_id")
    if not log:
        return
    with api.stream("GET", _path(str(log)), headers={"Range": f"bytes={start}-"} if start else None) as reply:
        skip = 0 if reply.status == 206 else start
        while piece := reply.read(_PIECE):
            if len(piece) > skip:
                yield piece[skip:]
            skip = max(0, skip - len(piece))
