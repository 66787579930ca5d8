"""Documents of wishes: what is stored about the versions of one model that should be served. Pure; called by the registry and what deploys.

    {"versions": {"3": {"revision": "..", "origin": {..}, "stage": "..", "was": ".."}}, "labels": {"champion": "3"},
     "policy": {"kind": "latest", "count": 2, "versions": []}, "failed": {"4": {"revision": "..", "reason": "..", "was": ".."}}}

`was` is the stage that a version gets again when it does not load.
`{}` is nothing. `{"fixed": true}`, in wishes of one run of a server only, stands for its targets as its command line names them; with
`"model": {..}` beside it (see model_config.py), for what every worker then finds by that.
"""

from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

from dragoman.core.lifecycle import Policy, PolicyKind, Wanted
from dragoman.core.model import EMPTY
from dragoman.store import Wish

Document: TypeAlias = Mapping[str, Any]

FIXED: Document = {"fixed": True}


def model_of(document: Document) -> Mapping[str, Any] | None:
    """The configuration by which each worker is to look for the model, where the wish is one."""
    model: Mapping[str, Any] | None = document.get("model")
    return model


def entry(revision: str, origin: Mapping[str, Any], stage: str = "", was: str | None = None) -> dict[str, Any]:
    """What a document says of one version."""
    stages = {"stage": stage or None, "was": was}
    return {"revision": revision, "origin": dict(origin), **{key: value for key, value in stages.items() if value is not None}}


def versions_of(document: Document) -> Mapping[str, Mapping[str, Any]]:
    versions: Mapping[str, Mapping[str, Any]] = document.get("versions", {})
    return versions


def wanted_of(document: Document) -> dict[str, Wanted]:
    return {version: Wanted(each["revision"], None, each["origin"]) for version, each in versions_of(document).items()}


def labels_of(document: Document) -> dict[str, str]:
    return dict(document.get("labels", {}))


def failed_of(document: Document) -> dict[str, str]:
    """Version -> reason, of those that were withdrawn because they did not load."""
    return {version: each["reason"] for version, each in document.get("failed", {}).items()}


def earlier_stages(document: Document) -> dict[str, str]:
    """Version -> the stage that it had before somebody asked for it, of those that were asked for or have failed."""
    known = {**document.get("failed", {}), **versions_of(document)}
    return {version: each["was"] for version, each in known.items() if "was" in each}


def policy_of(document: Document) -> Policy:
    """The policy by which the versions were chosen; that of nothing for a document without one, which is not of registered versions."""
    stored = document.get("policy")
    if stored is None:
        return Policy()
    return Policy(PolicyKind(stored["kind"]), stored.get("count", 1), tuple(stored.get("versions", ())))


def policy_json(policy: Policy) -> dict[str, Any]:
    return {"kind": policy.kind.value, "count": policy.count, "versions": list(policy.versions)}


def brought(before: Document, after: Document) -> set[str]:
    """The versions that a wish asks for and the one before it did not, in this revision."""
    known = {version: each["revision"] for version, each in versions_of(before).items()}
    return {version for version, each in versions_of(after).items() if known.get(version) != each["revision"]}


def standing_of(wish: Wish | None, versions: Collection[str], mine: Document) -> set[str]:
    """Which of these versions of the document `mine` are still wished for as it says."""
    document = EMPTY if wish is None else wish.document
    return set(versions) - brought(document, {"versions": {v: versions_of(mine)[v] for v in versions}})


def withdrawn(standing: Wish, mine: Wish, before: Document, failures: Mapping[str, str]) -> Document:
    """The document that `standing` becomes when versions that `mine` had brought did not load.

    It is the one before `mine`, as long as nobody has wished since. Otherwise the failed versions are taken out, and those that `mine` had
    left out are taken in again: what was wished since was made of `mine`, and must not be left with nothing. The reasons are kept.
    """
    tried = versions_of(mine.document)
    failed = {
        version: {"reason": reason, **{key: tried[version][key] for key in ("revision", "was") if key in tried[version]}}
        for version, reason in failures.items()
    }
    if standing.generation == mine.generation:
        base = dict(before)
    else:
        left = {version: each for version, each in versions_of(standing.document).items() if version not in failed}
        again = {version: each for version, each in versions_of(before).items() if version not in versions_of(mine.document)}
        base = {**standing.document, "versions": {**again, **left}}
        if "policy" in base:
            policy = policy_of(base)
            base["policy"] = policy_json(Policy(policy.kind, policy.count, tuple(v for v in policy.versions if v not in failed)))
    labels = {label: version for label, version in labels_of(base).items() if version in versions_of(base)}
    kept = {version: each for version, each in base.get("failed", {}).items() if version not in versions_of(base)}
    failed = {version: each for version, each in failed.items() if version not in versions_of(base)}
    return {**base, "labels": labels, "failed": {**kept, **failed}}


def tried_again(standing: Wish | None) -> Document | None:
    """The same wish as a new one, so that every worker tries again what it could not load."""
    return None if standing is None else {**standing.document, "again": standing.document.get("again", 0) + 1}
