"""Whatever has content: logs, code, data, files of jobs. As text, as listings, as single files and as tar files (sheet, section 8).

A resource's id says what it is of: log.JOB, code.MODULE, JOB.home, JOB.output, and of uploaded data its own id.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.dialects import Answer, Request
from dragoman.dialects.floydhub.answers import success
from dragoman.dialects.floydhub.data import Data
from dragoman.dialects.floydhub.experiments import Experiments
from dragoman.dialects.floydhub.modules import Modules
from dragoman.dialects.floydhub.people import People
from dragoman.dialects.floydhub.shapes import date
from dragoman.serving.jobs.browsing import Content, Download, Listing
from dragoman.serving.jobs.code import Code
from dragoman.serving.jobs.data_records import DataState, size_text
from dragoman.serving.jobs.data_sets import DataSets
from dragoman.serving.jobs.service import Jobs
from dragoman.serving.settings import quoted

_TEXT = b"text/plain; charset=utf-8"
"""Without a charset the client crashes."""
_BYTES = b"application/octet-stream"
_TAR = b"application/x-tar"


class Resources:
    def __init__(
        self, jobs: Jobs, code: Code, data: DataSets, modules: Modules, shown: Data, experiments: Experiments, people: People
    ) -> None:
        self._jobs = jobs
        self._code = code
        self._data = data
        self._modules = modules
        self._shown = shown
        self._experiments = experiments
        self._people = people

    async def one(self, request: Request, resource: str) -> Answer:
        said = dict(parse_qsl(request.query.decode("latin-1"), keep_blank_values=True))
        kind, _, of = resource.partition(".")
        if kind == "log":
            return (
                Answer(200, await self._log(request, of), _TEXT) if _yes(said, "content") else success(_about(resource, "log", "valid", 0))
            )
        if _yes(said, "download"):
            return await self._download(request, resource, "")
        if _yes(said, "content"):
            return await self.file(request, resource, "")
        if kind == "code":
            module = await self._modules.code(request, of)
            return success(_about(resource, "code", "valid", module.size, module.created))
        version = await self._shown.version(self._people.who(request), resource)
        return success(_about(resource, "data", version.state.value, version.size, version.created))

    async def inside(self, request: Request, resource: str, path: str) -> Answer:
        """RID/state, and with ?content=true whatever lies at a path, which may be called so, too."""
        if path == "state" and b"content=" not in request.query:
            return await self.state(request, resource)
        return await self.file(request, resource, path)

    async def state(self, request: Request, resource: str) -> Answer:
        """A JSON text. The client asks until it is "valid", for half an hour: what never will be is an error, with the reason."""
        if resource.startswith(("log.", "code.")):
            return success("valid")
        version = await self._shown.version(self._people.who(request), resource)
        if version.state is DataState.INVALID:
            raise invalid(f"{version.name} is invalid: {version.reason}", "data")
        return success(version.state.value)

    async def file(self, request: Request, resource: str, path: str) -> Answer:
        """A folder's listing, or a file."""
        kind, _, of = resource.partition(".")
        if kind == "code":
            found = await self._code.browse((await self._modules.code(request, of)).id, path)
        else:
            version = await self._shown.version(self._people.who(request), resource)
            found = await self._data.browse(version.id, path)
        if isinstance(found, Content):
            return _file(found)
        return success(_listing(found))

    async def artifacts(self, request: Request, kind: str, identity: str) -> Answer:
        """A folder of a job's code or files, or of data, as a tar file: ?is_dir=true&path=P."""
        said = dict(parse_qsl(request.query.decode("latin-1"), keep_blank_values=True))
        match kind:
            case "code":
                job = await self._experiments.seen(request, identity)
                resource = f"code.{job.code}"
            case "files":
                job = await self._experiments.seen(request, identity)
                resource = f"{job.id}.{'output' if said.get('part') == 'output' else 'home'}"
            case "data":
                resource = identity
            case _:
                raise ServingError(
                    Kind.NOT_FOUND, f"there are no artifacts of the kind {quoted(kind)}; there are code, files and data", what="path"
                )
        path, read = said.get("path", ""), self._download if _yes(said, "is_dir") else self.file
        try:
            return await read(request, resource, path)
        except ServingError as error:
            if error.kind is not Kind.NOT_FOUND or kind != "files" or "part" in said:
                raise
            return await read(request, f"{identity}.output", path)  # on FloydHub what a job keeps is all in one folder

    async def _download(self, request: Request, resource: str, path: str) -> Answer:
        kind, _, of = resource.partition(".")
        if kind == "code":
            module = await self._modules.code(request, of)
            return _tar(await self._code.download(module.id, path))
        version = await self._shown.version(self._people.who(request), resource)
        return _tar(await self._data.download(version.id, path))

    async def _log(self, request: Request, job_id: str) -> bytes:
        job = await self._experiments.seen(request, job_id)
        return (await self._jobs.log(job)).encode("utf-8", "replace")


def _yes(said: Mapping[str, str], key: str) -> bool:
    return said.get(key, "").lower() in ("true", "1", "yes")


def _tar(download: Download) -> Answer:
    """Its exact length is known at its end; the client shows its progress by this header."""
    return Answer(200, download.chunks, _TAR, [(b"x-floydhub-content-length", str(download.size).encode())])


def _file(content: Content) -> Answer:
    return Answer(
        200, content.chunks, _BYTES, [(b"x-floydhub-content-length", str(content.size).encode()), (b"x-content-type-options", b"nosniff")]
    )


def _listing(found: Listing) -> dict[str, Any]:
    files = [{"name": e.name, "type": "directory" if e.is_folder else "file", "size": e.size} for e in found.entries]
    return {"files": files, "skipped_files": found.skipped, "total_files": len(files) + found.skipped}


def _about(resource: str, kind: str, state: str, size: int, created: float | None = None) -> dict[str, Any]:
    when = date(created) if created is not None else None
    return {
        "id": resource,
        "state": state,
        "resource_type": kind,
        "size": size_text(size),
        "date_finalized": when if state == "valid" else None,
        "date_last_updated": when,
    }
