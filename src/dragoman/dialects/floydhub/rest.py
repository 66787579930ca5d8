"""FloydHub's REST API below /api/v1: which path means what. Made by the server, once.

Submarine's API has the same prefix and other first words. A host with a slash at its end makes clients ask for //api/v1, which is the same.
Endpoints of jobs are another dialect (endpoint.py).
"""

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Access, Answer, Handler, Request, Route, Services, chosen, path_text
from dragoman.dialects.floydhub.answers import refusal, success
from dragoman.dialects.floydhub.data import Data
from dragoman.dialects.floydhub.experiments import Experiments
from dragoman.dialects.floydhub.modules import Modules
from dragoman.dialects.floydhub.people import People
from dragoman.dialects.floydhub.projects import Projects
from dragoman.dialects.floydhub.resources import Resources
from dragoman.dialects.floydhub.tus import Tus
from dragoman.serving.jobs import environment_names

Methods = dict[str, Route]

_WORDS = (
    "cli_version",
    "user",
    "env",
    "projects",
    "modules",
    "experiments",
    "taskinstances",
    "datasets",
    "resources",
    "download",
    "upload",
)


_NAMED = ("modules", "experiments")
"""What follows them is a name, whose first part may be left empty: see User.full."""

_ORIGINAL = b"x-floydhub-cli-version"
"""What FloydHub's client says of itself, and ours as well."""


class FloydHub:
    """A Dialect."""

    name = "floydhub"
    prefixes: tuple[str, ...] = tuple(f"{start}/{word}" for start in ("/api/v1", "//api/v1") for word in _WORDS)

    def __init__(self, services: Services) -> None:
        self._people = People(services.accounts)
        self._parts = _Parts(services, self._people) if services.jobs is not None else None

    def route(self, request: Request) -> Route:
        return chosen(request, self._methods(request))

    def refuse(self, request: Request, error: ServingError) -> Answer:
        ours = (request.header(b"user-agent") or b"").startswith(b"dragoman/")
        original = request.header(_ORIGINAL) is not None and not ours
        return refusal(error, self._methods(request) if error.what == "method" else (), original=original)

    def _methods(self, request: Request) -> Methods:
        """What a path has, by method; nothing for a path that does not exist."""
        raw = request.raw_path.removeprefix(b"/") if request.raw_path.startswith(b"//") else request.raw_path
        parts = [path_text(part) for part in raw.split(b"/")[3:]]
        if len(parts) > 1 and not parts[-1]:  # one slash at the end changes nothing
            parts.pop()
        if not all(parts[:1]) or not all(parts[2:]):
            return {}
        if not all(parts) and parts[0] not in _NAMED:
            return {}
        match parts:
            case ["cli_version"]:
                return {"GET": Route(_version, Access.PUBLIC)}
            case ["env"]:
                return {"GET": Route(_environments, Access.PUBLIC)}
            case ["user"]:
                return {"GET": _own(self._people.me)}
            case ["user", "login"]:
                return {"POST": Route(self._people.login, Access.PUBLIC)}
        if parts[0] not in _WORDS or parts[0] in ("cli_version", "env", "user"):
            return {}
        return self._parts.methods(parts) if self._parts is not None else dict.fromkeys(_METHODS, Route(_no_jobs, Access.PUBLIC))


class _Parts:
    """What there is where jobs run."""

    def __init__(self, services: Services, people: People) -> None:
        jobs, code, data = services.jobs, services.code, services.data_sets
        assert jobs is not None
        assert code is not None
        assert data is not None
        self._data = Data(jobs, code, data, people)
        self._projects = Projects(jobs, people)
        self._experiments = Experiments(jobs, code, self._data, people, services.public_url)
        self._modules = Modules(jobs, code, self._data, people)
        self._resources = Resources(jobs, code, data, self._modules, self._data, self._experiments, people)
        self._tus = Tus(data, services.public_url)

    def methods(self, parts: list[str]) -> Methods:
        experiments, modules, data, resources = self._experiments, self._modules, self._data, self._resources
        match parts:
            case ["projects"]:
                return {"GET": _own(self._projects.all)}
            case ["projects", "id", identity]:
                return {"GET": _own(self._projects.by_id, identity)}
            case ["projects", owner, name]:
                return {"GET": _own(self._projects.one, owner, name)}
            case ["experiments"]:
                return {"GET": _own(experiments.of_project)}
            case ["experiments", "run_module"]:
                return {"POST": _own(experiments.run)}
            case ["experiments", "cancel", *name] if name:
                return {"GET": _own(experiments.cancel, "/".join(name)), "POST": _own(experiments.cancel, "/".join(name))}
            case ["experiments", "restart", *name] if name:
                return {"POST": _own(experiments.restart, "/".join(name))}
            case ["experiments", *name]:
                return {"GET": _own(experiments.one, "/".join(name)), "DELETE": _own(experiments.delete, "/".join(name))}
            case ["taskinstances", name]:
                return {"GET": _own(experiments.task, name)}
            case ["modules"]:
                return {"GET": _own(modules.all), "POST": _own(modules.create)}
            case ["modules", identity, "upload_v2_credentials"]:
                return {"POST": _own(data.credentials, identity)}
            case ["modules", *name]:
                return {"GET": _own(modules.one, "/".join(name)), "DELETE": _own(data.remove, "/".join(name))}
            case ["datasets"]:
                return {"GET": _own(data.data_sets)}
            case ["datasets", identity]:
                return {"POST": _own(data.add, identity)}
            case ["datasets", owner, name]:
                return {"GET": _own(data.data_set, owner, name)}
        return self._contents(parts, resources)

    def _contents(self, parts: list[str], resources: Resources) -> Methods:
        tus = self._tus
        match parts:
            case ["resources", identity]:
                return {"GET": _own(resources.one, identity)}
            case ["resources", identity, *path]:
                return {"GET": _own(resources.inside, identity, "/".join(path))}
            case ["download", "artifacts", kind, identity]:
                return {"GET": _own(resources.artifacts, kind, identity)}
            case ["upload"]:
                return {"POST": _open(tus.begin), "OPTIONS": _open(tus.options)}
            case ["upload", identity]:
                return {
                    "GET": _open(tus.look, identity),  # HEAD, as tus has it
                    "PATCH": _open(tus.append, identity),
                    "DELETE": _open(tus.discard, identity),
                    "OPTIONS": _open(tus.options, identity),
                }
        return {}


_METHODS = ("GET", "POST", "PATCH", "DELETE", "PUT", "OPTIONS")


async def _version(request: Request) -> Answer:
    """Whatever version asks is the latest: an older or newer client is neither stopped nor told to upgrade (requirement F1)."""
    asking = (request.header(_ORIGINAL) or b"").decode("latin-1")
    return success({"latest_version": asking if asking.replace(".", "").isalnum() else "0.11.17", "min_version": "0.0.1"})


async def _environments(request: Request) -> Answer:
    return success(environment_names.listed())


async def _no_jobs(request: Request) -> Answer:
    raise ServingError(
        Kind.FORBIDDEN, "this server runs no jobs: they are off, or it is open to other machines and was started without --jobs on"
    )


def _own(handler: Handler, *args: str) -> Route:
    return Route(handler, Access.JOBS, args)


def _open(handler: Handler, *args: str) -> Route:
    """For calls that bring the password of an upload in place of a key."""
    return Route(handler, Access.PUBLIC, args)
