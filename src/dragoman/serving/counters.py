"""Where counters live: fixed slots of 64-bit words in memory that any process can read while one writes. Used by serving/meters.py only.

A worker owns its segments (files, or anonymous memory) and is the only one that writes them; readers copy with plain reads, never by mapping
a file that could shrink under them. A slot becomes visible when `used` in the header grows; its key carries a checksum, so a slot that was
cut off half-way is skipped. Files of workers that ended stay and go on counting.
"""

import json
import logging
import mmap
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TypeAlias
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from dragoman.core.errors import Kind

log = logging.getLogger("dragoman")

Key: TypeAlias = tuple[str, str, str]
"""(model, version, dialect); the dialect is "" for what is counted per version."""
Words: TypeAlias = NDArray[np.int64]

ROUND_NS = (*(n * 10**exponent for exponent in range(3, 9) for n in (10, 25, 50)), 10 * 10**9, 30 * 10**9, 60 * 10**9)
"""The bounds of our own latency histograms: 1, 2.5 and 5 of each decade from 10 us, up to a minute."""
TFSERVING_NS = tuple(10_000 * 9**n // 5**n for n in range(33))
"""TensorFlow Serving's bounds, 10 us x 1.8^n. Cut to whole nanoseconds, which changes no count: times are whole too."""
BOUNDS_NS = tuple(sorted({*ROUND_NS, *TFSERVING_NS}))
"""What is counted: both sets at once, so that either histogram comes out exact. Bin i holds times up to and including BOUNDS_NS[i]."""
BINS = len(BOUNDS_NS) + 1
KINDS = tuple(Kind)

EXACT_SIZES = 64
SIZES = EXACT_SIZES + 1 + 13
"""Batch sizes 0 to 64 have a record each; larger ones share one per power of two, the last with everything above."""

# Words of a slot.
_KEY_WORDS = 192
_KEY_BYTES = (_KEY_WORDS - 2) * 8
FAIL_NS = _KEY_WORDS
PENDING = FAIL_NS + 1
READY = FAIL_NS + 2
"""0 says nothing, 1 not ready, 2 ready."""
TALLIES = FAIL_NS + 3
FAILURES = FAIL_NS + 16
REQUEST = FAILURES + 16
QUEUE = REQUEST + BINS
COMPUTE = QUEUE + BINS
RECORD_WORDS = 8
RECORDS = -(-(COMPUTE + BINS) // RECORD_WORDS) * RECORD_WORDS
FOLLOWERS = SIZES
"""Index of the record behind those of the sizes: members of a batch that do not stand for its run, and what requests of several parts have
beside the runs that they led."""
SLOT_WORDS = 1024
SLOT_BYTES = SLOT_WORDS * 8
SLOTS = 128

# Words of a record, in the order in which they are written. The last three need no writing while they stay zero.
COUNT, TOOK, ROWS, INFER, LAST, WAITED, INPUT, OUTPUT = range(RECORD_WORDS)

_HEADER_BYTES = 4096
_HEADER = struct.Struct("=8s10q")
_MAGIC = b"DRGMTR\x00\x01"
_SIZE = _HEADER_BYTES + SLOTS * SLOT_BYTES
# Words of the header behind the magic.
_H_SLOT, _H_USED, _H_WORKER, _H_INDEX, _H_SEEN, _H_EPOCH, _H_MEMORY, _H_CPU, _H_STARTED = range(1, 10)

assert RECORDS + (SIZES + 1) * RECORD_WORDS <= SLOT_WORDS, "a slot is too small for its counters"
assert len(KINDS) <= REQUEST - FAILURES, "a slot is too small for the kinds of failure"


class Tally(Enum):
    """What is counted of a model as a whole, in the slot without version and dialect. The words follow each other from TALLIES."""

    SUCCEEDED = "succeeded"
    """Predictions that ended so, as the next two."""
    FAILED = "failed"
    CANCELLED = "cancelled"
    RESTARTS = "restarts"
    """Processes of the model that were started in the place of one that died."""
    RECORDED = "recorded"
    """Tracking records that arrived where they were to go (records/writer.py)."""
    UNRECORDED = "unrecorded"
    """Those that were dropped."""


assert len(Tally) <= FAILURES - TALLIES, "a slot is too small for the tallies"


def place(size: int) -> int:
    """The record of a batch size."""
    if size <= EXACT_SIZES:
        return size
    return min(EXACT_SIZES + (size - 1).bit_length() - EXACT_SIZES.bit_length() + 1, SIZES - 1)


def size_at(index: int) -> int:
    """The batch size that a record stands for: its own, or the power of two that bounds it."""
    return index if index <= EXACT_SIZES else EXACT_SIZES << (index - EXACT_SIZES)


@dataclass(frozen=True, slots=True)
class Vitals:
    """How a worker process is. Memory 0: this platform does not say."""

    memory_bytes: int
    cpu_ns: int


@dataclass(frozen=True, slots=True)
class Image:
    """A copy of one segment. `epoch_ns` added to a monotonic time gives the time since 1970; `seen_ns` is 0 after a clean end."""

    worker: int
    index: int
    seen_ns: int
    epoch_ns: int
    started_ns: int
    vitals: Vitals
    slots: tuple[tuple[Key, Words], ...]


class Segment:
    """Memory for SLOTS slots. `directory` None keeps it to this process."""

    def __init__(self, directory: Path | None, worker: int, index: int) -> None:
        self.memory = _shared(directory, worker, index) if directory is not None else mmap.mmap(-1, _SIZE)
        self.words = memoryview(self.memory).cast("q")
        self.used = 0
        now = time.monotonic_ns()
        header = (SLOT_BYTES, 0, worker, index, now, time.time_ns() - now, 0, 0, time.time_ns(), 0)
        _HEADER.pack_into(self.memory, 0, _MAGIC, *header)

    @property
    def full(self) -> bool:
        return self.used == SLOTS

    def add(self, key: Key) -> int:
        """Make a slot and return the index of its first word. Its counters are zero."""
        at = _HEADER_BYTES + self.used * SLOT_BYTES
        encoded = _encode(key)
        self.memory[at + 16 : at + 16 + len(encoded)] = encoded
        self.words[at // 8] = len(encoded)
        self.words[at // 8 + 1] = crc32(encoded)
        self.used += 1
        self.words[_H_USED] = self.used
        return at // 8

    def beat(self, now_ns: int, vitals: Vitals) -> None:
        """Say that the owner lives. 0 says that it has ended."""
        self.words[_H_SEEN] = now_ns
        self.words[_H_MEMORY] = vitals.memory_bytes
        self.words[_H_CPU] = vitals.cpu_ns

    def image(self) -> Image | None:
        return _scan(bytes(self.memory[: _HEADER_BYTES + self.used * SLOT_BYTES]))


def images(directory: Path) -> Iterator[Image]:
    """Every segment of every worker, dead or alive, in the order of their names. What cannot be read as one is left out."""
    for path in sorted(directory.glob("*.counters")):
        try:
            with path.open("rb") as file:
                header = file.read(_HEADER_BYTES)
                used = _HEADER.unpack_from(header)[_H_USED] if len(header) == _HEADER_BYTES else 0
                image = _scan(header + file.read(min(max(used, 0), SLOTS) * SLOT_BYTES))
        except OSError as error:
            log.warning("the counters in %s cannot be read: %s", path.name, error.strerror)
            continue
        if image is not None:
            yield image


def _shared(directory: Path, worker: int, index: int) -> mmap.mmap:
    """Memory behind a new file. Its blocks are reserved: writing to a hole of a full disk would kill the process."""
    number = index
    while True:
        try:
            descriptor = os.open(directory / f"worker-{worker}-{number}.counters", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            break
        except FileExistsError:
            number += 1
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, _SIZE)
        else:
            os.ftruncate(descriptor, _SIZE)
        return mmap.mmap(descriptor, _SIZE)
    finally:
        os.close(descriptor)


def _encode(key: Key) -> bytes:
    """The key as JSON that fits its place; names too long for that are cut."""
    encoded = json.dumps(key, ensure_ascii=False).encode("utf-8", "surrogatepass")
    longest = _KEY_BYTES
    while len(encoded) > _KEY_BYTES:
        longest //= 2
        encoded = json.dumps([part[:longest] for part in key], ensure_ascii=False).encode("utf-8", "surrogatepass")
    return encoded


def _scan(data: bytes) -> Image | None:
    if len(data) < _HEADER_BYTES:
        return None
    header = _HEADER.unpack_from(data)
    if header[0] != _MAGIC or header[_H_SLOT] != SLOT_BYTES:
        return None
    slots: list[tuple[Key, Words]] = []
    for i in range(min(max(header[_H_USED], 0), (len(data) - _HEADER_BYTES) // SLOT_BYTES)):
        at = _HEADER_BYTES + i * SLOT_BYTES
        words = np.frombuffer(data, np.int64, SLOT_WORDS, at)
        key = _key(data, at, words)
        if key is not None:
            slots.append((key, words))
    return Image(
        worker=header[_H_WORKER],
        index=header[_H_INDEX],
        seen_ns=header[_H_SEEN],
        epoch_ns=header[_H_EPOCH],
        started_ns=header[_H_STARTED],
        vitals=Vitals(header[_H_MEMORY], header[_H_CPU]),
        slots=tuple(slots),
    )


def _key(data: bytes, at: int, words: Words) -> Key | None:
    length = int(words[0])
    if not 0 < length <= _KEY_BYTES:
        return None
    encoded = data[at + 16 : at + 16 + length]
    if crc32(encoded) != words[1]:
        return None
    try:
        parts = json.loads(encoded.decode("utf-8", "surrogatepass"))
    except ValueError:
        return None
    match parts:
        case [str(model), str(version), str(dialect)]:
            return model, version, dialect
    return None
