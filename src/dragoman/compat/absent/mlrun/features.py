"""A logged model's schema: features in order, each with a name and MLRun's word for its type."""

from collections.abc import Iterator
from typing import Any


class Feature:
    def __init__(self, value_type: Any = None, dims: Any = None, description: Any = None, *, name: str = "", **more: Any) -> None:
        self.name = name
        self.value_type: str = str(value_type or "str")
        self.dims = dims
        self.description = description
        self.labels: dict[str, Any] = more.get("labels") or {}

    @classmethod
    def from_dict(cls, document: Any) -> "Feature":
        """A feature as model_spec.yaml writes it. Raises ValueError for one without a name."""
        if not isinstance(document, dict) or not isinstance(document.get("name"), str):
            raise ValueError(f"a feature of a model needs a name and a value_type, this one is {document!r}")  # noqa: TRY004 # a fault of the file
        return cls(document.get("value_type"), document.get("dims"), document.get("description"), name=document["name"])

    def to_dict(self) -> dict[str, Any]:
        described = {"name": self.name, "value_type": self.value_type}
        return described | ({"dims": self.dims} if self.dims else {})


class Features(list[Feature]):
    """Found by place or by name."""

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return next(each for each in self if each.name == key)
        return super().__getitem__(key)

    def keys(self) -> list[str]:
        return [each.name for each in self]

    def values(self) -> Iterator[Feature]:
        return iter(self)

    def to_dict(self) -> list[dict[str, Any]]:
        return [each.to_dict() for each in self]
