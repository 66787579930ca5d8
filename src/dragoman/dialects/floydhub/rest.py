"""FloydHub's REST API below /api/v1: which path means what. Made by the server, once.

Submarine's API has the same prefix and other first words. A host with a slash at its end makes clients ask for //api/v1, which is the same.
"""

from dragoman.core.errors import ServingError
from dragoman.dialects import Access, Answer, Handler, Request, Route, Services, chosen, path_text
from dragoman.dialects.floydhub.answers import refusal, success
from dragoman.dialects.floydhub.people import People

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


class FloydHub:
    """A Dialect."""

    name = "floydhub"
    prefixes: tuple[str, ...] = (*(f"/api/v1/{word}" for word in _WORDS), "//api/v1")

    def __init__(self, services: Services) -> None:
        self._people = People(services.accounts)

    def route(self, request: Request) -> Route:
        return chosen(request, self._methods(request))

    def refuse(self, request: Request, error: ServingError) -> Answer:
        return refusal(error, self._methods(request) if error.what == "method" else ())

    def _methods(self, request: Request) -> Methods:
        """What a path has, by method; nothing for a path that does not exist."""
        raw = request.raw_path.removeprefix(b"/") if request.raw_path.startswith(b"//") else request.raw_path
        parts = [path_text(part) for part in raw.split(b"/")[3:]]
        if len(parts) > 1 and not parts[-1]:  # one slash at the end changes nothing
            parts.pop()
        if not all(parts):
            return {}
        people = self._people
        match parts:
            case ["cli_version"]:
                return {"GET": Route(_version, Access.PUBLIC)}
            case ["user"]:
                return {"GET": _own(people.me)}
            case ["user", "login"]:
                return {"POST": Route(people.login, Access.PUBLIC)}
        return {}


async def _version(request: Request) -> Answer:
    """Whatever version asks is the latest: an older or newer client is neither stopped nor told to upgrade (requirement F1)."""
    asking = (request.header(b"x-floydhub-cli-version") or b"").decode("latin-1")
    return success({"latest_version": asking if asking.replace(".", "").isalnum() else "0.11.17", "min_version": "0.0.1"})


def _own(handler: Handler, *args: str) -> Route:
    return Route(handler, Access.JOBS, args)
