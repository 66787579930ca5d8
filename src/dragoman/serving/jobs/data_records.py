"""Records of data sets and their versions, and how they are written as documents of the store. Pure; called by data_sets.py."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum, unique
from typing import Any

DATA_SET, VERSION = "floyd_dataset", "floyd_data"
"""Kinds of documents. The group of a set is its owner, that of a version its set."""


@unique
class DataState(Enum):
    WAITING = "waiting"
    """For its upload, or for the rest of it."""
    UNPACKING = "unpacking"
    VALID = "valid"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class DataSet:
    """What versions are numbered in. Its id follows from its name, so that two look-ups at once make one."""

    id: str
    owner: str
    name: str
    created: float
    last: int = 0
    """The highest number that a version of it got."""
    description: str = ""
    public: bool = False

    @property
    def full_name(self) -> str:
        return f"{self.owner}/datasets/{self.name}"


@dataclass(frozen=True, slots=True)
class DataVersion:
    """One version: files that never change. Its id is also that of its upload, and what names it in a job's Mount."""

    id: str
    number: int
    owner: str
    data_set: str
    """Name of the set."""
    data_set_id: str
    created: float
    """Seconds since the epoch."""
    description: str = ""
    public: bool = False
    state: DataState = DataState.WAITING
    reason: str = ""
    """Why it is INVALID."""
    size: int = 0
    """Bytes of its files, once it is VALID."""
    files: int = 0
    length: int = -1
    """Bytes of its upload, -1 before that was announced."""
    token: str = ""
    """SHA-256 of the upload's password."""
    folder: str = ""
    """A folder of the server that is named instead of copied, "" where the files are ours."""
    title: str = ""
    """What it is called where it belongs to no data set: a job's output, a folder of the server."""
    place: str = ""

    @property
    def name(self) -> str:
        return self.title or f"{self.owner}/datasets/{self.data_set}/{self.number}"


def data_set_id(owner: str, name: str) -> str:
    return hashlib.sha256(f"{owner}/datasets/{name}".encode()).hexdigest()[:22]


def version_document(version: DataVersion) -> dict[str, Any]:
    return {**asdict(version), "state": version.state.value}


def read_version(document: Mapping[str, Any]) -> DataVersion:
    return DataVersion(**{**document, "state": DataState(document["state"])})


def size_text(size: int) -> str:
    """Bytes for people: `0 B`, `12.3 MB`."""
    amount, unit = float(size), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{int(amount)} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
