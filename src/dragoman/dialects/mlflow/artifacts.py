"""MLflow's artifact API, `/api/2.0/mlflow-artifacts/artifacts/PATH`: what clients upload with their models. Routed to by registry.py.

Uploads are written to the disk while they come, downloads are read while they go. What a registered version consists of does not change any
more. Bytes of models are for admin keys, where keys are in force.
"""

from pathlib import Path, PurePosixPath
from urllib.parse import quote

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Access, Answer, Request, Route, Services
from dragoman.dialects.mlflow.wire import TEXT, answer, fields
from dragoman.serving.library.packing import ONLY

_SAFE = [
    (b"content-security-policy", b"default-src 'none'; sandbox; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
]
"""What somebody uploaded may be a page: no browser runs it."""


class Artifacts:
    """The handlers."""

    def __init__(self, services: Services) -> None:
        self._folder = services.artifacts
        self._catalog = services.catalog
        self._max_inflated = services.max_inflated

    def methods(self, parts: list[str]) -> dict[str, Route]:
        """What a path below `artifacts` has, by method. `parts` are its segments."""
        path = "/".join(part for part in parts if part)
        if not path:
            return {"GET": Route(self._list, Access.ADMIN)}
        handlers = {"GET": self._get, "PUT": self._put, "DELETE": self._delete}
        return {method: Route(handler, Access.ADMIN, (path,)) for method, handler in handlers.items()}

    async def _list(self, request: Request) -> Answer:
        """The entries of the folder `path`, with names relative to it; none for a file, and none for what is not there."""
        path = (await fields(request, self._max_inflated)).text("path", "", longest=TEXT)
        listed = await self._folder.listed(path)
        return answer(
            {
                "files": [
                    {"path": each.name, "is_dir": each.is_folder} | ({} if each.is_folder else {"file_size": each.size}) for each in listed
                ]
            }
        )

    async def _get(self, request: Request, path: str) -> Answer:
        size, content = await self._folder.open(path)
        name = PurePosixPath(path).name
        headers = [
            *_SAFE,
            (b"content-length", str(size).encode()),
            (b"content-disposition", f"attachment; filename*=UTF-8''{quote(name, safe='')}".encode()),
        ]
        return Answer(200, content, b"application/octet-stream", headers)

    async def _put(self, request: Request, path: str) -> Answer:
        await self._refuse_registered(path)
        await self._folder.put(path, request.read)
        return answer({})

    async def _delete(self, request: Request, path: str) -> Answer:
        await self._refuse_registered(path)
        await self._folder.remove(path)
        return answer({})

    async def _refuse_registered(self, path: str) -> None:
        """Raise CONFLICT where a path is, holds, or lies in the files of a registered version and there is something to be lost."""
        if not await self._folder.exists(path):
            return
        target = await self._folder.resolve(path)
        for version in await self._catalog.versions():
            place = Path(version.folder, version.manifest.get(ONLY, ""))
            if version.folder and (target.is_relative_to(place) or place.is_relative_to(target)):
                words = f"'{path[:200]}' belongs to version {version.version} of model '{version.model}', whose files do not change"
                raise ServingError(Kind.CONFLICT, f"{words}: delete that version first", what="artifact")
