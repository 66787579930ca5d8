"""Our own API to the registry, below /dragoman/v1: what is registered, what is deployed, and changes to both. Called by routes.py.

    GET    /dragoman/v1/registry                       models, their versions, aliases and states
    GET    /dragoman/v1/registry/NAME                  one of them
    POST   /dragoman/v1/registry/NAME                  {"source": ..., "description"?, "aliases"?: [...]}: a new version
    GET    /dragoman/v1/deployments                    what is deployed, with states
    POST   /dragoman/v1/deployments/NAME               {"versions": "latest" | "latest:2" | "all" | ["1", "3"]}, by default "latest"
    POST   /dragoman/v1/deployments/NAME/VERSION       one version beside the others
    DELETE /dragoman/v1/deployments/NAME[/VERSION]

Calls that deploy answer when every worker serves what was asked for.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.lifecycle import Policy, PolicyKind
from dragoman.dialects import Access, Answer, Request, Route, Services
from dragoman.dialects.documents import json_object
from dragoman.serving.deployments import Deployment
from dragoman.serving.words import check_alias
from dragoman.store import RegisteredModel, StoredVersion

PATHS = ("/dragoman/v1/registry", "/dragoman/v1/deployments")
_LATEST = re.compile(r"latest(?::([1-9][0-9]{0,3}))?")
_VERSIONS = "'latest', 'latest:N', 'all' or a list of version numbers"

Json = dict[str, Any]


class RegistryApi:
    """Routes and handlers; errors are worded by the console."""

    def __init__(self, services: Services) -> None:
        self._catalog = services.catalog
        self._deployments = services.deployments
        self._max_inflated = services.max_inflated

    def methods(self, parts: Sequence[str]) -> Mapping[str, Route]:
        """What a path has, by method: `parts` are its segments behind /dragoman/v1. Empty for no such path."""
        match parts:
            case ["registry"]:
                return {"GET": Route(self._models, Access.PUBLIC)}
            case ["registry", name]:
                return {"GET": Route(self._model, Access.PUBLIC, (name,)), "POST": Route(self._register, Access.ADMIN, (name,))}
            case ["deployments"]:
                return {"GET": Route(self._deployed, Access.PUBLIC)}
            case ["deployments", name]:
                return {"POST": Route(self._deploy, Access.ADMIN, (name,)), "DELETE": Route(self._undeploy, Access.ADMIN, (name,))}
            case ["deployments", name, version]:
                where = (name, version)
                return {"POST": Route(self._serve, Access.ADMIN, where), "DELETE": Route(self._stop, Access.ADMIN, where)}
        return {}

    # --- what there is ---

    async def _models(self, request: Request) -> Answer:
        return _json({"models": [await self._described(model) for model in await self._catalog.models()]})

    async def _model(self, request: Request, name: str) -> Answer:
        return _json(await self._described(await self._catalog.model(name)))

    async def _described(self, model: RegisteredModel) -> Json:
        aliases = await self._catalog.aliases(model.name)
        states = {each.version: each for each in self._deployments.deployed() if each.model == model.name}
        versions = [_version(each, aliases, states.get(each.version)) for each in await self._catalog.versions(model.name)]
        return {
            "name": model.name,
            "created": model.created,
            "updated": model.updated,
            "description": model.description,
            "tags": dict(model.tags),
            "versions": versions,
        }

    async def _deployed(self, request: Request) -> Answer:
        return _json({"deployments": self._listed()})

    def _listed(self, name: str = "") -> list[Json]:
        return [
            {"model": each.model, "version": each.version, "state": each.state.value, "reason": each.reason, "stage": each.stage}
            for each in self._deployments.deployed()
            if name in ("", each.model)
        ]

    # --- changes ---

    async def _register(self, request: Request, name: str) -> Answer:
        body = await json_object(request, self._max_inflated)
        source, description, aliases = body.get("source"), body.get("description", ""), body.get("aliases", [])
        if not isinstance(source, str) or not source:
            raise invalid("'source' is missing: expected the path or URI of a model", "source")
        if not isinstance(description, str):
            raise invalid("'description' is no text", "description")
        if not isinstance(aliases, list) or not all(isinstance(each, str) for each in aliases):
            raise invalid("'aliases' is no list of texts", "aliases")
        for alias in aliases:
            check_alias(alias)  # before there is a version, which would stay without it
        try:
            await self._catalog.model(name)
        except ServingError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            await self._made(name)
        version = await self._catalog.create_version(name, source, description=description)
        for alias in aliases:
            await self._catalog.set_alias(name, alias, version.version)
        return _json(_version(version, dict.fromkeys(aliases, version.version), None))

    async def _made(self, name: str) -> None:
        try:
            await self._catalog.create_model(name)
        except ServingError as error:
            if error.kind is not Kind.CONFLICT or error.what != "model":  # somebody else was faster, which is as good
                raise

    async def _deploy(self, request: Request, name: str) -> Answer:
        await self._deployments.deploy(name, policy_of((await json_object(request, self._max_inflated)).get("versions", "latest")))
        return _json({"deployments": self._listed(name)})

    async def _undeploy(self, request: Request, name: str) -> Answer:
        await self._deployments.undeploy(name)
        return _json({"deployments": self._listed(name)})

    async def _serve(self, request: Request, name: str, version: str) -> Answer:
        await self._deployments.serve(name, version)
        return _json({"deployments": self._listed(name)})

    async def _stop(self, request: Request, name: str, version: str) -> Answer:
        await self._deployments.stop(name, version)
        return _json({"deployments": self._listed(name)})


def policy_of(value: object) -> Policy:
    """The policy that a request or a command line means. Raises INVALID_INPUT."""
    if value == "all":
        return Policy(PolicyKind.ALL)
    if isinstance(value, str) and (found := _LATEST.fullmatch(value)) is not None:
        return Policy(PolicyKind.LATEST, count=int(found[1] or 1))
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return Policy(versions=tuple(value))
    raise invalid(f"'versions' is not one of {_VERSIONS}", "versions")


def _version(version: StoredVersion, aliases: Mapping[str, str], deployed: Deployment | None) -> Json:
    return {
        "version": version.version,
        "kind": version.kind,
        "source": version.source,
        "digest": version.digest,
        "created": version.created,
        "description": version.description,
        "stage": version.stage,
        "tags": dict(version.tags),
        "aliases": sorted(alias for alias, target in aliases.items() if target == version.version),
        "state": deployed.state.value if deployed is not None else "",
        "reason": deployed.reason if deployed is not None else "",
    }


def _json(value: Any) -> Answer:
    return Answer(200, orjson.dumps(value))
