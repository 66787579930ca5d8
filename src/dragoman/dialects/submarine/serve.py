"""The serve API: one call makes a registered version answer predictions, another ends that. Called through rest.py.

The answer comes when every worker has the version ready (requirement R4), so `result.url` can be used at once.
"""

from urllib.parse import quote

from dragoman.core.errors import Kind, ServingError
from dragoman.dialects import Answer, Request, Services
from dragoman.dialects.addresses import base_url
from dragoman.dialects.submarine import bodies, fields, shapes
from dragoman.dialects.submarine.envelope import success


class Serve:
    def __init__(self, services: Services) -> None:
        self._catalog = services.catalog
        self._deployments = services.deployments
        self._public_url = services.public_url

    async def create(self, request: Request) -> Answer:
        name, version = await _asked(request)
        await self._deployments.serve(name, version)
        return success("Create a serve instance", {"url": self._url(request, name, version)})

    async def delete(self, request: Request) -> Answer:
        name, version = await _asked(request)
        await self._deployments.stop(name, version)
        return success("Delete the model serve instance", None)

    async def create_early(self, request: Request) -> Answer:
        """As Submarine 0.6.0 was asked, which said no word and answered the path of the predictor: `/invocations` follows it."""
        name, version = await _asked(request)
        await self._deployments.serve(name, version)
        return success(None, {"url": _place(name, version)})

    async def delete_early(self, request: Request) -> Answer:
        """As Submarine 0.6.0 was asked: with everything in the query. `namespace` was the cluster's."""
        asked = bodies.query(request)
        name, version = fields.name(asked, "modelName"), fields.version(asked, "modelVersion")
        await self._deployments.stop(name, version)
        return success(None, {"url": _place(name, version)})

    async def all(self, request: Request) -> Answer:
        served = [shapes.deployment(each, self._url(request, each.model, each.version)) for each in self._deployments.deployed()]
        return success("List all serve instances", served)

    async def of_model(self, request: Request, name: str) -> Answer:
        await self._catalog.model(name)
        found = [each for each in self._deployments.deployed() if each.model == name]
        return success("List the serve instances", [shapes.deployment(each, self._url(request, name, each.version)) for each in found])

    async def one(self, request: Request, name: str, version: str) -> Answer:
        """Raises NOT_FOUND for a version that is registered and not served, too: there is no such instance."""
        digits = fields.in_path(name, version)
        await self._catalog.version(name, digits)
        for each in self._deployments.deployed():
            if (each.model, each.version) == (name, digits):
                return success("Get the serve instance", shapes.deployment(each, self._url(request, name, digits)))
        raise ServingError(Kind.NOT_FOUND, f"model {name!r} version {digits} is registered, but it is not served", what="version")

    def _url(self, request: Request, name: str, version: str) -> str:
        return f"{base_url(request, self._public_url)}{_place(name, version)}/invocations"


def _place(name: str, version: str) -> str:
    """The path below which every protocol answers for one version."""
    return f"/serve/{quote(name, safe='')}-{quote(version, safe='')}"


async def _asked(request: Request) -> tuple[str, str]:
    body = await bodies.document(request)
    return fields.name(body, "modelName"), fields.version(body, "modelVersion")
