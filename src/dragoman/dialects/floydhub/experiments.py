"""Jobs, which this API calls experiments: submitted, looked at, stopped, started again, deleted. Nothing here waits for a program."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.jobs import Job, Phase
from dragoman.dialects import Answer, Request
from dragoman.dialects.addresses import base_url
from dragoman.dialects.documents import json_object
from dragoman.dialects.floydhub.answers import success
from dragoman.dialects.floydhub.data import Data
from dragoman.dialects.floydhub.people import People
from dragoman.dialects.floydhub.projects import check_seen
from dragoman.dialects.floydhub.shapes import job_object, moment, task_instance
from dragoman.serving.jobs import environment_names
from dragoman.serving.jobs.code import Code
from dragoman.serving.jobs.floyd_yml import MODES, merged
from dragoman.serving.jobs.service import Changes, Jobs, Submission
from dragoman.serving.settings import quoted

_LARGEST = 2 << 20
_SAID_BY_CLIENTS = (b"x-floydhub-cli-version", b"authorization", b"x-api-key")
_OWN = ("idle_timeout", "concurrency", "network")
"""What only clients of ours ask for."""


class Experiments:
    def __init__(self, jobs: Jobs, code: Code, data: Data, people: People, public_url: str) -> None:
        self._jobs = jobs
        self._code = code
        self._data = data
        self._people = people
        self._public_url = public_url

    async def seen(self, request: Request, name: str) -> Job:
        """A job of the caller, by id or name. Raises NOT_FOUND."""
        user = self._people.who(request)
        job = await self._jobs.job(user.full(name))
        check_seen(user, job.owner, f"job {quoted(name)}")
        return job

    async def one(self, request: Request, name: str) -> Answer:
        """With how it is at this moment, where it runs: its queue, its calls so far, its isolation."""
        job = await self.seen(request, name)
        now = await self._jobs.seen(job) if job.phase is Phase.RUNNING else None
        return success({**self._shown(request, job), **({} if now is None else moment(job, now))})

    async def of_project(self, request: Request) -> Answer:
        """Newest first: the client shows them in this order."""
        project_id = parse_qs(request.query.decode("latin-1")).get("family_id", [""])[0]
        user = self._people.who(request)
        if not project_id:
            jobs = [job for job in reversed(await self._jobs.jobs()) if user.sees(job.owner)]
        else:
            project = await self._jobs.project(project_id)
            check_seen(user, project.owner, f"project {quoted(project_id)}")
            jobs = await self._jobs.jobs_of(project_id)
        return success([self._shown(request, job) for job in jobs])

    async def task(self, request: Request, name: str) -> Answer:
        return success(task_instance(await self.seen(request, name)))

    async def run(self, request: Request) -> Answer:
        """Code that was uploaded, made into a job. The body is JSON without saying so."""
        body = await json_object(request, _LARGEST)
        user = self._people.who(request)
        module = await self._code.module(_text(body, "module_id"))
        check_seen(user, module.owner, f"code {quoted(module.id)}")
        if body.get("family_id") not in (None, "", module.project_id):
            raise invalid("family_id is not the project that the code was uploaded for", "family_id")
        said = module.request
        wanted = merged(
            given_options(body, said), either(body, said, "yaml_config"), either(body, said, "task"), default_options(body, said)
        )
        mounts = await self._data.mounts(user, wanted.inputs, module.owner)
        own = _own(body)
        job = await self._jobs.submit(
            Submission(
                project_id=module.project_id,
                code=module.id,
                mode=wanted.mode,
                command=wanted.command,
                description=wanted.description,
                environment=environment_names.check(wanted.environment),
                instance=wanted.instance,
                mounts=mounts,
                max_runtime_s=wanted.max_runtime_s,
                idle_s=own.get("idle_timeout"),
                concurrency=own.get("concurrency"),
                network=own.get("network"),
                notes=wanted.notes,
            )
        )
        return success({**self._shown(request, job)})

    async def restart(self, request: Request, name: str) -> Answer:
        job = await self.seen(request, name)
        sent = await json_object(request, _LARGEST)
        body = {"description": sent.get("message"), **sent}  # as clients before 0.11 call it, here only
        # The client repeats the instance of the old job; what else it leaves out stays as it was.
        given = {"mode": job.mode.value, "command": job.command, **given_options(body, {})}
        wanted = merged(given, default={"instance": job.instance})
        mounts = await self._data.mounts(self._people.who(request), wanted.inputs, job.owner) if wanted.inputs else None
        changes = Changes(
            command=wanted.command if body.get("command") is not None else None,
            description=wanted.description if body.get("description") is not None else None,
            environment=environment_names.check(wanted.environment) if body.get("env") is not None else None,
            instance=wanted.instance,
            mounts=mounts,
        )
        return success(self._shown(request, await self._jobs.restart(job, changes)))

    async def cancel(self, request: Request, name: str) -> Answer:
        """A GET that stops something, as the client has it: so it must have a header that no page can put there without asking first."""
        if request.method != "POST" and not any(request.header(each) for each in _SAID_BY_CLIENTS):
            raise ServingError(Kind.FORBIDDEN, "a GET from nobody's client stops no job: say who calls, or use POST")
        job = await self._jobs.stop(await self.seen(request, name))
        return success(self._shown(request, job))

    async def delete(self, request: Request, name: str) -> Answer:
        await self._jobs.delete(await self.seen(request, name))
        return success({})

    def _shown(self, request: Request, job: Job) -> dict[str, Any]:
        return job_object(job, self._jobs.duration_s(job), base_url(request, self._public_url))


def given_options(body: Mapping[str, Any], module: Mapping[str, Any]) -> dict[str, Any]:
    """The options that somebody typed, under the names of floyd.yml; the client sends null, or nothing, for the others.

    The oldest clients have no `cli_default`, and send their defaults as if they had been typed.
    """
    options = {
        "mode": module.get("mode"),
        "command": module.get("command") if "command" not in body else body["command"],
        "description": body.get("description"),
        "env": body.get("env"),
        "instance": body.get("instance_type"),
        "max_runtime": body.get("max_runtime"),
        "data": body.get("data_ids") or None,
    }
    if options["data"] is not None and not isinstance(options["data"], list):
        raise invalid("data_ids: expected a list of ID:MOUNT", "data_ids")
    if isinstance(options["mode"], str) and options["mode"] not in MODES:
        raise invalid(f"mode is {quoted(options['mode'])}, expected job, serve or jupyter", "mode")
    return {name: value for name, value in options.items() if value is not None}


def default_options(body: Mapping[str, Any], module: Mapping[str, Any]) -> dict[str, Any]:
    said = body.get("cli_default") or module.get("cli_default") or {}
    if not isinstance(said, Mapping):
        raise invalid("cli_default: expected an object", "cli_default")
    return {**said, "instance": said.get("instance_type")}


def either(body: Mapping[str, Any], module: Mapping[str, Any], key: str) -> str | None:
    value = body.get(key) if body.get(key) is not None else module.get(key)
    if value is not None and not isinstance(value, str):
        raise invalid(f"{key}: expected a text", key)
    return value


def _own(body: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds without a request after which it sleeps, requests at the same time, whether it may use the network."""
    types: Mapping[str, tuple[type, ...]] = {"idle_timeout": (int, float), "concurrency": (int,), "network": (bool,)}
    found = {key: body[key] for key in _OWN if body.get(key) is not None}
    for key, value in found.items():
        if not isinstance(value, types[key]) or (isinstance(value, bool) and key != "network"):
            raise invalid(f"{key}: expected {'true or false' if key == 'network' else 'a number'}", key)
    return found


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise invalid(f"{key} is missing, expected a text", key)
    return value
