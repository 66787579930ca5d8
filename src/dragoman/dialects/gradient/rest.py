"""Gradient's API of deployments: which path means what. Made by the server, once.

    POST   /deployments                          a new deployment, which starts at once
    GET    /deployments[?state=&modelId=&projectId=&tag=]
    GET    /deployments/ID                       with its state and endpoint
    PATCH  /deployments/ID                       changed fields (PUT, too)
    DELETE /deployments/ID
    POST   /deployments/ID/start | /stop
    PUT    /deployments/ID/tags                  {"tags": [...]}: these and no others
    GET    /deployments/ID/logs?line=&limit=
    GET    /deployments/ID/metrics[?charts=a,b]

Beside them the paths that the original's client called (calls.py). Predictions are TensorFlow Serving's: a deployment's id is a served model.
"""

from dragoman.core.errors import ServingError
from dragoman.dialects import Access, Answer, Handler, Request, Route, Services, chosen, path_text
from dragoman.dialects.addresses import base_url
from dragoman.dialects.gradient import answers
from dragoman.dialects.gradient.calls import Calls
from dragoman.dialects.gradient.metrics import Charts
from dragoman.dialects.gradient.reading import Filter, first, json_body, query, window
from dragoman.serving.gradient.records import Record

Methods = dict[str, Route]


class Gradient:
    """A Dialect."""

    name = "gradient"
    prefixes: tuple[str, ...] = ("/deployments", "/entityTags", "/jobs/logs", "/teams/namespace", "/metrics/api/v1")

    def __init__(self, services: Services) -> None:
        self._deployments = services.gradient
        self._public_url = services.public_url
        self._charts = Charts(services.gradient, services.meters)
        self._calls = Calls(services.gradient, self._charts, self._shown)

    def route(self, request: Request) -> Route:
        return chosen(request, self._methods(request))

    def refuse(self, request: Request, error: ServingError) -> Answer:
        return answers.refusal(error, self._methods(request) if error.what == "method" else ())

    def _methods(self, request: Request) -> Methods:
        """What a path has, by method; nothing for a path that does not exist."""
        parts = [path_text(part) for part in request.raw_path.split(b"/")[1:]]
        if len(parts) > 1 and not parts[-1]:  # the original's client ends some of its paths in a slash
            parts.pop()
        calls = self._calls
        match parts:
            case ["deployments"]:
                return {"GET": _look(self._all), "POST": _change(self._create)}
            case ["deployments", "createDeployment"] | ["deployments", "v2", "createDeployment"]:
                return {"POST": _change(calls.create)}
            case ["deployments", "getDeploymentList"]:
                return {"GET": _look(calls.all), "POST": _look(calls.all)}
            case ["deployments", "updateDeployment"] | ["deployments", "v2", "updateDeployment"]:
                return {"POST": _change(calls.update)}
            case ["deployments", "deleteDeployment"] | ["deployments", "v2", "deleteDeployment"]:
                return {"POST": _change(calls.delete)}
            case ["entityTags", "getTags"]:
                return {"GET": _look(calls.tags)}
            case ["entityTags", "updateTags"]:
                return {"PUT": _change(calls.tag)}
            case ["teams", "namespace"]:
                return {"GET": Route(calls.namespace, Access.PUBLIC)}
            case ["jobs", "logs"]:
                return {"GET": _change(calls.logs)}
            case ["metrics", "api", "v1", "range"]:
                return {"GET": _look(calls.metrics)}
            case ["metrics", "api", "v1", "list"]:
                return {"GET": _look(calls.charts)}
            case ["deployments", name]:
                change = _change(self._update, name)
                return {"GET": _look(self._one, name), "PATCH": change, "PUT": change, "DELETE": _change(self._delete, name)}
            case ["deployments", name, "start"]:
                return {"POST": _change(self._start, name)}
            case ["deployments", name, "stop"]:
                return {"POST": _change(self._stop, name)}
            case ["deployments", name, "tags"]:
                return {"PUT": _change(self._tag, name)}
            case ["deployments", name, "logs"]:
                return {"GET": _change(self._logs, name)}  # models print what they like
            case ["deployments", name, "metrics"]:
                return {"GET": _look(self._metrics, name)}
        return {}

    # --- handlers ---

    async def _all(self, request: Request) -> Answer:
        wanted = Filter.of_query(query(request))
        found = [await self._shown(request, record) for record in await self._deployments.all() if wanted.record(record)]
        return answers.json({"deployments": [each for each in found if wanted.state in ("", each["state"])]})

    async def _create(self, request: Request) -> Answer:
        record = await self._deployments.create(await json_body(request))
        return answers.json(await self._shown(request, record), 201)

    async def _one(self, request: Request, name: str) -> Answer:
        return answers.json(await self._shown(request, await self._deployments.one(name)))

    async def _update(self, request: Request, name: str) -> Answer:
        return answers.json(await self._shown(request, await self._deployments.update(name, await json_body(request))))

    async def _delete(self, request: Request, name: str) -> Answer:
        await self._deployments.delete(name)
        return answers.json({"id": name, "deleted": True})

    async def _start(self, request: Request, name: str) -> Answer:
        return answers.json(await self._shown(request, await self._deployments.start(name)))

    async def _stop(self, request: Request, name: str) -> Answer:
        return answers.json(await self._shown(request, await self._deployments.stop(name)))

    async def _tag(self, request: Request, name: str) -> Answer:
        record = await self._deployments.tag(name, (await json_body(request)).get("tags"))
        return answers.json({"id": name, "tags": record.tags})

    async def _logs(self, request: Request, name: str) -> Answer:
        line, limit = window(query(request))
        rows = await self._deployments.rows(name, line, limit)
        status = await self._deployments.status(await self._deployments.one(name))
        return answers.json({"logs": answers.rows(rows), "state": status.state.value})

    async def _metrics(self, request: Request, name: str) -> Answer:
        asked = first(query(request), "charts")
        record = await self._deployments.one(name)
        charts = await self._charts.read(record, [each for each in asked.split(",") if each])
        return answers.json({"charts": charts, "chart_names": self._charts.names})

    async def _shown(self, request: Request, record: Record) -> dict[str, object]:
        status, base = await self._deployments.status(record), base_url(request, self._public_url)
        return answers.deployment(record, status, base, self._deployments.grpc_port)


def _look(handler: Handler, *args: str) -> Route:
    """What people said of a deployment is for those who may use it."""
    return Route(handler, Access.INFER, args)


def _change(handler: Handler, *args: str) -> Route:
    return Route(handler, Access.ADMIN, args)
