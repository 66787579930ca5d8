"""Projects: looked up, and made by the first look-up of their owner (FloydHub requirement F3)."""

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Answer, Request
from dragoman.dialects.floydhub.answers import success
from dragoman.dialects.floydhub.people import People, User
from dragoman.dialects.floydhub.shapes import project_object
from dragoman.serving.jobs.records import Project
from dragoman.serving.jobs.service import Jobs


class Projects:
    def __init__(self, jobs: Jobs, people: People) -> None:
        self._jobs = jobs
        self._people = people

    async def one(self, request: Request, owner: str, name: str) -> Answer:
        user = self._people.who(request)
        check_seen(user, owner, f"project {owner}/{name}")
        project = await self._jobs.look_up_project(owner, name, create=user.makes(owner) and request.method == "GET")
        return success(await self._shown(project))

    async def by_id(self, request: Request, identity: str) -> Answer:
        """What clients before 0.11 want to know before they run anything. Whoever is called `id` has projects, too."""
        try:
            project = await self._jobs.project(identity)
        except ServingError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            return await self.one(request, "id", identity)
        check_seen(self._people.who(request), project.owner, f"project {identity}")
        return success(await self._shown(project))

    async def all(self, request: Request) -> Answer:
        user = self._people.who(request)
        found = await self._jobs.projects(None if user.everything else user.named())
        return success({"projects": [await self._shown(project) for project in found]})

    async def _shown(self, project: Project) -> dict[str, object]:
        jobs = await self._jobs.jobs_of(project.id)
        return project_object(project, jobs[0] if jobs else None)


def check_seen(user: User, owner: str, what: str) -> None:
    """Raises NOT_FOUND for what belongs to somebody else: in the words of what is not there, so that nobody learns which names there are."""
    if not user.sees(owner):
        raise ServingError(Kind.NOT_FOUND, f"there is no {what[:200]}", what="job")
