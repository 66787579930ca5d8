"""Registered models and versions as MLflow's API shows them, and how it writes values. Pure; called by whoever answers in this folder.

Times are milliseconds since the epoch, versions are text, tags are lists of {key, value}. A field without a value is left out, as MLflow's
own server leaves it out.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dragoman.serving.catalog import newest_by_stage
from dragoman.store import RegisteredModel, StoredVersion

NO_STAGE = "None"


def model_record(model: RegisteredModel, versions: Sequence[StoredVersion], aliases: Mapping[str, str]) -> dict[str, Any]:
    """A registered model; `versions` are all of its versions, `aliases` all of its aliases with their versions."""
    return filled(
        name=model.name,
        creation_timestamp=milliseconds(model.created),
        last_updated_timestamp=milliseconds(model.updated or model.created),
        description=model.description,
        latest_versions=[version_record(version, aliases) for version in latest(versions)],
        tags=pairs(model.tags),
        aliases=[{"alias": alias, "version": version} for alias, version in aliases.items()],
    )


def version_record(version: StoredVersion, aliases: Mapping[str, str]) -> dict[str, Any]:
    """A version with the aliases among these that point at it."""
    facts = version.facts
    return filled(
        name=version.model,
        version=version.version,
        creation_timestamp=milliseconds(version.created),
        last_updated_timestamp=milliseconds(version.updated or version.created),
        user_id=facts.get("user_id", ""),
        current_stage=stage_of(version),
        description=version.description,
        source=version.source,
        run_id=facts.get("run_id", ""),
        run_link=facts.get("run_link", ""),
        model_id=facts.get("model_id", ""),
        status="READY",
        tags=pairs(version.tags),
        aliases=[alias for alias, points_at in aliases.items() if points_at == version.version],
    )


def latest(versions: Iterable[StoredVersion]) -> list[StoredVersion]:
    """The highest version of each stage."""
    best = newest_by_stage(versions)
    return [best[stage] for stage in sorted(best)]


def stage_of(version: StoredVersion) -> str:
    return version.stage or NO_STAGE


def number_of(version: StoredVersion) -> int:
    """What searches compare: versions that were built may have names that are no numbers."""
    return int(version.version) if version.version.isascii() and version.version.isdigit() else 0


def milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def number(value: float) -> float | str:
    """A number as protocol buffers write it in JSON, which has no words for those that are not finite."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def filled(**fields: Any) -> dict[str, Any]:
    """The fields that have a value."""
    return {name: value for name, value in fields.items() if value not in ("", [])}
