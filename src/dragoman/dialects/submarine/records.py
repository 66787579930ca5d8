"""The registry as Submarine's clients know it: registered models, their versions, tags. Called through rest.py.

The records are those of the one registry: what MLflow's clients or `dragoman build` registered is here, too (requirement R10).
"""

from dragoman.core.errors import invalid
from dragoman.dialects import Answer, Request, Services
from dragoman.dialects.submarine import bodies, fields, shapes
from dragoman.dialects.submarine.envelope import success


class Models:
    """/api/v1/registered-model"""

    def __init__(self, services: Services) -> None:
        self._catalog = services.catalog

    async def create(self, request: Request) -> Answer:
        body = await bodies.document(request)
        name, description = fields.name(body, "name"), fields.text(body, "description") or ""
        made = await self._catalog.create_model(name, description=description, tags=fields.tags(body))
        return success("Create a registered model instance", shapes.model(made))

    async def all(self, request: Request) -> Answer:
        models = await self._catalog.models()
        return success("List all registered model instances", [shapes.model(each) for each in models])

    async def one(self, request: Request, name: str) -> Answer:
        return success("Get the registered model instance", shapes.model(await self._catalog.model(name)))

    async def change(self, request: Request, name: str) -> Answer:
        body = await bodies.document(request)
        new_name = fields.name(body, "name") if body.get("name") is not None else name
        description = fields.text(body, "description")
        changed = await self._catalog.change_model(name, new_name=None if new_name == name else new_name, description=description)
        return success("Update the registered model instance", shapes.model(changed))

    async def delete(self, request: Request, name: str) -> Answer:
        await self._catalog.remove_model(name)
        return success("Delete the registered model instance", None)

    async def tag(self, request: Request) -> Answer:
        asked = bodies.query(request)
        name = fields.name(asked, "name")
        await self._catalog.tag_model(name, fields.tag(asked.get("tag")), "")
        return success("Create a registered model tag instance", None)

    async def untag(self, request: Request) -> Answer:
        asked = bodies.query(request)
        name, tag = fields.name(asked, "name"), fields.tag(asked.get("tag"))
        model = await self._catalog.model(name)
        await self._catalog.tag_model(name, shapes.key_of(tag, model.tags.items()), None)
        return success("Delete a registered model tag instance", None)


class Versions:
    """/api/v1/model-version"""

    def __init__(self, services: Services) -> None:
        self._catalog = services.catalog

    async def create(self, request: Request) -> Answer:
        """Registers the model that lies at `baseDir`; the registry numbers the version, and says of what type it is."""
        base_dir = bodies.query(request).get("baseDir", "")
        if not base_dir:
            raise invalid("the query has no baseDir, expected the folder of the model", "source")
        body = await bodies.document(request)
        name = fields.name(body, "name")
        facts = {
            "user_id": fields.text(body, "userId", needed=True),
            "experiment_id": fields.text(body, "experimentId", needed=True),
            "dataset": fields.text(body, "dataset"),
        }
        made = await self._catalog.create_version(
            name,
            base_dir,
            description=fields.text(body, "description") or "",
            tags=fields.tags(body),
            facts={key: value for key, value in facts.items() if value is not None},
        )
        return success("Create a model version instance", shapes.version(made))

    async def of_model(self, request: Request, name: str) -> Answer:
        await self._catalog.model(name)
        versions = await self._catalog.versions(name)
        return success("List all model version instances", [shapes.version(each) for each in versions])

    async def one(self, request: Request, name: str, version: str) -> Answer:
        return success("Get the model version instance", shapes.version(await self._catalog.version(name, fields.in_path(name, version))))

    async def change(self, request: Request) -> Answer:
        body = await bodies.document(request)
        name, version = fields.name(body, "name"), fields.version(body, "version")
        stage, description, dataset = (fields.text(body, field) for field in ("currentStage", "description", "dataset"))
        facts = {} if dataset is None else {"dataset": dataset}
        changed = await self._catalog.change_version(name, version, stage=stage, description=description, facts=facts)
        return success("Update the model version instance", shapes.version(changed))

    async def delete(self, request: Request, name: str, version: str) -> Answer:
        await self._catalog.remove_version(name, fields.in_path(name, version))
        return success("Delete the model version instance", None)

    async def tag(self, request: Request) -> Answer:
        asked = bodies.query(request)
        name, version = fields.name(asked, "name"), fields.version(asked, "version")
        await self._catalog.tag_version(name, version, fields.tag(asked.get("tag")), "")
        return success("Create a model version tag instance", None)

    async def untag(self, request: Request) -> Answer:
        """Of this version only; the original took the tag from all versions of the model."""
        asked = bodies.query(request)
        name, version, tag = fields.name(asked, "name"), fields.version(asked, "version"), fields.tag(asked.get("tag"))
        record = await self._catalog.version(name, version)
        await self._catalog.tag_version(name, version, shapes.key_of(tag, record.tags.items()), None)
        return success("Delete a model version tag instance", None)
