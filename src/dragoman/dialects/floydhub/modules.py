"""Uploaded code and versions of data sets, which this API both calls modules: sent, looked at, listed, removed (sheet, section 8)."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.dialects import Answer, Request
from dragoman.dialects.documents import json_object
from dragoman.dialects.floydhub.answers import success
from dragoman.dialects.floydhub.data import Data
from dragoman.dialects.floydhub.experiments import default_options, either, given_options
from dragoman.dialects.floydhub.people import People, User
from dragoman.dialects.floydhub.projects import check_seen
from dragoman.dialects.floydhub.shapes import TASK_MODES
from dragoman.serving.jobs import environment_names
from dragoman.serving.jobs.code import Code, Home, Module
from dragoman.serving.jobs.floyd_yml import merged
from dragoman.serving.jobs.records import Project
from dragoman.serving.jobs.service import Jobs
from dragoman.serving.settings import quoted

_LARGEST = 1 << 20


class Modules:
    def __init__(self, jobs: Jobs, code: Code, data: Data, people: People) -> None:
        self._jobs = jobs
        self._code = code
        self._data = data
        self._people = people

    async def create(self, request: Request) -> Answer:
        """Code as a form of thousands of files, or the announcement of data as JSON."""
        content_type = (request.header(b"content-type") or b"").decode("latin-1")
        if not content_type.lower().startswith("multipart/"):
            return await self._data.create(request, await json_object(request, _LARGEST))
        user = self._people.who(request)
        user.named()  # before anything is read

        async def accept(said: Mapping[str, Any]) -> Home:
            project = await self._project(user, said)
            # What run_module would refuse is refused before the code is kept; mounts and limits come with that call only.
            wanted = merged(
                given_options(said, said), either(said, said, "yaml_config"), either(said, said, "task"), default_options(said, said)
            )
            environment_names.check(wanted.environment)
            return Home(project.owner, project.name, project.id)

        length = request.header(b"content-length")
        size = int(length) if length is not None and length.isdigit() else None
        module = await self._code.add(request.pieces(self._code.limits.largest_body), content_type, accept, length=size)
        return success({"id": module.id, "name": f"{module.owner}/projects/{module.project}", "files": module.files, "size": module.size})

    async def one(self, request: Request, name: str) -> Answer:
        """By id; data also by its name, which has slashes."""
        if "/" not in name:
            try:
                return success(_code_object(await self.code(request, name)))
            except ServingError as error:
                if error.kind is not Kind.NOT_FOUND:
                    raise
        return success(await self._data.shown(request, name))

    async def code(self, request: Request, module_id: str) -> Module:
        """Code of the caller. Raises NOT_FOUND."""
        module = await self._code.module(module_id)
        check_seen(self._people.who(request), module.owner, f"code {quoted(module_id)}")
        return module

    async def all(self, request: Request) -> Answer:
        """The versions of a data set, or of all that somebody has, as clients before 0.11 ask: nothing else is listed."""
        said = dict(parse_qsl(request.query.decode("latin-1")))
        family = said.get("family_id", "")
        if family or "username" not in said:
            return success(await self._data.versions(request, family))
        return success(await self._data.versions_of(request, said["username"]))

    async def _project(self, user: User, said: Mapping[str, Any]) -> Project:
        """The one that the code is for. The client has a text of its own for the words of this refusal."""
        family, name = said.get("family_id"), said.get("name")
        try:
            if isinstance(family, str) and family:
                project = await self._jobs.project(family)
            elif isinstance(name, str) and name.count("/") in (1, 2):
                owner, _, short = name.replace("/projects/", "/").partition("/")
                project = await self._jobs.look_up_project(owner, short, create=owner == user.name)
            else:
                raise invalid("name is missing, expected USER/PROJECT", "name")
            check_seen(user, project.owner, f"project {project.full_name}")
        except ServingError as error:
            if error.kind is Kind.NOT_FOUND:
                raise invalid(f"Project not found, ID {quoted(str(family or name))}", "project") from None
            raise
        return project


def _code_object(module: Module) -> dict[str, Any]:
    """Texts where the client wants texts: what nobody gave is empty, not null."""
    said = module.request
    wanted = merged(given_options(said, said), either(said, said, "yaml_config"), either(said, said, "task"), default_options(said, said))
    return {
        "id": module.id,
        "name": f"{module.owner}/projects/{module.project}",
        "description": wanted.description,
        "command": wanted.command,
        "mode": TASK_MODES[wanted.mode],
        "module_type": "code",
        "family_id": module.project_id,
        "env": wanted.environment,
        "instance_type": wanted.instance,
        "resource_id": f"code.{module.id}",
        "inputs": [],
        "outputs": [{"name": "output", "type": "dir"}],
        "size": module.size,
        "files": module.files,
    }
