"""Records of projects and jobs, and how they are written as documents of the store. Pure; called by kept.py and service.py."""

import hashlib
import math
import re
import secrets
import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dragoman.core.errors import invalid
from dragoman.core.jobs import Job, Limits, Mode, Mount, Phase
from dragoman.serving.settings import quoted

JOB, PROJECT = "job", "floyd_project"
"""Kinds of documents."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_LETTERS = string.ascii_letters + string.digits
_ID_LENGTH = 22
"""Letters and digits: 131 bits."""


@dataclass(frozen=True, slots=True)
class Project:
    """What jobs are numbered in. Its id follows from its name, so that two look-ups at once make one project."""

    id: str
    owner: str
    name: str
    created: float
    last: int = 0
    """The highest number that a job of it got."""
    description: str = ""
    public: bool = False
    deleted_s: float = 0.0
    """Seconds of running of the jobs that were deleted: who counts them counts all."""
    deleted_calls: int = 0

    @property
    def full_name(self) -> str:
        return f"{self.owner}/projects/{self.name}"


def new_id() -> str:
    """Of a job or an endpoint: nobody can guess it, and it is safe in paths, URLs and command lines."""
    return "".join(secrets.choice(_LETTERS) for _ in range(_ID_LENGTH))


def project_id(owner: str, name: str) -> str:
    return hashlib.sha256(f"{owner}/projects/{name}".encode()).hexdigest()[:_ID_LENGTH]


def check_name(name: str, what: str) -> str:
    """The name of a project, a data set or their owner. Raises INVALID_INPUT."""
    if not _NAME.fullmatch(name):
        raise invalid(f"{what} is {quoted(name)}, expected up to 64 letters, digits, '-', '_' and '.', not beginning with '-' or '.'", what)
    return name


def project_document(project: Project) -> dict[str, Any]:
    return asdict(project)


def read_project(document: Mapping[str, Any]) -> Project:
    return Project(**document)


def job_document(job: Job) -> dict[str, Any]:
    """JSON has no infinity: what is without limit is null."""
    document = asdict(job)
    document["mode"], document["phase"] = job.mode.value, job.phase.value
    document["limits"] = {name: None if value == math.inf else value for name, value in asdict(job.limits).items()}
    return document


def read_job(document: Mapping[str, Any]) -> Job:
    limits: dict[str, Any] = {name: math.inf if value is None else value for name, value in document["limits"].items()}
    return Job(
        **{
            **document,
            "mode": Mode(document["mode"]),
            "phase": Phase(document["phase"]),
            "mounts": tuple(Mount(**each) for each in document["mounts"]),
            "limits": Limits(**limits),
        }
    )
