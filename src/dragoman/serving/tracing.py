"""Traces of single requests, in Triton's JSON form: when each was received, queued, run and answered. Fed by the gateway.

A request that is not traced costs one look at `Tracer.active`. Traces are gathered in memory and written by `flush`, off the loop.
"""

import itertools
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dragoman.core.model import Timings
from dragoman.serving.paths import private_folder
from dragoman.serving.trace_files import append, number
from dragoman.serving.trace_settings import Traced, TraceSettings

log = logging.getLogger("dragoman")

MOST_WAITING = 10_000
"""Traces in memory. Those that come beyond, before the next flush, are dropped and counted in the log."""


class _Scope:
    """A scope and how many of its requests have passed since the last trace, in this worker."""

    __slots__ = ("seen", "traced")

    def __init__(self, traced: Traced, seen: int = 0) -> None:
        self.traced = traced
        self.seen = seen


class Tracer:
    """`folder` is made when the first trace is written. `worker` makes ids differ between workers. Belongs to one thread, but for `write`."""

    def __init__(self, settings: TraceSettings, folder: Path, worker: int = 0) -> None:
        self.active = False
        """Whether any model is traced at all: the only thing that the gateway looks at while none is."""
        self._settings = settings
        self._folder = folder
        self._ids = itertools.count((worker << 32) + 1)
        self._scopes: dict[str, _Scope] = {}
        self._waiting: dict[tuple[str, int], list[dict[str, Any]]] = {}
        self._size = 0
        self._dropped = 0
        self._changed = False
        settings.on_change(self._obey)

    def sample(self, model: str, version: str, request_id: str, begin_ns: int, end_ns: int, timings: Timings) -> bool:
        """Trace an answered request if it is its turn; returns whether it was. Every rate-th of its scope is, while traces are left."""
        scope = self._scopes.get(model) or self._scopes[""]
        traced = scope.traced
        if not traced.active:
            return False
        scope.seen += 1
        if scope.seen < traced.rate:
            return False
        scope.seen = 0
        if self._size >= MOST_WAITING:
            self._dropped += 1
            return False
        if traced.left >= 0 and not self._settings.claim(traced.scope):
            return False
        self._waiting.setdefault((traced.file, traced.frequency), []).append(
            _record(next(self._ids), model, version, request_id, begin_ns, end_ns, timings)
        )
        self._size += 1
        return True

    def take(self, *, everything: bool = False) -> "Waiting":
        """Hand over what is due to be written: all that goes to one file, full portions of what goes to numbered ones.

        After a change of settings, and when `everything` is wanted, smaller portions are due too.
        """
        everything = everything or self._changed
        self._changed = False
        due: list[tuple[str, int, list[dict[str, Any]]]] = []
        for (file, frequency), traces in list(self._waiting.items()):
            portion = frequency or len(traces)
            full = len(traces) if everything else len(traces) // portion * portion
            due += [(file, frequency, traces[at : at + portion]) for at in range(0, full, portion)]
            del self._waiting[file, frequency]
            if full < len(traces):
                self._waiting[file, frequency] = traces[full:]
        self._size = sum(map(len, self._waiting.values()))
        if self._dropped:
            log.warning("%d traces were dropped: %d were waiting to be written", self._dropped, MOST_WAITING)
            self._dropped = 0
        return due

    def write(self, due: "Waiting") -> None:
        """Write what `take` handed over. Blocks; for a thread. A file that cannot be written is logged, and its traces are gone."""
        for file, frequency, traces in due:
            try:
                private_folder(self._folder)
                (number if frequency else append)(self._folder / file, traces)
            except OSError as error:
                log.warning("%d traces could not be written to %s: %s", len(traces), file, error.strerror or error)

    def _obey(self) -> None:
        before = self._scopes
        self._scopes = {
            scope: _Scope(traced, before[scope].seen if scope in before else 0) for scope, traced in self._settings.scopes().items()
        }
        if self._waiting and (before.keys() != self._scopes.keys() or any(_chosen(before[s]) != _chosen(self._scopes[s]) for s in before)):
            self._changed = True
        self.active = any(scope.traced.active for scope in self._scopes.values())


Waiting = list[tuple[str, int, list[dict[str, Any]]]]
"""(file, frequency, traces)"""


def _chosen(scope: _Scope) -> Traced:
    """What was chosen, without what the counting of traces makes of it."""
    return replace(scope.traced, left=0, active=False)


def _record(number: int, model: str, version: str, request_id: str, begin_ns: int, end_ns: int, timings: Timings) -> dict[str, Any]:
    """Stage times are known as lengths: they are laid end to end from the start, and what is left over lies before REQUEST_END."""
    started = begin_ns + timings.queue_ns
    prepared = started + timings.input_ns
    ran = prepared + timings.infer_ns
    moments: Mapping[str, int] = {
        "REQUEST_START": begin_ns,
        "QUEUE_START": begin_ns,
        "COMPUTE_START": started,
        "COMPUTE_INPUT_END": prepared,
        "COMPUTE_OUTPUT_START": ran,
        "COMPUTE_END": ran + timings.output_ns,
        "REQUEST_END": max(end_ns, ran + timings.output_ns),
    }
    record: dict[str, Any] = {
        "id": number,
        "model_name": model,
        "model_version": int(version) if version.isascii() and version.isdigit() and len(version) < 19 else version,
        "timestamps": [{"name": name, "ns": ns} for name, ns in moments.items()],
    }
    if request_id:
        record["request_id"] = request_id
    return record
