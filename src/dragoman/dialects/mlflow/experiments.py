"""MLflow's `experiments/...`, as far as clients need them to log a model. Routed to by registry.py."""

from dataclasses import replace
from typing import Any

from dragoman.core.errors import invalid
from dragoman.dialects import Access, Answer, Request, Services
from dragoman.dialects.mlflow import filters
from dragoman.dialects.mlflow.paging import page
from dragoman.dialects.mlflow.records import filled, pairs
from dragoman.dialects.mlflow.wire import NAME, Endpoint, Fields, answer, fields, seen
from dragoman.serving.tracking import DEFAULT, Experiment

SEARCHABLE = filters.Searchable(texts=frozenset({"name", "experiment_id"}), numbers=frozenset({"creation_time", "last_update_time"}))
_LAST = (filters.By("", "creation_time", ascends=False), filters.By("", "experiment_id"))
_USUAL, _MOST = 1000, 50_000
_LONGEST_LOCATION = 2000


class Experiments:
    """The handlers."""

    def __init__(self, services: Services) -> None:
        self._tracking = services.tracking
        self._max_inflated = services.max_inflated

    def endpoints(self) -> list[Endpoint]:
        handlers = {
            "create": self._create,
            "update": self._update,
            "delete": self._delete,
            "restore": self._restore,
            "set-experiment-tag": self._set_tag,
            "delete-experiment-tag": self._delete_tag,
        }
        return [
            Endpoint(("GET",), "experiments/get", self._get, Access.ADMIN),
            Endpoint(("GET",), "experiments/get-by-name", self._by_name, Access.ADMIN),
            Endpoint(("GET", "POST"), "experiments/search", self._search, Access.ADMIN),
            *(Endpoint(("POST",), f"experiments/{name}", handler, Access.ADMIN) for name, handler in handlers.items()),
        ]

    async def _create(self, request: Request) -> Answer:
        asked = await self._fields(request)
        location = asked.text("artifact_location", "", longest=_LONGEST_LOCATION)
        if any(ord(c) < 32 or c == "\\" for c in location):
            raise invalid("'artifact_location' has control characters or a backslash")
        made = await self._tracking.create_experiment(asked.text("name", longest=NAME), location.rstrip("/"), asked.pairs("tags"))
        return answer({"experiment_id": made.id})

    async def _get(self, request: Request) -> Answer:
        asked = await self._fields(request)
        return answer({"experiment": record(await self._tracking.experiment(_id(asked)))})

    async def _by_name(self, request: Request) -> Answer:
        asked = await self._fields(request)
        return answer({"experiment": record(await self._tracking.experiment_named(asked.text("experiment_name", longest=NAME)))})

    async def _search(self, request: Request) -> Answer:
        asked = await self._fields(request)
        conditions = filters.parse(asked.text("filter", ""), SEARCHABLE)
        order = filters.ordering(asked.texts("order_by"), SEARCHABLE, _LAST)
        wanted = seen(asked, "view_type")
        found = [each for each in await self._tracking.experiments() if each.deleted in wanted]
        shown, following = page(filters.select(found, conditions, _look), order, _look, asked, usual=_USUAL, most=_MOST)
        body: dict[str, Any] = {"experiments": [record(each) for each in shown]}
        return answer({**body, "next_page_token": following} if following else body)

    async def _update(self, request: Request) -> Answer:
        asked = await self._fields(request)
        name = asked.text("new_name", longest=NAME)
        await self._tracking.change_experiment(_id(asked), lambda each: replace(each, name=name))
        return answer({})

    async def _delete(self, request: Request) -> Answer:
        asked = await self._fields(request)
        if _id(asked) == DEFAULT:
            raise invalid("the experiment '0' is always there, and cannot be deleted")
        await self._tracking.change_experiment(_id(asked), lambda each: replace(each, deleted=True))
        return answer({})

    async def _restore(self, request: Request) -> Answer:
        asked = await self._fields(request)
        await self._tracking.change_experiment(_id(asked), lambda each: replace(each, deleted=False))
        return answer({})

    async def _set_tag(self, request: Request) -> Answer:
        asked = await self._fields(request)
        tag = {asked.text("key", longest=NAME): asked.text("value", "")}
        await self._tracking.change_experiment(_id(asked), lambda each: replace(each, tags={**each.tags, **tag}))
        return answer({})

    async def _delete_tag(self, request: Request) -> Answer:
        asked = await self._fields(request)
        key = asked.text("key", longest=NAME)
        await self._tracking.change_experiment(
            _id(asked), lambda each: replace(each, tags={name: value for name, value in each.tags.items() if name != key})
        )
        return answer({})

    async def _fields(self, request: Request) -> Fields:
        return await fields(request, self._max_inflated)


def record(experiment: Experiment) -> dict[str, Any]:
    """An experiment as the API shows it."""
    return filled(
        experiment_id=experiment.id,
        name=experiment.name,
        artifact_location=experiment.location,
        lifecycle_stage="deleted" if experiment.deleted else "active",
        creation_time=experiment.created,
        last_update_time=experiment.updated,
        tags=pairs(experiment.tags),
    )


def _id(asked: Fields) -> str:
    return asked.text("experiment_id", longest=NAME)


def _look(experiment: Experiment, group: str, key: str) -> filters.Value:
    if group:
        return experiment.tags.get(key)
    match key:
        case "name":
            return experiment.name
        case "experiment_id":
            return experiment.id
        case "creation_time":
            return experiment.created
        case _:
            return experiment.updated
