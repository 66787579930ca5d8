"""Which model a deployment means: a registered one, one that lies in a model root, or a path or URI. Called by service.py.

What is found is an origin, as every wish has one: the reconcilers of all workers read it again, under the roots and the trust of then.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.core.lifecycle import version_order
from dragoman.serving.catalog import Catalog
from dragoman.serving.deployments import Deployments
from dragoman.serving.gradient.records import Record
from dragoman.serving.model_uris import is_model_uri
from dragoman.serving.origins import Origin, Origins
from dragoman.serving.roots import ARTIFACTS, scheme_of
from dragoman.serving.settings import quoted
from dragoman.serving.words import check_new_name

_BASE, _NAME, _USUAL_NAME = "MODEL_BASE_PATH", "MODEL_NAME", "model"
"""The variables by which TensorFlow Serving's image is told where its model lies: BASE/NAME."""
_WAYS = "--modelId NAME[:VERSION] of a registered model, or --containerModelPath or --modelUrl with a path below a model root"


@dataclass(frozen=True, slots=True)
class Model:
    """What a deployment serves. `revision` changes when it has to be loaded anew."""

    version: str
    revision: str
    origin: Origin


class Models:
    def __init__(self, catalog: Catalog, deployments: Deployments, origins: Origins) -> None:
        self._catalog = catalog
        self._deployments = deployments
        self._origins = origins

    async def fetched(self, fields: Mapping[str, Any], deployment: str) -> dict[str, Any]:
        """The fields with the registered model that a remote `modelUrl` became; without one as they are. It is fetched before this returns.

        Raises INVALID_INPUT (what="source") for what cannot be fetched or is no model.
        """
        url = fields.get("modelUrl", "")
        if not url or fields.get("modelId") or is_model_uri(url) or scheme_of(url) in ("", "file", ARTIFACTS):
            return dict(fields)
        name = fields["name"]
        try:
            check_new_name(name)
        except ServingError:
            name = deployment
        try:
            await self._catalog.create_model(name)
        except ServingError as error:
            if error.kind is not Kind.CONFLICT or error.what != "model":
                raise
        version = await self._catalog.create_version(name, url, description=f"fetched for deployment {deployment}")
        return {**fields, "modelId": f"{name}:{version.version}"}

    async def find(self, record: Record) -> Model:
        """What the deployment serves if it is started now. Nothing is loaded, but files are read and checked.

        Raises NOT_FOUND (what="model" or "version"), INVALID_INPUT and UNSUPPORTED, in the words of whoever refuses.
        """
        version, origin = await self._origin(record)
        if record.instances is not None:
            origin = {**origin, "instances": record.instances}
        spec = await self._origins.open_spec(record.id, version, origin)
        if record.get("deploymentType") == "ONNX" and spec.runtime != "onnx":
            raise invalid(
                f"deploymentType is ONNX, but the model's runtime is {spec.runtime or 'an ensemble'}; deploy it as TFServing",
                "deploymentType",
            )
        return Model(version, f"{spec.revision}.{record.instances or ''}", origin)

    async def _origin(self, record: Record) -> tuple[str, Origin]:
        model, url, path = record.get("modelId"), record.get("modelUrl"), record.get("containerModelPath")
        if model:
            return await self._named(model)
        if is_model_uri(url):
            return await self._named(url)
        environment = record.fields.get("env", {})
        if not url and not path and _BASE in environment:
            path = f"{environment[_BASE]}/{environment.get(_NAME) or _USUAL_NAME}"
        if not url and not path:
            raise invalid(
                f"a deployment of type {record.get('deploymentType') or 'TFServing'} needs a model here: {_why(record)}{_WAYS}", "modelId"
            )
        return _highest((await self._origins.at(record.id, url or path)).versions)

    async def _named(self, model: str) -> tuple[str, Origin]:
        if is_model_uri(model):
            found = await self._catalog.resolve(model)
            return found.version, {"model": found.model, "version": found.version}
        name, _, version = model.partition(":")
        number = await self._deployments.version_of(name, version)
        if number is not None:
            return number, {"model": name, "version": number}
        below = None if version else await self._origins.below(name)
        if below is None:
            raise ServingError(Kind.NOT_FOUND, f"there is no model {quoted(model)}: expected {_WAYS}", what="model")
        return _highest(below.versions)


def _highest(versions: Mapping[str, Origin]) -> tuple[str, Origin]:
    version = max(versions, key=version_order)
    return version, versions[version]


def _why(record: Record) -> str:
    if record.get("deploymentType") in ("Custom", "Flask"):
        return "its image and command are not run, so write the model as a Python model or name one of any other format; "
    return ""
