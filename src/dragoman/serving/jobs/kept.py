"""Projects and jobs in the store: every change of a record goes through here, and this process's board shows it at once. Made by server/jobs.py."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from dragoman.core.errors import Kind, ServingError
from dragoman.core.jobs import Job
from dragoman.serving.jobs.board import Board
from dragoman.serving.jobs.records import JOB, PROJECT, Project, job_document, project_document, read_job, read_project
from dragoman.serving.late_store import LateStore
from dragoman.serving.settings import quoted

Edit = Callable[[Job], Job]


@dataclass(frozen=True, slots=True)
class Kept:
    """The records of projects and jobs. Everybody reads and writes them through one of these; every method raises UNAVAILABLE while the store is."""

    store: LateStore
    board: Board

    async def job(self, job_id: str) -> Job | None:
        store = await self.store.existing()
        document = await store.document(JOB, job_id) if store is not None else None
        return None if document is None else read_job(document)

    async def jobs(self, project: str | None = None) -> list[Job]:
        """Of one project, or all, the oldest first."""
        store = await self.store.existing()
        if store is None:
            return []
        return [read_job(each) for each in await store.documents(JOB, None if project is None else [project])]

    async def add(self, job: Job) -> None:
        store = await self.store.get()
        document = job_document(job)
        await store.edit_document(JOB, job.id, lambda _: document, group=job.project_id, rings=True)
        self.board.put(job)

    async def edit(self, job_id: str, change: Edit) -> Job:
        """Change a job in one transaction. `change` may raise, and may be called twice. Raises NOT_FOUND for a job that is not there."""
        store = await self.store.get()

        def edited(document: object) -> dict[str, object]:
            if not isinstance(document, dict):
                raise no_job(job_id)
            return job_document(change(read_job(document)))

        try:
            job = read_job(await store.edit_document(JOB, job_id, edited, rings=True))
        except ServingError as error:
            if error.kind is Kind.NOT_FOUND:
                self.board.drop(job_id)
            raise
        self.board.put(job)
        return job

    async def remove(self, job: Job) -> bool:
        """What it has used is added to its project's account, once."""
        store = await self.store.get()
        gone = await store.remove_document(JOB, job.id, rings=True)
        self.board.drop(job.id)
        if gone:
            await self._edit_project(
                job.project_id, lambda now: replace(now, deleted_s=now.deleted_s + job.ran_s, deleted_calls=now.deleted_calls + job.calls)
            )
        return gone

    async def project(self, identity: str) -> Project | None:
        store = await self.store.existing()
        document = await store.document(PROJECT, identity) if store is not None else None
        return None if document is None else read_project(document)

    async def projects(self, owner: str | None = None) -> list[Project]:
        store = await self.store.existing()
        if store is None:
            return []
        return [read_project(each) for each in await store.documents(PROJECT, None if owner is None else [owner])]

    async def make_project(self, project: Project) -> Project:
        """This one, or the one that is there already."""
        store = await self.store.get()
        new = project_document(project)
        return read_project(await store.edit_document(PROJECT, project.id, lambda old: old or new, group=project.owner))

    async def next_number(self, identity: str) -> Project:
        """The project with its next number taken, in one transaction: no two jobs get the same. Raises NOT_FOUND."""
        return await self._edit_project(identity, lambda now: replace(now, last=now.last + 1))

    async def _edit_project(self, identity: str, change: Callable[[Project], Project]) -> Project:
        store = await self.store.get()

        def edited(document: object) -> dict[str, object]:
            if not isinstance(document, dict):
                raise no_project(identity)
            return project_document(change(read_project(document)))

        return read_project(await store.edit_document(PROJECT, identity, edited))


def no_job(name: str) -> ServingError:
    return ServingError(Kind.NOT_FOUND, f"there is no job {quoted(name)}", what="job")


def no_project(name: str) -> ServingError:
    return ServingError(Kind.NOT_FOUND, f"there is no project {quoted(name)}", what="project")
