"""MLflow's REST API as a dialect: its registry, artifacts, and as much tracking as logging a model takes (Submarine sheet section 6, R10, R14).

Only the table of routes is here; the modules beside it have the handlers. The scoring server's paths are
another dialect's.
"""

from collections.abc import Iterable, Mapping

from dragoman.core.errors import ServingError
from dragoman.dialects import Answer, Request, Route, Services, method_error, path_error
from dragoman.dialects.mlflow import errors
from dragoman.dialects.mlflow.artifacts import Artifacts
from dragoman.dialects.mlflow.experiments import Experiments
from dragoman.dialects.mlflow.logged import LoggedModels
from dragoman.dialects.mlflow.models import Models
from dragoman.dialects.mlflow.runs import Runs
from dragoman.dialects.mlflow.versions import Versions
from dragoman.dialects.mlflow.wire import Endpoint, segments

_ARTIFACTS = "mlflow-artifacts"


class MLflowRegistry:
    """A Dialect."""

    name = "mlflow_registry"
    prefixes: tuple[str, ...] = ("/api/2.0/mlflow", "/api/2.0/preview/mlflow", f"/api/2.0/{_ARTIFACTS}", "/api/3.0/mlflow")
    """The preview's paths are those of clients of MLflow 1. Nothing is below 3.0 yet: its clients ask there what else a server can do."""

    def __init__(self, services: Services) -> None:
        self._artifacts = Artifacts(services)
        self._fixed: dict[tuple[str, ...], dict[str, Route]] = {}
        self._open: list[tuple[tuple[str, ...], dict[str, Route]]] = []
        for part in (Models, Versions, Experiments, Runs, LoggedModels):
            self._add(part(services).endpoints())

    def route(self, request: Request) -> Route:
        methods = self._methods(request)
        if not methods:
            raise path_error(request)
        route = methods.get(request.method)
        if route is None:
            raise method_error(request, methods)
        return route

    def refuse(self, request: Request, error: ServingError) -> Answer:
        return errors.refusal(error, self._methods(request) if error.what == "method" else ())

    def _add(self, endpoints: Iterable[Endpoint]) -> None:
        for endpoint in endpoints:
            path = tuple(endpoint.path.split("/"))
            methods = self._fixed.setdefault(path, {})
            if "{}" in path and not methods:
                self._open.append((path, methods))
            for method in endpoint.methods:
                methods[method] = Route(endpoint.handler, endpoint.access)

    def _methods(self, request: Request) -> Mapping[str, Route]:
        """What a path has, by method; nothing for a path that does not exist."""
        parts = segments(request.raw_path)
        if len(parts) < 4:
            return {}
        _, _, api, *rest = parts
        if rest[:1] == [_ARTIFACTS]:
            return self._artifacts.methods(rest[2:]) if rest[1:2] == ["artifacts"] else {}
        if api == "3.0":
            return {}
        path = tuple(rest[2:] if rest[0] == "preview" else rest[1:])
        found = self._fixed.get(path)
        if found is not None:
            return found
        for pattern, methods in self._open:
            if len(pattern) == len(path) and all(known in ("{}", part) for known, part in zip(pattern, path, strict=True)):
                args = tuple(part for known, part in zip(pattern, path, strict=True) if known == "{}")
                return {method: Route(route.handler, route.access, args) for method, route in methods.items()}
        return {}
