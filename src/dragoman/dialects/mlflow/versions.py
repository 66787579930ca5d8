"""MLflow's `model-versions/...`: versions, their stages and tags, over the catalog that every protocol shares. Routed to by registry.py."""

from typing import Any

from dragoman.core.errors import invalid
from dragoman.dialects import Access, Answer, Request, Services
from dragoman.dialects.mlflow import filters
from dragoman.dialects.mlflow.paging import page
from dragoman.dialects.mlflow.records import NO_STAGE, milliseconds, number_of, version_record
from dragoman.dialects.mlflow.wire import NAME, Endpoint, Fields, answer, fields
from dragoman.serving.library.packing import ONLY
from dragoman.serving.model_uris import is_model_uri, parse_uri
from dragoman.store import StoredVersion

SEARCHABLE = filters.Searchable(
    texts=frozenset({"name", "run_id", "source_path", "model_id"}),
    numbers=frozenset({"version_number", "creation_timestamp", "last_updated_timestamp"}),
)
_LAST = (filters.By("", "name"), filters.By("", "version_number", ascends=False), filters.By("", "version"))
_USUAL, _MOST = 10_000, 200_000

_STAGES = {stage.casefold(): stage for stage in (NO_STAGE, "Staging", "Production", "Archived", "Developing")}
"""In any case of letters. Developing is Submarine's: what one face of the registry gave, the other may give back (requirement R10)."""
_ARCHIVED = "Archived"
_ONE_OF_A_KIND = ("Staging", "Production")
"""Stages whose other versions may be archived when a new one comes."""


class Versions:
    """The handlers."""

    def __init__(self, services: Services) -> None:
        self._catalog = services.catalog
        self._artifacts = services.artifacts
        self._max_inflated = services.max_inflated

    def endpoints(self) -> list[Endpoint]:
        public, admin = Access.PUBLIC, Access.ADMIN
        return [
            Endpoint(("POST",), "model-versions/create", self._create, admin),
            Endpoint(("GET",), "model-versions/get", self._get, public),
            Endpoint(("GET", "POST"), "model-versions/search", self._search, public),
            Endpoint(("PATCH", "POST"), "model-versions/update", self._update, admin),
            Endpoint(("DELETE",), "model-versions/delete", self._delete, admin),
            # Where a model lies on this machine is for those who may fetch it.
            Endpoint(("GET",), "model-versions/get-download-uri", self._download_uri, admin),
            Endpoint(("POST",), "model-versions/transition-stage", self._transition, admin),
            Endpoint(("POST",), "model-versions/set-tag", self._set_tag, admin),
            Endpoint(("DELETE",), "model-versions/delete-tag", self._delete_tag, admin),
        ]

    async def _create(self, request: Request) -> Answer:
        asked = await self._fields(request)
        source = asked.text("source")
        facts = {name: asked.text(name, "") for name in ("run_id", "run_link", "model_id")}
        if is_model_uri(source) and (logged := parse_uri(source).logged):
            facts["model_id"] = logged
        version = await self._catalog.create_version(
            _name(asked),
            source,
            description=asked.text("description", ""),
            tags=asked.pairs("tags"),
            facts={name: value for name, value in facts.items() if value},
        )
        return await self._shown(version)

    async def _get(self, request: Request) -> Answer:
        asked = await self._fields(request)
        return await self._shown(await self._catalog.version(_name(asked), asked.version()))

    async def _search(self, request: Request) -> Answer:
        asked = await self._fields(request)
        conditions = filters.parse(asked.text("filter", ""), SEARCHABLE)
        order = filters.ordering(asked.texts("order_by"), SEARCHABLE, _LAST)
        found = filters.select(await self._catalog.versions(), conditions, _look)
        shown, following = page(found, order, _look, asked, usual=_USUAL, most=_MOST)
        aliases = {name: await self._catalog.aliases(name) for name in dict.fromkeys(version.model for version in shown)}
        body: dict[str, Any] = {"model_versions": [version_record(version, aliases[version.model]) for version in shown]}
        return answer({**body, "next_page_token": following} if following else body)

    async def _update(self, request: Request) -> Answer:
        asked = await self._fields(request)
        changed = await self._catalog.change_version(_name(asked), asked.version(), description=asked.maybe("description"))
        return await self._shown(changed)

    async def _delete(self, request: Request) -> Answer:
        asked = await self._fields(request)
        await self._catalog.remove_version(_name(asked), asked.version())
        return answer({})

    async def _download_uri(self, request: Request) -> Answer:
        """Something that the client can fetch (Submarine requirement R14): the uploads' own scheme for what lies there, else a path."""
        asked = await self._fields(request)
        version = await self._catalog.version(_name(asked), asked.version())
        place = self._artifacts.root.parent / version.folder / version.manifest.get(ONLY, "")  # relative for what was built here
        return answer({"artifact_uri": await self._artifacts.uri_of(place) or str(place)})

    async def _transition(self, request: Request) -> Answer:
        asked = await self._fields(request)
        name, version, said = _name(asked), asked.version(), asked.text("stage", longest=NAME)
        stage = _STAGES.get(said.casefold())
        if stage is None:
            raise invalid(f"'stage' is '{said[:60]}', expected one of {', '.join(_STAGES.values())}")
        archive = asked.flag("archive_existing_versions")
        if archive and stage not in _ONE_OF_A_KIND:
            raise invalid(f"'archive_existing_versions' goes with the stages {' and '.join(_ONE_OF_A_KIND)}, and 'stage' is '{stage}'")
        return await self._shown(await self._catalog.change_version(name, version, stage=stage, archive=_ARCHIVED if archive else ""))

    async def _set_tag(self, request: Request) -> Answer:
        asked = await self._fields(request)
        await self._catalog.tag_version(_name(asked), asked.version(), asked.text("key", longest=NAME), asked.text("value", ""))
        return answer({})

    async def _delete_tag(self, request: Request) -> Answer:
        asked = await self._fields(request)
        await self._catalog.tag_version(_name(asked), asked.version(), asked.text("key", longest=NAME), None)
        return answer({})

    async def _fields(self, request: Request) -> Fields:
        return await fields(request, self._max_inflated)

    async def _shown(self, version: StoredVersion) -> Answer:
        return answer({"model_version": version_record(version, await self._catalog.aliases(version.model))})


def _name(asked: Fields) -> str:
    return asked.text("name", longest=4 * NAME)  # the catalog says what a name may be


def _look(version: StoredVersion, group: str, key: str) -> filters.Value:
    if group:
        return version.tags.get(key)
    match key:
        case "name":
            return version.model
        case "version_number":
            return number_of(version)
        case "version":
            return version.version
        case "source_path":
            return version.source
        case "creation_timestamp":
            return milliseconds(version.created)
        case "last_updated_timestamp":
            return milliseconds(version.updated or version.created)
        case _:
            return version.facts.get(key, "")
