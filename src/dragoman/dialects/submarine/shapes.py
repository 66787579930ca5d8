"""Records of the registry as Submarine shows them. Called by the handlers of this folder."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from dragoman.core.lifecycle import State
from dragoman.serving.deployments import Deployment
from dragoman.store import RegisteredModel, StoredVersion

NO_STAGE = "None"


def model(record: RegisteredModel) -> dict[str, Any]:
    return {
        "modelId": record.number,
        "name": record.name,
        "creationTime": moment(record.created),
        "lastUpdatedTime": moment(record.updated or record.created),
        "description": record.description or None,
        "tags": words(record.tags),
    }


def version(record: StoredVersion) -> dict[str, Any]:
    facts = record.facts
    return {
        "modelVersionId": record.number,
        "name": record.model,
        "version": number(record.version),
        "id": facts.get("id") or _made_up(record),
        "userId": facts.get("user_id"),
        "experimentId": facts.get("experiment_id"),
        "modelType": facts.get("model_type") or record.kind or None,
        "currentStage": record.stage or NO_STAGE,
        "creationTime": moment(record.created),
        "lastUpdatedTime": moment(record.updated or record.created),
        "dataset": facts.get("dataset"),
        "description": record.description or None,
        "tags": words(record.tags),
    }


def _made_up(record: StoredVersion) -> str:
    """32 hexadecimal digits for a version whose files have none: always the same, also under a new name of its model."""
    return blake2b(f"{record.number} {record.created!r}".encode(), digest_size=16).hexdigest()


def deployment(record: Deployment, url: str) -> dict[str, Any]:
    """One version that is served, or should be; the original never listed these."""
    return {
        "modelName": record.model,
        "modelVersion": number(record.version),
        "state": record.state.value,
        "reason": record.reason or None,
        "currentStage": record.stage or NO_STAGE,
        "url": url if record.state is State.READY else None,
    }


def words(tags: Mapping[str, str]) -> list[str]:
    """Tags as a list: a word, or key=value for one that has a value (MLflow's)."""
    return [word(key, value) for key, value in tags.items()]


def word(key: str, value: str) -> str:
    return f"{key}={value}" if value else key


def key_of(tag: str, tags: Iterable[tuple[str, str]]) -> str:
    """The key of the tag that is shown so; the tag itself where none is."""
    return next((key for key, value in tags if word(key, value) == tag), tag)


def number(digits: str) -> int | str:
    """A version as the number that it is; those that another face of the registry named otherwise stay texts."""
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 18 else digits


def moment(seconds: float) -> str:
    """`yyyy-MM-dd HH:mm:ss`, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
