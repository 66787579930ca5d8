"""Serve registered models: one version by one call, or a whole model by a policy. Called by the dialects, and by the catalog when it changes.

Everything here is a wish that outlives the server. Which versions exist and how they are called is the catalog's business; this reads it.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import Policy, PolicyKind, State, choose, version_order
from dragoman.core.model import EMPTY
from dragoman.serving.gateway import Gateway
from dragoman.serving.late_store import LateStore
from dragoman.serving.registry import Registry
from dragoman.serving.wishes import Document, earlier_stages, entry, failed_of, policy_json, policy_of, versions_of
from dragoman.store import StoredVersion, Wish

log = logging.getLogger("dragoman.models")

SERVED_STAGE = "Production"
IDLE_STAGE = "None"
_NO_STAGES = frozenset({"", IDLE_STAGE, "Archived"})
"""Stages that nobody asks for a version by."""
_ROUNDS = 10
"""How often a wish is made anew because the catalog changed meanwhile."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One version that is served, is about to be, or could not be."""

    model: str
    version: str
    state: State
    reason: str = ""
    stage: str = ""


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the catalog has of one model, as far as it matters for serving it."""

    revisions: Mapping[str, str]
    """Version -> what tells its content from any other that has had its name."""
    stages: Mapping[str, str]
    aliases: Mapping[str, str]
    exists: bool

    def restaged(self, stages: Mapping[str, str]) -> "_Facts":
        return replace(self, stages={**self.stages, **stages})


_Choice = Callable[[Document], Policy]
"""From the document that stands to the policy of the next one."""


class Deployments:
    """Make it on the event loop; `close` before the registry's watch ends."""

    def __init__(self, store: LateStore, registry: Registry, gateway: Gateway) -> None:
        self._store = store
        self._registry = registry
        self._gateway = gateway
        self._following: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Stop waiting for what follows the catalog; the wishes stand."""
        for task in list(self._following):
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)

    @property
    def following(self) -> int:
        """How many models are on their way to what the catalog says since it changed."""
        return len(self._following)

    # --- what users ask ---

    async def serve(self, model: str, version: str, *, stage: str | None = SERVED_STAGE) -> None:
        """Serve one more registered version beside the others; returns when every worker has it ready. Asking again changes nothing.

        It gets the stage in the same moment, None leaves the one that it has.

        Raises NOT_FOUND (what="model" or "version"), CONFLICT for a version that a target of the command line has, UNAVAILABLE (what="load")
        with the reason; then the version is not wanted, and has the stage that it had.
        """
        facts = await self._facts(model)
        _check_known(facts, model, version)
        self._refuse_targets(model, (version,))

        def choice(standing: Document) -> Policy:
            policy = policy_of(standing)
            named = (*(v for v in policy.versions if v != version), version)
            return replace(policy, versions=named)

        stages = {} if stage is None else {version: stage}
        await self._deploy(model, choice, stages, required=(version,), forget=(version,))

    async def stop(self, model: str, version: str, *, stage: str = IDLE_STAGE) -> None:
        """Serve a registered version no longer, whether it was or not; returns when no worker answers for it. Requests in flight finish.

        Raises NOT_FOUND as `serve` does, CONFLICT for a version that a target of the command line has.
        """
        _check_known(await self._facts(model), model, version)
        self._refuse_targets(model, (version,))

        def choice(standing: Document) -> Policy:
            policy = policy_of(standing)
            left = [v for v in versions_of(standing) if v != version]
            if policy.kind is not PolicyKind.SPECIFIC and (version in versions_of(standing) or version in failed_of(standing)):
                return Policy(versions=tuple(left))  # whoever takes one out by hand chooses by hand
            return replace(policy, versions=tuple(v for v in policy.versions if v != version))

        await self._deploy(model, choice, {version: stage}, forget=(version,))

    async def deploy(self, model: str, policy: Policy) -> None:
        """Serve the versions that a policy chooses, and no others; returns when every worker has them ready.

        Raises NOT_FOUND for an unknown model, one without versions, or a version that the policy names and that does not exist; else as `serve`.
        """
        facts = await self._facts(model)
        for version in policy.versions:
            _check_known(facts, model, version)
        chosen = choose(policy, facts.revisions)
        if not chosen:
            what = "version" if facts.exists else "model"
            raise ServingError(Kind.NOT_FOUND, f"model '{model}' is not registered, or has no version to serve", what=what)
        self._refuse_targets(model, chosen)
        await self._deploy(model, lambda _: policy, required=chosen, forget=facts.revisions)

    async def undeploy(self, model: str) -> None:
        """Serve nothing of a registered model any more. Raises NOT_FOUND for one that is neither registered nor deployed."""
        facts = await self._facts(model)
        if not facts.exists and not self._registry.document(model):
            raise ServingError(Kind.NOT_FOUND, f"there is no model '{model}' in the registry", what="model")
        wish = await self._registry.wish(model, lambda standing: None if standing is None else {})
        await self._registry.settled(model, wish.generation)

    async def follow(self, model: str) -> None:
        """The catalog has changed: choose anew, by the policy that stands. Returns when that is wished for; loading goes on by itself.

        What the catalog does not have any more is not served any more.
        """
        task = asyncio.get_running_loop().create_task(self._follow(model, wished := asyncio.Event()))
        self._following.add(task)
        task.add_done_callback(self._following.discard)
        waiting = asyncio.ensure_future(wished.wait())
        try:
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if task.cancelled():
            raise ServingError(Kind.UNAVAILABLE, "the server is shutting down")
        if task.done():
            task.result()

    async def version_of(self, model: str, text: str = "") -> str | None:
        """The registered version that a number, an alias or a stage means, the highest for ""; None when the model is not registered.

        Raises NOT_FOUND (what="version") for a model that has none of that name.
        """
        if await self._store.existing() is None:
            return None
        facts = await self._facts(model)
        if not facts.exists:
            return None
        ordered = sorted(facts.revisions, key=version_order)
        found = [v for v in ordered if text in ("", v)] or [v for v in ordered if facts.aliases.get(text) == v or facts.stages[v] == text]
        if not found:
            _check_known(facts, model, text)
        return found[-1]

    async def registered(self, limit: int) -> list[str]:
        """Names of registered models, loaded or not, up to so many."""
        store = await self._store.existing()
        return [] if store is None else [model.name for model in await store.models()][:limit]

    # --- what is so ---

    def deployed(self) -> list[Deployment]:
        """Every version that is wanted for ever and those that failed, of registered models and of folders of the model roots.

        By name, the highest version first.
        """
        found = []
        for name in self._registry.names():
            document = self._registry.document(name)
            statuses = {status.version: status for status in self._gateway.statuses(name)}
            rows: dict[str, Deployment] = {}
            for version, reason in failed_of(document).items():
                rows[version] = Deployment(name, version, State.FAILED, reason)
            for version, each in versions_of(document).items():
                status = statuses.get(version)
                state, reason = (State.LOADING, "") if status is None or status.state is State.GONE else (status.state, status.reason)
                rows[version] = Deployment(name, version, state, reason, each.get("stage", ""))
            found += [rows[version] for version in sorted(rows, key=version_order, reverse=True)]
        return found

    def serving(self, model: str, version: str = "") -> bool:
        """Whether a version of a model, or any, is wanted here or still answers, under whatever name: then its files are needed."""
        desired = self._registry.desired(model)
        wanted: Collection[str] = desired.versions if desired is not None else ()
        answering = {e.version for e in self._gateway.entries() if e.name == model}
        if bool(wanted or answering) if not version else version in wanted or version in answering:
            return True
        documents = (self._registry.document(name) for name in self._registry.names())
        origins = (each["origin"] for document in documents for each in versions_of(document).values())
        return any(origin.get("model") == model and version in ("", origin.get("version")) for origin in origins)

    # --- how ---

    async def _facts(self, model: str) -> _Facts:
        store = await self._store.get()
        versions = await store.versions(model)
        aliases = {alias: version for (_, alias), version in (await store.aliases(model)).items()}
        return _Facts(
            {v.version: revision_of(v) for v in versions},
            {v.version: v.stage for v in versions},
            aliases,
            bool(versions) or await store.model(model) is not None,
        )

    def _refuse_targets(self, model: str, versions: Collection[str]) -> None:
        for version in versions:
            if version in self._registry.fixed(model):
                message = f"version {version} of model '{model}' is served as a target of this server's command line"
                raise ServingError(Kind.CONFLICT, f"{message}; it cannot be deployed or undeployed", what="version")

    async def _deploy(
        self,
        model: str,
        choice: _Choice,
        stages: Mapping[str, str] = EMPTY,
        *,
        required: Collection[str] = (),
        forget: Collection[str] = (),
        wished: asyncio.Event | None = None,
    ) -> None:
        """Wish for what is chosen, and go on until the catalog is what it was chosen from. `forget`: versions whose failures count no more."""
        for _ in range(_ROUNDS):
            facts = await self._facts(model)
            known = {version: stage for version, stage in stages.items() if version in facts.stages}
            await self._registry.deploy(
                model,
                partial(_rewritten, model, facts, facts.restaged(known), choice, frozenset(forget), over=bool(required)),
                stages={(model, version): stage for version, stage in known.items()},
                required=required,
                wished=wished,
            )
            if await self._facts(model) == facts.restaged(known):
                return
            # What was asked for is done; whatever others have wished since counts, and only the catalog is followed.
            choice, stages, required, forget = policy_of, EMPTY, (), ()
        log.warning("model '%s' is changed in the registry all the time; what is served may lag behind", model)

    async def _follow(self, model: str, wished: asyncio.Event) -> None:
        try:
            await self._deploy(model, policy_of, wished=wished)
        except ServingError as error:
            if not wished.is_set():
                raise
            log.error("model '%s' does not follow the registry: %s", model, error.message)  # noqa: TRY400 # the reason is all there is


def _check_known(facts: _Facts, model: str, version: str) -> None:
    if not facts.exists:
        raise ServingError(Kind.NOT_FOUND, f"there is no model '{model}' in the registry", what="model")
    if version not in facts.revisions:
        have = ", ".join(sorted(facts.revisions, key=version_order)) or "none"
        raise ServingError(Kind.NOT_FOUND, f"model '{model}' has no version '{version}'; it has {have}", what="version")


def _rewritten(
    model: str, facts: _Facts, restaged: _Facts, choice: _Choice, forget: frozenset[str], standing: Wish | None, *, over: bool
) -> Document | None:
    """The next document, None for the one that stands. One of a folder below a root is not the catalog's: it is replaced only when `over`."""
    before = {} if standing is None else dict(standing.document)
    if versions_of(before) and "policy" not in before and not over:
        return None
    # What others have asked for has its new stage only until it has failed: that it had another one, the document knows.
    known = earlier_stages(before)
    was = {v: stage if (stage := facts.stages[v]) != new else known.get(v) for v, new in restaged.stages.items()}
    after = _composed(model, before, restaged, choice(before), forget, was)
    return None if after == before and restaged == facts else after


def _composed(
    model: str, before: Document, facts: _Facts, policy: Policy, forget: Collection[str], was: Mapping[str, str | None]
) -> Document:
    """The document by which a policy is followed. A version that has failed is left out, until it is another, or named, or to be forgotten."""
    failed = {
        version: each
        for version, each in before.get("failed", {}).items()
        if facts.revisions.get(version) == each["revision"] and version not in policy.versions and version not in forget
    }
    chosen = choose(policy, [version for version in facts.revisions if version not in failed])
    policy = replace(policy, versions=tuple(version for version in policy.versions if version in facts.revisions))
    if not facts.exists or (not chosen and not failed and policy.kind is PolicyKind.SPECIFIC):
        return {}
    stages = {version: "" if facts.stages[version] in _NO_STAGES else facts.stages[version] for version in chosen}
    labels = {stage: version for version, stage in sorted(stages.items(), key=lambda item: version_order(item[0])) if stage}
    return {
        "versions": {v: entry(facts.revisions[v], {"model": model, "version": v}, stages[v], was[v]) for v in chosen},
        "labels": labels | {alias: version for alias, version in facts.aliases.items() if version in stages},
        "policy": policy_json(policy),
        "failed": failed,
        **({"again": before["again"]} if "again" in before else {}),
    }


def revision_of(stored: StoredVersion) -> str:
    """Tells this content of a version from any other that has had its name."""
    facts = [stored.digest, stored.created, stored.kind, stored.folder, stored.source, dict(stored.spec)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:20]
