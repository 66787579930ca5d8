"""MLflow's `registered-models/...`: models, their tags and aliases, over the catalog that every protocol shares. Routed to by registry.py."""

from typing import Any

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Access, Answer, Request, Services
from dragoman.dialects.mlflow import filters
from dragoman.dialects.mlflow.paging import page
from dragoman.dialects.mlflow.records import milliseconds, model_record, version_record
from dragoman.dialects.mlflow.wire import NAME, Endpoint, Fields, answer, fields
from dragoman.store import RegisteredModel

SEARCHABLE = filters.Searchable(texts=frozenset({"name"}), numbers=frozenset({"creation_timestamp", "last_updated_timestamp"}))
_USUAL, _MOST = 100, 1000


class Models:
    """The handlers."""

    def __init__(self, services: Services) -> None:
        self._catalog = services.catalog
        self._max_inflated = services.max_inflated

    def endpoints(self) -> list[Endpoint]:
        public, admin = Access.PUBLIC, Access.ADMIN
        return [
            Endpoint(("POST",), "registered-models/create", self._create, admin),
            Endpoint(("GET",), "registered-models/get", self._get, public),
            Endpoint(("GET", "POST"), "registered-models/search", self._search, public),
            Endpoint(("PATCH", "POST"), "registered-models/update", self._update, admin),
            Endpoint(("POST",), "registered-models/rename", self._rename, admin),
            Endpoint(("DELETE",), "registered-models/delete", self._delete, admin),
            Endpoint(("GET", "POST"), "registered-models/get-latest-versions", self._latest, public),
            Endpoint(("POST",), "registered-models/set-tag", self._set_tag, admin),
            Endpoint(("DELETE",), "registered-models/delete-tag", self._delete_tag, admin),
            Endpoint(("GET",), "registered-models/alias", self._by_alias, public),
            Endpoint(("POST",), "registered-models/alias", self._set_alias, admin),
            Endpoint(("DELETE",), "registered-models/alias", self._delete_alias, admin),
        ]

    async def _create(self, request: Request) -> Answer:
        asked = await self._fields(request)
        model = await self._catalog.create_model(_name(asked), asked.text("description", ""), asked.pairs("tags"))
        return await self._shown(model)

    async def _get(self, request: Request) -> Answer:
        return await self._shown(await self._catalog.model(_name(await self._fields(request))))

    async def _search(self, request: Request) -> Answer:
        asked = await self._fields(request)
        conditions = filters.parse(asked.text("filter", ""), SEARCHABLE)
        order = filters.ordering(asked.texts("order_by"), SEARCHABLE, [filters.By("", "name")])
        found = filters.select(await self._catalog.models(), conditions, _look)
        shown, following = page(found, order, _look, asked, usual=_USUAL, most=_MOST)
        body: dict[str, Any] = {"registered_models": [await self._record(model) for model in shown]}
        return answer({**body, "next_page_token": following} if following else body)

    async def _update(self, request: Request) -> Answer:
        asked = await self._fields(request)
        return await self._shown(await self._catalog.change_model(_name(asked), description=asked.maybe("description")))

    async def _rename(self, request: Request) -> Answer:
        asked = await self._fields(request)
        return await self._shown(await self._catalog.change_model(_name(asked), new_name=asked.text("new_name")))

    async def _delete(self, request: Request) -> Answer:
        await self._catalog.remove_model(_name(await self._fields(request)))
        return answer({})

    async def _latest(self, request: Request) -> Answer:
        asked = await self._fields(request)
        name = _name(asked)
        found = await self._catalog.latest(name, asked.texts("stages", longest=NAME))
        aliases = await self._catalog.aliases(name)
        return answer({"model_versions": [version_record(version, aliases) for version in found]})

    async def _set_tag(self, request: Request) -> Answer:
        asked = await self._fields(request)
        await self._catalog.tag_model(_name(asked), asked.text("key", longest=NAME), asked.text("value", ""))
        return answer({})

    async def _delete_tag(self, request: Request) -> Answer:
        asked = await self._fields(request)
        await self._catalog.tag_model(_name(asked), asked.text("key", longest=NAME), None)
        return answer({})

    async def _by_alias(self, request: Request) -> Answer:
        asked = await self._fields(request)
        name, alias = _name(asked), asked.text("alias", longest=NAME)
        await self._catalog.model(name)
        aliases = await self._catalog.aliases(name)
        if alias not in aliases:
            raise ServingError(Kind.NOT_FOUND, f"registered model '{name}' has no alias '{alias}'", what="alias")
        return answer({"model_version": version_record(await self._catalog.version(name, aliases[alias]), aliases)})

    async def _set_alias(self, request: Request) -> Answer:
        asked = await self._fields(request)
        await self._catalog.set_alias(_name(asked), asked.text("alias", longest=NAME), asked.version())
        return answer({})

    async def _delete_alias(self, request: Request) -> Answer:
        asked = await self._fields(request)
        await self._catalog.remove_alias(_name(asked), asked.text("alias", longest=NAME))
        return answer({})

    async def _fields(self, request: Request) -> Fields:
        return await fields(request, self._max_inflated)

    async def _record(self, model: RegisteredModel) -> dict[str, Any]:
        return model_record(model, await self._catalog.versions(model.name), await self._catalog.aliases(model.name))

    async def _shown(self, model: RegisteredModel) -> Answer:
        return answer({"registered_model": await self._record(model)})


def _name(asked: Fields) -> str:
    return asked.text("name", longest=4 * NAME)  # the catalog says what a name may be


def _look(model: RegisteredModel, group: str, key: str) -> filters.Value:
    if group:
        return model.tags.get(key)
    match key:
        case "name":
            return model.name
        case "creation_timestamp":
            return milliseconds(model.created)
        case _:
            return milliseconds(model.updated or model.created)
