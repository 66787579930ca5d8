"""Data sets and their versions as this API shows them: made, named, listed, mounted, removed. Uploads are in tus.py, files in resources.py."""

from collections.abc import Mapping, Sequence
from typing import Any

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.jobs import ENDED, Job, Mount
from dragoman.dialects import Answer, Request
from dragoman.dialects.documents import json_object
from dragoman.dialects.floydhub.answers import success
from dragoman.dialects.floydhub.people import People, User
from dragoman.dialects.floydhub.projects import check_seen
from dragoman.dialects.floydhub.shapes import date
from dragoman.serving.jobs.code import Code
from dragoman.serving.jobs.data_records import DataSet, DataState, DataVersion, size_text
from dragoman.serving.jobs.data_sets import DataSets
from dragoman.serving.jobs.floyd_yml import mount_name
from dragoman.serving.jobs.service import Jobs
from dragoman.serving.settings import quoted

_LARGEST = 1 << 20
_PARTS = {"output": "output", "home": "home", "files": "home"}
"""What is named behind a job's name, and the part of the job that is meant. Without any it is its files."""
_CODE = "/code"
"""Behind a job's name: its code as it was uploaded, which can be made into data, but not be mounted as it is."""
_INPUT = "input"
"""Where a single data set was before its place had to be said."""


class Data:
    def __init__(self, jobs: Jobs, code: Code, data: DataSets, people: People) -> None:
        self._jobs = jobs
        self._code = code
        self._data = data
        self._people = people

    # --- sets ---

    async def data_set(self, request: Request, owner: str, name: str) -> Answer:
        """Made by the first look-up of its owner (requirement F3)."""
        user = self._people.who(request)
        check_seen(user, owner, f"data set {owner}/{name}")
        return success(_set_object(await self._data.look_up(owner, name, create=user.makes(owner) and request.method == "GET"), user))

    async def data_sets(self, request: Request) -> Answer:
        user = self._people.who(request)
        found = await self._data.data_sets(None if user.everything else user.named())
        return success({"datasets": [_set_object(each, user) for each in found]})

    async def add(self, request: Request, identity: str) -> Answer:
        """A version out of what a job has, or out of a folder of the server."""
        user = self._people.who(request)
        await self._own_set(user, identity)
        body = await json_object(request, _LARGEST)
        source, description = _text(body, "source"), _text(body, "description", "")
        if "/projects/" in source and source.rstrip("/").endswith(_CODE):
            job = await self._job(user, source.rstrip("/").removesuffix(_CODE))
            version = await self._data.add_tar(identity, await self._code.download(job.code), description)
        elif "/projects/" in source:
            job_id, _, _, part = await self._job_part(user, source)
            version = await self._data.add_job(identity, job_id, part, description)
        else:
            version = await self._data.add_folder(identity, source, description)
        return success({"data_id": version.id, "name": version.name})

    # --- versions ---

    async def create(self, request: Request, body: Mapping[str, Any]) -> Answer:
        user = self._people.who(request)
        if body.get("module_type") != "data":
            raise invalid("expected code as multipart/form-data, or JSON with module_type data", "module_type")
        owner, _, name = _text(body, "name").replace("/datasets/", "/").partition("/")
        family = body.get("family_id")
        try:
            if isinstance(family, str) and family:
                found = await self._own_set(user, family)
            else:
                check_seen(user, owner, f"data set {owner}/{name}")
                found = await self._data.look_up(owner, name, create=owner == user.name)
        except ServingError as error:
            if error.kind is Kind.NOT_FOUND:  # the client has a text of its own for the words of this refusal
                raise invalid(f"Dataset not found, ID {quoted(str(family or name))}", "data") from None
            raise
        version = await self._data.create(found.id, _text(body, "description", ""))
        return success({"id": version.id, "name": version.name})

    async def credentials(self, request: Request, identity: str) -> Answer:
        version = await self._own_version(self._people.who(request), identity)
        upload, token = await self._data.uploads.credentials(version.id)
        return success({"data_upload_id": upload, "token": token})

    async def shown(self, request: Request, name: str) -> dict[str, Any]:
        user = self._people.who(request)
        return _version_object(await self.version(user, name), user)

    async def versions(self, request: Request, family: str) -> list[dict[str, Any]]:
        user = self._people.who(request)
        await self._own_set(user, family, public=True)
        return [_version_object(each, user) for each in await self._data.versions_of(family)]

    async def versions_of(self, request: Request, owner: str) -> list[dict[str, Any]]:
        """Of all data sets of somebody, newest first."""
        user = self._people.who(request)
        check_seen(user, owner, f"data of {quoted(owner)}")
        found = [each for data_set in await self._data.data_sets(owner) for each in await self._data.versions_of(data_set.id)]
        return [_version_object(each, user) for each in sorted(found, key=lambda version: version.created, reverse=True)]

    async def remove(self, request: Request, identity: str) -> Answer:
        version = await self._own_version(self._people.who(request), identity)
        mounted = {mount.data for job in await self._jobs.jobs() if job.phase not in ENDED for mount in job.mounts}
        await self._data.remove(version, mounted)
        return success({})

    async def version(self, user: User, name: str, owner: str = "") -> DataVersion:
        """By id or name, of a job's files too; a name without a user is of `owner`, by default of the caller.

        Raises NOT_FOUND for what the caller does not see.
        """
        name, owner = user.full(name), owner or user.name
        if "/projects/" in name or name.partition(".")[2] in _PARTS:
            return await self._data.of_job(*await self._job_part(user, name))
        try:
            version = await self._data.version(name)
        except ServingError as error:
            if error.kind is not Kind.NOT_FOUND or not owner or name.count("/") > 1:
                raise
            try:
                version = await self._data.version(f"{owner}/{name}")
            except ServingError:
                raise error from None
        if not version.public:
            check_seen(user, version.owner, f"data set {quoted(name)}")
        return version

    async def mounts(self, user: User, inputs: Sequence[tuple[str, str]], owner: str) -> tuple[Mount, ...]:
        """What a run asks for, each in its place. Raises INVALID_INPUT for data that is not there or not ready, or a place that is none."""
        found: list[Mount] = []
        for source, place in inputs:
            try:
                version = await self.version(user, source, owner)
                await self._data.folder(version.id)
            except ServingError as error:
                if error.kind not in (Kind.NOT_FOUND, Kind.NOT_READY):
                    raise
                raise invalid(f"the data {quoted(source)} cannot be mounted: {error.message}", "data") from None
            name = mount_name(place or (_INPUT if len(inputs) == 1 else version.id), {each.name for each in found})
            found.append(Mount(version.id, name, version.name))
        return tuple(found)

    # --- inside ---

    async def _job_part(self, user: User, name: str) -> tuple[str, str, str, str]:
        """Id, name and owner of a job, and which part of it: USER/projects/X/N/output, or ID.output."""
        if "/" in name:
            parts = name.strip("/").split("/")
            word = parts[4] if len(parts) == 5 else "files"
            named = "/".join(parts[:4])
        else:
            named, _, word = name.partition(".")
        if word not in _PARTS:
            raise invalid(f"{quoted(name)} does not say which files of a job are meant; expected {', '.join(_PARTS)} at its end", "data")
        job = await self._job(user, named)
        return job.id, job.name, job.owner, _PARTS[word]

    async def _job(self, user: User, name: str) -> Job:
        job = await self._jobs.job(name)
        check_seen(user, job.owner, f"job {quoted(name)}")
        return job

    async def _own_set(self, user: User, identity: str, *, public: bool = False) -> DataSet:
        found = await self._data.data_set(identity)
        if not (public and found.public):
            check_seen(user, found.owner, f"data set {quoted(identity)}")
        return found

    async def _own_version(self, user: User, name: str) -> DataVersion:
        version = await self._data.version(user.full(name))
        check_seen(user, version.owner, f"data set {quoted(name)}")
        return version


def _set_object(found: DataSet, user: User) -> dict[str, Any]:
    return {
        "id": found.id,
        "name": found.name,
        "owner": found.owner,
        "description": found.description,
        "public": found.public or user.everything,
    }


def _version_object(version: DataVersion, user: User) -> dict[str, Any]:
    """The client mounts data of others only if it is public: where everybody sees everything, all is."""
    return {
        "module_type": "DataModule",
        "id": version.id,
        "name": version.name,
        "date_created": date(version.created),
        "description": version.description,
        "data": {"state": version.state.value, "size": size_text(version.size)},
        "version": str(version.number) if version.number else None,
        "resource_id": version.id,
        "public": version.public or user.everything,
        "reason": version.reason,
        "files": version.files,
        "ready": version.state is DataState.VALID,
    }


def _text(body: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = body.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or (not value and default is None):
        raise invalid(f"{key} is missing, expected a text", key)
    return value
