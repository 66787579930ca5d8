"""The log of a job: as it is, or followed to its end. Called by `dragoman logs` and `dragoman run`."""

import codecs
import time
from collections.abc import Iterator
from typing import TextIO
from urllib.parse import quote

from dragoman.cli.client import NoServerError
from dragoman.cli.jobs_api import Api, Json
from dragoman.core.errors import ServingError

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


class Follower:
    """Writes the log of a job, by its id, as it grows. After an interruption it goes on where it was."""

    def __init__(self, api: Api, job: str, out: TextIO) -> None:
        self._api = api
        self._job = job
        self._out = out
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._read = 0

    def to_the_end(self) -> Json:
        """Until the job has ended and all of its log is out. The job, as it is then."""
        missed = 0
        while True:
            try:
                now = self._look()
            except NoServerError:
                missed += 1
                if missed > _WAITS:
                    raise
            else:
                missed = 0
                if now.get("state") in ENDED:
                    return now
            time.sleep(_LOOK_S)

    def _look(self) -> Json:
        now = self._api.ask("GET", f"/experiments/{quote(self._job)}")  # before the log: what an ended job has printed is all there
        for piece in _after(self._api, now, self._read):
            self._read += len(piece)
            self._out.write(self._decoder.decode(piece))
        self._out.flush()
        return now


def _after(api: Api, job: Json, start: int) -> Iterator[bytes]:
    """What the log has beyond so many bytes. The whole log is the protocol's answer; a server that knows ranges sends only what is new."""
    log = job.get("instance_log_id")
    if not log:
        return
    try:
        with api.stream("GET", _path(str(log)), headers={"Range": f"bytes={start}-"} if start else None) as reply:
            skip = 0 if reply.status == 206 else start
            while piece := reply.read(_PIECE):
                if len(piece) > skip:
                    yield piece[skip:]
                skip = max(0, skip - len(piece))
    except ServingError as error:
        if error.status != 416:  # there is nothing new
            raise
