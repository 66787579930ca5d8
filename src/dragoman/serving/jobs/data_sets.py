"""Data sets and their versions: made, named, mounted, shown, removed. The facade `DataSets`, made by server/jobs.py; `uploads` is how they get in.

Called by dialects/floydhub and by the runner (`folder`: what is mounted). Knows nothing of HTTP, and nothing of who may see what: that is the
caller's. What a version is, is a document of the store; its files are in jobs/data/ID, or in a folder of the server below a --data-root.
"""

import asyncio
import re
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.serving.jobs import browsing
from dragoman.serving.jobs.browsing import Content, Download, Listing
from dragoman.serving.jobs.data_kept import KeptData, no_data
from dragoman.serving.jobs.data_records import DataSet, DataState, DataVersion, data_set_id
from dragoman.serving.jobs.data_unpacking import DataLimits
from dragoman.serving.jobs.data_uploads import EXPIRY_S, DataUploads
from dragoman.serving.jobs.records import check_name, new_id
from dragoman.serving.late_store import LateStore
from dragoman.serving.roots import Roots
from dragoman.serving.settings import quoted
from dragoman.serving.threads import to_the_end

PARTS = {"output": "output", "home": "home", "files": "home"}
"""What may be named of a job, and its folder. Its code as it was uploaded is Code's."""
_OF_JOB = re.compile(rf"([A-Za-z0-9]{{1,64}})\.({'|'.join(PARTS)})")
_VERSION_NAME = re.compile(r"([^/]+)/(?:datasets/)?([^/]+)(?:/([1-9][0-9]{0,8}))?/?")


class DataSets:
    """`folder` is the data directory's jobs/, `place` answers that directory's name and may block, `roots` are the settings' --data-root.

    Whatever takes an id or a name raises NOT_FOUND (what="data") for an unknown one, UNAVAILABLE while the store is.
    """

    def __init__(
        self,
        store: LateStore,
        folder: Path,
        place: Callable[[], str] = str,
        *,
        roots: Sequence[str] = (),
        limits: DataLimits | None = None,
        expiry_s: float = EXPIRY_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kept = KeptData(store, place)
        self._folder = folder
        self._place = place
        self._roots = Roots.of_data(roots, folder.parent)
        self._clock = clock
        self._later: set[asyncio.Task[None]] = set()
        self.uploads = DataUploads(self._kept, folder, limits, expiry_s=expiry_s, clock=clock)

    async def start(self) -> None:
        """Raises INVALID_INPUT for a --data-root that is no folder."""
        await asyncio.to_thread(self._roots.check)

    async def sweep(self) -> None:
        """Go on with what a server before left, and give up uploads that nothing came for. Called now and then by one process."""
        await self.uploads.sweep()

    async def close(self) -> None:
        await self.uploads.close()
        for task in self._later:
            task.cancel()
        await asyncio.gather(*self._later, return_exceptions=True)

    # --- sets ---

    async def look_up(self, owner: str, name: str, *, create: bool = False) -> DataSet:
        """A set by its name, made with `create` where there is none (requirement F3). Raises INVALID_INPUT for a name that none can have."""
        found = await self._kept.data_set(data_set_id(check_name(owner, "owner"), check_name(name, "name")))
        if found is not None:
            return found
        if not create:
            raise no_data(f"{owner}/datasets/{name}")
        return await self._kept.make(DataSet(data_set_id(owner, name), owner, name, self._clock()))

    async def data_set(self, identity: str) -> DataSet:
        found = await self._kept.data_set(identity)
        if found is None:
            raise no_data(identity)
        return found

    async def data_sets(self, owner: str | None = None) -> list[DataSet]:
        """Of one owner, or all; oldest first."""
        return await self._kept.data_sets(owner)

    # --- versions ---

    async def create(self, identity: str, description: str = "") -> DataVersion:
        """The next version of a set, which waits for its upload."""
        version = await self._next(identity, description)
        await self._kept.add(version)
        return version

    async def version(self, name: str) -> DataVersion:
        """By id, or by name: owner/datasets/x/N or owner/x/N; without N the newest that is valid, else the newest."""
        if "/" not in name:
            found = await self._kept.version(name)
        else:
            match = _VERSION_NAME.fullmatch(name)
            if match is None:
                raise no_data(name)
            versions = await self._kept.versions(data_set_id(match[1], match[2]))
            if match[3]:
                versions = [version for version in versions if version.number == int(match[3])]
            found = max(versions, key=lambda version: (version.state is DataState.VALID, version.number), default=None)
        if found is None:
            raise no_data(name)
        self.uploads.settle(found)
        return found

    async def versions_of(self, identity: str) -> list[DataVersion]:
        """Those of a set, newest first."""
        return sorted(await self._kept.versions(identity), key=lambda version: version.number, reverse=True)

    async def add_folder(self, identity: str, source: str, description: str = "") -> DataVersion:
        """The next version of a set: a folder of the server as it is, named and not copied. `source` is file:///DIR, or a path below a data root.

        Raises INVALID_INPUT (what="source") for what is outside of every root, or no folder.
        """
        place = await asyncio.to_thread(self._resolve, source)
        version = replace(await self._next(identity, description), folder=str(place), state=DataState.VALID)
        await self._kept.add(version)
        self._in_background(self._count(version, place))  # there may be millions of files, and the client waits
        return version

    async def add_job(self, identity: str, job_id: str, part: str, description: str = "") -> DataVersion:
        """The next version of a set: a copy of what a job has now, `part` as in PARTS. Returned WAITING, copied afterwards.

        Raises NOT_FOUND when the job has no such folder.
        """
        download = await asyncio.to_thread(browsing.download_folder, self._job_folder(job_id, part))
        return await self.add_tar(identity, download, description)

    async def add_tar(self, identity: str, tar: Download, description: str = "") -> DataVersion:
        """The next version of a set, out of a tar file that the server makes: a job's files, or its code. Returned at once, unpacked afterwards."""
        version = await self._next(identity, description)
        await self._kept.add(version)
        self._in_background(self.uploads.take(version, tar.chunks, tar.size))
        return version

    async def of_job(self, job_id: str, job_name: str, owner: str, part: str) -> DataVersion:
        """What a job has, as if it were a version: it can be mounted, shown and downloaded by its id; it is kept nowhere."""
        folder = self._job_folder(job_id, part)
        try:
            files, size = await asyncio.to_thread(browsing.measure, folder)
        except OSError:
            raise no_data(f"{job_name}/{part}") from None
        return DataVersion(
            f"{job_id}.{part}",
            0,
            owner,
            "",
            "",
            self._clock(),
            state=DataState.VALID,
            size=size,
            files=files,
            title=f"{job_name}/{part}",
        )

    async def remove(self, version: DataVersion, mounted: Collection[str] = ()) -> None:
        """Forget a version and remove its files, those that are ours. Raises CONFLICT when it is among `mounted`: the ids that jobs need."""
        if version.id in mounted:
            raise ServingError(Kind.CONFLICT, f"{version.name} is mounted by a job that has not ended", what="data")
        if not await self._kept.remove(version.id):
            raise no_data(version.name)
        await self.uploads.forget(version.id)

    # --- files ---

    async def folder(self, identity: str) -> Path:
        """Where the files of a valid version, or of `of_job`, are: what is mounted, read-only. Raises NOT_READY (what="data") before it is valid.

        INVALID_INPUT for one that never will be, or whose folder of the server is no longer below a data root.
        """
        match = _OF_JOB.fullmatch(identity)
        if match is not None:
            return await asyncio.to_thread(self._there, self._job_folder(match[1], match[2]), identity)
        version = await self.version(identity)
        if version.state is DataState.INVALID:
            raise invalid(f"{version.name} cannot be used: {version.reason}", "data")
        if version.state is not DataState.VALID:
            raise ServingError(Kind.NOT_READY, f"{version.name} is not ready ({version.state.value})", what="data", retry_after_s=10.0)
        if version.folder:
            return await asyncio.to_thread(self._resolve, version.folder)
        return await asyncio.to_thread(self._there, self._folder / "data" / version.id, version.name)

    async def browse(self, identity: str, path: str = "") -> Listing | Content:
        """What a folder of it holds, or a file. Raises NOT_FOUND (what="file"), INVALID_INPUT (what="path"), and as `folder`."""
        return await asyncio.to_thread(browsing.browse_folder, await self.folder(identity), path)

    async def download(self, identity: str, path: str = "") -> Download:
        """A folder of it as a tar file. Raises as `browse`."""
        return await asyncio.to_thread(browsing.download_folder, await self.folder(identity), path)

    # --- inside ---

    async def _next(self, identity: str, description: str) -> DataVersion:
        numbered = await self._kept.next_number(identity)
        return DataVersion(
            new_id(),
            numbered.last,
            numbered.owner,
            numbered.name,
            numbered.id,
            self._clock(),
            description=description,
            public=numbered.public,
            place=await to_the_end(self._place),
        )

    def _job_folder(self, job_id: str, part: str) -> Path:
        if part not in PARTS or not _OF_JOB.fullmatch(f"{job_id}.{part}"):
            raise no_data(f"{job_id}/{part}")
        return self._folder / "run" / job_id / PARTS[part]

    def _there(self, folder: Path, name: str) -> Path:
        if not folder.is_dir():
            raise no_data(name)
        return folder

    def _resolve(self, source: str) -> Path:
        if not self._roots.roots:
            raise invalid("folders of the server cannot be named as data sets: the server was started without --data-root DIR", "source")
        found = self._roots.resolve(source)
        if not found.is_dir():
            raise invalid(f"the source {quoted(source)} is a file, expected a folder", "source")
        if self._roots.holds_own(found):
            raise invalid(f"the source {quoted(source)} has the server's own data directory in it; name folders beside that", "source")
        return found

    async def _count(self, version: DataVersion, place: Path) -> None:
        with suppress(OSError, ServingError):  # it is only shown
            files, size = await asyncio.to_thread(browsing.measure, place)
            await self._kept.edit(version.id, lambda now: replace(now, files=files, size=size))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)
