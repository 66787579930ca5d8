"""Places that take records one by one: files of JSON lines, and an HTTP receiver. `open_sink` opens any place; see writer.py, its caller."""

import asyncio
import contextlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import EMPTY
from dragoman.core.plugins import find
from dragoman.serving.fetch import FetchPolicy, post
from dragoman.serving.fetch_policy import plain_host
from dragoman.serving.records import Record, Sink
from dragoman.serving.records.places import Place, parse
from dragoman.serving.records.settings import Wanted

_TIMEOUT_S = 15.0
_AT_ONCE = 8
_TRY_AGAIN = frozenset({408, 425, 429})
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | os.O_NONBLOCK


class Sinks:
    """Opens places. `worker` makes files of workers differ; `environ` has passwords; `policy` says which hosts may be called that clients name."""

    def __init__(self, policy: FetchPolicy, worker: int = 0, environ: Mapping[str, str] = EMPTY) -> None:
        self._policy = replace(policy, timeout_s=min(policy.timeout_s, _TIMEOUT_S))
        self._worker = worker
        self._environ = environ

    def check(self, place: Place) -> None:
        """Raise for a place that cannot be had: a package or a password is missing, an option is wrong. Connects to nothing."""
        place.check_installed()
        self(place, Wanted(place))

    def __call__(self, place: Place, wanted: Wanted) -> Sink:
        """Raises ServingError for a place that cannot be had."""
        if place.kind == "jsonl":
            return JsonLines(own_path(place.path, self._worker), place.max_bytes, place.keep)
        policy = opened(self._policy, place.url) if wanted.trusted else self._policy
        if place.kind == "http":
            return Web(place, policy)
        found: Sink = find("record_sinks", place.kind)(place, wanted, policy, self._worker, self._environ)
        return found


def check_place(url: str, environ: Mapping[str, str]) -> None:
    """Raise INVALID_INPUT or UNSUPPORTED for an address where records cannot go."""
    Sinks(FetchPolicy(), environ=environ).check(parse(url))


def own_path(path: Path, worker: int) -> Path:
    """The file of one worker: records.jsonl is records-0.jsonl in the first."""
    return path.with_name(f"{path.stem}-{worker}{path.suffix}")


def opened(policy: FetchPolicy, url: str) -> FetchPolicy:
    """The policy for an address that the operator wrote: its own host is allowed."""
    host = urlsplit(url).hostname
    return replace(policy, hosts=policy.hosts | {plain_host(host)}) if host else policy


class JsonLines:
    """One JSON object per line. A file above its size is put aside as FILE.1, older ones move up, and the last goes."""

    def __init__(self, path: Path, max_bytes: int, keep: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep

    async def send(self, records: Sequence[Record]) -> Sequence[Record]:
        await asyncio.to_thread(self._write, records)
        return ()

    async def flush(self) -> None:
        """Every write is whole."""

    async def close(self) -> None:
        """No file is open between writes."""

    def _write(self, records: Sequence[Record]) -> None:
        text = b"".join(orjson.dumps(record) + b"\n" for record in records)
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if (size := self._size()) and size + len(text) > self._max_bytes:
                self._put_aside()
            descriptor = os.open(self._path, _FLAGS, 0o600)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise ServingError(Kind.FORBIDDEN, f"{self._path.name} is not a plain file")
                begin = os.fstat(descriptor).st_size
                try:
                    view = memoryview(text)
                    while view:
                        view = view[os.write(descriptor, view) :]
                except OSError:
                    os.ftruncate(descriptor, begin)  # half a line would spoil the next one
                    raise
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ServingError(Kind.UNAVAILABLE, f"{self._path} cannot be written: {error.strerror}") from error

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def _put_aside(self) -> None:
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{number}") for number in range(1, self._keep + 1))]
        with contextlib.suppress(FileNotFoundError):
            names[-1].unlink()
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            with contextlib.suppress(FileNotFoundError):
                newer.rename(older)


class Web:
    """POST of each record, or batch, as one JSON object. Any 2xx is a receipt; 5xx, 408, 425 and 429 are asked again, the rest refuses."""

    def __init__(self, place: Place, policy: FetchPolicy) -> None:
        self._place = place
        self._policy = policy
        self._records: Sequence[Record] = ()
        self._answers: list[bool | None] = []
        """Of those: whether each was taken, or None when that is not known yet."""

    async def send(self, records: Sequence[Record]) -> Sequence[Record]:
        if records is not self._records:
            self._records, self._answers = records, [None] * len(records)
        room = asyncio.Semaphore(_AT_ONCE)

        async def one(index: int) -> None:
            async with room:
                self._answers[index] = await self._post(records[index])

        left = [one(index) for index, taken in enumerate(self._answers) if taken is None]
        for failed in await asyncio.gather(*left, return_exceptions=True):
            if failed is not None:
                raise failed
        self._records = ()
        return [record for record, taken in zip(records, self._answers, strict=True) if not taken]

    async def flush(self) -> None:
        """Nothing is held."""

    async def close(self) -> None:
        """Each record has a connection of its own."""

    async def _post(self, record: Record) -> bool:
        """Whether it was taken. Raises for what may be sent again."""
        status = await post(self._place.url, orjson.dumps(record), self._policy)
        if status >= 500 or status in _TRY_AGAIN:
            raise ServingError(Kind.UNAVAILABLE, f"{self._place.shown} answers {status}")
        return 200 <= status < 300
