"""Submarine's REST API: which path means what. Made by the server, once.

Every answer below the prefixes is the envelope, also where there is no such path or method (requirement R1). Predictions are answered
elsewhere: `result.url` leads to MLflow's scoring, and the paths beside it to every other protocol (dialects/prefixes.py).
"""

from dragoman.core.errors import ServingError
from dragoman.dialects import Access, Answer, Handler, Request, Route, Services, chosen, path_text
from dragoman.dialects.submarine.envelope import refusal, success
from dragoman.dialects.submarine.records import Models, Versions
from dragoman.dialects.submarine.serve import Serve

Methods = dict[str, Route]


class Submarine:
    """A Dialect."""

    name = "submarine"
    prefixes: tuple[str, ...] = ("/api/v1/serve", "/api/v1/registered-model", "/api/v1/model-version", "/api/v1/experiment/serve")

    def __init__(self, services: Services) -> None:
        self._serve = Serve(services)
        self._models = Models(services)
        self._versions = Versions(services)

    def route(self, request: Request) -> Route:
        return chosen(request, self._methods(request))

    def refuse(self, request: Request, error: ServingError) -> Answer:
        return refusal(error, self._methods(request) if error.what == "method" else ())

    def _methods(self, request: Request) -> Methods:
        """What a path has, by method; nothing for a path that does not exist."""
        parts = [path_text(part) for part in request.raw_path.split(b"/")[3:]]
        if len(parts) > 1 and not parts[-1]:  # one slash at the end changes nothing
            parts.pop()
        if not all(parts):
            return {}
        serve, models, versions = self._serve, self._models, self._versions
        match parts:
            case ["serve" | "registered-model" | "model-version", "ping"]:
                return {"GET": Route(_ping, Access.PUBLIC)}
            case ["serve"]:
                return {"POST": _change(serve.create), "DELETE": _change(serve.delete), "GET": _look(serve.all)}
            case ["experiment", "serve"]:
                return {"POST": _change(serve.create_early), "DELETE": _change(serve.delete_early)}
            case ["serve", name]:
                return {"GET": _look(serve.of_model, name)}
            case ["serve", name, version]:
                return {"GET": _look(serve.one, name, version)}
            case ["registered-model"]:
                return {"POST": _change(models.create), "GET": _look(models.all)}
            case ["registered-model", "tag"]:
                return {"POST": _change(models.tag), "DELETE": _change(models.untag)}
            case ["registered-model", name]:
                return {
                    "GET": _look(models.one, name),
                    "PATCH": _change(models.change, name),
                    "DELETE": _change(models.delete, name),
                }
            case ["model-version"]:
                return {"POST": _change(versions.create), "PATCH": _change(versions.change)}
            case ["model-version", "tag"]:
                return {"POST": _change(versions.tag), "DELETE": _change(versions.untag)}
            case ["model-version", name]:
                return {"GET": _look(versions.of_model, name)}
            case ["model-version", name, version]:
                return {"GET": _look(versions.one, name, version), "DELETE": _change(versions.delete, name, version)}
        return {}


async def _ping(request: Request) -> Answer:
    return success(None, "Pong")


def _look(handler: Handler, *args: str) -> Route:
    """What people said of a model is for those who may use it."""
    return Route(handler, Access.INFER, args)


def _change(handler: Handler, *args: str) -> Route:
    return Route(handler, Access.ADMIN, args)
