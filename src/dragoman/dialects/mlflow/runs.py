"""MLflow's `runs/...`, as far as clients need them to log a model: what a run is, and what is written to it. Routed to by registry.py."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import orjson

from dragoman.core.errors import invalid
from dragoman.dialects import Access, Answer, Request, Services
from dragoman.dialects.mlflow import filters
from dragoman.dialects.mlflow.paging import page
from dragoman.dialects.mlflow.records import filled, number, pairs
from dragoman.dialects.mlflow.wire import NAME, TEXT, Endpoint, Fields, answer, fields, seen
from dragoman.serving.tracking import DEFAULT, RUNNING, Metric, Run

SEARCHABLE = filters.Searchable(
    texts=frozenset({"run_id", "run_name", "status", "user_id", "artifact_uri", "experiment_id"}),
    numbers=frozenset({"start_time", "end_time"}),
    groups={"tag": False, "param": False, "parameter": False, "metric": True},
)
_LAST = (filters.By("", "start_time", ascends=False), filters.By("", "run_id"))
_USUAL, _MOST = 1000, 50_000
_STATUSES = (RUNNING, "SCHEDULED", "FINISHED", "FAILED", "KILLED")
_NAME_TAG = "mlflow.runName"
_LONGEST_SCHEMA = 1 << 20
_MODELS_TAG = "mlflow.log-model.history"

Change = Callable[[Run], Run]


class Runs:
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
            "search": self._search,
            "log-metric": self._log_metric,
            "log-parameter": self._log_parameter,
            "log-batch": self._log_batch,
            "log-inputs": self._log_inputs,
            "log-model": self._log_model,
            "outputs": self._outputs,
            "set-tag": self._set_tag,
            "delete-tag": self._delete_tag,
        }
        return [
            Endpoint(("GET",), "runs/get", self._get, Access.ADMIN),
            Endpoint(("GET",), "metrics/get-history", self._history, Access.ADMIN),
            *(Endpoint(("POST",), f"runs/{name}", handler, Access.ADMIN) for name, handler in handlers.items()),
        ]

    # --- runs ---

    async def _create(self, request: Request) -> Answer:
        asked = await self._fields(request)
        run = await self._tracking.create_run(
            asked.text("experiment_id", "", longest=NAME) or DEFAULT,
            name=asked.text("run_name", ""),
            user=asked.text("user_id", "", longest=NAME),
            started=asked.whole("start_time", 0),
            tags=asked.pairs("tags"),
        )
        run = await self._tracking.change_run(run.id, lambda run: replace(run, tags={**run.tags, _NAME_TAG: run.name}))
        return answer({"run": record(run)})

    async def _get(self, request: Request) -> Answer:
        return answer({"run": record(await self._tracking.run(_id(await self._fields(request))))})

    async def _history(self, request: Request) -> Answer:
        """Of a metric only the last value is kept; clients ask when they log a model in a run that has metrics."""
        asked = await self._fields(request)
        run, key = await self._tracking.run(_id(asked)), asked.text("metric_key", longest=NAME)
        return answer({"metrics": [_measured(key, run.metrics[key])] if key in run.metrics else []})

    async def _update(self, request: Request) -> Answer:
        asked = await self._fields(request)
        status = asked.choice("status", _STATUSES) if asked.has("status") else ""
        ended, name = asked.whole("end_time", 0), asked.text("run_name", "")

        def change(run: Run) -> Run:
            named = replace(run, name=name, tags={**run.tags, _NAME_TAG: name}) if name else run
            return replace(named, status=status or run.status, ended=ended or run.ended)

        return answer({"run_info": _info(await self._tracking.change_run(_id(asked), change))})

    async def _delete(self, request: Request) -> Answer:
        await self._tracking.change_run(_id(await self._fields(request)), lambda run: replace(run, deleted=True), deleted=True)
        return answer({})

    async def _restore(self, request: Request) -> Answer:
        await self._tracking.change_run(_id(await self._fields(request)), lambda run: replace(run, deleted=False), deleted=True)
        return answer({})

    async def _search(self, request: Request) -> Answer:
        asked = await self._fields(request)
        conditions = filters.parse(asked.text("filter", ""), SEARCHABLE)
        order = filters.ordering(asked.texts("order_by"), SEARCHABLE, _LAST)
        wanted = seen(asked, "run_view_type")
        found = [run for run in await self._tracking.runs(asked.texts("experiment_ids", longest=NAME)) if run.deleted in wanted]
        shown, following = page(filters.select(found, conditions, _look), order, _look, asked, usual=_USUAL, most=_MOST)
        body: dict[str, Any] = {"runs": [record(run) for run in shown]}
        return answer({**body, "next_page_token": following} if following else body)

    # --- what is written to them ---

    async def _log_metric(self, request: Request) -> Answer:
        asked = await self._fields(request)
        metrics = {asked.text("key", longest=NAME): [self._metric(asked)]}
        return await self._changed(asked, lambda run: run.measured(metrics))

    async def _log_parameter(self, request: Request) -> Answer:
        asked = await self._fields(request)
        params = {asked.text("key", longest=NAME): asked.text("value", "")}
        return await self._changed(asked, lambda run: run.given(params))

    async def _log_batch(self, request: Request) -> Answer:
        asked = await self._fields(request)
        metrics: dict[str, list[Metric]] = {}
        for each in asked.messages("metrics"):
            metrics.setdefault(each.text("key", longest=NAME), []).append(self._metric(each))
        params, tags = asked.pairs("params"), asked.pairs("tags")
        return await self._changed(asked, lambda run: _tagged(run.given(params).measured(metrics), tags))

    async def _log_inputs(self, request: Request) -> Answer:
        asked = await self._fields(request)
        datasets = [_dataset(each) for each in asked.messages("datasets")]
        models = [each.text("model_id", longest=NAME) for each in asked.messages("models")]

        def change(run: Run) -> Run:
            new = [each for each in datasets if each not in run.datasets]
            return replace(run, datasets=[*run.datasets, *new], took=list(dict.fromkeys([*run.took, *models])))

        return await self._changed(asked, change)

    async def _outputs(self, request: Request) -> Answer:
        asked = await self._fields(request)
        made = {each.text("model_id", longest=NAME): each.whole("step", 0) for each in asked.messages("models")}
        return await self._changed(asked, lambda run: replace(run, made={**run.made, **made}))

    async def _log_model(self, request: Request) -> Answer:
        """What clients of MLflow 2 write about a model: kept as they keep it, in a tag."""
        asked = await self._fields(request)
        described = _json("model_json", asked.text("model_json", longest=_LONGEST_SCHEMA))

        def change(run: Run) -> Run:
            history = _json(_MODELS_TAG, run.tags.get(_MODELS_TAG, "[]"))
            if not isinstance(history, list):
                raise invalid(f"the tag '{_MODELS_TAG}' of run '{run.id}' is not the JSON list that it should be")
            try:
                return _tagged(run, {_MODELS_TAG: orjson.dumps([*history, described]).decode()})
            except orjson.JSONEncodeError:  # it reads deeper than it writes
                raise invalid("'model_json' is nested too deep") from None

        return await self._changed(asked, change)

    async def _set_tag(self, request: Request) -> Answer:
        asked = await self._fields(request)
        tag = {asked.text("key", longest=NAME): asked.text("value", "")}
        return await self._changed(asked, lambda run: _tagged(run, tag))

    async def _delete_tag(self, request: Request) -> Answer:
        asked = await self._fields(request)
        key = asked.text("key", longest=NAME)
        return await self._changed(asked, lambda run: replace(run, tags={name: value for name, value in run.tags.items() if name != key}))

    async def _changed(self, asked: Fields, change: Change) -> Answer:
        await self._tracking.change_run(_id(asked), change)
        return answer({})

    def _metric(self, asked: Fields) -> Metric:
        return Metric(asked.number("value"), asked.whole("timestamp", 0) or self._tracking.now(), asked.whole("step", 0))

    async def _fields(self, request: Request) -> Fields:
        return await fields(request, self._max_inflated)


def record(run: Run) -> dict[str, Any]:
    """A run as the API shows it."""
    metrics = [_measured(key, each) for key, each in run.metrics.items()]
    return {
        "info": _info(run),
        "data": filled(metrics=metrics, params=pairs(run.params), tags=pairs(run.tags)),
        "inputs": filled(dataset_inputs=list(run.datasets), model_inputs=[{"model_id": each} for each in run.took]),
        "outputs": filled(model_outputs=[{"model_id": each, "step": step} for each, step in run.made.items()]),
    }


def _measured(key: str, metric: Metric) -> dict[str, Any]:
    return {"key": key, "value": number(metric.value), "timestamp": metric.timestamp, "step": metric.step}


def _info(run: Run) -> dict[str, Any]:
    return filled(
        run_id=run.id,
        run_uuid=run.id,
        run_name=run.name,
        experiment_id=run.experiment,
        user_id=run.user,
        status=run.status,
        start_time=run.started,
        end_time=run.ended or "",
        artifact_uri=run.location,
        lifecycle_stage="deleted" if run.deleted else "active",
    )


def _id(asked: Fields) -> str:
    return asked.text("run_id", "", longest=NAME) or asked.text("run_uuid", "", longest=NAME) or asked.text("run_id", longest=NAME)


def _tagged(run: Run, tags: Mapping[str, str]) -> Run:
    """With these tags. The run's name is one of them."""
    return replace(run, tags={**run.tags, **tags}, name=tags.get(_NAME_TAG) or run.name)


def _json(what: str, text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise invalid(f"'{what}' is not valid JSON: {error}") from None


def _dataset(asked: Fields) -> dict[str, Any]:
    dataset = asked.message("dataset")
    texts = {name: dataset.text(name, "", longest=_LONGEST_SCHEMA) for name in ("schema", "profile")}
    texts |= {name: dataset.text(name, "", longest=TEXT) for name in ("name", "digest", "source_type", "source")}
    return {"tags": pairs(asked.pairs("tags")), "dataset": filled(**texts)}


def _look(run: Run, group: str, key: str) -> filters.Value:
    match group:
        case "tag":
            return run.tags.get(key)
        case "param" | "parameter":
            return run.params.get(key)
        case "metric":
            return run.metrics[key].value if key in run.metrics else None
    values: dict[str, filters.Value] = {
        "run_id": run.id,
        "run_name": run.name,
        "status": run.status,
        "user_id": run.user,
        "artifact_uri": run.location,
        "experiment_id": run.experiment,
        "start_time": run.started,
        "end_time": run.ended or None,
    }
    return values[key]
