"""The calls of the original's client (gradient 1.x): one path per verb, below /deployments/ and beside it. Called through rest.py.

Answers have what that client reads: `deploymentList`, `deployment.id`, tags by entity, rows of a log, charts.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from dragoman.core.errors import invalid
from dragoman.dialects import Answer, Request
from dragoman.dialects.documents import as_object, shown
from dragoman.dialects.gradient import answers
from dragoman.dialects.gradient.metrics import Charts
from dragoman.dialects.gradient.reading import Filter, first, json_body, query, window
from dragoman.serving.gradient.records import Record, State
from dragoman.serving.gradient.service import GradientDeployments

_ENDED = frozenset({State.STOPPED, State.ERROR})
_END = "PSEOF"
"""What the client takes for the end of a log that it follows."""
_WAIT_S, _LOOK_S = 2.0, 0.1
"""The client asks for more of a log without a pause: an answer without lines waits for some."""


Shown: TypeAlias = Callable[[Request, Record], Awaitable[dict[str, Any]]]


class Calls:
    """`shown` makes of a deployment what may be seen of it."""

    def __init__(self, deployments: GradientDeployments, charts: Charts, shown: Shown) -> None:
        self._deployments = deployments
        self._charts = charts
        self._shown = shown

    async def create(self, request: Request) -> Answer:
        return answers.json({"deployment": await self._shown(request, await self._deployments.create(await json_body(request)))})

    async def all(self, request: Request) -> Answer:
        """A list, or the details of one: the client sends its filter as the body of a GET."""
        wanted = Filter.of_body(await json_body(request))
        records = await self._deployments.all()
        found = [await self._shown(request, record) for record in records if wanted.record(record)]
        listed = [each for each in found if wanted.state in ("", each["state"])]
        running = sum(each["state"] == State.RUNNING.value for each in listed)
        return answers.json({"deploymentList": listed, "total": len(records), "displayTotal": len(listed), "runningTotal": running})

    async def update(self, request: Request) -> Answer:
        """{"id", "isRunning"} starts or stops, {"id", "upd": {...}} changes fields; both may come together."""
        body = await json_body(request)
        name, running = _id(body.get("id")), body.get("isRunning")
        if running is not None and not isinstance(running, bool):
            raise invalid(f"isRunning is {shown(running)}, expected true or false", "isRunning")
        if body.get("upd") is None and running is None:
            raise invalid("neither upd nor isRunning is there, expected what to change", "upd")
        record = await self._deployments.one(name)
        if body.get("upd") is not None:
            record = await self._deployments.update(name, as_object(body["upd"], "upd"))
        if running is not None:
            record = await (self._deployments.start(name) if running else self._deployments.stop(name))
        return answers.json({"deployment": await self._shown(request, record)})

    async def delete(self, request: Request) -> Answer:
        name = _id((await json_body(request)).get("id"))
        await self._deployments.delete(name)
        return answers.json({"deployment": {"id": name}})

    async def tags(self, request: Request) -> Answer:
        """Id -> its tags, of those that are asked for and there."""
        asked = query(request)
        _check_entity(first(asked, "entity"))
        wanted = {each for text in asked.get("entityIds", ()) for each in text.split(",")}
        records = [record for record in await self._deployments.all() if record.id in wanted]
        return answers.json({record.id: [{"tag": {"name": tag}} for tag in record.tags] for record in records})

    async def tag(self, request: Request) -> Answer:
        body = await json_body(request)
        _check_entity(body.get("entity"))
        record = await self._deployments.tag(_id(body.get("entityId"), "entityId"), body.get("tags"))
        return answers.json({record.id: [{"tag": {"name": tag}} for tag in record.tags]})

    async def namespace(self, request: Request) -> Answer:
        """A server has one team, without a name. The client makes of it the address of a web page."""
        return answers.json("")

    async def logs(self, request: Request) -> Answer:
        asked = query(request)
        name, (line, limit) = _id(first(asked, "deploymentId"), "deploymentId"), window(asked)
        deadline = time.monotonic() + _WAIT_S
        while not (rows := await self._deployments.rows(name, line, limit)):
            status = await self._deployments.status(await self._deployments.one(name))
            if status.state in _ENDED:
                return answers.json([{"line": line + 1, "message": _END, "timestamp": ""}])
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(_LOOK_S)
        return answers.json(answers.rows(rows))

    async def metrics(self, request: Request) -> Answer:
        asked = query(request)
        record = await self._deployments.one(_id(first(asked, "handle"), "handle"))
        return answers.json({"charts": await self._charts.read(record, [each for each in first(asked, "charts").split(",") if each])})

    async def charts(self, request: Request) -> Answer:
        await self._deployments.one(_id(first(query(request), "handle"), "handle"))
        return answers.json({"chart_names": self._charts.names})


def _id(value: object, name: str = "id") -> str:
    if not isinstance(value, str) or not value:
        raise invalid(f"{name} is {shown(value)}, expected the id of a deployment", name)
    return value


def _check_entity(value: object) -> None:
    if value != "deployment":
        raise invalid(f"entity is {shown(value)}, expected deployment: nothing else has tags here", "entity")
