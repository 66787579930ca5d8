"""MLflow's `logged-models`: models that code has written, with their files in the artifact folder. Routed to by registry.py."""

from dataclasses import replace
from typing import Any

from dragoman.dialects import Access, Answer, Request, Services
from dragoman.dialects.mlflow import filters
from dragoman.dialects.mlflow.paging import page
from dragoman.dialects.mlflow.records import filled, pairs
from dragoman.dialects.mlflow.wire import NAME, Endpoint, Fields, answer, fields
from dragoman.serving.tracking import PENDING, LoggedModel

SEARCHABLE = filters.Searchable(
    texts=frozenset({"name", "model_id", "model_type", "status", "source_run_id", "experiment_id"}),
    numbers=frozenset({"creation_timestamp", "last_updated_timestamp"}),
    groups={"tag": False, "param": False},
)
_LAST = (filters.By("", "creation_timestamp", ascends=False), filters.By("", "model_id"))
_USUAL, _MOST = 100, 1000
_STATUSES = (PENDING, "LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED")


class LoggedModels:
    """The handlers. Those for one model get its id from the path."""

    def __init__(self, services: Services) -> None:
        self._tracking = services.tracking
        self._max_inflated = services.max_inflated

    def endpoints(self) -> list[Endpoint]:
        one = "logged-models/{}"
        return [
            Endpoint(("POST",), "logged-models", self._create, Access.ADMIN),
            Endpoint(("POST",), "logged-models/search", self._search, Access.ADMIN),
            Endpoint(("GET",), one, self._get, Access.ADMIN),
            Endpoint(("PATCH",), one, self._finalize, Access.ADMIN),
            Endpoint(("DELETE",), one, self._delete, Access.ADMIN),
            Endpoint(("PATCH",), f"{one}/tags", self._set_tags, Access.ADMIN),
            Endpoint(("DELETE",), f"{one}/tags/{{}}", self._delete_tag, Access.ADMIN),
            Endpoint(("POST",), f"{one}/params", self._log_params, Access.ADMIN),
        ]

    async def _create(self, request: Request) -> Answer:
        asked = await self._fields(request)
        model = await self._tracking.create_logged(
            asked.text("experiment_id", longest=NAME),
            name=asked.text("name", "", longest=NAME),
            kind=asked.text("model_type", "", longest=NAME),
            run=asked.text("source_run_id", "", longest=NAME),
            params=asked.pairs("params"),
            tags=asked.pairs("tags"),
        )
        return _shown(model)

    async def _search(self, request: Request) -> Answer:
        asked = await self._fields(request)
        conditions = filters.parse(asked.text("filter", ""), SEARCHABLE)
        orders = [f"{each.text('field_name')} {'ASC' if each.flag('ascending', True) else 'DESC'}" for each in asked.messages("order_by")]
        order = filters.ordering(orders, SEARCHABLE, _LAST)
        found = await self._tracking.all_logged(asked.texts("experiment_ids", longest=NAME))
        shown, following = page(filters.select(found, conditions, _look), order, _look, asked, usual=_USUAL, most=_MOST)
        body: dict[str, Any] = {"models": [record(model) for model in shown]}
        return answer({**body, "next_page_token": following} if following else body)

    async def _get(self, request: Request, model_id: str) -> Answer:
        asked = await self._fields(request)
        return _shown(await self._tracking.logged(model_id, deleted=asked.flag("allow_deleted")))

    async def _finalize(self, request: Request, model_id: str) -> Answer:
        asked = await self._fields(request)
        status = asked.choice("status", _STATUSES)
        return _shown(await self._tracking.change_logged(model_id, lambda model: replace(model, status=status)))

    async def _delete(self, request: Request, model_id: str) -> Answer:
        """Its files stay: versions may have been made of them."""
        await self._tracking.change_logged(model_id, lambda model: replace(model, deleted=True))
        return answer({})

    async def _set_tags(self, request: Request, model_id: str) -> Answer:
        tags = (await self._fields(request)).pairs("tags")
        return _shown(await self._tracking.change_logged(model_id, lambda model: replace(model, tags={**model.tags, **tags})))

    async def _delete_tag(self, request: Request, model_id: str, key: str) -> Answer:
        def change(model: LoggedModel) -> LoggedModel:
            return replace(model, tags={name: value for name, value in model.tags.items() if name != key})

        return _shown(await self._tracking.change_logged(model_id, change))

    async def _log_params(self, request: Request, model_id: str) -> Answer:
        params = (await self._fields(request)).pairs("params")
        await self._tracking.change_logged(model_id, lambda model: replace(model, params={**model.params, **params}))
        return answer({})

    async def _fields(self, request: Request) -> Fields:
        return await fields(request, self._max_inflated)


def record(model: LoggedModel) -> dict[str, Any]:
    """A logged model as the API shows it."""
    info = filled(
        model_id=model.id,
        experiment_id=model.experiment,
        name=model.name,
        creation_timestamp_ms=model.created,
        last_updated_timestamp_ms=model.updated,
        artifact_uri=model.location,
        status=model.status,
        model_type=model.kind,
        source_run_id=model.run,
        tags=pairs(model.tags),
    )
    return {"info": info, "data": filled(params=pairs(model.params))}


def _shown(model: LoggedModel) -> Answer:
    return answer({"model": record(model)})


def _look(model: LoggedModel, group: str, key: str) -> filters.Value:
    if group:
        return (model.tags if group == "tag" else model.params).get(key)
    values: dict[str, filters.Value] = {
        "name": model.name,
        "model_id": model.id,
        "model_type": model.kind,
        "status": model.status,
        "source_run_id": model.run,
        "experiment_id": model.experiment,
        "creation_timestamp": model.created,
        "last_updated_timestamp": model.updated,
    }
    return values[key]
