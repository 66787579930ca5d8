"""`models:/` URIs: a version of a registered model by its number, stage or alias, or a model that was logged in MLflow's tracking. Pure.

Read by the catalog for this server's registry, and by mlflow_registries.py for those of others.
"""

import re
from dataclasses import dataclass

from dragoman.core.errors import invalid
from dragoman.serving.roots import check_source, scheme_of
from dragoman.serving.settings import quoted

LATEST = "latest"
"""In the place of a version: the highest."""
_SCHEME = "models"
_LOGGED = re.compile(r"m-[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class ModelUri:
    """Either `logged`, the id of a logged model, or `name` with `version` (a number, a stage, or `latest`) or `alias`."""

    name: str = ""
    version: str = ""
    alias: str = ""
    logged: str = ""

    @property
    def numbered(self) -> bool:
        return self.version.isascii() and self.version.isdigit()

    @property
    def pinned(self) -> bool:
        """Whether it means the same files for ever."""
        return self.numbered or bool(self.logged)


def is_model_uri(text: str) -> bool:
    """Whether a source is one of these, well-formed or not."""
    return scheme_of(text) == _SCHEME


def parse_uri(uri: str) -> ModelUri:
    """Raises INVALID_INPUT (what="source") for what names neither."""
    rest = check_source(uri).partition(":")[2].lstrip("/")
    name, slash, version = rest.partition("/")
    alias = ""
    if not slash:
        if is_model_uri(uri) and _LOGGED.fullmatch(rest):
            return ModelUri(logged=rest)
        name, _, alias = rest.rpartition("@")
    if not is_model_uri(uri) or not name or bool(version) == bool(alias) or "/" in version:
        raise invalid(
            f"{quoted(uri)} names no model version, expected models:/NAME/VERSION, models:/NAME/STAGE or models:/NAME@ALIAS", "source"
        )
    return ModelUri(name, version, alias)
